"""What there is in a store: every file read, hashed by several threads, each inode once. Concludes nothing."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from runner.environment import seal
from runner.environment.farm import RECIPE
from runner.environment.layout import FILE, PROGRAM, SYMLINK
from runner.erased import all_erased
from runner.errors import ReplayError
from runner.layers import code, data
from runner.layers.code import CodeFile
from runner.layers.data import DataFile
from runner.state.digest import Digest, digest_bytes, digest_file, digest_of_hex
from runner.state.health import FileKind
from runner.store import index
from runner.store.files import is_locked
from runner.store.log import Log
from runner.store.releases import Flaw
from runner.store.runs import ATTESTED, SUMS
from runner.store.store import SET_APART, Store
from runner.tools import pip
from runner.workspace import Workspace

FOLDERS: dict[str, FileKind] = {"trees": "tree", "environments": "environment", "views": "view"}
SMALL: dict[str, FileKind] = {
    "images": "image",
    "locks": "lock",
    "cache/probes": "probe",
    "cache/versions": "version",
    "cache/stat": "stat",
    "cache/profiles": "profile",
}
_KNOWN = frozenset(
    "blobs runs bisects nights images locks log releases erased cache scratch tmp key store.json .gitignore gc.lock "
    "turnstile.lock index.sqlite index.sqlite-journal index.sqlite-wal index.sqlite-shm".split()
)
_KNOWN_CACHE = frozenset(
    "trees environments views probes versions stat profiles locker locks pip tmp".split(),
)
_BLOB_FOLDER = re.compile(r"[0-9a-f]{2}")
_BLOB_NAME = re.compile(r"[0-9a-f]{62}")
_TEMPORARY = re.compile(r"\..+\.(tmp|gone)")


class Hashed(msgspec.Struct, frozen=True):
    """A file's digest and size; no digest when it could not be read, and why."""

    sha256: str | None
    size: int
    why: str = ""


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One run as files, None for one that is not there. `files` are the others of its folder in the store;
    `erased` the digests of what is missing on purpose."""

    run_id: str
    in_store: bool
    running: bool
    spec: bytes | None
    record: bytes | None
    sums: bytes | None
    reviewed_spec: bytes | None
    reviewed_record: bytes | None
    files: dict[str, Hashed]
    erased: frozenset[str] = frozenset()


class Inside(msgspec.Struct, frozen=True):
    """One file below the root of a sealed folder."""

    mode: str
    hashed: Hashed


class FolderFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One sealed folder of the cache."""

    kind: FileKind
    key: str
    manifest: bytes | None
    digest: bytes | None
    stamps: bytes | None
    recipe: bytes | None
    files: dict[str, Inside]
    folders: frozenset[str]


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a store. `small` are files by their path in the store, `index` is what is wrong with
    the index, `log` the damaged file of the log of signed records and why, `releases` what is wrong with files of
    releases, `lockers` are damaged files of pip-tools' copy, `strays` paths with what they seem to be, `erased` the
    digests of what is missing on purpose."""

    runs: tuple[RunFacts, ...]
    blobs: dict[Digest, Hashed]
    small: dict[str, bytes | None]
    folders: tuple[FolderFacts, ...]
    index: str | None
    log: tuple[str, str] | None
    releases: tuple[Flaw, ...]
    lockers: tuple[str, ...]
    strays: dict[str, str]
    unchecked: tuple[str, ...]
    files: int
    bytes: int
    erased: frozenset[str] = frozenset()


class Listings(msgspec.Struct, frozen=True):
    """The lists that whole blobs hold: of code, and of data folders (None: the blob is a single file)."""

    code: Mapping[Digest, tuple[CodeFile, ...]]
    data: Mapping[Digest, tuple[DataFile, ...] | None]


class Hasher:
    """Remembers by inode and status: hard links and what was hashed before cost one `stat`."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], Hashed] = {}
        self.files = 0
        self.bytes = 0

    def all(self, paths: Iterable[Path]) -> dict[Path, Hashed]:
        """Each path's digest; what is gone by now is left out."""
        found = {path: status for path in paths if (status := _status(path))}
        asked = {_look(status): path for path, status in found.items() if _look(status) not in self._known}
        with ThreadPoolExecutor(max(2, os.cpu_count() or 2)) as pool:
            for look, hashed in zip(asked, pool.map(_hash, asked.values()), strict=True):
                self._known[look] = hashed
                self.files += 1
                self.bytes += hashed.size
        return {path: self._known[_look(status)] for path, status in found.items()}


