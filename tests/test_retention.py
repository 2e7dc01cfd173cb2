"""Which runs a policy lets go."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import UsageError
from runner.retention import let_go, refuse_unknown, rules
from runner.store.index import Row
from runner.store.runs import TRIAL, VARIED

NOW = datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC)


def row(run_id: str, days: int, job: str = "train", of: str | None = None, **more: str) -> Row:
    created = (NOW - datetime.timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")
    labels = (more["label"],) if "label" in more else ()
    return Row(run_id, job, created, labels=labels, outcome=more.get("outcome", "ok"), replay_of=of)


ROWS = [
    row("a", 200, label="prod"),
    row("a1", 100, of="a", label="prod"),
    row("a2", 3, of="a", label="prod"),
    row("b", 150),
    row("c", 120, job="score"),
    row("d", 110),
    row("e", 300, outcome="unreadable"),
]


@pytest.mark.parametrize(
    ("keep", "gone"),
    [
        (["30d"], "a1 b c d"),
        (["130d"], "b"),
        (["last:1"], "a1 b"),
        (["last:2"], ""),
        (["label:prod"], "a1 a2 b c d"),
        (["job:score"], "a a1 a2 b d"),
        (["job:score", "30d"], "a1 b d"),
        (["0s"], "a a1 a2 b c d"),
    ],
)
def test_rules(keep: list[str], gone: str) -> None:
    assert let_go(ROWS, rules(keep, NOW), ()) == gone.split()


@pytest.mark.parametrize(("text", "known"), [("label:prd", "label:prod"), ("job:x", "job:score, job:train")])
def test_a_label_or_job_that_no_run_has_is_refused(text: str, known: str) -> None:
    with pytest.raises(UsageError) as refused:
        refuse_unknown(ROWS, rules(["30d", text], NOW))
    assert text in refused.value.what and known in refused.value.why
    refuse_unknown(ROWS, rules(["30d", "label:prod", "job:train", "last:3"], NOW))


NEWER = [
    *(row(f"t{number}", 2, label=TRIAL) for number in range(3)),
    *(row(f"v{number}", 2, label=VARIED) for number in range(3)),
    row("cut", 1, outcome="interrupted"),
    row("odd", 1, job="never", label=TRIAL),
]


@pytest.mark.parametrize(
    ("keep", "gone"),
    [
        ("last:1", "a1 b t0 t1 v0 v1"),
        ("last:2", "t0 v0"),
        ("job:train", "a1 a2 c cut odd t0 t1 t2 v0 v1 v2"),
        (f"label:{TRIAL}", "a a1 a2 b c cut d v0 v1 v2"),
    ],
)
def test_trials_and_what_nights_varied_take_no_recorded_runs_place(keep: str, gone: str) -> None:
    assert let_go([*ROWS, *NEWER], rules([keep], NOW), ()) == gone.split()


def test_a_job_of_which_only_trials_are_left_is_refused() -> None:
    with pytest.raises(UsageError, match="job:never"):
        refuse_unknown(NEWER, rules(["job:never"], NOW))


def test_releases_are_always_kept() -> None:
    assert let_go(ROWS, rules(["0s"], NOW), {"b"}) == "a a1 a2 c d".split()


@pytest.mark.parametrize("text", ["90", "last:", "lable:x", "", "d", "last:-1"])
def test_what_is_no_rule_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="--keep"):
        rules([text], NOW)


RULES = st.lists(st.sampled_from(["0s", "5d", "115d", "last:1", "last:2", "label:prod", "job:score"]), min_size=1)


@given(RULES, RULES, st.sets(st.sampled_from([one.run_id for one in ROWS])))
def test_more_rules_keep_more_and_no_replay_outlives_its_original(
    some: list[str], more: list[str], released: set[str]
) -> None:
    gone = set(let_go(ROWS, rules(some, NOW), released))
    assert set(let_go(ROWS, rules([*some, *more], NOW), released)) <= gone
    assert gone.isdisjoint(released)
    assert all(one.replay_of not in gone for one in ROWS if one.run_id not in gone)
