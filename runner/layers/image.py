"""Layer `image`: what the job's file system is made of.

Observed as platform, layer digests and runtime configuration, wherever the image came from. Restored
from, in this order: the engine, the registry by digest, the store's archive, the recipe in `images/`.
The engine's own id, tags and manifest digests only help to find it; content decides.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import msgspec

from runner.errors import OutsideError, UnrebuildableError, UsageError
from runner.state.checked import checked_if_marked, with_check
from runner.state.decode import decode_json
from runner.state.digest import Digest, digest_bytes, digest_value, hex_of
from runner.state.plain import MALFORMED
from runner.state.spec import Image, ImageSeen, Sha256
from runner.store.files import write_atomic
from runner.store.store import Store
from runner.tools.containers import Engine, EngineImage

_CHUNK = 1 << 20
_FOLDERS = ("images/", "./", "../", "/")
_REFERENCE = re.compile(
    r"([A-Za-z0-9.-]+(:\d+)?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*(:\w[\w.-]{0,127})?(@sha256:[0-9a-f]{64})?", re.ASCII
)
Say = Callable[[str], None]


class Archive(msgspec.Struct, frozen=True):
    """An image kept in the store: its configuration and its unpacked layers, each a blob."""

    config: Sha256
    layers: tuple[Sha256, ...]


class FoundImage(msgspec.Struct, frozen=True):
    """An image that an engine holds now: the engine's id, its identity, what was observed of it."""

    id: str
    identity: Image
    seen: ImageSeen


# --- observe ---------------------------------------------------------------------------------------------


def observe(engine: Engine, store: Store, root: Path, reference: str, keep_entrypoint: bool, say: Say) -> FoundImage:
    """Find or make the image that a job names, and make sure that it can be had again.

    `reference` is a folder below `root` that holds a Dockerfile or recipe, or anything that an engine
    understands. An image that no registry serves is archived in the store.
    """
    folder = image_folder(root, reference)
    found = _from_folder(engine, store, folder, say) if folder else _from_reference(engine, reference, say)
    identity = identity_of(found, keep_entrypoint)
    archived = ensure_archived(engine, store, found, say)
    seen = ImageSeen(
        reference=reference,
        config=found.id,
        repo_digests=found.repo_digests,
        folder=reference if folder else None,
        archived=archived,
    )
    return FoundImage(found.id, identity, seen)


def at_hand(engine: Engine, root: Path, reference: str) -> EngineImage | None:
    """The image that a job names, if the engine has it already."""
    folder = image_folder(root, reference)
    return engine.image(_tag_of(folder) if folder else reference)


def image_folder(root: Path, reference: str) -> Path | None:
    """The folder that a reference means, if it means one. Raises `UsageError` for one that holds nothing."""
    folder = root / reference
    if os.path.isdir(folder) and root in folder.resolve().parents:
        if _describes_image(folder):
            return folder
        if reference.startswith(_FOLDERS):
            raise UsageError(f"image: {reference} holds no Dockerfile and no recipe.yaml", next="add one of them")
    if reference.startswith(_FOLDERS):
        raise UsageError(f"image: there is no folder {reference}", f"looked in {root}", "give a folder of images/")
    if not _REFERENCE.fullmatch(reference):
        raise UsageError(
            f"image: {reference!r} is no image reference",
            "it is no folder, and engines would not understand it",
            "write it like python:3.11-slim, or name a folder of images/",
        )
    return None


def folders_of(root: Path) -> Iterator[str]:
    """The folders of `images/` that describe an image, whoever uses them."""
    images = root / "images"
    for folder in sorted(images.iterdir()) if images.is_dir() else ():
        if folder.is_dir() and _describes_image(folder):
            yield f"images/{folder.name}"


def _describes_image(folder: Path) -> bool:
    return (folder / "Dockerfile").is_file() or (folder / "recipe.yaml").is_file()


def identity_of(found: EngineImage, keep: bool) -> Image:
    if not keep:
        return found.identity
    config = msgspec.structs.replace(found.identity.config, entrypoint=found.entrypoint or None)
    return msgspec.structs.replace(found.identity, config=config)


