"""Layers `data` and `model`: files that the job reads, by content.

A data path's version is what DVC's own files pin. It is fetched if it must be, every object re-hashed
(DVC itself delivers a corrupted one), and kept in the store by hard link where that works, so it costs a
directory entry. A model may also be a plain file of the workspace. Restored as a *view*: a sealed,
read-only folder made once per version and mounted at once, however many files it has.

The digest of a file is its SHA-256; that of a folder is the SHA-256 of its listing, a blob that opens
with a fixed mark.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from operator import attrgetter
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import msgspec

from runner.environment import check as sealed
from runner.environment import seal
from runner.environment.layout import FILE, Entry, folders_of
from runner.errors import TamperedError, UnrebuildableError, UsageError
from runner.state.checked import with_check, without_check
from runner.state.decode import decode_json
from runner.state.digest import Digest, are_digests, digest_file, digest_value, hex_of
from runner.state.paths import inside, listing_problem
from runner.state.plain import MALFORMED
from runner.state.spec import DataSeen, DvcPin, Sha256
from runner.store.files import is_within, link_or_copy, write_atomic
from runner.store.store import Store

if TYPE_CHECKING:
    from runner.tools import dvc

Allow = Callable[[str, Digest], None]
"""Raises `RefusedError` for a path at a version that must not be kept."""

_MARK = b'{"replay-folder":1,"files":'
_ONLY = "file"
# A URL may be the repository, but one with `user:password@` has two `@`, or one before its path.
_REFERENCE = re.compile(r"models:/[^/\s]+[/@][^/\s]+|(\w+://[^@/\s]+/)?[^@:\s]+@[^@\s]+")


class DataFile(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One file of a data folder; `path` is relative to it."""

    path: str
    sha256: str
    size: int


class Version(msgspec.Struct, frozen=True):
    """A data path at one version, as the store knows it."""

    digest: Sha256
    size: int
    nfiles: int | None = None


# --- observe ---------------------------------------------------------------------------------------------


def observe(store: Store, root: Path, path: str, allow: Allow) -> tuple[str, Version, DataSeen]:
    """The path, normalised, the version that DVC pins for it, and how DVC calls that version.

    The store has the version when `allow` is asked last, which takes out again what it refuses. Raises `UsageError`
    when DVC does not track it or the working copy is not what was added, and `TamperedError` when DVC's cache holds
    other bytes than the pin.
    """
    from runner.tools import dvc

    path = inside(path, "data")
    tracked = dvc.find_pin(root, path)
    version = _known(store, tracked)
    if version is None:
        if remembered := _remembered(store, tracked):  # what was erased is nowhere to be fetched from
            allow(path, Digest(remembered.digest))
        version = _learn(store, root, tracked)
    allow(path, Digest(version.digest))
    _refuse_edited(store, root, tracked)
    return path, version, DataSeen(dvc=tracked.pin, size=version.size, nfiles=version.nfiles)


def at_hand(store: Store, root: Path, path: str, recorded: DvcPin | None, digest: str | None) -> str:
    """The digest of the path as it stands, if looking alone can tell it: it is known, or the pin is the `recorded` one,
    of the content `digest`. Otherwise words that no digest equals."""
    from runner.tools import dvc

    path = inside(path, "data")
    try:
        tracked = dvc.find_pin(root, path)
    except UsageError:
        return _plain_at_hand(root / path)
    if _differs(store, root, tracked):
        return "edited since `dvc add`"
    if recorded and digest and tracked.pin.md5 == recorded.md5 and tracked.pin.inside == recorded.inside:
        return digest
    known = _known(store, tracked)
    return known.digest if known else f"MD5 {tracked.pin.md5}"


def _plain_at_hand(file: Path) -> str:
    return digest_file(file) if file.is_file() else "not there"


def observe_model(
    store: Store, root: Path, path: str, reference: str | None, allow: Allow
) -> tuple[str, Version, DataSeen]:
    """As `observe`, but a plain file that DVC does not track will do. `reference` is what a registry calls it."""
    if reference is not None:
        _refuse_odd_reference(path, reference)
    path, version, seen = _observe_model(store, root, path, allow)
    return path, version, msgspec.structs.replace(seen, reference=reference)


