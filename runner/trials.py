"""Trials: a hybrid state rebuilt and run. It is an ordinary run, labelled `bisect`, kept in the store alone."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Collection, Iterator, Mapping

import msgspec

from runner import __version__
from runner.bisect.model import Items
from runner.drill import Drill
from runner.errors import InterruptedRunError, ReplayError
from runner.hybrid import Hybrid
from runner.layers import access, host
from runner.rebuild import Rebuilt
from runner.run import (
    Session,
    collect_outputs,
    ending,
    make_plan,
    now_text,
    rebuild_for,
    record_of,
    refuse_if_interrupted,
    run_rebuilt,
    starting,
)
from runner.state.record import Record
from runner.state.spec import RunInfo, StateSpec, ToolInfo, state_digest
from runner.store.index import rows
from runner.store.runs import Run, new_run_id
from runner.suspects import Setup
from runner.workspace import Workspace

LABEL = "bisect"


class Done(msgspec.Struct, frozen=True):
    run: Run
    record: Record


class _Begun(msgspec.Struct, frozen=True):
    spec: StateSpec
    spec_bytes: bytes
    rebuilt: Rebuilt
    secrets: dict[str, bytes]


def run_trial(session: Session, setup: Setup, drill: Drill | None, trial: Items, used: Collection[str] | None) -> Done:
    """Run the hybrid; or take a run of that very state that another bisect made, if it is none of those `used`. With
    None, it is run in any case.

    Raises `InterruptedRunError` when it was cancelled, `UsageError` and `UnrebuildableError` when it cannot be.
    """
    workspace = session.workspace
    with workspace.store.adding():
        made = hybrid_of(setup, drill, trial)
        for content in made.files:
            workspace.store.blobs.put_bytes(content)
        spec = _spec(session, setup, made)
        if used is not None and (known := _known(workspace, spec, used)):
            return known
        run = Run(workspace.store, spec.run.id, None)
        begun = _begin(session, run, spec)
    return Done(run, _finish(session, run, begun))


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
        created=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        tool=ToolInfo(version=__version__),
        labels=(LABEL,),
    )
    rules = {**bad.contract.outputs, **good.contract.outputs}
    return StateSpec(
        run=run,
        state=made.state,
        observed=msgspec.structs.replace(made.observed, host=host.observe(session.engine.version())),
        contract=msgspec.structs.replace(good.contract, outputs=rules),
        digest=state_digest(made.state),
    )


def _known(workspace: Workspace, spec: StateSpec, used: Collection[str]) -> Done | None:
    for run_id in _trials_by_state(workspace).get(spec.digest, ()):
        if run_id not in used:
            run = Run(workspace.store, run_id, None)
            with contextlib.suppress(ReplayError):
                other, record = run.spec_and_record()
                if record and other.contract.outputs == spec.contract.outputs:
                    return Done(run, record)
    return None


def _trials_by_state(workspace: Workspace) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in rows(workspace.store.folder / "index.sqlite", workspace.run_ids(), workspace.run):
        if LABEL in row.labels and row.outcome in ("ok", "failed"):
            found.setdefault(row.state_digest, []).append(row.run_id)
    return found


def _begin(session: Session, run: Run, spec: StateSpec) -> _Begun:
    seen = spec.observed.access.secrets
    references = {name: seen[name].source for name in spec.state.secrets}
    secrets = access.read_secrets(references, session.workspace.root, os.environ)
    run.begin()
    with starting(run):
        refuse_if_interrupted(session)
        spec_bytes = run.write_spec(spec)
        rebuilt = rebuild_for(session, make_plan(session, spec), run)
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
