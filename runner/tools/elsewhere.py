"""An engine that does not see this machine's files: what a container needs is taken there, and what it wrote
is brought back.

What is mounted read-only goes in as one image layer over the image, the same bytes for the same content, kept
by the engine under a tag that names content and image: a second run sends nothing. Folders of this tool's own
(`/opt/replay`, `/replay`) stand in the layer where the container looks for them. Everything else may be below a
writable mount, or where the image has a link, so it stands aside and is bound into its place.

What is mounted writable lives in a volume. A *holder*, a container that is never started, owns the volumes: they
are filled through it, bound from it into the container that runs, read back through it, and go with it.

Nothing about an engine is remembered between processes: machines that are copies have equal engine ids.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner.errors import InterruptedRunError, OutsideError
from runner.tools import tar_streams
from runner.tools.attached import Watch
from runner.tools.container_request import ContainerRequest, Mount
from runner.tools.containers import LABEL_STORE
from runner.tools.engine_errors import is_unseen
from runner.tools.interrupts import Interrupts
from runner.tools.tar_streams import Item

if TYPE_CHECKING:
    from docker import APIClient

LABEL_LAYER = "replay.layer"
"""On the images made here: the id of the store that they were made for, or nothing."""

_REPOSITORY = "replay/layer"
_BOUND, _OWN = "/replay/bound", "/replay/own"
_IN_PLACE = ("/opt/replay/", "/replay/")
_LOOK_EVERY_S = 0.5


class Placed(msgspec.Struct, frozen=True):
    """A request with every path as the engine sees it, and the holder of its volumes."""

    request: ContainerRequest
    holder: str


class _Stopped(Exception):
    """The watch says that no more must be brought back."""


# --- does it see? -------------------------------------------------------------------------------------------


def sees(client: APIClient, request: ContainerRequest) -> bool:
    """Whether the engine sees a file of a name that no other machine has; the container is never started."""
    from docker.errors import APIError

    beside = next((mount.source for mount in request.mounts if not mount.read_only), request.mounts[0].source.parent)
    marker = beside / f".replay-{secrets.token_hex(16)}"
    marker.touch()
    try:
        mounts = [{"Type": "bind", "Source": str(marker), "Target": "/replay/marker", "ReadOnly": True}]
        client.remove_container(_created(client, request.image, request.labels, mounts), v=True)
    except APIError as error:
        if not is_unseen(str(error.explanation or error)):
            raise
        return False
    finally:
        marker.unlink()
    return True


# --- there --------------------------------------------------------------------------------------------------


def place(client: APIClient, request: ContainerRequest, interrupts: Interrupts, say: Callable[[str], None]) -> Placed:
    """Take there what the request mounts. The caller removes the holder, with its volumes."""
    given = [mount for mount in request.mounts if mount.read_only]
    written = [mount for mount in request.mounts if not mount.read_only]
    image = _ensure_layer(client, request, given, interrupts, say) if given else request.image
    volumes = [{"Type": "volume", "Target": target} for target in (_BOUND, _OWN)]
    holder = _created(client, image, request.labels, volumes)
    try:
        sources = {mount["Destination"]: Path(mount["Source"]) for mount in client.inspect_container(holder)["Mounts"]}
        client.put_archive(holder, _OWN, _heeding(tar_streams.chunks(_own_items(written, request.user)), interrupts))
    except BaseException:
        remove(client, holder)
        raise
    bound = [
        msgspec.structs.replace(mount, source=sources[_BOUND] / str(number))
        for number, mount in enumerate(given)
        if not _in_place(mount)
    ]
    own = [msgspec.structs.replace(mount, source=sources[_OWN] / str(n)) for n, mount in enumerate(written)]
    return Placed(msgspec.structs.replace(request, image=image, mounts=(*own, *bound)), holder)


def remove(client: APIClient, holder: str) -> None:
    from docker.errors import APIError

    with contextlib.suppress(APIError, OSError):
        client.remove_container(holder, force=True, v=True)


def _created(client: APIClient, image: str, labels: dict[str, str], mounts: list[dict[str, Any]]) -> str:
    """A container that is not meant to be started."""
    host_config = client.create_host_config(network_mode="none", mounts=mounts)
    config = {"Image": image, "Cmd": ["none"], "Labels": labels, "HostConfig": host_config}
    return str(client.create_container_from_config(config)["Id"])


def _own_items(written: list[Mount], user: str) -> Iterator[Item]:
    uid, _, gid = user.partition(":")
    dress = tar_streams.for_owner(int(uid), int(gid or uid))
    for number, mount in enumerate(written):
        if mount.scratch:
            yield tar_streams.folder(str(number), dress, mount.source.stat())
        else:
            yield from tar_streams.tree(mount.source, str(number), dress)


def _heeding(sent: Iterable[bytes], interrupts: Interrupts) -> Iterator[bytes]:
    for data in sent:
        if interrupts.count:
            raise InterruptedRunError("interrupted", "while files were sent to the engine")
        yield data


# --- the layer ----------------------------------------------------------------------------------------------


def _in_place(mount: Mount) -> bool:
    return mount.target.startswith(_IN_PLACE)


def layer_items(given: list[Mount]) -> Iterator[Item]:
    """What is mounted read-only, as the entries of a layer: each folder before what it holds."""
    names = [m.target.strip("/") if _in_place(m) else f"{_BOUND.strip('/')}/{n}" for n, m in enumerate(given)]
    above = {"/".join(name.split("/")[:depth]) for name in names for depth in range(1, name.count("/") + 1)}
    ordinary = Path("/").stat()
    for name in sorted(above):
        yield tar_streams.folder(name, tar_streams.for_layer, ordinary)
    for name, mount in sorted(zip(names, given, strict=True), key=lambda pair: pair[0]):
        yield from tar_streams.tree(mount.source, name, tar_streams.for_layer)


def _ensure_layer(
    client: APIClient,
    request: ContainerRequest,
    given: list[Mount],
    interrupts: Interrupts,
    say: Callable[[str], None],
) -> str:
    """The id of the image with the layer. The layer is read once to know its digest, and again if it is sent."""
    from docker.errors import ImageNotFound

    digest, size = hashlib.sha256(), 0
    for data in _heeding(tar_streams.chunks(layer_items(given)), interrupts):
        digest.update(data)
        size += len(data)
    base = client.inspect_image(request.image)
    key = hashlib.sha256(f"{base['Id']} {digest.hexdigest()}".encode()).hexdigest()
    tag = f"{_REPOSITORY}:{key[:32]}"
    try:
        return str(client.inspect_image(tag)["Id"])
    except ImageNotFound:
        say(f"engine: it does not see this machine's files; sending {max(size >> 20, 1)} MiB")
    store_id = request.labels.get(LABEL_STORE, "")
    config = _layered(base, f"sha256:{digest.hexdigest()}", store_id)
    if not _load(client, _heeding(_archive(config, tag, layer_items(given), size), interrupts)):
        _build(client, tag, store_id, _heeding(_context(base["Id"], layer_items(given), size), interrupts))
    return str(client.inspect_image(tag)["Id"])


def _layered(base: dict[str, Any], diff_id: str, store_id: str) -> dict[str, Any]:
    """The configuration of an image with one more layer, and no other difference to the job."""
    config = base.get("Config") or {}
    return {
        "architecture": base["Architecture"],
        **({"variant": base["Variant"]} if base.get("Variant") else {}),
        "os": base["Os"],
        "created": "1980-01-01T00:00:00Z",
        "config": config | {"Labels": (config.get("Labels") or {}) | {LABEL_LAYER: store_id}},
        "rootfs": {"type": "layers", "diff_ids": [*(base["RootFS"].get("Layers") or ()), diff_id]},
    }


def _load(client: APIClient, archive: Iterator[bytes]) -> bool:
    """False when the engine wants the layers below too: those with containerd's image store do."""
    from docker.errors import APIError

    try:
        return not any("error" in line for line in client.load_image(archive) or ())
    except APIError:
        return False


