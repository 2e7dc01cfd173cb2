"""The commands on what was recorded: release, prove, hand over, move, forget, keep. Like those in `commands`,
which puts them on the app, each is a thin call.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runner.cli.options import Json, RunArgument, StoreOption

RunsToMove = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RUN | @NAME | LABEL...]",
        help="Run-ids, parts of them, @NAME of a release, or labels. Default: every run.",
    ),
]
RemoteOption = Annotated[str | None, typer.Option("--remote", help="A remote of DVC. Default: DVC's default one.")]
JobsOption = Annotated[int | None, typer.Option("--jobs", "-j", min=1, max=256, help="So many transfers at once.")]
QuietMove = Annotated[bool, typer.Option("--quiet", "-q", help="No messages.")]
ReleaseArgument = Annotated[str, typer.Argument(metavar="NAME", help="The name of a release.")]
Reason = Annotated[str, typer.Option(help="Why, for those who will read it.")]


def release_create(
    name: ReleaseArgument,
    run: RunArgument,
    reason: Reason,
    accepted_by: Annotated[str | None, typer.Option(help="Who accepts it. Default: who commits here.")] = None,
    policy: Annotated[str, typer.Option(help="refuse or warn: what becomes of a run that deviates.")] = "refuse",
    may_move: Annotated[
        str,
        typer.Option(help="Layers in which a run may deviate, like data,dependencies; contract is one, too."),
    ] = "",
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """Accept a run's state, outputs, tolerances and boundaries under a name.

    It is written to state_specs/releases/NAME/ to be reviewed and committed, signed where there is a key, and never
    changed. `@NAME` stands for the run wherever a run-id can.
    """
    from runner.cli import releasing

    return releasing.create(name, run, reason, accepted_by, policy, may_move, store, as_json)


def release_list(store: StoreOption = None, as_json: Json = False) -> int:
    """List the releases, with who accepted them and why."""
    from runner.cli import releasing

    return releasing.listed(store, as_json)


def release_show(name: ReleaseArgument, store: StoreOption = None, as_json: Json = False) -> int:
    """Show a release: state, outputs, tolerances, boundaries, policy, and what was said of it since."""
    from runner.cli import releasing

    return releasing.show(name, store, as_json)


def release_diff(
    a: ReleaseArgument,
    b: Annotated[str, typer.Argument(metavar="NAME", help="Another release.")],
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """Name what differs between two releases: states, outputs, contracts, policies."""
    from runner.cli import releasing

    return releasing.diff(a, b, store, as_json)


def release_check(
    name: ReleaseArgument,
    run: Annotated[str, typer.Argument(metavar="[RUN]", help="A run, or `.` for what would run here now.")] = ".",
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """Say whether a run is what the release names, or could be run here now, unchanged.

    No container is started. Of the present: what differs, and which image, wheels, data, model or code is not on this
    machine. Of a run: what differs, and whether its outputs are those accepted. Exits 0 for yes; 1 when it differs and
    the policy lets it, when a layer cannot be told without running it, or a secret or source cannot be read; 3 when
    something is not here; 4 when the run's job failed; 5 when the release does not verify or something is damaged; 6
    when the policy forbids it, the release was revoked or its key is not trusted, or a boundary halted the run.
    """
    from runner.cli import releasing

    return releasing.check(name, run, store, as_json)


def release_supersede(
    name: ReleaseArgument,
    by: Annotated[str, typer.Option(help="The release that takes its place.")],
    reason: Reason,
    said_by: Annotated[str | None, typer.Option(help="Who says so. Default: who commits here.")] = None,
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """Say that another release takes the place of this one."""
    from runner.cli import releasing

    return releasing.withdraw("superseded", name, by, reason, said_by, store, as_json)


def release_revoke(
    name: ReleaseArgument,
    reason: Reason,
    said_by: Annotated[str | None, typer.Option(help="Who says so. Default: who commits here.")] = None,
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """Say that a release must no longer be used.

    Nothing is removed: who names a run by it, or replays one that was bound to it, is warned, and no run can be bound
    to it any more.
    """
    from runner.cli import releasing

    return releasing.withdraw("revoked", name, None, reason, said_by, store, as_json)


def audit(
    release: Annotated[str, typer.Argument(metavar="@NAME", help="A release.")],
    output: Annotated[Path | None, typer.Option(help="Write the page to this file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """Write on one page what became of a release.

    In Markdown: the conditions with their digests, tolerances, boundaries, bound runs and replays with whether they
    agreed, what was refused, and how to check each claim. Exits 5 when the release does not verify.
    """
    from runner.cli import releasing

    return releasing.audit(release, output, force, store, as_json)


def verify(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run-id or any unique part of one, @NAME, or a bundle's path.")
    ],
    key: Annotated[
        list[str] | None,
        typer.Option(help="Trust this public key (a PEM file or an id), and no other; may be repeated."),
    ] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(help="An earlier checkpoint that the log must have grown from; may be repeated."),
    ] = None,
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """Prove that a run is what was signed.

    Needs no network, no engine and no private key. Exits 0 when every check passed or was skipped, 5 when one failed.
    """
    from runner.cli import signing

    return signing.verify(run, key or [], checkpoint or [], store, as_json)


def bundle(
    run: RunArgument,
    to: Annotated[Path | None, typer.Option(help="The file to write. Default: RUN.replay.tar.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """Put a signed run into one file that can be verified anywhere.

    Spec, record, signatures, proof, logs, outputs, code and parameters; the same run gives the same bytes. Releases
    that name it go along unless they were revoked; with @NAME, that one does.
    """
    from runner.cli import signing

    return signing.bundle(run, to, force, store, as_json)


def export(
    run: RunArgument,
    crate: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a Process Run Crate (RO-Crate) into this folder.")
    ] = None,
    data: Annotated[bool, typer.Option("--data", help="Data and models too, not only their digests.")] = False,
    oci: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one image that runs the job: load it, run it.")
    ] = None,
    quiet: QuietMove = False,
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """Write a run in a form that others read.

    A crate holds spec, record, signatures, logs, code, parameters and outputs, and tells in JSON-LD what each is.
    An image holds all that the job needs but its secrets, which `docker run -e NAME` gives; the same state gives the
    same bytes, on any engine. Of stages, it runs one after the other in one container.
    """
    from runner.cli import exporting

    if oci:
        return exporting.export_image(run, crate, oci, quiet=quiet, store=store, as_json=as_json)
    return exporting.export(run, crate, data, store, as_json)


def sign(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs to sign.")],
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """Sign runs that were recorded without a key.

    What is signed is what is found now. A run that has a signature is left as it is.
    """
    from runner.cli import signing

    return signing.sign(runs, store, as_json)


def keys_init(
    plain: Annotated[bool, typer.Option("--plain", help="Do not encrypt the private key.")] = False,
    as_json: Json = False,
) -> int:
    """Make the key that signs every run from now on."""
    from runner.cli import signing

    return signing.keys_make(plain, as_json, replace=False)


def keys_rotate(
    plain: Annotated[bool, typer.Option("--plain", help="Do not encrypt the private key.")] = False,
    as_json: Json = False,
) -> int:
    """Replace the key that signs; what the old one signed stays trusted."""
    from runner.cli import signing

    return signing.keys_make(plain, as_json, replace=True)


def keys_trust(
    key: Annotated[str, typer.Argument(metavar="KEY", help="A public key in PEM, or the id of one that is offered.")],
    remove: Annotated[bool, typer.Option("--remove", help="Trust it no longer.")] = False,
    as_json: Json = False,
) -> int:
    """Believe what this key signed."""
    from runner.cli import signing

    return signing.keys_trust(key, remove, as_json)


def keys_list(as_json: Json = False) -> int:
    """List the keys that sign, are trusted, or are offered here."""
    from runner.cli import signing

    return signing.keys_list(as_json)


def push(
    runs: RunsToMove = None,
    remote: RemoteOption = None,
    jobs: JobsOption = None,
    quiet: QuietMove = False,
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """Send runs and all that they need to the remote that DVC has.

    Only what is missing there is sent, below `replay/`; data that `dvc push` brought there is not sent again. Cut off,
    it goes on where it was. Exits 3 when a run lacks something; such a run is left out.
    """
    from runner.cli import travelling

    return travelling.push(runs or [], remote, jobs, quiet=quiet, store=store, as_json=as_json)


def pull(
    runs: RunsToMove = None,
    remote: RemoteOption = None,
    jobs: JobsOption = None,
    quiet: QuietMove = False,
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """Bring runs and all that they need from the remote of DVC.

    Every byte is verified as it arrives. Exits 3 when something that a run needs is nowhere, 5 when the remote holds
    other bytes than were pushed; they are not kept.
    """
    from runner.cli import travelling

    return travelling.pull(runs or [], remote, jobs, quiet=quiet, store=store, as_json=as_json)


def status(
    runs: RunsToMove = None, remote: RemoteOption = None, store: StoreOption = None, as_json: Json = False
) -> int:
    """Say which runs are here, in the remote, and what is to move."""
    from runner.cli import travelling

    return travelling.status(runs or [], remote, store, as_json)


def pins(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN | @NAME | LABEL... | all]", help="Default: every run."),
    ] = None,
    job: Annotated[str | None, typer.Option(help="Only runs of this job.")] = None,
    label: Annotated[str | None, typer.Option(help="Only runs with this label.")] = None,
    remote: RemoteOption = None,
    offline: Annotated[bool, typer.Option("--offline", help="Ask nothing but this machine.")] = False,
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """Say whether all that runs need can still be had, and from where.

    Code, parameters, images, wheels, data and models are looked for in the store, the engine, git, DVC's cache, the
    remote, registries and package indexes; nothing is downloaded. Exits 0 when everything is somewhere, 3 when
    something is lost, 7 when something was found nowhere but not every place could be asked; with --offline that is 0.
    """
    from runner.cli import travelling

    return travelling.pins(runs or [], job, label, remote, offline=offline, store=store, as_json=as_json)


def rm(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs to forget.")],
    force: Annotated[bool, typer.Option("--force", help="Forget runs of releases, too.")] = False,
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """Forget runs: their specs, records and logs.

    The copies in state_specs/ go too. What only these runs needed goes with the next `replay gc`. The run of a release
    is kept unless forced.
    """
    from runner.cli import keeping

    return keeping.rm(runs, force, store, as_json)


def erase(
    what: Annotated[
        list[str], typer.Argument(metavar="RUN PATH | DIGEST", help="An output or data path of a run, or sha256:….")
    ],
    reason: Annotated[str, typer.Option(help="Why; the tombstone says it.")] = "",
    logs: Annotated[bool, typer.Option("--logs", help="What the job printed, too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be erased.")] = False,
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """Erase an output or data file for good.

    A signed tombstone stays: digest, size, path, when, who, why. The record still verifies, and says so; data that is
    erased is never fetched again, an output never kept again.
    """
    from runner.cli import erasing

    return erasing.erase(what, reason, logs=logs, dry_run=dry_run, store=store, as_json=as_json)


def gc(
    keep: Annotated[
        list[str] | None,
        typer.Option(help="Forget runs but those that a rule keeps: 90d, last:5, label:X or job:X; may be repeated."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """Remove from the store what no run needs.

    Every run that the store or state_specs/ knows is kept whole, until `replay rm` forgets it, or a policy of --keep
    lets it go. Runs of releases, and of which a kept run is a replay, are always kept.
    """
    from runner.cli import keeping

    return keeping.gc(keep or [], dry_run, store, as_json)


def fsck(
    repair: Annotated[bool, typer.Option("--repair", help="Get again what can be had again.")] = False,
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """Check every file of the store; say what rests on a damaged one.

    Exits 0 when the store is whole, or was made whole, 5 when something damaged or missing remains, 7 when something
    cannot be read.
    """
    from runner.cli import keeping

    return keeping.fsck(repair, store, as_json)
