"""Suspects: what changed between two runs, what must go with what, and what is likelier than the rest.

It follows from the two runs alone: from their states, from what their wheels declare, from what the job imports.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from runner.bisect import Problem
from runner.bisect.implications import Blocks, PackageChange, PythonChange, Release, blocks, needs
from runner.bisect.model import Items
from runner.bisect.priors import SET_BY_PEOPLE, imported, package_weight
from runner.diff import Change
from runner.errors import UnrebuildableError, UsageError
from runner.hybrid import Between, between, is_package
from runner.layers import code
from runner.state.digest import Digest, digest_value, hex_of
from runner.state.record import Record
from runner.state.spec import StateSpec, Wheel
from runner.store.runs import Run
from runner.workspace import Workspace

_PYTHON = ("dependencies", "python")


class Setup(msgspec.Struct, frozen=True):
    """All that follows from the two runs alone. Items of the problem are blocks of changes."""

    good: Run
    bad: Run
    between: Between
    blocks: Blocks
    problem: Problem

    def changes_of(self, items: Items) -> list[Change]:
        taken = sorted(frozenset[int]().union(*(self.blocks.members[item] for item in items)))
        return [self.between.changes[number] for number in taken]


def set_up(workspace: Workspace, good: Run, bad: Run) -> Setup:
    """Raises `UsageError` when there is nothing to take apart."""
    (a, _), (b, _) = finished(good), finished(bad)
    found = between(a, b)
    if not found.changes:
        raise UsageError(
            f"{good.id} and {bad.id} ran the same state",
            "nothing that is recorded differs, so the cause is outside of it, or chance",
            f"`replay diff {good.id} {bad.id}` compares the hosts; `replay {bad.id} --times 5` shows chance",
        )
    packages = [item for item, change in enumerate(found.changes) if is_package(change)]
    declared = _package_changes(workspace, found, packages)
    made = blocks(len(found.changes), needs(declared, _python(found)), found.together)
    weights = _weights(workspace, found)
    block_weights = tuple(max(weights[item] for item in members) for members in made.members)
    seed = int(hex_of(digest_value([a.digest, b.digest]))[:8], 16)
    return Setup(good, bad, found, made, Problem(made.needs, block_weights, seed))


def finished(run: Run) -> tuple[StateSpec, Record]:
    """A run that can be an end. Raises `UsageError` when it was never finished."""
    spec, record = run.spec_and_record()
    if record is None or record.outcome.ending == "interrupted":
        raise UsageError(f"{run.id} was never finished", "so there is nothing to compare trials with")
    return spec, record


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


def _weights(workspace: Workspace, found: Between) -> list[float]:
    names = _imported(workspace, found)
    return [_weight(workspace, found, change, names) for change in found.changes]


def _weight(workspace: Workspace, found: Between, change: Change, names: set[str]) -> float:
    if not is_package(change):
        return SET_BY_PEOPLE
    locked = found.bad.state.dependencies.locked or ()
    wheel = next((one for one in locked if one.name == change.name), None)
    return package_weight(change.a, change.b, is_imported=wheel is not None and _brings(workspace, wheel, names))


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
