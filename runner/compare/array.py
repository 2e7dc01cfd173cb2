"""Comparator `array`: shape, type and every element, as `numpy.testing.assert_allclose` has it.

Without a tolerance elements are equal or not; NaN equals NaN. Fields of a structured array are arrays of
their own, called `array.field`. Byte order, order in memory and metadata do not count.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from runner.compare import raw
from runner.compare.arrayread import Array, Arrays, arrays_of
from runner.compare.comparator import Comparator, Comparison
from runner.compare.malformed import either_malformed, loaded, told_of
from runner.compare.tolerance import Tolerance, Tolerances, change, tolerances_of
from runner.shown import count, few, shown
from runner.state.record import Verdict
from runner.state.spec import OutputRule
from runner.tables.malformed import MalformedError

_CHUNK = 1 << 18
_EXAMPLES = 3
_NAME_SHOWN = 60
_VALUE_SHOWN = 60


class _Worst(NamedTuple):
    excess: float
    place: int
    original: Any
    replayed: Any


class _Seen(NamedTuple):
    """What pairs of elements come to."""

    outside: int = 0
    inside: int = 0
    largest: float = 0.0
    worst: _Worst | None = None

    def joined(self, other: _Seen) -> _Seen:
        worst = self.worst
        if other.worst and (worst is None or other.worst.excess > worst.excess):
            worst = other.worst
        return _Seen(self.outside + other.outside, self.inside + other.inside, max(self.largest, other.largest), worst)


class _Result(NamedTuple):
    difference: str = ""
    inside: int = 0
    largest: float = 0.0


def compare(original: Path, replayed: Path, rule: OutputRule) -> Comparison:
    by_bytes = raw.compare(original, replayed, rule)
    if by_bytes.verdict is Verdict.IDENTICAL:
        return by_bytes
    folder = Path(tempfile.mkdtemp(prefix="replay-compare-"))
    try:
        with ExitStack() as stack:
            before = loaded(_opener(stack, folder / "original"), original)
            after = loaded(_opener(stack, folder / "replayed"), replayed)
            if isinstance(before, MalformedError) or isinstance(after, MalformedError):
                return either_malformed(before, after, by_bytes)
            return _compare(before, after, rule)
    except MalformedError as error:
        return Comparison(Verdict.DIVERGED, str(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


COMPARATOR = Comparator(compare, frozenset({"rtol", "atol", "tolerances", "ignore"}), extra="arrays")


def _opener(stack: ExitStack, folder: Path) -> Callable[[Path], Arrays]:
    folder.mkdir()
    return lambda path: stack.enter_context(arrays_of(path, folder))


def _compare(before: Arrays, after: Arrays, rule: OutputRule) -> Comparison:
    if before.format != after.format:
        return Comparison(Verdict.DIVERGED, f"{before.format} became {after.format}")
    tolerances = tolerances_of(rule)
    lost = [name for name in before.names if name not in after.names and name not in rule.ignore]
    new = [name for name in after.names if name not in before.names and name not in rule.ignore]
    common = [name for name in before.names if name in after.names and name not in rule.ignore]
    results = [result for name in common for result in _results(name, before, after, tolerances, rule.ignore)]
    differences = [result.difference for result in results if result.difference]
    more = len(differences) - _EXAMPLES
    told = [
        *differences[:_EXAMPLES],
        *([f"{count(more, 'more array')} with differences"] if more > 0 else []),
        *([f"only in the original: {_listed(lost)}"] if lost else []),
        *([f"only in the replay: {_listed(new)}"] if new else []),
    ]
    about = [f"ignored: {_listed(list(rule.ignore))}"] if rule.ignore else []
    if before.metadata != after.metadata:
        about.append("ignored: metadata, which differs")
    inside = _inside(results, tolerances)
    if told:
        return Comparison(Verdict.DIVERGED, "; ".join([*told, *inside, *about]))
    same = inside or ["the same elements", f"allowed: {tolerances}"]
    return Comparison(Verdict.EQUIVALENT, "; ".join([*same, *about]))


def _inside(results: list[_Result], tolerances: Tolerances) -> list[str]:
    inside = sum(result.inside for result in results)
    if not inside:
        return []
    largest = max(result.largest for result in results)
    relative = f" (largest relative difference {largest:.3g})" if largest else ""
    return [f"{count(inside, 'element')} inside {tolerances}{relative}"]


def _results(
    name: str, before: Arrays, after: Arrays, tolerances: Tolerances, ignore: tuple[str, ...]
) -> Iterator[_Result]:
    with told_of(f"original: {_place(name)[:-2]}"):
        a = before.open(name)
    with told_of(f"replay: {_place(name)[:-2]}"):
        b = after.open(name)
    return _pairs(name, a, b, tolerances, ignore)


def _pairs(name: str, a: Array, b: Array, tolerances: Tolerances, ignore: tuple[str, ...]) -> Iterator[_Result]:
    if name and name in ignore:
        return
    if a.values.shape != b.values.shape:
        yield _Result(f"{_place(name)}shape {list(a.values.shape)} became {list(b.values.shape)}")
    elif a.type != b.type:
        yield _Result(f"{_place(name)}{shown(a.type, _NAME_SHOWN)} became {shown(b.type, _NAME_SHOWN)}")
    elif a.values.dtype.names:
        for field in a.values.dtype.names:
            own = f"{name}.{field}" if name else field
            left, right = (Array(str(one.values.dtype[field].newbyteorder("=")), one.values[field]) for one in (a, b))
            yield from _pairs(own, left, right, tolerances, ignore)
    elif a.values.nbytes:
        yield _elements(name, a, b, tolerances.of(name))


def _elements(name: str, a: Array, b: Array, tolerance: Tolerance) -> _Result:
    import numpy

    seen = _Seen()
    with numpy.errstate(all="ignore"):
        for start, x, y in _chunks(a, b):
            seen = seen.joined(_look(start, x, y, tolerance))
    if not seen.worst:
        return _Result("", seen.inside, seen.largest)
    place = [int(index) for index in numpy.unravel_index(seen.worst.place, a.values.shape)]
    exact = tolerance == Tolerance()
    counted = f"{seen.outside:,} of {count(a.values.size, 'element')}"
    verb = (" differs" if seen.outside == 1 else " differ") if exact else f" outside {tolerance}"
    values = f"{_value(seen.worst.original)} → {_value(seen.worst.replayed)}"
    relative = change(_real(seen.worst.original), _real(seen.worst.replayed))
    return _Result(f"{_place(name)}{counted}{verb}, most at {place}: {values}{relative}", seen.inside, seen.largest)


def _chunks(a: Array, b: Array) -> Iterator[tuple[int, Any, Any]]:
    """Pairs of elements in C order, some at a time, with the number of the first."""
    for start in range(0, a.values.size, _CHUNK):
        yield start, *(array.decoded(_flat(array.values, start)) for array in (a, b))


def _flat(values: Any, start: int) -> Any:
    """Only what lies in C order can be looked at without copying element by element."""
    flat = values.reshape(-1) if values.flags.c_contiguous else values.flat
    return flat[start : start + _CHUNK]


def _look(start: int, x: Any, y: Any, tolerance: Tolerance) -> _Seen:
    import numpy

    kind = x.dtype.kind
    same = x == y
    if kind in "fc":
        same |= numpy.isnan(x) & numpy.isnan(y)
    elif kind in "mM":
        same |= numpy.isnat(x) & numpy.isnat(y)
    if same.all():
        return _Seen()
    near = same
    if kind in "iufc" and tolerance != Tolerance():
        near = numpy.isclose(y, x, rtol=tolerance.rtol, atol=tolerance.atol, equal_nan=True)
        # Of a great original the bound itself may be infinite, which no infinity is within.
        near = same | (near & numpy.isfinite(y))
    inside, outside = numpy.flatnonzero(near & ~same), numpy.flatnonzero(~near)
    largest = 0.0
    if len(inside):
        relative = _apart(x[inside], y[inside]) / abs(x[inside].astype(complex))
        largest = float(numpy.max(relative, where=numpy.isfinite(relative), initial=0.0))
    if not len(outside):
        return _Seen(0, len(inside), largest)
    return _Seen(len(outside), len(inside), largest, _worst(start, outside, x, y, tolerance))


def _worst(start: int, outside: Any, x: Any, y: Any, tolerance: Tolerance) -> _Worst:
    """The element farthest outside: one without a distance before all others, then the first."""
    import numpy

    first, excess = 0, float("inf")
    if x.dtype.kind in "biufc":
        apart = _apart(x[outside], y[outside])
        if tolerance != Tolerance():
            apart = apart / (tolerance.atol + tolerance.rtol * abs(x[outside].astype(complex)))
        apart = numpy.where(numpy.isnan(apart), numpy.inf, apart)
        first = int(numpy.argmax(apart))
        excess = float(apart[first])
    place = int(outside[first])
    return _Worst(excess, start + place, x[place].item(), y[place].item())


def _apart(x: Any, y: Any) -> Any:
    return abs(y.astype(complex) - x.astype(complex))


def _real(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _value(value: Any) -> str:
    return shown(repr(value), _VALUE_SHOWN)


def _place(name: str) -> str:
    return f"{shown(name, _NAME_SHOWN)}: " if name else ""


def _listed(names: list[str]) -> str:
    return few([shown(name, _NAME_SHOWN) for name in names], _EXAMPLES)
