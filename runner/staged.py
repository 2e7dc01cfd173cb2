"""Stages: the steps of a job, each in a container of its own that finds what the stage declares and nothing else.

Code and parameters come into a fresh workspace as copies, data, models and what earlier stages left as read-only
mounts. What a stage declares to leave is moved out of its workspace before the next one starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from runner.execute import (
    WORKSPACE,
    Executed,
    Finished,
    Prepared,
    container_request,
    files_in,
    job_owner,
    lay_out,
    masked,
    mounted,
    run_to_end,
    undeclared_in,
)
from runner.execute import collect as collect_from
from runner.layers import code, params
from runner.logs import STDOUT, Echo, LogWriter
from runner.outputs import hand_on
from runner.state.digest import Digest
from runner.state.paths import covers
from runner.state.record import CheckResult, Outcome, OutputProblem, StageOutcome
from runner.state.spec import Stage, State
from runner.store.files import give, remove_tree
from runner.store.runs import Run
from runner.store.store import Store
from runner.tools.container_request import Mount
from runner.tools.containers import Engine
from runner.tools.interrupts import Interrupts

Cross = Callable[[Stage, Prepared], tuple[CheckResult, ...]]
"""Evaluate the boundaries after a stage: given it, and a workspace with all code and all that was handed on."""

_MOST_UNDECLARED = 100


class _Stopped(msgspec.Struct, frozen=True):
    """How one stage ended, what it could not hand on, and what it wrote beside what it declares."""

    outcome: Outcome
    problems: tuple[OutputProblem, ...] = ()
    undeclared: tuple[str, ...] = ()


def execute_stages(
    engine: Engine,
    store: Store,
    run: Run,
    state: State,
    prepared: Prepared,
    secrets: Mapping[str, bytes],
    interrupts: Interrupts,
    echo: Echo | None,
    say: Callable[[str], None],
    cross: Cross,
) -> Finished:
    """Run one stage after the other, until one fails or a boundary halts. The time limit is that of all together."""
    whole = msgspec.structs.replace(prepared, workspace=run.scratch / "whole")
    prepared.workspace.rename(whole.workspace)
    _handed(run).mkdir()
    done: list[StageOutcome] = []
    ends: list[_Stopped] = []
    checks: list[CheckResult] = []
    log = LogWriter(run.folder, secrets.values(), echo)
    try:
        for stage in state.stages:
            say(f"stage {stage.name}")
            log.begin_stage(stage.name)
            own = _lay_out_stage(store, run, state, stage, prepared)
            end = _run_stage(engine, store, run, _within(state, stage, done), stage, own, secrets, interrupts, log)
            done.append(_stage_outcome(stage, end.outcome))
            ends.append(end)
            if not _is_good(end):
                break
            checks += cross(stage, _with_handed(whole, run, state.stages[: len(done)]))
            if any(check.halts for check in checks):
                break
    finally:
        log.close()
    return Finished(
        _whole_outcome(done, ends[-1].outcome, len(state.stages)),
        log.masked(STDOUT),
        frozenset(),
        tuple(checks),
        tuple(done),
        tuple(problem for end in ends for problem in end.problems),
        tuple(path for end in ends for path in end.undeclared)[:_MOST_UNDECLARED],
    )


def collect(
    store: Store,
    run: Run,
    state: State,
    prepared: Prepared,
    finished: Finished,
    declared: Sequence[str],
    secrets: Mapping[str, bytes],
) -> Executed:
    """Take the declared outputs out of what the stages handed on."""
    handed = msgspec.structs.replace(prepared, workspace=_handed(run), mounts=())
    found = collect_from(store, run, handed, finished, declared, secrets.values())
    told = {problem.path for problem in finished.problems}
    missing = [_missing(problem, state, finished) for problem in found.problems if problem.path not in told]
    problems = sorted((*finished.problems, *missing), key=lambda problem: problem.path)
    return msgspec.structs.replace(
        found, problems=tuple(problems), undeclared=finished.undeclared, stages=finished.stages
    )


def _missing(problem: OutputProblem, state: State, finished: Finished) -> OutputProblem:
    """That the stage was not run is why its outputs are missing."""
    ran = {stage.name for stage in finished.stages}
    for stage in state.stages:
        if stage.name not in ran and any(covers(out, problem.path) for out in stage.outs):
            return msgspec.structs.replace(problem, detail=f"stage {stage.name} was not run")
    return problem


def _handed(run: Run) -> Path:
    return run.scratch / "handed"


def _within(state: State, stage: Stage, done: Sequence[StageOutcome]) -> State:
    """The state as that of a job of this one stage, with what is left of the time."""
    limits = state.access.limits
    if limits.time is not None:
        left = max(limits.time - sum(one.duration_s for one in done), 0.001)
        limits = msgspec.structs.replace(limits, time=left)
    access = msgspec.structs.replace(state.access, limits=limits)
    return msgspec.structs.replace(state, command=stage.command, stages=(), access=access)


# --- what a stage finds --------------------------------------------------------------------------------------


def _lay_out_stage(store: Store, run: Run, state: State, stage: Stage, prepared: Prepared) -> Prepared:
    """A fresh workspace, home and tmp, with the stage's deps."""
    for name in (prepared.workspace.name, "home", "tmp"):
        remove_tree(run.scratch / name)
    prepared.workspace.mkdir()
    files = code.files_of(store, Digest(state.code))
    code.restore(store, tuple(file for file in files if _is_dep(stage, file.path)), prepared.workspace)
    if state.params and state.params.file and _is_dep(stage, state.params.file):
        params.restore(store, state.params, prepared.workspace)
    before = state.stages[: state.stages.index(stage)]
    mounts = {mount.target: mount for mount in (*_inputs(stage, prepared), *_left(run, stage, before))}
    own = msgspec.structs.replace(prepared, mounts=tuple(_outermost(mounts)))
    lay_out(run.scratch, own, job_owner())
    return own


