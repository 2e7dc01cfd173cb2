"""The objects in DVC's cache: which files a pin consists of, where they lie, and what they hash to.

A listing comes from a cache or a store that others can write to: it is verified before it is believed.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import posixpath
import re
import stat
from collections import Counter
from operator import itemgetter
from pathlib import Path
from shlex import quote
from typing import Literal, NamedTuple

import msgspec

from runner.errors import OutsideError, TamperedError, UsageError
from runner.state.decode import convert
from runner.state.digest import Digest, digest_of_hex
from runner.state.spec import DvcPin

HashName = Literal["md5", "md5-dos2unix"]

_MD5 = re.compile(r"[0-9a-f]{32}")
_CHUNK = 1 << 20
_TEXT = bytes(range(32, 127)) + b"\n\r\t\f\b"


# --- what a pin consists of --------------------------------------------------------------------------


class Entry(NamedTuple):
    """One file of a pin. `relpath` is relative to the pinned path, and empty when that path is the file."""

    relpath: str
    md5: str


class _Listed(msgspec.Struct):
    relpath: str
    md5: str


def is_folder(pin: DvcPin) -> bool:
    """Whether `md5` is that of a folder's listing. A path inside a folder has the folder's pin."""
    return pin.md5.endswith(".dir")


def object_path(cache: Path, hash_name: HashName, md5: str) -> Path:
    """Where the cache keeps an object. DVC 2 put its own straight into the cache folder."""
    return Path(objects_folder(cache, hash_name), md5[:2], md5[2:])


def missing_objects(cache: Path, path: str, pin: DvcPin, listing: bytes | None = None) -> tuple[str, ...]:
    """The MD5s of a pin's objects that the cache lacks; the listing's alone, if that is lacking."""
    listing = listing or read_listing(cache, pin)
    if listing is None and is_folder(pin):
        return (pin.md5,)
    wanted, objects = {entry.md5 for entry in entries(path, pin, listing)}, objects_folder(cache, pin.hash)
    # os.path, as this is asked of tens of thousands of objects: pathlib takes five times as long.
    return tuple(sorted(md5 for md5 in wanted if not os.path.isfile(f"{objects}/{md5[:2]}/{md5[2:]}")))


def objects_folder(cache: Path, hash_name: HashName) -> str:
    """Where the cache keeps its objects, each below the first two digits of its MD5."""
    return str(cache if hash_name == "md5-dos2unix" else cache / "files" / "md5")


def read_listing(cache: Path, pin: DvcPin) -> bytes | None:
    """The listing of a pinned folder, unverified; `None` for a file, and when the cache does not hold it."""
    path = object_path(cache, pin.hash, pin.md5)
    try:
        return path.read_bytes() if is_folder(pin) else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error) from error


def folder_md5(listing: bytes) -> str:
    return hashlib.md5(listing, usedforsecurity=False).hexdigest() + ".dir"


def entries(path: str, pin: DvcPin, listing: bytes | None) -> tuple[Entry, ...]:
    """The files that `path` consists of, sorted. A folder needs its `listing`, which is verified first."""
    if not is_folder(pin):
        return (Entry("", _file_md5(path, pin)),)
    files = _verified(path, pin, listing or b"")
    return files if pin.inside is None else _part(files, pin.inside, posixpath.relpath(path, pin.inside))


def _file_md5(path: str, pin: DvcPin) -> str:
    if not _MD5.fullmatch(pin.md5):
        raise TamperedError(
            f"the pin of {path} is no MD5", repr(pin.md5), "restore the state spec: git restore state_specs"
        )
    return pin.md5


def _part(files: tuple[Entry, ...], folder: str, part: str) -> tuple[Entry, ...]:
    below = part + "/"
    found = tuple(Entry(file.relpath[len(below) :], file.md5) for file in files if f"{file.relpath}/".startswith(below))
    if not found:
        raise UsageError(
            f"the tracked version of {folder} has no {part}",
            "it is misspelt, or came after the last `dvc add`",
            f"dvc add {quote(folder)}",
        )
    return found


@functools.lru_cache(4)
def _verified(path: str, pin: DvcPin, listing: bytes) -> tuple[Entry, ...]:
    """Remembered, as a command comes back to the same long listing several times."""
    if folder_md5(listing) != pin.md5:
        raise _tampered(path, pin, "its bytes have another MD5 than the pin names")
    try:
        listed = convert(json.loads(listing), tuple[_Listed, ...])
    except (ValueError, RecursionError) as error:
        raise _tampered(path, pin, f"it is no listing: {error}") from error
    for file in listed:
        _check_entry(path, pin, file)
    _check_names(path, pin, [file.relpath for file in listed])
    return tuple(sorted(Entry(file.relpath, file.md5) for file in listed))


def _check_entry(path: str, pin: DvcPin, file: _Listed) -> None:
    if not _MD5.fullmatch(file.md5):
        raise _tampered(path, pin, f"{file.md5!r} of {file.relpath!r} is no MD5")
    if "\0" in file.relpath or not {"", ".", ".."}.isdisjoint(file.relpath.split("/")):
        raise _tampered(path, pin, f"{file.relpath!r} does not lie inside the folder")
    if not _is_utf8(file.relpath):
        raise UsageError(
            f"a file name in {path} is not UTF-8", repr(file.relpath), f"rename it, then `dvc add {quote(path)}`"
        )


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_names(path: str, pin: DvcPin, names: list[str]) -> None:
    files = Counter(names)
    name, times = max(files.items(), key=itemgetter(1), default=("", 0))
    if times > 1:
        raise _tampered(path, pin, f"{name!r} is listed {times} times")
    if clash := files.keys() & _folders(names):
        raise _tampered(path, pin, f"{min(clash)!r} is listed as a file and as a folder")


def _folders(names: list[str]) -> set[str]:
    found: set[str] = set()
    for name in names:
        parent = name.rpartition("/")[0]
        while parent and parent not in found:
            found.add(parent)
            parent = parent.rpartition("/")[0]
    return found


def _tampered(path: str, pin: DvcPin, why: str) -> TamperedError:
    return TamperedError(
        f"the listing {pin.md5} of {pin.inside or path} is not what DVC recorded",
        why,
        f"remove the object {pin.md5[:2]}/{pin.md5[2:]} from the DVC cache, then `dvc fetch {quote(path)}`",
    )


# --- hashing -----------------------------------------------------------------------------------------


class Hashes(NamedTuple):
    """A file's MD5 as DVC takes it (32 hex digits), its SHA-256, and its size in bytes."""

    md5: str
    sha256: Digest
    size: int


