"""History: runs of the same job that were recorded between a good one and a bad one. Looking at them runs nothing."""

from __future__ import annotations

import msgspec

from runner.bisect.model import Outcome
from runner.errors import ReplayError
from runner.judge import Judge
from runner.store.index import Row, rows
from runner.store.runs import Run
from runner.workspace import Workspace


class Turn(msgspec.Struct, frozen=True):
    """The last good run before the first bad one that a walk between the two finds, and how many lay between them."""

    good: Run
    bad: Run
    between: int = 0


def turn(workspace: Workspace, good: Run, bad: Run, judge: Judge) -> Turn:
    """Halving what lies between; what cannot be told, or cannot be read any more, is passed over."""
    listed = [workspace.run(row.run_id) for row in _between(workspace, good, bad)]
    runs = [good, *listed, bad]
    low, high = 0, len(runs) - 1
    passed: set[int] = set()
    while places := [place for place in range(low + 1, high) if place not in passed]:
        middle = min(places, key=lambda place: abs(2 * place - low - high))
        outcome = _judged(runs[middle], judge)
        if outcome is Outcome.GOOD:
            low = middle
        elif outcome is Outcome.BAD:
            high = middle
        else:
            passed.add(middle)
    return Turn(runs[low], runs[high], len(listed))


def _between(workspace: Workspace, good: Run, bad: Run) -> list[Row]:
    first, last = good.spec().run, bad.spec().run
    if first.job != last.job:
        return []
    known = rows(workspace.store.folder / "index.sqlite", workspace.run_ids(), workspace.run)
    own = [row for row in known if row.job == first.job and not row.replay_of and "bisect" not in row.labels]
    ordered = sorted(own, key=lambda row: (row.created, _written(workspace.run(row.run_id)), row.run_id))
    places = {row.run_id: place for place, row in enumerate(ordered)}
    if good.id not in places or bad.id not in places:
        return []
    between = ordered[places[good.id] + 1 : places[bad.id]]
    return [row for row in between if row.outcome in ("ok", "failed")]


def _written(run: Run) -> int:
    """Runs of one second are told apart by when their specs were written here."""
    try:
        return (run.folder / "spec.yaml").stat().st_mtime_ns
    except OSError:
        return 0


def _judged(run: Run, judge: Judge) -> Outcome:
    try:
        record = run.record()
        return judge(run, record).outcome if record else Outcome.UNRESOLVED
    except ReplayError:
        return Outcome.UNRESOLVED
