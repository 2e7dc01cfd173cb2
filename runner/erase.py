"""Erase: take what a person has a right to have removed out of the store, and leave a signed tombstone in its place.

First it is found what goes: the blob, and what was made of it here. Then it is said, signed and logged. Only then
anything is removed, so that a command that is killed meanwhile has said what it was about, and the next one finishes.
"""

from __future__ import annotations

import getpass
from collections.abc import Iterable, Iterator, Set
from pathlib import Path

import msgspec

from runner.attest.tombstone import Tombstone, Why, leaf_of, statement
from runner.erased import tombstone_of
from runner.errors import RefusedError, ReplayError, UsageError
from runner.layers import code, data, schema
from runner.seal import Sealer
from runner.state.digest import Digest, digest_bytes
from runner.state.moment import now_text
from runner.state.paths import covers
from runner.state.record import Record
from runner.state.spec import DvcPin, StateSpec
from runner.store.runs import Run
from runner.store.store import Store
from runner.store.tombstones import Kept, Tombstones
from runner.tools import dvc
from runner.workspace import Workspace

_LOGS = ("stdout", "stderr", "order")
_NOTHING = digest_bytes(b"")
"""It holds nothing to erase, and most runs have it: an empty log, or an empty file of code."""


class Target(msgspec.Struct, frozen=True):
    """A blob, or a log, by its digest, and what it is called."""

    sha256: str
    path: str


class Whole(msgspec.Struct, frozen=True):
    """A run as far as it is known."""

    run: Run
    spec: StateSpec
    record: Record | None


class Found(msgspec.Struct, frozen=True):
    """What is to go, and in which runs it is."""

    targets: tuple[Target, ...]
    runs: tuple[str, ...]


def find(workspace: Workspace, run: Run | None, name: str, *, logs: bool) -> Found:
    """What `name`, a path in a run or a digest, stands for. Raises `UsageError` when no run has it as an output or as
    data, or what it has is empty, `RefusedError` for what a run is made of."""
    everything = [one for run_id in workspace.run_ids() if (one := _whole(workspace.run(run_id)))]
    held = list(_held(workspace.store, everything))
    meant = [target for owner, target in held if _is_meant(owner, target, run, name)]
    if not meant:
        where = f"{run.id} has no output and no data called {name}" if run else f"no run has an output or data {name}"
        raise UsageError(where, next="`replay show RUN` and `replay outputs RUN` list what there is")
    wanted = [target for target in meant if target.sha256 != _NOTHING]
    if not wanted:
        raise UsageError(f"{meant[0].path} is empty", "it holds nothing to erase")
    digests = {target.sha256 for target in wanted}
    owners = sorted({owner.run.id for owner, target in held if target.sha256 in digests})
    derived = _profiles(workspace.store, everything, digests)
    of_logs = _logs_of(one for one in everything if logs and (one.run.id == run.id if run else one.run.id in owners))
    found = {target.sha256: target for target in (*of_logs, *derived, *wanted)}
    _refuse_parts(workspace.store, everything, found.keys())
    return Found(tuple(sorted(found.values(), key=lambda target: target.path)), tuple(owners))


def erase(workspace: Workspace, found: Found, reason: str, sealer: Sealer) -> list[str]:
    """Say it, then do it; what was removed."""
    store = workspace.store
    runs = [workspace.run(run_id) for run_id in workspace.run_ids()]
    for run in runs:
        if run.id in found.runs and run.is_being_replayed():
            raise UsageError(f"{run.id} is being replayed", next="try again when that is done")
    wholes = [one for run in runs if (one := _whole(run))]
    tombstones = Tombstones(store, workspace.specs)
    for target in found.targets:
        if tombstone_of(store, workspace.specs, Digest(target.sha256)) is None:
            bundle = sealer.bundle(statement(_tombstone(target, _size(store, runs, target), reason)))
            tombstones.keep(Digest(target.sha256), Kept(bundle, sealer.logged(store, leaf_of(bundle))))
    return [told for target in found.targets for told in _remove(workspace, wholes, Digest(target.sha256))]


def _tombstone(target: Target, size: int, reason: str) -> Tombstone:
    now = now_text()
    return Tombstone(target.sha256, target.path, Why(now, getpass.getuser(), reason, size))


# --- finding ------------------------------------------------------------------------------------------------


def _whole(run: Run) -> Whole | None:
    """None for a run that cannot be read: nothing is known of what it holds, and nothing of it is touched."""
    try:
        return Whole(run, *run.spec_and_record())
    except ReplayError:
        return None


def _held(store: Store, everything: Iterable[Whole]) -> Iterator[tuple[Whole, Target]]:
    """Outputs, and files of data and models, with the runs that have them."""
    for one in everything:
        for output in one.record.every_output if one.record else ():
            yield one, Target(output.sha256, output.path)
        for path, version in (one.spec.state.data | one.spec.state.model).items():
            listed = data.files_of(store, Digest(version)) if store.blobs.has(Digest(version)) else None
            if listed is None:
                yield one, Target(version, path)
            for file in listed or ():
                yield one, Target(file.sha256, f"{path}/{file.path}")


