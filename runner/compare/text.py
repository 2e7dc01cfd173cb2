"""Comparator `text`: line by line, after the normalisers that the rule names.

Lines are paired by their number. Text is bytes that are shown as UTF-8; it is streamed, so that neither a
large file nor a line without end is held in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import BinaryIO

import msgspec

from runner.compare.comparator import Comparator, Comparison
from runner.compare.mismatch import Mismatch, first_mismatch
from runner.compare.normalise import HOLD, NORMALISERS, Normaliser
from runner.errors import UsageError
from runner.state.record import Verdict
from runner.state.spec import OutputRule

_PIECE = 1 << 18


class _Change(msgspec.Struct, frozen=True):
    """A pair of lines whose bytes differ: where they do after normalising, or what made them equal."""

    number: int
    mismatch: Mismatch | None
    mattered: frozenset[str]


def compare(original: Path, replayed: Path, rule: OutputRule) -> Comparison:
    with original.open("rb") as before, replayed.open("rb") as after:
        return _conclude(_changes(before, after, rule.normalise), rule.normalise)


def check(path: str, rule: OutputRule) -> None:
    for name in rule.normalise:
        if name not in NORMALISERS:
            likely = get_close_matches(name.lower(), NORMALISERS, n=1, cutoff=0.5)
            raise UsageError(
                f"output {path!r}: no normaliser is called {name!r}",
                f"known are {', '.join(sorted(NORMALISERS))}",
                f"write `{likely[0]}`" if likely else "name some of these under `normalise`",
            )


COMPARATOR = Comparator(compare, frozenset({"normalise"}), check)


def _conclude(changes: Iterable[_Change], allowed: Sequence[str]) -> Comparison:
    differing, changed, mattered = 0, False, set[str]()
    first: str | None = None
    for change in changes:
        changed = True
        mattered |= change.mattered
        if change.mismatch:
            differing += 1
            first = first or f"line {change.number}: {change.mismatch.excerpts()}"
    if first:
        after = f" after {', '.join(allowed)}" if allowed else ""
        return Comparison(Verdict.DIVERGED, f"{_lines(differing)}{after}; {first}")
    if changed:
        detail = f"equal after {', '.join(sorted(mattered))} (allowed: {', '.join(sorted(allowed))})"
        return Comparison(Verdict.EQUIVALENT, detail)
    return Comparison(Verdict.IDENTICAL)


def _lines(count: int) -> str:
    return "1 line differs" if count == 1 else f"{count} lines differ"


def _changes(original: BinaryIO, replayed: BinaryIO, names: Sequence[str]) -> Iterator[_Change]:
    """Every pair of lines whose bytes differ. `behind` is the end of what both lines began with."""
    number, behind = 1, b""
    while True:
        a, b = original.readline(_PIECE), replayed.readline(_PIECE)
        if a != b:
            yield _change(number, _rest(behind + a, original), _rest(behind + b, replayed), names)
            number, behind = number + 1, b""
        elif a.endswith(b"\n"):
            number, behind = number + 1, b""
        elif a:
            behind = (behind + a)[-HOLD:]
        else:
            return


def _change(number: int, original: Iterator[bytes], replayed: Iterator[bytes], names: Sequence[str]) -> _Change:
    left, right = Normaliser(names), Normaliser(names)
    mismatch = first_mismatch(left.run(original), right.run(replayed))
    if mismatch is None:
        before, after = left.taken(), right.taken()
        return _Change(number, None, frozenset(name for name in before if before[name] != after[name]))
    for rest in (original, replayed):
        for _ in rest:
            pass
    return _Change(number, mismatch, frozenset())


def _rest(piece: bytes, file: BinaryIO) -> Iterator[bytes]:
    """A line from `piece` to its end, which is read from the file as far as it is not there yet."""
    while piece:
        yield piece
        if piece.endswith(b"\n"):
            return
        piece = file.readline(_PIECE)
