"""Files that are never half written: temporary name, fsync, rename; and locks that die with their process."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runner.errors import OutsideError


def disk_error(error: OSError, doing: str) -> OutsideError:
    """The user's view of an `OSError` met while `doing` something."""
    next_step = "free some space (`replay gc`), then run the command again" if error.errno == errno.ENOSPC else ""
    return OutsideError(f"cannot {doing}", error.strerror or str(error), next_step)


def fsync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a whole file so that a reader, now or after a crash, sees all of it or nothing."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with open(temporary, "xb", opener=lambda p, f: os.open(p, f, mode)) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise disk_error(error, f"write {path}") from error


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


def remove_tree(path: Path) -> None:
    """Remove a folder that a job may have filled with unreadable folders, nested without end. What is absent
    is no error. It is renamed first, so of two that remove it only one does."""
    claimed = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}.gone")
    try:
        path.rename(claimed)
    except FileNotFoundError:
        return
    if claimed.is_symlink() or not claimed.is_dir():
        claimed.unlink()
        return
    waiting = [claimed]
    while waiting:
        folder = waiting.pop()
        waiting += _emptied(folder, claimed)
        if folder != claimed:
            folder.rmdir()
    claimed.rmdir()


def _emptied(folder: Path, top: Path) -> list[Path]:
    """Unlink a folder's files and move its folders up to `top`, so that no path grows with the depth."""
    moved = []
    os.chmod(folder, stat.S_IRWXU)
    with os.scandir(folder) as listed:
        entries = list(listed)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            os.chmod(entry.path, stat.S_IRWXU)
            moved.append(Path(entry.path).rename(top / f".{secrets.token_hex(8)}"))
        else:
            os.unlink(entry.path)
    return moved


class FileLock:
    """An advisory lock on a file (flock): the kernel lets go of it when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def acquire(self, *, shared: bool = False, wait: bool = True) -> bool:
        """Take the lock; False when `wait` is off and somebody else has it."""
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        flags = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
        try:
            fcntl.flock(fd, flags)
        except BlockingIOError:
            os.close(fd)
            return False
        self._fd = fd
        return True

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
    """Whether a living process holds the lock at `path`."""
    if not path.exists():
        return False
    lock = FileLock(path)
    free = lock.acquire(wait=False)
    lock.release()
    return not free
