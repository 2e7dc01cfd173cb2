"""Trees: each wheel unpacked and compiled once, for one interpreter, at `<cache>/trees/<key>`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from runner.environment.byte_code import Compile
from runner.environment.check import check_quick, entry_at
from runner.environment.layout import Entry, Interpreter
from runner.environment.seal import (
    ROOT,
    discard,
    publish,
    read_manifest,
    seal,
    staging,
    survey,
    sync,
)
from runner.errors import OutsideError
from runner.state.digest import Digest, digest_value, hex_of
from runner.state.spec import Wheel

FORMAT = 2
"""Raised by whoever changes what a tree made of the same wheel holds."""

FindWheel = Callable[[Digest], Path]
"""Where a wheel's bytes are, by their digest. Raises `ReplayError` when they cannot be had."""


class Tree(NamedTuple):
    wheel: Wheel
    folder: Path
    entries: tuple[Entry, ...]


def tree_folder(cache: Path, wheel: Wheel, interpreter: Interpreter) -> Path:
    return cache / "trees" / tree_key(wheel, interpreter)


def tree_key(wheel: Wheel, interpreter: Interpreter) -> str:
    """Patch releases of Python compile differently under one magic number, so the whole version counts."""
    made_of = (FORMAT, wheel, interpreter.version, interpreter.cache_tag, interpreter.magic)
    return hex_of(digest_value(made_of))


def open_trees(
    cache: Path,
    interpreter: Interpreter,
    wheels: Sequence[Wheel],
    find_wheel: FindWheel,
    compile_trees: Compile,
) -> list[Tree]:
    """The trees of these wheels, undamaged; those that are missing or damaged are made, all in one go.

    Raises `FileNotFoundError` when one is deleted meanwhile.
    """
    folders = {tree_folder(cache, wheel, interpreter): wheel for wheel in wheels}
    wanting = {folder: wheel for folder, wheel in folders.items() if not _is_good(folder)}
    if wanting:
        _make(cache, interpreter, wanting, find_wheel, compile_trees)
    return [Tree(wheel, folder, read_manifest(folder)) for folder, wheel in folders.items()]


def _is_good(folder: Path) -> bool:
    if not folder.exists():
        return False
    if check_quick(folder):
        discard(folder)
        return False
    return True


def _make(
    cache: Path,
    interpreter: Interpreter,
    wanting: dict[Path, Wheel],
    find_wheel: FindWheel,
    compile_trees: Compile,
) -> None:
    # Reading wheels takes 60 ms of imports, and a replay with a known environment reads none.
    from runner.environment.wheel import unpack

    def start(folder: Path, wheel: Wheel) -> tuple[Entry, ...]:
        return unpack(find_wheel(Digest(wheel.sha256)), wheel, stage / folder.name / ROOT, interpreter)

    def finish(folder: Path, wheel: Wheel, unpacked: tuple[Entry, ...]) -> None:
        new = stage / folder.name
        seal(new, [*unpacked, *_byte_code(new, unpacked, wheel)])
        _sync_all(new / ROOT)
        publish(new, folder)

    with staging(cache) as stage, ThreadPoolExecutor(os.cpu_count()) as pool:
        unpacked = list(pool.map(start, wanting.keys(), wanting.values()))
        syncing = pool.map(_sync_all, [stage / folder.name / ROOT for folder in wanting])
        # One process compiles a tree, so the longest must not be the last to start.
        sizes = {folder: _source_size(entries) for folder, entries in zip(wanting, unpacked, strict=True)}
        compile_trees([stage / folder.name for folder in sorted(sizes, key=sizes.__getitem__, reverse=True)])
        list(syncing)
        list(pool.map(finish, wanting.keys(), wanting.values(), unpacked))


def _source_size(entries: Iterable[Entry]) -> int:
    return sum(entry.size for entry in entries if entry.path.endswith(".py") and "/tests/" not in entry.path)


def _byte_code(tree: Path, unpacked: Iterable[Entry], wheel: Wheel) -> list[Entry]:
    """What compiling added; that it added nothing else is checked."""
    found, _ = survey(tree / ROOT)
    added = found.keys() - {entry.path for entry in unpacked}
    entries = {path: entry_at(tree / ROOT, path) for path in sorted(added)}
    if strange := [path for path, entry in entries.items() if entry is None or not path.endswith(".pyc")]:
        raise OutsideError(
            f"compiling {wheel.wheel} left files that are no byte code",
            f"for example {strange[0]}",
            "run again; if it stays, the image's Python does not behave like CPython",
        )
    return [entry for entry in entries.values() if entry]


def _sync_all(root: Path) -> None:
    files, folders = survey(root)
    for path in (*files, *folders, "."):
        sync(root / path)