def look(workspace: Workspace, hasher: Hasher, say: Callable[[str], None], *, alone: bool) -> Facts:
    """Read the whole store. Runs first: whatever one of them names was there before it. `alone` says that nobody
    else adds, so that temporary files are left-overs."""
    store = workspace.store
    erased = frozenset(map(str, all_erased(store, workspace.specs)))
    found = (_run(workspace, run_id, hasher) for run_id in workspace.run_ids())
    runs = tuple(msgspec.structs.replace(run, erased=erased) for run in found)
    places = dict(_blob_places(store))
    folders = list(_sealed(store))
    names = {folder: _survey(folder / seal.ROOT) for folder, _ in folders}
    paths = [*places.values(), *(path for found in names.values() for path in found[0])]
    say(f"fsck: {len(runs)} runs, {len(places)} blobs, {len(folders)} folders of the cache; hashing {len(paths)} files")
    hashed = hasher.all(paths)
    small = dict(_small_files(store))
    sealed = tuple(_folder(folder, kind, *names[folder], hashed) for folder, kind in folders if folder.is_dir())
    return Facts(
        runs=runs,
        blobs={digest: hashed[path] for digest, path in places.items() if path in hashed},
        small=small,
        folders=sealed,
        index=index.damage(store.folder / "index.sqlite", workspace.run),
        log=Log(store).damage(),
        releases=tuple(workspace.releases.flaws()),
        lockers=tuple(str(path.relative_to(store.folder)) for path in pip.locker_damage(store.cache)),
        strays=dict(_strays(workspace, alone=alone)),
        unchecked=tuple(_unchecked(store)),
        files=hasher.files + len(small),
        bytes=hasher.bytes,
        erased=erased,
    )


def read_listings(store: Store, codes: Iterable[Digest], versions: Iterable[Digest], whole: set[Digest]) -> Listings:
    """The lists among blobs that are `whole`; what is no list, though it must be one, is left out."""
    found: dict[Digest, tuple[CodeFile, ...]] = {}
    for digest in {*codes} & whole:
        try:
            found[digest] = code.files_of(store, digest)
        except ReplayError:
            continue
    return Listings(found, {digest: data.files_of(store, digest) for digest in {*versions} & whole})


def read(path: Path) -> bytes | None:
    """A small file's bytes; None when there is none. What else is in its place, as a pipe or a device, is no file."""
    try:
        return path.read_bytes() if path.is_file() else None
    except (FileNotFoundError, NotADirectoryError):
        return None


def _run(workspace: Workspace, run_id: str, hasher: Hasher) -> RunFacts:
    """A run's files as they were at one moment: read again while somebody finishes or forgets it."""
    while True:
        before = _outline(workspace, run_id)
        found = _read_run(workspace, run_id, hasher)
        if found.running or _outline(workspace, run_id) == before:
            return found


def _outline(workspace: Workspace, run_id: str) -> list[tuple[str, tuple[int, ...] | None]]:
    folder, specs = workspace.store.runs / run_id, workspace.specs
    reviewed = [specs / f"{run_id}.yaml", specs / f"{run_id}.record.json"] if specs else []
    found = ((path.name, _status(path)) for path in (*_entries(folder), *reviewed) if path.name != "lock")
    return [(name, _look(status) if status else None) for name, status in found]


def _read_run(workspace: Workspace, run_id: str, hasher: Hasher) -> RunFacts:
    folder, specs = workspace.store.runs / run_id, workspace.specs
    others = [path for path in _entries(folder) if path.name not in ("spec.yaml", "record.json", SUMS, "lock")]
    hashed = hasher.all(path for path in others if not _TEMPORARY.fullmatch(path.name))
    return RunFacts(
        run_id=run_id,
        in_store=folder.is_dir(),
        running=is_locked(folder / "lock"),
        spec=read(folder / "spec.yaml"),
        record=read(folder / "record.json"),
        sums=read(folder / SUMS),
        reviewed_spec=read(specs / f"{run_id}.yaml") if specs else None,
        reviewed_record=read(specs / f"{run_id}.record.json") if specs else None,
        files={path.name: found for path, found in hashed.items()},
    )


def _blob_places(store: Store) -> Iterator[tuple[Digest, Path]]:
    for folder in _entries(store.blobs.folder):
        if _BLOB_FOLDER.fullmatch(folder.name):
            for path in _entries(folder):
                if _BLOB_NAME.fullmatch(path.name):
                    yield digest_of_hex(folder.name + path.name), path


