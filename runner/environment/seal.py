"""Sealed folders, as trees, environments and views are: how they come and go whole.

    root/       the files
    manifest    what they must be: one entry a line, sorted by path
    digest      the digest of the manifest, which is the digest of the tree
    stamps      how each file looked when its content was last known to be right

A folder is made under `<cache>/tmp`, sealed, and renamed into place. It is never repaired: it is discarded
and made again.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from runner.environment.layout import Entry, manifest_bytes
from runner.state.checked import with_check, without_check
from runner.state.digest import Digest, digest_bytes, is_digest
from runner.state.plain import MALFORMED

ROOT = "root"
MANIFEST = "manifest"
DIGEST = "digest"
STAMPS = "stamps"


class Stamp(NamedTuple):
    """What a file's status tells without reading the file. Times in nanoseconds since 1970."""

    inode: int
    mode: int
    size: int
    mtime: int
    ctime: int


Stamps = dict[str, Stamp]


class Seal(NamedTuple):
    digest: Digest
    stamps: Stamps


_entries = msgspec.json.Decoder(Entry)
_stamps = msgspec.msgpack.Decoder(Stamps)


# --- making -------------------------------------------------------------------------------------------------


@contextmanager
def staging(cache: Path) -> Iterator[Path]:
    """A new folder on the cache's file system, gone afterwards."""
    (cache / "tmp").mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(dir=cache / "tmp"))
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def seal(folder: Path, entries: Iterable[Entry]) -> Seal:
    """Record that the files below `folder/root` are right as they are now."""
    stamps, _ = survey(folder / ROOT)
    manifest = manifest_bytes(entries)
    digest = digest_bytes(manifest)
    _replace(folder / MANIFEST, manifest)
    _replace(folder / DIGEST, digest.encode())
    write_stamps(folder, stamps)
    return Seal(digest, stamps)


def publish(made: Path, place: Path) -> None:
    """Rename a sealed folder into place. If another process was faster, its folder stays: it is as good."""
    place.parent.mkdir(parents=True, exist_ok=True)
    sync(made)
    try:
        made.rename(place)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    sync(place.parent)


def discard(folder: Path) -> None:
    """Remove the sealed folder `<cache>/<kind>/<key>` at once, so that its next use makes it again."""
    with staging(folder.parents[1]) as stage:
        try:
            folder.rename(stage / folder.name)
        except FileNotFoundError:
            pass


def write_stamps(folder: Path, stamps: Stamps) -> None:
    """Not forced to the disk: stamps that a crash lost cost one hashing."""
    _replace(folder / STAMPS, with_check(msgspec.msgpack.encode(stamps)), durable=False)


def _replace(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file whole: a reader sees the old or the new bytes."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        if durable:
            os.fsync(descriptor)
    Path(temporary).replace(path)


def sync(path: Path) -> None:
    """Force a file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- reading ------------------------------------------------------------------------------------------------


def read_manifest(folder: Path) -> tuple[Entry, ...]:
    """Raises `FileNotFoundError`, or `ValueError` when the manifest is damaged."""
    return parse_manifest(manifest_of(folder))


def manifest_of(folder: Path) -> bytes:
    """As `read_manifest`, in bytes."""
    manifest = (folder / MANIFEST).read_bytes()
    if digest_bytes(manifest) != read_digest(folder):
        raise ValueError(f"{folder / MANIFEST} is not what was sealed")
    return manifest


def parse_manifest(manifest: bytes) -> tuple[Entry, ...]:
    """Raises `ValueError` when it is none."""
    try:
        return tuple(_entries.decode_lines(manifest))
    except MALFORMED as error:
        raise ValueError(f"it is no manifest: {error}") from None


def read_digest(folder: Path) -> Digest | None:
    """None when the folder is not there, or not sealed."""
    try:
        text = (folder / DIGEST).read_text()
    except (OSError, UnicodeDecodeError):
        return None
    return Digest(text) if is_digest(text) else None


def read_stamps(folder: Path) -> Stamps:
    """Nothing when they cannot be read."""
    try:
        return _stamps.decode(without_check((folder / STAMPS).read_bytes()))
    except (OSError, *MALFORMED):
        return {}


def survey(root: Path) -> tuple[Stamps, set[str]]:
    """The stamps of all files and links below `root`, and the names of its folders."""
    stamps: Stamps = {}
    folders: set[str] = set()
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _survey(descriptor, "", stamps, folders)
    finally:
        os.close(descriptor)
    return stamps, folders


def _survey(descriptor: int, prefix: str, stamps: Stamps, folders: set[str]) -> None:
    with os.scandir(descriptor) as found:
        for item in found:
            path = prefix + item.name
            if item.is_dir(follow_symlinks=False):
                folders.add(path)
                _survey_inside(descriptor, item.name, path + "/", stamps, folders)
            else:
                stamps[path] = _stamp_of(item.stat(follow_symlinks=False))


def _survey_inside(parent: int, name: str, prefix: str, stamps: Stamps, folders: set[str]) -> None:
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        _survey(descriptor, prefix, stamps, folders)
    finally:
        os.close(descriptor)


def _stamp_of(found: os.stat_result) -> Stamp:
    return Stamp(found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
