"""Tolerance of numbers, as `numpy.testing.assert_allclose(actual=replayed, desired=original)` has it.

Two numbers are close when |replayed - original| <= atol + rtol * |original|. NaN is close to NaN, an
infinity only to itself. Integers that a double does not hold are compared exactly.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, TypeGuard

import msgspec

from runner.errors import UsageError

Number = int | float

_EXACT = 1 << 53


class Tolerance(msgspec.Struct, frozen=True):
    rtol: float = 0.0
    atol: float = 0.0

    def __str__(self) -> str:
        return f"rtol {_plain(self.rtol)}, atol {_plain(self.atol)}"

    def allows(self, original: Number, replayed: Number) -> bool:
        if same(original, replayed):
            return True
        if not (_is_finite(original) and _is_finite(replayed)):
            return False
        if _are_doubles(original, replayed):
            return abs(replayed - original) <= self.atol + self.rtol * abs(original)
        bound = Fraction(self.atol) + Fraction(self.rtol) * abs(Fraction(original))
        return abs(Fraction(replayed) - Fraction(original)) <= bound


def check_tolerance(path: str, tolerance: Tolerance) -> None:
    """Raises `UsageError` for a negative, infinite or undefined tolerance of the output `path`."""
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


def _is_finite(value: Number) -> bool:
    return isinstance(value, int) or math.isfinite(value)


def _are_doubles(*values: Number) -> bool:
    """Whether arithmetic in doubles, as numpy does it, sees the values as they are."""
    return all(isinstance(value, float) or -_EXACT <= value <= _EXACT for value in values)


def _plain(value: float) -> str:
    return repr(float(value)).removesuffix(".0")
