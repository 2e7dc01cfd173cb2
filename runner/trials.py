"""Trials: a hybrid state rebuilt and run. It is an ordinary run, labelled `bisect`, kept in the store alone."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future
from pathlib import Path

import msgspec

from runner import __version__, own, supply
from runner.bisect.model import Items
from runner.drill import Drill
from runner.errors import InterruptedRunError, OutsideError, ReplayError
from runner.hybrid import Hybrid
from runner.layers import access, host
from runner.rebuild import Rebuilt
from runner.run import (
    Session,
    collect_outputs,
    ending,
    record_of,
    refuse_if_interrupted,
    run_rebuilt,
    starting,
    write_spec,
)
from runner.state.moment import moment_text, now_text
from runner.state.record import Record
from runner.state.spec import Contract, RunInfo, StateSpec, ToolInfo, state_digest
from runner.state.strict import dump_spec, load_spec
from runner.store.index import rows
from runner.store.runs import TRIAL, Run, new_run_id
from runner.suspects import Setup, finished
from runner.tools.containers import connect
from runner.tools.interrupts import Interrupts, readable
from runner.workspace import Workspace, open_workspace

Elsewhere = Callable[[StateSpec], Future[str]]
"""Runs the state of a spec on another machine or in another process. When its run-id is given, the run is in the store
of who asked."""


class Done(msgspec.Struct, frozen=True):
    run: Run
    record: Record


class _Begun(msgspec.Struct, frozen=True):
    spec: StateSpec
    spec_bytes: bytes
    rebuilt: Rebuilt
    secrets: dict[str, bytes]


def run_trial(
    session: Session,
    setup: Setup,
    drill: Drill | None,
    trial: Items,
    used: Collection[str] | None,
    elsewhere: Elsewhere | None = None,
) -> Done:
    """Run the hybrid, here or elsewhere; or take a run of that very state that another bisect made, if
    it is none of those `used`. With None, it is run in any case.

    Raises `InterruptedRunError` when it was cancelled, `UsageError` and `UnrebuildableError` when it cannot be.
    """
    workspace = session.workspace
    with workspace.store.adding():
        made = hybrid_of(setup, drill, trial)
        for content in made.files:
            workspace.store.blobs.put_bytes(content)
        spec = _spec(session, setup, made)
        if used is not None and (known := known_trial(workspace, spec, used)):
            return known
        if elsewhere:
            run = Run(workspace.store, _waited_for(elsewhere(spec), session.interrupts), None)
            _, record = finished(run)
            return Done(run, record)
        run = Run(workspace.store, spec.run.id, None)
        begun = _begin(session, run, spec)
    return Done(run, _finish(session, run, begun))


def on(executor: Executor, workspace: Workspace) -> Elsewhere:
    """On the workers of any executor that reach this workspace and this store."""
    root, store = str(workspace.root), str(workspace.store.folder)
    return lambda spec: executor.submit(run_spec_at, root, store, dump_spec(spec))


def run_spec_at(root: str, store: str, spec: bytes) -> str:
    """Run the state that a spec states, recorded under the run-id that it has, which is given back. For a worker of
    any executor that reaches this workspace and this store: it takes and gives plain values, and can be pickled."""
    workspace = open_workspace(Path(root), Path(store))
    with (
        contextlib.closing(connect(store_id=workspace.store.id)) as engine,
        contextlib.closing(Interrupts()) as interrupts,
    ):
        session = Session(workspace, engine, interrupts, lambda _text: None)
        return run_spec(session, load_spec(spec, "the spec of a trial"))


def run_spec(session: Session, given: StateSpec) -> str:
    """Run the state that a spec states, as a run of this store and this machine; its run-id."""
    observed = msgspec.structs.replace(given.observed, host=host.observe(session.engine.version()))
    here = msgspec.structs.replace(given, observed=observed)
    run = Run(session.workspace.store, here.run.id, None)
    with session.workspace.store.adding():
        begun = _begin(session, run, here)
    _finish(session, run, begun)
    return run.id


def _waited_for(future: Future[str], interrupts: Interrupts) -> str:
    """What it gives. What was cancelled meanwhile is not waited for; a worker that is at it ends it for nobody."""
    ended, writable = os.pipe()
    try:
        future.add_done_callback(lambda _future: os.close(writable))
        readable([ended, interrupts])
        if not future.done():
            future.cancel()
            raise InterruptedRunError("interrupted", "the trial no longer mattered")
        return future.result()
    except BrokenExecutor as error:
        raise OutsideError(
            "a worker of the executor ended", str(error), "see its own logs; `replay bisect resume` goes on"
        ) from error
    finally:
        os.close(ended)


def hybrid_of(setup: Setup, drill: Drill | None, trial: Items) -> Hybrid:
    """The state of a trial; in a drill, the bad state with some parts of one change only."""
    if drill:
        return drill.replaced(setup.between.hybrid(range(len(setup.between.changes))), trial)
    return setup.between.hybrid(frozenset[int]().union(*(setup.blocks.members[item] for item in trial)))


def _spec(session: Session, setup: Setup, made: Hybrid) -> StateSpec:
    good, bad = setup.between.good, setup.between.bad
    now = datetime.datetime.now(datetime.UTC)
    run = RunInfo(
        id=new_run_id(good.run.job, now),
        job=good.run.job,
        created=moment_text(now),
        tool=ToolInfo(version=__version__),
        labels=(TRIAL,),
    )
    rules = {**bad.contract.outputs, **good.contract.outputs}
    return StateSpec(
        run=run,
        state=made.state,
        observed=msgspec.structs.replace(made.observed, host=host.observe(session.engine.version())),
        contract=msgspec.structs.replace(good.contract, outputs=rules, checks=setup.checks),
        digest=state_digest(made.state),
    )


def known_trial(workspace: Workspace, spec: StateSpec, used: Collection[str]) -> Done | None:
    """A trial of that state that this user made before. What others say they saw is no proof: a label and a state can
    be written by anybody who can have a run pulled."""
    for run_id in _trials_by_state(workspace).get(spec.digest, ()):
        if run_id not in used:
            run = Run(workspace.store, run_id, None)
            with contextlib.suppress(ReplayError):
                other, record = run.spec_and_record()
                if record and own.is_known(record.spec_sha256) and _are_alike(other.contract, spec.contract):
                    return Done(run, record)
    return None


def _are_alike(one: Contract, other: Contract) -> bool:
    """Whether a run under the one contract came out as it would have under the other."""
    return (one.outputs, one.checks) == (other.outputs, other.checks)


def _trials_by_state(workspace: Workspace) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in rows(workspace.store.folder / "index.sqlite", workspace.run_ids(), workspace.run):
        if TRIAL in row.labels and row.outcome in ("ok", "failed"):
            found.setdefault(row.state_digest, []).append(row.run_id)
    return found


def _begin(session: Session, run: Run, spec: StateSpec) -> _Begun:
    seen = spec.observed.access.secrets
    references = {name: seen[name].source for name in spec.state.secrets}
    secrets = access.read_secrets(references, session.workspace.root, os.environ)
    run.begin()
    with starting(run):
        refuse_if_interrupted(session)
        spec_bytes = write_spec(run, spec)
        rebuilt = supply.rebuild_supplied(session, spec, run)
        refuse_if_interrupted(session)
    return _Begun(spec, spec_bytes, rebuilt, secrets)


def _finish(session: Session, run: Run, begun: _Begun) -> Record:
    spec, rebuilt, secrets = begun.spec, begun.rebuilt, begun.secrets
    with _forgotten_if_cut_off(run), ending(run):
        started = now_text()
        finished = run_rebuilt(session, run, spec, rebuilt, secrets)
        if finished.outcome.ending == "interrupted":
            raise InterruptedRunError("interrupted", f"trial {run.id} no longer mattered")
        with session.workspace.store.adding():
            executed = collect_outputs(session, run, spec, rebuilt, finished, secrets)
            record = record_of(spec, begun.spec_bytes, started, executed)
            run.write_record(record)
    return record


@contextlib.contextmanager
def _forgotten_if_cut_off(run: Run) -> Iterator[None]:
    """Half a trial is of no use to anybody."""
    try:
        yield
    except BaseException:
        run.forget()
        raise