def _build(client: APIClient, tag: str, store_id: str, context: Iterator[bytes]) -> None:
    """By the builder, which every engine has; the layer's own digest is then the engine's choice."""
    lines = client.build(
        fileobj=context,
        custom_context=True,
        tag=tag,
        labels={LABEL_LAYER: store_id},
        rm=True,
        forcerm=True,
        decode=True,
    )
    if refused := next((line["error"] for line in lines if "error" in line), None):
        raise OutsideError("the engine refused a layer with this machine's files", str(refused))


def _archive(config: dict[str, Any], tag: str, layer: Iterable[Item], size: int) -> Iterator[bytes]:
    """An image archive that holds the last layer only; the layers below are taken from the engine itself."""
    below = [f"present/{n}" for n in range(len(config["rootfs"]["diff_ids"]) - 1)]
    manifest = [{"Config": "config.json", "RepoTags": [tag], "Layers": [*below, "layer.tar"]}]
    files = {"config.json": config, "manifest.json": manifest}
    return _beside(layer, size, {name: json.dumps(value, sort_keys=True) for name, value in files.items()})


def _context(image: str, layer: Iterable[Item], size: int) -> Iterator[bytes]:
    """What a builder needs to make the same."""
    return _beside(layer, size, {"Dockerfile": f"FROM {image}\nADD layer.tar /\n"})


