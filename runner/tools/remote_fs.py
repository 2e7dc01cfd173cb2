"""The only door to remotes: objects by name, in the remotes that DVC is configured with.

A folder of this machine is read and written directly; everything else through DVC's own file systems (fsspec), which
are imported only then. An object appears whole or not at all. What a remote lists was written by others: names that
no object of ours can have are never passed on.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import secrets
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

from runner.errors import OutsideError, ReplayError, UsageError, disk_error
from runner.state.digest import Digest, digest_bytes, digest_file, digest_of_hex
from runner.tools.dvc_config import DvcConfig, full_options, is_url, remote_name, without_credentials
from runner.tools.threads import in_threads

_TEMPORARY = "replay/tmp"
_ABANDONED_S = 86_400
_CHUNK = 1 << 20
_LARGE = 16 << 20
_FEW = 500
WITHOUT_LISTING = frozenset({"http", "https"})
_ATOMIC = frozenset({"s3", "gs", "azure", "oss"})
_NUMBERS = frozenset(
    {"port", "timeout", "max_sessions", "read_timeout", "connect_timeout", "connection_timeout", "replication"}
)
_TRUTH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_TEXTS = frozenset({"url", "user", "password", "passphrase", "access_key_id", "secret_access_key", "session_token"})


class NotThere(Exception):
    """The remote answered, and has no such object."""


class Remote(Protocol):
    """Every method raises `OutsideError` when the remote cannot be used. Names are relative to the remote's
    folder."""

    name: str
    url: str
    jobs: int
    is_local: bool

    def listing(self, folder: str) -> dict[str, int]:
        """The objects below a folder by name, relative to it, and their sizes."""

    def sizes(self, names: Collection[str]) -> dict[str, int]:
        """Of these objects, those that are there, and their sizes: asked one by one, or listed where they are many. A
        name has two folders to itself, as `blobs/ab/cdef`."""

    def folders(self, folder: str) -> Iterator[tuple[str, list[str]]]:
        """The folders in a folder, and the names in each: the quickest way to learn what of many is there."""

    def chunks(self, name: str) -> Iterator[bytes]:
        """An object's bytes. Raises `NotThere` before the first of them."""

    def send(self, name: str, source: Path, digest: Digest) -> bool:
        """Put a file there, if it has that digest; else nothing is put there, and it is False."""

    def send_bytes(self, name: str, data: bytes) -> None: ...

    def make_ready(self) -> None:
        """Before it is written to: make its folder, remove what a command killed more than a day ago left there."""


def open_remote(config: DvcConfig, name: str | None = None) -> Remote:
    """The remote called `name`, or the default one. Raises `UsageError` when it is not configured."""
    found = remote_name(config, name)
    if found is None:
        what = f"DVC knows no remote called {name!r}" if name else "DVC has no default remote here"
        raise UsageError(
            what,
            f"it has {', '.join(sorted(config.remotes)) or 'none'}",
            "`dvc remote add -d NAME URL` in the repository, or name one with --remote",
        )
    options = full_options(config, found)
    if not is_url(options["url"]):
        return LocalRemote(found, options["url"])
    return _opened(found, options)


def _opened(name: str, options: Mapping[str, str]) -> Remote:
    url = without_credentials(options["url"])
    scheme = urlsplit(options["url"]).scheme
    if scheme == "file":
        return LocalRemote(name, urlsplit(options["url"]).path)
    if scheme in WITHOUT_LISTING:
        raise UsageError(
            f"the remote {name} cannot be used for runs",
            f"{url} is a web server, which neither lists nor renames what it has",
            "name another remote with --remote: a folder, s3, gs, azure, ssh, webdav",
        )
    from dvc_objects.fs import registry

    if scheme not in registry:
        raise UsageError(f"the remote {name} has a URL that DVC does not know", url, "see `dvc remote list`")
    package = f"dvc-{scheme}" if scheme != "webdavs" else "dvc-webdav"
    try:
        kind = registry[scheme]
    except ImportError:
        raise UsageError(
            f"the remote {name} needs a package that is not installed",
            f"{url} is reached through {package}",
            f"pip install {package}",
        ) from None
    return FsspecRemote(name, url, scheme, kind, _typed(options))


def _typed(options: Mapping[str, str]) -> dict[str, Any]:
    """Values as DVC hands them to its file systems: numbers and truth are no longer text."""
    return {key: _value(key, value) for key, value in options.items()}


def _value(key: str, value: str) -> Any:
    if key in _NUMBERS and value.isdigit():
        return int(value)
    return value if key in _TEXTS else _TRUTH.get(value.lower(), value)


