"""Two-sample statistics of sketches and of counts, and the correction for many of them. Pure."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

_TERMS = 200
_CLOSE = 1e-15
_LEAST_EXPECTED = 5.0
_SMOOTHED = 0.5
_BINS = 10

Quantiles = Sequence[float]


def kolmogorov_smirnov(a: Quantiles, b: Quantiles) -> float:
    """The largest distance of the two distribution functions, each given by its quantiles at equal steps."""
    points = sorted({*a, *b})
    return max(max(abs(below(a, x) - below(b, x)), abs(upto(a, x) - upto(b, x))) for x in points)


def upto(quantiles: Quantiles, x: float) -> float:
    """The part of values ≤ x: a step where quantiles repeat, a line between them."""
    return _part(quantiles, x, bisect_right(quantiles, x))


def below(quantiles: Quantiles, x: float) -> float:
    """The part of values < x."""
    first = bisect_left(quantiles, x)
    if first < len(quantiles) and quantiles[first] == x:
        return first / (len(quantiles) - 1)
    return _part(quantiles, x, first)


def _part(quantiles: Quantiles, x: float, place: int) -> float:
    steps = len(quantiles) - 1
    if place == 0 or place > steps:
        return min(place, 1.0)
    before, after = quantiles[place - 1], quantiles[place]
    return (place - 1 + (x - before) / (after - before)) / steps


def kolmogorov_p(distance: float, a: int, b: int) -> float:
    """The probability of such a distance between samples of `a` and `b` values from one continuous distribution."""
    if not a or not b:
        return 1.0
    root = math.sqrt(a * b / (a + b))
    scaled = (root + 0.12 + 0.11 / root) * distance
    if scaled < 0.3:
        return 1.0
    terms = ((1 if k % 2 else -1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, _TERMS))
    return min(1.0, max(0.0, 2 * sum(terms)))


def chi_square(a: Sequence[int], b: Sequence[int]) -> tuple[float, int]:
    """The statistic of homogeneity and its degrees of freedom. Rare cells are taken together, until 5 are expected."""
    cells = _merged(a, b)
    totals = [sum(column) for column in zip(*cells, strict=True)] if cells else [0, 0]
    if len(cells) < 2 or not all(totals):
        return 0.0, 0
    every = sum(totals)
    statistic = 0.0
    for cell in cells:
        for seen, total in zip(cell, totals, strict=True):
            expected = sum(cell) * total / every
            statistic += (seen - expected) ** 2 / expected
    return statistic, len(cells) - 1


def _merged(a: Sequence[int], b: Sequence[int]) -> list[tuple[int, int]]:
    smaller, every = min(sum(a), sum(b)), sum(a) + sum(b)
    cells, rare = [], (0, 0)
    for cell in sorted(zip(a, b, strict=True), key=sum):
        rare = rare[0] + cell[0], rare[1] + cell[1]
        if every and sum(rare) * smaller / every >= _LEAST_EXPECTED:
            cells.append(rare)
            rare = (0, 0)
    if sum(rare) and cells:
        last = cells.pop()
        cells.append((last[0] + rare[0], last[1] + rare[1]))
    return cells


def chi_square_p(statistic: float, freedom: int) -> float:
    """The upper tail: the regularised incomplete gamma function Q(freedom / 2, statistic / 2)."""
    if freedom < 1 or statistic <= 0:
        return 1.0
    half, x = freedom / 2, statistic / 2
    factor = math.exp(half * math.log(x) - x - math.lgamma(half))
    if x < half + 1:
        return max(0.0, 1 - factor * _series(half, x))
    return min(1.0, factor * _fraction(half, x))


def _series(a: float, x: float) -> float:
    term = total = 1 / a
    while term > total * _CLOSE:
        a += 1
        term *= x / a
        total += term
    return total


def _fraction(a: float, x: float) -> float:
    """Lentz's method."""
    b = x + 1 - a
    c, d = 1e300, 1 / b
    value = d
    for step in range(1, 10_000):
        factor = -step * (step - a)
        b += 2
        d = 1 / (factor * d + b)
        c = b + factor / c
        value *= c * d
        if abs(c * d - 1) < _CLOSE:
            break
    return value


def total_variation(a: Sequence[int], b: Sequence[int]) -> float:
    """Half the sum of the differences of shares: the part of the rows that moved."""
    return sum(abs(one - other) for one, other in zip(_shares(a), _shares(b), strict=True)) / 2


def population_stability(a: Sequence[float], b: Sequence[float]) -> float:
    """PSI, in nats: Σ (b − a) ln (b / a) of shares."""
    return sum((two - one) * math.log(two / one) for one, two in zip(a, b, strict=True))


def jensen_shannon(a: Sequence[float], b: Sequence[float]) -> float:
    """The divergence in bits, 0 to 1."""
    middle = [(one + two) / 2 for one, two in zip(a, b, strict=True)]
    return sum(_relative(side, middle) for side in (a, b)) / 2


def _relative(p: Sequence[float], q: Sequence[float]) -> float:
    return sum(one * math.log2(one / two) for one, two in zip(p, q, strict=True) if one)


def shares_in_bins(a: Quantiles, b: Quantiles, counted: int) -> tuple[list[float], list[float]]:
    """The parts of both in the tenths of `a`, smoothed as if half a value more lay in each."""
    steps = len(a) - 1
    edges = sorted({a[steps * tenth // _BINS] for tenth in range(1, _BINS)})
    return _in_bins(a, edges, counted), _in_bins(b, edges, counted)


def _in_bins(quantiles: Quantiles, edges: Sequence[float], counted: int) -> list[float]:
    reached = [0.0, *(upto(quantiles, edge) for edge in edges), 1.0]
    parts = [max(0.0, after - before) for before, after in itertools.pairwise(reached)]
    return smoothed([part * counted for part in parts])


def smoothed(counts: Sequence[float]) -> list[float]:
    total = sum(counts) + _SMOOTHED * len(counts)
    return [(count + _SMOOTHED) / total for count in counts]


def _shares(counts: Sequence[int]) -> list[float]:
    total = sum(counts) or 1
    return [count / total for count in counts]


def proportions_p(a: int, of_a: int, b: int, of_b: int) -> float:
    """The probability of two proportions that differ so, from one population: Pearson's χ² of the two by two table,
    with Yates's correction."""
    every, hits = of_a + of_b, a + b
    if not of_a or not of_b or hits in (0, every):
        return 1.0
    off = max(0.0, abs(a * (of_b - b) - b * (of_a - a)) - every / 2)
    return chi_square_p(every * off**2 / (of_a * of_b * hits * (every - hits)), 1)


def absence_p(times: int, there: int, absent: int) -> float:
    """The probability that what came `times` in `there` rows never comes in `absent` rows of the same kind."""
    if not there or not absent:
        return 1.0
    return math.exp(times * math.log(there / (there + absent)))


def holm(values: Sequence[float], level: float) -> list[bool]:
    """Which hypotheses are rejected, with the probability of one false rejection among all at most `level`."""
    order = sorted(range(len(values)), key=values.__getitem__)
    rejected = [False] * len(values)
    for rank, place in enumerate(order):
        if values[place] > level / (len(values) - rank):
            break
        rejected[place] = True
    return rejected
