"""Where things are in an environment, and the values that describe it. Nothing here touches the disk."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from runner.state.digest import Digest
from runner.state.spec import Sha256, Value

PREFIX = "/opt/replay/env"
"""Where every environment is mounted in the container."""

WORKSPACE = "/workspace"
"""Where the job's code is in the container."""

PYTHON = f"{PREFIX}/bin/python"

EPOCH = 315_532_800
"""The modification time of every file, in seconds: 1980-01-01 UTC, the earliest that a zip can hold."""

Mode = Literal["100644", "100755", "120000"]
FILE: Mode = "100644"
PROGRAM: Mode = "100755"
SYMLINK: Mode = "120000"


class Interpreter(Value, frozen=True):
    """The image's Python: the real path of its executable there, and its byte code's magic number in hex."""

    executable: str
    version: str
    cache_tag: str
    magic: str

    @property
    def series(self) -> str:
        """Major and minor version: `3.11`."""
        return ".".join(self.version.split(".")[:2])

    @property
    def site_packages(self) -> str:
        return f"lib/python{self.series}/site-packages"


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One file or symbolic link below a root. `mode` is git's; a link's content is its target."""

    path: str
    mode: Mode
    size: int
    sha256: Sha256

    @property
    def digest(self) -> Digest:
        return Digest(self.sha256)


_encoder = msgspec.json.Encoder()


def manifest_bytes(entries: Iterable[Entry]) -> bytes:
    """One entry a line, sorted by path."""
    return _encoder.encode_lines(sorted(entries, key=lambda entry: entry.path))


def folders_of(paths: Iterable[str]) -> set[str]:
    """Every folder that holding these relative paths takes."""
    folders: set[str] = set()
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return folders
