"""Run: capture → rebuild → execute → record.

A job is never run in the live tree: what was captured is rebuilt and run, so the spec, written before the
start, cannot be falsified by edits made meanwhile.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from runner.errors import InterruptedRunError, TamperedError
from runner.execute import Executed, Finished, clean_up, collect, execute, refuse_full_disk
from runner.logs import Echo
from runner.rebuild import Plan, Rebuilt, damage, discard_damaged, look, plan, rebuild
from runner.state.digest import digest_bytes
from runner.state.job import Job
from runner.state.record import Record, ReplayResult
from runner.state.spec import StateSpec
from runner.store.files import is_locked, remove_tree
from runner.store.runs import Run
from runner.store.store import SET_APART
from runner.tools.containers import Engine
from runner.tools.interrupts import Interrupts
from runner.workspace import Workspace

if TYPE_CHECKING:
    from runner.seal import Sealer

Say = Callable[[str], None]


class Session(msgspec.Struct, frozen=True):
    """What every step needs: where, on which engine, how to be stopped, whom to tell, who signs."""

    workspace: Workspace
    engine: Engine
    interrupts: Interrupts
    say: Say
    echo: Echo | None = None
    sealer: Sealer | None = None


def record_run(session: Session, name: str, job: Job, *, relock: bool = False) -> tuple[StateSpec, Record]:
    """Run a job of the workspace and record it. A job that fails is recorded too."""
    # Looking at the present needs DVC, git and pip's doors; a replay needs none of them.
    from runner.capture import capture

    store = session.workspace.store
    sweep(session)
    with store.adding():
        captured = capture(
            session.workspace,
            session.engine,
            name,
            job,
            session.interrupts,
            session.say,
            relock=relock,
            now=datetime.datetime.now(datetime.UTC),
        )
        refuse_if_interrupted(session)
        run = session.workspace.run(captured.spec.run.id)
        run.begin()
        with starting(run):
            spec_bytes = run.write_spec(captured.spec)
            session.say(f"run {run.id}  state {captured.spec.digest[:19]}")
            made = make_plan(session, captured.spec)
            rebuilt = rebuild_for(session, made, run)
    with ending(run):
        started = now_text()
        finished = run_rebuilt(session, run, captured.spec, rebuilt, captured.secrets)
        with store.adding():
            executed = collect_outputs(session, run, captured.spec, rebuilt, finished, captured.secrets)
            record = record_of(captured.spec, spec_bytes, started, executed)
            conclude(session, run, captured.spec, spec_bytes, record)
    return captured.spec, record


def make_plan(session: Session, spec: StateSpec) -> Plan:
    at_hand = look(session.engine, session.workspace.store, session.workspace.root, spec.state, spec.observed)
    return plan(spec.state, spec.observed, at_hand)


def rebuild_for(session: Session, made: Plan, run: Run) -> Rebuilt:
    workspace = session.workspace
    refuse_full_disk(workspace.store)
    return rebuild(session.engine, workspace.store, workspace.root, made, run, session.interrupts, session.say)


def run_rebuilt(
    session: Session, run: Run, spec: StateSpec, rebuilt: Rebuilt, secrets: Mapping[str, bytes]
) -> Finished:
    """Execute, looking meanwhile whether what the job was given is as it was made.

    Raises `TamperedError` when it is not; the damaged caches are dropped, so that running again mends it.
    """
    store = session.workspace.store
    with ThreadPoolExecutor(1) as pool:
        checking = pool.submit(damage, store, rebuilt)
        finished = execute(
            session.engine,
            store,
            run,
            spec.state,
            rebuilt.prepared,
            secrets,
            session.interrupts,
            session.echo,
        )
    if damaged := checking.result():
        with store.adding():
            refuse_damaged(session, rebuilt, damaged)
    return finished


def collect_outputs(
    session: Session,
    run: Run,
    spec: StateSpec,
    rebuilt: Rebuilt,
    finished: Finished,
    secrets: Mapping[str, bytes],
) -> Executed:
    declared = tuple(spec.contract.outputs)
    return collect(session.workspace.store, run, rebuilt.prepared, finished, declared, secrets.values())


def refuse_damaged(session: Session, rebuilt: Rebuilt, damaged: list[str]) -> None:
    if not damaged:
        return
    discard_damaged(session.workspace.store, rebuilt)
    more = f" and {len(damaged) - 3} more" if len(damaged) > 3 else ""
    raise TamperedError(
        "files that the job was given had been changed in the store",
        ", ".join(damaged[:3]) + more,
        "they were dropped; run the command again to make them anew from what is pinned",
    )


def record_of(
    spec: StateSpec, spec_bytes: bytes, started: str, executed: Executed, replay: ReplayResult | None = None
) -> Record:
    return Record(
        run_id=spec.run.id,
        spec_sha256=digest_bytes(spec_bytes),
        state_digest=spec.digest,
        started=started,
        outcome=executed.outcome,
        outputs=executed.outputs,
        problems=executed.problems,
        undeclared=executed.undeclared,
        replay=replay,
    )


def conclude(session: Session, run: Run, spec: StateSpec, spec_bytes: bytes, record: Record) -> None:
    """Write the record, then sign it where there is a key."""
    record_bytes = run.write_record(record)
    if session.sealer:
        session.sealer.seal(session.workspace.store, run, spec, spec_bytes, record, record_bytes)


@contextlib.contextmanager
def starting(run: Run) -> Iterator[None]:
    """Until the job starts: a run that an error keeps from starting never was, and leaves nothing."""
    try:
        yield
    except BaseException:
        clean_up(run)
        run.forget()
        run.end()
        raise


@contextlib.contextmanager
def ending(run: Run) -> Iterator[None]:
    """Whatever happens inside, the run's scratch is gone and its lock free afterwards; so is a run of which not even
    a spec was written."""
    try:
        yield
    finally:
        clean_up(run)
        run.end()
        if not run.has_spec():
            run.forget()


def sweep(session: Session) -> None:
    """Remove containers, workspaces and temporary files that a killed command left on this store. Call it before
    anything is added."""
    store = session.workspace.store
    containers = session.engine.containers_of(store.id)
    with store.sweeping() as is_alone:
        for container, run_id in containers.items():
            if not (is_locked(store.runs / run_id / "lock") if run_id else not is_alone):
                session.engine.remove(container)
        for left in (*store.tmp.iterdir(), *_entries(store.cache / "tmp")) if is_alone else ():
            if not left.name.startswith(SET_APART):
                remove_tree(left)
    for folder in store.scratch.iterdir():
        if not is_locked(store.runs / folder.name / "lock"):
            session.workspace.run(folder.name).settle()
            remove_tree(folder)


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def refuse_if_interrupted(session: Session) -> None:
    if session.interrupts.count:
        raise InterruptedRunError("interrupted", "before the job was started", "nothing was recorded")


def now_text() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