def hash_file(path: str | Path, hash_name: HashName = "md5") -> Hashes:
    """Both digests of a regular file, read once in bounded memory; symbolic links are followed."""
    try:
        # Without O_NONBLOCK, opening a FIFO would wait until somebody writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return _hashes(descriptor, hash_name)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _unreadable(path, error) from error


def _hashes(descriptor: int, hash_name: HashName) -> Hashes:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    data = os.read(descriptor, min(found.st_size + 1, _CHUNK))
    if len(data) == found.st_size:  # whole: no second read to see its end
        md5 = hashlib.md5(_as_dvc_has_it(data, hash_name), usedforsecurity=False)
        return Hashes(md5.hexdigest(), digest_of_hex(hashlib.sha256(data).hexdigest()), len(data))
    return _hashes_of_long(descriptor, data, hash_name)


def _hashes_of_long(descriptor: int, data: bytes, hash_name: HashName) -> Hashes:
    """In chunks of exactly 1 MiB but for the last: DVC 2 decided for each of them whether it is text."""
    md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    data = _filled(descriptor, data)
    while data:
        md5.update(_as_dvc_has_it(data, hash_name))
        sha256.update(data)
        size += len(data)
        data = _filled(descriptor, b"")
    return Hashes(md5.hexdigest(), digest_of_hex(sha256.hexdigest()), size)


def _filled(descriptor: int, data: bytes) -> bytes:
    """`data` and what follows it, 1 MiB in all; less only at the end of the file."""
    while len(data) < _CHUNK and (more := os.read(descriptor, _CHUNK - len(data))):
        data += more
    return data


def _as_dvc_has_it(chunk: bytes, hash_name: HashName) -> bytes:
    return _unix_lines(chunk) if hash_name == "md5-dos2unix" and chunk else chunk


def _unix_lines(chunk: bytes) -> bytes:
    return chunk.replace(b"\r\n", b"\n") if _is_text(chunk[:512]) else chunk


def _is_text(block: bytes) -> bool:
    """DVC 2's guess: no NUL, and at most 30 % other than printable ASCII."""
    return b"\0" not in block and len(block.translate(None, _TEXT)) / len(block) <= 0.30


def _unreadable(path: str | Path, error: OSError) -> OutsideError:
    return OutsideError(f"{path} cannot be read", error.strerror or str(error), f"ls -l {path}")
