"""Folders as tar streams and back, in bounded memory.

What goes out depends on names, contents and executable bits alone where it is dressed for a layer. What comes
in is a stranger's: nothing is written outside the folder, no link is followed, and what is neither file, folder
nor link comes out as a named pipe, which no one opens and which says that something odd was there.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from runner.errors import OutsideError

EPOCH = 315_532_800
"""The modification time of every file of a layer: 1980-01-01 UTC, as in the environments that go there."""

_CHUNK = 1 << 18
_BLOCK = 512

Dress = Callable[[tarfile.TarInfo, os.stat_result], None]
Step = Callable[[], None]


class Item(NamedTuple):
    """One entry of a tar: its header, and the file or the bytes that follow it."""

    header: tarfile.TarInfo
    content: Path | bytes | None = None


# --- out ----------------------------------------------------------------------------------------------------


def for_layer(header: tarfile.TarInfo, status: os.stat_result) -> None:
    """Root's, readable by all, of a fixed time: equal content gives equal bytes."""
    header.mtime = EPOCH
    header.mode = 0o755 if stat.S_ISDIR(status.st_mode) or status.st_mode & stat.S_IXUSR else 0o644


def for_owner(uid: int, gid: int) -> Dress:
    """As it is here, but belonging to that user."""

    def dress(header: tarfile.TarInfo, status: os.stat_result) -> None:
        header.mtime, header.mode = status.st_mtime, stat.S_IMODE(status.st_mode)
        header.uid, header.gid = uid, gid

    return dress


def folder(name: str, dress: Dress, like: os.stat_result) -> Item:
    """A folder of that name, which looks like another."""
    header = tarfile.TarInfo(name)
    header.type = tarfile.DIRTYPE
    dress(header, like)
    return Item(header)


def file(name: str, content: bytes) -> Item:
    header = tarfile.TarInfo(name)
    header.size, header.mtime = len(content), EPOCH
    return Item(header, content)


def tree(source: Path, name: str, dress: Dress) -> Iterator[Item]:
    """A file, or a folder and all below it, as `name`; sorted. What is neither file, folder nor link is left."""
    waiting = [(source.resolve(), name)]
    while waiting:
        path, called = waiting.pop()
        status = path.lstat()
        header = tarfile.TarInfo(called)
        if stat.S_ISDIR(status.st_mode):
            yield folder(called, dress, status)
            waiting += [(path / below, f"{called}/{below}") for below in sorted(os.listdir(path), reverse=True)]
        elif stat.S_ISLNK(status.st_mode):
            dress(header, status)
            header.type, header.linkname = tarfile.SYMTYPE, os.readlink(path)
            yield Item(header)
        elif stat.S_ISREG(status.st_mode):
            dress(header, status)
            header.size = status.st_size
            yield Item(header, path)


def chunks(items: Iterable[Item]) -> Iterator[bytes]:
    """The tar's bytes. Raises `OutsideError` when a file grows or shrinks while it is read."""
    for header, content in items:
        yield header.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        if content is not None:
            yield from _exactly(content, header.size)
            yield bytes(-header.size % _BLOCK)
    yield bytes(2 * _BLOCK)


def _exactly(content: Path | bytes, size: int) -> Iterator[bytes]:
    sent = 0
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as opened:
        while data := opened.read(_CHUNK):
            sent += len(data)
            yield data
    if sent != size:
        raise OutsideError(f"{content!s:.200} changed while it was read", f"{sent} bytes instead of {size}")


# --- in -----------------------------------------------------------------------------------------------------


def unpack(received: Iterator[bytes], target: Path, step: Step) -> None:
    """Put what the tar's one top folder holds into the empty folder `target`; `step` is called now and then.

    Raises `OutsideError` for an archive that is damaged or leads out of `target`.
    """
    reader = ChunkReader(received)
    try:
        with tarfile.open(fileobj=reader, mode="r|", errors="surrogateescape") as tar, _Place(target) as place:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # it keeps every header otherwise
                step()
                _put(tar, member, place, step)
    except (tarfile.TarError, OSError, OverflowError, RecursionError, ValueError) as error:
        raise OutsideError(f"the engine's copy of {target} cannot be unpacked", str(error)) from error


def _put(tar: tarfile.TarFile, member: tarfile.TarInfo, place: _Place, step: Step) -> None:
    *above, name = _below_top(member.name)
    if not name:
        return
    parent = place.folder(tuple(above))
    mode = stat.S_IMODE(member.mode) & 0o777
    if member.isdir():
        os.mkdir(name, dir_fd=parent)
        os.chmod(name, mode | stat.S_IRWXU, dir_fd=parent)
    elif member.issym():
        os.symlink(member.linkname, name, dir_fd=parent)
    elif member.islnk():
        *there, first = _below_top(member.linkname)
        with _Place(place.path) as other:
            os.link(first, name, src_dir_fd=other.folder(tuple(there)), dst_dir_fd=parent, follow_symlinks=False)
    elif member.isreg():
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=parent)
        with os.fdopen(descriptor, "wb") as written:
            _copy(tar.extractfile(member), written, step)
            os.fchmod(descriptor, mode)
            written.flush()
            os.utime(descriptor, (member.mtime, member.mtime))
    else:
        os.mkfifo(name, dir_fd=parent)


def _below_top(name: str) -> list[str]:
    """The parts of a name without the first; one empty part for the top itself."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts:
        raise tarfile.TarError(f"it names {name!r}")
    return parts[1:] or [""]


def _copy(source: IO[bytes] | None, target: IO[bytes], step: Step) -> None:
    """Runs of zeros become holes, so that a file is no larger here than it was there."""
    while source and (data := source.read(_CHUNK)):
        step()
        if data.strip(b"\0"):
            target.write(data)
        else:
            target.seek(len(data), os.SEEK_CUR)
    target.truncate()


class _Place:
    """A folder that is entered step by step, no link followed; the last folder entered stays open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self._at: tuple[str, ...] = ()
        self._open = os.dup(self._root)

    def __enter__(self) -> _Place:
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._root)
        os.close(self._open)

    def folder(self, parts: tuple[str, ...]) -> int:
        """A descriptor, valid until the next call."""
        if parts != self._at:
            below = parts[: len(self._at)] == self._at
            for part in parts[len(self._at) :] if below else ("", *parts):
                following = (
                    os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self._open)
                    if part
                    else os.dup(self._root)
                )
                os.close(self._open)
                self._open = following
            self._at = parts
        return self._open


class ChunkReader(io.RawIOBase):
    """Chunks as a file to read from."""

    def __init__(self, received: Iterator[bytes]) -> None:
        self._received = received
        self._left = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts, wanted = [], size
        while wanted:
            if not self._left:
                self._left = next(self._received, b"")
                if not self._left:
                    break
            parts.append(self._left[:wanted])
            self._left = self._left[len(parts[-1]) :]
            wanted -= len(parts[-1])
        return b"".join(parts)
