"""Comparator `bytes`: every byte counts."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Iterator
from pathlib import Path

from runner.compare.comparator import Comparator, Comparison
from runner.compare.mismatch import Mismatch, first_mismatch
from runner.state.record import Verdict
from runner.state.spec import OutputRule

_CHUNK = 1 << 20
_SNIFFED = 8192


def mismatch_of(original: Path, replayed: Path) -> Mismatch | None:
    """The first byte that differs between two files. Raises `OSError`."""
    return first_mismatch(_chunks(original), _chunks(replayed))


def compare(original: Path, replayed: Path, rule: OutputRule) -> Comparison:  # noqa: ARG001
    mismatch = mismatch_of(original, replayed)
    if mismatch is None:
        return Comparison(Verdict.IDENTICAL)
    detail = f"{_sizes(original, replayed)}, first difference at byte {mismatch.offset}"
    if _is_text(original) and _is_text(replayed):
        detail += f", line {mismatch.line}: {mismatch.excerpts()}"
    return Comparison(Verdict.DIVERGED, detail)


COMPARATOR = Comparator(compare)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _sizes(original: Path, replayed: Path) -> str:
    before, after = original.stat().st_size, replayed.stat().st_size
    return f"{before} bytes in both" if before == after else f"{before} bytes became {after}"


def _is_text(path: Path) -> bool:
    """Whether the file begins like text: UTF-8 without NUL. A character cut at the end is no objection."""
    with path.open("rb") as file:
        head = file.read(_SNIFFED)
    try:
        getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return b"\0" not in head
