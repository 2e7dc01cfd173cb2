"""Text that a job wrote, made fit for a terminal, a spec and a report: bounded, nothing in it is obeyed."""

from __future__ import annotations

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