def _from_reference(engine: Engine, reference: str, say: Say) -> EngineImage:
    found = engine.image(reference)
    if found:
        return found
    say(f"image {reference}: pulling")
    try:
        return engine.pull(reference)
    except OutsideError as error:
        raise OutsideError(
            f"there is no image {reference}",
            f"the engine has none, and {error.why}",
            "check the name, `docker login` if it is private, or name a folder of images/",
        ) from error


def _from_folder(engine: Engine, store: Store, folder: Path, say: Say) -> EngineImage:
    tag = _tag_of(folder)
    return engine.image(tag) or build(engine, store, folder, tag, say)


def _tag_of(folder: Path) -> str:
    return f"replay/{folder.name.lower()}:{hex_of(_folder_digest(folder))[:16]}"


def build(engine: Engine, store: Store, folder: Path, tag: str, say: Say) -> EngineImage:
    """Build by Dockerfile; where that fails (no registry answers, say) by recipe, if there is one."""
    from runner.tools import debian

    failure: OutsideError | None = None
    if (folder / "Dockerfile").is_file():
        say(f"image {folder.name}: building its Dockerfile")
        try:
            return engine.build(folder, tag)
        except OutsideError as error:
            failure = error
    if not (folder / "recipe.yaml").is_file():
        raise failure or OutsideError(f"cannot build {folder}")
    say(f"image {folder.name}: " + (f"{failure.why}; " if failure else "") + "building its recipe instead")
    recipe = debian.load_recipe(folder / "recipe.yaml")
    tar = store.tmp / f"{folder.name}-{hex_of(_folder_digest(folder))[:16]}.tar"
    try:
        debian.bootstrap(recipe, tar)
        return engine.import_tar(tar, tag, debian.import_changes(recipe))
    finally:
        tar.unlink(missing_ok=True)


def _folder_digest(folder: Path) -> Digest:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest_value([[str(path.relative_to(folder)), digest_bytes(path.read_bytes())] for path in files])


# --- archive ----------------------------------------------------------------------------------------------


def ensure_archived(engine: Engine, store: Store, found: EngineImage, say: Say) -> bool:
    """Whether the store keeps the image itself. It does unless a registry was seen to serve it."""
    if archive_of(store, found.identity):
        return True
    if any(engine.registry_has(name) for name in found.repo_digests):
        return False
    say("image: no registry serves it, so the store keeps a copy")
    archive = _unpack_saved(store, engine.save(found.id), found.identity)
    _keep_archive(store, found.identity, archive)
    return True


def archive_of(store: Store, identity: Image) -> Archive | None:
    """The archive of that image, if the store has one with all its blobs."""
    try:
        archive = read_archive(archive_path(store, identity).read_bytes())
    except (FileNotFoundError, *MALFORMED):
        return None
    blobs = (archive.config, *archive.layers)
    return archive if all(store.blobs.has(Digest(blob)) for blob in blobs) else None


def archived_at(store: Store, digest: Digest) -> bool:
    """Whether the store has the archive that is kept under that digest, with all its blobs."""
    try:
        archive = read_archive((store.images / f"{hex_of(digest)}.json").read_bytes())
    except (FileNotFoundError, *MALFORMED):
        return False
    return all(store.blobs.has(Digest(blob)) for blob in (archive.config, *archive.layers))


def archived_blobs(store: Store, identity: Image) -> Iterator[Digest]:
    """Every blob that the image's archive is made of, also where others of them were lost."""
    yield from (Digest(layer) for layer in identity.diff_ids)
    with contextlib.suppress(FileNotFoundError, *MALFORMED):
        yield Digest(read_archive(archive_path(store, identity).read_bytes()).config)


def archive_path(store: Store, identity: Image) -> Path:
    return store.images / archive_name(identity)


def archive_name(identity: Image) -> str:
    """The name of the file in `images/` that tells of the image's archive."""
    return f"{hex_of(archive_digest(identity))}.json"


