"""Boundaries: the checks of a contract, evaluated where a run crosses them, and what follows from a broken one.

Inputs are checked before the job starts, what a stage or the job wrote after it. A check that is a command runs in
the job's own environment, with no network, no secrets and a read-only view of the workspace. An escalation runs on
the host, since it is there to reach people, and never for a replay: a spec may come from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from runner.checks import Found, evaluate, told
from runner.errors import Exit, InterruptedRunError, ReplayError
from runner.execute import (
    WORKSPACE,
    Executed,
    Prepared,
    container_request,
    disk_watch,
    job_owner,
    lay_out,
    masked,
)
from runner.state.digest import Digest, canonical, digest_file
from runner.state.paths import covers
from runner.state.record import CheckResult, Outcome
from runner.state.spec import Baseline, Check, SchemaSeen, Stage, StateSpec
from runner.store.files import is_within, remove_tree
from runner.store.runs import Run
from runner.store.store import Store
from runner.tools.containers import Engine
from runner.tools.engine_errors import ExecutableMissingError
from runner.tools.interrupts import Interrupts
from runner.tools.last_words import LastWords

_MOST_DETAIL = 500
_FOLDER = Found("error", "it is a folder; name a file in it")


class Crossing(msgspec.Struct, frozen=True):
    """What is needed to evaluate the checks of one run."""

    engine: Engine
    store: Store
    run: Run
    spec: StateSpec
    prepared: Prepared
    secrets: Mapping[str, bytes]
    interrupts: Interrupts


def before(crossing: Crossing) -> tuple[CheckResult, ...]:
    """All boundaries on inputs."""
    checks = [check for check in crossing.spec.contract.checks if check.when == "before"]
    return tuple(_result(crossing, check, _of_input(crossing, check)) for check in checks)


def after_stage(crossing: Crossing, stage: Stage, whole: Prepared) -> tuple[CheckResult, ...]:
    """The boundaries on what a stage wrote; `whole` has it mounted."""
    checks = [check for check in crossing.spec.contract.checks if check.stage == stage.name]
    return tuple(_result(crossing, check, _of_stage(crossing, check, whole)) for check in checks)


def after_job(crossing: Crossing) -> tuple[CheckResult, ...]:
    """The boundaries on outputs that are commands: they see the workspace as the job left it."""
    checks = [check for check in crossing.spec.contract.checks if _is_after_job(check) and check.command is not None]
    return tuple(_result(crossing, check, _of_command(crossing, check, crossing.prepared)) for check in checks)


def judged(crossing: Crossing, executed: Executed, so_far: Sequence[CheckResult]) -> Executed:
    """What came of the run with all its checks, those on files that were taken too. Where one halts, outputs are set
    apart."""
    results = {result.name: result for result in so_far}
    for check in crossing.spec.contract.checks:
        if check.name not in results and _is_after_job(check) and _went_well(executed.outcome):
            results[check.name] = _result(crossing, check, _of_output(crossing, check, executed))
    checks = tuple(results.get(check.name) or _skipped(check) for check in crossing.spec.contract.checks)
    if not any(check.halts for check in checks):
        return msgspec.structs.replace(executed, checks=checks)
    return msgspec.structs.replace(executed, checks=checks, outputs=(), set_apart=executed.outputs)


def not_started(results: Iterable[CheckResult]) -> Outcome:
    """How a job ended that its boundaries kept from starting."""
    names = ", ".join(result.name for result in results if result.halts)
    return Outcome(ending="halted", exit_code=Exit.REFUSED, duration_s=0.0, detail=f"broken before the start: {names}")


def escalated(checks: Sequence[Check], results: Sequence[CheckResult], run_id: str, root: Path) -> list[CheckResult]:
    """The results, with how the escalations of those that are broken ended."""
    from runner.tools.escalation import escalate

    commands = {check.name: check.escalate for check in checks}
    told = []
    for result in results:
        if result.broken and commands.get(result.name):
            said = escalate(commands[result.name], canonical({"run_id": run_id, "check": result}), root)
            result = msgspec.structs.replace(result, escalated=said)
        told.append(result)
    return told


def words(result: CheckResult) -> str:
    """A broken check in one line."""
    verb = "is broken" if result.result == "fail" else "could not be evaluated"
    return f"check {result.name!r} {verb}: {result.detail}"


def _is_after_job(check: Check) -> bool:
    return check.when == "after" and check.stage is None


def _went_well(outcome: Outcome) -> bool:
    return (outcome.ending, outcome.exit_code) == ("exited", 0)


def _skipped(check: Check) -> CheckResult:
    return CheckResult(check.name, check.on, check.kind, "skipped", check.action, check.stage)


def _result(crossing: Crossing, check: Check, found: Found) -> CheckResult:
    detail = masked(found.detail, crossing.secrets.values())[:_MOST_DETAIL]
    return CheckResult(check.name, check.on, check.kind, found.result, check.action, check.stage, detail)


# --- one check -----------------------------------------------------------------------------------------------


def _of_input(crossing: Crossing, check: Check) -> Found:
    if check.command is not None:
        return _of_command(crossing, check, crossing.prepared)
    return _of_file(crossing, check, crossing.prepared)


def _of_stage(crossing: Crossing, check: Check, whole: Prepared) -> Found:
    if check.command is not None:
        return _of_command(crossing, check, whole)
    return _of_file(crossing, check, whole)


def _of_output(crossing: Crossing, check: Check, executed: Executed) -> Found:
    taken = {output.path: output for output in executed.outputs}
    if check.on in taken:
        return _evaluated(crossing, check, crossing.store.blobs.verified(Digest(taken[check.on].sha256)))
    problem = next((one for one in executed.problems if covers(one.path, check.on)), None)
    if problem:
        return Found("error", f"{problem.problem}: {problem.detail}")
    is_folder = any(covers(check.on, path) for path in taken)
    return _FOLDER if is_folder else Found("error", "missing: the job did not write it")


def _of_file(crossing: Crossing, check: Check, prepared: Prepared) -> Found:
    file = _place(prepared, check.on)
    sources = [mount.source for mount in prepared.mounts]
    if file not in sources and not any(is_within(folder, file) for folder in (prepared.workspace, *sources)):
        return Found("error", "a link leads out of the workspace there")
    if file.is_dir():
        return _FOLDER
    return _evaluated(crossing, check, file) if file.is_file() else Found("error", "it is not there")


def _evaluated(crossing: Crossing, check: Check, file: Path) -> Found:
    return evaluate(check, file) if check.drift is None else _drift(crossing.store, check.drift, file)


def _drift(store: Store, baseline: Baseline, file: Path) -> Found:
    """Breaks of the schema and columns that moved, since the baseline."""
    from runner.layers import schema
    from runner.profile import drift

    then = schema.profile_of(store, SchemaSeen(profile=baseline.profile), Digest(""))
    now = schema.profile_of_file(store, file, digest_file(file))
    if isinstance(then, str) or isinstance(now, str):
        return Found("error", then if isinstance(then, str) else f"it has no profile: {now}")
    found = drift.compare(then, now)
    return told([f"{one} since {baseline.run}" for one in (*found.breaks, *found.moved)])


def _place(prepared: Prepared, path: str) -> Path:
    """Where the host has what is at `path` in the workspace."""
    for mount in prepared.mounts:
        target = mount.target.removeprefix(WORKSPACE + "/")
        if target != mount.target and covers(target, path):
            return mount.source / path.removeprefix(target).lstrip("/") if path != target else mount.source
    return prepared.workspace / path


def _of_command(crossing: Crossing, check: Check, prepared: Prepared) -> Found:
    scratch, said = crossing.run.scratch / "check", LastWords()
    remove_tree(scratch)
    scratch.mkdir()
    state = crossing.spec.state
    access = msgspec.structs.replace(state.access, network="none")
    state = msgspec.structs.replace(state, command=check.command or (), stages=(), secrets=(), access=access)
    owner = job_owner()
    try:
        lay_out(scratch, prepared, owner)
        request = container_request(crossing.store, crossing.run, state, prepared, {}, owner, scratch, read_only=True)
        watch = disk_watch(crossing.run, state.access.limits.disk)
        ended = crossing.engine.run(request, said, crossing.interrupts, watch)
    except ExecutableMissingError as error:
        return Found("error", f"{error.what}: {error.why}")
    except ReplayError as error:
        if error.code is not Exit.USAGE:
            raise
        return Found("error", f"{error.what}: {error.why}")
    if ended.stopped == "interrupted":
        raise InterruptedRunError("interrupted", f"while {check.name!r} was checked")
    if ended.stopped:
        return Found("error", f"the command was ended: {ended.stopped}")
    return Found("pass") if ended.exit_code == 0 else Found("fail", _told(ended.exit_code, said.line()))


def _told(exit_code: int, line: str) -> str:
    return f"exit {exit_code}: {line}" if line else f"exit {exit_code}"
