"""Logs of a run: both streams as they came, known secrets masked, memory bounded.

`stdout` and `stderr` hold the bytes; `order` has a line `<seconds> <o|e> <bytes>` for each piece, so that
the two can be shown as they were interleaved, and a line `<seconds> s <name>` where a stage begins.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from runner.errors import disk_error

STAGE, STDOUT, STDERR = 0, 1, 2
_FILES = {STDOUT: "stdout", STDERR: "stderr"}
_LETTERS = {STDOUT: "o", STDERR: "e"}
MASK = b"***"
_CHUNK = 1 << 18
_MOST_DIGITS = 20

Echo = Callable[[int, bytes], None]


class Masker:
    """Replaces known values in a stream; only what may yet become one is held back.

    What comes out does not depend on how the stream was cut into pieces: values that overlap are replaced
    together, by one mask.
    """

    def __init__(self, values: Collection[bytes]) -> None:
        from runner.layers.access import telling  # who only reads a log needs nothing of it

        self._values = telling(values)
        self._held = b""
        self._covered = 0  # bytes of `_held` that belong to a value whose mask is out already
        self.masked = 0

    def feed(self, data: bytes) -> bytes:
        if not self._values:
            return data
        text = self._held + data
        return self._pass(text, len(text) - self._possible_start(text))

    def flush(self) -> bytes:
        return self._pass(self._held, len(self._held))

    def _pass(self, text: bytes, end: int) -> bytes:
        """`text` up to `end`, masked; the rest is held."""
        out, done = [], self._covered
        covered = self._covered
        for start, stop in self._found(text):
            if start >= end:
                break
            if start >= done:
                out += [text[done:start], MASK]
                self.masked += 1
            done = covered = max(done, stop)
        out.append(text[done:end])
        self._held, self._covered = text[end:], max(0, covered - end)
        return b"".join(out)

    def _found(self, text: bytes) -> list[tuple[int, int]]:
        """Where values are, overlapping ones too, sorted."""
        found = []
        for value in self._values:
            start = text.find(value)
            while start >= 0:
                found.append((start, start + len(value)))
                start = text.find(value, start + 1)
        return sorted(found)

    def _possible_start(self, text: bytes) -> int:
        """The length of the longest end of `text` that begins a secret."""
        longest = min(max(map(len, self._values)) - 1, len(text))
        return next((n for n in range(longest, 0, -1) if any(v.startswith(text[-n:]) for v in self._values)), 0)


class LogWriter:
    """Where a container's output goes: masked, to files, and on to whoever watches. Nothing is held in a
    buffer: what came before this process was killed can be read."""

    def __init__(self, folder: Path, secrets: Collection[bytes], echo: Echo | None) -> None:
        self._files = {stream: (folder / name).open("wb") for stream, name in _FILES.items()}
        self._order = (folder / "order").open("w", buffering=1)
        self._maskers = {stream: Masker(secrets) for stream in _FILES}
        self._echo = echo
        self._started = time.monotonic()

    def write(self, stream: int, data: bytes) -> None:
        if stream in self._files:
            self._emit(stream, self._maskers[stream].feed(data))

    def begin_stage(self, name: str) -> None:
        """What comes from now on was written by that stage; nothing is held back over its beginning."""
        for stream, masker in self._maskers.items():
            self._emit(stream, masker.flush())
        self._order.write(f"{time.monotonic() - self._started:.3f} s {name}\n")

    def close(self) -> None:
        for stream, masker in self._maskers.items():
            self._emit(stream, masker.flush())
            self._files[stream].close()
        self._order.close()

    def masked(self, stream: int) -> bool:
        """Whether a secret was found in that stream so far."""
        return self._maskers[stream].masked > 0

    def _emit(self, stream: int, data: bytes) -> None:
        if not data:
            return
        try:
            self._files[stream].write(data)
            self._files[stream].flush()
            self._order.write(f"{time.monotonic() - self._started:.3f} {_LETTERS[stream]} {len(data)}\n")
        except OSError as error:
            raise disk_error(error, "write the job's log") from error
        if self._echo:
            self._echo(stream, data)


def read_log(folder: Path) -> Iterator[tuple[int, bytes]]:
    """The pieces of both streams in the order in which they came; what a cut-off run left is given too, and the
    stream that is left where the other was erased. Where a stage begins, its name is given as a piece of `STAGE`."""
    with contextlib.ExitStack() as opened:
        files = {
            _LETTERS[stream].encode(): (stream, opened.enter_context((folder / name).open("rb")))
            for stream, name in _FILES.items()
            if (folder / name).is_file()
        }
        order = folder / "order"
        for line in order.open("rb") if order.is_file() else ():
            parts = line.split()
            if len(parts) == 3 and parts[1] == b"s":
                yield STAGE, parts[2]
            if len(parts) == 3 and parts[1] in files and parts[2].isdigit() and len(parts[2]) < _MOST_DIGITS:
                stream, file = files[parts[1]]
                yield stream, file.read(min(int(parts[2]), os.fstat(file.fileno()).st_size))
        for stream, file in files.values():
            while rest := file.read(_CHUNK):
                yield stream, rest
