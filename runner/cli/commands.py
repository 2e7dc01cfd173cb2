"""The commands: their options and help, each a thin call into the step that does the work.

Imports stand inside the functions: most commands need a small part of the package, and the command is
started hundreds of times a night.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NAMES = frozenset("run replay diff bisect ls show logs outputs verify bundle sign keys rm gc fsck init doctor".split())

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
StoreOption = Annotated[
    Path | None,
    typer.Option("--store", help="The store to use. Default: REPLAY_STORE, or the nearest .replay upwards."),
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run-id or any unique part of one, or a spec's path.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No messages and no output of the job.")]


def register(app: typer.Typer) -> None:
    """Put every command on the app, in the order in which the help lists them."""
    app.callback(invoke_without_command=True)(_top)
    for command in (
        *(run, replay, diff, bisect, ls, show, logs, outputs, verify, bundle, sign),
        *(rm, gc, fsck, init, doctor),
    ):
        app.command()(command)
    keys = typer.Typer(help="Make, list and trust the keys that sign runs.", rich_markup_mode=None)
    keys.command("init")(keys_init)
    keys.command("rotate")(keys_rotate)
    keys.command("trust")(keys_trust)
    keys.command("list")(keys_list)
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
    quiet: Quiet = False,
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """Record a run of a job: its state spec, then its outputs.

    Without JOB, the only job of replay.yaml. A command after `--` needs --image and no replay.yaml.
    Exits 0 when the job succeeded and wrote every declared output, 4 when it did not,
    6 when a boundary halted it.
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
    return running.run(
        job, command or [], adhoc, relock=relock, at=at, as_of=as_of, quiet=quiet, store=store, as_json=as_json
    )


def replay(
    run: RunArgument,
    times: Annotated[
        int | None, typer.Option(min=1, help="Replay so often. Default: once, and once more if it differs.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done for each layer, and do nothing.")
    ] = False,
    quiet: Quiet = False,
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """Rebuild the state of a run, run it again, give a verdict.

    Exits 0 for identical or equivalent, 1 for diverged or nondeterministic, 3 for unrebuildable, 4 for failed,
    5 for tampered, 6 for refused.
    """
    from runner.cli import running

    return running.replay(run, times=times, dry_run=dry_run, quiet=quiet, store=store, as_json=as_json)


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
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, max=64, help="So many trials at once.")] = 1,
    budget: Annotated[str | None, typer.Option(help="Stop after so many trials, or a time like 30m.")] = None,
    releases: Annotated[
        bool, typer.Option("--releases", help="Ask the index for a package's releases, and name the first bad one.")
    ] = False,
    quiet: Quiet = False,
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """Find the smallest change that turns good into bad, and prove it.

    `log`, `show` and `resume` take the last bisect, or the one whose id they are given; `replay` takes a trial. Exits 0
    when the cause is proven, 1 when it is not.
    """
    from runner.cli import bisecting

    asked = bisecting.Asked(judge, metric, good, output, jobs, budget, releases)
    return bisecting.bisect(words, asked, quiet=quiet, store=store, as_json=as_json)


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


def verify(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run-id or any unique part of one, or a bundle's path.")],
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

    Spec, record, signatures, proof, logs, outputs, code and parameters; the same run gives the same bytes.
    """
    from runner.cli import signing

    return signing.bundle(run, to, force, store, as_json)


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


def rm(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs to forget.")],
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """Forget runs: their specs, records and logs.

    The copies in state_specs/ go too. What only these runs needed goes with the next `replay gc`.
    """
    from runner.cli import keeping

    return keeping.rm(runs, store, as_json)


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """Remove from the store what no run needs.

    Every run that the store or state_specs/ knows is kept whole, until `replay rm` forgets it.
    """
    from runner.cli import keeping

    return keeping.gc(dry_run, store, as_json)


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
