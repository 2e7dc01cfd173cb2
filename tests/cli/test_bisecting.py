"""What a person reads of a bisect, on values alone."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from runner.bisect import Ask, Cause, Found, Outcome, Problem, Tally
from runner.bisect.implications import blocks
from runner.bisect.model import Items
from runner.bisecting import Result
from runner.cli.bisecting import text_of
from runner.hybrid import between
from runner.judge import Wanted
from runner.store.bisects import RECORDED, Line
from runner.store.runs import Run
from runner.store.store import Store, open_store
from runner.suspects import Setup
from tests.test_hybrid import spec

GOOD, BAD, ONE = frozenset[int](), frozenset({0, 1}), frozenset({0})
OTHER = frozenset({1})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path, create=True)


def setup_of(store: Store, old: str = "old", new: str = "new") -> Setup:
    """Two changes: A and B, each from one value to another."""
    found = between(spec(env={"A": old, "B": "1"}), spec(env={"A": new, "B": "2"}))
    made = blocks(len(found.changes), (), found.together)
    return Setup(Run(store, "t-good", None), Run(store, "t-bad", None), found, made, Problem(made.needs))


def line(items: Items, outcome: Outcome, shown: str = "", **more: str) -> Line:
    number = more.pop("run", "x")
    return Line(1, tuple(sorted(items)), f"t-{number}", "", outcome, shown, **more)


def result_of(setup: Setup, *lines: Line, found: Found | None = None, asked: Ask | None = None) -> Result:
    seen: dict[Items, Tally] = {}
    for one in lines:
        items = frozenset(one.items)
        seen[items] = seen.get(items, Tally()).add(Outcome(one.outcome))
    return Result("b1", setup, lines, seen, found=found, asked=asked)


def cause(part: Items, without: Items) -> Cause:
    return Cause((part,), frozenset(), part, (without,), proven=True)


PROVEN = Found((cause(ONE, OTHER),), proven=True)
LINES = (
    line(GOOD, Outcome.GOOD, "v 1", doing=RECORDED),
    line(BAD, Outcome.BAD, "v 2", doing=RECORDED),
    line(ONE, Outcome.BAD, "v 2"),
    line(OTHER, Outcome.GOOD, "v 1"),
)


def test_a_row_shows_a_run_that_came_out_as_its_state_mostly_did(store: Store) -> None:
    flake = line(BAD, Outcome.GOOD, "v 1, by chance"), line(ONE, Outcome.GOOD, "v 1, by chance")
    lines = (line(ONE, Outcome.GOOD, "v 1, by chance", run="flake"), *LINES, *flake)
    lines += line(BAD, Outcome.BAD, "v 2"), *(line(ONE, Outcome.BAD, "v 2", run="most"),) * 2, *flake[:1]
    text = text_of(result_of(setup_of(store), *lines, found=PROVEN))
    assert "bad       2 good, 2 bad  v 2\n" in text
    assert "good + A  2 good, 3 bad  v 2\n" in text and "by chance" not in text
    assert "again:  replay bisect replay t-x\n" in text, "not the flake"


def test_no_value_can_pass_for_a_line_of_its_own_or_fill_the_screen(store: Store) -> None:
    found = result_of(setup_of(store, "1\nCAUSE  B", "2" * 5000), *LINES, found=PROVEN)
    head, *_ = text_of(found).splitlines()
    assert head.startswith("CAUSE  A 1\\nCAUSE  B → 222") and head.endswith("2…  (1 of 2 changes)") and len(head) < 150


def test_a_bisect_of_which_nothing_was_tried_can_be_shown(store: Store) -> None:
    text = text_of(result_of(setup_of(store), asked=Ask((BAD,), {}, doing="look at the ends", shifting=True)))
    assert text.splitlines() == [
        "INCONCLUSIVE  it was stopped before it was sure",
        "0 trials in 0 rounds; 0 unresolved; flakes 0/0, 0/0",
        "on:     replay bisect resume b1",
    ]


def test_what_was_stopped_says_so_and_what_its_numbers_are(store: Store) -> None:
    asked = Ask((ONE,), {0: 0.75, 1: 0.25}, doing="narrow", shifting=False)
    first, *rows = text_of(result_of(setup_of(store), *LINES[:2], asked=asked)).splitlines()
    assert first == "INCONCLUSIVE  it was stopped before it was sure; how likely each suspect is:"
    assert rows[:2] == ["  A  0.750", "  B  0.250"]


def test_a_cause_that_is_not_taken_apart_yet_says_how_to_go_on(store: Store) -> None:
    asked = Ask((ONE,), {}, doing="narrow", shifting=False)
    found = result_of(setup_of(store), *LINES, found=PROVEN, asked=asked)
    assert text_of(found).endswith("on:     replay bisect resume b1\n")


def test_a_cause_of_what_is_neither_says_how_to_ask_of_one_thing(store: Store) -> None:
    neither = line(ONE, Outcome.BAD, "w 3", note="neither good's nor bad's")
    lines = (*LINES[:2], neither, LINES[3])
    text = text_of(result_of(setup_of(store), *lines, found=PROVEN))
    assert text.splitlines()[-1].startswith("next:   what is neither good's nor bad's counts as bad; --output")
    assert "next:" not in text_of(result_of(setup_of(store), *LINES, found=PROVEN))


def test_an_output_that_moves_in_every_run_says_how_to_judge_instead(store: Store) -> None:
    found = msgspec.structs.replace(result_of(setup_of(store), *LINES[:2]), unreproduced="good")
    assert text_of(found).splitlines()[-1].startswith("next:   judge by what should not move, with --output, --metric")
    judged = msgspec.structs.replace(found, judge=Wanted(metric="m.json:v", good="> 1"))
    assert "next:" not in text_of(judged)


def test_independent_causes_say_how_each_is_taken_apart(store: Store) -> None:
    setup = setup_of(store)
    both = Found((cause(ONE, GOOD), cause(OTHER, GOOD)), proven=True)
    lines = (*LINES[:2], line(ONE, Outcome.BAD, run="a"), line(OTHER, Outcome.BAD, run="b"))
    found = msgspec.structs.replace(result_of(setup, *lines, found=both), judge=Wanted(metric="m.json:v", good="> 1"))
    assert "take it apart" not in text_of(found)
    found = msgspec.structs.replace(found, divisible=(setup.changes_of(OTHER)[0],))
    said = [row for row in text_of(found).splitlines() if "take it apart" in row]
    assert said == ["  to take it apart: replay bisect t-good t-b --metric m.json:v --good '> 1'"]
