"""The commands that look and change nothing: `diff`, `ls`, `show`, `logs`, `outputs`."""

from __future__ import annotations

import base64
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import typer

from runner.cli.output import Harmless, diagnosis_text, print_json, safe, table
from runner.errors import Exit, UsageError, disk_error
from runner.logs import STDERR, STDOUT, read_log
from runner.state.digest import Digest
from runner.state.record import Output, Verdict
from runner.state.spec import StateSpec
from runner.store.blobs import copy_out
from runner.store.runs import RunStatus
from runner.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from runner.diff import Change, Diff
    from runner.store.index import Row


class Filter(msgspec.Struct, frozen=True):
    job: str | None = None
    label: str | None = None
    status: str | None = None
    state: str | None = None
    limit: int = 50

    def fits(self, row: Row) -> bool:
        return (
            (self.job is None or row.job == self.job)
            and (self.label is None or self.label in row.labels)
            and (self.status is None or self.status in (row.outcome, row.verdict))
            and (
                self.state is None
                or row.state_digest.removeprefix("sha256:").startswith(self.state.removeprefix("sha256:"))
            )
        )


def diff(a: str, b: str, store: Path | None, as_json: bool) -> int:
    from runner.explain import explain

    found = explain(open_workspace(Path.cwd(), store), a, b)
    if as_json:
        print_json({**msgspec.structs.asdict(found.diff), "diagnosis": found.diagnosis})
    else:
        typer.echo(_diff_text(found.diff) + diagnosis_text(found.diagnosis), nl=False)
    return Exit.OK if found.diff.equal else Exit.DIFFERENT


def ls(wanted: Filter, store: Path | None, as_json: bool) -> int:
    from runner.store.index import OUTCOMES, rows

    if wanted.status not in (None, *OUTCOMES, *Verdict):
        known = ", ".join((*OUTCOMES, *Verdict))
        raise UsageError(f"--status: {wanted.status!r} is not known", next=f"one of {known}")
    workspace = open_workspace(Path.cwd(), store)
    found = rows(workspace.store.folder / "index.sqlite", workspace.run_ids(), workspace.run)
    fitting = sorted(
        (row for row in found if wanted.fits(row)), key=lambda row: (row.created, row.run_id), reverse=True
    )
    shown = fitting[: wanted.limit] if wanted.limit else fitting
    if as_json:
        signed = (workspace.run(row.run_id).is_signed() for row in shown)
        print_json({"runs": [msgspec.structs.replace(row, signed=one) for row, one in zip(shown, signed, strict=True)]})
    elif not shown:
        typer.echo("no runs" + (" fit" if found else " yet: record one with `replay run JOB`"), err=True)
    else:
        typer.echo(table([_ls_row(row) for row in shown], ("RUN", "CREATED", "STATE", "RESULT", "LABELS")), nl=False)
        if len(fitting) > len(shown):
            typer.echo(f"{len(fitting) - len(shown)} older runs are not shown; -n 0 shows all", err=True)
    return Exit.OK


def show(part: str, store: Path | None, as_json: bool) -> int:
    workspace = open_workspace(Path.cwd(), store)
    run = workspace.find_run(part)
    spec, record = run.spec_and_record()
    status = str(run.status())
    if as_json:
        found = {"run_id": run.id, "status": status, "signed": run.is_signed(), "spec": spec}
        print_json({**found, **({"record": record} if record else {})})
        return Exit.OK
    typer.echo(_spec_text(spec), nl=False)
    if record is None:
        typer.echo("status    " + ("running" if status == RunStatus.RUNNING else "interrupted before it was recorded"))
        return Exit.OK
    outcome = record.outcome
    typer.echo(
        f"ended     {outcome.ending}, exit {outcome.exit_code}, {outcome.duration_s:.1f} s "
        f"{safe(outcome.detail)}".rstrip()
    )
    if record.replay:
        typer.echo(f"verdict   {record.replay.verdict} against {record.replay.replay_of}")
    typer.echo("signed    " + (f"yes: `replay verify {run.id}`" if run.is_signed() else "no"))
    typer.echo(_outputs_text(record.outputs), nl=False)
    for problem in record.problems:
        typer.echo(f"problem   {safe(problem.path)}: {problem.problem}: {safe(problem.detail)}")
    if record.undeclared:
        more = f" and {len(record.undeclared) - 5} more" if len(record.undeclared) > 5 else ""
        typer.echo(f"also wrote (not declared, not kept)  {safe(', '.join(record.undeclared[:5]))}{more}")
    return Exit.OK


def logs(part: str, stream: str, store: Path | None, as_json: bool) -> int:
    streams = {"both": (STDOUT, STDERR), "stdout": (STDOUT,), "stderr": (STDERR,)}
    if stream not in streams:
        raise UsageError(f"--stream: {stream!r} is not known", next="both, stdout or stderr")
    run = open_workspace(Path.cwd(), store).find_run(part)
    if not (run.folder / "stdout").is_file():
        raise UsageError(f"there are no logs of {run.id} here", "logs stay in the store of the machine that ran it")
    pieces = (piece for piece in read_log(run.folder) if piece[0] in streams[stream])
    if as_json:
        print_json({"run_id": run.id, "pieces": [_piece(kind, data) for kind, data in pieces]})
        return Exit.OK
    harmless: defaultdict[int, Harmless] = defaultdict(Harmless)
    for kind, data in pieces:
        target = sys.stdout if kind == STDOUT or stream != "both" else sys.stderr
        target.buffer.write(harmless[kind].feed(data) if target.isatty() else data)
        target.buffer.flush()
    return Exit.OK


