"""Blobs: bytes kept under their SHA-256, `blobs/ab/cdef…`.

A blob appears by rename once it is whole, so a name that exists is a blob that was complete. Permission
bits and names prove nothing afterwards: whoever reads a blob's content re-hashes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from runner.errors import LostError, TamperedError, disk_error
from runner.state.digest import Digest, digest_bytes, digest_file, digest_of_hex, hex_of
from runner.store.files import fsync_folder

_CHUNK = 1 << 20
_THREADS = 8
_SMALL = 1 << 16
_MANY = 2000
_MODE = 0o444


class Blobs:
    def __init__(self, folder: Path, temporary: Path) -> None:
        self.folder = folder
        self._folder = str(folder)
        self.temporary = temporary

    def path(self, digest: Digest) -> Path:
        return Path(self._place(digest))

    def has(self, digest: Digest) -> bool:
        return os.path.isfile(self._place(digest))

    def present(self, digests: Collection[str]) -> set[str]:
        """Those of the digests that are there. Many are listed: a look at each costs ten times as much."""
        if len(digests) < _MANY:
            return {digest for digest in digests if self.has(Digest(digest))}
        there: set[str] = set()
        for folder in os.listdir(self._folder):
            with contextlib.suppress(OSError):
                there.update(map(f"sha256:{folder}".__add__, os.listdir(f"{self._folder}/{folder}")))
        return there.intersection(digests)

    def size(self, digest: Digest) -> int | None:
        """None when it is not there."""
        try:
            return os.stat(self._place(digest)).st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _place(self, digest: Digest) -> str:
        """A string, as this is asked of tens of thousands of blobs: pathlib takes five times as long."""
        hex_digits = hex_of(digest)
        return f"{self._folder}/{hex_digits[:2]}/{hex_digits[2:]}"

    def all(self) -> Iterator[Digest]:
        for folder in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            for file in sorted(folder.iterdir()) if folder.is_dir() else ():
                yield digest_of_hex(folder.name + file.name)

    def read(self, digest: Digest) -> bytes:
        """The bytes, re-hashed. Raises `LostError` when they are gone, `TamperedError` when they are not what was
        kept."""
        try:
            data = self.path(digest).read_bytes()
        except FileNotFoundError:
            raise missing(digest) from None
        if digest_bytes(data) != digest:
            raise damaged(digest, self.path(digest))
        return data

    def verified(self, digest: Digest) -> Path:
        """The path of a blob whose content has just been re-hashed."""
        path = self.path(digest)
        try:
            found = digest_file(path)
        except FileNotFoundError:
            raise missing(digest) from None
        if found != digest:
            raise damaged(digest, path)
        return path

    def put_bytes(self, data: bytes) -> Digest:
        digest = digest_bytes(data)
        if not self._holds(digest, len(data)):
            with self._incoming() as (file, commit):
                file.write(data)
                commit(digest)
        return digest

    def put_stream(
        self,
        chunks: Iterable[bytes],
        wanted: Callable[[Digest], bool] = lambda _: True,
        *,
        durable: bool = True,
    ) -> tuple[Digest, int]:
        """Keep a stream, hashed while written, if its digest is `wanted`; memory stays at one chunk. What can be had
        again need not be `durable`: a crash of the machine may then leave it damaged, as whoever reads it finds."""
        hasher, size = hashlib.sha256(), 0
        with self._incoming(durable=durable) as (file, commit):
            for chunk in chunks:
                hasher.update(chunk)
                size += len(chunk)
                file.write(chunk)
            digest = digest_of_hex(hasher.hexdigest())
            if wanted(digest):
                commit(digest)
        return digest, size

    def put_file(self, source: Path) -> tuple[Digest, int]:
        """Keep a copy of a file that may be changed by others at any time."""
        with source.open("rb") as file:
            return self.put_stream(iter(lambda: file.read(_CHUNK), b""))

    def adopt(self, source: Path) -> tuple[Digest, int]:
        """Take over a file that nobody else will write to again: hashed in place, then renamed."""
        kept = self._adopt(source)
        fsync_folder(self.path(kept[0]).parent)
        return kept

    def adopt_all(self, sources: Sequence[Path]) -> list[tuple[Digest, int] | OSError]:
        """`adopt` for many, each with what went wrong instead. In threads: a disk writes many files that it is to make
        safe at the same time about as fast as one, and hashing leaves the interpreter free."""
        if len(sources) < 2:
            return [_tried(self.adopt, source) for source in sources]
        with ThreadPoolExecutor(_THREADS) as pool:
            kept = list(pool.map(lambda source: _tried(self._adopt, source), sources))
        for folder in {self.path(one[0]).parent for one in kept if not isinstance(one, OSError)}:
            fsync_folder(folder)
        return kept

    def _adopt(self, source: Path) -> tuple[Digest, int]:
        size = source.stat().st_size
        digest = digest_file(source)
        if not self._holds(digest, size):
            _fsync_file(source)
            os.chmod(source, _MODE)
            os.chown(source, os.getuid(), os.getgid())
            target = self.path(digest)
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)
        return digest, size

    def link(self, source: str, digest: Digest) -> None:
        """Keep a file whose digest is known, by hard link where the file system allows it, else by copy."""
        target = self._place(digest)
        try:
            _link(source, target)
        except FileExistsError:
            if os.stat(target).st_size != os.stat(source).st_size:
                self.put_file(Path(source))
        except OSError:
            copied, _ = self.put_file(Path(source))
            if copied != digest:
                raise damaged(digest, Path(source)) from None

    def _holds(self, digest: Digest, size: int) -> bool:
        """Whether keeping it again would change nothing: its size tells, and of a small blob its bytes. So what is
        recorded again takes the place of most damage, and costs no second reading of what is large."""
        path = self._place(digest)
        try:
            return os.stat(path).st_size == size and (size > _SMALL or digest_file(Path(path)) == digest)
        except OSError:
            return False

    def discard(self, digest: Digest) -> int:
        """Remove a blob; its size in bytes, 0 when it was gone."""
        path = self.path(digest)
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return 0
        return size

    @contextmanager
    def _incoming(self, *, durable: bool = True):  # type: ignore[no-untyped-def]
        self.temporary.mkdir(parents=True, exist_ok=True)
        temporary = self.temporary / f"blob-{secrets.token_hex(8)}"

        def commit(digest: Digest) -> None:
            _finish(file, durable=durable)
            target = self.path(digest)
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(target)
            if durable:
                fsync_folder(target.parent)

        try:
            with open(temporary, "xb", opener=lambda p, f: os.open(p, f, _MODE)) as file:
                yield file, commit
        except OSError as error:
            raise disk_error(error, f"write to {self.folder}") from error
        finally:
            temporary.unlink(missing_ok=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.link(source, target)


def copy_out(source: Path, target: Path, mode: int) -> None:
    """A private, writable copy of a blob."""
    shutil.copyfile(source, target)
    os.chmod(target, mode)


def missing(digest: Digest) -> LostError:
    mend = "`replay fsck --repair` looks for it; in a clone, `replay pull` brings what was pushed"
    return LostError(f"blob {digest} is missing from the store", "it was recorded, and is not there", mend)


def damaged(digest: Digest, path: Path) -> TamperedError:
    return TamperedError(
        f"blob {digest} is damaged",
        f"{path} does not hold the bytes that were recorded",
        "`replay fsck --repair` gets back what can be had again; nothing that rests on this file can be trusted",
    )


def _tried(adopt: Callable[[Path], tuple[Digest, int]], source: Path) -> tuple[Digest, int] | OSError:
    try:
        return adopt(source)
    except OSError as error:
        return error


def _finish(file: BinaryIO, *, durable: bool) -> None:
    file.flush()
    if durable:
        os.fsync(file.fileno())


def _fsync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
