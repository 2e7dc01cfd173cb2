"""Nights: one folder each, `nights/<night-id>/`, written when all replays have ended, and again when
more is found.

night.json    what the night came to; written last, so that a night that has it is whole
rows.jsonl    one line for each run: all nights' together are the table that people query

Files beside them show how outputs differ.
"""

from __future__ import annotations

import contextlib
import datetime
import re
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import msgspec

from runner.errors import TamperedError, UsageError
from runner.state.decode import decode_json
from runner.state.night import Night, NightRow
from runner.state.paths import is_below
from runner.state.plain import MALFORMED
from runner.store.files import FileLock, write_atomic
from runner.store.store import Store

_NIGHT, _ROWS = "night.json", "rows.jsonl"
_LARGEST_FILE = 256 << 20
_MOMENT = re.compile(r".+-(\d{8}-\d{6}(-\d+)?)")
_T = TypeVar("_T")


class NightKind(NamedTuple):
    """Nights of one kind can be compared: they replay the same suite, varied alike."""

    suite: str
    against: str
    setting: tuple[str, ...]


class NightHead(msgspec.Struct, frozen=True):
    """What a night is found by."""

    night: str
    suite: str
    started: str
    against: str = ""
    setting: tuple[str, ...] = ()

    @property
    def kind(self) -> NightKind:
        return NightKind(self.suite, self.against, self.setting)


class Nights:
    """The nights of a store."""

    def __init__(self, store: Store) -> None:
        self.folder = store.nights
        self._tmp = store.tmp
        self._lock: FileLock | None = None

    # --- writing

    def hold(self, suite: str) -> None:
        """Raises `UsageError` when a night of this suite is going on."""
        lock = FileLock(self.folder / f"{suite}.lock")
        if not lock.acquire(wait=False):
            raise UsageError(f"a night of the suite {suite} is going on already", next="wait for it, or end it")
        self._lock = lock

    def release(self) -> None:
        if self._lock:
            self._lock.release()

    def new_id(self, suite: str, now: datetime.datetime) -> str:
        """Like `nightly-20261121-030000`; UTC. Call it with the suite held."""
        name = f"{suite}-{now:%Y%m%d-%H%M%S}"
        taken = sum(one.name == name or one.name.startswith(f"{name}-") for one in self.folder.iterdir())
        return f"{name}-{taken + 1}" if taken else name

    def write(self, night: Night) -> None:
        folder = self.folder / night.night
        folder.mkdir(parents=True, exist_ok=True)
        lines = b"".join(msgspec.json.encode(row) + b"\n" for row in rows_of(night))
        write_atomic(folder / _ROWS, lines, through=self._tmp)
        write_atomic(folder / _NIGHT, msgspec.json.encode(night) + b"\n", through=self._tmp)

    # --- reading

    def rows(self) -> Iterator[NightRow]:
        """The table, the oldest night first. What is damaged is passed over."""
        decoder = msgspec.json.Decoder(NightRow)
        for name in self._by_time():
            try:
                with open(self.folder / name / _ROWS, "rb") as lines:
                    for line in lines:
                        yield decoder.decode(line)
            except (OSError, *MALFORMED):
                continue

    def heads(self) -> list[NightHead]:
        """Of all nights that have ended, the oldest first."""
        names = sorted(file.parent.name for file in self.folder.glob(f"*/{_NIGHT}"))
        return sorted((self._read(name, NightHead) for name in names), key=lambda head: (head.started, head.night))

    def last(self, kind: NightKind) -> str:
        """The last night of that kind, if there is any, with runs or without. What is damaged is passed over."""
        for name in reversed(self._by_time()):
            with contextlib.suppress(OSError, TamperedError):
                if self._read(name, NightHead).kind == kind:
                    return name
        return ""

    def _by_time(self) -> list[str]:
        whole = {file.parent.name for file in self.folder.glob(f"*/{_NIGHT}")}
        named = [(found[1], name) for name in whole if (found := _MOMENT.fullmatch(name))]
        return [name for _, name in sorted(named)]

    def night(self, name: str) -> Night:
        return self._read(name, Night)

    def file(self, night: str, name: str) -> bytes | None:
        """A file of the night's folder, if it is there, lies in it and is not huge."""
        path = self.folder / night / name
        try:
            inside = is_below(name) and path.resolve().is_relative_to((self.folder / night).resolve())
            return path.read_bytes() if inside and path.stat().st_size <= _LARGEST_FILE else None
        except OSError:
            return None

    def _read(self, name: str, kind: type[_T]) -> _T:
        file = self.folder / name / _NIGHT
        try:
            return decode_json(file.read_bytes(), kind)
        except MALFORMED as error:
            raise TamperedError(
                f"{file} is no night", str(error), f"bring it back from a copy, or remove {file.parent}"
            ) from error


def find_nights(nights: Nights, parts: list[str], suite: str | None, most: int) -> list[NightHead]:
    """The nights that the parts begin, or else the last of the suite that vary what the last one varies; of no suite,
    those of the last night's. The oldest is first. Raises `UsageError` when there is none."""
    heads = nights.heads()
    if parts:
        named = {_named(heads, part) for part in parts}
        return [head for head in heads if head.night in named]
    last = next((head for head in reversed(heads) if suite in (None, head.suite)), None)
    if last is None:
        known = ", ".join(sorted({head.suite for head in heads}))
        why = f"there are nights of {known}" if known else f"{nights.folder} has none"
        raise UsageError(f"there is no night of {suite}" if suite else "there is no night here yet", why)
    return [head for head in heads if head.kind == last.kind][-most:]


def _named(heads: list[NightHead], part: str) -> str:
    found = [head.night for head in heads if head.night == part] or [
        head.night for head in heads if head.night.startswith(part)
    ]
    if len(found) != 1:
        why = f"{len(found)} begin so: {', '.join(found[:3])}" if found else f"there are {len(heads)} here"
        raise UsageError(
            f"{part!r} names no night" if not found else f"{part!r} names several nights",
            why,
            "`replay nights` lists them",
        )
    return found[0]


def rows_of(night: Night) -> Iterator[NightRow]:
    for one in night.runs:
        yield NightRow(
            night=night.night,
            suite=night.suite,
            started=night.started,
            against=night.against,
            setting=" ".join(night.setting),
            on=night.on,
            run_id=one.run_id,
            job=one.job,
            verdict=one.verdict,
            moved=one.moved,
            since=one.since,
            before=one.before or "",
            state_digest=one.state_digest,
            ran=one.ran,
            replay=one.replay,
            replays=one.replays,
            disagreed=one.disagreed,
            duration_s=one.duration_s,
            attempts=one.attempts,
            worker=one.worker,
            cause=", ".join(f"{change.layer} {change.name}" for change in one.cause) if one.proven else "",
            error=one.error.what if one.error else "",
            bad_outputs=one.bad_outputs,
        )
