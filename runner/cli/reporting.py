"""`report`: nights that were kept, as a page, for CI, or in a few lines."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import msgspec
import typer

from runner.cli.output import print_json, safe, table
from runner.errors import Exit, OutsideError, UsageError, disk_error
from runner.report.artifacts import FOLDER, Reader
from runner.report.history import History, fold
from runner.report.page import INDEX, Page, page
from runner.report.words import GROUPS, as_recorded, headline, moment, moved_counts, subject, why
from runner.shown import count
from runner.state.night import Night
from runner.store.files import write_atomic
from runner.store.nights import NightHead, Nights, find_nights
from runner.workspace import Workspace, open_workspace

MOST_NIGHTS = 90
_SHOWN = 20
_OURS = re.compile(r"[0-9a-f]{32}\.(?:png|jpg|gif|txt)")


class Asked(msgspec.Struct, frozen=True):
    """Where a report is to go."""

    html: Path | None = None
    one_file: Path | None = None
    junit: Path | None = None
    github: bool = False


def report(parts: list[str], suite: str | None, asked: Asked, store: Path | None, as_json: bool) -> int:
    if parts and suite:
        raise UsageError("--suite and nights are two ways to say which", next="give one of them")
    workspace = open_workspace(Path.cwd(), store)
    nights = Nights(workspace.store)
    history = _history(nights, find_nights(nights, parts, suite, MOST_NIGHTS))
    written = write_reports(workspace, history, asked)
    if as_json:
        tonight = history.tonight
        print_json(
            {
                "suite": tonight.suite,
                "night": tonight.night,
                "against": tonight.against,
                "setting": tonight.setting,
                "nights": len(history.columns),
                "moved": moved_counts(tonight),
                "left_out": tonight.left_out,
                "as_recorded": tonight.as_recorded,
                "written": [str(path) for path in written],
            }
        )
    else:
        typer.echo(_glance(history) + "".join(f"written: {path}\n" for path in written), nl=False)
    return Exit.OK


def report_night(workspace: Workspace, night: Night, asked: Asked) -> list[Path]:
    """What is asked for of a night that has just ended, the last of its suite."""
    if asked == Asked():
        return []
    nights = Nights(workspace.store)
    return write_reports(workspace, _history(nights, find_nights(nights, [], night.suite, MOST_NIGHTS)), asked)


def refuse_unwritable(asked: Asked) -> None:
    """Before a night starts, of which nobody could read. Raises `OutsideError`."""
    folders = [asked.html, *(file.parent for file in (asked.one_file, asked.junit) if file)]
    for file in (asked.one_file, asked.junit):
        if file and file.is_dir():
            raise OutsideError(f"cannot write {file}", "it is a folder", "name a file")
    for folder in filter(None, folders):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise disk_error(error, f"write into {folder}") from error


def _history(nights: Nights, heads: list[NightHead]) -> History:
    return fold(nights.night(head.night) for head in heads)


def write_reports(workspace: Workspace, history: History, asked: Asked) -> list[Path]:
    """Write what is asked for; the files, in the order of the options."""
    written = []
    if asked.html or asked.one_file:
        shown, read = _shown(workspace, history)
        if asked.html:
            written.append(_write_folder(asked.html, page(shown, read, one_file=False)))
        if asked.one_file:
            written.append(_write(asked.one_file, page(shown, read, one_file=True).html))
    if asked.junit:
        from runner.report.junit import junit

        written.append(_write(asked.junit, junit(history.tonight)))
    if asked.github:
        _tell_github(history.tonight)
    return written


def _tell_github(night: Night) -> None:
    """Annotations are messages, which GitHub reads on stderr as well."""
    from runner.report.github import summary, workflow_commands

    typer.echo(workflow_commands(night), nl=False, err=True)
    if file := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with open(file, "a", encoding="utf-8") as added:
                added.write(summary(night))
        except OSError as error:
            raise disk_error(error, f"add to {file}") from error


def _shown(workspace: Workspace, history: History) -> tuple[History, Reader]:
    """The history with what there is to be shown of the last night, from its own folder and from the store."""
    from runner.evidence import gather

    nights = Nights(workspace.store)
    found = gather(workspace, history.tonight)
    shown = msgspec.structs.replace(history, tonight=found.night)
    return shown, lambda name: found.files.get(name) or nights.file(history.tonight.night, name)


def _write_folder(folder: Path, made: Page) -> Path:
    """The page with what belongs next to it; files of an earlier page that nothing needs any more are removed."""
    for path, data in made.beside.items():
        _write(folder / path, data)
    written = _write(folder / INDEX, made.html)
    for old in (folder / FOLDER).glob("*"):
        if _OURS.fullmatch(old.name) and f"{FOLDER}/{old.name}" not in made.beside:
            old.unlink(missing_ok=True)
    return written


def _write(file: Path, data: bytes) -> Path:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, f"write {file}") from error
    write_atomic(file, data)
    return file


def _glance(history: History) -> str:
    night = history.tonight
    text = f"{safe(subject(night))}, {moment(night.started)}: {headline(night)}\n"
    text += f"  {as_recorded(night)}\n" if night.as_recorded else ""
    loud = [run for run in night.runs if run.moved != "steady"]
    loud.sort(key=lambda run: list(GROUPS).index(run.moved))
    text += table([(f"  {run.moved}", run.verdict, run.run_id, safe(why(run))) for run in loud[:_SHOWN]])
    if len(loud) > _SHOWN:
        text += f"  and {len(loud) - _SHOWN} more; `--html DIR` or `--json` has them\n"
    return text + (f"pins in danger: {count(len(night.pins), 'pin')}\n" if night.pins else "")
