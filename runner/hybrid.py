"""Hybrids: states between two states. Pure.

The changes are those that `diff` names. Each is carried from the bad state to the good one alone, but for those that
are one thing: all of the image, with its Python; a whole parameter file that cannot be taken apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from runner.diff import Change, flatten, state_changes
from runner.errors import UsageError
from runner.layers.params import parse
from runner.parting import Parted, part
from runner.state.digest import digest_bytes
from runner.state.spec import Access, Dependencies, Observed, Params, State, StateSpec, Wheel
from runner.state.yaml_writer import write_yaml

Key = tuple[str, str]
"""Layer and name of a change."""

IMAGE: Key = ("image", "image")
_WITH_IMAGE = ("python", "interpreter")
_OWN_FIELDS = ("system_packages", "project")
_PLATFORM = re.compile(r"([a-z]+)(?:\d+|_\d+_\d+)?_([a-z].*)")
_PARTED = (".json", ".yaml", ".yml")


class Hybrid(msgspec.Struct, frozen=True):
    """A state, what is observed of its parts, and files that it names and no store has yet."""

    state: State
    observed: Observed
    files: tuple[bytes, ...] = ()


class Between(msgspec.Struct, frozen=True):
    """What lies between two specs: the changes, sets of them that are one thing, and the parameter files' edits.
    `for_other` maps wheels that fit the Python of their own end only to those of the same release for the other's."""

    good: StateSpec
    bad: StateSpec
    changes: tuple[Change, ...]
    together: tuple[frozenset[int], ...]
    params: Parted | None = None
    for_other: Mapping[str, Wheel] = {}

    def hybrid(self, taken: Collection[int]) -> Hybrid:
        """The good state with these changes made to it."""
        if not taken:
            return Hybrid(self.good.state, self.good.observed)
        if len(taken) == len(self.changes):
            return Hybrid(self.bad.state, self.bad.observed)
        return _hybrid(self, {key_of(self.changes[item]) for item in taken})


def between(
    good: StateSpec, bad: StateSpec, texts: tuple[bytes, bytes] | None = None, shelf: Iterable[Wheel] = ()
) -> Between:
    """The code is one change here; it is taken apart by other means. `texts` are those of the parameter files, `shelf`
    has wheels that can be had, beside those of the two."""
    for_other = _for_other_python(good.state.dependencies, bad.state.dependencies, shelf)
    listed = state_changes(good.state, bad.state, None, None, good.observed, bad.observed)
    found = [change for change in listed if not (is_package(change) and change.a in for_other)]
    file = good.state.params.file if good.state.params else None
    parted = part(*texts, lambda content: flatten(parse(content, file))) if texts and file else None
    together = tuple(_together(good.state, bad.state, found, parted, for_other))
    return Between(good, bad, tuple(found), together, parted, for_other)


def _for_other_python(good: Dependencies, bad: Dependencies, shelf: Iterable[Wheel]) -> dict[str, Wheel]:
    """A wheel follows the image's Python where its release has one for either."""
    if good.python == bad.python or good.python is None or bad.python is None:
        return {}
    sides = ((good.locked or (), bad.python), (bad.locked or (), good.python))
    known = [*(good.locked or ()), *(bad.locked or ()), *shelf]
    found = {}
    for wheels, python in sides:
        for wheel in wheels:
            fitting = (one for one in known if _is_release_of(one, wheel) and fits_python(one.wheel, python))
            if not fits_any_python(wheel.wheel) and (other := next(fitting, None)):
                found[wheel.wheel] = other
    return found


def _is_release_of(one: Wheel, other: Wheel) -> bool:
    same = (one.name, one.version) == (other.name, other.version)
    return same and not platforms(one.wheel).isdisjoint(platforms(other.wheel))


def platforms(wheel: str) -> set[tuple[str, ...]]:
    """Of which family and machine a wheel is, whichever release of the C library it is for."""
    tags = wheel.removesuffix(".whl").rpartition("-")[2].split(".")
    return {found.groups() if (found := _PLATFORM.fullmatch(tag)) else (tag,) for tag in tags}


def key_of(change: Change) -> Key:
    return change.layer, change.name


def is_package(change: Change) -> bool:
    return change.layer == "dependencies" and change.name not in (*_WITH_IMAGE, *_OWN_FIELDS, "locked")


