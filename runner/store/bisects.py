"""Bisects: one folder each, `bisects/<id>/`, with what was asked for and a log, a line for each trial.

A line is whole or it is not there: what a killed command left of one is passed over, and cut off by the next that
writes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from runner.errors import UsageError
from runner.state.decode import decode_json
from runner.store.files import FileLock, write_atomic
from runner.store.store import Store

RECORDED = "recorded"
"""What is done for a line of a run that was there before."""

_LOG, _REQUEST, _RELEASES = "log.jsonl", "request.json", "releases.json"


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One trial: the items that it took from the bad state, the run that it was, how it came out. `drill` names the
    change of which the items are parts; without it they are those of the whole bisect. `differs`: an end whose outputs
    are not, to the byte, those that were recorded. `history`: a run that somebody had recorded between the ends, which
    says where to look and proves nothing."""

    round: int
    items: tuple[int, ...]
    run_id: str
    state: str
    outcome: str
    shown: str = ""
    note: str = ""
    doing: str = ""
    seconds: float = 0.0
    drill: str = ""
    differs: bool = False
    history: bool = False


class BisectFolder:
    def __init__(self, store: Store, bisect_id: str) -> None:
        self.id = bisect_id
        self.folder = store.bisects / bisect_id
        self._tmp = store.tmp
        self._lock = FileLock(self.folder / "lock")

    def begin(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def hold(self) -> None:
        """Raises `UsageError` when another command is at it."""
        self.begin()
        if not self._lock.acquire(wait=False):
            raise UsageError(f"bisect {self.id} is going on already", next="wait for it, or end it")

    def release(self) -> None:
        self._lock.release()

    def write_request(self, request: Any) -> None:
        self.begin()
        write_atomic(self.folder / _REQUEST, msgspec.json.encode(request), through=self._tmp)

    def request(self) -> Any:
        return msgspec.json.decode((self.folder / _REQUEST).read_bytes())

    def write_releases(self, known: dict[str, list[str]]) -> None:
        write_atomic(self.folder / _RELEASES, msgspec.json.encode(known), through=self._tmp)

    def releases(self) -> dict[str, list[str]]:
        """Of packages of which an index was asked."""
        try:
            return decode_json((self.folder / _RELEASES).read_bytes(), dict[str, list[str]])
        except FileNotFoundError:
            return {}

    def append(self, line: Line) -> None:
        """Safe on the disk before this returns."""
        file = self.folder / _LOG
        whole = len(self._whole())
        with open(file, "r+b" if file.exists() else "xb") as log:
            log.truncate(whole)
            log.seek(whole)
            log.write(msgspec.json.encode(line) + b"\n")
            log.flush()
            os.fsync(log.fileno())

    def lines(self) -> list[Line]:
        return [decode_json(line, Line) for line in self._whole().splitlines()]

    def _whole(self) -> bytes:
        try:
            data = (self.folder / _LOG).read_bytes()
        except FileNotFoundError:
            return b""
        return data[: data.rfind(b"\n") + 1]


def find_bisect(store: Store, part: str | None) -> BisectFolder:
    """The bisect that `part` begins, or else the last one. Raises `UsageError` when there is none."""
    folders = [folder for folder in _folders(store) if folder.name.startswith(part or "")]
    if not folders:
        known = ", ".join(folder.name for folder in reversed(_folders(store)))
        raise UsageError(
            f"no bisect is called {part!r}" if part else "there is no bisect here yet", known and f"here: {known}"
        )
    return BisectFolder(store, folders[-1].name)


def _folders(store: Store) -> list[Path]:
    """Those that were begun, the one used last at the end."""
    begun = [folder for folder in store.bisects.iterdir() if (folder / _REQUEST).is_file()]
    return sorted(begun, key=lambda folder: (folder / _REQUEST).stat().st_mtime_ns)
