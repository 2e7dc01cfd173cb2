"""The local store, `.replay/`: blobs, runs and what can be made again from them.

    store.json   format and identity         blobs/     bytes by digest (the truth)
    key          secret of fingerprints      runs/      a folder a run: spec, record, logs
    images/      archived images, by layers  locks/     resolved dependencies
    bisects/     what was tried, and how it came out
    nights/      what the replays of suites came to
    log/         which records were signed
    erased/      tombstones of blobs that were erased
    cache/       trees, environments, views, probes: may be deleted at any moment
    scratch/     workspaces of running jobs  tmp/       files on their way to a name

Two locks keep `gc` and the other commands apart: whoever adds things that nothing refers to yet holds
`gc.lock` shared; `gc` holds it alone. `turnstile.lock` keeps a waiting `gc` from starving.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from runner.errors import OutsideError, TamperedError, UsageError, disk_error
from runner.state.decode import decode_json
from runner.state.plain import MALFORMED
from runner.store.blobs import Blobs
from runner.store.files import FileLock, locked, write_atomic

STORE_FORMAT = 1
STORE_NAME = ".replay"
FOLDERS = ("blobs", "runs", "bisects", "nights", "images", "locks", "log", "cache", "scratch", "tmp")
SET_APART = "damaged-"
"""How the names in `tmp/` begin that only `gc` removes: what `fsck --repair` set apart."""

GITIGNORE = "*\n"
_PATIENCE_S = 60.0
_POLL_S = 0.05
_ID_LENGTH = 16
_KEY_LENGTH = 32


class StoreInfo(msgspec.Struct, frozen=True):
    """`id` ends with a check of its own, unless an older version made it."""

    format: int
    id: str

    @property
    def whole(self) -> bool:
        newer = self.format > STORE_FORMAT
        return newer or len(self.id) == _ID_LENGTH or self.id == _with_check(self.id[:_ID_LENGTH])


class FingerprintKey(msgspec.Struct, frozen=True):
    """What the file `key` holds: the secret itself, then a check of it, unless an older version made it."""

    kept: bytes

    @property
    def whole(self) -> bool:
        return len(self.kept) == _KEY_LENGTH or self.kept == self.secret + _check_of(self.secret)

    @property
    def secret(self) -> bytes:
        return self.kept[:_KEY_LENGTH]


class Store:
    def __init__(self, folder: Path, info: StoreInfo) -> None:
        self.folder = folder
        self.id = info.id
        self.blobs = Blobs(folder / "blobs", folder / "tmp")
        self.runs = folder / "runs"
        self.bisects = folder / "bisects"
        self.nights = folder / "nights"
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
    def sweeping(self) -> Iterator[bool]:
        """Whether nobody is adding, so that what is in `tmp/` and `cache/tmp/` was left by the killed; nobody starts
        to while this is held. Never waits."""
        turnstile, alone = FileLock(self.folder / "turnstile.lock"), FileLock(self.folder / "gc.lock")
        try:
            yield turnstile.acquire(wait=False) and alone.acquire(wait=False)
        finally:
            alone.release()
            turnstile.release()

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

    def known_key(self) -> bytes | None:
        """The key of secret fingerprints, if there is one that can be read; none is made."""
        try:
            key = FingerprintKey((self.folder / "key").read_bytes())
        except OSError:
            return None
        return key.secret if key.whole else None

    def fingerprint_key(self) -> bytes:
        """The key of secret fingerprints: made at first use, readable by the owner only, never shared."""
        path = self.folder / "key"
        if not path.exists():
            with locked(self.folder / "store.json"):
                if not path.exists():
                    secret = secrets.token_bytes(_KEY_LENGTH)
                    write_atomic(path, secret + _check_of(secret), mode=0o600, through=self.tmp)
        key = FingerprintKey(path.read_bytes())
        if not key.whole:
            raise TamperedError(
                f"{path} is damaged",
                "fingerprints of secrets made with it would differ from those recorded",
                "bring it back from a copy of the store; `replay fsck --repair` makes a new one instead",
            )
        return key.secret


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
    info = read_info(marker.read_bytes())
    if info is None:
        raise OutsideError(f"{marker} cannot be read", "it is not what was written", "`replay fsck --repair` mends it")
    if info.format > STORE_FORMAT:
        raise UsageError(f"the store at {folder} is of a newer format", f"format {info.format}", "upgrade replay")
    _complete(folder)
    return Store(folder, info)


def open_damaged(folder: Path) -> Store:
    """The store at `folder` even where its `store.json` is lost, for `fsck`. Raises `UsageError` when there is none."""
    marker = folder / "store.json"
    lost = (folder / "blobs").is_dir() and (not marker.is_file() or read_info(marker.read_bytes()) is None)
    return Store(folder, StoreInfo(STORE_FORMAT, "")) if lost else open_store(folder, create=False)


def read_info(kept: bytes) -> StoreInfo | None:
    """What `store.json` says; None when it is damaged."""
    try:
        info = decode_json(kept, StoreInfo)
    except MALFORMED:
        return None
    return info if info.whole else None


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


def _complete(folder: Path) -> None:
    """Make again what somebody removed, where that can be done: an empty folder is as good as none."""
    for name in FOLDERS:
        if not (folder / name).is_dir():
            with contextlib.suppress(OSError):
                (folder / name).mkdir(mode=0o700 if name == "scratch" else 0o777)


def _create(folder: Path, marker: Path) -> None:
    try:
        for name in FOLDERS:
            (folder / name).mkdir(parents=True, exist_ok=True)
        # What a job writes keeps the modes that it gave it: no other user may come by a set-uid file.
        (folder / "scratch").chmod(0o700)
        (folder / ".gitignore").write_text(GITIGNORE)
        # Of several first commands, one gives the store its identity.
        with locked(folder / "turnstile.lock"):
            if not marker.is_file():
                write_info(marker)
    except OSError as error:
        raise disk_error(error, f"make a store at {folder}") from error


def write_info(marker: Path) -> None:
    """Give the store an identity: it tells its containers from those of others, and nothing else rests on it."""
    info = StoreInfo(format=STORE_FORMAT, id=_with_check(secrets.token_hex(_ID_LENGTH // 2)))
    write_atomic(marker, msgspec.json.encode(info), through=marker.parent / "tmp")


def _with_check(start: str) -> str:
    return start + _check_of(start.encode()).hex()


def _check_of(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:4]