def archive_digest(identity: Image) -> Digest:
    """What an archive is kept under: the digest of the image without an entrypoint, which only some jobs keep."""
    without_entrypoint = msgspec.structs.replace(
        identity, config=msgspec.structs.replace(identity.config, entrypoint=None)
    )
    return digest_value(without_entrypoint)


def has_archive(store: Store, identity: Image) -> bool:
    """Whether the store says that it keeps the image; its blobs may be lost all the same."""
    return archive_path(store, identity).is_file()


def archive_again(engine: Engine, store: Store, root: Path, identity: Image, seen: ImageSeen, say: Say) -> None:
    """Keep the image anew, from the engine or the registry. Raises `ReplayError` when neither has exactly that one."""
    places = [place for place in sources(engine, store, root, identity, seen) if place.kind in ("engine", "registry")]
    found = restore(engine, store, root, identity, places, say)
    _keep_archive(store, identity, _unpack_saved(store, engine.save(found), identity))


def read_archive(kept: bytes) -> Archive:
    """Raises `msgspec.DecodeError` for what is not whole."""
    return decode_json(checked_if_marked(kept), Archive)


def _keep_archive(store: Store, identity: Image, archive: Archive) -> None:
    write_atomic(archive_path(store, identity), with_check(msgspec.json.encode(archive)), through=store.tmp)


def _unpack_saved(store: Store, stream: Iterator[bytes], identity: Image) -> Archive:
    """Split a saved image into blobs: the configuration and each layer, unpacked, by its own digest."""
    import tarfile

    from runner.tools.tar_streams import ChunkReader

    small: dict[str, bytes] = {}
    wanted = set(identity.diff_ids)
    try:
        with tarfile.open(fileobj=ChunkReader(stream), mode="r|") as saved:
            for member in saved:
                content = saved.extractfile(member) if member.isfile() else None
                if content is None:
                    continue
                if member.size < 1 << 20:
                    data = content.read()
                    small[member.name] = data
                    _keep_layer(store, io.BytesIO(data), wanted)
                else:
                    _keep_layer(store, content, wanted)
        lost = [diff_id for diff_id in identity.diff_ids if not store.blobs.has(Digest(diff_id))]
        if lost:
            raise OutsideError("the engine saved the image without all of its layers", f"{lost[0]} is not among them")
        config = small[decode_json(small["manifest.json"], tuple[_Saved, ...])[0].config]
    except (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, LookupError, ValueError, RecursionError) as error:
        raise OutsideError(
            "the image that the engine saved cannot be read", str(error), "run the command again"
        ) from error
    return Archive(config=store.blobs.put_bytes(config), layers=identity.diff_ids)


class _Saved(msgspec.Struct, rename="pascal"):
    """An image in the manifest of a saved one."""

    config: str


def _keep_layer(store: Store, content: IO[bytes], wanted: set[str]) -> None:
    """Keep a member of a saved image if it is a wanted layer, plain or gzipped; anything else is dropped."""
    first = content.read(2)
    whole = _Prefixed(first, content)
    plain = gzip.GzipFile(fileobj=whole) if first == b"\x1f\x8b" else whole
    store.blobs.put_stream(iter(lambda: plain.read(_CHUNK), b""), wanted.__contains__)


def _docker_archive(store: Store, archive: Archive) -> Iterator[bytes]:
    """A docker-archive tar made from blobs, in bounded memory; each blob re-hashed as it passes."""
    config_name = f"{hex_of(Digest(archive.config))}.json"
    layer_names = [f"{hex_of(Digest(layer))}/layer.tar" for layer in archive.layers]
    manifest = [{"Config": config_name, "RepoTags": None, "Layers": layer_names}]
    yield from _tar_member(config_name, store.blobs.read(Digest(archive.config)))
    for layer, name in zip(dict.fromkeys(archive.layers), dict.fromkeys(layer_names), strict=True):
        yield from _tar_file(name, store.blobs.verified(Digest(layer)))
    yield from _tar_member("manifest.json", json.dumps(manifest).encode())
    yield b"\0" * 1024


def _tar_member(name: str, data: bytes) -> Iterator[bytes]:
    import tarfile

    info = tarfile.TarInfo(name)
    info.size = len(data)
    yield info.tobuf() + data + b"\0" * (-len(data) % 512)