def _is_dep(stage: Stage, path: str) -> bool:
    return any(covers(dep, path) for dep in stage.deps)


def _inputs(stage: Stage, prepared: Prepared) -> Iterator[Mount]:
    """Data and models, or the parts of them that are deps; what lies outside the workspace as it is."""
    for mount in prepared.mounts:
        path = mount.target.removeprefix(WORKSPACE + "/")
        if path == mount.target or _is_dep(stage, path):
            yield mount
            continue
        for dep in stage.deps:
            part = dep.removeprefix(path + "/")
            if covers(path, dep) and (mount.source / part).exists():
                yield Mount(mount.source / part, f"{WORKSPACE}/{dep}")


def _left(run: Run, stage: Stage, before: Sequence[Stage]) -> Iterator[Mount]:
    """What earlier stages handed on, as far as it is a dep."""
    for dep in stage.deps:
        for out in (out for one in before for out in one.outs):
            path = out if covers(dep, out) else dep
            if (covers(dep, out) or covers(out, dep)) and (_handed(run) / path).exists():
                yield Mount(_handed(run) / path, f"{WORKSPACE}/{path}")


def _outermost(mounts: Mapping[str, Mount]) -> list[Mount]:
    return [
        mount
        for target, mount in mounts.items()
        if not any(other != target and covers(other, target) for other in mounts)
    ]


def _with_handed(whole: Prepared, run: Run, done: Sequence[Stage]) -> Prepared:
    outs = [out for stage in done for out in stage.outs]
    return msgspec.structs.replace(
        whole, mounts=whole.mounts + tuple(Mount(_handed(run) / out, f"{WORKSPACE}/{out}") for out in outs)
    )


# --- one stage -----------------------------------------------------------------------------------------------


def _run_stage(
    engine: Engine,
    store: Store,
    run: Run,
    state: State,
    stage: Stage,
    own: Prepared,
    secrets: Mapping[str, bytes],
    interrupts: Interrupts,
    log: LogWriter,
) -> _Stopped:
    if interrupts.count:
        return _Stopped(Outcome(ending="interrupted", exit_code=130, duration_s=0.0))
    before, owner = files_in(own.workspace), job_owner()
    request = container_request(store, run, state, own, secrets, owner)
    outcome = run_to_end(engine, run, request, log, secrets, interrupts)
    undeclared = (masked(path, secrets.values()) for path in undeclared_in(own.workspace, before, stage.outs))
    stopped = _Stopped(outcome, undeclared=tuple(sorted(undeclared)))
    if (outcome.ending, outcome.exit_code) != ("exited", 0):
        return stopped
    problems = hand_on(own.workspace, stage.outs, _handed(run), secrets.values(), mounted(own))
    give(_handed(run), owner)
    told = [msgspec.structs.replace(one, detail=f"{one.detail} (stage {stage.name})") for one in problems]
    return msgspec.structs.replace(stopped, problems=tuple(told))


def _is_good(end: _Stopped) -> bool:
    return (end.outcome.ending, end.outcome.exit_code) == ("exited", 0) and not end.problems


def _stage_outcome(stage: Stage, outcome: Outcome) -> StageOutcome:
    return StageOutcome(stage.name, outcome.ending, outcome.exit_code, outcome.duration_s)


def _whole_outcome(done: Sequence[StageOutcome], last: Outcome, stages: int) -> Outcome:
    """That of the last stage that was run, which it names unless all were run well."""
    duration = round(sum(stage.duration_s for stage in done), 3)
    if len(done) == stages and (last.ending, last.exit_code) == ("exited", 0):
        return msgspec.structs.replace(last, duration_s=duration)
    left = stages - len(done)
    more = f"; {left} later stage{'s' * (left != 1)} not run" if left else ""
    detail = f": {last.detail}" if last.detail else ""
    return msgspec.structs.replace(last, duration_s=duration, detail=f"stage {done[-1].name}{detail}{more}")
