"""Tolerance of numbers, as `numpy.testing.assert_allclose(actual=replayed, desired=original)` has it.

Two numbers are close when |replayed - original| <= atol + rtol * |original|. NaN is close to NaN, an
infinity only to itself. Integers that a double does not hold are compared exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, TypeGuard

import msgspec

from runner.errors import UsageError
from runner.shown import shown
from runner.state.spec import OutputRule

Number = int | float

_EXACT = 1 << 53
_NAMED = 3
_NAME_SHOWN = 60


class Tolerance(msgspec.Struct, frozen=True):
    rtol: float = 0.0
    atol: float = 0.0

    def __str__(self) -> str:
        return f"rtol {plain_number(self.rtol)}, atol {plain_number(self.atol)}"

    def allows(self, original: Number, replayed: Number) -> bool:
        if same(original, replayed):
            return True
        if not (_is_finite(original) and _is_finite(replayed)):
            return False
        if _are_doubles(original, replayed):
            return abs(replayed - original) <= self.atol + self.rtol * abs(original)
        bound = Fraction(self.atol) + Fraction(self.rtol) * abs(Fraction(original))
        return abs(Fraction(replayed) - Fraction(original)) <= bound


class Tolerances(msgspec.Struct, frozen=True):
    """The tolerance of every place that has none of its own, and those that have."""

    default: Tolerance = Tolerance()
    own: Mapping[str, Tolerance] = {}

    def __str__(self) -> str:
        named = [f"{shown(name, _NAME_SHOWN)}: {own}" for name, own in self.own.items()]
        more = [f"{len(named) - _NAMED} more"] if len(named) > _NAMED else []
        return f"{self.default} ({'; '.join([*named[:_NAMED], *more])})" if named else str(self.default)

    def of(self, name: str) -> Tolerance:
        return self.own.get(name, self.default)


def tolerances_of(rule: OutputRule) -> Tolerances:
    own = {name: Tolerance(one.rtol, one.atol) for name, one in rule.tolerances.items()}
    return Tolerances(Tolerance(rule.rtol, rule.atol), own)


def check_tolerances(path: str, rule: OutputRule) -> None:
    """Raises `UsageError` for a negative, infinite or undefined tolerance of the output `path`."""
    tolerances = tolerances_of(rule)
    for tolerance in (tolerances.default, *tolerances.own.values()):
        _check_tolerance(path, tolerance)


def _check_tolerance(path: str, tolerance: Tolerance) -> None:
    for name, value in (("rtol", tolerance.rtol), ("atol", tolerance.atol)):
        if not (math.isfinite(value) and value >= 0):
            raise UsageError(
                f"output {path!r}: `{name}: {value}` is no tolerance",
                "a tolerance is a number, finite and not negative",
                f"correct `{name}` of this output, as in `{name}: 1e-6`",
            )


def is_number(value: Any) -> TypeGuard[Number]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def same(original: Number, replayed: Number) -> bool:
    """Equal as numbers, whatever their types; NaN is the same as NaN."""
    return original == replayed or (original != original and replayed != replayed)


def relative_difference(original: Number, replayed: Number) -> float | None:
    """|replayed - original| / |original|, infinite past a double; None where it has no meaning."""
    if original == 0 or not (_is_finite(original) and _is_finite(replayed)):
        return None
    if _are_doubles(original, replayed):
        return abs(replayed - original) / abs(original)
    try:
        return float(abs(Fraction(replayed) - Fraction(original)) / abs(Fraction(original)))
    except OverflowError:
        return math.inf


def change(original: Number | None, replayed: Number | None) -> str:
    """` (+5 %)`, where that has a meaning."""
    if original is None or replayed is None:
        return ""
    relative = relative_difference(original, replayed)
    return f" ({'+' if replayed > original else '-'}{100 * relative:.3g} %)" if relative else ""


def _is_finite(value: Number) -> bool:
    return isinstance(value, int) or math.isfinite(value)


def _are_doubles(*values: Number) -> bool:
    """Whether arithmetic in doubles, as numpy does it, sees the values as they are."""
    return all(isinstance(value, float) or -_EXACT <= value <= _EXACT for value in values)


def plain_number(value: float) -> str:
    return repr(float(value)).removesuffix(".0")
