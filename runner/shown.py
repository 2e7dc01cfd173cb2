"""Text that a job wrote, made fit for a terminal, a spec and a report: bounded, nothing in it is obeyed."""

from __future__ import annotations

from collections.abc import Sequence

ELLIPSIS = "…"


def shown(value: str | bytes, limit: int) -> str:
    """`value` in at most `limit` characters, with whatever is not printable written as an escape."""
    if isinstance(value, bytes):
        # A character has 4 bytes at most: what is cut off here could not be shown.
        value = value[: 4 * (limit + 1)].decode("utf-8", "surrogateescape")
    text = ""
    for character in value[: limit + 1]:
        text += _escaped(character)
    return text if len(text) <= limit else text[: limit - 1] + ELLIPSIS


def _escaped(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def count(number: int, noun: str) -> str:
    """`1 row`, `1,000 rows`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def few(names: Sequence[str], most: int) -> str:
    """`a, b and 3 more`: the first `most` of `names`, and how many are left."""
    left = len(names) - most
    return ", ".join(names[:most]) + (f" and {left:,} more" if left > 0 else "")


def called(kind: str, name: str) -> str:
    """`wheel alpha-1.0.whl`; what is the only one of its kind is called by that alone, `code`."""
    return kind if kind == name else f"{kind} {name}"


def needed_by(runs: Sequence[str], most: int = 3) -> str:
    """How many runs need something, and the first of them."""
    return f"needed by {count(len(runs), 'run')}: {few(runs, most)}"


def gone_words(gone: int) -> str:
    """Of so many runs that were removed since the night before."""
    return f"{count(gone, 'run')} of last night {'is' if gone == 1 else 'are'} gone"
