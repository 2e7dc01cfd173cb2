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

from runner import own
from runner.confined import refuse_unconfined
from runner.diff import source_words
from runner.erased import keep_erased
from runner.errors import Exit, InterruptedRunError, ReplayError, TamperedError
from runner.execute import Executed, Finished, Prepared, clean_up, collect, execute, refuse_full_disk
from runner.logs import Echo, LogWriter
from runner.rebuild import Plan, Rebuilt, damage, discard_damaged, look, plan, rebuild
from runner.shown import few
from runner.state.digest import digest_bytes
from runner.state.job import Job
from runner.state.moment import now_text
from runner.state.record import CheckResult, Outcome, Record, ReplayResult
from runner.state.spec import Binding, Stage, StateSpec
from runner.store.files import is_locked, remove_tree
from runner.store.runs import Run
from runner.store.store import SET_APART
from runner.tools.containers import Engine
from runner.tools.interrupts import Interrupts
from runner.workspace import Workspace

if TYPE_CHECKING:
    from runner.boundaries import Crossing
    from runner.seal import Sealer

Say = Callable[[str], None]
Bind = Callable[[StateSpec], Binding]
"""Holds what is about to run against a release, and says what came of it."""


class Session(msgspec.Struct, frozen=True):
    """What every step needs: where, on which engine, how to be stopped, whom to tell, who signs. With `apart`, runs are
    kept in the store alone, without a copy in `state_specs/`."""

    workspace: Workspace
    engine: Engine
    interrupts: Interrupts
    say: Say
    echo: Echo | None = None
    sealer: Sealer | None = None
    apart: bool = False


def new_run(session: Session, run_id: str) -> Run:
    workspace = session.workspace
    return Run(workspace.store, run_id, None) if session.apart else workspace.run(run_id)


def record_run(
    session: Session,
    name: str,
    job: Job,
    *,
    relock: bool = False,
    place: Workspace | None = None,
    as_of: str | None = None,
    bind: Bind | None = None,
    standing: StateSpec | None = None,
) -> tuple[StateSpec, Record]:
    """Run a job of the workspace and record it. A job that fails is recorded too, and so is one that its release
    refuses, which is never started. `place` is where to capture from, if that is not the workspace as it stands;
    `standing` is the spec whose lock stands where there is none."""
    # Looking at the present needs DVC, git and pip's doors; a replay needs none of them.
    from runner.capture import capture

    store = session.workspace.store
    sweep(session)
    with store.adding():
        captured = capture(
            place or session.workspace,
            session.engine,
            name,
            job,
            session.interrupts,
            session.say,
            relock=relock,
            as_of=as_of,
            standing=standing,
            now=datetime.datetime.now(datetime.UTC),
        )
        refuse_if_interrupted(session)
        if bind:
            captured = captured.bound(bind(captured.spec))
        run = session.workspace.run(captured.spec.run.id)
        run.begin()
        with starting(run):
            spec_bytes = write_spec(run, captured.spec)
            release = captured.spec.run.release
            refused = release if release and release.refused else None
            if refused is None:
                rebuilt = _rebuilt(session, captured.spec, run)
    with ending(run):
        if refused:
            return captured.spec, _refused(session, run, captured.spec, spec_bytes, refused)
        started = now_text()
        finished = run_rebuilt(session, run, captured.spec, rebuilt, captured.secrets)
        with store.adding():
            executed = collect_outputs(session, run, captured.spec, rebuilt, finished, captured.secrets)
            executed = with_escalations(session, captured.spec, executed)
            record = record_of(captured.spec, spec_bytes, started, executed)
            conclude(session, run, captured.spec, spec_bytes, record)
    return captured.spec, record


def _rebuilt(session: Session, spec: StateSpec, run: Run) -> Rebuilt:
    for source in spec.observed.access.sources:
        if not source.reachable:
            session.say(f"access: {source.uri} is {source_words(source)}")
    session.say(f"run {run.id}  state {spec.digest[:19]}")
    return rebuild_for(session, make_plan(session, spec), run)


def write_spec(run: Run, spec: StateSpec) -> bytes:
    """Write the spec of a run that is made here, so that it is known as the user's own; returns its bytes."""
    spec_bytes = run.write_spec(spec)
    own.remember(digest_bytes(spec_bytes))
    return spec_bytes


def _refused(session: Session, run: Run, spec: StateSpec, spec_bytes: bytes, release: Binding) -> Record:
    """The record of a run that its release did not let start."""
    LogWriter(run.folder, (), session.echo).close()
    outcome = Outcome(ending="refused", exit_code=Exit.REFUSED, duration_s=0.0, detail=why_refused(release))
    record = record_of(spec, spec_bytes, now_text(), Executed(outcome, (), (), ()))
    conclude(session, run, spec, spec_bytes, record)
    return record


def why_refused(release: Binding) -> str:
    layers = dict.fromkeys(one.layer for one in release.deviations)
    said = "it was revoked" if release.refused == "revoked" else f"the run deviates in {', '.join(layers)}"
    return f"by the release {release.name}: {said}"


def make_plan(session: Session, spec: StateSpec, remote: str = "") -> Plan:
    refuse_unconfined(spec)
    workspace = session.workspace
    at_hand = look(session.engine, workspace.store, workspace.root, spec.state, spec.observed, remote)
    return plan(spec.state, spec.observed, at_hand)


def rebuild_for(session: Session, made: Plan, run: Run) -> Rebuilt:
    workspace = session.workspace
    refuse_full_disk(workspace.store)
    return rebuild(session.engine, workspace.store, workspace.root, made, run, session.interrupts, session.say)