def _refuse_odd_reference(path: str, reference: str) -> None:
    if not _REFERENCE.fullmatch(reference) or not reference.isprintable():
        raise UsageError(
            f"model: the reference of {path} is none",
            "it is kept beside the digest of the file, to be compared; credentials have no place in it",
            "write it like `models:/NAME/VERSION` or `REPO@REVISION`",
        )


def _observe_model(store: Store, root: Path, path: str, allow: Allow) -> tuple[str, Version, DataSeen]:
    from runner.layers.stat_cache import StatCache

    path = inside(path, "model")
    file = root / path
    try:
        return observe(store, root, path, allow)
    except UsageError as untracked:
        if not file.is_file() or "not tracked" not in untracked.what:
            raise
    if not is_within(root, file):
        raise UsageError(f"model: {path} is a link to a file outside the workspace", os.path.realpath(file))
    hashes = StatCache(store.cache, file).hashes(file)
    if not store.blobs.has(hashes.sha256):
        store.blobs.put_file(file)
    allow(path, Digest(hashes.sha256))
    return path, Version(hashes.sha256, hashes.size), DataSeen(size=hashes.size)


def _known(store: Store, tracked: dvc.Tracked) -> Version | None:
    version = _remembered(store, tracked)
    return version if version and store.blobs.has(Digest(version.digest)) else None


def _remembered(store: Store, tracked: dvc.Tracked) -> Version | None:
    """What the path was when it was last in the store, whether it is there still or not."""
    try:
        return read_version(_version_path(store, tracked).read_bytes())
    except (FileNotFoundError, *MALFORMED):
        return None


def _version_path(store: Store, tracked: dvc.Tracked) -> Path:
    return store.cache / "versions" / version_name(tracked.path, tracked.pin)


def version_name(path: str, pin: DvcPin) -> str:
    """The name of the file in `cache/versions/` that keeps what a pinned path is in the store."""
    part = path.removeprefix(pin.inside) if pin.inside else ""
    return f"{hex_of(digest_value([pin.md5, pin.hash, part]))}.json"


def read_version(kept: bytes) -> Version:
    """Raises `msgspec.DecodeError` for what is not whole."""
    return decode_json(without_check(kept), Version)


def _learn(store: Store, root: Path, tracked: dvc.Tracked) -> Version:
    """Hash every object of the pin and keep it, and link it into the view, which is all that a job will need. The
    version is remembered by DVC's own digest."""
    from runner.tools import dvc

    dvc.fetch(root, {tracked.path: tracked.pin})
    entries = _entries(tracked)
    with seal.staging(store.cache) as stage:
        target = stage / "made" / seal.ROOT
        _make_folders(target, (entry.relpath for entry in entries))
        files = _keep_all(store, tracked, entries, target)
        version = _version_of(store, files)
        _publish_view(store, Digest(version.digest), stage / "made", files)
    place = _version_path(store, tracked)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(place, with_check(msgspec.json.encode(version)), through=store.tmp)
    return version


def _entries(tracked: dvc.Tracked) -> tuple[dvc.Entry, ...]:
    from runner.tools import dvc

    listing = tracked.listing or dvc.read_listing(dvc.cache_dir(tracked.repo), tracked.pin)
    return dvc.entries(tracked.path, tracked.pin, listing)


def _keep_all(store: Store, tracked: dvc.Tracked, entries: Iterable[dvc.Entry], target: Path) -> tuple[DataFile, ...]:
    """Paths are strings here: there may be tens of thousands, and pathlib would double what each costs."""
    from runner.tools import dvc

    objects, view = dvc.objects_folder(dvc.cache_dir(tracked.repo), tracked.pin.hash), str(target)
    kept = (_keep(store, objects, tracked, entry, f"{view}/{entry.relpath or _ONLY}") for entry in entries)
    return tuple(sorted(kept, key=attrgetter("path")))


def _keep(store: Store, objects: str, tracked: dvc.Tracked, entry: dvc.Entry, in_view: str) -> DataFile:
    from runner.tools import dvc

    source = f"{objects}/{entry.md5[:2]}/{entry.md5[2:]}"
    hashes = dvc.hash_file(source, tracked.pin.hash)
    if hashes.md5 != entry.md5:
        raise TamperedError(
            f"DVC's cache holds other bytes than {tracked.path} was added with",
            f"{source} has the MD5 {hashes.md5}",
            f"remove that file, then `dvc fetch {quote(tracked.target)}` or `dvc add {quote(tracked.path)}`",
        )
    store.blobs.link(source, hashes.sha256)
    try:
        link_or_copy(source, in_view)
    except OSError:  # DVC's cache is on another disk
        link_or_copy(store.blobs.verified(hashes.sha256), in_view)
    return DataFile(entry.relpath, hashes.sha256, hashes.size)