def _is_meant(owner: Whole, target: Target, run: Run | None, name: str) -> bool:
    if run is None:
        return target.sha256 == name
    return owner.run.id == run.id and covers(name.rstrip("/"), target.path)


def _refuse_parts(store: Store, everything: Iterable[Whole], digests: Set[str]) -> None:
    """Code, parameters and packages are what a run was; without them nothing is left to tell."""
    for one in everything:
        state = one.spec.state
        parts = {state.code: "the list of its code"}
        if store.blobs.has(Digest(state.code)):
            parts |= {file.sha256: f"code {file.path}" for file in code.files_of(store, Digest(state.code))}
        parts |= {wheel.sha256: wheel.wheel for wheel in state.dependencies.locked or ()}
        if state.params and state.params.sha256:
            parts[state.params.sha256] = f"params {state.params.file}"
        if both := sorted(digests & parts.keys()):
            raise RefusedError(
                f"{both[0][:19]} is {parts[both[0]]} of {one.run.id} as well",
                "only outputs and data can be erased",
                f"`replay rm {one.run.id}` forgets that run",
            )


def _profiles(store: Store, everything: list[Whole], digests: set[str]) -> Iterator[Target]:
    """Profiles hold values of the tables that they were made of."""
    erased: set[tuple[str, str]] = set()
    for one in everything:
        erased |= {(one.run.id, output.path) for output in _outputs(one) if output.sha256 in digests}
        for path, version in one.spec.state.data.items():
            held = store.blobs.has(Digest(version))
            for file, digest in schema.tables(store, path, Digest(version)) if held else ():
                if digest in digests:
                    erased.add((one.run.id, file))
                    seen = one.spec.observed.schema.get(file)
                    if seen and seen.profile:
                        yield Target(seen.profile, f"the profile of {file}")
    for one in everything:
        for check in one.spec.contract.checks:
            if check.drift and (check.drift.run, check.on) in erased:
                yield Target(check.drift.profile, f"the profile of {check.on}")


def _outputs(one: Whole) -> Iterable[Target]:
    return [Target(output.sha256, output.path) for output in one.record.every_output] if one.record else []


def _logs_of(everything: Iterable[Whole]) -> Iterator[Target]:
    for one in everything:
        sums = one.run.sums()
        there = (name for name in _LOGS if name in sums and sums[name].sha256 != _NOTHING)
        yield from (Target(sums[name].sha256, f"log {name} of {one.run.id}") for name in there)


def _size(store: Store, runs: Iterable[Run], target: Target) -> int:
    if store.blobs.has(Digest(target.sha256)):
        return store.blobs.path(Digest(target.sha256)).stat().st_size
    sizes = (one.size for run in runs for one in run.sums().values() if one.sha256 == target.sha256)
    return next(sizes, 0)


# --- removing -----------------------------------------------------------------------------------------------


def _remove(workspace: Workspace, everything: Iterable[Whole], digest: Digest) -> Iterator[str]:
    """The blob under all its names; each is told."""
    store, root = workspace.store, workspace.root
    blob = store.blobs.path(digest)
    for one in everything:
        pins = one.spec.observed.data | one.spec.observed.model
        for path, version in (one.spec.state.data | one.spec.state.model).items():
            if not _holds(store, Digest(version), digest):
                continue
            if data.has_view(store, Digest(version)):
                data.discard(store, Digest(version))
                yield f"view of {path}"
            pin = pins[path].dvc if path in pins else None
            if pin and blob.is_file():
                yield from (f"{place}" for place in _drop_from_dvc(root, path, pin, blob))
        for name, known in one.run.sums().items():
            log = one.run.folder / name
            if known.sha256 == digest and name in _LOGS and log.is_file():
                log.unlink()
                yield f"log {name} of {one.run.id}"
    answer = store.cache / "profiles" / schema.answer_name(digest)
    answer.unlink(missing_ok=True)
    if blob.is_file():
        store.blobs.discard(digest)
        yield f"blob {digest}"


def _holds(store: Store, version: Digest, digest: Digest) -> bool:
    if version == digest:
        return True
    listed = data.files_of(store, version) if store.blobs.has(version) else None
    return any(file.sha256 == digest for file in listed or ())


def _drop_from_dvc(root: Path, path: str, pin: DvcPin, blob: Path) -> Iterator[Path]:
    """DVC's cache has the same bytes under their MD5, linked or copied."""
    repo = dvc.repo_of(root, path)
    if repo is None:
        return
    place = dvc.object_path(dvc.cache_dir(repo), pin.hash, dvc.hash_file(blob, pin.hash).md5)
    if place.is_file():
        place.unlink()
        yield place
