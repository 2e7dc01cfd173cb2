"""Two profiles: nothing is found where nothing changed, at the stated rate, and what changed is."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.profile.drift import LEVEL, Found, _moment, compare
from runner.profile.values import STEPS, ColumnProfile, Kind, Profile

DRAWS = 300


def numbers(name: str, values: Sequence[float | None], type: str = "DOUBLE") -> ColumnProfile:
    kept = sorted(value for value in values if value is not None)
    places = [max(0, -(-step * len(kept) // STEPS) - 1) for step in range(STEPS + 1)]
    return ColumnProfile(
        name=name,
        type=type,
        kind="number",
        nulls=len(values) - len(kept),
        distinct=len(set(kept)),
        low=str(int(kept[0])) if kept else None,
        high=str(int(kept[-1])) if kept else None,
        unique=len(set(kept)) == len(kept) if type == "BIGINT" else None,
        quantiles=tuple(kept[place] for place in places) if kept else (),
        counted=len(kept),
    )


def words(name: str, values: Sequence[str], kind: Kind = "text") -> ColumnProfile:
    counts = sorted(((word, values.count(word)) for word in {*values}), key=lambda one: (-one[1], one[0]))
    return ColumnProfile(
        name=name, type="VARCHAR", kind=kind, distinct=len(counts), categories=tuple(counts), complete=True
    )


def table(rows: int, *columns: ColumnProfile) -> Profile:
    return Profile(format="CSV", rows=rows, sampled=rows, columns=columns)


def told(found: Found) -> list[str]:
    return [str(one) for one in (*found.breaks, *found.moved)]


COLUMNS = st.lists(
    st.lists(st.floats(-1e12, 1e12) | st.none(), min_size=30, max_size=30).map(lambda values: numbers("x", values))
    | st.lists(st.sampled_from("abcd"), min_size=30, max_size=30).map(lambda values: words("w", values)),
    min_size=1,
    max_size=1,
)


@settings(deadline=None)
@given(COLUMNS, COLUMNS)
def test_reflexive_and_never_at_a_loss(a: list[ColumnProfile], b: list[ColumnProfile]) -> None:
    assert compare(table(30, *a), table(30, *a)) == Found()
    compare(table(30, *a), table(30, *b))


@pytest.mark.parametrize(
    ("n", "m"), [(30, 30), (200, 200), (200, 2000), (3000, 3000)], ids=["tiny", "small", "unequal", "large"]
)
def test_samples_of_one_source_are_told_apart_at_most_at_the_stated_rate(n: int, m: int) -> None:
    chance = random.Random(n + m)

    def draw(rows: int) -> Profile:
        categories = [*"aaaaaaaaaaaabbbbbbccc", "d"]
        return table(
            rows,
            numbers("id", range(rows), "BIGINT"),
            numbers("normal", [chance.gauss(0, 1) for _ in range(rows)]),
            numbers("heavy", [chance.lognormvariate(0, 2) for _ in range(rows)]),
            numbers("zeros", [chance.choice([0.0, chance.random()]) for _ in range(rows)]),
            numbers("nulls", [chance.choice([None, 1.0, chance.random()]) for _ in range(rows)]),
            words("category", [chance.choice(categories) for _ in range(rows)]),
        )

    false = sum(1 for _ in range(DRAWS) if without_id(compare(draw(n), draw(m))))
    assert false <= 2 * LEVEL * DRAWS + 3, f"{false} of {DRAWS}"


def without_id(found: Found) -> list[str]:
    """The id grows with the rows, which is a move."""
    return [one for one in told(found) if not one.startswith("id ")]


Draw = Callable[[random.Random], float]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (lambda chance: chance.gauss(0, 1), lambda chance: chance.gauss(0.3, 1)),
        (lambda chance: chance.gauss(0, 1), lambda chance: chance.gauss(0, 1.5)),
        (lambda chance: chance.random(), lambda chance: chance.choice([0.0, *[chance.random()] * 6])),
    ],
    ids=["shifted", "wider", "zeros"],
)
def test_a_real_move_is_found(before: Draw, after: Draw) -> None:
    chance = random.Random(1)
    for _ in range(20):
        a, b = (numbers("x", [draw(chance) for _ in range(2000)]) for draw in (before, after))
        found = compare(table(2000, a), table(2000, b))
        assert [one.column for one in found.moved] == ["x"] and not found.breaks
        assert found.moved[0].size >= 0.05 and found.moved[0].p < LEVEL


def test_neither_many_rows_nor_few_cry_wolf() -> None:
    many = 100_000
    a, b = ([step / many + shift for step in range(many)] for shift in (0, 0.02))
    assert not told(compare(table(many, numbers("x", a)), table(many, numbers("x", b))))
    c, d = numbers("x", [1, 2, 3, 4, 5]), numbers("x", [2.5, 3.5, 6, 7, 8])
    assert not told(compare(table(5, c), table(5, d)))


def test_many_columns_are_corrected_for() -> None:
    chance = random.Random(5)
    sides = [
        table(400, *(numbers(f"x{n}", [chance.random() for _ in range(400)]) for n in range(400))) for _ in range(2)
    ]
    assert not told(compare(*sides))


IDS = numbers("id", range(100), "BIGINT")
AGES = numbers("age", [float(n % 60) for n in range(100)])
PLANS = words("plan", ["free"] * 50 + ["plus"] * 50)


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ([IDS, AGES], ["plan removed"]),
        ([IDS, AGES, PLANS, words("new", ["a"] * 100)], ["new added"]),
        ([AGES, IDS, PLANS], ["columns come in another order, from age on, where id was"]),
        ([IDS, numbers("years", [float(n % 60) for n in range(100)]), PLANS], ["age: looks renamed to years"]),
        ([IDS, numbers("age", range(60), "BIGINT"), PLANS], ["age: DOUBLE → BIGINT"]),
        ([numbers("id", [*range(99), 1], "BIGINT"), AGES, PLANS], ["id: was unique, now holds values twice"]),
        ([IDS, numbers("age", [n % 60 if n % 4 else None for n in range(100)]), PLANS],
         ["age: 0.0% null → 25.0% null"]),
        ([IDS, AGES, words("plan", ["free"] * 45 + ["plus"] * 45 + ["new\x1b"] * 10)],
         ["plan: category added: new\\x1b (10 rows)"]),
        ([IDS, AGES, words("plan", ["free"] * 100)], ["plan: category gone: plus (50 rows)"]),
    ],
)  # fmt: skip
def test_each_break_of_a_schema(after: list[ColumnProfile], said: list[str]) -> None:
    found = compare(table(100, IDS, AGES, PLANS), table(100, *after))
    assert [str(one) for one in found.breaks] == said


def test_a_column_that_broke_has_not_moved_as_well() -> None:
    found = compare(table(100, PLANS), table(100, words("plan", ["free"] * 20 + ["new"] * 80)))
    assert [one.column for one in found.breaks] == ["plan"] and not found.moved


def test_times_are_told_as_such() -> None:
    sides = [
        msgspec.structs.replace(numbers("day", [86400.0 * (day + shift) for day in range(300)]), kind="time")
        for shift in (0, 100)
    ]
    (moved,) = compare(*(table(300, side) for side in sides)).moved
    assert moved.detail == "median 1970-05-30 → 1970-09-07"
    assert _moment(1e30) == "1e+30 s"


def test_a_table_that_lost_its_rows() -> None:
    empty = Profile(format="CSV", rows=0, sampled=0, columns=(IDS, AGES, PLANS))
    assert told(compare(table(100, IDS, AGES, PLANS), empty)) == ["100 rows → 0 rows"]


def test_what_may_vary_is_no_break() -> None:
    rare = words("plan", ["free"] * 60 + ["plus"] * 39 + ["odd"])
    assert not compare(table(100, rare), table(100, words("plan", ["free"] * 60 + ["plus"] * 40))).breaks
    a, b = (numbers("x", [None] * nulls + [float(n) for n in range(20 - nulls)]) for nulls in (1, 3))
    assert not compare(table(20, a), table(20, b)).breaks