def _together(
    good: State, bad: State, changes: Sequence[Change], parted: Parted | None, for_other: Collection[str]
) -> Iterator[frozenset[int]]:
    places = {key_of(change): item for item, change in enumerate(changes)}
    yield frozenset(item for key, item in places.items() if _is_of_image(key))
    yield frozenset(item for key, item in places.items() if _is_of_steps(key))
    packages = {change.name: item for item, change in enumerate(changes) if is_package(change)}
    if ("dependencies", "locked") in places:
        yield frozenset({places["dependencies", "locked"], *packages.values()})
    if good.dependencies.python != bad.dependencies.python:
        bound = {packages[name] for name in _bound_to_python(good, bad, for_other) if name in packages}
        yield frozenset({places["dependencies", "python"]} | bound)
    own = {name: item for (layer, name), item in places.items() if layer == "params"}
    if own and parted:
        for edit in parted.edits:
            yield frozenset(own[name] for name in edit.keys)
    elif own and not _can_be_parted(good.params, bad.params):
        yield frozenset(own.values())
    elif own:
        yield from _nested(good.params, bad.params, own)


def _is_of_image(key: Key) -> bool:
    return key[0] == "image" or (key[0] == "dependencies" and key[1] in _WITH_IMAGE)


def _is_of_steps(key: Key) -> bool:
    """The command, and what else says what is run: not its files, nor anything that other layers carry."""
    return key[0] == "code" and key[1] != "files"


def _bound_to_python(good: State, bad: State, for_other: Collection[str]) -> set[str]:
    """Packages of which a wheel fits one Python only, and no other can be had, so that the two go together."""
    return {
        wheel.name
        for state in (good, bad)
        for wheel in state.dependencies.locked or ()
        if not fits_any_python(wheel.wheel) and wheel.wheel not in for_other
    }


def fits_any_python(wheel: str) -> bool:
    """Whether a wheel of that name is for every Python 3, as far as its tags say."""
    python, abi = wheel.removesuffix(".whl").split("-")[-3:-1]
    return abi == "abi3" or (abi == "none" and "py3" in python.split("."))


def fits_python(wheel: str, python: str) -> bool:
    """Whether a wheel of that name is for that Python, as far as its tags say."""
    tag = "cp" + "".join(python.split(".")[:2])
    return fits_any_python(wheel) or tag in wheel.removesuffix(".whl").split("-")[-3].split(".")


def _can_be_parted(good: Params | None, bad: Params | None) -> bool:
    if good is None or bad is None or good.file != bad.file:
        return False
    return good.file is None or (bool(_differing(good, bad)) and good.file.lower().endswith(_PARTED))


def _nested(good: Params | None, bad: Params | None, own: Mapping[str, int]) -> Iterator[frozenset[int]]:
    """A value on one side and a mapping in its place on the other."""
    assert good and bad
    paths = {name: path for side in (good, bad) for name, (path, _) in leaves(side.values).items()}
    for name, item in own.items():
        inner = {own[other] for other in own if paths[other][: len(paths[name])] == paths[name]}
        if len(inner) > 1:
            yield frozenset(inner | {item})


def leaves(values: Mapping[str, Any], name: str = "", path: tuple[str, ...] = ()) -> dict[str, tuple[Any, Any]]:
    """Each value by the name that a difference gives it, with its path."""
    found: dict[str, tuple[Any, Any]] = {}
    for key, value in values.items():
        shown = name + (f'"{key}"' if "." in key or '"' in key or not key else key)
        if isinstance(value, Mapping) and value:
            found |= leaves(value, f"{shown}.", (*path, key))
        else:
            found[shown] = ((*path, key), value)
    return found


# --- putting together ---------------------------------------------------------------------------------------


def _hybrid(between: Between, taken: set[Key]) -> Hybrid:
    good, bad = between.good, between.bad
    a, b = good.state, bad.state

    def chosen(layer: str, name: str) -> StateSpec:
        return bad if (layer, name) in taken else good

    image = bad if any(map(_is_of_image, taken)) else good
    code = chosen("code", "files")
    params, files = _params(a.params, b.params, {name for layer, name in taken if layer == "params"}, between.params)
    steps = bad if any(map(_is_of_steps, taken)) else good
    state = msgspec.structs.replace(
        steps.state,
        code=code.state.code,
        params=params,
        image=image.state.image,
        dependencies=_dependencies(between, taken, image.state.dependencies),
        env=_mapping(a.env, b.env, "env", taken),
        secrets=tuple(_mapping(*_secrets(a, b), "access", taken, "secrets.")),
        data=_mapping(a.data, b.data, "data", taken),
        model=_mapping(a.model, b.model, "model", taken),
        access=_access(a.access, b.access, taken),
    )
    seen, other = good.observed, bad.observed
    observed = Observed(
        code=code.observed.code,
        image=image.observed.image,
        dependencies=image.observed.dependencies,
        data=_mapping(seen.data, other.data, "data", taken),
        model=_mapping(seen.model, other.model, "model", taken),
        access=msgspec.structs.replace(seen.access, secrets={**other.access.secrets, **seen.access.secrets}),
        host=seen.host,
    )
    return Hybrid(state, observed, files)


