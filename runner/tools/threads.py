"""Work that waits for disks and networks, in threads."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_threads(work: Callable[[T], R], items: Iterable[T], jobs: int) -> list[R]:
    """What `work` gives for each, in their order. After the first error, or an interrupt, no other is begun."""
    waiting = list(items)
    done: dict[int, R] = {}
    failed: list[BaseException] = []
    ended = threading.Event()
    numbers = iter(range(len(waiting)))

    def labour() -> None:
        for number in numbers:  # each number is handed out once, whoever asks
            if ended.is_set():
                return
            try:
                done[number] = work(waiting[number])
            except BaseException as error:  # noqa: BLE001
                failed.append(error)
                ended.set()

    threads = [threading.Thread(target=labour, daemon=True) for _ in range(min(jobs, len(waiting)))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        ended.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    if failed:
        raise failed[0]
    return [done[number] for number in range(len(waiting))]


def in_time(work: Callable[[T], R], items: Iterable[T], jobs: int, seconds: float) -> dict[T, R]:
    """What `work` gives for each that has it before the time is up; those that fail, or take longer, are left out and
    left to themselves."""
    waiting = list(items)
    numbers = iter(range(len(waiting)))
    done: dict[T, R] = {}
    ended = threading.Event()

    def labour() -> None:
        for number in numbers:
            if ended.is_set():
                return
            with contextlib.suppress(Exception):
                done[waiting[number]] = work(waiting[number])

    threads = [threading.Thread(target=labour, daemon=True) for _ in range(min(jobs, len(waiting)))]
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    ended.set()
    return dict(done)
