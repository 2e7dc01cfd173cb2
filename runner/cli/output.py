"""What the command line prints: data on stdout, messages on stderr, errors in three lines."""

from __future__ import annotations

import codecs
import json
import os
import re
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from runner.errors import ReplayError, ReplayWarning

if TYPE_CHECKING:
    from runner.diagnose import Diagnosis
    from runner.state.record import Record

_SPIN_S = 1.0
_UNUSUAL = re.compile(r"[^\n\x20-\x7e]")
_UNUSUAL_IN_LOGS = re.compile(r"[^\t\n\r\x20-\x7e]")


def print_json(value: Any) -> None:
    """One object on stdout. What no terminal should be sent is escaped; JSON has it in strings only."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    sys.stdout.write(_UNUSUAL.sub(_json_escaped, text) + "\n")


def _json_escaped(found: re.Match[str]) -> str:
    return found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1]


def print_error(error: ReplayError, as_json: bool) -> None:
    if as_json:
        print_json({"error": error_words(error)})
        return
    lines = [f"error: {safe(error.what)}"]
    lines += [f"  why:  {safe(error.why)}"] if error.why else []
    lines += [f"  next: {safe(error.next)}"] if error.next else []
    sys.stderr.write("\n".join(lines) + "\n")


def print_warning(others: Callable[..., None]) -> Callable[..., None]:
    """What shows this tool's warnings on stderr, each once; `others` go on showing those of others."""
    told: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if issubclass(category, ReplayWarning):
            if str(message) in told:
                return
            told.add(str(message))
            sys.stderr.write(f"warning: {safe(str(message))}\n")
        else:
            others(message, category, *rest, **more)

    return show


def error_words(error: ReplayError) -> dict[str, int | str]:
    words: dict[str, int | str] = {"code": int(error.code), "what": error.what, "why": error.why, "next": error.next}
    return {key: value for key, value in words.items() if value != ""}


def safe(text: str) -> str:
    """Text that no terminal can be broken with."""
    return _UNUSUAL.sub(_escaped, text)


def safe_line(text: str) -> str:
    """As `safe`, and on one line: a value with a line end cannot pass for a line of this tool's own."""
    return safe(text).replace("\n", "\\n")


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    return character if character.isprintable() else character.encode("unicode_escape").decode()


class Harmless:
    """A job's output on its way to a terminal: text, tabs and line ends pass; what else a terminal would obey is
    written as an escape. Characters may come in pieces."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="backslashreplace")

    def feed(self, data: bytes) -> bytes:
        return _UNUSUAL_IN_LOGS.sub(_escaped, self._decoder.decode(data)).encode()


def table(rows: Sequence[tuple[str, ...]], header: tuple[str, ...] | None = None) -> str:
    """Columns as wide as their widest cell, the last one free."""
    everything = [header, *rows] if header else rows
    widths = [max(len(row[i]) for row in everything) for i in range(len(everything[0]) - 1)] if everything else []
    return "".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip() + "\n"
        for row in everything
    )


def checks_text(record: Record) -> str:
    """The checks that were not passed, each with what follows."""
    text = ""
    for check in record.checks:
        if check.result != "pass":
            action = f", {check.action}" if check.broken else ""
            told = f": {safe(check.detail)}" if check.detail else ""
            told += f" (escalated: {safe(check.escalated)})" if check.escalated else ""
            text += f"  check {safe(check.name)}  {check.result}{action}{told}\n"
    return text


def diagnosis_text(found: Diagnosis) -> str:
    """Kinds, then the evidence, the most telling first, then what follows."""
    text = f"diagnosis: {', '.join(found.kind)}\n" if found.kind else ""
    text += "".join(f"  {safe_line(line)}\n" for line in found.evidence)
    return text + "".join(f"  next: {line}\n" for line in found.next)


class Progress:
    """Messages of a command that takes a while. On a terminal the last one shows how long it has taken."""

    def __init__(self, quiet: bool = False) -> None:
        self._live = sys.stderr.isatty() and not quiet and os.environ.get("TERM") != "dumb"
        self._quiet = quiet
        self._lock = threading.Lock()
        self._shown: str | None = None
        self._passes = False
        self._since = 0.0
        self._done = threading.Event()
        self._harmless: defaultdict[int, Harmless] | None = defaultdict(Harmless) if sys.stderr.isatty() else None
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

    def at(self, text: str) -> None:
        """What is going on, on a terminal only; what comes next takes its place."""
        if not self._live:
            return
        with self._lock:
            self._settle()
            sys.stderr.write(f"· {safe(text)}")
            sys.stderr.flush()
            self._shown, self._since, self._passes = text, time.monotonic(), True

    def echo(self, stream: int, data: bytes) -> None:
        """A job's output as it comes, on stderr: stdout is for this command's own data."""
        if self._harmless is not None:
            data = self._harmless[stream].feed(data)
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
            sys.stderr.write("\r\x1b[K" if self._passes else "\n")
            sys.stderr.flush()
            self._shown, self._passes = None, False

    def _tick(self) -> None:
        while not self._done.wait(_SPIN_S):
            with self._lock:
                if self._shown is not None:
                    elapsed = int(time.monotonic() - self._since)
                    sys.stderr.write(f"\r· {safe(self._shown)}  {elapsed} s")
                    sys.stderr.flush()
