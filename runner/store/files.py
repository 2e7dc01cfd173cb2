"""Files that are never half written: temporary name, fsync, rename; and locks that die with their process."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from runner.errors import OutsideError, disk_error


def fsync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def appearing(target: Path) -> Iterator[BinaryIO]:
    """A file that is written beside the user's `target` and takes its place once it is whole, and never else. Raises
    `OutsideError` for what the disk refuses."""
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
        temporary.replace(target)
    except OSError as error:
        raise disk_error(error, f"write {target}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_atomic(
    path: Path, data: bytes, mode: int = 0o644, *, durable: bool = True, through: Path | None = None
) -> None:
    """Write a whole file so that a reader, now or after a crash, sees all of it or nothing; without `durable`, a crash
    may take it. `through` is a folder that is swept, for what a killed command leaves; it serves if it is on the
    same disk."""
    temporary = _beside(path, "tmp", through)
    try:
        with open(temporary, "xb", opener=lambda p, f: os.open(p, f, mode)) as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
        if durable:
            fsync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise disk_error(error, f"write {path}") from error


def _beside(path: Path, ending: str, through: Path | None) -> Path:
    name = f".{path.name[:100]}.{secrets.token_hex(6)}.{ending}"
    if through:
        with contextlib.suppress(OSError):
            through.mkdir(parents=True, exist_ok=True)
            if os.stat(through).st_dev == os.stat(path.parent).st_dev:
                return through / name
    return path.with_name(name)


def is_within(folder: Path, path: Path) -> bool:
    """Whether `path` lies below `folder`, links followed; one in a circle leads nowhere else."""
    return Path(os.path.realpath(folder)) in Path(os.path.realpath(path)).parents


def entries_below(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Everything below a folder, links not followed; what cannot be listed is passed over. It may be nested
    deeper than recursion goes."""
    waiting = [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as listed:
                entries = list(listed)
        except OSError:
            continue
        waiting += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        yield from entries


def give(folder: Path, owner: tuple[int, int]) -> None:
    """Make user and group own a folder and all below it; nothing to do where the user is the caller."""
    if owner[0] == os.getuid():
        return
    os.chown(folder, *owner)
    for entry in entries_below(folder):
        os.chown(entry.path, *owner, follow_symlinks=False)


def link_or_copy(source: str | Path, target: str) -> None:
    """A hard link; a copy where the file has as many names as the file system allows."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno != errno.EMLINK:
            raise
        shutil.copy2(source, target)


def remove_tree(path: Path, through: Path | None = None) -> None:
    """Remove a folder that a job may have filled with unreadable folders, nested without end. What is absent, or is
    being removed by somebody else, is no error. It is renamed first, `through` a folder as for `write_atomic`.

    A job may still be at it if its engine went away: every name is used in an open folder, and no link is followed.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    with contextlib.suppress(FileNotFoundError), _opened_up(str(path)) as top:
        try:
            fcntl.flock(top, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        claimed = _beside(path, "gone", through)
        path.rename(claimed)
        _empty(top)
        claimed.rmdir()


def _empty(top: int) -> None:
    waiting = _emptied(top, top)
    while waiting:
        name = waiting.pop()
        with _opened_up(name, top) as folder:
            waiting += _emptied(folder, top)
        os.rmdir(name, dir_fd=top)


def _emptied(folder: int, top: int) -> list[str]:
    """Unlink a folder's files and move its folders up to `top`, so that no path grows with the depth."""
    moved = []
    with os.scandir(folder) as listed:
        entries = list(listed)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            moved.append(f".{secrets.token_hex(8)}")
            with _opened_up(entry.name, folder):
                os.rename(entry.name, moved[-1], src_dir_fd=folder, dst_dir_fd=top)
        else:
            os.unlink(entry.name, dir_fd=folder)
    return moved


@contextmanager
def _opened_up(name: str, parent: int | None = None) -> Iterator[int]:
    """A folder, open and with its owner's rights given back."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        folder = os.open(name, flags, dir_fd=parent)
    except PermissionError:
        os.chmod(name, stat.S_IRWXU, dir_fd=parent)
        folder = os.open(name, flags, dir_fd=parent)
    try:
        os.fchmod(folder, stat.S_IRWXU)
        yield folder
    finally:
        os.close(folder)


class FileLock:
    """An advisory lock on a file (flock): the kernel lets go of it when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def acquire(self, *, shared: bool = False, wait: bool = True) -> bool:
        """Take the lock; False when `wait` is off and somebody else has it."""
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError as error:
            why = f"there is no {self.path.parent} any more"
            raise OutsideError("the store is gone", why, "bring it back, or record the run anew") from error
        flags = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
        try:
            fcntl.flock(fd, flags)
        except BlockingIOError:
            os.close(fd)
            return False
        self._fd = fd
        return True

    def acquire_folder(self) -> None:
        """Take a shared lock on a folder that is there. Raises `FileNotFoundError`."""
        self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._fd, fcntl.LOCK_SH)

    def is_folder_held(self) -> bool:
        """Whether a living process holds the folder; one that is not there is held by none."""
        try:
            folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(folder)
        return False

    def is_in_place(self) -> bool:
        """Whether what is locked still has its name."""
        try:
            return self._fd is not None and os.path.samestat(os.fstat(self._fd), os.stat(self.path))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    lock = FileLock(path)
    lock.acquire(shared=shared)
    try:
        yield
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock at `path` alone. Any number may ask at once; to read is enough."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