def run_rebuilt(
    session: Session, run: Run, spec: StateSpec, rebuilt: Rebuilt, secrets: Mapping[str, bytes]
) -> Finished:
    """Execute, looking meanwhile whether what the job was given is as it was made; not at all where a boundary
    before it halts.

    Raises `TamperedError` when it is not; the damaged caches are dropped, so that running again mends it.
    """
    store, crossed = session.workspace.store, _crossed_before(session, run, spec, rebuilt, secrets)
    if any(result.halts for result in crossed):
        return _halted(session, run, crossed)
    with ThreadPoolExecutor(1) as pool:
        checking = pool.submit(damage, store, rebuilt)
        finished = _execute(session, run, spec, rebuilt, secrets)
    if damaged := checking.result():
        with store.adding():
            refuse_damaged(session, rebuilt, damaged)
    return msgspec.structs.replace(finished, checks=crossed + finished.checks) if crossed else finished


def _execute(session: Session, run: Run, spec: StateSpec, rebuilt: Rebuilt, secrets: Mapping[str, bytes]) -> Finished:
    how = (session.engine, session.workspace.store, run, spec.state, rebuilt.prepared, secrets, session.interrupts)
    if not spec.state.stages:
        finished = execute(*how, session.echo)
        went_well = (finished.outcome.ending, finished.outcome.exit_code) == ("exited", 0)
        if not spec.contract.checks or not went_well:
            return finished
        from runner.boundaries import after_job

        results = after_job(_crossing(session, run, spec, rebuilt, secrets))
        return msgspec.structs.replace(finished, checks=_told(session, results))
    from runner.staged import execute_stages

    def cross(stage: Stage, whole: Prepared) -> tuple[CheckResult, ...]:
        if not spec.contract.checks:
            return ()
        from runner.boundaries import after_stage

        return _told(session, after_stage(_crossing(session, run, spec, rebuilt, secrets), stage, whole))

    return execute_stages(*how, session.echo, session.say, cross)


def _crossed_before(
    session: Session, run: Run, spec: StateSpec, rebuilt: Rebuilt, secrets: Mapping[str, bytes]
) -> tuple[CheckResult, ...]:
    if not spec.contract.checks:
        return ()
    from runner.boundaries import before

    return _told(session, before(_crossing(session, run, spec, rebuilt, secrets)))


def _halted(session: Session, run: Run, crossed: tuple[CheckResult, ...]) -> Finished:
    from runner.boundaries import not_started

    LogWriter(run.folder, (), session.echo).close()
    return Finished(not_started(crossed), False, frozenset(), crossed)


def _told(session: Session, results: tuple[CheckResult, ...]) -> tuple[CheckResult, ...]:
    from runner.boundaries import words

    for result in results:
        if result.broken:
            session.say(words(result))
    return results


def _crossing(session: Session, run: Run, spec: StateSpec, rebuilt: Rebuilt, secrets: Mapping[str, bytes]) -> Crossing:
    from runner.boundaries import Crossing

    store = session.workspace.store
    return Crossing(session.engine, store, run, spec, rebuilt.prepared, secrets, session.interrupts)


def collect_outputs(
    session: Session,
    run: Run,
    spec: StateSpec,
    rebuilt: Rebuilt,
    finished: Finished,
    secrets: Mapping[str, bytes],
) -> Executed:
    """What the job left, judged by its boundaries."""
    store, declared = session.workspace.store, tuple(spec.contract.outputs)
    if finished.outcome.ending == "halted":
        executed = Executed(finished.outcome, (), (), ())
    elif spec.state.stages:
        from runner.staged import collect as collect_staged

        executed = collect_staged(store, run, spec.state, rebuilt.prepared, finished, declared, secrets)
    else:
        executed = collect(store, run, rebuilt.prepared, finished, declared, secrets.values())
    if not spec.contract.checks:
        return executed
    from runner.boundaries import judged

    executed = judged(_crossing(session, run, spec, rebuilt, secrets), executed, finished.checks)
    _told(session, tuple(one for one in executed.checks if one not in finished.checks))
    return executed


def with_escalations(session: Session, spec: StateSpec, executed: Executed) -> Executed:
    """Whoever is to be told of a broken boundary is told, and how that went is noted."""
    if not any(check.escalate for check in spec.contract.checks):
        return executed
    from runner.boundaries import escalated

    results = escalated(spec.contract.checks, executed.checks, spec.run.id, session.workspace.root)
    return msgspec.structs.replace(executed, checks=tuple(results))


def refuse_damaged(session: Session, rebuilt: Rebuilt, damaged: list[str]) -> None:
    if not damaged:
        return
    discard_damaged(session.workspace.store, rebuilt)
    raise TamperedError(
        "files that the job was given had been changed in the store",
        few(damaged, 3),
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
        set_apart=executed.set_apart,
        stages=executed.stages,
        checks=executed.checks,
        replay=replay,
    )


def conclude(session: Session, run: Run, spec: StateSpec, spec_bytes: bytes, record: Record) -> None:
    """Write the record, then sign it where there is a key."""
    record_bytes = run.write_record(record)
    for name in keep_erased(session.workspace.store, session.workspace.specs, run, record):
        session.say(f"{name} is what was erased here: it is not kept again")
    if session.sealer:
        with _signing(run):
            session.sealer.seal(session.workspace.store, run, spec, spec_bytes, record, record_bytes)


@contextlib.contextmanager
def _signing(run: Run) -> Iterator[None]:
    """An error here takes no run away: it says that there is one, and how it is signed once that is mended."""
    try:
        yield
    except ReplayError as error:
        error.why = f"{error.why}; {run.id} is recorded, and not signed".removeprefix("; ")
        then, sign = "then `replay sign` the run", f"then `replay sign {run.id}`"
        error.next = error.next.replace(then, sign) if then in error.next else f"{error.next}, {sign}".lstrip(", ")
        raise


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
