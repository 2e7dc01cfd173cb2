"""Hashes of files that people may edit, remembered by how the files looked (inode, size, mtime, ctime).

A file changed within the clock tick in which it was hashed could look unchanged, so what is younger than
two seconds is not remembered. One small file per data path; deleting it costs time only.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import msgspec

from runner.errors import OutsideError
from runner.state.checked import with_check, without_check
from runner.state.digest import Digest, digest_value, hex_of
from runner.state.plain import MALFORMED
from runner.store.files import write_atomic
from runner.tools.dvc import Hashes, HashName, hash_file

_SETTLED_NS = 2_000_000_000
_Row = tuple[int, int, int, int, str, str, str]
_decoder = msgspec.msgpack.Decoder(dict[str, _Row])


class StatCache:
    """The remembered hashes of one file or of all files below one folder."""

    def __init__(self, cache: Path, path: Path) -> None:
        self._prefix = str(path.absolute())
        self._file = cache / "stat" / hex_of(digest_value(self._prefix))
        self._tmp = cache / "tmp"
        self._rows = self._load()
        self._changed = False

    def get(self, path: str, found: os.stat_result, hash_name: HashName) -> Hashes | None:
        row = self._rows.get(path.removeprefix(self._prefix))
        if row is None or row[:5] != (*_look(found), hash_name):
            return None
        return Hashes(row[5], Digest(row[6]), found.st_size)

    def put(self, path: str, found: os.stat_result, hash_name: HashName, hashes: Hashes) -> None:
        if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > _SETTLED_NS:
            row = (*_look(found), hash_name, hashes.md5, str(hashes.sha256))
            self._rows[path.removeprefix(self._prefix)] = row
            self._changed = True

    def hashes(self, file: Path) -> Hashes:
        """The hashes of a file, remembered or taken now."""
        found = file.stat()
        known = self.get(str(file), found, "md5")
        if known is None:
            known = hash_file(file)
            self.put(str(file), found, "md5", known)
            self.save()
        return known

    def save(self) -> None:
        """Best effort: what is not remembered is hashed again."""
        if self._changed:
            with contextlib.suppress(OSError, OutsideError):
                self._file.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(self._file, with_check(msgspec.msgpack.encode(self._rows)), through=self._tmp)
            self._changed = False

    def _load(self) -> dict[str, _Row]:
        try:
            return _decoder.decode(without_check(self._file.read_bytes()))
        except (FileNotFoundError, *MALFORMED):
            return {}


def _look(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
