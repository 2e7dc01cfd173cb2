"""What DVC's own part of a remote holds of pinned data: it is not pushed a second time."""

from __future__ import annotations

from pathlib import Path

from runner.errors import TamperedError, UsageError
from runner.state.spec import DvcPin
from runner.tools import dvc
from runner.tools.remote_fs import NotThere, Remote


def holds(remote: Remote, root: Path, path: str, pin: DvcPin) -> bool:
    """Whether each object of the pin is there. What cannot be told, since a listing is nowhere or damaged, is not."""
    try:
        listing = _listing(remote, root, path, pin) if pin.md5.endswith(".dir") else None
        names = {object_name(pin, entry.md5) for entry in dvc.entries(path, pin, listing)}
    except (NotThere, TamperedError, UsageError):
        return False
    names.add(object_name(pin, pin.md5))
    return len(remote.sizes(names)) == len(names)


def object_name(pin: DvcPin, md5: str) -> str:
    """Where DVC puts an object; DVC 2 put its own straight into the remote's folder."""
    folder = "" if pin.hash == "md5-dos2unix" else "files/md5/"
    return f"{folder}{md5[:2]}/{md5[2:]}"


def _listing(remote: Remote, root: Path, path: str, pin: DvcPin) -> bytes:
    repo = dvc.repo_of(root, path)
    here = dvc.read_listing(dvc.cache_dir(repo), pin) if repo else None
    return here if here is not None else b"".join(remote.chunks(object_name(pin, pin.md5)))
