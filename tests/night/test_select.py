"""Which runs a suite has, and in which order they are replayed."""

from __future__ import annotations

import datetime

import pytest

from runner.errors import UsageError
from runner.night.order import units
from runner.night.select import Candidate, Released, idle, may_be_empty, meant, names_releases, select

NOW = datetime.datetime(2026, 11, 21, 3, tzinfo=datetime.UTC)
RUNS = [
    Candidate("a", "train", "2026-11-20T03:00:00Z", "s1", ("prod",), "identical"),
    Candidate("b", "train", "2026-09-01T03:00:00Z", "s1", ("prod", "eu"), "diverged"),
    Candidate("c", "score", "2026-11-20T23:00:00Z", "s2", (), ""),
    Candidate("d", "score", "2026-01-01T00:00:00Z", "s3", (), "not-run"),
]
RELEASES = {"v1": Released("b"), "v2": Released("c", current=False), "v3": Released("d")}


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        (["all"], "abcd"),
        ([], ""),
        (["label:prod"], "ab"),
        (["label:prod job:train age:<30d"], "a"),
        (["label:eu", "job:score"], "bcd"),
        (["last:diverged"], "b"),
        (["last:not-run"], "d"),
        (["age:>12w"], "d"),
        (["age:<5h"], "c"),
        (["@v1"], "b"),
        (["@v2"], "c"),
        (["@*"], "bd"),
        (["release job:score"], "d"),
    ],
)
def test_terms(terms: list[str], expected: str) -> None:
    assert [one.run_id for one in select(terms, RUNS, RELEASES, NOW)] == list(expected)


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        (["all"], "train-20261121-e"),
        (["label:prod age:<1h"], "train-20261121-e"),
        (["age:>30d job:train"], "train-20261121-e"),
        (["label:prod job:score"], ""),
        (["last:diverged"], ""),
        (["@*"], ""),
    ],
)
def test_what_cannot_be_read_fits_but_for_what_its_name_tells(terms: list[str], expected: str) -> None:
    damaged = Candidate("train-20261121-e", "train", "", "", is_read=False)
    assert [one.run_id for one in select(terms, [damaged], RELEASES, NOW)] == ([expected] if expected else [])


def test_runs_whose_state_cannot_be_read_are_no_runs_of_one_state() -> None:
    damaged = [Candidate(name, "train", "", "", is_read=False) for name in "ef"]
    assert [unit.runs for unit in units(damaged, {}, lambda _run_id: 0.0)] == [("e",), ("f",)]


def test_a_release_that_there_is_not_is_told() -> None:
    with pytest.raises(UsageError, match="no release @v4") as error:
        select(["@v4"], RUNS, RELEASES, NOW)
    assert "@v1, @v2, @v3" in error.value.why


@pytest.mark.parametrize(
    ("term", "said"),
    [
        ("job:trian", "did you mean job:train?"),
        ("job:nothing-like-it", "there is job:score, job:train"),
        ("label:prod label:eus", "did you mean label:eu?"),
        ("label:eu job:score", "no run fits every word of it"),
        ("age:<1s", ""),
    ],
)
def test_what_was_meant_by_a_term_that_fits_nothing(term: str, said: str) -> None:
    assert idle(["all", term], RUNS, RELEASES, NOW) == [term]
    assert meant(term, RUNS) == said


def test_a_run_that_cannot_be_read_hides_no_mistyped_label() -> None:
    """It fits them all, so as to be told of."""
    damaged = Candidate("train-20261121-e", "train", "", "", is_read=False)
    known = ["label:prod", "label:eu job:train", "age:<1h", "job:train age:<1h", "all"]
    mistyped = ["label:pord", "label:eu label:nope", "label:prod job:nope"]
    assert idle([*known, *mistyped], [*RUNS, damaged], RELEASES, NOW) == mistyped
    assert meant("label:pord", [*RUNS, damaged]) == "did you mean label:prod?"
    assert select(["label:pord"], [*RUNS, damaged], RELEASES, NOW) == [damaged]
    assert idle(["label:prod", "all", "age:<1h"], [damaged], RELEASES, NOW) == ["label:prod"]


def test_a_term_may_wait_for_what_is_not_there_yet() -> None:
    assert may_be_empty(["job:t", "label:a last:diverged"]) and not may_be_empty(["@*", "job:last"])
    assert idle(["@*", "release job:score", "last:failed", "job:t", "all"], RUNS, {}, NOW) == ["job:t"]


def test_releases_are_looked_for_only_where_one_is_meant() -> None:
    assert names_releases(["all", "job:a @v1"]) and names_releases(["release"])
    assert not names_releases(["all", "job:a label:release"])


def test_what_failed_comes_first_then_what_waits_longest_and_a_state_once() -> None:
    replayed = {"a": "2026-11-20T03:00:00Z", "b": "2026-11-20T04:00:00Z", "d": "2026-11-01T00:00:00Z"}
    found = units(RUNS, replayed, {"a": 1.0, "b": 3.0}.get)  # type: ignore[arg-type]
    assert [unit.runs for unit in found] == [("d",), ("a", "b"), ("c",)]
    assert found[1].expected_s == 3.0
