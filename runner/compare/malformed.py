"""Files that cannot be read as what they are said to be: a finding, never an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runner.compare.comparator import Comparison
from runner.state.record import Verdict
from runner.tables.malformed import MalformedError, TooLargeError


@contextmanager
def told_of(side: str) -> Iterator[None]:
    """Name the file, `original` or `replay`, in what is found wrong with it."""
    try:
        yield
    except TooLargeError as error:
        raise TooLargeError(f"{side}: {error}") from None
    except MalformedError as error:
        raise MalformedError(f"{side}: {error}") from None


def loaded(load: Callable[[Path], Any], path: Path) -> Any:
    """What `load` makes of the file, or why it makes nothing."""
    try:
        return load(path)
    except MalformedError as error:
        return error


def either_malformed(before: Any, after: Any, by_bytes: Comparison) -> Comparison:
    """A malformed file differs from every sound one; where neither can be read, bytes decide.

    `before` and `after` come from `loaded`, and one of them at least is an error.
    """
    if isinstance(before, MalformedError) and isinstance(after, MalformedError):
        return as_bytes(f"original: {before}; replay: {after}", by_bytes)
    for side, error in (("original", before), ("replay", after)):
        if isinstance(error, TooLargeError):
            return as_bytes(f"{side}: {error}", by_bytes)
        if isinstance(error, MalformedError):
            return Comparison(Verdict.DIVERGED, f"{side}: {error}")
    raise AssertionError("both files are sound")


def as_bytes(reason: str, by_bytes: Comparison) -> Comparison:
    return Comparison(by_bytes.verdict, f"compared as bytes ({reason}): {by_bytes.detail}")
