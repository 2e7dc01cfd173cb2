"""The index: one row a finished run, so that listing ten thousand costs no more than listing ten.

Made from specs and records and from nothing else; deleting it costs time only. A run that has no record yet
is never indexed, so a row never goes stale.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from runner.errors import ReplayError
from runner.state.plain import MALFORMED
from runner.state.record import Record
from runner.state.spec import StateSpec
from runner.store.runs import TRIAL, VARIED, Run, RunStatus

_SCHEMA = "CREATE TABLE IF NOT EXISTS runs_1 (run_id TEXT PRIMARY KEY, row BLOB NOT NULL) WITHOUT ROWID"


OUTCOMES = ("ok", "failed", "halted", "refused", "interrupted", "running", "unreadable")
_FINISHED = ("ok", "failed", "halted", "refused")


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `ls` shows. `outcome` is one of `OUTCOMES`; `signed` is never kept, as a run may be signed later."""

    run_id: str
    job: str = ""
    created: str = ""
    state_digest: str = ""
    labels: tuple[str, ...] = ()
    outcome: str = ""
    exit_code: int | None = None
    replay_of: str | None = None
    verdict: str | None = None
    duration_s: float | None = None
    outputs: int = 0
    signed: bool | None = None
    release: str | None = None


_decoder = msgspec.msgpack.Decoder(Row)


def rows(file: Path, run_ids: Iterable[str], open_run: Callable[[str], Run]) -> list[Row]:
    """A row for each run-id, taken from the index where it is there, else from the run's files."""
    wanted = list(run_ids)
    known = _read(file)
    found, fresh = [], []
    for run_id in wanted:
        row = known.get(run_id)
        if row is None:
            run = open_run(run_id)
            row = describe(run)
            if row.outcome in _FINISHED:
                fresh.append(row)
            elif run.is_gone():
                continue
        found.append(row)
    gone = known.keys() - set(wanted)
    if fresh or gone:
        _write(file, fresh, gone)
    return found


def is_recorded(row: Row) -> bool:
    """Whether somebody recorded it: it is no replay and no trial, and was not cut off."""
    return (
        not row.replay_of and row.outcome in (*_FINISHED, "unreadable") and not {TRIAL, VARIED}.intersection(row.labels)
    )


def describe(run: Run) -> Row:
    """The row of one run, from its files."""
    try:
        status = run.status()
        spec, record = run.spec_and_record()
    except ReplayError:
        return Row(run_id=run.id, outcome="unreadable" if run.status() is RunStatus.FINISHED else str(run.status()))
    return _row(spec, record, str(status))


def damage(file: Path, open_run: Callable[[str], Run]) -> str | None:
    """What is wrong with the index: with the file itself, or with a row that says other things than its run."""
    if not file.exists():
        return None
    try:
        with contextlib.closing(_open(file)) as database:
            (found,) = database.execute("PRAGMA integrity_check(1)").fetchone()
            listed = {key: _decoder.decode(row) for key, row in database.execute("SELECT run_id, row FROM runs_1")}
    except (sqlite3.DatabaseError, ValueError) as error:
        return str(error)
    if found != "ok":
        return str(found)
    for run_id, row in listed.items():
        truth = describe(open_run(run_id))
        if truth.outcome in _FINISHED and truth != row:
            return f"its row of {run_id} is not what the run's files say"
    return None


def _row(spec: StateSpec, record: Record | None, status: str) -> Row:
    return Row(
        run_id=spec.run.id,
        job=spec.run.job,
        created=spec.run.created,
        state_digest=spec.digest,
        labels=spec.run.labels,
        outcome=_outcome(record) if record else status,
        exit_code=record.outcome.exit_code if record else None,
        replay_of=spec.run.replay_of,
        verdict=str(record.replay.verdict) if record and record.replay else None,
        duration_s=record.outcome.duration_s if record else None,
        outputs=len(record.outputs) if record else 0,
        release=spec.run.release.name if spec.run.release else None,
    )


def _outcome(record: Record) -> str:
    if record.outcome.ending == "interrupted":
        return "interrupted"
    if record.outcome.ending == "refused":
        return "refused"
    return "halted" if record.halted else "ok" if record.ok else "failed"


def _read(file: Path) -> dict[str, Row]:
    """All rows; an index that cannot be read is an empty one."""
    if not file.exists():
        return {}
    try:
        with contextlib.closing(_open(file)) as database:
            return {run_id: _decoder.decode(row) for run_id, row in database.execute("SELECT run_id, row FROM runs_1")}
    except (sqlite3.DatabaseError, TypeError, *MALFORMED):
        with contextlib.suppress(OSError):
            file.unlink()
        return {}


def _write(file: Path, fresh: Iterable[Row], gone: Iterable[str]) -> None:
    """Best effort: what is not written now is found again next time."""
    try:
        with contextlib.closing(_open(file)) as database, database:
            database.execute(_SCHEMA)
            database.executemany("DELETE FROM runs_1 WHERE run_id = ?", [(run_id,) for run_id in gone])
            encoded = [(row.run_id, msgspec.msgpack.encode(row)) for row in fresh]
            database.executemany("INSERT OR REPLACE INTO runs_1 VALUES (?, ?)", encoded)
    except sqlite3.DatabaseError:
        with contextlib.suppress(OSError):
            if file.stat().st_size == 0:  # where a disk is full, the file is made and nothing in it
                file.unlink()


def _open(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(file, timeout=10)
