"""Comparator `model`: the bytes decide, and what can be told of a model without loading it says how it differs.

A pickle is told by the globals that it would call, an archive (`.pt`, `.npz`, …) by its members; where these
are the same and only the zip around them differs, the models are equivalent. Nothing is ever unpickled. What a
model does is for a `probe` to say, a command inside the recorded environment (`printed`).
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from runner.compare import printed, raw, zipread
from runner.compare.comparator import Comparator, Comparison
from runner.compare.malformed import told_of
from runner.compare.mismatch import first_mismatch
from runner.compare.pickles import Globals, globals_of
from runner.shown import count, few, shown
from runner.state.record import Verdict
from runner.state.spec import OutputRule
from runner.tables.malformed import MalformedError

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

_EXAMPLES = 3
_NAME_SHOWN = 80
_MARK = b"\x80"
_CHUNK = 1 << 16
_MAX_INFLATED = 1 << 30
_COMPRESSED = (b"\x1f\x8b", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")


def compare(original: Path, replayed: Path, rule: OutputRule) -> Comparison:
    by_bytes = raw.compare(original, replayed, rule)
    if by_bytes.verdict is Verdict.IDENTICAL:
        return by_bytes
    try:
        if _begins(original, zipread.MAGIC) and _begins(replayed, zipread.MAGIC):
            return _compare_archives(original, replayed)
        told = _told(_scan(original), _scan(replayed))
    except MalformedError as error:
        told = [str(error)]
    return Comparison(Verdict.DIVERGED, "; ".join([by_bytes.detail, *told]))


COMPARATOR = Comparator(compare, frozenset({"probe", *printed.TOLERANT}), printed.check)


# --- archives ------------------------------------------------------------------------------------------


def _compare_archives(original: Path, replayed: Path) -> Comparison:
    with _archive("original", original) as before, _archive("replay", replayed) as after:
        a, b = zipread.members_of(before), zipread.members_of(after)
        lost, new = [name for name in a if name not in b], [name for name in b if name not in a]
        changed = [
            name
            for name in a
            if name in b and first_mismatch(_content("original", before, a[name]), _content("replay", after, b[name]))
        ]
        if not (lost or new or changed):
            return Comparison(Verdict.EQUIVALENT, f"ignored: the zip around {count(len(a), 'equal member')}")
        told = _told(_scan_members(before, [*lost, *changed]), _scan_members(after, [*new, *changed]))
    parts = [
        *([f"{len(changed):,} of {count(len(a), 'member')} changed: {_listed(changed)}"] if changed else []),
        *([f"only in the original: {_listed(lost)}"] if lost else []),
        *([f"only in the replay: {_listed(new)}"] if new else []),
        *told,
    ]
    return Comparison(Verdict.DIVERGED, "; ".join(parts))


@contextmanager
def _archive(side: str, path: Path) -> Iterator[ZipFile]:
    with ExitStack() as stack:
        with told_of(side):
            archive = stack.enter_context(zipread.opened(path))
            zipread.members_of(archive)
        yield archive


def _content(side: str, archive: ZipFile, member: ZipInfo) -> Iterator[bytes]:
    with told_of(side):
        yield from zipread.chunks(archive, member)


def _scan_members(archive: ZipFile, names: Sequence[str]) -> Globals | None:
    members = zipread.members_of(archive)
    found = None
    for name in names:
        if name.endswith((".pkl", ".pickle")):
            with zipread.content(archive, members[name]) as file:
                here = globals_of(file)
            found = Globals(here.names | found.names, found.until or here.until) if found else here
    return found


# --- pickles -------------------------------------------------------------------------------------------


class _Inflated(io.RawIOBase):
    """What a gzip or zlib stream holds, up to a limit, then nothing."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._inflate = zlib.decompressobj(wbits=47)
        self._left = _MAX_INFLATED

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        content = b""
        while not content and not self._inflate.eof and self._left > 0:
            packed = self._inflate.unconsumed_tail or self._file.read(_CHUNK)
            if not packed:
                break
            try:
                content = self._inflate.decompress(packed, len(buffer))
            except zlib.error:
                break
        self._left -= len(content)
        buffer[: len(content)] = content
        return len(content)


def _scan(path: Path) -> Globals | None:
    """The globals of a pickle; None if the file is none."""
    with path.open("rb") as file:
        head = file.read(2)
        file.seek(0)
        stream: Any = io.BufferedReader(_Inflated(file)) if head in _COMPRESSED else file
        is_marked = stream.peek(1)[:1] == _MARK
        found = globals_of(stream)
    return found if is_marked or found.until is None else None


def _told(before: Globals | None, after: Globals | None) -> list[str]:
    if before is None or after is None:
        return []
    lost, new = sorted(before.names - after.names), sorted(after.names - before.names)
    parts = [
        *([f"globals called only in the original: {_listed(lost)}"] if lost else []),
        *([f"globals called only in the replay: {_listed(new)}"] if new else []),
    ]
    if not parts:
        called = f"the same {count(len(before.names), 'global')}" if before.names else "no globals"
        parts = [f"the pickles call {called}"]
    ends = [end for end in (before.until, after.until) if end is not None]
    return [*parts, *([f"read as pickles up to byte {min(ends):,}"] if ends else [])]


def _begins(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _listed(names: Sequence[str]) -> str:
    return few([shown(name, _NAME_SHOWN) for name in names], _EXAMPLES)
