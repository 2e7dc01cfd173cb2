"""Locks between processes, held on files that need hold nothing (`flock`): they end with their holder.

Builders hold `gc` shared, whoever removes trees or environments holds it exclusively.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(cache: Path, name: str, *, shared: bool = False) -> Iterator[None]:
    """Wait for `<cache>/locks/<name>` and hold it, against other threads as well as other processes."""
    path = cache / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


@contextmanager
def building(cache: Path) -> Iterator[None]:
    """While this is held, nothing is collected."""
    with locked(cache, "gc", shared=True):
        yield


@contextmanager
def collecting(cache: Path) -> Iterator[None]:
    """While this is held, nobody links trees; what is in `<cache>/tmp` was left by killed processes."""
    with locked(cache, "gc"):
        yield
