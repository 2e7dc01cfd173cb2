"""Normalisers of text: what a job prints that is no part of its result, replaced by its name.

They work on the bytes of one line, and on a long line in pieces, whose borders do not show in the result:
what a match could still reach across is held back until the next piece is there.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache

# Bytes held back at the end of a piece: longer than any match.
HOLD = 8192

_DAY = r"(?:0[1-9]|[12]\d|3[01])"
_MONTH = r"(?:0[1-9]|1[0-2])"
_MONTH_NAME = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_WEEKDAY = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_CLOCK = r"\d{2}:\d{2}:\d{2}(?:[.,]\d{1,12})?"
_ZONE = r"(?:Z|\ ?[+-]\d{2}:?\d{2}|\ (?:UTC|GMT))"
_COUNT = r"\d{1,12}(?:\.\d{1,20})?(?:e[+-]?\d{1,3})?"
_SECONDS = r"(?:ns|us|µs|μs|ms|s|secs?|seconds?)"

# In order of precedence. ISO 8601 and Go; ISO 8601 basic; Apache; RFC 5322; ctime and syslog; time of day.
_TIMESTAMPS = rf"""
    \d{{4}} (?: -{_MONTH}-{_DAY} | /{_MONTH}/{_DAY} ) (?: [T\ ] (?: {_CLOCK} | \d{{2}}:\d{{2}} ) {_ZONE}? )?
  | \d{{8}} T \d{{6}} Z?
  | \d{{2}} / {_MONTH_NAME} / \d{{4}} : {_CLOCK} {_ZONE}?
  | (?: {_WEEKDAY},\  )? \d{{1,2}}\ {_MONTH_NAME}\ \d{{4}} (?: \ {_CLOCK} {_ZONE}? )?
  | (?: {_WEEKDAY}\  )? {_MONTH_NAME}\ [\ \d]\d\ {_CLOCK} {_ZONE}? (?: \ \d{{4}} )?
  | {_CLOCK} {_ZONE}?
"""

# Python's `str(timedelta)`; 3.2 ms and 1h 02m 3s; 5 minutes.
_DURATIONS = rf"""
    (?: \d{{1,6}}\ days?,\  )? \d{{1,4}}:\d{{2}}:\d{{2}} (?:\.\d{{1,12}})?
  | (?: \d{{1,6}} d \ ? )? (?: \d{{1,6}} h \ ? )? (?: \d{{1,6}} m \ ? )? {_COUNT} \ ? {_SECONDS}
  | {_COUNT} \ ? (?: mins? | minutes? | hours? | days? )
"""

_PATTERNS = {
    "timestamps": rf"(?<!\w) (?: {_TIMESTAMPS} ) (?!\w)",
    "durations": rf"(?<!\w) (?: {_DURATIONS} ) (?!\w)",
    "addresses": r"(?<!\w) 0x[0-9a-fA-F]{6,16} (?!\w)",
    "paths": r"""(?<![\w./~<-]) / [A-Za-z_.] [^\s"'`<>|:;,()\[\]{}]{0,4094}""",
}

LINE_ENDS = "line-ends"
TRAILING_SPACE = "trailing-space"
NORMALISERS = (LINE_ENDS, TRAILING_SPACE, *_PATTERNS)


class Normaliser:
    """Normalises one line, and keeps a digest of all that each normaliser took away."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._pattern = _pattern(tuple(name for name in _PATTERNS if name in names))
        self._taken = {name: hashlib.blake2b() for name in names}

    def run(self, line: Iterable[bytes]) -> Iterator[bytes]:
        """The normalised line, piece by piece. Only the last piece may end the line."""
        held, start = b"", 0
        for piece in line:
            held += piece
            if held.endswith(b"\n") or len(held) <= HOLD:
                continue
            text, end = self._replace(held, start, len(held) - HOLD)
            yield text
            # One byte stays as context: a match must not follow a letter.
            held, start = held[end - 1 :], 1
        if held:
            yield self._finish(held, start)

    def taken(self) -> dict[str, bytes]:
        """What was taken from the line so far, by normaliser, as digests."""
        return {name: digest.digest() for name, digest in self._taken.items()}

    def _finish(self, held: bytes, start: int) -> bytes:
        content, end = _split_end(held)
        if TRAILING_SPACE in self._names:
            stripped = max(start, len(content.rstrip(b" \t")))
            self._take(TRAILING_SPACE, content[stripped:])
            content = content[:stripped]
        if LINE_ENDS in self._names:
            self._take(LINE_ENDS, end)
            # Nothing at the end of a file, once its spaces are gone, is no line that could lack its end.
            end = b"\n" if content or end else b""
        return self._replace(content, start, len(content))[0] + end

    def _replace(self, text: bytes, start: int, stop: int) -> tuple[bytes, int]:
        """`text` normalised from `start` up to a position: `stop`, or the end of a match across it."""
        parts, at = [], start
        for match in self._pattern.finditer(text, start) if self._pattern else ():
            if match.start() >= stop:
                break
            name = match.lastgroup or ""
            self._take(name, match.group())
            parts += [text[at : match.start()], b"<%b>" % name.encode()]
            at = match.end()
        end = max(at, stop)
        return b"".join([*parts, text[at:end]]), end

    def _take(self, name: str, raw: bytes) -> None:
        if raw:
            self._taken[name].update(raw + b"\n")


@lru_cache
def _pattern(names: tuple[str, ...]) -> re.Pattern[bytes] | None:
    """One pattern for all, with a group a normaliser, so that a text is read once."""
    groups = [f"(?P<{name}>{_PATTERNS[name]})" for name in names]
    return re.compile("|".join(groups).encode(), re.VERBOSE) if groups else None


def _split_end(line: bytes) -> tuple[bytes, bytes]:
    for end in (b"\r\n", b"\n"):
        if line.endswith(end):
            return line[: -len(end)], end
    return line, b""
