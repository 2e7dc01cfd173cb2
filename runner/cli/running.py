"""The commands that run jobs: `run` and `replay`."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import msgspec
import typer

from runner import past
from runner.cli.output import Progress, checks_text, diagnosis_text, error_words, print_error, print_json, safe, table
from runner.cli.passphrase import asked_passphrase
from runner.cli.releasing import bind_of, binding_text
from runner.compare import by_suffix
from runner.diagnose import Diagnosis
from runner.errors import Exit, OutsideError, RefusedError, ReplayError, TamperedError, UnrebuildableError, UsageError
from runner.keys import keyring
from runner.rebuild import Plan
from runner.replay import Original, Replayed, diagnosis, original_of, overall
from runner.replay import replay as replay_runs
from runner.run import Session, record_run
from runner.shown import few
from runner.state.decode import convert
from runner.state.digest import plain
from runner.state.job import Job, JobName
from runner.state.record import EXIT_OF_VERDICT, Outcome, Record, ReplayResult, Verdict
from runner.state.spec import Check, StateSpec
from runner.supply import planned
from runner.tools.containers import connect
from runner.tools.interrupts import listening
from runner.workspace import RELEASED, Workspace, open_workspace, root_of, workfile_of

if TYPE_CHECKING:
    from runner.seal import Sealer
    from runner.trust import Consent

_SHOWN = 20


class AdHoc(msgspec.Struct, frozen=True):
    """A job given on the command line instead of in `replay.yaml`."""

    image: str | None
    dependencies: str | None
    data: tuple[str, ...]
    outputs: tuple[str, ...]
    env: tuple[str, ...]
    params: str | None
    network: str
    name: str


class Held(msgspec.Struct, frozen=True):
    """The release that a run is to be held to, and the policy in its stead, if any."""

    release: str | None
    policy: str | None


def run(
    job: str | None,
    command: Sequence[str],
    adhoc: AdHoc,
    held: Held,
    *,
    relock: bool,
    at: str | None,
    as_of: str | None,
    quiet: bool,
    store: Path | None,
    as_json: bool,
) -> int:
    if not adhoc.image:
        workfile_of(root_of(Path.cwd()))
    workspace = open_workspace(Path.cwd(), store, create=True)
    words = [*([job] if job and adhoc.image else []), *command]
    before = past.end_of(as_of, datetime.datetime.now(datetime.UTC)) if as_of else None
    bind = bind_of(workspace, held.release, held.policy)
    standing = workspace.find_run(RELEASED + held.release.removeprefix(RELEASED)).spec() if held.release else None
    with past.at_commit(workspace, at) if at else contextlib.nullcontext(workspace) as source:
        name, wanted = (adhoc.name, _adhoc_job(adhoc, words)) if adhoc.image else _declared(source, job, command)
        with session(workspace, quiet=quiet) as here:
            spec, record = record_run(
                here, name, wanted, relock=relock, place=source, as_of=before, bind=bind, standing=standing
            )
    _tell_mlflow(spec)
    if as_json:
        print_json(
            {
                "run_id": record.run_id,
                "state_digest": record.state_digest,
                "exit_code": record.outcome.exit_code,
                "outputs": [{"path": o.path, "sha256": o.sha256, "size": o.size} for o in record.outputs],
                "problems": record.problems,
                "undeclared": record.undeclared,
                "ending": record.outcome.ending,
                "duration_s": record.outcome.duration_s,
                **boundary_json(record),
                **({"release": spec.run.release} if spec.run.release else {}),
            }
        )
    else:
        typer.echo(_recorded(spec, record), nl=False)
    if record.outcome.ending == "interrupted":
        return Exit.INTERRUPTED
    if record.halted or record.outcome.ending == "refused":
        return Exit.REFUSED
    return Exit.OK if record.ok else Exit.JOB_FAILED


def _tell_mlflow(spec: StateSpec) -> None:
    """Trouble with it is a warning: the run is recorded already."""
    from runner.state.strict import dump_spec
    from runner.tools import mlflow

    active = mlflow.active_run(os.environ)
    if active is None:
        return
    tags = {"replay.run_id": spec.run.id, "replay.state_digest": spec.digest}
    try:
        mlflow.tell(active, tags, f"replay/{spec.run.id}.yaml", dump_spec(spec).decode())
    except OutsideError as error:
        typer.echo(f"warning: {safe(error.what)}: {safe(error.why)}", err=True)


def boundary_json(record: Record) -> dict[str, object]:
    """What stages and checks came to, for those that have any."""
    found = {"set_apart": record.set_apart, "stages": record.stages, "checks": record.checks}
    return {name: value for name, value in found.items() if value}


def replay(
    part: str,
    *,
    times: int | None,
    dry_run: bool,
    apart: bool = False,
    quiet: bool,
    store: Path | None,
    as_json: bool,
    consent: Consent,
) -> int:
    from runner.trust import admit

    workspace = open_workspace(Path.cwd(), store)
    run = workspace.find_run(part)
    try:
        with run.being_replayed():
            original = original_of(run)
            workspace.warn_if_bound_to_revoked(original.spec)
            if not dry_run:
                admit(workspace, run, original.spec, original.record, consent)
            with session(workspace, quiet=quiet, signing=not dry_run, apart=apart) as here:
                if dry_run:
                    return _print_plan(planned(here, original.spec), original, as_json)
                done = replay_runs(here, original, times)
                result = overall(here, original, done)
                why = diagnosis(original, done, result)
    except (UnrebuildableError, RefusedError, TamperedError) as error:
        return _print_no_outputs(run.id, error, as_json)
    if as_json:
        print_json(_replay_json(done, result, why))
    else:
        typer.echo(_verdict(done, result) + diagnosis_text(why), nl=False)
    return EXIT_OF_VERDICT[result.verdict]


def _print_no_outputs(run_id: str, error: ReplayError, as_json: bool) -> int:
    """The verdicts that are reached without outputs to compare are errors as well."""
    verdict = next(verdict for verdict, code in EXIT_OF_VERDICT.items() if code == error.code)
    if as_json:
        print_json({"replay_of": run_id, "verdict": verdict, "outputs": [], "error": error_words(error)})
    else:
        typer.echo(f"{verdict.upper()}  {run_id}")
        print_error(error, as_json)
    return error.code


@contextlib.contextmanager
def session(workspace: Workspace, *, quiet: bool, signing: bool = True, apart: bool = False) -> Iterator[Session]:
    sealer = _sealer() if signing else None
    progress = Progress(quiet)
    try:
        with listening() as interrupts:
            engine = connect(progress.say, workspace.store.id)
            echo = None if quiet else progress.echo
            yield Session(workspace, engine, interrupts, progress.say, echo, sealer, apart)
    finally:
        progress.close()


def _sealer() -> Sealer | None:
    """Opened only where there is a key: a run that is not signed pays nothing for it."""
    keys = keyring()
    if not keys.can_sign():
        return None
    from runner.seal import open_sealer

    return open_sealer(keys, asked_passphrase)


def _declared(workspace: Workspace, job: str | None, command: Sequence[str]) -> tuple[str, Job]:
    from runner.stages import job_of_stage

    if command:
        raise UsageError("a command needs an image to run in", next="`replay run --image IMAGE -- COMMAND …`")
    if job is None:
        jobs = sorted(workspace.workfile().jobs)
        if not jobs:
            raise UsageError("replay.yaml declares no job", "`jobs` is empty", "add one; `replay init` shows how")
        if len(jobs) != 1:
            raise UsageError("which job?", f"replay.yaml has {', '.join(jobs)}", "`replay run JOB`")
        job = jobs[0]
    return job, job_of_stage(workspace.root, workspace.job(job))


def _adhoc_job(adhoc: AdHoc, words: Sequence[str]) -> Job:
    if not words:
        raise UsageError("what is to be run?", next="`replay run --image IMAGE -- COMMAND …`")
    described = {
        "command": list(words),
        "image": adhoc.image,
        "dependencies": adhoc.dependencies,
        "data": adhoc.data,
        "outputs": adhoc.outputs,
        "env": {name: (value if given else None) for name, given, value in (e.partition("=") for e in adhoc.env)},
        "params": adhoc.params,
        "network": adhoc.network,
    }
    try:
        convert(adhoc.name, JobName)
    except msgspec.ValidationError as error:
        expected = get_args(JobName)[1].description
        raise UsageError(f"--name: {adhoc.name!r} names no job", next=f"give {expected}") from error
    try:
        return convert(described, Job)
    except msgspec.ValidationError as error:
        why = str(error)
        raise UsageError(
            "the job given on the command line cannot be", why, "`replay run --help` tells more"
        ) from error


def _recorded(spec: StateSpec, record: Record) -> str:
    run_id, shown = spec.run.id, record.outputs[:_SHOWN]
    text = f"{_came_to(record)}  {run_id}\n  {_ended(record.outcome)}\n"
    text += binding_text(spec.run.release) if spec.run.release else ""
    text += table([("  " + safe(one.path), f"{one.size} bytes", one.sha256[:19]) for one in shown])
    text += _more(len(record.outputs) - len(shown), f"`replay outputs {run_id}` lists them")
    text += checks_text(record)
    if record.set_apart:
        text += f"  {len(record.set_apart)} outputs are set apart: `replay outputs {run_id} --set-apart`\n"
    for problem in record.problems:
        text += f"  {safe(problem.path)}: {problem.problem}: {safe(problem.detail)}\n"
    text += _also_wrote(record)
    return text + (f"again:  replay {run_id}\n" if record.outcome.ending not in ("interrupted", "refused") else "")


def _came_to(record: Record) -> str:
    if record.outcome.ending == "refused":
        return "refused"
    return "halted" if record.halted else "recorded" if record.ok else "failed"


def _more(count: int, where: str) -> str:
    return f"  and {count} more: {where}\n" if count else ""


def _also_wrote(record: Record) -> str:
    if not record.undeclared:
        return ""
    return f"  also wrote (not declared, not kept): {safe(few(record.undeclared, 5))}\n"


def _ended(outcome: Outcome) -> str:
    detail = f" ({safe(outcome.detail)})" if outcome.detail else ""
    if outcome.ending == "exited":
        return f"exit {outcome.exit_code} after {outcome.duration_s:.1f} s{detail}"
    words = {
        "time-limit": "ended by its time limit",
        "out-of-memory": "ended: out of memory",
        "disk-full": "ended: it filled the disk or its limit",
        "interrupted": "interrupted",
        "not-started": "could not be started",
        "halted": "not started: a boundary halted it",
        "refused": "not started: refused",
    }
    return f"{words[outcome.ending]} after {outcome.duration_s:.1f} s{detail}"


def _verdict(done: Sequence[Replayed], result: ReplayResult) -> str:
    count = f"  ({len(done)} replays)" if len(done) > 1 else ""
    text = f"{result.verdict.upper()}  {result.replay_of}{count}\n"
    shown = sorted(result.outputs, key=lambda one: one.verdict is Verdict.IDENTICAL)[:_SHOWN]
    rows = [(f"  {safe(one.path)}", one.verdict, one.comparator, safe(one.detail)) for one in shown]
    text += table([tuple(str(cell) for cell in row) for row in rows])
    text += _more(len(result.outputs) - len(shown), "`--json` lists them")
    text += "".join(f"  note: {safe(note)}\n" for note in result.notes)
    if any("image" in (one.comparator, by_suffix(one.path)) and one.verdict is not Verdict.IDENTICAL for one in shown):
        text += f"  pictures of where images differ: `replay outputs {done[-1].record.run_id} --differences DIR`\n"
    return text + "".join(f"  replay {one.record.run_id}  {one.record.outcome.duration_s:.1f} s\n" for one in done)


def _replay_json(done: Sequence[Replayed], result: ReplayResult, why: Diagnosis) -> dict[str, object]:
    last = done[-1]
    return {
        "replay_of": result.replay_of,
        "run_id": last.record.run_id,
        "verdict": result.verdict,
        "state_digest": last.record.state_digest,
        "outputs": [
            {"path": o.path, "verdict": o.verdict, "comparator": o.comparator, "detail": o.detail}
            for o in result.outputs
        ],
        "notes": result.notes,
        **boundary_json(last.record),
        "replays": [one.record.run_id for one in done],
        **({"diagnosis": why} if why.kind else {}),
        "duration_s": round(sum(one.record.outcome.duration_s for one in done), 3),
    }


def _print_plan(made: Plan, original: Original, as_json: bool) -> int:
    if as_json:
        steps = [{"layer": s.layer, "action": s.action, "possible": s.possible} for s in made.steps]
        found = {"replay_of": original.spec.run.id, "possible": made.possible, "steps": steps}
        checks = original.spec.contract.checks
        print_json({**found, **({"checks": [plain(check) for check in checks]} if checks else {})})
    else:
        rows = [(f"  {s.layer}", ("" if s.possible else "MISSING: ") + safe(s.action)) for s in made.steps]
        rows += [(f"  check {check.when}", safe(_planned(check))) for check in original.spec.contract.checks]
        typer.echo(f"plan for {original.spec.run.id}  state {original.spec.digest[:19]}\n" + table(rows), nl=False)
    return Exit.OK if made.possible else Exit.UNREBUILDABLE


def _planned(check: Check) -> str:
    where = f" (stage {check.stage})" if check.stage else ""
    return f"{check.on} by {check.kind}{where}: {check.action}"
