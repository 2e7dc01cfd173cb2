"""A container while it runs: what it prints, as it comes, and how it is made to end in good order."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from runner.tools.interrupts import Interrupts

if TYPE_CHECKING:
    from docker import APIClient

STOP_GRACE_S = 10
TICK_S = 0.5


class Watch(Protocol):
    """Called about twice a second while a container runs; a reason to end it, or None."""

    def __call__(self) -> str | None: ...


class Stopping:
    """Ends a container that a signal, the time limit or the watch says must end: TERM, later KILL."""

    def __init__(
        self,
        signal: Callable[[str], None],
        interrupts: Interrupts,
        watch: Watch,
        deadline: float | None,
    ) -> None:
        self._signal = signal
        self._interrupts = interrupts
        self._watch = watch
        self._deadline = deadline
        self._kill_at: float | None = None
        self._watch_at = 0.0
        self.reason: str | None = None

    def step(self) -> None:
        now = time.monotonic()
        if self.reason is None:
            self.reason = self._why(now)
            if self.reason:
                self._kill_at = now + STOP_GRACE_S
                self._signal("SIGTERM")
        elif self._kill_at is not None and (now >= self._kill_at or self._interrupts.count > 1):
            self._kill_at = None
            self._signal("SIGKILL")

    def _why(self, now: float) -> str | None:
        if self._interrupts.count:
            return "interrupted"
        if self._deadline is not None and now >= self._deadline:
            return "time-limit"
        if now < self._watch_at:
            return None
        reason = self._watch()
        self._watch_at = time.monotonic() + TICK_S
        return reason


class Attached:
    """The hijacked connection of an attached container: frames of (stream, bytes) out, stdin in."""

    _HEADER = struct.Struct(">BxxxL")

    def __init__(self, client: APIClient, container: str, stdin: bool) -> None:
        params = {"stdout": 1, "stderr": 1, "stream": 1, "stdin": int(stdin), "logs": 0}
        self._raw = client.attach_socket(container, params=params)
        self._socket: socket.socket = getattr(self._raw, "_sock", self._raw)
        self._socket.setblocking(True)
        self._buffer = bytearray()

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # a container that has ended already reads nothing
            self._socket.sendall(data)
            self._socket.shutdown(socket.SHUT_WR)

    def read(self) -> list[tuple[int, bytes]] | None:
        """What has come, at least as much as one receive; None at the end of the stream."""
        received = self._socket.recv(1 << 18)
        if not received:
            return None
        self._buffer += received
        return list(self._frames())

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        buffer, start = self._buffer, 0
        while len(buffer) - start >= 8:
            kind, length = self._HEADER.unpack_from(buffer, start)
            if len(buffer) - start - 8 < length:
                break
            yield kind, bytes(buffer[start + 8 : start + 8 + length])
            start += 8 + length
        del buffer[:start]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._raw.close()
        with contextlib.suppress(OSError):
            self._socket.close()