def _version_of(store: Store, files: tuple[DataFile, ...]) -> Version:
    if len(files) == 1 and files[0].path == "":
        return Version(files[0].sha256, files[0].size)
    digest = store.blobs.put_bytes(listing(files))
    return Version(digest, sum(file.size for file in files), len(files))


def _refuse_edited(store: Store, root: Path, tracked: dvc.Tracked) -> None:
    """What the user sees must be what is recorded."""
    if difference := _differs(store, root, tracked):
        raise UsageError(
            f"{tracked.path} is not what DVC has on record",
            str(difference),
            f"`dvc add {quote(tracked.path)}` to record the change, or `dvc checkout {quote(tracked.path)}` to undo it",
        )


def _differs(store: Store, root: Path, tracked: dvc.Tracked) -> dvc.Difference | None:
    from runner.layers.stat_cache import StatCache
    from runner.tools import dvc

    if not (root / tracked.path).exists():
        return None
    known = StatCache(store.cache, root / tracked.path)
    difference = dvc.working_copy_differs(root, tracked, _entries(tracked), known)
    known.save()
    return difference


# --- restore ---------------------------------------------------------------------------------------------


def files_of(store: Store, digest: Digest) -> tuple[DataFile, ...] | None:
    """The files of a folder; None when the digest is that of a single file."""
    if not _is_listing(store, digest):
        return None
    listing = store.blobs.read(digest)
    try:
        return decode_json(listing[len(_MARK) : -1], tuple[DataFile, ...])
    except MALFORMED as error:
        raise TamperedError(f"blob {digest} is not a listing of data files", str(error)) from error


def listing(files: Sequence[DataFile]) -> bytes:
    """What is kept of a folder, as the blob whose digest is the folder's."""
    return _MARK + msgspec.json.encode(files) + b"}"


def _is_listing(store: Store, digest: Digest) -> bool:
    with store.blobs.path(digest).open("rb") as blob:
        return blob.read(len(_MARK)) == _MARK


def view_folder(store: Store, digest: Digest) -> Path:
    return store.cache / "views" / hex_of(digest)


def blobs_of(store: Store, digest: Digest) -> tuple[Digest, ...]:
    """The files of that version, as far as the store can tell."""
    listed = files_of(store, digest) if store.blobs.has(digest) else None
    return (digest,) if listed is None else tuple(Digest(file.sha256) for file in listed)


def has_view(store: Store, digest: Digest) -> bool:
    return (view_folder(store, digest) / seal.DIGEST).is_file()


def available(store: Store, digest: Digest) -> bool:
    """Whether the store holds every file of that version."""
    if not store.blobs.has(digest):
        return False
    return all(store.blobs.has(Digest(file.sha256)) for file in files_of(store, digest) or ())


def can_fetch(root: Path, path: str, pin: DvcPin | None) -> bool:
    """Whether DVC could be asked for a lost version: it was pinned, and there is a repository to ask in."""
    from runner.tools import dvc

    return pin is not None and dvc.repo_of(root, path) is not None


def in_dvc_cache(root: Path, path: str, pin: DvcPin | None) -> bool:
    """Whether DVC has every file of a pinned version on this machine."""
    from runner.tools import dvc

    repo = dvc.repo_of(root, path)
    return pin is not None and repo is not None and not dvc.missing_objects(dvc.cache_dir(repo), path, pin)


def fetch_again(store: Store, root: Path, path: str, digest: Digest, pin: DvcPin | None) -> None:
    """Get a lost version back through DVC, by the pin recorded with it, whatever the workspace pins now."""
    from runner.tools import dvc

    repo = dvc.repo_of(root, path)
    if pin is None or repo is None:
        why = "DVC never tracked it" if pin is None else f"there is no DVC repository at {root} or above"
        raise _unrebuildable(path, digest, why)
    try:
        version = _learn(store, root, _recorded(root, path, pin, repo))
    except UnrebuildableError as error:
        raise _unrebuildable(path, digest, error.why or error.what) from error
    if version.digest != digest:
        raise TamperedError(
            f"the spec pins {path} twice, and the pins are for different content",
            f"DVC's {pin.md5} is {version.digest}, the state has {digest}",
            "restore the spec from git or from another copy",
        )


