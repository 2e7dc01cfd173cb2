"""Confined: no value of a spec leads a replay, or the tools that it runs, out of the workspace and the store.

What this tool writes into a spec keeps to these rules, so a spec that breaks one was made by somebody else, to do
harm or by mistake. It is refused, whoever signed it: nothing that a user allows makes it better.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec

from runner.errors import RefusedError, UsageError
from runner.state.paths import STDOUT, inside
from runner.state.spec import DataSeen, ImageSeen, Limits, State, StateSpec, Wheel

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.!+-]{0,254}")
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?")
_IMAGE_ID = re.compile(r"(sha256:)?[0-9a-f]{12,64}")
_REFERENCE = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._:/@-]{0,499}")
_BY_DIGEST = re.compile(_REFERENCE.pattern + r"(?<=@sha256:[0-9a-f]{64})")


def refuse_unconfined(spec: StateSpec) -> None:
    """Raises `RefusedError` naming the first value that no spec of this tool holds, and what it would do."""
    for where, value, why in _problems(spec):
        raise RefusedError(
            f"the spec of {spec.run.id} may not be run: {where} is {value!r}",
            why,
            "no option allows it; ask whoever gave you the spec what it is for",
        )


_Problem = tuple[str, object, str]


def _problems(spec: StateSpec) -> Iterator[_Problem]:
    state, observed = spec.state, spec.observed
    yield from _unlike(_NAME, "run.job", [spec.run.job], "folders of the store are called by it")
    yield from _outside(_paths(spec))
    yield from _unlike(_VARIABLE, "state.env", state.env, "it is no name of a variable")
    yield from _unlike(_VARIABLE, "state.secrets", state.secrets, "it is no name of a variable")
    yield from _unlike(_PLATFORM, "state.image.platform", [state.image.platform], "it is no platform")
    yield from _limits(state.access.limits)
    yield from _image(observed.image)
    commits = filter(None, [observed.code.commit])
    yield from _unlike(_COMMIT, "observed.code.commit", commits, "git would take it for an option")
    yield from _wheels(state.dependencies.locked or ())
    yield from _pins("data", observed.data)
    yield from _pins("model", observed.model)


def _paths(spec: StateSpec) -> Iterator[tuple[str, str]]:
    """Every path at which something is read, mounted or written."""
    yield from _paths_of_state(spec.state)
    yield from (("contract.outputs", path) for path in spec.contract.outputs if path != STDOUT)
    yield from (("contract.checks.on", check.on) for check in spec.contract.checks if check.on != STDOUT)
    if spec.observed.image.folder:
        yield "observed.image.folder", spec.observed.image.folder


def _paths_of_state(state: State) -> Iterator[tuple[str, str]]:
    yield from (("state.data", path) for path in state.data)
    yield from (("state.model", path) for path in state.model)
    if state.params and state.params.file:
        yield "state.params.file", state.params.file
    for stage in state.stages:
        yield from ((f"state.stages.{stage.name}.deps", path) for path in stage.deps)
        yield from ((f"state.stages.{stage.name}.outs", path) for path in stage.outs)


def _outside(paths: Iterable[tuple[str, str]]) -> Iterator[_Problem]:
    for where, path in paths:
        try:
            inside(path, where)
        except UsageError as error:
            yield where, path, f"{error.what}; only what is in the workspace is read, mounted or written"


def _wheels(locked: Iterable[Wheel]) -> Iterator[_Problem]:
    for wheel in locked:
        for key, value in (("name", wheel.name), ("version", wheel.version), ("wheel", wheel.wheel)):
            yield from _unlike(_PACKAGE, f"state.dependencies.locked.{key}", [value], "pip would take it for an option")


def _limits(limits: Limits) -> Iterator[_Problem]:
    for name, value in msgspec.structs.asdict(limits).items():
        if value is not None and (value < 0 or (value == 0 and name != "gpus")):
            yield f"state.access.limits.{name}", value, "an engine takes that for no limit at all"


def _image(seen: ImageSeen) -> Iterator[_Problem]:
    why = "the engine is asked for it, and could be asked for something else, or be made to move a tag"
    yield from _unlike(_IMAGE_ID, "observed.image.config", filter(None, [seen.config]), why)
    yield from _unlike(_BY_DIGEST, "observed.image.repo_digests", seen.repo_digests, why)
    if seen.reference and not seen.folder:
        yield from _unlike(_REFERENCE, "observed.image.reference", [seen.reference], why)


def _pins(layer: str, seen: dict[str, DataSeen]) -> Iterator[_Problem]:
    for path, one in seen.items():
        digests = [one.dvc.md5] if one.dvc else []
        yield from _unlike(_MD5, f"observed.{layer}.{path}.dvc.md5", digests, "files are looked for by it")


def _unlike(pattern: re.Pattern[str], where: str, values: Iterable[str], why: str) -> Iterator[_Problem]:
    yield from ((where, value, why) for value in values if not pattern.fullmatch(value))