def _sealed(store: Store) -> Iterator[tuple[Path, FileKind]]:
    for name, kind in FOLDERS.items():
        yield from ((folder, kind) for folder in _entries(store.cache / name) if not _TEMPORARY.fullmatch(folder.name))


def _survey(root: Path) -> tuple[list[Path], frozenset[str]]:
    try:
        stamps, folders = seal.survey(root)
    except OSError:
        return [], frozenset()
    return [root / path for path in stamps], frozenset(folders)


def _folder(
    folder: Path, kind: FileKind, paths: list[Path], folders: frozenset[str], hashed: Mapping[Path, Hashed]
) -> FolderFacts:
    root = folder / seal.ROOT
    return FolderFacts(
        kind=kind,
        key=folder.name,
        manifest=read(folder / seal.MANIFEST),
        digest=read(folder / seal.DIGEST),
        stamps=read(folder / seal.STAMPS),
        recipe=read(folder / RECIPE),
        files={str(path.relative_to(root)): _inside(path, hashed[path]) for path in paths if path in hashed},
        folders=folders,
    )


def _inside(path: Path, hashed: Hashed) -> Inside:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return Inside(SYMLINK, hashed)
    return Inside(PROGRAM if mode & stat.S_IXUSR else FILE, hashed)


def _small_files(store: Store) -> Iterator[tuple[str, bytes | None]]:
    for name in ("store.json", "key", ".gitignore"):
        yield name, read(store.folder / name)
    for name in SMALL:
        for path in _entries(store.folder / name):
            if not _TEMPORARY.fullmatch(path.name):
                yield f"{name}/{path.name}", read(path)


def _strays(workspace: Workspace, *, alone: bool) -> Iterator[tuple[str, str]]:
    store = workspace.store
    top = ((entry, _KNOWN) for entry in _entries(store.folder))
    cache = ((entry, _KNOWN_CACHE) for entry in _entries(store.cache))
    for entry, known in (*top, *cache):
        if entry.name not in known:
            yield _in_store(store, entry), "not of this store"
    for folder in _entries(store.blobs.folder):
        if not _BLOB_FOLDER.fullmatch(folder.name) or not folder.is_dir():
            yield _in_store(store, folder), "not the name of a blob"
            continue
        for path in _entries(folder):
            if not _BLOB_NAME.fullmatch(path.name):
                yield _in_store(store, path), "not the name of a blob"
    if alone:
        yield from _left_over(workspace)


def _left_over(workspace: Workspace) -> Iterator[tuple[str, str]]:
    store, known = workspace.store, {*workspace.run_ids()}
    for entry in (*_entries(store.tmp), *_entries(store.cache / "tmp")):
        if not entry.name.startswith(SET_APART):
            yield _in_store(store, entry), "left by a command that was killed"
    for folder in _entries(store.scratch):
        if not is_locked(store.runs / folder.name / "lock"):
            yield _in_store(store, folder), "left by a command that was killed"
    places = [store.folder, store.runs, *_entries(store.runs), *(store.folder / name for name in SMALL)]
    places += [store.cache / name for name in FOLDERS]
    for entry in (entry for place in places for entry in _entries(place) if _TEMPORARY.fullmatch(entry.name)):
        yield _in_store(store, entry), "left by a command that was killed"
    for entry in _entries(workspace.specs) if workspace.specs else ():
        if _TEMPORARY.fullmatch(entry.name):
            yield f"{entry.parent.name}/{entry.name}", "left by a command that was killed"
    for entry in _entries(store.runs):
        if entry.name not in known and not _TEMPORARY.fullmatch(entry.name):
            yield _in_store(store, entry), "not the name of a run"


def _unchecked(store: Store) -> Iterator[str]:
    if (store.cache / "pip").is_dir():
        yield "cache/pip: pip's own cache; what pip takes from it is verified by the lock"
    if any((folder / name).exists() for folder in _entries(store.runs) for name in ATTESTED):
        yield "what was signed in runs/: `replay verify` checks it, run by run"
    for folder in _entries(store.runs):
        if (folder / "spec.yaml").exists() and not (folder / "record.json").exists():
            yield f"logs in runs/{folder.name}: it was never finished"


def _in_store(store: Store, path: Path) -> str:
    return str(path.relative_to(store.folder))


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _look(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _hash(path: Path) -> Hashed:
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            return Hashed(digest_bytes(os.fsencode(path.readlink())), status.st_size)
        if not stat.S_ISREG(status.st_mode):
            return Hashed(None, 0, "it is no file")
        return Hashed(digest_file(path), status.st_size)
    except OSError as error:
        return Hashed(None, 0, error.strerror or str(error))
