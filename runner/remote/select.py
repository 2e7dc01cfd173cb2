"""Which remote a command means, and which runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from runner.errors import ReplayError, UsageError
from runner.store.index import Row, rows
from runner.store.runs import resolve_run_id
from runner.tools import dvc
from runner.tools.dvc_config import load_config, remote_url
from runner.tools.remote_fs import WITHOUT_LISTING, Remote, open_remote
from runner.workspace import RELEASED, Workspace

Labels = Callable[[], Mapping[str, Iterable[str]]]


def remote_of(workspace: Workspace, name: str | None = None) -> Remote:
    """The remote that DVC is configured with. Raises `UsageError` where there is none of that name."""
    repo = _repo(workspace.root)
    if repo is None:
        raise UsageError(
            "there is no remote here",
            f"{workspace.root} is in no DVC repository; runs travel through the remote that DVC is configured with",
            "`dvc init`, then `dvc remote add -d NAME URL`",
        )
    return open_remote(load_config(repo), name)


def default_remote(workspace: Workspace) -> Remote | None:
    """DVC's default remote, if it has one here that runs can travel through."""
    return remote_of(workspace) if has_remote(workspace) else None


def has_remote(workspace: Workspace) -> bool:
    """Whether runs can travel through DVC's default remote. From a web server DVC alone gets data."""
    repo = _repo(workspace.root)
    url = remote_url(load_config(repo)) if repo else None
    return url is not None and urlsplit(url).scheme not in WITHOUT_LISTING


def how_to_get(workspace: Workspace, run_id: str) -> str:
    """What brings here the files of a run that are not."""
    with contextlib.suppress(ReplayError):
        if has_remote(workspace):
            return f"`replay pull {run_id}`"
    return "copy the store from where it was recorded, or use `replay bundle` there"


def _repo(root: Path) -> Path | None:
    return dvc.repo_of(root, "replay.yaml")


def select(workspace: Workspace, words: Sequence[str], known: Collection[str], labels: Labels) -> list[str]:
    """The runs of `known` that the words name: a run-id, a unique part of one, `@NAME` of a release, or a label;
    without words all of them. Labels are asked for only where a word is no part of a run-id. Raises `UsageError` for a
    word that names none."""
    if not words:
        return sorted(known)
    found: set[str] = set()
    for word in words:
        if word.startswith(RELEASED):
            found |= _released(workspace, word.removeprefix(RELEASED), known)
            continue
        fits = [word] if word in known else [run_id for run_id in known if word in run_id]
        if len(fits) == 1:
            found.add(fits[0])
            continue
        labelled = {run_id for run_id, given in labels().items() if word in given and run_id in known}
        found |= labelled or {resolve_run_id(word, sorted(known))}
    return sorted(found)


def select_there(
    workspace: Workspace, remote: Remote, words: Sequence[str], listed: Collection[str], labels: Labels
) -> list[str]:
    """As `select`, of the runs that the remote has; a word for one that is known here alone is told so."""
    try:
        return select(workspace, words, listed, labels)
    except UsageError:
        for word in words:
            _refuse_unpushed(workspace, remote, word, listed)
        raise


def _refuse_unpushed(workspace: Workspace, remote: Remote, word: str, listed: Collection[str]) -> None:
    try:
        known = select(workspace, [word], workspace.run_ids(), dict)
    except UsageError:
        return
    if len(known) == 1 and known[0] not in listed:
        raise UsageError(
            f"{remote.url} does not have {known[0]}",
            "it was never pushed there",
            f"`replay push {known[0]}` where it was recorded",
        ) from None


def _released(workspace: Workspace, name: str, known: Collection[str]) -> set[str]:
    run_id = workspace.releases.find(name).release.run
    if run_id not in known:
        raise UsageError(f"the run of {RELEASED}{name} is not here", f"{run_id} was looked for", "`replay status`")
    return {run_id}


def rows_here(workspace: Workspace) -> list[Row]:
    """Of every run that is known here."""
    return rows(workspace.store.folder / "index.sqlite", workspace.run_ids(), workspace.run)


def labels_here(workspace: Workspace) -> dict[str, tuple[str, ...]]:
    return {row.run_id: row.labels for row in rows_here(workspace)}
