"""Plain values to YAML that is pleasant to review: the same bytes for the same value, whatever library is installed.

Mappings are blocks; an item of a list is one line. Text that some YAML, 1.1 or 1.2, would not read as the same
string is quoted, and what an eye could not see in a review is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_WIDTH = 100
_LONGEST_KEY = 1000  # a reader looks 1024 characters ahead for the colon
_ON_ONE_LINE = {"command", "flags"}

_PLAIN = re.compile(
    r"(?:--?[A-Za-z0-9]|\.?[A-Za-z0-9_/])"
    r"(?:[A-Za-z0-9_/.+@%=~^$()*!;&|<>'\"\\-]++|:(?=[A-Za-z0-9_/.+-])|[ ]++(?=[A-Za-z0-9_/.+@%=~^$()*!;&|<>'\"\\-]))*+"
)
_READ_OTHERWISE = re.compile(
    r"y|n|yes|no|on|off|true|false|null"
    r"|[-+]?\.(inf|nan)"
    r"|[-+]?0[xob][0-9a-f_]*"
    r"|[-+]?(\.[0-9_]+|[0-9][0-9_]*(:[0-9]+)*(\.[0-9_]*)?)(e[-+]?[0-9]+)?"
    r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(t|[ ]).*|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}",
    re.IGNORECASE,
)
# Everything but visible characters, by a fixed list, since what Python calls printable grows with its version:
# controls, spaces but the plain one, marks of direction, private and unassigned planes.
_ESCAPED = re.compile(
    "[^\x20-\x7e\u00a1-\u00ac\u00ae-\u061b\u061d-\u167f\u1681-\u180d\u180f-\u1fff\u2010-\u2027\u2030-\u205e"
    "\u2070-\u2fff\u3001-\ud7ff\uf900-\ufdcf\ufdf0-\ufefe\uff01-\uff9f\uffa1-\uffef\U00010000-\U0002fffd]"
)
_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\"}


def write_yaml(value: Mapping[str, Any]) -> bytes:
    """Block YAML of a plain mapping, its keys in the order given, with a newline at the end."""
    return "".join(f"{line}\n" for line in _block(value, "")).encode()


def _block(mapping: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, value in mapping.items():
        head = indent + _key(key, f"\n{indent}")
        if value and isinstance(value, dict):
            yield head
            yield from _block(value, indent + "  ")
        elif value and isinstance(value, list) and not _fits(key, value, len(head)):
            yield head
            yield from (f"{indent}- {_flow(item)}" for item in value)
        else:
            yield f"{head} {_flow(value)}"


def _fits(key: str, items: list[Any], column: int) -> bool:
    if any(isinstance(item, dict | list) for item in items):
        return False
    return key in _ON_ONE_LINE or column + len(_flow(items)) < _WIDTH


def _key(key: str, separator: str) -> str:
    """The key with its colon. A long one is marked by `?`, and its colon follows the separator."""
    text = _string(key)
    return f"{text}:" if len(text) <= _LONGEST_KEY else f"? {text}{separator}:"


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key, ' ')} {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _scalar(value: str | float | bool | None) -> str:
    if isinstance(value, str):
        return _string(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return _float(value) if isinstance(value, float) else str(value)


def _float(value: float) -> str:
    """YAML 1.1 reads `1e-06` as a string: a float needs its point."""
    text = repr(value)
    if text in ("inf", "-inf", "nan"):
        return text.replace("inf", ".inf").replace("nan", ".nan")
    return text if "." in text else text.replace("e", ".0e")


def _string(text: str) -> str:
    if _PLAIN.fullmatch(text) and not _READ_OTHERWISE.fullmatch(text):
        return text
    if not _ESCAPED.search(text):
        return "'" + text.replace("'", "''") + "'"
    return '"' + "".join(map(_escape, text)) + '"'


def _escape(character: str) -> str:
    if character in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[character]
    if not _ESCAPED.match(character):
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
