"""The commands: their options and help, each a thin call into the step that does the work.

Imports stand inside the functions: most commands need a small part of the package, and the command is
started hundreds of times a night.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NAMES = frozenset(
    (
        "run replay diff bisect nightly nights report ls show logs outputs release verify audit bundle export "
        "sign erase push pull status pins keys rm gc fsck init doctor"
    ).split()
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
StoreOption = Annotated[
    Path | None,
    typer.Option("--store", help="The store to use. Default: REPLAY_STORE, or the nearest .replay upwards."),
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run-id or any unique part of one, @NAME of a release, or a spec's path.")
]
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
Trust = Annotated[
    bool, typer.Option("--trust", help="Run it though it was not recorded here, and no key that you trust signed it.")
]
AllowSecret = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FROM",
        help="Of a stranger's spec: let it have this secret, like env:NAME or file:PATH; may be repeated.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No messages and no output of the job.")]


def register(app: typer.Typer) -> None:
    """Put every command on the app, in the order in which the help lists them."""
    app.callback(invoke_without_command=True)(_top)
    for command in (
        *(run, replay, diff, bisect, nightly, nights, report),
        *(ls, show, logs, outputs),
        *(verify, audit, bundle, export, sign, erase, push, pull, status, pins),
        *(rm, gc, fsck, init, doctor),
    ):
        app.command()(command)
    keys = typer.Typer(help="Make, list and trust the keys that sign runs.", rich_markup_mode=None)
    keys.command("init")(keys_init)
    keys.command("rotate")(keys_rotate)
    keys.command("trust")(keys_trust)
    keys.command("list")(keys_list)
    release = typer.Typer(help="Name a run's state as a baseline, and hold others to it.", rich_markup_mode=None)
    release.command("create")(release_create)
    release.command("list")(release_list)
    release.command("show")(release_show)
    release.command("diff")(release_diff)
    release.command("check")(release_check)
    release.command("supersede")(release_supersede)
    release.command("revoke")(release_revoke)
    app.add_typer(release, name="release")
    app.add_typer(keys, name="keys")


def _top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Record what a job ran, run exactly that again, and say whether the result is the same.

    `replay RUN` with RUN no command is `replay replay RUN`. Add --debug to any command for a traceback.
    """
    if version:
        from runner import __version__

        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="A job of replay.yaml.")] = None,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- COMMAND...]", help="A command to run without a replay.yaml."),
    ] = None,
    image: Annotated[str | None, typer.Option(help="With a command: its image.")] = None,
    dependencies: Annotated[str | None, typer.Option(help="With a command: a requirements file.")] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="With a command: a data path under DVC; may be repeated.")
    ] = None,
    output: Annotated[
        list[str] | None, typer.Option(help="With a command: a path it writes, or stdout; may be repeated.")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option(help="With a command: NAME=VALUE, or NAME to take yours; may be repeated.")
    ] = None,
    params: Annotated[str | None, typer.Option(help="With a command: a parameter file.")] = None,
    network: Annotated[str, typer.Option(help="With a command: none or open.")] = "none",
    name: Annotated[str, typer.Option(help="With a command: the name its runs get.")] = "adhoc",
    relock: Annotated[bool, typer.Option("--relock", help="Resolve the dependencies anew.")] = False,
    at: Annotated[str | None, typer.Option(help="Run the job as this commit has it.")] = None,
    as_of: Annotated[str | None, typer.Option(help="Resolve packages as the index stood on this day.")] = None,
    release: Annotated[str | None, typer.Option(help="Hold the run to this release before it starts.")] = None,
    policy: Annotated[
        str | None, typer.Option(help="With --release: refuse or warn where it deviates, whatever the release says.")
    ] = None,
    quiet: Quiet = False,
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """Record a run of a job: its state spec, then its outputs.

    Without JOB, the only job of replay.yaml. A command after `--` needs --image and no replay.yaml.
    Exits 0 when the job succeeded and wrote every declared output, 4 when it did not,
    6 when a boundary halted it or its release refused it, which is recorded, too.
    """
    from runner.cli import running

    adhoc = running.AdHoc(
        image=image,
        dependencies=dependencies,
        data=tuple(data or ()),
        outputs=tuple(output or ()),
        env=tuple(env or ()),
        params=params,
        network=network,
        name=name,
    )
    held = running.Held(release, policy)
    return running.run(
        job, command or [], adhoc, held, relock=relock, at=at, as_of=as_of, quiet=quiet, store=store, as_json=as_json
    )


