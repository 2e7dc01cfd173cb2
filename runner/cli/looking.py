"""The commands that look and change nothing: `diff`, `ls`, `show`, `logs`, `outputs`."""

from __future__ import annotations

import base64
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import typer

from runner.cli.output import Harmless, checks_text, diagnosis_text, print_json, safe, safe_line, table
from runner.errors import Exit, RefusedError, UsageError, disk_error
from runner.logs import STAGE, STDERR, STDOUT, read_log
from runner.shown import few
from runner.state.digest import Digest, plain
from runner.state.record import Output, Verdict
from runner.state.spec import DataSeen, StateSpec
from runner.store.blobs import copy_out
from runner.store.runs import Run, RunStatus
from runner.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from runner.diff import Change, Diff
    from runner.explain import Explained
    from runner.profile.drift import Moved
    from runner.store.index import Row


TRIAL = "bisect"


class Filter(msgspec.Struct, frozen=True):
    """Trials of a bisect are shown where their label is asked for."""

    job: str | None = None
    label: str | None = None
    status: str | None = None
    state: str | None = None
    limit: int = 50

    def fits(self, row: Row) -> bool:
        return (
            (self.job is None or row.job == self.job)
            and (TRIAL not in row.labels if self.label is None else self.label in row.labels)
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
        print_json(diff_json(found))
    else:
        typer.echo(diff_text(found), nl=False)
    return Exit.OK if found.diff.equal else Exit.DIFFERENT


def diff_json(found: Explained) -> dict[str, object]:
    moved = [{"path": path, **plain(one)} for path, one in found.moved.columns]
    told = {"moved": moved, "metrics": found.metrics, "diagnosis": found.diagnosis}
    return {**msgspec.structs.asdict(found.diff), **told}


def diff_text(found: Explained) -> str:
    return _diff_text(found.diff) + _moved_text(found) + diagnosis_text(found.diagnosis)


def ls(wanted: Filter, store: Path | None, as_json: bool) -> int:
    from runner.store.index import OUTCOMES, rows

    if wanted.status not in (None, *OUTCOMES, *Verdict):
        known = ", ".join(dict.fromkeys((*OUTCOMES, *Verdict)))
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
    released = [known.release.name for known in workspace.releases_of(run.id)]
    if as_json:
        found = {"run_id": run.id, "status": status, "signed": run.is_signed(), "spec": spec}
        found |= {"released_as": released} if released else {}
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
    typer.echo("".join(f"released  as @{name}: `replay release show {name}`\n" for name in released), nl=False)
    if spec.run.release:
        from runner.cli.releasing import binding_text

        typer.echo(f"release   {binding_text(spec.run.release).strip()}")
    typer.echo("signed    " + (f"yes: `replay verify {run.id}`" if run.is_signed() else "no"))
    for stage in record.stages:
        typer.echo(f"stage     {stage.name}: {stage.ending}, exit {stage.exit_code}, {stage.duration_s:.1f} s")
    if record.halted:
        typer.echo("halted    by a boundary")
    typer.echo(checks_text(record), nl=False)
    typer.echo(_outputs_text(record.outputs), nl=False)
    typer.echo(_outputs_text(record.set_apart, "set apart"), nl=False)
    for problem in record.problems:
        typer.echo(f"problem   {safe(problem.path)}: {problem.problem}: {safe(problem.detail)}")
    if record.undeclared:
        typer.echo(f"also wrote (not declared, not kept)  {safe(few(record.undeclared, 5))}")
    return Exit.OK


def logs(part: str, stream: str, store: Path | None, as_json: bool) -> int:
    streams = {"both": (STDOUT, STDERR), "stdout": (STDOUT,), "stderr": (STDERR,)}
    if stream not in streams:
        raise UsageError(f"--stream: {stream!r} is not known", next="both, stdout or stderr")
    run = open_workspace(Path.cwd(), store).find_run(part)
    if not any((run.folder / name).is_file() for name in ("stdout", "stderr")):
        raise UsageError(f"there are no logs of {run.id} here", "logs stay in the store of the machine that ran it")
    pieces = (piece for piece in read_log(run.folder) if piece[0] in (STAGE, *streams[stream]))
    if as_json:
        print_json({"run_id": run.id, "pieces": list(_pieces(pieces))})
        return Exit.OK
    harmless: defaultdict[int, Harmless] = defaultdict(Harmless)
    for kind, data in pieces:
        if kind == STAGE:
            sys.stdout.flush()
            typer.echo(f"· stage {data.decode()}", err=True)
            continue
        target = sys.stdout if kind == STDOUT or stream != "both" else sys.stderr
        target.buffer.write(harmless[kind].feed(data) if target.isatty() else data)
        target.buffer.flush()
    return Exit.OK


def outputs(
    part: str,
    to: Path | None,
    differences: Path | None,
    force: bool,
    set_apart: bool,
    store: Path | None,
    as_json: bool,
) -> int:
    workspace = open_workspace(Path.cwd(), store)
    run = workspace.find_run(part)
    record = run.record()
    if record is None:
        raise UsageError(f"{run.id} has no record, so it has no outputs", f"it is {run.status()}")
    if record.halted and not set_apart:
        names = ", ".join(check.name for check in record.checks if check.halts)
        raise RefusedError(
            f"{run.id} was halted by a boundary, so it has no good outputs",
            f"broken: {names}",
            f"`replay outputs {run.id} --set-apart` gives those that were set apart",
        )
    found = record.set_apart if set_apart else record.outputs
    erased = _erased(workspace, found)
    if to is not None:
        _copy_outputs(workspace, found, erased, to, force)
    pictures = [] if differences is None else _draw_differences(workspace, run, differences, force)
    if as_json:
        listed = [
            {"path": o.path, "sha256": o.sha256, "size": o.size}
            | ({"erased": erased[o.sha256]} if o.sha256 in erased else {})
            for o in found
        ]
        also = {"to": str(to)} if to else {}
        print_json({"run_id": run.id, "outputs": listed, **also, **({"pictures": pictures} if differences else {})})
    else:
        text = _outputs_text(found, "set apart" if set_apart else "output", erased)
        typer.echo(text + _pictures_text(pictures, differences), nl=False)
    return Exit.OK


def _erased(workspace: Workspace, found: tuple[Output, ...]) -> dict[str, str]:
    from runner.erased import erased_of

    digests = (Digest(output.sha256) for output in found)
    return {digest: one.told for digest, one in erased_of(workspace.store, workspace.specs, digests).items()}


def _copy_outputs(
    workspace: Workspace, found: tuple[Output, ...], erased: Mapping[str, str], to: Path, force: bool
) -> None:
    for output in (output for output in found if output.sha256 in erased):
        typer.echo(f"{safe(output.path)} was {safe(erased[output.sha256])}", err=True)
    found = tuple(output for output in found if output.sha256 not in erased)
    for output, place in zip(found, _places(to, [output.path for output in found], force), strict=True):
        source = workspace.store.blobs.verified(Digest(output.sha256))
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            copy_out(source, place, 0o755 if output.executable else 0o644)
        except OSError as error:
            raise disk_error(error, f"write {place}") from error


def _places(to: Path, paths: Sequence[str], force: bool) -> Iterator[Path]:
    """Where in the folder `to` each path is to be written; looked at one by one, as links may be made meanwhile."""
    there = [path for path in paths if (to / path).exists()]
    if there and not force:
        raise UsageError(f"{to / there[0]} is there already", next="give --force to overwrite, or another folder")
    for path in paths:
        place = to / path
        if to.resolve() not in (place.parent.resolve() / "x").parents:
            raise UsageError(f"{place} leads out of {to} through a link", next="copy into another folder")
        yield place


def _draw_differences(workspace: Workspace, run: Run, to: Path, force: bool) -> list[dict[str, str]]:
    """For each image that differs from the original's: `picture`, a file, or `problem`, why there is none."""
    from runner.compare import difference_picture, differing_images

    spec, record = run.spec_and_record()
    before = workspace.find_run(spec.run.replay_of).record() if spec.run.replay_of else None
    if before is None or record is None:
        raise UsageError(
            f"{run.id} has no original to differ from",
            "it is no replay" if spec.run.replay_of is None else f"{spec.run.replay_of} has no record",
            f"`replay {run.id}` makes a replay and names it",
        )
    original, replayed = ({output.path: output for output in one.outputs} for one in (before, record))
    paths = differing_images(original, replayed, spec.contract.outputs)
    drawn = []
    for path, place in zip(paths, _places(to, [f"{path}.difference.png" for path in paths], force), strict=True):
        a, b = (workspace.store.blobs.verified(Digest(side[path].sha256)) for side in (original, replayed))
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            difference_picture(a, b, place)
            drawn.append({"path": path, "picture": str(place)})
        except UsageError as error:
            drawn.append({"path": path, "problem": error.why})
        except OSError as error:
            raise disk_error(error, f"write {place}") from error
    return drawn


def _pictures_text(pictures: Sequence[Mapping[str, str]], to: Path | None) -> str:
    if to is not None and not pictures:
        return "no image differs from the original's\n"
    return "".join(
        f"picture   {safe(one['path'])}  {safe(one.get('picture') or 'none: ' + one['problem'])}\n" for one in pictures
    )


def _pieces(found: Iterable[tuple[int, bytes]]) -> Iterator[dict[str, str]]:
    """Each with the stage that wrote it, in a run that has stages."""
    stage: dict[str, str] = {}
    for kind, data in found:
        if kind == STAGE:
            stage = {"stage": data.decode()}
        else:
            yield _piece(kind, data) | stage


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
    if found.contract:
        text += "declared otherwise, no part of the state:\n" + table([_change(change) for change in found.contract])
    if found.outputs:
        text += "and yet the outputs differ:\n" if found.equal else "outputs that differ:\n"
        text += table(
            [(f"  {safe_line(one.name)}", safe_line(one.detail or f"{one.a} → {one.b}")) for one in found.outputs]
        )
    return text


def _moved_text(found: Explained) -> str:
    rows = [
        (f"  {safe(path)}", safe(one.column), f"by {one.size:.2f}", safe(one.detail), _statistic(one))
        for path, one in found.moved.columns
    ]
    text = "columns whose distribution moved, by what part of it:\n" + table(rows) if rows else ""
    metrics = [(f"  {safe(one.name)}", f"{one.a:g} → {one.b:g}", "worse" * one.worse) for one in found.metrics]
    return text + ("metrics:\n" + table(metrics) if metrics else "")


def _statistic(moved: Moved) -> str:
    p = f"p {moved.p:.1g}" if moved.p >= 1e-12 else "p < 1e-12"
    return f"{moved.statistic} {moved.value:.3g}, {p}, PSI {moved.psi:.2f}, JS {moved.js:.2f}"


def _change(change: Change) -> tuple[str, ...]:
    sides = [safe_line("—" if side is None else side)[:100] for side in (change.a, change.b)]
    detail = f"  {safe_line(change.detail)}" if change.detail else ""
    return (f"  {change.layer}", safe_line(change.name), f"{sides[0]} → {sides[1]}{detail}")


def _ls_row(row: Row) -> tuple[str, ...]:
    result = f"{row.verdict} ({row.replay_of})" if row.verdict else row.outcome
    if row.outcome == "failed" and row.exit_code:
        result += f", exit {row.exit_code}"
    created = row.created.replace("T", " ").removesuffix("Z")
    return (row.run_id, created, row.state_digest[7:19], result, " ".join(row.labels))


def _outputs_text(found: tuple[Output, ...], word: str = "output", erased: Mapping[str, str] | None = None) -> str:
    """`erased` tells of digests that were."""
    told = erased or {}
    rows = [(f"{word:<10}" + safe(o.path), f"{o.size} bytes", o.sha256[:19], told.get(o.sha256, "")) for o in found]
    return table([(*row[:3], safe(row[3])) for row in rows])


def _model(path: str, digest: str, seen: Mapping[str, DataSeen]) -> str:
    reference = seen[path].reference if path in seen else None
    return f"{path}  {digest[:19]}" + (f"  {reference}" if reference else "")


def _spec_text(spec: StateSpec) -> str:
    from runner.diff import source_words

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
        *((("command", " ".join(state.command)),) if state.command else ()),
        *(("stage", f"{stage.name}: {' '.join(stage.command)}") for stage in state.stages),
        ("code", f"{state.code[:19]}  {code_line}"),
        ("image", f"{seen.image.reference} ({state.image.platform}, {len(state.image.diff_ids)} layers)"),
        ("packages", packages + (f", Python {state.dependencies.python}" if state.dependencies.python else "")),
        *(("data", f"{path}  {digest[:19]}") for path, digest in sorted(state.data.items())),
        *(("model", _model(path, digest, seen.model)) for path, digest in sorted(state.model.items())),
        ("params", state.params.file or "in replay.yaml") if state.params else ("params", "none"),
        ("env", " ".join(sorted(state.env)) or "none"),
        *((("secrets", " ".join(state.secrets)),) if state.secrets else ()),
        ("network", state.access.network),
        *(("source", f"{one.uri}  {source_words(one)}") for one in seen.access.sources),
    ]
    return "".join(f"{name:<9} {safe(value)}\n" for name, value in lines)
