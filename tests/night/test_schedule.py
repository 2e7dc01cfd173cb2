"""What a night does next, against a world in which time is a number."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.night.schedule import DELAYS_S, PATIENCE_S, Schedule, Unit
from runner.state.night import Trouble

TROUBLE = Trouble(7, "the engine does not answer", "", "")


def units(count: int, expected_s: float = 0.0) -> list[Unit]:
    return [Unit((f"run-{number}",), expected_s) for number in range(count)]


def play(schedule: Schedule, fails: set[tuple[str, int]], away: tuple[float, float] = (0, 0)) -> dict[str, list[str]]:
    """Each start takes a second; `fails` are attempts that meet trouble; while the engine is away, all do."""
    now, tried = 0.0, dict[str, int]()
    ended = dict[str, list[str]]()
    flying: list[tuple[float, Unit]] = []
    while not schedule.done:
        for unit in schedule.start(now):
            tried[unit.runs[0]] = tried.get(unit.runs[0], 0) + 1
            flying.append((now + 1, unit))
        wake = schedule.wake(now)
        moments = [moment for moment, _ in flying] + ([now + wake] if wake is not None else [])
        if not moments:
            break
        assert min(moments) > now or wake == 0 or flying, "time stands still"
        now = max(now, min(moments))
        for moment, unit in [one for one in flying if one[0] <= now]:
            flying.remove((moment, unit))
            name = unit.runs[0]
            if (name, tried[name]) in fails or away[0] <= now < away[1]:
                for one in schedule.troubled(unit, TROUBLE, now):
                    ended.setdefault(one.unit.runs[0], []).append("not-run")
            else:
                schedule.succeeded(unit)
                ended.setdefault(name, []).append("done")
    assert now < 3 * PATIENCE_S + 1000
    return ended


def test_as_many_at_once_as_there_are_workers() -> None:
    schedule = Schedule(units(5), workers=2)
    assert len(schedule.start(0)) == 2 and schedule.start(0) == [] and schedule.wake(0) is None


def test_one_runs_own_trouble_ends_after_some_attempts_and_holds_nobody_up() -> None:
    fails = {("run-0", attempt) for attempt in range(1, 99)}
    ended = play(Schedule(units(4), workers=2), fails)
    assert ended == {"run-0": ["not-run"], "run-1": ["done"], "run-2": ["done"], "run-3": ["done"]}


def test_an_engine_that_comes_back_in_time_loses_no_run() -> None:
    ended = play(Schedule(units(20), workers=2), set(), away=(3, 3 + PATIENCE_S - 2 * max(DELAYS_S)))
    assert ended == {f"run-{number}": ["done"] for number in range(20)}


def test_an_engine_that_stays_away_ends_the_rest_with_the_trouble() -> None:
    ended = play(Schedule(units(20), workers=2), set(), away=(3, 1e9))
    assert list(ended.values()).count(["done"]) == 4
    assert list(ended.values()).count(["not-run"]) == 16


def test_what_would_not_end_in_time_is_left_out() -> None:
    schedule = Schedule([*units(2, 5.0), Unit(("short",), 1.0)], workers=1, deadline=7.0)
    assert [unit.runs for unit in schedule.start(0)] == [("run-0",)]
    schedule.succeeded(units(1, 5.0)[0])
    assert [unit.runs for unit in schedule.start(5)] == [("short",)]
    assert [unit.runs for unit in schedule.left_out] == [("run-1",)]


ATTEMPTS = st.sets(st.tuples(st.integers(0, 9).map("run-{}".format), st.integers(1, 6)))


@given(ATTEMPTS, st.integers(1, 4), st.integers(1, 10), st.tuples(st.integers(0, 50), st.integers(0, 2000)))
def test_every_run_ends_exactly_once(
    fails: set[tuple[str, int]], workers: int, count: int, away: tuple[int, int]
) -> None:
    ended = play(Schedule(units(count), workers), fails, away=away)
    assert sorted(ended) == sorted(f"run-{number}" for number in range(count))
    assert all(len(found) == 1 for found in ended.values())


def test_what_was_started_in_time_is_tried_again_after_it() -> None:
    (unit,) = units(1)
    schedule = Schedule([unit], workers=1, deadline=1.0)
    assert schedule.start(0) == [unit]
    assert schedule.troubled(unit, TROUBLE, 0.5) == []
    assert schedule.start(0.5 + DELAYS_S[0]) == [unit] and not schedule.left_out


def test_troubles_with_a_success_between_them_are_not_everybodys() -> None:
    """Each run's own trouble ends after its own attempts, and the others are not tried one at a time."""
    a, b, c, d, e = units(5)
    schedule = Schedule([a, b, c, d, e], workers=2)
    assert schedule.start(0) == [a, b]
    schedule.troubled(a, TROUBLE, 1)
    schedule.succeeded(b)
    assert schedule.start(1) == [c, d]
    schedule.troubled(c, TROUBLE, 1)
    assert schedule.start(1) == [e]
    schedule.succeeded(d)
    schedule.succeeded(e)
    assert schedule.start(2) == [] and schedule.start(1 + DELAYS_S[0]) == [a, c], "each waits for its own delay"
