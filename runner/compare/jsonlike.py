"""Comparator `json`: values, not their spelling.

Numbers are compared within the tolerance, lists by position; the order of keys does not count. A
malformed file differs from every well-formed one; two malformed files, and files past the size limit, are
compared as bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from runner.compare import raw
from runner.compare.comparator import Comparator, Comparison
from runner.compare.jsonread import MalformedError, load
from runner.compare.shown import shown
from runner.compare.tolerance import Tolerance, is_number, relative_difference, same
from runner.errors import UsageError
from runner.state.record import Verdict
from runner.state.spec import OutputRule

MAX_BYTES = 64 << 20
_EXAMPLES = 3
_VALUE_SHOWN = 60
_PATH_SHOWN = 100

Patterns = tuple[tuple[str, ...], ...]


class _Kind(Enum):
    """What a pair of values comes to that is not the same in both files."""

    DIFFERS = "differs"
    INSIDE = "inside the tolerance"
    TYPE = "an integer and an equal decimal"
    ORDER = "key order"
    IGNORED = "ignored"


class _Absent(Enum):
    ABSENT = "absent"


class _Length(NamedTuple):
    items: int


class _Place(NamedTuple):
    """Where a value is: its key or index, and where its container is."""

    parent: _Place | None
    key: str | int


class _Pair(NamedTuple):
    """Two values of one place. `ignore` holds what is left of the ignored paths from here on."""

    place: _Place | None
    original: Any
    replayed: Any
    ignore: Patterns


class _Finding(NamedTuple):
    kind: _Kind
    pair: _Pair


def compare(original: Path, replayed: Path, rule: OutputRule) -> Comparison:
    by_bytes = raw.compare(original, replayed, rule)
    if by_bytes.verdict is Verdict.IDENTICAL:
        return by_bytes
    if max(original.stat().st_size, replayed.stat().st_size) > MAX_BYTES:
        return _reasoned(f"over {MAX_BYTES >> 20} MiB, compared as bytes", by_bytes)
    before, after = _load(original), _load(replayed)
    if isinstance(before, MalformedError) and isinstance(after, MalformedError):
        return _reasoned(f"compared as bytes (original: {before}; replay: {after})", by_bytes)
    if isinstance(before, MalformedError):
        return Comparison(Verdict.DIVERGED, f"original: {before}")
    if isinstance(after, MalformedError):
        return Comparison(Verdict.DIVERGED, f"replay: {after}")
    tolerance = Tolerance(rule.rtol, rule.atol)
    ignore = tuple(tuple(path.split(".")) for path in rule.ignore)
    return _conclude(_findings(_Pair(None, before, after, ignore), tolerance), tolerance)


def check(path: str, rule: OutputRule) -> None:
    for ignored in rule.ignore:
        if not all(ignored.split(".")):
            raise UsageError(
                f"output {path!r}: `ignore` holds {ignored!r}, which has an empty part",
                "an ignored path is keys and indices joined by single dots, `*` standing for any one",
                "write it as in `a.b.*.time`",
            )


COMPARATOR = Comparator(compare, frozenset({"rtol", "atol", "ignore"}), check)


def _load(path: Path) -> Any:
    """The value, or why there is none."""
    try:
        return load(path)
    except MalformedError as error:
        return error


def _reasoned(reason: str, comparison: Comparison) -> Comparison:
    return Comparison(comparison.verdict, f"{reason}: {comparison.detail}")


# --- walking two values at once ------------------------------------------------------------------------


def _findings(top: _Pair, tolerance: Tolerance) -> Iterator[_Finding]:
    """All that is not the same, in document order. Keeps its own stack: nesting is a stranger's choice."""
    stack = [iter([top])]
    while stack:
        pair = next(stack[-1], None)
        if pair is None:
            stack.pop()
        elif () in pair.ignore:
            if _differs(pair):
                yield _Finding(_Kind.IGNORED, pair)
        elif isinstance(pair.original, dict) and isinstance(pair.replayed, dict):
            if _is_reordered(pair.original, pair.replayed):
                yield _Finding(_Kind.ORDER, pair)
            stack.append(_members(pair))
        elif isinstance(pair.original, list) and isinstance(pair.replayed, list):
            stack.append(_items(pair))
        elif kind := _kind(pair.original, pair.replayed, tolerance):
            yield _Finding(kind, pair)


def _differs(pair: _Pair) -> bool:
    findings = _findings(pair._replace(ignore=()), Tolerance())
    return any(finding.kind is _Kind.DIFFERS for finding in findings)


def _is_reordered(original: dict[str, Any], replayed: dict[str, Any]) -> bool:
    return original.keys() == replayed.keys() and list(original) != list(replayed)


def _members(pair: _Pair) -> Iterator[_Pair]:
    added = (key for key in pair.replayed if key not in pair.original)
    for key in chain(pair.original, added):
        a, b = pair.original.get(key, _Absent.ABSENT), pair.replayed.get(key, _Absent.ABSENT)
        if not _is_same_scalar(a, b):
            yield _Pair(_Place(pair.place, key), a, b, _below(pair.ignore, key))


