"""The past: a workspace as a commit has it, for a run that nobody recorded.

Code, `replay.yaml`, params, requirements and pins of data are those of the commit, in a clone that shares git's
and DVC's objects; the live tree is not touched. Runs are recorded in the store of the workspace that asked.
"""

from __future__ import annotations

import contextlib
import datetime
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from runner.errors import UsageError
from runner.state.moment import moment_text
from runner.tools import git
from runner.workspace import Workspace


@contextlib.contextmanager
def at_commit(workspace: Workspace, revision: str) -> Iterator[Workspace]:
    """The workspace at that commit, in a temporary folder. Raises `UsageError` when git does not have it."""
    if not git.is_work_tree(workspace.root):
        raise UsageError(f"--at: {workspace.root} is not in a git work tree", "so there are no commits to go back to")
    commit = git.resolve(workspace.root, revision)
    if commit is None:
        raise UsageError(f"--at: git knows no commit {revision!r}", next="`git log --oneline` lists them")
    with tempfile.TemporaryDirectory(prefix="replay-at-") as folder:
        root = git.clone_at(workspace.root, commit, Path(folder).resolve() / "tree")
        if not root.is_dir():
            raise UsageError(f"--at: {commit[:12]} has no {workspace.root.name}", "the workspace is newer than that")
        _share_data(workspace.root, root)
        yield Workspace(root, workspace.store)


def _share_data(here: Path, there: Path) -> None:
    """DVC's cache, and its settings that are in no commit, serve the clone too."""
    from runner.tools import dvc

    live, past = dvc.repo_of(here, "any"), dvc.repo_of(there, "any")
    if live is None or past is None:
        return
    settings = live / ".dvc" / "config.local"
    if settings.is_file():
        shutil.copyfile(settings, past / ".dvc" / "config.local")
    cache = dvc.cache_dir(live)
    place = dvc.cache_dir(past)
    if cache.is_dir() and not place.exists() and past in place.parents:
        place.symlink_to(cache, target_is_directory=True)


def end_of(day: str, now: datetime.datetime) -> str:
    """The moment, in UTC, that a day ends, or the one given. Raises `UsageError` for what is neither, or has yet to
    begin."""
    try:
        given = datetime.datetime.fromisoformat(day)
    except ValueError:
        raise UsageError(f"--as-of: {day!r} is no date", next="write it like 2026-11-20") from None
    moment = given if given.tzinfo else given.replace(tzinfo=datetime.UTC)
    if moment > now:
        raise UsageError(f"--as-of: {day} has yet to come", "nobody knows the index of that day", "name a past day")
    whole_day = len(day) == len("2026-11-20")
    return moment_text(moment.astimezone(datetime.UTC) + datetime.timedelta(days=whole_day))
