"""Moved: what lies inside the data paths that differ between two states: breaks of their schema, columns that moved.

Only files that differ are opened, by their profiles; what cannot be examined says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from runner.diagnose import DataFinding
from runner.diff import Change
from runner.layers import schema
from runner.profile import drift
from runner.profile.values import Profile
from runner.state.digest import Digest, digest_file
from runner.state.spec import SchemaSeen
from runner.store.store import Store

_NO_TABLE = "only bytes were compared: it is no CSV, TSV, JSON lines or Parquet"
_OTHER_FILES = "files differ in it that are no CSV, TSV, JSON lines or Parquet"
_ONE_SIDE = "only one of the two has it"


class Table(NamedTuple):
    """A tabular file on one side. `profile` is asked only if the digests differ."""

    digest: str
    profile: Callable[[], Profile | str]


Tables = Mapping[str, Table]
TablesOf = Callable[[str], Tables]


class Moved(msgspec.Struct, frozen=True):
    """`columns` tells them by file. `changes` are those of the layer `schema`."""

    changes: tuple[Change, ...] = ()
    columns: tuple[tuple[str, drift.Moved], ...] = ()
    findings: tuple[DataFinding, ...] = ()


def kept_tables(store: Store, versions: Mapping[str, str], seen: Mapping[str, SchemaSeen], path: str) -> Tables:
    """The tables of a recorded data path, as far as the store still knows them."""
    version = Digest(versions.get(path, ""))
    if not version or not store.blobs.has(version):
        own = {file: one for file, one in seen.items() if file == path or file.startswith(f"{path}/")}
        return {
            file: Table(one.profile or "", partial(schema.profile_of, store, one, Digest("")))
            for file, one in own.items()
        }
    found = list(schema.tables(store, path, version))
    return {
        file: Table(digest, partial(schema.profile_of, store, seen.get(file), digest))
        for file, digest in found[: schema.MOST_FILES]
    }


def live_tables(store: Store, root: Path, path: str) -> Tables:
    """Those that lie in the workspace now."""
    place = root / path
    files = [place] if place.is_file() else sorted(one for one in place.rglob("*") if one.is_file())
    names = {str(file.relative_to(root)): file for file in files}
    tabular = [name for name in names if schema.is_tabular(name)]
    return {name: _live(store, names[name]) for name in tabular[: schema.MOST_FILES]}


def _live(store: Store, file: Path) -> Table:
    try:
        digest = digest_file(file)
    except OSError as error:
        why = f"{file.name}: {error.strerror}"
        return Table(why, lambda: why)
    return Table(digest, partial(schema.profile_of_file, store, file, digest))


def examine(changes: Iterable[Change], before: TablesOf, after: TablesOf) -> Moved:
    """What is inside the data paths among these changes."""
    found = Moved()
    for change in changes:
        if change.layer == "data":
            found = _joined(found, _examine(change, before, after))
    return found


def _joined(one: Moved, other: Moved) -> Moved:
    return Moved(one.changes + other.changes, one.columns + other.columns, one.findings + other.findings)


def _examine(change: Change, before: TablesOf, after: TablesOf) -> Moved:
    path = change.name
    if change.a is None or change.b is None:
        return Moved(findings=(DataFinding(path, unexamined=_ONE_SIDE),))
    a, b = before(path), after(path)
    differing = [file for file in sorted({*a} & {*b}) if a[file].digest != b[file].digest]
    alone = tuple(_alone(path, a, b))
    if not differing and not alone:
        return Moved(findings=(DataFinding(path, unexamined=_OTHER_FILES if a or b else _NO_TABLE),))
    changes: list[Change] = []
    columns: list[tuple[str, drift.Moved]] = []
    breaks: list[str] = []
    unexamined: list[str] = []
    for file in differing:
        prefix = "" if file == path else f"{file.removeprefix(path + '/')}: "
        was, now = a[file].profile(), b[file].profile()
        if isinstance(was, str) or isinstance(now, str):
            why = was if isinstance(was, str) else now
            unexamined.append(f"{prefix}it has no profile: {why}")
            continue
        found = drift.compare(was, now)
        changes += [_change(file, one) for one in found.breaks]
        breaks += [prefix + str(one) for one in found.breaks]
        columns += [(file, one) for one in found.moved]
    moved = sorted(columns, key=lambda one: (-one[1].size, one[0], one[1].column))
    told = [("" if file == path else f"{file.removeprefix(path + '/')}: ") + str(one) for file, one in moved]
    finding = DataFinding(path, tuple(breaks), (*told, *alone), "; ".join(unexamined[:3]))
    return Moved(tuple(changes), tuple(moved), (finding,))


def _alone(path: str, a: Tables, b: Tables) -> Iterator[str]:
    for files, word in (({*b} - {*a}, "added"), ({*a} - {*b}, "removed")):
        yield from (f"{file.removeprefix(path + '/')} {word}" for file in sorted(files))


def _change(file: str, one: drift.Break) -> Change:
    return Change("schema", f"{file}:{one.column}" if one.column else file, one.a, one.b, one.detail)
