"""The command `erase`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from runner.cli.keeping import drop_layers
from runner.cli.output import print_json, safe
from runner.cli.passphrase import asked_passphrase
from runner.environment import locks
from runner.errors import Exit, UsageError
from runner.keys import keyring
from runner.state.digest import is_digest
from runner.store.runs import Run
from runner.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from runner.seal import Sealer

_LEFT = "copies elsewhere are not touched: the live file, git, DVC's remote, other clones, backups"


def erase(words: Sequence[str], reason: str, *, logs: bool, dry_run: bool, store: Path | None, as_json: bool) -> int:
    from runner.erase import Found, erase, find

    workspace = open_workspace(Path.cwd(), store)
    run, name = _named(workspace, words)
    sealer = None if dry_run else _sealer(reason)
    with workspace.store.collecting(), locks.collecting(workspace.store.cache):
        found: Found = find(workspace, run, name, logs=logs)
        removed = erase(workspace, found, reason, sealer) if sealer else []
    if removed:
        removed += [f"image {image}" for image in drop_layers(workspace.store.id)]
    if as_json:
        said = {"erased": found.targets, "runs": found.runs, "removed": removed, "dry_run": dry_run}
        print_json(said)
        return Exit.OK
    verb = "would erase" if dry_run else "erased"
    typer.echo("".join(f"{verb} {safe(one.path)}  {one.sha256[:19]}\n" for one in found.targets), nl=False)
    typer.echo("".join(f"  removed {safe(one)}\n" for one in removed), nl=False)
    typer.echo(f"of {', '.join(found.runs)}\n{_LEFT}")
    return Exit.OK


def _sealer(reason: str) -> Sealer:
    """Who signs the tombstone."""
    from runner.seal import open_sealer

    if not reason.strip():
        raise UsageError("why is it erased?", next='give --reason "…": the tombstone says it')
    sealer = open_sealer(keyring(), asked_passphrase)
    if sealer is None:
        why = "what is missing and was erased is told apart from what was lost by a signature"
        raise UsageError("there is no signing key", why, "`replay keys init` makes one")
    return sealer


def _named(workspace: Workspace, words: Sequence[str]) -> tuple[Run | None, str]:
    """The run, if one was named, and the path or digest."""
    if len(words) == 1 and is_digest(words[0]):
        return None, words[0]
    if len(words) != 2:
        raise UsageError("erase what?", next="`replay erase RUN PATH --reason …`, or sha256:… instead of RUN PATH")
    return workspace.find_run(words[0], strictly=True), words[1]
