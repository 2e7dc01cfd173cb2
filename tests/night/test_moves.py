"""What moved: the fold over nights, told by examples, and by what holds for every history."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.night.moves import GOOD, Move, Past, Seen, step, wilson
from runner.state.night import MOST_OUTPUTS, BadOutput
from runner.state.record import Verdict

VERDICTS = {
    "i": "identical",
    "e": "equivalent",
    "d": "diverged",
    "n": "nondeterministic",
    "f": "failed",
    "u": "unrebuildable",
    "t": "tampered",
    "-": "not-run",
}


def seen(night: int, letter: str) -> Seen:
    replays = {"u": 0, "t": 0, "-": 0, "i": 1, "e": 1}.get(letter, 2)
    disagreed = {"n": 1, "d": 2, "f": 2}.get(letter, 0)
    return Seen(f"night-{night:04}", VERDICTS[letter], replays, disagreed)  # type: ignore[arg-type]


def moves(nights: str) -> list[Move]:
    past, found = Past(), []
    for number, letter in enumerate(nights):
        past, move = step(past, seen(number, letter))
        found.append(move)
    return found


def words(nights: str) -> list[str]:
    return [move.moved for move in moves(nights)]


@pytest.mark.parametrize(
    ("nights", "expected"),
    [
        ("iie", "new steady steady"),
        ("d", "regressed"),
        ("iddi", "new regressed failing fixed"),
        ("i-di", "new not-run regressed fixed"),
        ("id-d", "new regressed not-run failing"),
        ("--i", "not-run not-run new"),
        ("ifd", "new regressed failing"),
        ("idf", "new regressed regressed"),
        ("iui", "new regressed fixed"),
        ("iuiui", "new regressed fixed regressed fixed"),
        ("in", "new flaky"),
        ("idid", "new regressed fixed flaky"),
        ("ididi", "new regressed fixed flaky flaky"),
    ],
)
def test_examples(nights: str, expected: str) -> None:
    assert words(nights) == expected.split()


def test_a_verdict_stands_since_the_night_that_first_gave_it() -> None:
    assert [move.since[-1] for move in moves("iid-dfi")] == list("0023256")


def test_flaky_ends_when_it_came_out_alike_too_often_for_that() -> None:
    found = words("n" + "i" * 8)
    assert found.index("steady") == 5, "1 of 2: less than 5 % for five in a row"
    assert words("id" + "i" * 40 + "d")[-1] == "regressed", "two regressions, months apart"
    assert "failing" in words("n" + "d" * 8), "it may also settle as bad"


def test_another_state_starts_anew() -> None:
    past, _ = step(Past(), Seen("a", "nondeterministic", 2, 1, "one"))
    _, move = step(past, Seen("b", "diverged", 2, 2, "other"))
    assert (move.moved, move.before) == ("failing", "nondeterministic")


D, F = Verdict.DIVERGED, Verdict.FAILED
O1, O2, GONE = BadOutput("o.json", D, "sha256:1"), BadOutput("o.json", D, "sha256:2"), BadOutput("o.json", D)
P = BadOutput("p.txt", D, "sha256:3")


def of_outputs(*nights: tuple[BadOutput, ...] | None, verdict: str = "diverged") -> Move:
    past, move = Past(), None
    for number, outputs in enumerate(nights):
        past, move = step(past, Seen(f"night-{number}", verdict, 1, 1, outputs=outputs))  # type: ignore[arg-type]
    assert move
    return move


@pytest.mark.parametrize(
    ("before", "now", "moved", "worse", "other"),
    [
        ((O1,), (O1,), "failing", (), ()),
        ((O1,), (O1, P), "regressed", ("p.txt",), ()),
        ((O1, P), (P,), "failing", (), ()),
        ((O1,), (P,), "regressed", ("p.txt",), ()),
        ((O1,), (GONE,), "regressed", ("o.json",), ()),
        ((GONE,), (GONE,), "failing", (), ()),
        ((GONE,), (O1,), "failing", (), ()),
        ((O1,), (BadOutput("o.json", F, "sha256:1"),), "regressed", ("o.json",), ()),
        ((O1,), (O2,), "failing", (), ("o.json",)),
        ((), (O1,), "regressed", ("o.json",), ()),
        (None, (O1, P), "failing", (), ()),
        ((O1,), None, "failing", (), ()),
    ],
)
@pytest.mark.parametrize("verdict", ["diverged", "failed"])
def test_an_output_that_got_worse_is_a_regression(
    before: tuple[BadOutput, ...] | None,
    now: tuple[BadOutput, ...] | None,
    moved: str,
    worse: tuple[str, ...],
    other: tuple[str, ...],
    verdict: str,
) -> None:
    move = of_outputs(before, now, verdict=verdict)
    assert (move.moved, move.worse, move.other) == (moved, worse, other)
    assert move.since == ("night-1" if worse else "night-0")


def test_it_is_the_last_night_that_counts_also_over_nights_that_saw_nothing() -> None:
    assert of_outputs((O1, P), (O1,), (O1, P)).worse == ("p.txt",), "it had been good again"
    past, _ = step(Past(), Seen("a", "diverged", outputs=(O1,)))
    past, _ = step(past, Seen("b", "not-run", 0))
    _, move = step(past, Seen("c", "diverged", outputs=(O1, P)))
    assert (move.moved, move.worse) == ("regressed", ("p.txt",))


def test_where_more_are_bad_than_are_kept_what_is_not_among_them_is_unknown() -> None:
    many = tuple(BadOutput(f"o{number:03}", D, "sha256:1") for number in range(MOST_OUTPUTS))
    assert of_outputs(many, (*many[1:], P)).moved == "failing"
    assert of_outputs(many, (BadOutput("o007", D), *many[8:])).worse == ("o007",)


HISTORIES = st.text(alphabet=list(VERDICTS), min_size=1, max_size=60)


@given(HISTORIES)
def test_what_always_holds(nights: str) -> None:
    known: str | None = None
    for number, (letter, move) in enumerate(zip(nights, moves(nights), strict=True)):
        verdict = VERDICTS[letter]
        assert (move.moved == "not-run") == (verdict == "not-run")
        assert move.before == known
        assert int(move.since[-4:]) <= number
        if move.moved in ("fixed", "new", "steady"):
            assert verdict in GOOD
        if move.moved in ("regressed", "failing"):
            assert verdict not in GOOD
        if move.moved == "steady":
            assert known is not None
        if move.moved == "regressed":
            assert known != verdict
        assert (move.flaky is not None) == (move.moved == "flaky")
        if move.flaky:
            assert 0 <= move.flaky.low <= move.flaky.disagreed / move.flaky.of <= move.flaky.high <= 1
        known = known if verdict == "not-run" else verdict


@given(HISTORIES)
def test_nights_that_saw_nothing_change_nothing(nights: str) -> None:
    told = [move.moved for move in moves(nights) if move.moved != "not-run"]
    assert told == words(nights.replace("-", ""))


@given(st.integers(1, 400).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_wilson_solves_its_equation(counted: tuple[int, int]) -> None:
    """Its ends are where the share observed lies 1.96 standard errors from the share supposed."""
    disagreed, of = counted
    rate = wilson(disagreed, of)
    for end in (rate.low, rate.high):
        if 0 < end < 1:
            assert math.isclose(abs(disagreed / of - end), 1.959964 * math.sqrt(end * (1 - end) / of), rel_tol=1e-6)
