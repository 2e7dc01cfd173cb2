"""Diff: state × state → changes, layer by layer. Pure.

A change is the smallest difference that could be carried from one state to the other alone: one package,
one variable, one parameter, one data path, one code file, the image.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from runner.state.digest import digest_value
from runner.state.spec import (
    AccessSeen,
    Check,
    Contract,
    Image,
    Observed,
    SecretSeen,
    SourceSeen,
    Stage,
    State,
    StateSpec,
    Wheel,
)

LAYERS = ("code", "params", "image", "dependencies", "env", "data", "schema", "model", "access", "host")
STAGES = "stages."
_SHOWN_DIGEST = 19

Files = Mapping[str, str]


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """`a` or `b` is absent where the thing itself is. `detail` tells more: the functions that changed in a file."""

    layer: str
    name: str
    a: str | None = None
    b: str | None = None
    detail: str = ""


class Side(msgspec.Struct, frozen=True):
    """One of the two: its spec and, as far as the store still has it, what the spec only names by digest.

    `code` maps each code file to its digest, and its kind if it is not plain; None where the list is lost. `outputs`
    maps paths to digests; None where nothing was recorded. `unknown` maps layers that could not be looked at to why.
    """

    spec: StateSpec
    code: Files | None = None
    outputs: Files | None = None
    unknown: Mapping[str, str] = {}


class Diff(msgspec.Struct, frozen=True):
    """`equal` is that of the state digests, where access was not seen to differ. `host` lists observations that differ,
    which are no conditions; `contract` what the two declare otherwise, which moves no output but may move a verdict;
    `outputs` those of which both runs have one that differs. `unknown` maps layers that could not be looked at to why.
    """

    a: str
    b: str
    equal: bool
    changes: tuple[Change, ...]
    host: tuple[Change, ...]
    outputs: tuple[Change, ...] = ()
    unknown: dict[str, str] = {}
    contract: tuple[Change, ...] = ()


def diff(a: Side, b: Side) -> Diff:
    """What differs between two states."""
    unknown = {**a.unknown, **b.unknown}
    changes = list(state_changes(a.spec.state, b.spec.state, a.code, b.code, a.spec.observed, b.spec.observed))
    access = [*access_changes(a.spec.observed.access, b.spec.observed.access), *_unreadable(a.spec, b.spec)]
    return Diff(
        a=a.spec.run.id,
        b=b.spec.run.id,
        equal=not unknown and a.spec.digest == b.spec.digest and not access,
        changes=tuple(change for change in (*changes, *access) if change.layer not in unknown),
        host=tuple(_fields("host", a.spec.observed.host, b.spec.observed.host)),
        outputs=tuple(_mapping("outputs", a.outputs or {}, b.outputs or {}, shorten=True)) if b.outputs else (),
        unknown=unknown,
        contract=tuple(contract_changes(a.spec.contract, b.spec.contract)),
    )


def contract_changes(a: Contract, b: Contract) -> Iterator[Change]:
    """An output or check that one of the two alone declares; of what both do, each setting that differs."""
    for part, before, after in (("outputs", a.outputs, b.outputs), ("checks", _named(a.checks), _named(b.checks))):
        for name in sorted(before.keys() | after.keys()):
            old, new = before.get(name), after.get(name)
            if old is None or new is None:
                yield Change("contract", f"{part}.{name}", "declared" if old else None, "declared" if new else None)
            else:
                yield from _mapping("contract", *(_settings(one, f"{part}.{name}.") for one in (old, new)))
    yield from _mapping("contract", *(flatten(one.metrics, "metrics.") for one in (a, b)))
    if a.preprocessing != b.preprocessing:
        yield Change("contract", "preprocessing", _text(a.preprocessing), _text(b.preprocessing))


def _named(checks: Iterable[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def _settings(declared: msgspec.Struct, prefix: str) -> dict[str, str]:
    """What is left at its default stands beside what is not, and what is absent or empty is left out."""
    values = {name: msgspec.to_builtins(value) for name, value in msgspec.structs.asdict(declared).items()}
    return flatten({name: value for name, value in values.items() if value not in (None, (), [], {})}, prefix)


def state_changes(
    a: State, b: State, code_a: Files | None, code_b: Files | None, seen_a: Observed, seen_b: Observed
) -> Iterator[Change]:
    """In the order of the layers, each sorted by name."""
    if a.command != b.command:
        yield Change("code", "command", shlex.join(a.command) or None, shlex.join(b.command) or None)
    yield from _stages(a, b)
    yield from _code(a, b, code_a, code_b)
    yield from _params(a, b)
    yield from _image(a.image, b.image, seen_a, seen_b)
    yield from _dependencies(a, b)
    yield from _mapping("env", a.env, b.env)
    yield from _mapping("data", a.data, b.data, shorten=True)
    yield from _model(a, b, seen_a, seen_b)
    yield from _access(a, b)


def access_changes(a: AccessSeen, b: AccessSeen) -> Iterator[Change]:
    """What was seen of access to differ, though it is no condition of the state: credentials, as far as fingerprints
    of one key tell, and sources that could be read in one of the two only."""
    for name in sorted(a.secrets.keys() & b.secrets.keys()):
        before, after = a.secrets[name], b.secrets[name]
        if before.key is not None and before.key == after.key and before.fingerprint != after.fingerprint:
            yield Change("access", name, _secret_words(before), _secret_words(after), "the credential changed")
    now = {source.uri: source for source in b.sources}
    for source in a.sources:
        other = now.get(source.uri)
        if other and other.reachable != source.reachable:
            yield Change("access", source.uri, source_words(source), source_words(other))


def _unreadable(a: StateSpec, b: StateSpec) -> Iterator[Change]:
    """Secrets that both need, and that could be read for one only."""
    before, after = a.observed.access.secrets, b.observed.access.secrets
    for name in sorted({*a.state.secrets} & {*b.state.secrets} & (before.keys() ^ after.keys())):
        then, now = (_secret_words(side[name]) if name in side else None for side in (before, after))
        yield Change("access", name, then, now, "the credential cannot be read")


def _secret_words(secret: SecretSeen) -> str:
    return f"{secret.source} (fingerprint {secret.fingerprint.rpartition(':')[2][:8]})"


def source_words(source: SourceSeen) -> str:
    """Whether a source can be read, and as whom."""
    return (
        f"readable as {source.identity}" if source.reachable else f"not readable as {source.identity}: {source.status}"
    )


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested parameters by dotted key, each value as JSON. A key that holds a dot itself, or nothing, is quoted."""
    found: dict[str, str] = {}
    for key, value in values.items():
        name = prefix + (f'"{key}"' if "." in key or '"' in key or not key else key)
        if isinstance(value, Mapping) and value:
            found |= flatten(value, f"{name}.")
        else:
            found[name] = msgspec.json.encode(value).decode()
    return found


