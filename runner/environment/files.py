"""Single files the way every sealed folder holds them, and the two kinds that installing generates."""

from __future__ import annotations

import base64
import hashlib
import os
import posixpath
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from runner.environment.layout import EPOCH, PYTHON, SYMLINK, Entry, Mode
from runner.state.digest import digest_bytes, digest_of_hex, hex_of

if TYPE_CHECKING:
    from installer.records import RecordEntry


def write_file(root: Path, path: str, chunks: Iterable[bytes], mode: Mode) -> Entry:
    """Write a file that is not there yet, with fixed mode and time, and the folders that it needs."""
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    hasher = hashlib.sha256()
    with place.open("xb") as file:
        for chunk in chunks:
            hasher.update(chunk)
            file.write(chunk)
        file.flush()
        os.fchmod(file.fileno(), int(mode, 8) & 0o777)
        os.utime(file.fileno(), (EPOCH, EPOCH))
        return Entry(path, mode, file.tell(), digest_of_hex(hasher.hexdigest()))


class Generated(NamedTuple):
    """A file or link whose content is made here; a link's data is its target."""

    path: str
    mode: Mode
    data: bytes

    @property
    def entry(self) -> Entry:
        return Entry(self.path, self.mode, len(self.data), digest_bytes(self.data))

    def write(self, root: Path) -> None:
        if self.mode == SYMLINK:
            place = root / self.path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(os.fsdecode(self.data))
            os.utime(place, (EPOCH, EPOCH), follow_symlinks=False)
        else:
            write_file(root, self.path, [self.data], self.mode)


def launcher(name: str, module: str, attr: str) -> bytes:
    """The program that calls an entry point."""
    from installer.scripts import Script

    return Script(name, module, attr, "console").generate(PYTHON, "posix")[1]


def record_file(entries: Iterable[Entry], site_packages: str, own_path: str) -> bytes:
    """A RECORD that lists these files and itself, its paths relative to `site_packages`."""
    from installer.records import RecordEntry
    from installer.utils import Scheme, construct_record_file

    scheme = Scheme("purelib")
    rows = [(scheme, _record_entry(entry, site_packages)) for entry in entries]
    with construct_record_file([*rows, (scheme, RecordEntry(own_path, None, None))]) as record:
        return record.read()


def _record_entry(entry: Entry, site_packages: str) -> RecordEntry:
    from installer.records import Hash, RecordEntry

    value = record_value(bytes.fromhex(hex_of(entry.digest)))
    return RecordEntry(posixpath.relpath(entry.path, site_packages), Hash("sha256", value), entry.size)


def record_value(digest: bytes) -> str:
    """A hash as RECORD spells it."""
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