def _items(pair: _Pair) -> Iterator[_Pair]:
    """Pairs by position; what one list has in excess is one difference in length, unless it is ignored."""
    a, b = pair.original, pair.replayed
    common = min(len(a), len(b))
    for index in range(common):
        if not _is_same_scalar(a[index], b[index]):
            yield _Pair(_Place(pair.place, index), a[index], b[index], _below(pair.ignore, index))
    in_excess = False
    for index in range(common, max(len(a), len(b))):
        ignore = _below(pair.ignore, index)
        if () in ignore:
            yield _Pair(_Place(pair.place, index), _item(a, index), _item(b, index), ignore)
        else:
            in_excess = True
    if in_excess:
        yield _Pair(pair.place, _Length(len(a)), _Length(len(b)), ())


def _item(values: list[Any], index: int) -> Any:
    return values[index] if index < len(values) else _Absent.ABSENT


def _below(patterns: Patterns, key: str | int) -> Patterns:
    if not patterns:
        return ()
    return tuple(pattern[1:] for pattern in patterns if pattern[0] in ("*", str(key)))


def _is_same_scalar(a: Any, b: Any) -> bool:
    return type(a) is type(b) and not isinstance(a, dict | list) and bool(a == b)


def _kind(original: Any, replayed: Any, tolerance: Tolerance) -> _Kind | None:
    if _is_same_scalar(original, replayed):
        return None
    if is_number(original) and is_number(replayed):
        if same(original, replayed):
            return None if type(original) is type(replayed) else _Kind.TYPE
        return _Kind.INSIDE if tolerance.allows(original, replayed) else _Kind.DIFFERS
    return _Kind.DIFFERS


# --- saying what was found -----------------------------------------------------------------------------


def _conclude(findings: Iterable[_Finding], tolerance: Tolerance) -> Comparison:
    counts, examples, largest = Counter[_Kind](), list[str](), dict[_Kind, float]()
    for kind, pair in findings:
        counts[kind] += 1
        if kind is _Kind.DIFFERS and len(examples) < _EXAMPLES:
            examples.append(_example(pair))
        if kind in (_Kind.DIFFERS, _Kind.INSIDE):
            largest[kind] = max(largest.get(kind, 0.0), _relative(pair))
    notes = _notes(counts, largest, tolerance)
    if counts[_Kind.DIFFERS]:
        return Comparison(Verdict.DIVERGED, "; ".join([_differing(counts, examples, largest), *notes]))
    if not counts[_Kind.INSIDE]:
        notes = [*(notes or ["formatting only"]), f"allowed: {tolerance}"]
    return Comparison(Verdict.EQUIVALENT, "; ".join(notes))


def _relative(pair: _Pair) -> float:
    if is_number(pair.original) and is_number(pair.replayed):
        return relative_difference(pair.original, pair.replayed) or 0.0
    return 0.0


def _differing(counts: Counter[_Kind], examples: list[str], largest: dict[_Kind, float]) -> str:
    more = counts[_Kind.DIFFERS] - len(examples)
    text = f"{_count(counts[_Kind.DIFFERS], 'difference')}: {', '.join(examples)}"
    if more:
        text += f" and {more} more"
    if largest[_Kind.DIFFERS]:
        text += f"; largest relative difference {largest[_Kind.DIFFERS]:.3g}"
    return text


def _notes(counts: Counter[_Kind], largest: dict[_Kind, float], tolerance: Tolerance) -> list[str]:
    notes = []
    if inside := counts[_Kind.INSIDE]:
        relative = f" (largest relative difference {largest[_Kind.INSIDE]:.3g})" if largest[_Kind.INSIDE] else ""
        notes.append(f"{_count(inside, 'number')} inside {tolerance}{relative}")
    if changed := counts[_Kind.TYPE]:
        notes.append(f"{_count(changed, 'number')} equal but integer in one and decimal in the other")
    if ignored := counts[_Kind.IGNORED]:
        notes.append(f"{_count(ignored, 'ignored difference')}")
    if counts[_Kind.ORDER]:
        notes.append("key order")
    return notes


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _example(pair: _Pair) -> str:
    return f"{_dotted(pair.place)} {_value(pair.original)} became {_value(pair.replayed)}"


def _dotted(place: _Place | None) -> str:
    """The path as `ignore` would name it."""
    keys: list[str] = []
    while place:
        keys.append(str(place.key)[:_PATH_SHOWN])
        place = place.parent
    return shown(".".join(reversed(keys)), _PATH_SHOWN) if keys else "the top"


def _value(value: Any) -> str:
    if isinstance(value, str):
        return f'"{shown(value, _VALUE_SHOWN)}"'
    if isinstance(value, dict):
        return f"an object of {_count(len(value), 'key')}"
    if isinstance(value, list):
        return f"a list of {_count(len(value), 'item')}"
    if isinstance(value, _Length):
        return _count(value.items, "item")
    if isinstance(value, _Absent):
        return value.value
    return shown(json.dumps(value), _VALUE_SHOWN)
