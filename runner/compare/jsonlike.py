"""Comparators `json`, `yaml` and `toml`: values, not their spelling.

Numbers are compared within the tolerance, lists by position; the order of keys does not count. A
malformed file differs from every well-formed one; two malformed files, and files past the size limit, are
compared as bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from runner.compare import jsonread, raw, tomlread, yamlread
from runner.compare.comparator import Comparator, Comparison
from runner.compare.malformed import either_malformed, loaded
from runner.compare.tolerance import Tolerance, Tolerances, is_number, relative_difference, same, tolerances_of
from runner.errors import UsageError
from runner.shown import count, shown
from runner.state.record import Verdict
from runner.state.spec import OutputRule
from runner.tables.malformed import MalformedError

MAX_JSON = 64 << 20
# Their readers take ten times as long.
MAX_YAML = MAX_TOML = 8 << 20
_EXAMPLES = 3
_VALUE_SHOWN = 60
_PATH_SHOWN = 100

Pattern = tuple[str, ...]
Patterns = tuple[Pattern, ...]


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


class _Options(NamedTuple):
    """What a rule says of a place. `ignore` and `own` hold what is left of the named paths from here on."""

    ignore: Patterns
    own: tuple[tuple[Pattern, Tolerance], ...]
    tolerance: Tolerance

    def below(self, key: str | int) -> _Options:
        if not self.ignore and not self.own:
            return self
        names = ("*", str(key))
        ignore = tuple(pattern[1:] for pattern in self.ignore if pattern[0] in names)
        own = tuple((pattern[1:], tolerance) for pattern, tolerance in self.own if pattern and pattern[0] in names)
        here = next((tolerance for pattern, tolerance in own if not pattern), self.tolerance)
        return _Options(ignore, own, here)


class _Pair(NamedTuple):
    """Two values of one place."""

    place: _Place | None
    original: Any
    replayed: Any
    options: _Options


class _Finding(NamedTuple):
    kind: _Kind
    pair: _Pair


class Language(msgspec.Struct, frozen=True):
    """A way to write values: its reader, and the size of a file that is read."""

    load: Callable[[Path], Any]
    limit: int

    def compare(self, original: Path, replayed: Path, rule: OutputRule) -> Comparison:
        by_bytes = raw.compare(original, replayed, rule)
        if by_bytes.verdict is Verdict.IDENTICAL:
            return by_bytes
        if max(original.stat().st_size, replayed.stat().st_size) > self.limit:
            return Comparison(by_bytes.verdict, f"over {self.limit >> 20} MiB, compared as bytes: {by_bytes.detail}")
        before, after = loaded(self.load, original), loaded(self.load, replayed)
        if isinstance(before, MalformedError) or isinstance(after, MalformedError):
            return either_malformed(before, after, by_bytes)
        top = _Pair(None, before, after, _options(rule))
        return _conclude(_findings(top), tolerances_of(rule))


def _options(rule: OutputRule) -> _Options:
    """Of several named paths that lead to one place, the deepest holds, then the one of fewest `*`."""
    ignore = tuple(_pattern(path) for path in rule.ignore)
    tolerances = tolerances_of(rule)
    own = sorted(((_pattern(path), one) for path, one in tolerances.own.items()), key=lambda item: item[0].count("*"))
    return _Options(ignore, tuple(own), tolerances.default)


def _pattern(path: str) -> Pattern:
    return tuple(path.split("."))


def check(path: str, rule: OutputRule) -> None:
    for option, names in (("ignore", rule.ignore), ("tolerances", rule.tolerances)):
        for name in names:
            if not all(_pattern(name)):
                raise UsageError(
                    f"output {path!r}: `{option}` holds {name!r}, which has an empty part",
                    "a path is keys and indices joined by single dots, `*` standing for any one",
                    "write it as in `a.b.*.time`",
                )


def _comparator(load: Callable[[Path], Any], limit: int) -> Comparator:
    return Comparator(Language(load, limit).compare, frozenset({"rtol", "atol", "tolerances", "ignore"}), check)


JSON = _comparator(jsonread.load, MAX_JSON)
YAML = _comparator(yamlread.load, MAX_YAML)
TOML = _comparator(tomlread.load, MAX_TOML)


# --- walking two values at once ------------------------------------------------------------------------


def _findings(top: _Pair) -> Iterator[_Finding]:
    """All that is not the same, in document order. Keeps its own stack: nesting is a stranger's choice."""
    stack = [iter([top])]
    while stack:
        pair = next(stack[-1], None)
        if pair is None:
            stack.pop()
        elif () in pair.options.ignore:
            if _differs(pair):
                yield _Finding(_Kind.IGNORED, pair)
        elif isinstance(pair.original, dict) and isinstance(pair.replayed, dict):
            if _is_reordered(pair.original, pair.replayed):
                yield _Finding(_Kind.ORDER, pair)
            stack.append(_members(pair))
        elif isinstance(pair.original, list) and isinstance(pair.replayed, list):
            stack.append(_items(pair))
        elif kind := _kind(pair.original, pair.replayed, pair.options.tolerance):
            yield _Finding(kind, pair)


