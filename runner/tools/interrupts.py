"""Signals as a value that can be asked and waited on, so that a running job is ended cleanly."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Protocol


class Interrupts:
    """Counts the requests to stop (INT, TERM, HUP). `fileno` becomes readable at the first.

    While `held`, a signal is only counted, so that a container can be ended in good order; otherwise it
    raises `KeyboardInterrupt` where the process is.
    """

    def __init__(self) -> None:
        self.count = 0
        self._holding = 0
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)

    def fileno(self) -> int:
        return self._read

    def request(self) -> None:
        self.count += 1
        if self.count == 1:
            with contextlib.suppress(BlockingIOError):
                os.write(self._write, b"!")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        self._holding += 1
        try:
            yield
        finally:
            self._holding -= 1

    @property
    def is_held(self) -> bool:
        return self._holding > 0

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class _Readable(Protocol):
    def fileno(self) -> int: ...


def readable(waiting: Iterable[_Readable | int], seconds: float | None = None) -> set[int]:
    """The descriptors that can be read at last, or none when the time is up. `select` knows only the first 1,024."""
    poll = select.poll()
    for one in waiting:
        poll.register(one, select.POLLIN)
    return {descriptor for descriptor, _ in poll.poll(None if seconds is None else seconds * 1000)}


@contextlib.contextmanager
def listening() -> Iterator[Interrupts]:
    """Route the signals of this process (main thread only) to an `Interrupts` for a while."""
    interrupts = Interrupts()

    def handle(_number: int, _frame: FrameType | None) -> None:
        interrupts.request()
        if not interrupts.is_held:
            raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        interrupts.close()
