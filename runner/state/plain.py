"""Plain values: mappings with string keys, lists, strings, numbers, booleans and null, as every format holds them.

They are what lies between a struct and its bytes.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from runner.errors import UsageError
from runner.state.digest import plain

KeyPath = tuple[str | int, ...]

MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that do not have the shape asked for."""

MAX_DEPTH = 100
_SMALLEST, _LARGEST = -(2**63), 2**63 - 1
_SURROGATE = re.compile("[\ud800-\udfff]")
_SIMPLE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class Problem(NamedTuple):
    """One thing wrong with a value: where, from the top, and what."""

    path: KeyPath
    text: str

    def __str__(self) -> str:
        return f"{shown_path(self.path)}: {self.text}"


def to_plain(value: msgspec.Struct) -> dict[str, Any]:
    """The plain form of a struct: fields in their order, mappings sorted by key."""
    found: dict[str, Any] = _in_order(plain(value), msgspec.to_builtins(value, order="deterministic"))
    return found


def _in_order(value: Any, model: Any) -> Any:
    """The value with the keys of its mappings in the order that they have in `model`."""
    if isinstance(value, dict):
        return {key: _in_order(value[key], model[key]) for key in model if key in value}
    return list(map(_in_order, value, model)) if isinstance(value, list) else value


def has_needless_null(value: Any, raw: Any) -> bool:
    """Whether `raw`, which `value` was made of, gives null for a key that should be absent instead."""
    if isinstance(value, msgspec.Struct):
        return any(
            (raw[key] is None and may_be_absent) or has_needless_null(getattr(value, name), raw[key])
            for name, key, may_be_absent in _fields(type(value))
            if key in raw
        )
    if isinstance(value, dict):
        return any(has_needless_null(item, raw[key]) for key, item in value.items())
    if isinstance(value, tuple):
        return any(map(has_needless_null, value, raw))
    return False


@functools.cache
def _fields(struct: type[msgspec.Struct]) -> tuple[tuple[str, str, bool], ...]:
    """Name in Python, name in files, and whether None stands for an absent key."""
    return tuple((one.name, one.encode_name, one.default is None) for one in msgspec.structs.fields(struct))


def check_plain(value: Any, source: str) -> None:
    """Raises `UsageError` for what has no canonical JSON: NaN, infinity, integers beyond 64 bits, keys that are
    no strings, text that is no Unicode, values of other types, and nesting deeper than 100."""
    problems = plain_problems(value)
    if problems:
        raise problems_error(source, list(map(str, problems)))


def plain_problems(value: Any) -> list[Problem]:
    return list(_problems(value, ()))


def problems_error(source: str, lines: list[str]) -> UsageError:
    """One error of all problems, a line each, but not of thousands."""
    count, shown = len(lines), lines[:50]
    more = [f"and {count - len(shown)} more"] if count > len(shown) else []
    what = f"{source} is not valid" + (f": {count} problems" if count > 1 else "")
    return UsageError(what, "\n".join(shown + more), f"correct {source}")


def shown_path(path: KeyPath) -> str:
    """`jobs.train.outputs["m.json"]`, or `the top`."""
    shown = ""
    for key in path:
        if isinstance(key, str) and _SIMPLE_KEY.fullmatch(key):
            shown += f".{key}"
        else:
            shown += f"[{quoted(key)}]" if isinstance(key, str) else f"[{key}]"
    return shown.removeprefix(".") or "the top"


def quoted(text: str, limit: int = 60) -> str:
    """The text on one line, in quotes, cut when it is long."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return '"' + "".join(one if one.isprintable() else repr(one)[1:-1] for one in cut) + '"'


def _problems(value: Any, path: KeyPath) -> Iterator[Problem]:
    if isinstance(value, dict | list | tuple):
        if len(path) >= MAX_DEPTH:
            yield Problem(path[:3], f"nested deeper than {MAX_DEPTH} levels")
        elif isinstance(value, dict):
            yield from _mapping_problems(value, path)
        else:
            for index, item in enumerate(value):
                yield from _problems(item, (*path, index))
    elif problem := _scalar_problem(value):
        yield Problem(path, problem)


def _mapping_problems(value: dict[Any, Any], path: KeyPath) -> Iterator[Problem]:
    for key, item in value.items():
        if not isinstance(key, str):
            yield Problem(path, f"the key {key!r} is no string; put it in quotes")
        elif problem := _scalar_problem(key):
            yield Problem(path, f"the key {quoted(key)} {problem}")
        else:
            yield from _problems(item, (*path, key))


def _scalar_problem(value: Any) -> str | None:
    if isinstance(value, str):
        broken = not value.isascii() and _SURROGATE.search(value)
        return "holds bytes that are not UTF-8" if broken else None
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, int):
        return None if _SMALLEST <= value <= _LARGEST else "an integer beyond 64 bits; write it as a string"
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{value} has no JSON form; write it as a string"
    return f"a {type(value).__name__} is no plain value"
