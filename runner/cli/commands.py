"""The commands: their options and help, each a thin call into the step that does the work. Those on what was recorded
are in `record_commands`.

Imports stand inside the functions: most commands need a small part of the package, and the command is
started hundreds of times a night.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runner.cli import record_commands as recorded
from runner.cli.options import Json, RunArgument, StoreOption

NAMES = frozenset(
    (
        "run replay diff bisect nightly nights report ls show logs outputs release verify audit bundle export "
        "sign erase push pull status pins keys rm gc fsck init doctor"
    ).split()
)

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
        *(recorded.verify, recorded.audit, recorded.bundle, recorded.export, recorded.sign, recorded.erase),
        *(recorded.push, recorded.pull, recorded.status, recorded.pins),
        *(recorded.rm, recorded.gc, recorded.fsck, init, doctor),
    ):
        app.command()(command)
    keys = typer.Typer(help="Make, list and trust the keys that sign runs.", rich_markup_mode=None)
    keys.command("init")(recorded.keys_init)
    keys.command("rotate")(recorded.keys_rotate)
    keys.command("trust")(recorded.keys_trust)
    keys.command("list")(recorded.keys_list)
    release = typer.Typer(help="Name a run's state as a baseline, and hold others to it.", rich_markup_mode=None)
    release.command("create")(recorded.release_create)
    release.command("list")(recorded.release_list)
    release.command("show")(recorded.release_show)
    release.command("diff")(recorded.release_diff)
    release.command("check")(recorded.release_check)
    release.command("supersede")(recorded.release_supersede)
    release.command("revoke")(recorded.release_revoke)
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
