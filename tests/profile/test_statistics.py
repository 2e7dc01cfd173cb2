"""Statistics against values that scipy 1.16 gives, and against what must hold of any."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.profile import statistics

QUANTILES = st.lists(st.floats(-1e9, 1e9), min_size=129, max_size=129).map(sorted)
COUNTS = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=12)


# scipy.stats.chi2.sf(statistic, freedom)
@pytest.mark.parametrize(
    ("statistic", "freedom", "p"),
    [
        (3.841458820694124, 1, 0.05),
        (6.6348966010212145, 1, 0.01),
        (1.0, 4, 0.9097959895689501),
        (18.307038053275146, 10, 0.05),
        (100.0, 10, 5.4525e-17),
        (124.34211340400407, 100, 0.05),
    ],
)
def test_chi_square_p(statistic: float, freedom: int, p: float) -> None:
    assert statistics.chi_square_p(statistic, freedom) == pytest.approx(p, rel=1e-4)


# scipy.special.kolmogorov at the scaled distance
@pytest.mark.parametrize(("scaled", "p"), [(0.5, 0.963945), (1.0, 0.270000), (1.3581, 0.0500), (1.6276, 0.0100)])
def test_kolmogorov_p(scaled: float, p: float) -> None:
    n = 2_000_000
    assert statistics.kolmogorov_p(scaled / math.sqrt(n / 2), n, n) == pytest.approx(p, rel=2e-3)


def test_chi_square_of_a_table_worked_out_by_hand() -> None:
    value, freedom = statistics.chi_square([10, 20, 30], [20, 20, 20])
    assert freedom == 2 and value == pytest.approx(10 / 3 + 0 + 2)


def test_rare_cells_are_taken_together() -> None:
    assert statistics.chi_square([1000, 1, 1, 1], [1000, 1, 0, 0])[1] == 0
    assert statistics.chi_square([500, 500, 6, 6], [500, 500, 6, 6]) == (0.0, 3)


def test_divergences_of_known_shares() -> None:
    a, b = [0.5, 0.5], [0.25, 0.75]
    assert statistics.population_stability(a, b) == pytest.approx(0.25 * math.log(3))
    assert statistics.jensen_shannon([1.0, 0.0], [0.0, 1.0]) == pytest.approx(1.0)
    assert statistics.total_variation([5, 5], [2, 8]) == pytest.approx(0.3)


def test_absence_and_proportions() -> None:
    assert statistics.absence_p(3, 100, 100) == pytest.approx(0.125)
    assert statistics.proportions_p(5, 100, 5, 100) == 1.0
    assert statistics.proportions_p(10, 100, 30, 100) == pytest.approx(0.00079, rel=0.05)


def test_holm_stops_at_the_first_that_holds() -> None:
    assert statistics.holm([0.001, 0.04, 0.03, 0.005], 0.05) == [True, False, False, True]
    assert statistics.holm([], 0.05) == []


def test_a_distribution_function_has_steps_where_values_repeat() -> None:
    quantiles = [0.0] * 65 + [1.0 + step for step in range(64)]
    assert statistics.below(quantiles, 0.0) == 0 and statistics.upto(quantiles, 0.0) == 0.5
    assert statistics.upto(quantiles, -1.0) == 0 and statistics.upto(quantiles, 99.0) == 1
    assert statistics.upto(quantiles, 1.5) == pytest.approx(65.5 / 128)


@given(QUANTILES, QUANTILES)
def test_the_distance_is_a_distance(a: list[float], b: list[float]) -> None:
    assert statistics.kolmogorov_smirnov(a, a) == 0
    assert 0 <= statistics.kolmogorov_smirnov(a, b) == statistics.kolmogorov_smirnov(b, a) <= 1


@given(COUNTS)
def test_counts_in_proportion_do_not_differ(cells: list[tuple[int, int]]) -> None:
    a = [one for one, _ in cells]
    value, _ = statistics.chi_square(a, [2 * one for one in a])
    assert value == pytest.approx(0, abs=1e-9)
    assert 0 <= statistics.chi_square_p(*statistics.chi_square(a, [one for _, one in cells])) <= 1
