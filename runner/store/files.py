"""Files that are never half written: temporary name, fsync, rename; and locks that die with their process."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
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


def remove_tree(path: Path) -> None:
    """Remove a folder that a job may have filled with unreadable folders. What is absent is no error."""

    def open_up_and_retry(function: Callable[[str], object], name: str, error: BaseException) -> None:
        if isinstance(error, FileNotFoundError):
            return
        os.chmod(Path(name).parent, stat.S_IRWXU)
        if os.path.isdir(name) and not os.path.islink(name):
            os.chmod(name, stat.S_IRWXU)
            shutil.rmtree(name, ignore_errors=True)
        else:
            function(name)

    shutil.rmtree(path, onerror=lambda function, name, info: open_up_and_retry(function, name, info[1]))


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
