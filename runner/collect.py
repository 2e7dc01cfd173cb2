"""Garbage collection: what no run needs goes; what a kept or running one needs stays.

Needed is whatever a spec or record names, directly or through a listing. Every run that the store or the
workspace's `state_specs/` knows is kept, until `replay rm` forgets it. Caches that no kept state would use
go too; they can be made again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import msgspec

from runner.environment.farm import read_recipe
from runner.environment.tree import tree_folder
from runner.layers import code, data, image, schema
from runner.layers.dependencies import read_lock
from runner.state.digest import Digest, hex_of
from runner.state.plain import MALFORMED
from runner.state.record import Record
from runner.state.spec import State, StateSpec, Wheel
from runner.store.files import is_locked, remove_tree
from runner.store.store import Store
from runner.workspace import Workspace


class Garbage(msgspec.Struct, frozen=True):
    """What can go: blobs by digest, other files and folders by path; sizes in bytes."""

    blobs: tuple[Digest, ...]
    paths: tuple[Path, ...]
    size: int


def find_garbage(workspace: Workspace, gone: Collection[str] = ()) -> Garbage:
    """Without what the runs in `gone` need, as if they were forgotten. Call it with `store.collecting()` held, or for
    information only."""
    store = workspace.store
    kept = list(kept_runs(workspace, gone))
    needed = set(needed_blobs(store, kept))
    blobs = tuple(digest for digest in store.blobs.all() if digest not in needed)
    paths = (
        *_unused_locks(store, needed),
        *_unused_images(store, needed),
        *_left_over(store),
        *_unused_views(store, needed),
        *_unused_profiles(store, needed),
        *_unused_environments(store, {_made_of(spec.state) for spec, _ in kept}),
    )
    size = sum(_size(store.blobs.path(digest)) for digest in blobs) + sum(_size(path) for path in paths)
    return Garbage(blobs, paths, size)


def remove(store: Store, garbage: Garbage) -> None:
    for path in garbage.paths:
        remove_tree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for digest in garbage.blobs:
        store.blobs.discard(digest)


def kept_runs(workspace: Workspace, gone: Collection[str] = ()) -> Iterator[tuple[StateSpec, Record | None]]:
    """Every run, finished or not, but those in `gone`.

    A spec or record that cannot be read ends the collection: what it needs is not known. Raises
    `ReplayError` naming it.
    """
    for run_id in workspace.run_ids():
        if run_id in gone:
            continue
        run = workspace.run(run_id)
        if run.has_spec():
            yield run.spec_and_record()


def needed_blobs(store: Store, kept: Iterable[tuple[StateSpec, Record | None]]) -> Iterator[Digest]:
    """Every blob that some run needs to be replayed or looked at."""
    for spec, record in kept:
        yield from _of_state(store, spec.state)
        yield from (Digest(seen.profile) for seen in spec.observed.schema.values() if seen.profile)
        yield from (Digest(check.drift.profile) for check in spec.contract.checks if check.drift)
        if record:
            yield from _of_record(record)


def _of_state(store: Store, state: State) -> Iterator[Digest]:
    yield Digest(state.code)
    if store.blobs.has(Digest(state.code)):
        yield from (Digest(file.sha256) for file in code.files_of(store, Digest(state.code)))
    if state.params and state.params.sha256:
        yield Digest(state.params.sha256)
    yield from (Digest(wheel.sha256) for wheel in state.dependencies.locked or ())
    yield from image.archived_blobs(store, state.image)
    for digest in (*state.data.values(), *state.model.values()):
        yield Digest(digest)
        if store.blobs.has(Digest(digest)):
            yield from (Digest(file.sha256) for file in data.files_of(store, Digest(digest)) or ())


def _of_record(record: Record) -> Iterator[Digest]:
    yield from (Digest(output.sha256) for output in record.every_output)


def _unused_locks(store: Store, needed: set[Digest]) -> Iterator[Path]:
    """A lock goes when one of its wheels does: it would be made anew anyway."""
    for path in sorted(store.locks.glob("*.json")):
        try:
            lock = read_lock(path.read_bytes())
        except MALFORMED:
            yield path
            continue
        if any(Digest(wheel.sha256) not in needed for wheel in lock.wheels):
            yield path


def _unused_images(store: Store, needed: set[Digest]) -> Iterator[Path]:
    for path in sorted(store.images.glob("*.json")):
        try:
            archive = image.read_archive(path.read_bytes())
        except MALFORMED:
            yield path
            continue
        if Digest(archive.config) not in needed:
            yield path


def _left_over(store: Store) -> Iterator[Path]:
    """Workspaces and temporary files of commands that were killed."""
    yield from sorted(store.tmp.iterdir())
    yield from _entries(store.cache / "tmp")
    for folder in sorted(store.scratch.iterdir()):
        if not is_locked(store.runs / folder.name / "lock"):
            yield folder


def _unused_views(store: Store, needed: set[Digest]) -> Iterator[Path]:
    hexes = {hex_of(digest) for digest in needed}
    yield from (folder for folder in _entries(store.cache / "views") if folder.name not in hexes)


def _unused_profiles(store: Store, needed: set[Digest]) -> Iterator[Path]:
    names = {schema.answer_name(digest) for digest in needed}
    yield from (path for path in _entries(store.cache / "profiles") if path.name not in names)


_MadeOf = tuple[frozenset[Wheel], str | None, bool]


def _made_of(state: State) -> _MadeOf:
    locked = state.dependencies
    return frozenset(locked.locked or ()), locked.python, locked.system_packages


def _unused_environments(store: Store, wanted: set[_MadeOf]) -> Iterator[Path]:
    """Environments of which no kept state would be made, then the trees that no other environment links."""
    trees: set[Path] = set()
    for folder in _entries(store.cache / "environments"):
        recipe = read_recipe(folder)
        if recipe and (frozenset(recipe.wheels), recipe.interpreter.version, recipe.system_packages) in wanted:
            trees |= {tree_folder(store.cache, wheel, recipe.interpreter) for wheel in recipe.wheels}
        else:
            yield folder
    yield from (folder for folder in _entries(store.cache / "trees") if folder not in trees)


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _size(path: Path) -> int:
    try:
        if path.is_dir() and not path.is_symlink():
            return sum(_size(entry) for entry in path.iterdir())
        return path.lstat().st_size
    except OSError:
        return 0
