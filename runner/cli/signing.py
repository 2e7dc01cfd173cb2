"""The commands about what is signed: `verify`, `bundle`, `sign`, `keys`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from runner.cli.output import print_json, safe, table
from runner.cli.passphrase import asked_passphrase, new_passphrase
from runner.errors import Exit, UsageError
from runner.keys import Listed, find_key, keyring, offer, offered
from runner.state.verification import NOT_HERE, Verification, failed_for
from runner.store.releases import Copies
from runner.store.runs import SPECS, Run, run_id_of
from runner.workspace import RELEASED, WORKFILE, Workspace, open_workspace

if TYPE_CHECKING:
    from runner.tools.signing import PublicKey

BUNDLE = ".replay.tar"
_SIGN = "`replay sign`, where it was recorded, signs a run as it is now"
_NOT_SIGNED = {"unsigned", "no-proof"}
_NEXT = {
    "untrusted-key": "`replay keys trust` the key, if its id is what its owner says it is",
    "copies-differ": "`replay fsck` tells which of the two is right",
}


def verify(part: str, keys: Sequence[str], checkpoints: Sequence[Path], store: Path | None, as_json: bool) -> int:
    from runner.seal import judge_of
    from runner.verify import read_checkpoints, verify_packed, verify_run

    judge, earlier = judge_of(believed(keys)), read_checkpoints(checkpoints)
    lacking = "have it packed again with `replay bundle`, where all of the run is"
    if part.endswith(".tar"):
        found = verify_packed(Path(part), judge, earlier)
    else:
        workspace = open_workspace(Path.cwd(), store)
        release = part.removeprefix(RELEASED) if part.startswith(RELEASED) else None
        found = verify_run(workspace, _run(workspace, part), judge, earlier, release)
        if failed_for(found.checks) & NOT_HERE:
            from runner.remote.select import how_to_get

            lacking = f"{how_to_get(workspace, found.run_id)}, then verify again"
    if as_json:
        print_json(found)
    else:
        typer.echo(_verification_text(found, lacking), nl=False)
    return Exit.OK if found.verified else Exit.TAMPERED


def believed(names: Sequence[str]) -> list[PublicKey]:
    """The keys that were named, and no other; else those that are trusted."""
    trusted = keyring().trusted()
    known = [*trusted, *offered(_specs())]
    return [find_key(name, known) for name in names] if names else trusted


def _run(workspace: Workspace, part: str) -> Run:
    """The run of a run-id, of a release, or of the file in a `state_specs/` folder that has this path."""
    if part.startswith(RELEASED):
        return workspace.run(workspace.releases.run_of(part.removeprefix(RELEASED)))
    path = Path(part)
    run_id = run_id_of(path.name) if path.is_file() else None
    return Run(workspace.store, run_id, path.absolute().parent) if run_id else workspace.find_run(part)


def _verification_text(found: Verification, lacking: str) -> str:
    """`lacking` is what to do where files are not here."""
    rows = [
        (f"{number:>3}", check.result, check.name, "" if check.reason == "ok" else check.reason, safe(check.detail))
        for number, check in enumerate(found.checks, 1)
    ]
    failed = sum(check.result == "fail" for check in found.checks)
    said = "VERIFIED" if found.verified else f"NOT VERIFIED: {failed} check{'s' * (failed != 1)} failed"
    reasons = failed_for(found.checks)
    unsigned = any((check.name, check.reason) == ("envelope", "unsigned") for check in found.checks)
    hints = [_SIGN] if unsigned and reasons <= _NOT_SIGNED else []  # nobody should sign what is wrong besides
    hints += [hint for reason, hint in _NEXT.items() if reason in reasons] + ([lacking] if reasons & NOT_HERE else [])
    return table(rows) + f"{said}  {safe(found.run_id)}\n" + "".join(f"  next: {hint}\n" for hint in hints)


def bundle(part: str, to: Path | None, force: bool, store: Path | None, as_json: bool) -> int:
    from runner.packed import pack

    workspace = open_workspace(Path.cwd(), store)
    run = workspace.find_run(part)
    target = to or Path(run.id + BUNDLE)
    if target.exists() and not force:
        raise UsageError(f"{target} is there already", next="give --force to overwrite it, or another name with --to")
    count = pack(workspace.store, run, target, _releases_of(workspace, run, part))
    if as_json:
        print_json({"run_id": run.id, "written": str(target), "files": count, "bytes": target.stat().st_size})
    else:
        typer.echo(f"wrote {target}, {count} files\nthere:  replay verify {target.name} --key KEY")
    return Exit.OK


def _releases_of(workspace: Workspace, run: Run, part: str) -> dict[str, Copies]:
    """The files of the release that is asked for, else of all that the run may be used as; and of the one that it was
    bound to."""
    if part.startswith(RELEASED):
        names = {part.removeprefix(RELEASED)}
    else:
        names = {known.release.name for known in workspace.releases_of(run.id) if not known.revoked}
    binding = run.spec().run.release
    names |= {binding.name} if binding else set()
    return {name: workspace.releases.copies(name) for name in sorted(names)}


def sign(parts: Sequence[str], store: Path | None, as_json: bool) -> int:
    from runner.seal import open_sealer

    workspace = open_workspace(Path.cwd(), store)
    runs = [workspace.find_run(part) for part in parts]
    sealer = open_sealer(keyring(), asked_passphrase)
    if sealer is None:
        raise UsageError("there is no signing key", next="`replay keys init` makes one")
    signed = []
    for run in (run for run in runs if not run.is_signed()):
        spec, record = run.spec_and_record()
        if record is None:
            raise UsageError(f"{run.id} has no record, so there is nothing to sign", f"it is {run.status()}")
        spec_bytes, record_bytes = run.copies("spec.yaml", "yaml")[0], run.copies("record.json", "record.json")[0]
        sealer.seal(workspace.store, run, spec, spec_bytes, record, record_bytes)
        signed.append(run.id)
    if as_json:
        print_json({"signed": signed, "key": sealer.signer.key.id})
    else:
        typer.echo("".join(f"signed {run_id}\n" for run_id in signed) or "all of them are signed already\n", nl=False)
    return Exit.OK


def keys_make(plain: bool, as_json: bool, *, replace: bool) -> int:
    keys, specs = keyring(), _specs()
    make = keys.rotate if replace else keys.init
    key = make(lambda: new_passphrase(plain=plain), specs.parent if specs else None)
    file = offer(key, specs) if specs else None
    if as_json:
        print_json({"key": key.id, "private": str(keys.signing), **({"public": str(file)} if file else {})})
        return Exit.OK
    typer.echo(f"key      {key.id}\nprivate  {keys.signing}")
    typer.echo(f"public   {file}: commit it; others run `replay keys trust` on it" if file else "", nl=bool(file))
    return Exit.OK


def keys_trust(name: str, remove: bool, as_json: bool) -> int:
    keys = keyring()
    key = find_key(name, [*keys.trusted(), *offered(_specs())])
    if remove:
        keys.distrust(key)
    else:
        keys.trust(key)
    if as_json:
        print_json({"key": key.id, "trusted": not remove})
    else:
        typer.echo(f"{'no longer trusted' if remove else 'trusted'}  {key.id}")
    return Exit.OK


def keys_list(as_json: bool) -> int:
    found = keyring().listed(_specs())
    if as_json:
        print_json({"keys": found})
    elif not found:
        typer.echo("no keys: runs are not signed; `replay keys init` makes one", err=True)
    else:
        typer.echo(table([(key.id, _words(key)) for key in found]), nl=False)
    return Exit.OK


def _words(key: Listed) -> str:
    said = {"signs": key.signs, "trusted": key.trusted, "offered": key.offered, "not trusted": not key.trusted}
    return ", ".join(word for word, holds in said.items() if holds)


def _specs() -> Path | None:
    """The `state_specs/` of the workspace around, whether it is there yet or not."""
    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / WORKFILE).is_file()), None)
    return root / SPECS if root else None
