"""What a program in a container said last, for the one line that an error or a check has room for.

The engine passes on two streams and not their order: the last line of stderr is taken, where programs say why they
fail, or else that of stdout.
"""

from __future__ import annotations

_STDOUT, _STDERR = 1, 2
_KEPT = 4096


class LastWords:
    """Takes what `Engine.run` prints; keeps the end of it."""

    def __init__(self) -> None:
        self._ends = {_STDOUT: b"", _STDERR: b""}

    def write(self, stream: int, data: bytes) -> None:
        self._ends[stream] = (self._ends[stream] + data)[-_KEPT:]

    def line(self) -> str:
        """The last line with anything on it, without the space around it; empty where nothing was said."""
        lines = (self._ends[_STDOUT] + b"\n" + self._ends[_STDERR]).decode(errors="replace").splitlines()
        return next((line for line in map(str.strip, reversed(lines)) if line), "")
