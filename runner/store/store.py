"""The local store, `.replay/`: blobs, runs and what can be made again from them.

    store.json   format and identity         blobs/     bytes by digest (the truth)
    key          secret of fingerprints      runs/      a folder a run: spec, record, logs
    images/      archived images, by layers  locks/     resolved dependencies
    cache/       trees, environments, views, probes: may be deleted at any moment
    scratch/     workspaces of running jobs  tmp/       files on their way to a name

Two locks keep `gc` and the other commands apart: whoever adds things that nothing refers to yet holds
`gc.lock` shared; `gc` holds it alone. `turnstile.lock` keeps a waiting `gc` from starving.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from runner.errors import OutsideError, UsageError
from runner.state.plain import MALFORMED
from runner.store.blobs import Blobs
from runner.store.files import FileLock, disk_error, locked, write_atomic

STORE_FORMAT = 1
STORE_NAME = ".replay"
_PATIENCE_S = 60.0
_POLL_S = 0.05


class StoreInfo(msgspec.Struct, frozen=True):
    format: int
    id: str


class Store:
    def __init__(self, folder: Path, info: StoreInfo) -> None:
        self.folder = folder
        self.id = info.id
        self.blobs = Blobs(folder / "blobs", folder / "tmp")
        self.runs = folder / "runs"
        self.images = folder / "images"
        self.locks = folder / "locks"
        self.cache = folder / "cache"
        self.scratch = folder / "scratch"
        self.tmp = folder / "tmp"

    @contextmanager
    def adding(self) -> Iterator[None]:
        """Held while things are added that no spec or record refers to yet; keeps `gc` out."""
        with locked(self.folder / "turnstile.lock"):
            shared = locked(self.folder / "gc.lock", shared=True)
            shared.__enter__()
        try:
            yield
        finally:
            shared.__exit__(None, None, None)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Held by `gc`: nobody is adding, and nobody starts to. Raises `OutsideError` when somebody goes on
        adding for a minute, so that `gc` never holds up others for long."""
        alone = FileLock(self.folder / "gc.lock")
        with locked(self.folder / "turnstile.lock"):
            _acquire_within(alone, _PATIENCE_S)
            try:
                yield
            finally:
                alone.release()

    def fingerprint_key(self) -> bytes:
        """The key of secret fingerprints: made at first use, readable by the owner only, never shared."""
        path = self.folder / "key"
        if not path.exists():
            write_atomic(path, secrets.token_bytes(32), mode=0o600)
        return path.read_bytes()


def open_store(folder: Path, *, create: bool) -> Store:
    """Open the store at `folder`, making it when `create` is set. Raises `UsageError` when there is none."""
    marker = folder / "store.json"
    if not marker.is_file():
        if not create:
            raise UsageError(
                f"there is no store at {folder}",
                "no run has been recorded here",
                "record one with `replay run JOB`, or name a store with --store or REPLAY_STORE",
            )
        _create(folder, marker)
    try:
        info = msgspec.json.decode(marker.read_bytes(), type=StoreInfo)
    except MALFORMED as error:
        raise OutsideError(
            f"{marker} cannot be read", str(error), "restore it from a copy of the store, or name another with --store"
        ) from error
    if info.format > STORE_FORMAT:
        raise UsageError(f"the store at {folder} is of a newer format", f"format {info.format}", "upgrade replay")
    return Store(folder, info)


def find_store(start: Path) -> Path:
    """Where the store is: REPLAY_STORE, else the nearest `.replay` upwards, else `start/.replay`."""
    from_environment = os.environ.get("REPLAY_STORE")
    if from_environment:
        return Path(from_environment).expanduser().absolute()
    for folder in (start, *start.parents):
        if (folder / STORE_NAME / "store.json").is_file():
            return folder / STORE_NAME
    return start / STORE_NAME


def _acquire_within(lock: FileLock, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    waiting = threading.Event()
    while not lock.acquire(wait=False):
        if time.monotonic() > deadline:
            raise OutsideError(
                "the store is in use",
                "another command has been recording for more than a minute",
                "try again when it is done",
            )
        waiting.wait(_POLL_S)


def _create(folder: Path, marker: Path) -> None:
    try:
        for name in ("blobs", "runs", "images", "locks", "cache", "scratch", "tmp"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n")
    except OSError as error:
        raise disk_error(error, f"make a store at {folder}") from error
    info = StoreInfo(format=STORE_FORMAT, id=secrets.token_hex(8))
    write_atomic(marker, msgspec.json.encode(info))
