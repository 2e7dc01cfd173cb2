"""JSON of unknown origin, read within bounds.

As Python's `json` reads it (NaN and infinities too), but a key may appear once in an object, the text is
UTF-8, and nesting and integers have a limit that is the same on every interpreter.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from runner.shown import shown
from runner.tables.malformed import MalformedError

MAX_DEPTH = 500
MAX_DIGITS = 4300
_SHOWN = 100


def load(path: Path) -> Any:
    """The value of a JSON file. Raises `MalformedError`, `OSError`."""
    return read(path.read_bytes())


def read(content: bytes) -> Any:
    """The value of JSON. Raises `MalformedError`."""
    try:
        value = _DECODER.decode(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise MalformedError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise MalformedError(f"not JSON: {place}: {shown(error.msg, _SHOWN)}") from None
    except RecursionError:
        raise too_deep() from None
    if is_too_deep(value):
        raise too_deep()
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise MalformedError(f'key "{shown(twice, _SHOWN)}" appears twice in one object')
    return members


def _integer(digits: str) -> int:
    """The time that `int` takes grows with the square of the digits, hence the limit."""
    try:
        if len(digits) <= MAX_DIGITS:
            return int(digits)
    except ValueError:  # the interpreter was started with a lower limit
        pass
    raise MalformedError(f"an integer of {len(digits)} digits, more than the {MAX_DIGITS} that are read")


def read_float(digits: str) -> float:
    """Raises `MalformedError` beyond the largest double: two such numbers would be one infinity."""
    value = float(digits)
    if math.isinf(value) and "inf" not in digits.lower():
        raise MalformedError(f"the number {shown(digits, _SHOWN)} is beyond what a double holds")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=read_float)


def is_too_deep(value: Any) -> bool:
    """Whether objects and lists are nested more than `MAX_DEPTH` levels."""
    level = _containers([value])
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in _containers(_members(node))]
    return bool(level)


def _containers(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, dict | list)]


def _members(container: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container


def too_deep() -> MalformedError:
    return MalformedError(f"nested more than {MAX_DEPTH} levels deep")
