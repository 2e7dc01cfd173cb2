"""The commands that keep house: `rm`, `gc`, `fsck`, `init`, `doctor`."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

import typer

from runner import collect, doctor, scaffold
from runner.cli.output import Progress, print_json, safe, table
from runner.environment import locks
from runner.errors import Exit, OutsideError, RefusedError, UsageError
from runner.retention import let_go, refuse_unknown, rules
from runner.shown import count, few
from runner.state.health import Finding, Health
from runner.store.files import write_atomic
from runner.store.index import rows
from runner.store.runs import Run, RunStatus
from runner.tools.containers import connect
from runner.workspace import RELEASED, WORKFILE, Workspace, open_damaged_workspace, open_workspace

_SHOWN = 20


def rm(parts: list[str], force: bool, store: Path | None, as_json: bool) -> int:
    workspace = open_workspace(Path.cwd(), store)
    runs = [workspace.find_run(part, strictly=True) for part in parts]
    with workspace.store.adding():  # `gc` must not see a run half forgotten
        for run in runs:
            if run.status() is RunStatus.RUNNING:
                raise UsageError(f"{run.id} is still running", next="end it first")
            if run.is_being_replayed():
                raise UsageError(f"{run.id} is being replayed", next="try again when that is done")
            if not force:
                _refuse_released(workspace, run)
        for run in runs:
            run.forget()
    if as_json:
        print_json({"removed": [run.id for run in runs]})
    else:
        typer.echo("".join(f"forgot {run.id}\n" for run in runs) + "`replay gc` frees what only they needed")
    return Exit.OK


def _refuse_released(workspace: Workspace, run: Run) -> None:
    names = [RELEASED + known.release.name for known in workspace.releases_of(run.id)]
    if names:
        raise RefusedError(
            f"{run.id} is the run of {', '.join(names)}",
            "without it the release cannot be replayed, verified or held against others",
            "give --force to forget it all the same",
        )


def gc(keep: Sequence[str], dry_run: bool, store: Path | None, as_json: bool) -> int:
    workspace = open_workspace(Path.cwd(), store)
    with workspace.store.collecting(), locks.collecting(workspace.store.cache):
        gone = _let_go(workspace, keep) if keep else []
        garbage = collect.find_garbage(workspace, set(gone))
        if not dry_run:
            for run_id in gone:
                workspace.run(run_id).forget()
            collect.remove(workspace.store, garbage)
        layers = _layers(workspace.store.id, remove=not dry_run)
    if as_json:
        print_json(
            {
                **({"runs": gone} if keep else {}),
                "blobs": list(garbage.blobs),
                "paths": sorted(str(path.relative_to(workspace.store.folder)) for path in garbage.paths),
                "images": sorted(layers),
                "bytes": garbage.size,
                "removed": not dry_run,
            }
        )
    else:
        verb = "would remove" if dry_run else "removed"
        if keep:
            shown = f": {few(gone, _SHOWN)}" if gone else ""
            typer.echo(f"{'would forget' if dry_run else 'forgot'} {count(len(gone), 'run')}{shown}")
        typer.echo(f"{verb} {len(garbage.blobs)} blobs and {len(garbage.paths)} other things, {garbage.size >> 10} KiB")
        if layers:
            typer.echo(f"{verb} {len(layers)} images with copies of them from the engine")
    return Exit.OK


def _let_go(workspace: Workspace, keep: Sequence[str]) -> list[str]:
    """The runs that no rule keeps and nobody is at."""
    kept_by = rules(keep, datetime.datetime.now(datetime.UTC))
    listed = rows(workspace.store.folder / "index.sqlite", workspace.run_ids(), workspace.run)
    refuse_unknown(listed, kept_by)
    released = {known.release.run for known in workspace.releases.all()}
    return [run_id for run_id in let_go(listed, kept_by, released) if not workspace.run(run_id).is_being_replayed()]


def drop_layers(store_id: str) -> list[str]:
    return sorted(_layers(store_id, remove=True))


def _layers(store_id: str, *, remove: bool) -> dict[str, int]:
    """Images that hold copies of the store's files for an engine that does not see them; a run makes them anew."""
    try:
        engine = connect()
        layers = engine.layers_of(store_id)
    except OutsideError:
        return {}
    if remove:
        for image_id in layers:
            engine.remove_image(image_id)
    return layers


def fsck(repair: bool, store: Path | None, as_json: bool) -> int:
    from runner.fsck.check import check

    progress = Progress()
    try:
        health = check(open_damaged_workspace(Path.cwd(), store), progress.say, repair=repair)
    finally:
        progress.close()
    if as_json:
        print_json(health)
    else:
        typer.echo(_health_text(health, repair), nl=False)
    if any(finding.problem == "unreadable" and finding.counts for finding in health.findings):
        return Exit.OUTSIDE
    return Exit.OK if health.whole else Exit.TAMPERED


def _health_text(health: Health, repair: bool) -> str:
    text = "".join(map(_finding_text, health.findings))
    text += "".join(f"not checked  {safe(one)}\n" for one in health.unchecked)
    open_ones = sum(finding.counts for finding in health.findings)
    said = "whole" if health.whole else f"{open_ones} file{'s' * (open_ones != 1)} damaged or missing"
    text += f"{said}: looked at {health.files} files, {health.bytes / 1e6:.1f} MB, in {safe(health.store)}\n"
    if health.unneeded:
        text += f"{health.unneeded} blobs are needed by no run: `replay gc` removes them\n"
    return text + ("" if health.whole or repair else "`replay fsck --repair` gets again what can be had again\n")


def _finding_text(finding: Finding) -> str:
    lines = [f"{finding.problem:<10} {safe(finding.path)}" + (f": {safe(finding.detail)}" if finding.detail else "")]
    needs = [f"{need.through}, of {need.run_id or need.lock}" for need in finding.needed_by]
    lines += [f"  needed as  {safe(need)}" for need in needs[:_SHOWN]]
    lines += [f"  and by {len(needs) - _SHOWN} more"] if len(needs) > _SHOWN else []
    if finding.repair:
        lines.append(f"  {finding.mended:<9}  {safe(finding.repair)}")
    if finding.hint and finding.mended != "repaired":
        lines.append(f"  helps      {safe(finding.hint)}")
    return "\n".join(lines) + "\n"


def init(force: bool, as_json: bool) -> int:
    root = Path.cwd()
    file = root / WORKFILE
    if file.exists() and not force:
        raise UsageError(f"{file} is there already", next="edit it, or give --force to overwrite it")
    found = scaffold.find(root)
    write_atomic(file, scaffold.workfile(found).encode())
    if as_json:
        print_json({"written": str(file), "found": found})
    else:
        typer.echo(f"wrote {file}; read it, then `replay doctor` and `replay run`")
    return Exit.OK


def print_findings(findings: list[doctor.Finding]) -> None:
    typer.echo(table([(finding.level, finding.name, finding.detail) for finding in findings]), nl=False)
    for finding in findings:
        if finding.mend and finding.level != "ok":
            typer.echo(f"{finding.name}: {finding.mend}")


def examine(store: Path | None, as_json: bool) -> int:
    findings = doctor.examine(Path.cwd(), store)
    if as_json:
        print_json({"findings": findings})
    else:
        print_findings(findings)
    return Exit.OUTSIDE if any(finding.level == "missing" for finding in findings) else Exit.OK