def _stages(a: State, b: State) -> Iterator[Change]:
    """A stage that is in one only or has other commands or paths; else the order, which is the stages' own."""
    before, after = ({stage.name: stage for stage in state.stages} for state in (a, b))
    changed = [name for name in dict.fromkeys((*before, *after)) if before.get(name) != after.get(name)]
    for name in changed:
        old, new = _stage_texts(before.get(name), after.get(name))
        yield Change("code", STAGES + name, old, new)
    if not changed and a.stages != b.stages:
        yield Change("code", "stages", " → ".join(before), " → ".join(after))


def _stage_texts(a: Stage | None, b: Stage | None) -> Iterator[str | None]:
    """What differs between the two; of one that is in one only, its command."""
    fields = [name for name in ("command", "deps", "outs") if a and b and getattr(a, name) != getattr(b, name)]
    for stage in (a, b):
        told = [f"{name} {shlex.join(getattr(stage, name)) or 'none'}" for name in fields or ["command"] if stage]
        yield "; ".join(told).removeprefix("command ") if stage else None


def _code(a: State, b: State, files_a: Files | None, files_b: Files | None) -> Iterator[Change]:
    if a.code == b.code:
        return
    if files_a is None or files_b is None:
        yield Change("code", "files", _short(a.code), _short(b.code))
        return
    yield from _mapping("code", files_a, files_b, shorten=True)


def _params(a: State, b: State) -> Iterator[Change]:
    changes = list(_mapping("params", *(flatten(state.params.values) if state.params else {} for state in (a, b))))
    yield from changes
    files = [(state.params.file or "") if state.params else "" for state in (a, b)]
    if files[0] != files[1]:
        yield Change("params", "file", files[0] or None, files[1] or None)
    elif not changes and (a.params is None or b.params is None):
        yield from _mapping("params", *({} if state.params is None else {"params": "{}"} for state in (a, b)))
    elif not changes and a.params and b.params and a.params.sha256 != b.params.sha256:
        yield Change("params", f"{files[0]} (text only)", _short(a.params.sha256), _short(b.params.sha256))


