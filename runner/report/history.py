"""Nights, folded one after the other into what a page needs: of past nights a letter for each run and output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from runner.errors import UsageError
from runner.report.words import ABSENT, LETTERS, is_bad
from runner.state.night import Night


class Column(msgspec.Struct, frozen=True):
    """One night of the plot over all runs."""

    night: str
    started: str
    runs: int
    bad: int
    not_run: int


class Past(msgspec.Struct):
    """A run, or one of its outputs, over the nights: `verdicts` has a letter a night, the last night's last."""

    verdicts: str = ""
    seconds: list[float] = []
    outputs: dict[str, str] = {}


class History(msgspec.Struct, frozen=True):
    """`tonight` is the last night; `runs` has its runs only. `gone` were in the night before and are not in it."""

    tonight: Night
    columns: tuple[Column, ...]
    runs: dict[str, Past]
    gone: tuple[str, ...]


def fold(nights: Iterable[Night]) -> History:
    """Nights of one suite, the oldest first; one at a time is held. Raises `UsageError` when there is none, or they
    are of several suites."""
    columns: list[Column] = []
    pasts: dict[str, Past] = {}
    before: tuple[str, ...] = ()
    tonight: Night | None = None
    for night in nights:
        if tonight is not None and night.suite != tonight.suite:
            raise UsageError(
                "one page is for one suite",
                f"{tonight.night} is of {tonight.suite}, {night.night} of {night.suite}",
                "name nights of one suite, or `--suite`",
            )
        before = tuple(run.run_id for run in tonight.runs) if tonight else ()
        tonight = night
        _add(pasts, night, len(columns))
        columns.append(_column(night))
    if tonight is None:
        raise UsageError("there is no night to report", next="`replay nightly` makes one")
    present = {run.run_id for run in tonight.runs}
    runs = {run.run_id: pasts[run.run_id] for run in tonight.runs}
    asked_for = present.union(tonight.left_out_runs)
    return History(tonight, tuple(columns), runs, tuple(name for name in before if name not in asked_for))


def _add(pasts: dict[str, Past], night: Night, number: int) -> None:
    for run in night.runs:
        past = pasts.get(run.run_id)
        if past is None:
            past = pasts[run.run_id] = Past(seconds=[], outputs={})
        missed = number - len(past.verdicts)
        past.verdicts += ABSENT * missed + LETTERS[run.verdict]
        past.seconds += [0.0] * missed + [run.duration_s]
        for output in run.outputs:
            told = past.outputs.get(output.path, "")
            past.outputs[output.path] = told.ljust(number, ABSENT) + LETTERS[output.verdict.value]


def _column(night: Night) -> Column:
    counted = Counter("bad" if is_bad(run.verdict) else run.verdict for run in night.runs)
    return Column(night.night, night.started, len(night.runs), counted["bad"], counted["not-run"])
