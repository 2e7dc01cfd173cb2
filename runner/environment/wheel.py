"""One wheel becomes files below a root, laid out as in the environment; nothing of it is believed unchecked.

The wheel must have the locked digest, its name, version and tags must agree with each other, every file must
be what RECORD says, and no name may lead outside. What depends on the installing machine is left out or made
to repeat: installer metadata and byte code are dropped, RECORD is written anew, modes and times are fixed.
"""

from __future__ import annotations

import configparser
import csv
import errno
import hashlib
import math
import os
import posixpath
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, cast

from installer import install
from installer.destinations import WheelDestination
from installer.exceptions import InstallerError
from installer.records import InvalidRecordEntry, RecordEntry, parse_record_file
from installer.sources import WheelContentElement, WheelFile
from installer.utils import Scheme, parse_metadata_file
from packaging.tags import parse_tag
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from runner.environment.files import launcher, record_file, record_value, write_file
from runner.environment.layout import FILE, PROGRAM, PYTHON, Entry, Interpreter, Mode
from runner.errors import TamperedError, UnrebuildableError, UsageError
from runner.state.digest import digest_of_hex
from runner.state.spec import Wheel

LARGEST_WHEEL = 20 << 30
"""Bytes that one wheel may unpack to."""

LARGEST_METADATA = 64 << 20
"""Bytes that one file read into memory (METADATA, RECORD, …) may have."""

MOST_BUILDS = 10_000
"""Tags that a wheel may have: three dotted lists in one line multiply."""

_CHUNK = 1 << 20
_LEFT_OUT = {"INSTALLER", "REQUESTED", "direct_url.json", "RECORD", "RECORD.jws", "RECORD.p7s"}
_HASHES = {"sha256", "sha384", "sha512"}
_BAD_PLACE = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EILSEQ}

_MALFORMED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    csv.Error,
    configparser.Error,
    InstallerError,
    InvalidRecordEntry,
    AssertionError,
    EOFError,
    LookupError,
    RuntimeError,
    ValueError,
)
"""What zipfile, installer, packaging and this module raise for what is no proper wheel."""


class _Altered(Exception):
    """The wheel's content is not what its RECORD says."""


def unpack(wheel_path: Path, expected: Wheel, into: Path, interpreter: Interpreter) -> tuple[Entry, ...]:
    """Unpack a wheel into the new folder `into`; return its files.

    `wheel_path` may have any name: the wheel's own is `expected.wheel`. Raises `UnrebuildableError` when it
    is not there, `TamperedError` when bytes are not what the lock or RECORD says, `UsageError` for a wheel
    that no environment can take.
    """
    with _open_locked(wheel_path, expected) as file:
        try:
            return _unpack(file, expected, into, interpreter)
        except _Altered as error:
            raise TamperedError(
                f"{expected.wheel} was altered after it was built", str(error), _lock_another(expected)
            ) from None
        except (*_MALFORMED, OSError) as error:
            # An archive may point to a place before its start.
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            reason = str(error) or type(error).__name__
            raise UsageError(f"{expected.wheel} cannot be installed", reason, _lock_another(expected)) from error


def _lock_another(expected: Wheel) -> str:
    return f"require another version of {expected.name} than {expected.version}, and lock again with --relock"


