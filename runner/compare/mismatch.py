"""Where two streams of bytes part, in memory bounded by their chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from runner.shown import ELLIPSIS, shown

# Characters shown of a line, and at most of what it has before the difference; a character has 4 bytes.
_SHOWN = 120
_SHOWN_BEFORE = 40
_BEFORE = 4 * (_SHOWN_BEFORE + 1)
_AFTER = 4 * _SHOWN


class Mismatch(msgspec.Struct, frozen=True):
    """`offset` of the first byte that differs, from 0, and its `line`, from 1.

    `original` and `replayed` are that line as each side has it, cut to the neighbourhood of the
    difference; `cut` says that its beginning is left out.
    """

    offset: int
    line: int
    original: bytes
    replayed: bytes
    cut: bool

    def excerpts(self) -> str:
        """Both sides, 120 characters each at most."""
        return f'original "{self._excerpt(self.original)}", replay "{self._excerpt(self.replayed)}"'

    def _excerpt(self, line: bytes) -> str:
        return ELLIPSIS + shown(line, _SHOWN - 1) if self.cut else shown(line, _SHOWN)


def first_mismatch(original: Iterable[bytes], replayed: Iterable[bytes]) -> Mismatch | None:
    """The first difference of two streams, however they are cut into chunks; None when they are equal."""
    left, right = filter(None, original), filter(None, replayed)
    offset, line, before = 0, 1, b""
    a = b = b""
    while True:
        a, b = a or next(left, b""), b or next(right, b"")
        common = min(len(a), len(b))
        same = a[:common] == b[:common]
        if not same or not common:
            return _located(offset, line, before, _ahead(a, left), _ahead(b, right))
        line += a.count(b"\n", 0, common)
        before = (before + a[max(0, common - _BEFORE) : common])[-_BEFORE:]
        offset, a, b = offset + common, a[common:], b[common:]


def _ahead(chunk: bytes, rest: Iterator[bytes]) -> bytes:
    """The chunk and the next one, so that an excerpt does not end where a chunk happens to."""
    return chunk + next(rest, b"")


def _located(offset: int, line: int, before: bytes, a: bytes, b: bytes) -> Mismatch | None:
    """The mismatch of two chunks that follow the same `before`; None when both are empty."""
    if not a and not b:
        return None
    at = _first_difference(a, b)
    line += a.count(b"\n", 0, at)
    start = (before + a[max(0, at - _BEFORE) : at])[-_BEFORE:].rpartition(b"\n")[2]
    context = _tail(start)
    original, replayed = context + _rest_of_line(a, at), context + _rest_of_line(b, at)
    return Mismatch(offset + at, line, original, replayed, cut=context != start)


def _tail(start: bytes) -> bytes:
    """The end of a line's start, short enough that the difference after it stays in the excerpt."""
    while len(shown(start, _SHOWN_BEFORE + 1)) > _SHOWN_BEFORE:
        start = start[1:]
    return start


def _first_difference(a: bytes, b: bytes) -> int:
    """The index of the first byte that differs, by halving: the search costs one comparison of the chunk."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low


def _rest_of_line(chunk: bytes, at: int) -> bytes:
    end = chunk.find(b"\n", at, at + _AFTER)
    return chunk[at : end + 1] if end >= 0 else chunk[at : at + _AFTER]