def _differs(pair: _Pair) -> bool:
    findings = _findings(pair._replace(options=_EXACTLY))
    return any(finding.kind is _Kind.DIFFERS for finding in findings)


_EXACTLY = _Options((), (), Tolerance())


def _is_reordered(original: dict[str, Any], replayed: dict[str, Any]) -> bool:
    return original.keys() == replayed.keys() and list(original) != list(replayed)


def _members(pair: _Pair) -> Iterator[_Pair]:
    added = (key for key in pair.replayed if key not in pair.original)
    for key in chain(pair.original, added):
        a, b = pair.original.get(key, _Absent.ABSENT), pair.replayed.get(key, _Absent.ABSENT)
        if not _is_same_scalar(a, b):
            yield _Pair(_Place(pair.place, key), a, b, pair.options.below(key))


def _items(pair: _Pair) -> Iterator[_Pair]:
    """Pairs by position; what one list has in excess is one difference in length, unless it is ignored."""
    a, b = pair.original, pair.replayed
    common = min(len(a), len(b))
    for index in range(common):
        if not _is_same_scalar(a[index], b[index]):
            yield _Pair(_Place(pair.place, index), a[index], b[index], pair.options.below(index))
    in_excess = False
    for index in range(common, max(len(a), len(b))):
        options = pair.options.below(index)
        if () in options.ignore:
            yield _Pair(_Place(pair.place, index), _item(a, index), _item(b, index), options)
        else:
            in_excess = True
    if in_excess:
        yield _Pair(pair.place, _Length(len(a)), _Length(len(b)), _EXACTLY)


def _item(values: list[Any], index: int) -> Any:
    return values[index] if index < len(values) else _Absent.ABSENT


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


def _conclude(findings: Iterable[_Finding], tolerance: Tolerances) -> Comparison:
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
    text = f"{count(counts[_Kind.DIFFERS], 'difference')}: {', '.join(examples)}"
    if more:
        text += f" and {more} more"
    if largest[_Kind.DIFFERS]:
        text += f"; largest relative difference {largest[_Kind.DIFFERS]:.3g}"
    return text


def _notes(counts: Counter[_Kind], largest: dict[_Kind, float], tolerance: Tolerances) -> list[str]:
    notes = []
    if inside := counts[_Kind.INSIDE]:
        relative = f" (largest relative difference {largest[_Kind.INSIDE]:.3g})" if largest[_Kind.INSIDE] else ""
        notes.append(f"{count(inside, 'number')} inside {tolerance}{relative}")
    if changed := counts[_Kind.TYPE]:
        notes.append(f"{count(changed, 'number')} equal but integer in one and decimal in the other")
    if ignored := counts[_Kind.IGNORED]:
        notes.append(f"{count(ignored, 'ignored difference')}")
    if counts[_Kind.ORDER]:
        notes.append("key order")
    return notes


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
        return f"an object of {count(len(value), 'key')}"
    if isinstance(value, list):
        return f"a list of {count(len(value), 'item')}"
    if isinstance(value, _Length):
        return count(value.items, "item")
    if isinstance(value, _Absent):
        return value.value
    plain = isinstance(value, int | float | None)
    return shown(json.dumps(value) if plain else str(value), _VALUE_SHOWN)