def replay(
    run: RunArgument,
    times: Annotated[
        int | None, typer.Option(min=1, help="Replay so often. Default: once, and once more if it differs.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done for each layer, and do nothing.")
    ] = False,
    apart: Annotated[
        bool, typer.Option("--apart", help="Keep the replay in the store alone: no copy in state_specs/.")
    ] = False,
    trust: Trust = False,
    allow_secret: AllowSecret = None,
    quiet: Quiet = False,
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """Rebuild the state of a run, run it again, give a verdict.

    Exits 0 for identical or equivalent, 1 for diverged or nondeterministic, 3 for unrebuildable, 4 for failed,
    5 for tampered, 6 for refused.
    """
    from runner.cli import running
    from runner.cli.consent import consent_of

    consent = consent_of(trust, allow_secret or [])
    return running.replay(
        run, times=times, dry_run=dry_run, apart=apart, quiet=quiet, store=store, as_json=as_json, consent=consent
    )


def diff(
    a: RunArgument,
    b: Annotated[str, typer.Argument(metavar="RUN", help="Another run, or `.` for what would run now.")],
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """Name what differs between two states, and the kind of drift.

    Layer by layer; packages by version, Python files by function. `.` is the present: what would be different if the
    run's job ran now; no container is started for that. Exits 0 when the states are equal, 1 when they are not.
    """
    from runner.cli import looking

    return looking.diff(a, b, store, as_json)


def bisect(
    words: Annotated[
        list[str],
        typer.Argument(metavar="GOOD BAD | log | show | resume | replay TRIAL", help="Two runs, or one of these."),
    ],
    judge: Annotated[
        str | None, typer.Option(help="A command that looks at a run's outputs: exit 0 good, 1-124 bad, 125 unknown.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="Judge by FILE:KEY of a JSON output, with --good.")] = None,
    good: Annotated[str | None, typer.Option(help="With --metric: when it is good, like '>= 0.9'.")] = None,
    output: Annotated[str | None, typer.Option(help="Judge by this output alone.")] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", min=1, max=64, help="So many trials at once.")] = None,
    on: Annotated[str | None, typer.Option(help="Where: local, or dask://HOST:PORT.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Stop after so many trials, beside the reruns of the two, or a time like 30m.")
    ] = None,
    releases: Annotated[
        bool, typer.Option("--releases", help="Ask the index for a package's releases, and name the first bad one.")
    ] = False,
    trust: Trust = False,
    allow_secret: AllowSecret = None,
    quiet: Quiet = False,
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """Find the smallest change that turns good into bad, and prove it.

    `log`, `show` and `resume` take the last bisect, or the one whose id they are given; `replay` takes a trial. Exits 0
    when the cause is proven, 1 when it is not. With --on, workers of a cluster run the trials, which travel through
    DVC's remote, and stay there.
    """
    from runner.cli import bisecting
    from runner.cli.consent import consent_of

    consent = consent_of(trust, allow_secret or [])
    asked = bisecting.Asked(judge, metric, good, output, jobs, on, budget, releases)
    return bisecting.bisect(words, asked, consent, quiet=quiet, store=store, as_json=as_json)


def nightly(
    suite: Annotated[
        str | None, typer.Argument(metavar="[SUITE]", help="A suite of replay.yaml. Default: nightly, or every run.")
    ] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", min=1, max=1024, help="So many replays at once.")] = None,
    on: Annotated[str | None, typer.Option(help="Where: local, or dask://HOST:PORT.")] = None,
    budget: Annotated[str | None, typer.Option(help="Start nothing after a time like 30m or 6h.")] = None,
    bisect: Annotated[
        bool | None, typer.Option("--bisect/--no-bisect", help="Find the cause of each new regression.")
    ] = None,
    against: Annotated[str | None, typer.Option(help="`.`: replay with the code as it is here now.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Replay with dependencies=latest, image=REFERENCE or env.NAME=VALUE; may be repeated."
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="DIR", help="Write the page into this folder.")] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML.")] = None,
    trust: Trust = False,
    allow_secret: AllowSecret = None,
    quiet: Quiet = False,
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """Replay a suite of runs; say what moved since the night before.

    Exits with the code of the worst verdict among the runs that got worse since the last night; without any, 7 when
    a run ended as not-run, else 0. Trouble of engine, network or disk is tried again, and never a regression.
    """
    from runner.cli import nightly as nightly_
    from runner.cli import reporting
    from runner.trust import Consent

    consent = Consent(trust, frozenset(allow_secret or ()))
    asked = nightly_.Asked(suite, jobs, on, budget, bisect, against, tuple(setting or ()), consent)
    wanted = reporting.Asked(html, junit=junit)
    return nightly_.nightly(asked, wanted, quiet=quiet, store=store, as_json=as_json)


def nights(
    night: Annotated[
        str | None, typer.Argument(metavar="[NIGHT]", help="A night, by its id or how that begins.")
    ] = None,
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """List the nights, or show one of them again."""
    from runner.cli import nightly as nightly_

    return nightly_.nights(night, store, as_json)


def report(
    nights: Annotated[
        list[str] | None, typer.Argument(metavar="[NIGHT...]", help="Nights, each by its id or how that begins.")
    ] = None,
    suite: Annotated[str | None, typer.Option(help="The last 90 nights of this suite.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="DIR", help="Write the page into this folder.")] = None,
    one_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the page as one file, to be sent by mail.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML.")] = None,
    github: Annotated[
        bool, typer.Option("--github", help="Print annotations for GitHub, and add to its step summary.")
    ] = False,
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """Show what nights came to: as a page, for CI, or in a few lines.

    Without NIGHT and --suite, the last 90 nights of the suite that was replayed last. The last night is told in full,
    the others as its history. Exits 0 whatever the nights came to.
    """
    from runner.cli import reporting

    return reporting.report(nights or [], suite, reporting.Asked(html, one_file, junit, github), store, as_json)


def ls(
    job: Annotated[str | None, typer.Option(help="Only runs of this job.")] = None,
    label: Annotated[str | None, typer.Option(help="Only runs with this label.")] = None,
    status: Annotated[
        str | None, typer.Option(help="Only ok, failed, running, interrupted, or with that verdict.")
    ] = None,
    state: Annotated[str | None, typer.Option(help="Only runs whose state digest begins like this.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="How many of the newest; 0 for all.")] = 50,
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """List runs, newest first."""
    from runner.cli import looking

    return looking.ls(looking.Filter(job, label, status, state, limit), store, as_json)


def show(run: RunArgument, store: StoreOption = None, as_json: Json = False) -> int:
    """Show a run: its state, how it ended, its outputs."""
    from runner.cli import looking

    return looking.show(run, store, as_json)


def logs(
    run: RunArgument,
    stream: Annotated[str, typer.Option(help="both, stdout or stderr.")] = "both",
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """Print what the job printed.

    Its stdout goes to stdout and its stderr to stderr, in the order in which they came.
    """
    from runner.cli import looking

    return looking.logs(run, stream, store, as_json)


def outputs(
    run: RunArgument,
    to: Annotated[Path | None, typer.Option(help="Copy the outputs into this folder.")] = None,
    differences: Annotated[
        Path | None,
        typer.Option(help="Of a replay: write there pictures of where images differ from the original's."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
    set_apart: Annotated[bool, typer.Option("--set-apart", help="Those of a run that a boundary halted.")] = False,
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """List the outputs of a run, or copy them out of the store.

    A picture shows the original in grey, the redder the more a pixel differs, blue what is in one of the two only.
    """
    from runner.cli import looking

    return looking.outputs(run, to, differences, force, set_apart, store, as_json)


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


def init(
    force: Annotated[bool, typer.Option("--force", help="Overwrite a replay.yaml that is there.")] = False,
    as_json: Json = False,
) -> int:
    """Write a commented replay.yaml from what is found here.

    Looked for: requirements, pyproject.toml, Dockerfile, images/, dvc.yaml, .dvc files, params, scripts.
    """
    from runner.cli import keeping

    return keeping.init(force, as_json)


def doctor(store: StoreOption = None, as_json: Json = False) -> int:
    """Say what is missing here, and the one command that mends it.

    Exits 0 when nothing is missing that every job needs, else 7.
    """
    from runner.cli import keeping

    return keeping.examine(store, as_json)
