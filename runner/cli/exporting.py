"""The command `export`: a run in the forms of others."""

from __future__ import annotations

import shlex
from pathlib import Path

import typer

from runner.cli.output import print_json
from runner.errors import Exit, UsageError
from runner.workspace import open_workspace


def export(part: str, crate: Path | None, with_data: bool, store: Path | None, as_json: bool) -> int:
    if crate is None:
        raise UsageError(
            "export as what?", next="`replay export RUN --crate DIR` writes a Process Run Crate, --oci FILE an image"
        )
    from runner.exported import write_crate

    workspace = open_workspace(Path.cwd(), store)
    run = workspace.find_run(part)
    count = write_crate(workspace.store, run, crate, with_data=with_data)
    if as_json:
        print_json({"run_id": run.id, "crate": str(crate), "files": count})
    else:
        typer.echo(f"wrote {crate}, {count} files")
    return Exit.OK


def export_image(part: str, crate: Path | None, file: Path, *, quiet: bool, store: Path | None, as_json: bool) -> int:
    from runner import oci
    from runner.cli.running import session

    if crate:
        raise UsageError("--crate and --oci are two exports", next="give one of them at a time")
    workspace = open_workspace(Path.cwd(), store)
    run = workspace.find_run(part)
    with run.being_replayed(), session(workspace, quiet=quiet, signing=False) as here:
        made = oci.export(here, run.spec(), file)
    if as_json:
        print_json({"run_id": run.id, "image": made.image, "digest": made.digest, "file": str(file), "size": made.size})
    else:
        typer.echo(f"wrote {file}, {made.size / 1e6:.1f} MB: {made.image}  {made.digest[:19]}")
        typer.echo(f"  docker load -i {shlex.quote(str(file))}\n  {made.command}")
    return Exit.OK