def _open_locked(path: Path, expected: Wheel) -> BinaryIO:
    """The wheel, open at its start, proven to be the locked one. The same open file is then unpacked."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise UnrebuildableError(
            f"the wheel {expected.wheel} is not there",
            f"there is no {path}",
            "get the store's copy back, or lock again with --relock",
        ) from None
    found = digest_of_hex(hashlib.file_digest(file, "sha256").hexdigest())
    if found != expected.sha256:
        file.close()
        raise TamperedError(
            f"{expected.wheel} is not the wheel that was locked",
            f"{path} has {found}, locked is {expected.sha256}",
            f"delete {path} and get the store's copy back, or lock again with --relock",
        )
    file.seek(0)
    return file


def _unpack(file: BinaryIO, expected: Wheel, into: Path, interpreter: Interpreter) -> tuple[Entry, ...]:
    with zipfile.ZipFile(file) as archive:
        archive.filename = expected.wheel
        _check_members(archive.infolist(), os.fstat(file.fileno()).st_size)
        source = _CheckedWheel(archive)
        _check_agreement(source, expected)
        destination = _Tree(into, expected.name, interpreter)
        install(source, destination, {})
    return tuple(destination.entries)


# --- what the archive may hold -------------------------------------------------------------------------


def _check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    total = sum(member.file_size for member in members)
    if total > LARGEST_WHEEL:
        raise ValueError(f"it would unpack to {total} bytes; the limit is {LARGEST_WHEEL}")
    seen = set()
    for member in members:
        if member.header_offset < 0 or member.header_offset + member.compress_size > size:
            raise ValueError(f"it says that {member.filename} lies where it does not reach")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"it holds {member.filename} compressed in a way that wheels are not")
        if not _is_safe(member.orig_filename):
            raise ValueError(f"it holds a file named {member.orig_filename!r}, which may lead outside")
        if stat.S_IFMT(member.external_attr >> 16) not in (
            0,
            stat.S_IFDIR if member.is_dir() else stat.S_IFREG,
        ):
            raise ValueError(f"it holds {member.filename}, which is a link or a device")
        if member.filename in seen:
            raise ValueError(f"it holds {member.filename} twice")
        seen.add(member.filename)


def _is_safe(name: str) -> bool:
    """Relative, without `..`, and the same name to every program that reads it."""
    parts = name.removesuffix("/").split("/")
    return not any(part in ("", ".", "..") for part in parts) and not any(
        character == "\\" or unicodedata.category(character) in ("Cc", "Cs") for character in name
    )


def _check_agreement(source: WheelFile, expected: Wheel) -> None:
    name, version, _, tags = parse_wheel_filename(expected.wheel)
    metadata = parse_metadata_file(source.read_dist_info("METADATA"))
    claims = {
        "the lock": (expected.name, expected.version),
        "METADATA": (metadata["Name"], metadata["Version"]),
    }
    for where, (its_name, its_version) in claims.items():
        if (canonicalize_name(str(its_name)), Version(str(its_version))) != (name, version):
            raise ValueError(f"its file name says {name} {version}, {where} says {its_name} {its_version}")
    declared = parse_metadata_file(source.read_dist_info("WHEEL")).get_all("Tag", [])
    if sum(map(_builds_of, declared)) > MOST_BUILDS:
        raise ValueError(f"its WHEEL file says that it is made for more than {MOST_BUILDS} kinds of interpreter")
    builds = {(tag.interpreter, tag.abi) for line in declared for tag in parse_tag(line)}
    if builds and builds.isdisjoint((tag.interpreter, tag.abi) for tag in tags):
        raise ValueError(f"its file name says {min(map(str, tags))}, its WHEEL file says {min(declared)}")


def _builds_of(tags: str) -> int:
    """How many tags a line such as `py2.py3-none-any` stands for."""
    return math.prod(part.count(".") + 1 for part in tags.split("-"))


class _CheckedWheel(WheelFile):
    """A wheel that gives out nothing that RECORD does not vouch for."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        super().__init__(archive)
        self._archive = archive
        self._records = self._read_records()

    @property
    def data_dir(self) -> str:
        """As the wheel spells it, which need not be how the file name does."""
        return self.dist_info_dir.removesuffix(".dist-info") + ".data"

    def read_dist_info(self, filename: str) -> str:
        size = self._archive.getinfo(f"{self.dist_info_dir}/{filename}").file_size
        if size > LARGEST_METADATA:
            raise ValueError(f"its {filename} has {size} bytes; the limit is {LARGEST_METADATA}")
        return super().read_dist_info(filename)

    def get_contents(self) -> Iterator[WheelContentElement]:
        for member in self._archive.infolist():
            if member.is_dir() or self._is_left_out(member.filename):
                continue
            record = self._records[member.filename]
            executable = bool(member.external_attr >> 16 & 0o111)
            with self._archive.open(member) as stream:
                hashed = _Hashed(stream, record)
                yield (member.filename, "", ""), cast(BinaryIO, hashed), executable
            if not hashed.is_as_recorded():
                raise _Altered(f"{member.filename} is not what its RECORD says")

    def _is_left_out(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        return "__pycache__" in folder.split("/") or (folder == self.dist_info_dir and name in _LEFT_OUT)

    def _read_records(self) -> dict[str, RecordEntry]:
        rows = parse_record_file(self.read_dist_info("RECORD").splitlines())
        records = {row[0]: RecordEntry.from_elements(*row) for row in rows}
        try:
            self.validate_record(validate_contents=False)
        except self.validation_error as error:
            raise _Altered(error.issues[0]) from None
        if absent := records.keys() - self._archive.namelist():
            raise _Altered(f"RECORD lists {min(absent)}, which is not in the wheel")
        if weak := {record.hash_.name for record in records.values() if record.hash_} - _HASHES:
            raise ValueError(f"its RECORD relies on {min(weak)}; sha256 or better is needed")
        return records


class _Hashed:
    """A stream that knows, once it was read, whether it is what RECORD says."""

    def __init__(self, stream: IO[bytes], record: RecordEntry) -> None:
        assert record.hash_ and record.size is not None
        self._stream = stream
        self._hasher = hashlib.new(record.hash_.name)
        self._recorded = (record.hash_.value.rstrip("="), record.size)
        self._size = 0

    def read(self, size: int = -1) -> bytes:
        chunk = self._stream.read(size)
        self._hasher.update(chunk)
        self._size += len(chunk)
        return chunk

    def is_as_recorded(self) -> bool:
        """Some publishers (gmsh) spell the hash in hex, where the format wants Base64."""
        spellings = (record_value(self._hasher.digest()), self._hasher.hexdigest())
        return any(self._recorded == (spelling, self._size) for spelling in spellings)


# --- where it goes -------------------------------------------------------------------------------------


class _Tree(WheelDestination):
    """Files below a root, in the environment's layout. `entries` are those written so far."""

    def __init__(self, root: Path, distribution: str, interpreter: Interpreter) -> None:
        self.entries: list[Entry] = []
        self._root = root
        self._site_packages = interpreter.site_packages
        self._launchers: set[str] = set()
        self._folders = {
            "purelib": interpreter.site_packages,
            "platlib": interpreter.site_packages,
            "scripts": "bin",
            "headers": f"include/site/python{interpreter.series}/{distribution}",
            "data": "",
        }
        root.mkdir(parents=True)

    def write_script(self, name: str, module: str, attr: str, section: str) -> RecordEntry:  # noqa: ARG002
        if not _is_safe(name) or "/" in name:
            raise ValueError(f"it declares a script named {name!r}, which may lead outside")
        self._launchers.add(name)
        self._write(f"bin/{name}", [launcher(name, module, attr)], PROGRAM)
        return RecordEntry(name, None, None)

    def write_file(
        self, scheme: Scheme, path: str | os.PathLike[str], stream: BinaryIO, is_executable: bool
    ) -> RecordEntry:
        """Where a packaged script has a launcher's name, the launcher stays, as with pip."""
        name = os.fspath(path)
        if scheme == "scripts":
            self._write_packaged_script(name, _with_shebang(_chunks(stream)))
        else:
            place = posixpath.join(self._folders[scheme], name)
            self._write(place, _chunks(stream), PROGRAM if is_executable else FILE)
        return RecordEntry(name, None, None)

    def _write_packaged_script(self, name: str, content: Iterable[bytes]) -> None:
        if name in self._launchers:
            deque(content, maxlen=0)
        else:
            self._write(f"bin/{name}", content, PROGRAM)

    def finalize_installation(
        self,
        scheme: Scheme,  # noqa: ARG002
        record_file_path: str,
        records: Iterable[tuple[Scheme, RecordEntry]],  # noqa: ARG002
    ) -> None:
        """Write RECORD, of the files as they are here: scripts were rewritten, metadata dropped."""
        content = record_file(self.entries, self._site_packages, record_file_path)
        self._write(f"{self._site_packages}/{record_file_path}", [content], FILE)

    def _write(self, path: str, chunks: Iterable[bytes], mode: Mode) -> None:
        try:
            self.entries.append(write_file(self._root, path, chunks, mode))
        except OSError as error:
            if error.errno not in _BAD_PLACE:
                raise
            raise ValueError(f"{path} cannot be written beside its other files: {error.strerror}") from None


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK):
        yield chunk


def _with_shebang(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """A packaged script, its `#!python…` line made to name the environment's interpreter."""
    for number, chunk in enumerate(chunks):
        if number == 0 and chunk.startswith(b"#!python"):
            yield b"#!" + PYTHON.encode() + b"\n" + chunk.partition(b"\n")[2]
        else:
            yield chunk
