"""Retention: which runs a policy lets go. Pure.

A policy is a list of rules, and a run is kept if any of them keeps it. Whatever the rules are, these are kept: runs
that a release stands for, runs of which a kept one is a replay, and what cannot be read, as nothing is known of it.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection, Hashable, Iterable, Sequence

import msgspec

from runner.errors import UsageError
from runner.state.moment import moment_text, span_of
from runner.store.index import Row, is_recorded
from runner.store.runs import TRIAL, VARIED

_RULE = re.compile(r"(?P<count>\d+(?:\.\d+)?)(?P<unit>[smhdw])|last:(?P<last>\d+)|(?P<key>label|job):(?P<value>\S+)")
_OPEN = frozenset({"running", "unreadable"})


class Rules(msgspec.Struct, frozen=True):
    """Runs made at `since` or later, the newest `last` recorded ones of each job and the newest `last` replays of each
    run, and recorded runs with one of the labels or of one of the jobs. A job's trials, its runs that nights varied and
    those that were cut off each count for themselves."""

    since: str | None = None
    last: int = 0
    labels: frozenset[str] = frozenset()
    jobs: frozenset[str] = frozenset()


def rules(texts: Sequence[str], now: datetime.datetime) -> Rules:
    """Like `90d`, `last:5`, `label:prod`, `job:train`. Raises `UsageError` for what is none of these."""
    found: dict[str, set[str]] = {"label": set(), "job": set()}
    since, last = None, 0
    for text in texts:
        rule = _RULE.fullmatch(text)
        if rule is None:
            raise UsageError(f"--keep: {text!r} is no rule", next="like 90d, last:5, label:prod or job:train")
        if rule["count"]:
            span = span_of(rule["count"], rule["unit"])
            edge = moment_text(now - span)
            since = min(since or edge, edge)
        elif rule["last"]:
            last = max(last, int(rule["last"]))
        else:
            found[rule["key"]].add(rule["value"])
    return Rules(since, last, frozenset(found["label"]), frozenset(found["job"]))


def refuse_unknown(rows: Iterable[Row], kept_by: Rules) -> None:
    """Raises `UsageError` for a label or job that no recorded run has: a mistyped one would keep nothing."""
    listed = [row for row in rows if not row.replay_of]
    there = {
        "label": {label for row in listed for label in row.labels},
        "job": {row.job for row in listed if is_recorded(row)},
    }
    for kind, named in (("label", kept_by.labels), ("job", kept_by.jobs)):
        if unknown := sorted(named - there[kind]):
            known = ", ".join(f"{kind}:{name}" for name in sorted(there[kind])) or "none"
            what = f"--keep: no recorded run fits {kind}:{unknown[0]}"
            raise UsageError(what, f"known are: {known}", "correct the rule, or leave it out; nothing was removed")


def let_go(rows: Iterable[Row], kept_by: Rules, released: Collection[str]) -> list[str]:
    """The runs that no rule keeps."""
    known = {row.run_id: row for row in rows}
    kept = {row.run_id for row in known.values() if _is_kept(row, kept_by) or row.run_id in released}
    kept |= _newest(known.values(), kept_by.last)
    for run_id in list(kept):
        while (original := known[run_id].replay_of) and original in known and original not in kept:
            kept.add(original)
            run_id = original
    return sorted(known.keys() - kept)


def _is_kept(row: Row, kept_by: Rules) -> bool:
    if row.outcome in _OPEN or (kept_by.since is not None and row.created >= kept_by.since):
        return True
    if is_recorded(row) and row.job in kept_by.jobs:
        return True
    return not row.replay_of and not kept_by.labels.isdisjoint(row.labels)


def _newest(rows: Iterable[Row], count: int) -> set[str]:
    groups: dict[Hashable, list[Row]] = {}
    for row in rows:
        kind = row.replay_of, row.job, is_recorded(row), TRIAL in row.labels, VARIED in row.labels
        groups.setdefault(kind, []).append(row)
    ordered = (sorted(group, key=lambda row: (row.created, row.run_id), reverse=True) for group in groups.values())
    return {row.run_id for group in ordered for row in group[:count]}
