"""Suspects: what changed between two runs, what must go with what, and what is likelier than the rest.

It follows from the two runs alone: from their states, from what their wheels declare, from what the job imports.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial

import msgspec

from runner.bisect import Problem
from runner.bisect.implications import Blocks, PackageChange, PythonChange, Release, blocks, needs
from runner.bisect.model import Items
from runner.bisect.priors import POINTED_AT, SET_BY_PEOPLE, complained_of, imported, package_weight
from runner.diff import Change
from runner.errors import UnrebuildableError, UsageError
from runner.hybrid import Between, between, is_package, key_of
from runner.layers import code, dependencies
from runner.state.digest import Digest, digest_value, hex_of
from runner.state.record import Record
from runner.state.spec import Check, State, StateSpec, Wheel
from runner.store.runs import Run
from runner.workspace import Workspace

_MOST_READ = 1 << 20
_PYTHON = ("dependencies", "python")


class Setup(msgspec.Struct, frozen=True):
    """All that follows from the two runs alone. Items of the problem are blocks of changes. Trials run under `checks`,
    those that both declare alike: a check is of the contract, so one that differs is no change of the state."""

    good: Run
    bad: Run
    between: Between
    blocks: Blocks
    problem: Problem
    checks: tuple[Check, ...] = ()
    checks_left_out: tuple[str, ...] = ()

    def changes_of(self, items: Items) -> list[Change]:
        taken = sorted(frozenset[int]().union(*(self.blocks.members[item] for item in items)))
        return [self.between.changes[number] for number in taken]

    @property
    def numbering(self) -> Digest:
        """Of what the numbers of items stand for. It does not follow from the two states alone: what the store has of
        wheels and parameter files decides what can be told apart, and how a trial puts it together."""
        found = self.between
        divided = [[sorted(items) for items in sets] for sets in (self.blocks.members, self.blocks.needs)]
        by = {name: wheel.sha256 for name, wheel in found.for_other.items()}
        return digest_value([list(map(key_of, found.changes)), divided, by, found.params is not None])


def set_up(workspace: Workspace, good: Run, bad: Run) -> Setup:
    """Raises `UsageError` when there is nothing to take apart, or an end was halted by what no trial is checked for."""
    (a, first), (b, last) = finished(good), finished(bad)
    checks = tuple(check for check in a.contract.checks if _is_among(check, b.contract.checks))
    _refuse_halted(a, first, b, checks)
    _refuse_halted(b, last, a, checks)
    pythons = (a.state.dependencies.python, b.state.dependencies.python)
    shelf = dependencies.wheels_at_hand(workspace.store) if pythons[0] != pythons[1] else ()
    found = between(a, b, _params_texts(workspace, a.state, b.state), shelf)
    if not found.changes:
        raise UsageError(
            f"{good.id} and {bad.id} ran the same state",
            "nothing that is recorded differs, so the cause is outside of it, or chance",
            f"`replay diff {good.id} {bad.id}` compares the hosts; `replay {bad.id} --times 5` shows chance",
        )
    packages = [item for item, change in enumerate(found.changes) if is_package(change)]
    declared = _package_changes(workspace, found, packages)
    made = blocks(len(found.changes), needs(declared, _python(found)), found.together)
    weights = _weights(workspace, found, bad)
    block_weights = tuple(max(weights[item] for item in members) for members in made.members)
    seed = int(hex_of(digest_value([a.digest, b.digest]))[:8], 16)
    problem = Problem(made.needs, block_weights, seed)
    left_out = tuple(sorted(_names_of_others(a, checks) | _names_of_others(b, checks)))
    return Setup(good, bad, found, made, problem, checks, left_out)


def _refuse_halted(spec: StateSpec, record: Record, other: StateSpec, checks: Sequence[Check]) -> None:
    """An end that was halted by a check that is none of these."""
    others = _names_of_others(spec, checks)
    if names := [repr(result.name) for result in record.checks if result.halts and result.name in others]:
        raise UsageError(
            f"{spec.run.id} was halted by the check {', '.join(names)}, which {other.run.id} does not declare alike",
            "the checks of the two runs differ, so no change of the state needs to be the cause",
            "record one of them anew under the checks of the other, and bisect that run",
        )


def _names_of_others(spec: StateSpec, checks: Sequence[Check]) -> set[str]:
    return {check.name for check in spec.contract.checks if not _is_among(check, checks)}


def _is_among(check: Check, others: Sequence[Check]) -> bool:
    """Who is told of a broken one makes it no other check."""
    return any(msgspec.structs.replace(check, escalate=other.escalate) == other for other in others)


def finished(run: Run) -> tuple[StateSpec, Record]:
    """A run that can be an end. Raises `UsageError` when it was never finished."""
    spec, record = run.spec_and_record()
    if record is None or record.outcome.ending in ("interrupted", "refused"):
        raise UsageError(f"{run.id} was never finished", "so there is nothing to compare trials with")
    return spec, record


def _params_texts(workspace: Workspace, good: State, bad: State) -> tuple[bytes, bytes] | None:
    """Of a parameter file that both have, as far as the store has them."""
    a, b = good.params, bad.params
    if not (a and b and a.file and a.file == b.file and a.sha256 and b.sha256 and a.sha256 != b.sha256):
        return None
    digests = Digest(a.sha256), Digest(b.sha256)
    if not all(workspace.store.blobs.has(digest) for digest in digests):
        return None
    return workspace.store.blobs.read(digests[0]), workspace.store.blobs.read(digests[1])


def _package_changes(workspace: Workspace, found: Between, packages: Sequence[int]) -> list[PackageChange]:
    sides = [{wheel.name: wheel for wheel in one.state.dependencies.locked or ()} for one in (found.good, found.bad)]
    listed = []
    for item in packages:
        name = found.changes[item].name
        old, new = (_release(workspace, side[name]) if name in side else None for side in sides)
        listed.append(PackageChange(item, name, old, new))
    return listed


def _release(workspace: Workspace, wheel: Wheel) -> Release:
    from runner.environment.declared import read_declared

    digest = Digest(wheel.sha256)
    if not workspace.store.blobs.has(digest):
        raise UnrebuildableError(
            f"the wheel {wheel.wheel} cannot be had again",
            "the store has no copy, and what it declares decides what can be tried",
            "`replay fsck --repair` gets back what an index still has",
        )
    declared = read_declared(workspace.store.blobs.path(digest), wheel.wheel)
    return Release(wheel.version, declared.requires, declared.requires_python)


def _python(found: Between) -> PythonChange:
    old, new = (one.state.dependencies.python or "3" for one in (found.good, found.bad))
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(found.good.state.image.platform.split("/")[1], "x86_64")
    places = [item for item, change in enumerate(found.changes) if (change.layer, change.name) == _PYTHON]
    return PythonChange(old, new, machine, places[0] if places else None)


def _weights(workspace: Workspace, found: Between, bad: Run) -> list[float]:
    names = _imported(workspace, found) | complained_of(_end_of_stderr(bad))
    pointed_at = _moved_data(workspace, found)
    return [_weight(workspace, found, change, names, pointed_at) for change in found.changes]


def _weight(workspace: Workspace, found: Between, change: Change, names: set[str], pointed_at: set[str]) -> float:
    if not is_package(change):
        return POINTED_AT if change.layer == "data" and change.name in pointed_at else SET_BY_PEOPLE
    locked = found.bad.state.dependencies.locked or ()
    wheel = next((one for one in locked if one.name == change.name), None)
    return package_weight(change.a, change.b, is_imported=wheel is not None and _brings(workspace, wheel, names))


def _moved_data(workspace: Workspace, found: Between) -> set[str]:
    """Data of which the profiles, as they were recorded, show another schema or other distributions."""
    before, after = (one.observed.schema for one in (found.good, found.bad))
    if not before or not after:
        return set()
    from runner.moved import examine, kept_tables

    sides = [partial(kept_tables, workspace.store, {}, seen) for seen in (before, after)]
    return {one.path for one in examine(found.changes, *sides).findings if one.schema or one.moved}


def _end_of_stderr(run: Run) -> bytes:
    try:
        with (run.folder / "stderr").open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _MOST_READ))
            return file.read()
    except OSError:
        return b""


def _brings(workspace: Workspace, wheel: Wheel, names: set[str]) -> bool:
    from runner.environment.declared import read_declared

    return not names.isdisjoint(read_declared(workspace.store.blobs.path(Digest(wheel.sha256)), wheel.wheel).modules)


def _imported(workspace: Workspace, found: Between) -> set[str]:
    """What the job's own Python files, or its command, import."""
    names = imported("\n".join(found.bad.state.command).encode())
    blobs = workspace.store.blobs
    if blobs.has(Digest(found.bad.state.code)):
        for file in code.files_of(workspace.store, Digest(found.bad.state.code)):
            if file.path.endswith(".py") and blobs.has(Digest(file.sha256)):
                names |= imported(blobs.read(Digest(file.sha256)))
    return names