# --- a folder of this machine ----------------------------------------------------------------------------------


class LocalRemote:
    """Files appear by rename. As with `rsync`, nothing waits for the disk: what a crash cut short has another size
    and is sent again, and whoever fetches it hashes it."""

    is_local = True

    def __init__(self, name: str, root: str) -> None:
        self.name = name
        self.url = root
        self.jobs = max(4, 2 * (os.cpu_count() or 1))
        self._base = root

    def listing(self, folder: str) -> dict[str, int]:
        self._refuse_absent()
        try:
            return dict(_files_below(f"{self._base}/{folder}"))
        except OSError as error:
            raise self._failed("list", error) from error

    def sizes(self, names: Collection[str]) -> dict[str, int]:
        found = {}
        for name in names:
            try:
                found[name] = os.stat(f"{self._base}/{name}").st_size
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise self._failed("look into", error) from error
        return found

    def folders(self, folder: str) -> Iterator[tuple[str, list[str]]]:
        base = f"{self._base}/{folder}"
        for name in self._names(base):
            yield name, self._names(f"{base}/{name}")

    def _names(self, folder: str) -> list[str]:
        try:
            return os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._failed("list", error) from error

    def chunks(self, name: str) -> Iterator[bytes]:
        self._refuse_absent()
        try:
            # Without O_NONBLOCK, opening a FIFO would wait until somebody writes to it.
            descriptor = os.open(f"{self._base}/{name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            raise NotThere(name) from None
        except OSError as error:
            raise self._failed("read", error) from error
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise NotThere(name)
            while chunk := os.read(descriptor, _CHUNK):
                yield chunk
        except OSError as error:
            raise self._failed("read", error) from error
        finally:
            os.close(descriptor)

    def send(self, name: str, source: Path, digest: Digest) -> bool:
        with _opened_source(source) as file:
            return self._write(name, iter(lambda: file.read(_CHUNK), b""), digest)

    def send_bytes(self, name: str, data: bytes) -> None:
        self._write(name, [data], digest_bytes(data))

    def make_ready(self) -> None:
        try:
            os.makedirs(self._base, exist_ok=True)
        except OSError as error:
            raise self._failed("make", error) from error
        with contextlib.suppress(OSError), os.scandir(f"{self._base}/{_TEMPORARY}") as entries:
            for entry in entries:
                if time.time() - entry.stat(follow_symlinks=False).st_mtime > _ABANDONED_S:
                    os.unlink(entry.path)

    def _write(self, name: str, chunks: Iterable[bytes], digest: Digest) -> bool:
        target = f"{self._base}/{name}"
        temporary = f"{self._base}/{_TEMPORARY}/{secrets.token_hex(8)}"
        hasher = hashlib.sha256()
        try:
            descriptor = _created(temporary)
            try:
                for chunk in chunks:
                    hasher.update(chunk)
                    _write_all(descriptor, chunk)
            finally:
                os.close(descriptor)
            right = digest_of_hex(hasher.hexdigest()) == digest
            if right:
                _renamed(temporary, target)
            else:
                os.unlink(temporary)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise self._failed("write to", error) from error
        return right

    def _refuse_absent(self) -> None:
        if not os.path.isdir(self._base):
            raise OutsideError(
                f"the remote {self.name} cannot be reached",
                f"there is no folder {self._base}",
                "mount it, or make it (`replay push` does)",
            )

    def _failed(self, doing: str, error: OSError) -> OutsideError:
        return disk_error(error, f"{doing} the remote {self.name} at {self.url}")


def _files_below(folder: str, prefix: str = "") -> Iterator[tuple[str, int]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    yield from _files_below(entry.path, f"{name}/")
                elif entry.is_file(follow_symlinks=False):
                    yield name, entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return


def _created(path: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o444)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return os.open(path, flags, 0o444)


def _renamed(source: str, target: str) -> None:
    try:
        os.rename(source, target)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.rename(source, target)


def _write_all(descriptor: int, data: bytes) -> None:
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, memoryview(data)[written:])


def _opened_source(source: Path) -> IO[bytes]:
    try:
        return source.open("rb", buffering=0)
    except OSError as error:
        raise disk_error(error, f"read {source}") from error


# --- everything else, through fsspec -----------------------------------------------------------------------------


class FsspecRemote:
    """What an object store is sent appears at once and whole; elsewhere it is renamed when it is. After an error the
    next call connects anew: what a server that went away leaves behind never answers again."""

    is_local = False

    def __init__(self, name: str, url: str, scheme: str, kind: Any, options: Mapping[str, Any]) -> None:
        self.name = name
        self.url = url
        self.jobs = 16
        self._is_doubtful = False
        self._connecting = threading.Lock()
        self._atomic = scheme in _ATOMIC
        self._is_webdav = scheme.startswith("webdav")
        with self._failing("reach"):
            # A WebDAV server's URL is itself the root.
            self._base = kind.root_marker if self._is_webdav else kind._strip_protocol(options["url"])
            settings = {key: value for key, value in options.items() if key not in ("url", "jobs", "checksum_jobs")}
            settings = kind._get_kwargs_from_urls(options["url"]) | settings
            self._connect: Callable[[], Any] = lambda: kind(**settings).fs
            self._fs = self._connect()
        self._made: set[str] = set()

    def listing(self, folder: str) -> dict[str, int]:
        base = f"{self._base}/{folder}"
        with self._failing("list"):
            self._fs.invalidate_cache()
            try:
                found = self._fs.find(base, detail=True)
            except FileNotFoundError:
                return {}
        skipped = len(base.lstrip("/")) + 1
        return {path.lstrip("/")[skipped:]: info.get("size") or 0 for path, info in found.items()}

    def sizes(self, names: Collection[str]) -> dict[str, int]:
        if len(names) > _FEW:
            wanted, folders = set(names), {posixpath.dirname(posixpath.dirname(name)) for name in names}
            listed = ((f"{folder}/{name}", size) for folder in folders for name, size in self.listing(folder).items())
            return {name: size for name, size in listed if name in wanted}
        found = in_threads(self._size, names, self.jobs)
        return {name: size for name, size in zip(names, found, strict=True) if size is not None}

    def folders(self, folder: str) -> Iterator[tuple[str, list[str]]]:
        found: dict[str, list[str]] = {}
        for name in self.listing(folder):
            parent, _, rest = name.partition("/")
            found.setdefault(parent, []).append(rest)
        yield from found.items()

    def _size(self, name: str) -> int | None:
        with self._failing("look into"):
            try:
                return int(self._fs.info(f"{self._base}/{name}", refresh=True)["size"] or 0)
            except FileNotFoundError:
                return None

    def chunks(self, name: str) -> Iterator[bytes]:
        with self._failing("read"):
            try:
                file = self._fs.open(f"{self._base}/{name}", "rb", block_size=_LARGE)
            except FileNotFoundError:
                raise NotThere(name) from None
        with contextlib.closing(file):
            while chunk := self._read(file):
                yield chunk

    def _read(self, file: IO[bytes]) -> bytes:
        with self._failing("read"):
            return file.read(_CHUNK)

    def send(self, name: str, source: Path, digest: Digest) -> bool:
        """Hashed before it is sent: an object store shows what it was sent as soon as it has it."""
        with _opened_source(source) as file:
            data = file.read(_LARGE)
            if len(data) < _LARGE:
                if digest_bytes(data) != digest:
                    return False
                self.send_bytes(name, data)
                return True
        if digest_file(source) != digest:
            return False
        self._appear(name, lambda path: self._fs.put_file(str(source), path))
        return True

    def send_bytes(self, name: str, data: bytes) -> None:
        self._appear(name, lambda path: self._fs.pipe_file(path, data))

    def make_ready(self) -> None:
        """Folders come with what is put there; what was left stays, as no one way to tell its age is common to all."""

    def _appear(self, name: str, put: Callable[[str], object]) -> None:
        target = f"{self._base}/{name}"
        with self._failing("write to"):
            if self._atomic:
                put(target)
                return
            temporary = f"{self._base}/{_TEMPORARY}/{secrets.token_hex(8)}"
            for folder in {posixpath.dirname(target), posixpath.dirname(temporary)} - self._made:
                self._fs.makedirs(folder, exist_ok=True)
                self._made.add(folder)
            put(temporary)
            if self._is_webdav:  # what it calls `mv` is a copy that replaces nothing
                self._fs.client.move(temporary, target, overwrite=True)
            else:
                self._fs.mv(temporary, target)

    @contextlib.contextmanager
    def _failing(self, doing: str) -> Iterator[None]:
        """Each file system raises errors of its own, of libraries that need not be installed."""
        try:
            with self._connecting:
                if self._is_doubtful:
                    self._fs = self._connect()
                    self._is_doubtful = False
            yield
        except (NotThere, ReplayError):
            raise
        except Exception as error:
            self._is_doubtful = True
            why = " ".join(str(error).split()) or type(error).__name__
            raise OutsideError(
                f"cannot {doing} the remote {self.name} at {self.url}",
                f"{type(error).__name__}: {why}",
                "check that it answers and that you may use it: `dvc status -c`, `dvc remote list`",
            ) from error
