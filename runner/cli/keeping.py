"""The commands that keep house: `rm`, `gc`, `fsck`, `init`, `doctor`."""

from __future__ import annotations

from pathlib import Path

import typer

from runner import collect, doctor, scaffold
from runner.cli.output import Progress, print_json, safe, table
from runner.environment import locks
from runner.errors import Exit, OutsideError, UsageError
from runner.state.health import Finding, Health
from runner.store.files import write_atomic
from runner.store.runs import RunStatus
from runner.tools.containers import connect
from runner.workspace import WORKFILE, open_damaged_workspace, open_workspace

_SHOWN = 20


def rm(parts: list[str], store: Path | None, as_json: bool) -> int:
    workspace = open_workspace(Path.cwd(), store)
    runs = [workspace.find_run(part) for part in parts]
    running = [run.id for run in runs if run.status() is RunStatus.RUNNING]
    if running:
        raise UsageError(f"{running[0]} is still running", next="end it first")
    for run in runs:
        run.forget()
    if as_json:
        print_json({"removed": [run.id for run in runs]})
    else:
        typer.echo("".join(f"forgot {run.id}\n" for run in runs) + "`replay gc` frees what only they needed")
    return Exit.OK


def gc(dry_run: bool, store: Path | None, as_json: bool) -> int:
    workspace = open_workspace(Path.cwd(), store)
    with workspace.store.collecting(), locks.collecting(workspace.store.cache):
        garbage = collect.find_garbage(workspace)
        if not dry_run:
            collect.remove(workspace.store, garbage)
        layers = _layers(workspace.store.id, remove=not dry_run)
    if as_json:
        print_json(
            {
                "blobs": list(garbage.blobs),
                "paths": sorted(str(path.relative_to(workspace.store.folder)) for path in garbage.paths),
                "images": sorted(layers),
                "bytes": garbage.size,
                "removed": not dry_run,
            }
        )
    else:
        verb = "would remove" if dry_run else "removed"
        typer.echo(f"{verb} {len(garbage.blobs)} blobs and {len(garbage.paths)} other things, {garbage.size >> 10} KiB")
        if layers:
            typer.echo(f"{verb} {len(layers)} images with copies of them from the engine")
    return Exit.OK


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
