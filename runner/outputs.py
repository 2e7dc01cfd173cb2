"""Outputs: what a job left behind, gathered once, told apart from what it only pretends to leave.

The workspace is a stranger's: no link is followed out of it, nothing but regular files is read, and a
name is shown only after it was made harmless. A file is hashed in place and renamed into the store.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import msgspec

from runner.layers.access import telling
from runner.logs import MASK, Masker
from runner.state.digest import Digest, digest_of_hex
from runner.state.paths import covers
from runner.state.record import Output, OutputProblem
from runner.store.store import Store


class Gathered(msgspec.Struct, frozen=True):
    outputs: tuple[Output, ...]
    problems: tuple[OutputProblem, ...]

    def joined(self, other: Gathered) -> Gathered:
        outputs = sorted((*self.outputs, *other.outputs), key=lambda output: output.path)
        return Gathered(tuple(outputs), (*self.problems, *other.problems))


class _Found(msgspec.Struct, frozen=True):
    """A regular file to be taken as `path`; `file` is where its bytes are."""

    path: str
    file: Path


def gather(
    store: Store, workspace: Path, declared: Sequence[str], secrets: Collection[bytes], mounted: Collection[str] = ()
) -> Gathered:
    """Take every declared output, file or folder, into the store. What cannot be taken is named with why.

    `mounted` are paths at which the job saw other things than the workspace holds.
    """
    root, values = workspace.resolve(), telling(secrets)
    found: dict[str, _Found] = {}
    problems: dict[str, OutputProblem] = {}
    for path in sorted(declared):
        for item in _below(root, path, values, mounted):
            if isinstance(item, OutputProblem):
                problems.setdefault(item.path, item)
            else:
                found.setdefault(item.path, item)
    files = {item.file: item for item in found.values()}
    taken = _take_all(store, list(files.values()), values)
    outputs = []
    for item in found.values():
        one = msgspec.structs.replace(taken[item.file], path=item.path)
        if isinstance(one, OutputProblem):
            problems[one.path] = one
        else:
            outputs.append(one)
    return Gathered(
        tuple(sorted(outputs, key=lambda output: output.path)),
        tuple(problems[path] for path in sorted(problems)),
    )


def hand_on(
    workspace: Path, outs: Sequence[str], target: Path, secrets: Collection[bytes], mounted: Collection[str]
) -> tuple[OutputProblem, ...]:
    """Move every file of `outs` below `target`, where nothing but files and folders of this tool's making come to lie,
    so that it can be mounted. What cannot be moved is named with why."""
    root, values = workspace.resolve(), telling(secrets)
    items = [item for path in outs for item in _below(root, path, values, mounted)]
    moved: dict[Path, Path] = {}
    for item in items:
        if isinstance(item, OutputProblem):
            continue
        place = target / item.path
        place.parent.mkdir(parents=True, exist_ok=True)
        if item.file in moved:
            shutil.copy(moved[item.file], place)
        else:
            os.chmod(item.file, stat.S_IMODE(item.file.lstat().st_mode) & 0o777 | 0o600)
            item.file.rename(place)
            moved[item.file] = place
    problems = {item.path: item for item in items if isinstance(item, OutputProblem)}
    for path in outs:
        if not any(covers(path, problem) for problem in problems):
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            if not (target / path).exists():
                (target / path).mkdir()  # a folder that holds no file
    return tuple(problems[path] for path in sorted(problems))


def _below(
    root: Path, path: str, values: Sequence[bytes], mounted: Collection[str]
) -> Iterator[_Found | OutputProblem]:
    """The files that an output path stands for: itself, or all below a folder, however deep."""
    waiting: list[tuple[Path, str, str, frozenset[Path]]] = [(root, path, path, frozenset())]
    linked = 0
    while waiting:
        folder, name, path, above = waiting.pop()
        if (masked := _without(path, values)) != path:
            yield OutputProblem(_shown(masked), "secret", "its name holds the value of a secret")
            continue
        at = _at(root, folder, name, path, mounted, values)
        if not isinstance(at, Path):
            yield at
            continue
        linked += at != folder / name
        if at in above:
            yield OutputProblem(_shown(path), "outside", "links in a circle")
        elif linked > _MOST_LINKED:
            yield OutputProblem(_shown(path), "outside", f"more than {_MOST_LINKED} folders through links")
        else:
            names = sorted(os.listdir(at), reverse=True)
            inside = above | {at}
            waiting += [(at, name, f"{path}/{name}", inside) for name in names]


def _at(
    root: Path, folder: Path, name: str, path: str, mounted: Collection[str], values: Sequence[bytes]
) -> Path | _Found | OutputProblem:
    """What `path`, which is `name` in `folder`, leads to: a folder, a file to take, or a problem."""
    try:
        place = _resolve(root, folder, name, path, values)
        if isinstance(place, OutputProblem):
            return place
        mode = place.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return OutputProblem(_shown(path), "missing", "the job did not write it")
    except OSError as error:
        return OutputProblem(_shown(path), "unreadable", error.strerror or str(error))
    if any(covers(mount, place.relative_to(root).as_posix()) for mount in mounted):
        return OutputProblem(_shown(path), "outside", "it is an input, mounted for the job to read")
    if stat.S_ISDIR(mode):
        _open_up(place)
        return place
    if stat.S_ISREG(mode):
        return _named(path, place)
    return OutputProblem(_shown(path), "special", _KINDS.get(stat.S_IFMT(mode), "not a regular file"))


def _open_up(folder: Path) -> None:
    """Give the owner back what a job may have taken away."""
    if folder.is_dir() and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        os.chmod(folder, stat.S_IRWXU)


def _named(path: str, file: Path) -> _Found | OutputProblem:
    if _shown(path) != path:
        return OutputProblem(_shown(path), "unreadable", "its name is not UTF-8 or holds control characters")
    return _Found(path, file)


# A few folders that link to one another stand for more paths than can be counted.
_MOST_LINKED = 1000
_CHUNK = 1 << 20
_BLOCK = 512
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


def _resolve(root: Path, folder: Path, name: str, path: str, values: Sequence[bytes]) -> Path | OutputProblem:
    """Where `name` in `folder` leads, links followed one by one as the job saw them, `root` being /workspace."""
    here, rest, hops = folder, name.split("/"), 0
    while rest:
        part = rest.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            if here == root:
                return OutputProblem(_shown(path), "outside", "a link leads out of the workspace")
            here = here.parent
            continue
        _open_up(here)
        here = here / part
        if here.is_symlink():
            hops += 1
            target = os.readlink(here)
            if hops > 40:
                return OutputProblem(_shown(path), "outside", "links in a circle")
            if os.path.isabs(target):
                if not (target == "/workspace" or target.startswith("/workspace/")):
                    return OutputProblem(_shown(path), "outside", f"a link to {_shown(_without(target, values))}")
                here, target = root, target.removeprefix("/workspace").lstrip("/")
            else:
                here = here.parent
            rest = target.split("/") + rest
    return here


def _take_all(store: Store, items: Sequence[_Found], values: Sequence[bytes]) -> dict[Path, Output | OutputProblem]:
    looked = {item.file: _look(store, item, values) for item in items}
    own = [file for file, seen in looked.items() if isinstance(seen, os.stat_result) and not _is_shared(store, seen)]
    kept = dict(zip(own, store.blobs.adopt_all(own), strict=True))
    return {item.file: _taken(store, item, looked[item.file], kept.get(item.file)) for item in items}


def _look(store: Store, item: _Found, values: Sequence[bytes]) -> os.stat_result | OutputProblem:
    """What the file is, opened up to the caller; a problem if it must not be kept."""
    try:
        status = item.file.lstat()
        if status.st_size - status.st_blocks * _BLOCK > shutil.disk_usage(store.folder).free:
            return OutputProblem(
                item.path, "unreadable", f"{status.st_size} bytes, mostly holes: more than fit the disk"
            )
        os.chmod(item.file, stat.S_IMODE(status.st_mode) | 0o600)
        if _holds_secret(item.file, values):
            digest = _masked_digest(item.file, values)
            return OutputProblem(item.path, "secret", "it holds the value of a secret and was not kept", digest)
    except OSError as error:
        return _unreadable(item, error)
    return status


def _is_shared(store: Store, status: os.stat_result) -> bool:
    """Whether the file cannot be taken over: it has other names, or lies on another disk."""
    return status.st_nlink > 1 or os.stat(store.tmp).st_dev != status.st_dev


def _taken(
    store: Store,
    item: _Found,
    looked: os.stat_result | OutputProblem,
    kept: tuple[Digest, int] | OSError | None,
) -> Output | OutputProblem:
    if isinstance(looked, OutputProblem):
        return looked
    try:
        kept = kept or store.blobs.put_file(item.file)
    except OSError as error:
        kept = error
    if isinstance(kept, OSError):
        return _unreadable(item, kept)
    return Output(path=item.path, sha256=kept[0], size=kept[1], executable=bool(looked.st_mode & 0o100))


def _unreadable(item: _Found, error: OSError) -> OutputProblem:
    return OutputProblem(item.path, "unreadable", error.strerror or str(error))


def _masked_digest(file: Path, secrets: Collection[bytes]) -> Digest:
    """The digest of a file in which every secret is replaced by the mask."""
    masker, hasher = Masker(secrets), hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            hasher.update(masker.feed(chunk))
    hasher.update(masker.flush())
    return digest_of_hex(hasher.hexdigest())


def _holds_secret(file: Path, values: Sequence[bytes]) -> bool:
    if not values or file.stat().st_size == 0:
        return False
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(content.find(value) >= 0 for value in values)


def _without(name: str, values: Sequence[bytes]) -> str:
    found = os.fsencode(name)
    for value in values:
        found = found.replace(value, MASK)
    return os.fsdecode(found)


def _shown(text: str) -> str:
    """A name from a job, made harmless for terminals, specs and reports; 300 characters at most."""
    safe = text.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in safe)[:300]
