"""History: recorded runs of a job whose state lies between a good one and a bad one: each of their changes is one of
those between the two, carried whole. They tell a search where to look first. Looking at them runs nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import msgspec

from runner.bisect.model import Items, Outcome
from runner.diff import state_changes
from runner.errors import ReplayError, UsageError
from runner.hybrid import key_of
from runner.judge import Judge, Judged
from runner.state.spec import StateSpec, state_digest
from runner.store.index import Row, rows
from runner.store.runs import TRIAL, Run
from runner.suspects import Setup, finished
from runner.workspace import Workspace


class Past(msgspec.Struct, frozen=True):
    """A recorded run that is a trial of the problem, and how it came out."""

    run: Run
    state: str
    items: Items
    judged: Judged


def past(workspace: Workspace, setup: Setup, judge: Judge) -> Iterator[Past]:
    """What cannot be told or read any more is passed over, and so is what came out as neither of the two did: another
    change may have moved it."""
    for row in _listed(workspace, setup):
        with contextlib.suppress(ReplayError):
            run = workspace.run(row.run_id)
            spec, record = finished(run)
            items = _taken(setup, spec)
            judged = judge(run, record) if items else None
            if items and judged and judged.outcome is not Outcome.UNRESOLVED and not judged.note:
                yield Past(run, spec.digest, items, judged)


def _listed(workspace: Workspace, setup: Setup) -> list[Row]:
    good, bad = setup.between.good, setup.between.bad
    if good.run.job != bad.run.job:
        return []
    known = rows(workspace.store.folder / "index.sqlite", workspace.run_ids(), workspace.run)
    own = [row for row in known if row.job == good.run.job and not row.replay_of and TRIAL not in row.labels]
    return [row for row in own if row.outcome in ("ok", "failed") and row.state_digest not in (good.digest, bad.digest)]


def _taken(setup: Setup, spec: StateSpec) -> Items | None:
    """What it took from the bad state; None if it is of no state between the two."""
    between = setup.between
    good = between.good
    changed = set(map(key_of, state_changes(good.state, spec.state, None, None, good.observed, spec.observed)))
    places = {number for number, change in enumerate(between.changes) if key_of(change) in changed}
    items = frozenset(item for item, members in enumerate(setup.blocks.members) if members <= places)
    if not items or not setup.problem.is_closed(items):
        return None
    taken = frozenset[int]().union(*(setup.blocks.members[item] for item in items))
    try:
        return items if state_digest(between.hybrid(taken).state) == spec.digest else None
    except UsageError:
        return None