def _image(a: Image, b: Image, seen_a: Observed, seen_b: Observed) -> Iterator[Change]:
    if a == b:
        return
    if (a.platform, a.diff_ids) != (b.platform, b.diff_ids):
        yield Change("image", "image", _image_name(a, seen_a), _image_name(b, seen_b))
    for change in _mapping("image", a.config.env, b.config.env):
        yield msgspec.structs.replace(change, name=f"config.env.{change.name}")
    for name in ("user", "workdir"):
        before, after = getattr(a.config, name), getattr(b.config, name)
        if before != after:
            yield Change("image", f"config.{name}", before, after)
    entrypoints = [None if one is None else shlex.join(one) for one in (a.config.entrypoint, b.config.entrypoint)]
    if entrypoints[0] != entrypoints[1]:
        yield Change("image", "config.entrypoint", entrypoints[0], entrypoints[1])


def _image_name(image: Image, seen: Observed) -> str:
    layers = _short(digest_value(image.diff_ids))
    return f"{seen.image.reference or 'image'} ({image.platform}, {len(image.diff_ids)} layers, {layers})"


def _dependencies(a: State, b: State) -> Iterator[Change]:
    before, after = a.dependencies, b.dependencies
    for name in ("python", "interpreter", "system_packages", "project"):
        if getattr(before, name) != getattr(after, name):
            yield Change("dependencies", name, _text(getattr(before, name)), _text(getattr(after, name)))
    yield from _packages(before.locked or (), after.locked or ())
    if (before.locked is None) != (after.locked is None):
        words = ["what the image holds" if one.locked is None else "locked wheels" for one in (before, after)]
        yield Change("dependencies", "locked", words[0], words[1])


def _packages(a: Iterable[Wheel], b: Iterable[Wheel]) -> Iterator[Change]:
    """By version; only where that is equal by wheel, and then by digest."""
    before, after = {wheel.name: wheel for wheel in a}, {wheel.name: wheel for wheel in b}
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        if old is None or new is None or old.version != new.version:
            yield Change("dependencies", name, old.version if old else None, new.version if new else None)
        elif old.wheel != new.wheel:
            yield Change("dependencies", name, old.wheel, new.wheel)
        else:
            yield Change(
                "dependencies",
                name,
                f"{old.version} {_short(old.sha256)}",
                f"{new.version} {_short(new.sha256)}",
            )


def _model(a: State, b: State, seen_a: Observed, seen_b: Observed) -> Iterator[Change]:
    """A reference is told beside the bytes that it named. It is no condition: another one alone is no change."""
    for change in _mapping("model", a.model, b.model, shorten=True):
        before, after = (
            seen.model[change.name].reference if change.name in seen.model else None for seen in (seen_a, seen_b)
        )
        yield msgspec.structs.replace(change, detail=_reference_words(before, after))


def _reference_words(before: str | None, after: str | None) -> str:
    if before is None and after is None:
        return ""
    if before == after:
        return f"{before} names other bytes than it did"
    return f"{before or 'no reference'} → {after or 'no reference'}"


def _access(a: State, b: State) -> Iterator[Change]:
    for name in ("network", "determinism"):
        before, after = getattr(a.access, name), getattr(b.access, name)
        if before != after:
            yield Change("access", name, before, after)
    yield from _fields("access", a.access.limits, b.access.limits, "limits.")
    for name in sorted(set(a.secrets) ^ set(b.secrets)):
        before, after = ("declared" if name in one.secrets else None for one in (a, b))
        yield Change("access", f"secrets.{name}", before, after)


def _fields(layer: str, a: msgspec.Struct, b: msgspec.Struct, prefix: str = "") -> Iterator[Change]:
    for name in a.__struct_fields__:
        before, after = getattr(a, name), getattr(b, name)
        if before != after:
            yield Change(layer, prefix + name, _text(before), _text(after))


def _mapping(layer: str, a: Mapping[str, str], b: Mapping[str, str], *, shorten: bool = False) -> Iterator[Change]:
    for name in sorted(a.keys() | b.keys()):
        before, after = a.get(name), b.get(name)
        if before != after:
            yield Change(layer, name, _short(before) if shorten else before, _short(after) if shorten else after)


def _short(digest: str | None) -> str | None:
    """A digest cut for reading; a word behind it stays."""
    return f"{digest.partition(' ')[0][:_SHOWN_DIGEST]}{''.join(digest.partition(' ')[1:])}" if digest else None


def _text(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, tuple):
        return " ".join(str(part) for part in value) or None
    return str(value).lower() if isinstance(value, bool) else str(value)