def _beside(layer: Iterable[Item], size: int, texts: dict[str, str]) -> Iterator[bytes]:
    """A tar of the layer, itself a tar of known size (a multiple of the block's), and of small files."""
    head = tar_streams.file("layer.tar", b"").header
    head.size = size
    yield head.tobuf()
    yield from tar_streams.chunks(layer)
    yield from tar_streams.chunks(tar_streams.file(name, text.encode()) for name, text in texts.items())


# --- back ---------------------------------------------------------------------------------------------------


def bring_back(
    client: APIClient, placed: Placed, request: ContainerRequest, interrupts: Interrupts, watch: Watch
) -> str | None:
    """Make each writable folder of the original request hold what its container left there.

    Gives the watch's reason if that ended the copying. Raises `InterruptedRunError` at a new interrupt.
    """
    step = _Step(interrupts, watch)
    try:
        for number, mount in enumerate(mount for mount in request.mounts if not mount.read_only):
            if not mount.scratch:
                _empty(mount.source)
                received, _ = client.get_archive(placed.holder, f"{_OWN}/{number}")
                tar_streams.unpack(iter(received), mount.source, step)
    except _Stopped as stopped:
        return str(stopped)
    return None


def _empty(folder: Path) -> None:
    for entry in os.scandir(folder):
        shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)


class _Step:
    """Asks between two pieces whether to go on."""

    def __init__(self, interrupts: Interrupts, watch: Watch) -> None:
        self._interrupts, self._watch = interrupts, watch
        self._before = interrupts.count
        self._next = 0.0

    def __call__(self) -> None:
        if self._interrupts.count > self._before:
            raise InterruptedRunError("interrupted", "while files were brought back from the engine")
        if time.monotonic() >= self._next:
            if reason := self._watch():
                raise _Stopped(reason)
            self._next = time.monotonic() + _LOOK_EVERY_S


# --- keeping house ------------------------------------------------------------------------------------------


def layers_of(client: APIClient, store_id: str) -> dict[str, int]:
    """Images made here for that store or for none: id to size."""
    listed = client.images(filters={"label": LABEL_LAYER})
    return {one["Id"]: one["Size"] for one in listed if one["Labels"][LABEL_LAYER] in ("", store_id)}