def _tar_file(name: str, path: Path) -> Iterator[bytes]:
    import tarfile

    info = tarfile.TarInfo(name)
    info.size = path.stat().st_size
    yield info.tobuf()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
    yield b"\0" * (-info.size % 512)


# --- restore ----------------------------------------------------------------------------------------------


class ImageSource(msgspec.Struct, frozen=True):
    """One place where a recorded image can be had: `engine`, `registry`, `archive` or `recipe`."""

    kind: str
    name: str


def sources(engine: Engine | None, store: Store, root: Path, identity: Image, seen: ImageSeen) -> list[ImageSource]:
    """Where the image may be had, best first. Only the engine is asked, if there is one; nothing is fetched."""
    found = _in_engine(engine, identity, seen) if engine else None
    places = [ImageSource("engine", found)] if found else []
    places += [ImageSource("registry", name) for name in seen.repo_digests]
    if archive_of(store, identity):
        places.append(ImageSource("archive", str(archive_path(store, identity))))
    if seen.folder and (root / seen.folder).is_dir() and root.resolve() in (root / seen.folder).resolve().parents:
        places.append(ImageSource("recipe", seen.folder))
    return places


def restore(engine: Engine, store: Store, root: Path, identity: Image, places: list[ImageSource], say: Say) -> str:
    """The engine's id of exactly that image. Raises `UnrebuildableError` naming every place tried."""
    tried = []
    for place in places:
        try:
            found = _fetch(engine, store, root, identity, place, say)
        except OutsideError as error:
            tried.append(f"{place.kind} {place.name}: {error.why or error.what}")
            continue
        if found:
            return found
        tried.append(f"{place.kind} {place.name}: other content")
    raise UnrebuildableError(
        f"the image cannot be had again ({identity.platform}, {len(identity.diff_ids)} layers)",
        "; ".join(tried) or "the engine does not have it, the store keeps no copy, no registry or recipe is known",
        "bring back the registry's copy or the store's archive of it (kept unless a registry serves it)",
    )


def same_image(found: Image, wanted: Image) -> bool:
    """Equal content and configuration; the entrypoint counts only where the state holds one."""
    entrypoint = wanted.config.entrypoint
    config = msgspec.structs.replace(found.config, entrypoint=entrypoint)
    return msgspec.structs.replace(found, config=config) == wanted


def _in_engine(engine: Engine, identity: Image, seen: ImageSeen) -> str | None:
    """By the id it had at record time, else by any name it had, else by looking at every image."""
    for name in filter(None, (seen.config, seen.reference if not seen.folder else None, *seen.repo_digests)):
        found = engine.image(name)
        if found and same_image(found.identity, identity):
            return found.id
    return next((found.id for found in engine.images() if same_image(found.identity, identity)), None)


def _fetch(engine: Engine, store: Store, root: Path, identity: Image, place: ImageSource, say: Say) -> str | None:
    if place.kind == "engine":
        return place.name
    say(f"image: from {place.kind} {place.name}")
    if place.kind == "registry":
        found = engine.pull(place.name, identity.platform)
        return found.id if same_image(found.identity, identity) else None
    if place.kind == "archive":
        archive = archive_of(store, identity)
        if archive is None:
            return None
        engine.load(_docker_archive(store, archive))
        return _in_engine(engine, identity, ImageSeen(config=archive.config))
    folder = root / place.name
    tag = f"replay/{folder.name.lower()}:{hex_of(_folder_digest(folder))[:16]}"
    found = build(engine, store, folder, tag, say)
    return found.id if same_image(found.identity, identity) else None


class _Prefixed(io.RawIOBase):
    """A file with bytes put back in front."""

    def __init__(self, prefix: bytes, rest: IO[bytes]) -> None:
        self._prefix = prefix
        self._rest = rest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self._prefix:
            taken, self._prefix = self._prefix, b""
            return taken + (self._rest.read(size - len(taken)) if size > len(taken) else b"")
        return self._rest.read(size)