def outputs(part: str, to: Path | None, force: bool, store: Path | None, as_json: bool) -> int:
    workspace = open_workspace(Path.cwd(), store)
    run = workspace.find_run(part)
    record = run.record()
    if record is None:
        raise UsageError(f"{run.id} has no record, so it has no outputs", f"it is {run.status()}")
    if to is not None:
        _copy_outputs(workspace, record.outputs, to, force)
    if as_json:
        listed = [{"path": o.path, "sha256": o.sha256, "size": o.size} for o in record.outputs]
        print_json({"run_id": run.id, "outputs": listed, **({"to": str(to)} if to else {})})
    else:
        typer.echo(_outputs_text(record.outputs), nl=False)
    return Exit.OK


def _copy_outputs(workspace: Workspace, found: tuple[Output, ...], to: Path, force: bool) -> None:
    there = [output.path for output in found if (to / output.path).exists()]
    if there and not force:
        raise UsageError(f"{to / there[0]} is there already", next="give --force to overwrite, or another folder")
    for output in found:
        place = to / output.path
        if to.resolve() not in (place.parent.resolve() / "x").parents:
            raise UsageError(f"{place} leads out of {to} through a link", next="copy into another folder")
        source = workspace.store.blobs.verified(Digest(output.sha256))
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            copy_out(source, place, 0o755 if output.executable else 0o644)
        except OSError as error:
            raise disk_error(error, f"write {place}") from error


def _piece(kind: int, data: bytes) -> dict[str, str]:
    stream = "stdout" if kind == STDOUT else "stderr"
    try:
        return {"stream": stream, "text": data.decode()}
    except UnicodeDecodeError:
        return {"stream": stream, "base64": base64.b64encode(data).decode()}


def _diff_text(found: Diff) -> str:
    if found.equal:
        verb = "would run" if found.b == "." else "ran"
        text = f"equal: {found.b} {verb} the same state as {found.a}\n"
    else:
        text = f"{found.a} → {found.b}: {len(found.changes)} change{'s' * (len(found.changes) != 1)}\n"
        text += table([_change(change) for change in found.changes])
    text += "".join(f"  {layer}  unknown: {safe(why)}\n" for layer, why in found.unknown.items())
    if found.host:
        text += "observed on the host, no part of the state:\n" + table([_change(change) for change in found.host])
    if found.equal and found.outputs:
        text += "and yet the outputs differ:\n" + table([_change(change) for change in found.outputs])
    return text


def _change(change: Change) -> tuple[str, ...]:
    sides = [safe("—" if side is None else side)[:100] for side in (change.a, change.b)]
    detail = f"  {safe(change.detail)}" if change.detail else ""
    return (f"  {change.layer}", safe(change.name), f"{sides[0]} → {sides[1]}{detail}")


def _ls_row(row: Row) -> tuple[str, ...]:
    result = f"{row.verdict} ({row.replay_of})" if row.verdict else row.outcome
    if row.outcome == "failed" and row.exit_code:
        result += f", exit {row.exit_code}"
    created = row.created.replace("T", " ").removesuffix("Z")
    return (row.run_id, created, row.state_digest[7:19], result, " ".join(row.labels))


def _outputs_text(found: tuple[Output, ...]) -> str:
    return table([("output    " + safe(o.path), f"{o.size} bytes", o.sha256[:19]) for o in found])


def _spec_text(spec: StateSpec) -> str:
    state, seen = spec.state, spec.observed
    locked = state.dependencies.locked
    packages = "what the image holds" if locked is None else f"{len(locked)} packages locked"
    code_line = f"{(seen.code.commit or 'no commit')[:12]}" + (
        f", {len(seen.code.dirty)} files dirty" if seen.code.dirty else ""
    )
    lines = [
        ("run", spec.run.id + (f"  (replay of {spec.run.replay_of})" if spec.run.replay_of else "")),
        ("state", spec.digest),
        ("created", spec.run.created),
        ("command", " ".join(state.command)),
        ("code", f"{state.code[:19]}  {code_line}"),
        ("image", f"{seen.image.reference} ({state.image.platform}, {len(state.image.diff_ids)} layers)"),
        ("packages", packages + (f", Python {state.dependencies.python}" if state.dependencies.python else "")),
        *(("data", f"{path}  {digest[:19]}") for path, digest in sorted((state.data | state.model).items())),
        ("params", state.params.file or "in replay.yaml") if state.params else ("params", "none"),
        ("env", " ".join(sorted(state.env)) or "none"),
        *((("secrets", " ".join(state.secrets)),) if state.secrets else ()),
        ("network", state.access.network),
    ]
    return "".join(f"{name:<9} {safe(value)}\n" for name, value in lines)
