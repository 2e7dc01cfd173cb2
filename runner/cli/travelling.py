"""The commands about where runs are: `push`, `pull`, `status`, and `pins`."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import typer

from runner.cli.output import Progress, print_json, safe, table
from runner.errors import Exit
from runner.pins import look
from runner.remote import pull as pulling
from runner.remote import push as pushing
from runner.remote.listed import listed_runs
from runner.remote.select import labels_here, remote_of, rows_here, select, select_there
from runner.remote.status import status as status_of
from runner.shown import called, count, needed_by
from runner.state.pins import Pin, Pins
from runner.state.travel import Lacking, Status, Travel
from runner.store.runs import SPECS
from runner.workspace import WORKFILE, Workspace, open_workspace, root_of

_SHOWN = 5


def _open(store: Path | None) -> Workspace:
    """A project that has no store yet gets one, as a clone has runs elsewhere; any other folder is left as it is."""
    root = root_of(Path.cwd())
    is_project = any((root / name).exists() for name in (WORKFILE, SPECS, ".dvc"))
    return open_workspace(Path.cwd(), store, create=is_project)


def push(
    words: Sequence[str], remote: str | None, jobs: int | None, *, quiet: bool, store: Path | None, as_json: bool
) -> int:
    workspace = open_workspace(Path.cwd(), store)
    there = remote_of(workspace, remote)
    chosen = select(workspace, words, workspace.run_ids(), lambda: labels_here(workspace))
    with _progress(quiet) as progress:
        done = pushing.push(workspace, there, [workspace.run(run_id) for run_id in chosen], progress.say, jobs)
    return _print(done, "pushed", "to", as_json)


def pull(
    words: Sequence[str], remote: str | None, jobs: int | None, *, quiet: bool, store: Path | None, as_json: bool
) -> int:
    workspace = _open(store)
    there = remote_of(workspace, remote)
    listed = listed_runs(there)
    with _progress(quiet) as progress:
        labels = functools.cache(lambda: pulling.labels_there(workspace, there, listed))
        chosen = select_there(workspace, there, words, listed, labels)
        done = pulling.pull(workspace, there, {run_id: listed[run_id] for run_id in chosen}, progress.say, jobs)
    return _print(done, "pulled", "from", as_json)


def status(words: Sequence[str], remote: str | None, store: Path | None, as_json: bool) -> int:
    workspace = _open(store)
    there = remote_of(workspace, remote)
    listed = listed_runs(there)
    known = {*workspace.run_ids(), *listed}
    chosen = select(workspace, words, known, lambda: pulling.labels_there(workspace, there, listed))
    found = status_of(workspace, there, chosen, listed)
    if as_json:
        print_json(found)
    else:
        typer.echo(_status_text(found), nl=False)
    return Exit.OK


def pins(
    words: Sequence[str],
    job: str | None,
    label: str | None,
    remote: str | None,
    *,
    offline: bool,
    store: Path | None,
    as_json: bool,
) -> int:
    workspace = _open(store)
    known = workspace.run_ids()
    chosen = known if list(words) == ["all"] else select(workspace, words, known, lambda: labels_here(workspace))
    if job or label:
        fitting = {
            row.run_id for row in rows_here(workspace) if job in (None, row.job) and (not label or label in row.labels)
        }
        chosen = [run_id for run_id in chosen if run_id in fitting]
    with _progress(as_json) as progress:
        found = look(workspace, chosen, progress.say, offline=offline, remote=remote)
    if as_json:
        print_json(found)
    else:
        typer.echo(_pins_text(found), nl=False)
    if found.lost:
        return Exit.UNREBUILDABLE
    nowhere = any(pin.state == "unknown" and not pin.places for pin in found.pins)
    return Exit.OUTSIDE if nowhere and not offline else Exit.OK


def _pins_text(found: Pins) -> str:
    telling = [pin for pin in found.pins if pin.state != "safe" and (pin.state != "unknown" or not pin.places)]
    text = "".join(map(_pin_text, telling))
    text += "".join(f"not asked  {one.place}: {safe(one.why)}\n" for one in found.unasked)
    text += f"{count(len(found.pins), 'pin')} of {count(found.runs, 'run')}: "
    text += f"{found.lost} lost, {found.last_copy} in one place only"
    also = ((found.unknown, "unknown"), (found.erased, "erased on purpose"))
    return text + "".join(f", {number} {what}" for number, what in also if number) + "\n"


def _pin_text(pin: Pin) -> str:
    where = f" ({pin.places[0]})" if pin.places else ""
    return f"{pin.state:<9}  {safe(called(pin.kind, pin.name))} {pin.digest[:19]}{where}: {needed_by(pin.runs)}\n"


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Progress]:
    progress = Progress(quiet)
    try:
        yield progress
    finally:
        progress.close()


def _print(done: Travel, verb: str, way: str, as_json: bool) -> int:
    if as_json:
        print_json(done)
    else:
        for lost in done.lacking:
            typer.echo(_lacking_text(lost), nl=False)
        had = f", {done.had} were there" if done.had else ""
        typer.echo(
            f"{verb} {len(done.moved_runs)} of {count(len(done.runs), 'run')} {way} {safe(done.remote)}: "
            f"{count(done.blobs, 'blob')}, {done.bytes / 1e6:.1f} MB{had}"
        )
        if done.by_dvc:
            typer.echo(f"by DVC: {safe(', '.join(done.by_dvc))}")
        if done.skipped:
            typer.echo(f"left out, as they were never finished: {', '.join(done.skipped)}")
    return Exit.UNREBUILDABLE if done.lacking else Exit.OK


def _lacking_text(lost: Lacking) -> str:
    return f"lacking  {safe(called(lost.kind, lost.name))} of {', '.join(lost.runs)}: {safe(lost.why)}\n"


def _status_text(found: Status) -> str:
    places = {"here": "only here", "remote": "only in the remote", "neither": "its files are neither here nor there"}
    text = table([(one.run_id, places[one.where]) for one in found.runs if one.where != "both"])
    both = sum(one.where == "both" for one in found.runs)
    text += f"{count(both, 'run')} {'is' if both == 1 else 'are'} here and in {safe(found.remote)}\n"
    megabytes = f"{found.push.bytes / 1e6:.1f} MB"
    text += f"to push: {count(found.push.runs, 'run')}, {count(found.push.blobs, 'blob')}, {megabytes}\n"
    text += f"to pull: {count(found.pull.runs, 'run')}, and {count(found.pull.blobs, 'blob')} of runs known here\n"
    nowhere = [one.run_id for one in found.runs if one.where == "neither"]
    text += "next: `replay pull`\n" if found.pull.runs or found.pull.blobs else ""
    return text + (f"next: `replay push {' '.join(nowhere[:_SHOWN])}`, where it was recorded\n" if nowhere else "")
