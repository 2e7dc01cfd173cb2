"""What the command line prints: data on stdout, messages on stderr, errors in three lines."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from runner.errors import ReplayError

if TYPE_CHECKING:
    from runner.diagnose import Diagnosis

_SPIN_S = 1.0


def print_json(value: Any) -> None:
    """One object on stdout."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def print_error(error: ReplayError, as_json: bool) -> None:
    if as_json:
        print_json({"error": error_words(error)})
        return
    lines = [f"error: {safe(error.what)}"]
    lines += [f"  why:  {safe(error.why)}"] if error.why else []
    lines += [f"  next: {safe(error.next)}"] if error.next else []
    sys.stderr.write("\n".join(lines) + "\n")


def error_words(error: ReplayError) -> dict[str, int | str]:
    words: dict[str, int | str] = {"code": int(error.code), "what": error.what, "why": error.why, "next": error.next}
    return {key: value for key, value in words.items() if value != ""}


def safe(text: str) -> str:
    """Text that no terminal can be broken with."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def table(rows: Sequence[tuple[str, ...]], header: tuple[str, ...] | None = None) -> str:
    """Columns as wide as their widest cell, the last one free."""
    everything = [header, *rows] if header else rows
    widths = [max(len(row[i]) for row in everything) for i in range(len(everything[0]) - 1)] if everything else []
    return "".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip() + "\n"
        for row in everything
    )


def diagnosis_text(found: Diagnosis) -> str:
    """Kinds, then the evidence, the most telling first, then what follows."""
    text = f"diagnosis: {', '.join(found.kind)}\n" if found.kind else ""
    text += "".join(f"  {safe(line)}\n" for line in found.evidence)
    return text + "".join(f"  next: {line}\n" for line in found.next)


class Progress:
    """Messages of a command that takes a while. On a terminal the last one shows how long it has taken."""

    def __init__(self, quiet: bool = False) -> None:
        self._live = sys.stderr.isatty() and not quiet and os.environ.get("TERM") != "dumb"
        self._quiet = quiet
        self._lock = threading.Lock()
        self._shown: str | None = None
        self._since = 0.0
        self._done = threading.Event()
        if self._live:
            threading.Thread(target=self._tick, daemon=True).start()

    def say(self, text: str) -> None:
        if self._quiet:
            return
        with self._lock:
            self._settle()
            sys.stderr.write(f"· {safe(text)}" if self._live else f"· {safe(text)}\n")
            sys.stderr.flush()
            self._shown, self._since = (text, time.monotonic()) if self._live else (None, 0.0)

    def echo(self, _stream: int, data: bytes) -> None:
        """A job's output as it comes, on stderr: stdout is for this command's own data."""
        with self._lock:
            self._settle()
            try:
                sys.stderr.buffer.write(data)
                sys.stderr.buffer.flush()
            except BrokenPipeError:
                self._quiet = True

    def close(self) -> None:
        self._done.set()
        with self._lock:
            self._settle()

    def _settle(self) -> None:
        if self._shown is not None:
            self._shown = None
            sys.stderr.write("\n")
            sys.stderr.flush()

    def _tick(self) -> None:
        while not self._done.wait(_SPIN_S):
            with self._lock:
                if self._shown is not None:
                    elapsed = int(time.monotonic() - self._since)
                    sys.stderr.write(f"\r· {safe(self._shown)}  {elapsed} s")
                    sys.stderr.flush()