def _mapping(
    good: Mapping[str, Any], bad: Mapping[str, Any], layer: str, taken: Collection[Key], prefix: str = ""
) -> dict[str, Any]:
    found = {}
    for name in sorted(good.keys() | bad.keys()):
        side = bad if (layer, prefix + name) in taken else good
        if name in side:
            found[name] = side[name]
    return found


def _secrets(good: State, bad: State) -> tuple[dict[str, str], dict[str, str]]:
    return dict.fromkeys(good.secrets, "declared"), dict.fromkeys(bad.secrets, "declared")


def _dependencies(between: Between, taken: Collection[Key], image: Dependencies) -> Dependencies:
    good, bad = between.good.state.dependencies, between.bad.state.dependencies
    own = {name: getattr(bad if ("dependencies", name) in taken else good, name) for name in _OWN_FIELDS}
    locked: tuple[Wheel, ...] | None
    if good.locked is None or bad.locked is None:
        locked = (bad if ("dependencies", "locked") in taken else good).locked
    else:
        old, new = ({wheel.name: wheel for wheel in side.locked or ()} for side in (good, bad))
        chosen = _mapping(old, new, "dependencies", taken).values()
        locked = tuple(for_python(wheel, image.python or "", between.for_other) for wheel in chosen)
    return Dependencies(python=image.python, interpreter=image.interpreter, locked=locked, **own)


def for_python(wheel: Wheel, python: str, for_other: Mapping[str, Wheel]) -> Wheel:
    """That wheel, or the one of the same release that stands in for it under that Python."""
    return wheel if fits_python(wheel.wheel, python) else for_other.get(wheel.wheel, wheel)


def _access(good: Access, bad: Access, taken: Collection[Key]) -> Access:
    def of(name: str) -> Access:
        return bad if ("access", name) in taken else good

    names = good.limits.__struct_fields__
    limits = {name: getattr(of(f"limits.{name}").limits, name) for name in names}
    return msgspec.structs.replace(
        good,
        network=of("network").network,
        limits=msgspec.structs.replace(good.limits, **limits),
        determinism=of("determinism").determinism,
    )


def _params(
    good: Params | None, bad: Params | None, taken: set[str], parted: Parted | None
) -> tuple[Params | None, tuple[bytes, ...]]:
    if not taken:
        return good, ()
    if not parted and not _can_be_parted(good, bad):
        return bad, ()
    assert good and bad
    if taken >= _differing(good, bad):
        return bad, ()
    if parted and good.file:
        return _edited(good, bad, taken, parted, good.file)
    old, new = leaves(good.values), leaves(bad.values)
    sides = ((name, new if name in taken else old) for name in {**old, **new})
    values = _unfolded(side[name] for name, side in sides if name in side)
    if good.file is None:
        return Params(values=values), ()
    is_json = good.file.lower().endswith(".json")
    content = json.dumps(values, indent=2).encode() + b"\n" if is_json else write_yaml(values)
    return Params(values=values, file=good.file, sha256=digest_bytes(content)), (content,)


def _differing(good: Params, bad: Params) -> set[str]:
    """As the changes tell it: in Python 1, 1.0 and True are equal."""
    old, new = flatten(good.values), flatten(bad.values)
    return {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}


def _edited(good: Params, bad: Params, taken: set[str], parted: Parted, file: str) -> tuple[Params, tuple[bytes, ...]]:
    content = parted.with_keys(taken)
    values, old, new = parse(content, file), flatten(good.values), flatten(bad.values)
    wanted = {name: (new if name in taken else old).get(name) for name in old.keys() | new.keys()}
    if flatten(values) != {name: value for name, value in wanted.items() if value is not None}:
        raise UsageError(f"{file} cannot hold these parameters beside the others", ", ".join(sorted(taken)))
    return Params(values=values, file=file, sha256=digest_bytes(content)), (content,)


def _unfolded(listed: Iterable[tuple[tuple[str, ...], Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for (*outer, last), value in listed:
        place = found
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = value
    return found