def drop_object(root: Path, path: str, pin: DvcPin, damaged: Path) -> bool:
    """Remove the object of DVC's cache that is another name of a damaged file, so that DVC fetches it again. False when
    there is none."""
    from runner.tools import dvc

    repo = dvc.repo_of(root, path)
    if repo is None or not damaged.is_file():
        return False
    entries = _entries(_recorded(root, path, pin, repo))
    places = (dvc.object_path(dvc.cache_dir(repo), pin.hash, entry.md5) for entry in entries)
    shared = [place for place in places if place.is_file() and place.samefile(damaged)]
    for place in shared:
        place.unlink()
    return bool(shared)


def _recorded(root: Path, path: str, pin: DvcPin, repo: Path) -> dvc.Tracked:
    """As the workspace tracks it, if at that very pin: only then are its own listing and remote the right ones."""
    from runner.tools import dvc

    try:
        tracked = dvc.find_pin(root, path)
    except UsageError:
        tracked = None
    if tracked and (tracked.pin.md5, tracked.pin.hash, tracked.pin.inside) == (pin.md5, pin.hash, pin.inside):
        return tracked
    return dvc.Tracked(path, pin, repo, source=repo, target=path)


def _unrebuildable(path: str, digest: Digest, why: str) -> UnrebuildableError:
    return UnrebuildableError(
        f"the data {path} cannot be had again ({digest})",
        f"the store does not hold it; {why}",
        "`replay fsck --repair` looks for a copy; else replay in a clone whose DVC remote has it",
    )


def restore(store: Store, digest: Digest) -> Path:
    """The file or folder to mount for a version, making its view when there is none yet."""
    place = view_folder(store, digest)
    if not has_view(store, digest):
        _make_view(store, digest)
    found = place / seal.ROOT / ("" if _is_listing(store, digest) else _ONLY)
    if not found.exists():
        # The view lost it, or the blob that says what to look for is damaged.
        store.blobs.verified(digest)
        discard(store, digest)
        _make_view(store, digest)
    return found


def check(store: Store, digest: Digest, *, full: bool = False) -> list[str]:
    """Names of files in the view that are not what they must be."""
    folder = view_folder(store, digest)
    return sealed.check_full(folder) if full else sealed.check_quick(folder)


def discard(store: Store, digest: Digest) -> None:
    """Drop a view, so that the next use makes it anew from blobs, each re-hashed."""
    seal.discard(view_folder(store, digest))


def _make_view(store: Store, digest: Digest) -> None:
    listed = files_of(store, digest)
    _refuse_misleading(digest, listed or ())
    files = (DataFile("", digest, store.blobs.path(digest).stat().st_size),) if listed is None else listed
    with seal.staging(store.cache) as stage:
        target = stage / "made" / seal.ROOT
        _make_folders(target, (file.path for file in files))
        for file in files:
            link_or_copy(store.blobs.verified(Digest(file.sha256)), f"{target}/{file.path or _ONLY}")
        _publish_view(store, digest, stage / "made", files)


def _publish_view(store: Store, digest: Digest, made: Path, files: Sequence[DataFile]) -> None:
    seal.seal(made, (Entry(file.path or _ONLY, FILE, file.size, file.sha256) for file in files))
    seal.publish(made, view_folder(store, digest))


def _make_folders(target: Path, paths: Iterable[str]) -> None:
    target.mkdir(parents=True)
    for folder in sorted(folders_of(paths)):
        (target / folder).mkdir()


def _refuse_misleading(digest: Digest, files: Collection[DataFile]) -> None:
    """Raises `TamperedError` for a listing that cannot be laid out, or whose digests are none."""
    problem = listing_problem([file.path for file in files])
    if problem is None and not are_digests([file.sha256 for file in files]):
        problem = "a digest in it is none"
    if problem:
        raise TamperedError(f"blob {digest} is no listing of data files that can be restored", problem)
