"""Layer `code`: every file of the workspace that no other layer owns.

Observed as a sorted list of path, kind and SHA-256, kept as a blob beside the files' own blobs. Left out
are what other layers own (`replay.yaml`, DVC's files, params, requirements, data, models, outputs,
`state_specs/`, `.replay/`), bundles that `replay bundle` wrote, what git ignores, byte code and
version-control folders. Without git, virtual environments and all that DVC tracks are left out too.
Restored as a private, writable copy.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from runner.errors import TamperedError, UsageError
from runner.state.decode import decode_json
from runner.state.digest import Digest, are_digests, canonical, digest_bytes, digest_file
from runner.state.paths import covers, listing_problem
from runner.state.plain import MALFORMED
from runner.store.blobs import copy_out
from runner.store.store import Store
from runner.tools import git

WORKFILE = "replay.yaml"
_RESERVED_FOLDERS = frozenset({".git", ".hg", ".svn", ".dvc", ".replay"})
_OWNED_FOLDERS = _RESERVED_FOLDERS | {"__pycache__"}
_OWNED_TOP_FOLDERS = frozenset({"state_specs"})
_OWNED_SUFFIXES = (".dvc", ".pyc", ".replay.tar")
_OWNED_NAMES = frozenset({"dvc.lock", ".dvcignore"})


class CodeFile(msgspec.Struct, frozen=True, omit_defaults=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """`kind` is `file`, `executable` or `link`; a link's digest is that of its target's text."""

    path: str
    kind: Literal["file", "executable", "link"]
    sha256: str


def observe(root: Path, owned: Collection[str]) -> tuple[CodeFile, ...]:
    """The code of the workspace as it stands, sorted by path. `owned` are paths of other layers.

    Raises `UsageError` for links that leave the workspace and names that a spec cannot hold.
    """
    described = (_describe(root, path) for path in sorted(_paths(root, owned)))
    return tuple(file for file in described if file)


def paths(root: Path, owned: Collection[str]) -> list[str]:
    """Where the code is, unread."""
    return sorted(_paths(root, owned))


def keep(store: Store, root: Path, files: tuple[CodeFile, ...]) -> Digest:
    """Put the files and their list into the store; the list's digest. Raises `UsageError` when a file
    changed while it was being read."""
    for file in files:
        if not store.blobs.has(Digest(file.sha256)):
            kept = _keep_one(store, root / file.path, file)
            if kept != file.sha256:
                raise UsageError(f"{file.path} changed while it was recorded", next="run the command again")
    return store.blobs.put_bytes(listing(files))


def listing(files: tuple[CodeFile, ...]) -> bytes:
    return canonical(files)


def files_of(store: Store, digest: Digest) -> tuple[CodeFile, ...]:
    """The list that `digest` names. Raises `TamperedError` when it is not one."""
    return read_listing(store.blobs.read(digest), digest)


def read_listing(data: bytes, digest: Digest) -> tuple[CodeFile, ...]:
    """The list in the bytes of that digest. Raises `TamperedError` when it is none."""
    try:
        files = decode_json(data, tuple[CodeFile, ...])
    except MALFORMED as error:
        raise TamperedError(f"blob {digest} is not a list of code files", str(error)) from error
    problem = listing_problem([file.path for file in files])
    if problem is None and not are_digests([file.sha256 for file in files]):
        problem = "a digest in it is none"
    if problem:
        raise TamperedError(f"blob {digest} is no list of code files that can be restored", problem)
    return files


def restore(store: Store, files: tuple[CodeFile, ...], target: Path) -> None:
    """A private copy below `target`, every file re-hashed on its way."""
    for folder in sorted({(target / file.path).parent for file in files}):
        folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        place = target / file.path
        if file.kind == "link":
            place.symlink_to(os.fsdecode(store.blobs.read(Digest(file.sha256))))
        else:
            copy_out(
                store.blobs.verified(Digest(file.sha256)),
                place,
                0o755 if file.kind == "executable" else 0o644,
            )


def _paths(root: Path, owned: Collection[str]) -> Iterator[str]:
    from runner.tools import dvc

    in_git = git.is_work_tree(root)
    folders = tuple(owned) if in_git else (*owned, *dvc.tracked_paths(root))
    for path in git.files(root) if in_git else _walk(root):
        if not _is_owned(path) and not any(covers(folder, path) for folder in folders):
            yield path


def is_reserved(path: str) -> bool:
    """Whether a path is one that replay, DVC or version control keep for themselves."""
    parts = path.split("/")
    return path == WORKFILE or parts[0] in _OWNED_TOP_FOLDERS or not _RESERVED_FOLDERS.isdisjoint(parts)


def _is_owned(path: str) -> bool:
    parts = path.split("/")
    if parts[0] in _OWNED_TOP_FOLDERS or not _OWNED_FOLDERS.isdisjoint(parts):
        return True
    return path == WORKFILE or parts[-1] in _OWNED_NAMES or parts[-1].endswith(_OWNED_SUFFIXES)


def _walk(root: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(root, onerror=_refuse_unreadable):
        here = Path(folder)
        folders[:] = [
            name
            for name in folders
            if name not in _OWNED_FOLDERS
            and not (here / name).is_symlink()
            and not os.path.exists(here / name / "pyvenv.cfg")
        ]
        linked = [name for name in os.listdir(folder) if (here / name).is_symlink() and (here / name).is_dir()]
        yield from (str((here / name).relative_to(root)) for name in (*names, *linked))


def _refuse_unreadable(error: OSError) -> None:
    raise UsageError(f"cannot read {error.filename}", error.strerror or "", "make it readable, or move it away")


def _describe(root: Path, path: str) -> CodeFile | None:
    """None for a file that git still tracks and the work tree no longer has."""
    _check_name(path)
    full = root / path
    try:
        mode = full.lstat().st_mode
        if stat.S_ISLNK(mode):
            return CodeFile(path, "link", digest_bytes(_link_target(root, path)))
        if stat.S_ISREG(mode):
            return CodeFile(path, "executable" if mode & 0o100 else "file", digest_file(full))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(
            f"cannot read {path}", str(error), f"make it readable, or list {path} in .gitignore"
        ) from error
    raise UsageError(
        f"{path} is no file, folder or link",
        "sockets, pipes and devices cannot be recorded",
        "remove it or ignore it",
    )


def _check_name(path: str) -> None:
    if "\n" in path or any(0xDC80 <= ord(character) <= 0xDCFF for character in path):
        raise UsageError(
            f"the file name {path!r} cannot be recorded",
            "it holds a newline or is not UTF-8",
            "rename it or ignore it",
        )


def _link_target(root: Path, path: str) -> bytes:
    target = os.readlink(root / path)
    pure = os.path.normpath(os.path.join(os.path.dirname(path), target))
    if os.path.isabs(target) or pure == ".." or pure.startswith("../"):
        raise UsageError(
            f"{path} is a link to {target}, outside the workspace",
            "the job would not see what it points to",
            "track the target with `dvc add` and declare it as data, or list the link in .gitignore",
        )
    return os.fsencode(target)


def _keep_one(store: Store, path: Path, file: CodeFile) -> str:
    if file.kind == "link":
        return store.blobs.put_bytes(os.fsencode(os.readlink(path)))
    return store.blobs.put_file(path)[0]
