"""Parting: what turns the text of one parameter file into that of another, key by key. Pure.

A file in between is the one text with some edits of the other, so that all else stays as people wrote it: comments,
order, how a date or a number is spelt. A reader may see more in a spelling than the values that are recorded.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from runner.errors import UsageError

Values = Callable[[bytes], Mapping[str, str]]
"""The values of a file by their dotted keys; raises `UsageError` for one that cannot be read."""

_TOKEN = re.compile(r"[\w.+-]+|\s+|.", re.DOTALL)
_LONGEST = 32 << 10
_MOST = 100


class Edit(msgspec.Struct, frozen=True):
    """A stretch of the first text, what stands there in the other, and the keys that this changes."""

    start: int
    end: int
    text: str
    keys: frozenset[str] = frozenset()


class Parted(msgspec.Struct, frozen=True):
    """A text and the edits that make another of it, no two of which change one key."""

    text: str
    edits: tuple[Edit, ...]

    def with_keys(self, taken: set[str]) -> bytes:
        return applied(self.text, [edit for edit in self.edits if edit.keys & taken])


def part(before: bytes, after: bytes, values: Values) -> Parted | None:
    """None where the edits cannot be told apart by key, or where there is too much to look at."""
    if max(len(before), len(after)) > _LONGEST:
        return None
    old, new = before.decode(), after.decode()
    first = values(before)

    def keyed(edits: Sequence[Edit]) -> list[Edit] | None:
        """With the keys that each changes alone; None if one of them cannot stand alone, or two change one key."""
        found = []
        for edit in edits:
            try:
                now = values(applied(old, [edit]))
            except UsageError:
                return None
            keys = frozenset(key for key in first.keys() | now.keys() if first.get(key) != now.get(key))
            found.append(msgspec.structs.replace(edit, keys=keys))
        listed = [key for edit in found for key in edit.keys]
        return found if len(listed) == len(set(listed)) else None

    def refined(edit: Edit) -> list[Edit]:
        for way in (_by_line, _one_by_one, _by_token):
            finer = keyed(way(old, edit))
            if finer and max(len(one.keys) for one in finer) < len(edit.keys):
                return [part for one in finer for part in (refined(one) if len(one.keys) > 1 else [one])]
        return [edit]

    edits: list[Edit] = []
    for hunk in _hunks(old, new):
        alone = keyed([hunk])
        if alone is None or len(edits) > _MOST:
            return None
        edits += refined(alone[0])
    last = values(after)
    changed = sorted(key for key in first.keys() | last.keys() if first.get(key) != last.get(key))
    return Parted(old, tuple(edits)) if sorted(key for edit in edits for key in edit.keys) == changed else None


def applied(text: str, edits: Sequence[Edit]) -> bytes:
    for _, edit in sorted(enumerate(edits), key=lambda one: (one[1].start, one[0]), reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text.encode()


def _hunks(old: str, new: str) -> Iterator[Edit]:
    return _differences(old.splitlines(keepends=True), new.splitlines(keepends=True), 0)


def _by_token(old: str, hunk: Edit) -> list[Edit]:
    return list(_differences(_TOKEN.findall(old[hunk.start : hunk.end]), _TOKEN.findall(hunk.text), hunk.start))


def _by_line(old: str, hunk: Edit) -> list[Edit]:
    """Line for line, and what one side has more at the end."""
    before, after = _lines(old, hunk), hunk.text.splitlines(keepends=True)
    paired = min(len(before), len(after))
    found = [Edit(start, end, line) for (start, end), line in zip(before, after, strict=False)]
    rest = Edit(before[paired][0] if before[paired:] else hunk.end, hunk.end, "".join(after[paired:]))
    return [*found, rest] if len(before) != len(after) else found


def _one_by_one(old: str, hunk: Edit) -> list[Edit]:
    """Each line that goes, and each that comes."""
    gone = [Edit(start, end, "") for start, end in _lines(old, hunk)]
    return gone + [Edit(hunk.end, hunk.end, line) for line in hunk.text.splitlines(keepends=True)]


def _lines(old: str, hunk: Edit) -> list[tuple[int, int]]:
    lines = old[hunk.start : hunk.end].splitlines(keepends=True)
    return list(itertools.pairwise(itertools.accumulate(map(len, lines), initial=hunk.start)))


def _differences(old: Sequence[str], new: Sequence[str], at: int) -> Iterator[Edit]:
    places = list(itertools.accumulate(map(len, old), initial=at))
    for kind, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != "equal":
            yield Edit(places[a], places[b], "".join(new[c:d]))
