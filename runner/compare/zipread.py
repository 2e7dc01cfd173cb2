"""Zip archives of unknown origin, read within bounds: nothing is extracted under a name that an archive gives."""

from __future__ import annotations

import errno
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from runner.shown import shown
from runner.tables.malformed import MalformedError, TooLargeError

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

MAGIC = b"PK\x03\x04"
_MAX_DIRECTORY = 8 << 20
_MAX_UNPACKED = 32 << 30
_CHUNK = 1 << 20
_SHOWN = 100
_END = b"PK\x05\x06"
_END_LENGTH = 22
_MAX_COMMENT = 0xFFFF
_END_64 = b"PK\x06\x06"
_LOCATOR_64 = b"PK\x06\x07"


@contextmanager
def opened(path: Path) -> Iterator[ZipFile]:
    """The archive. Raises `MalformedError`, `OSError`."""
    from zipfile import ZipFile

    _refuse_large_directory(path)
    with _said():
        archive = ZipFile(path)
    with archive:
        _refuse_bomb(path, archive.infolist())
        yield archive


def chunks(archive: ZipFile, member: ZipInfo) -> Iterator[bytes]:
    """The content of a member, no more than it is declared to hold. Raises `MalformedError`, `OSError`."""
    with content(archive, member) as file:
        while chunk := file.read(_CHUNK):
            yield chunk


@contextmanager
def content(archive: ZipFile, member: ZipInfo) -> Iterator[IO[bytes]]:
    """A member to read from. What is wrong with it raises `MalformedError`, also while it is read."""
    with _said(), archive.open(member) as file:
        yield file


@contextmanager
def _said() -> Iterator[None]:
    """All that `zipfile` says of a broken archive, in one way."""
    import lzma
    from zipfile import BadZipFile

    try:
        yield
    except (BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise MalformedError(f"not a zip that is read here: {shown(str(error), _SHOWN)}") from None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise MalformedError("not a zip that is read here: it says that a member lies before its start") from None


def members_of(archive: ZipFile) -> dict[str, ZipInfo]:
    """The files of an archive by name, in its order. Raises `MalformedError` when a name is given twice."""
    members: dict[str, ZipInfo] = {}
    for member in archive.infolist():
        if member.filename in members:
            raise MalformedError(f"it holds {shown(member.filename, _SHOWN)} twice")
        if not member.is_dir():
            members[member.filename] = member
    return members


def _refuse_bomb(path: Path, members: list[Any]) -> None:
    """Members that are not in the file, share their bytes, or unpack to more than anybody would compare."""
    size = path.stat().st_size
    if not all(0 <= member.header_offset < size for member in members):
        raise MalformedError("its members lie outside of it")
    if sum(member.compress_size for member in members) > size:
        raise MalformedError("its members lie one on the other")
    unpacked = sum(member.file_size for member in members)
    if unpacked > _MAX_UNPACKED:
        raise TooLargeError(f"it unpacks to {unpacked:,} bytes, more than the {_MAX_UNPACKED >> 30} GiB that are read")


def _refuse_large_directory(path: Path) -> None:
    """`zipfile` keeps every entry in memory, ten times as large as it is written."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _END_LENGTH - _MAX_COMMENT - 76))
        tail = file.read()
    end = tail.rfind(_END)
    lengths = [0]
    if end >= 0 and len(tail) >= end + _END_LENGTH:
        lengths.append(struct.unpack_from("<L", tail, end + 12)[0])
        wide = tail.rfind(_END_64, 0, end)
        if wide >= 0 and _LOCATOR_64 in tail[wide:end] and len(tail) >= wide + 48:
            lengths = [struct.unpack_from("<Q", tail, wide + 40)[0]]
    if max(lengths) > _MAX_DIRECTORY:
        raise TooLargeError(f"its directory has {max(lengths):,} bytes, more than the {_MAX_DIRECTORY >> 20} MiB read")
