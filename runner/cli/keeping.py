"""The commands that keep house: `rm`, `gc`, `init`, `doctor`."""

from __future__ import annotations

from pathlib import Path

import typer

from runner import collect, doctor, scaffold
from runner.cli.output import print_json, table
from runner.environment import locks
from runner.errors import Exit, OutsideError, UsageError
from runner.store.files import write_atomic
from runner.store.runs import RunStatus
from runner.tools.containers import connect
from runner.workspace import WORKFILE, open_workspace


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
