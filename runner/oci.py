"""A run as one OCI image archive: `docker load` it, `docker run` it, and the job runs with nothing else at hand.

    the image's own layers      as they were recorded, unpacked
    the environment             at /opt/replay/env, if the state has packages
    the workspace               code, params, data and models at their paths, and what a job finds beside them

The bytes depend on the state alone: no time, name or path of this machine is in them, so the same state gives the same
archive anywhere. Secrets are never in it: they are given with `-e NAME`.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shlex
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from runner.errors import UsageError
from runner.execute import ENVIRONMENT, HOME, HOSTNAME, USER, WORKSPACE, environment
from runner.layers import image
from runner.rebuild import Rebuilt
from runner.run import Session
from runner.state.digest import Digest, digest_bytes, digest_of_hex, hex_of
from runner.state.spec import State, StateSpec
from runner.store.files import appearing, remove_tree
from runner.store.runs import Run
from runner.supply import rebuild_supplied
from runner.tools import tar_streams
from runner.tools.tar_streams import Item

_USER = 1000
_CREATED = "1980-01-01T00:00:00Z"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_INDEX = "application/vnd.oci.image.index.v1+json"
_NAME = "replay/state"


class Layer(msgspec.Struct, frozen=True):
    """An unpacked layer as a file."""

    path: Path
    digest: Digest
    size: int


class Exported(msgspec.Struct, frozen=True):
    """`image` is the name under which an engine knows it after loading, `digest` that of its manifest, `command` runs
    it as the job was run, secrets left to be given."""

    image: str
    digest: Digest
    size: int
    command: str


def export(session: Session, spec: StateSpec, target: Path) -> Exported:
    """Rebuild the state and write it. Raises `UnrebuildableError` as a replay does."""
    if target.exists():
        raise UsageError(f"{target} is there already", next="name another file, or remove it")
    store = session.workspace.store
    with store.adding():
        # Of no run: what is in `tmp/` is left alone as long as somebody adds.
        run = Run(store, f"export-{secrets.token_hex(8)}", None)
        run.scratch = store.tmp / run.id
        try:
            run.scratch.mkdir(parents=True)
            rebuilt = rebuild_supplied(session, spec, run)
            layers = [*_image_layers(session, spec), *_own_layers(rebuilt, run.scratch)]
            return _write(spec, layers, target)
        finally:
            run.end()
            remove_tree(run.scratch)


# --- layers --------------------------------------------------------------------------------------------------


def _image_layers(session: Session, spec: StateSpec) -> Iterator[Layer]:
    store, identity = session.workspace.store, spec.state.image
    if image.archive_of(store, identity) is None:
        image.archive_again(session.engine, store, session.workspace.root, identity, spec.observed.image, session.say)
    for diff_id in identity.diff_ids:
        path = store.blobs.verified(Digest(diff_id))
        yield Layer(path, Digest(diff_id), path.stat().st_size)


def _own_layers(rebuilt: Rebuilt, scratch: Path) -> Iterator[Layer]:
    if rebuilt.environment:
        where = ENVIRONMENT.removeprefix("/")
        yield _layer(tar_streams.tree(rebuilt.environment.path, where, tar_streams.for_layer), scratch / "env.tar")
    yield _layer(_workspace(rebuilt), scratch / "workspace.tar")


def _layer(items: Iterator[Item], target: Path) -> Layer:
    hasher, size = hashlib.sha256(), 0
    with target.open("wb") as file:
        for chunk in tar_streams.chunks(items):
            hasher.update(chunk)
            size += len(chunk)
            file.write(chunk)
    return Layer(target, digest_of_hex(hasher.hexdigest()), size)


def _workspace(rebuilt: Rebuilt) -> Iterator[Item]:
    """What the job's user may change is the user's, data and models are root's."""
    prepared, below = rebuilt.prepared, WORKSPACE + "/"
    given = {mount.target[1:]: mount.source for mount in prepared.mounts if mount.target.startswith(below)}
    passwd = f"root:x:0:0:root:/root:/bin/sh\n{USER}:x:{_USER}:{_USER}:{USER}:{HOME}:/bin/sh\n"
    yield tar_streams.file("etc/group", f"root:x:0:\n{USER}:x:{_USER}:\n".encode())
    yield tar_streams.file("etc/passwd", passwd.encode())
    yield _folder(HOME[1:], _USER, 0o700)
    yield _folder("tmp", 0, 0o1777)
    yield from tar_streams.tree(prepared.workspace, WORKSPACE[1:], _for_job)
    for path in sorted(_above(given, prepared.workspace)):
        yield _folder(path, _USER, 0o755)
    for path, source in sorted(given.items()):
        yield from tar_streams.tree(source, path, tar_streams.for_layer)


def _above(given: dict[str, Path], workspace: Path) -> set[str]:
    """Folders above data that the code does not have."""
    found = {str(parent) for path in given for parent in Path(path).parents}
    there = {WORKSPACE[1:], "."}
    return {
        path
        for path in found - there
        if not (workspace.parent / path.replace(WORKSPACE[1:], workspace.name, 1)).is_dir()
    }


def _for_job(header: tarfile.TarInfo, status: os.stat_result) -> None:
    tar_streams.for_layer(header, status)
    header.uid = header.gid = _USER


def _folder(name: str, owner: int, mode: int) -> Item:
    header = tarfile.TarInfo(name)
    header.type, header.mtime, header.mode = tarfile.DIRTYPE, tar_streams.EPOCH, mode
    header.uid = header.gid = owner
    return Item(header)


# --- what describes them -------------------------------------------------------------------------------------


def config_of(state: State, digest: str, layers: Sequence[Digest], has_environment: bool) -> bytes:
    """The image's configuration: the job as an engine has it."""
    os_, _, machine = state.image.platform.partition("/")
    architecture, _, variant = machine.partition("/")
    env = state.image.config.env | environment(state, has_environment)
    config = {
        "User": f"{_USER}:{_USER}",
        "Env": [f"{name}={value}" for name, value in sorted(env.items())],
        "Entrypoint": list(state.image.config.entrypoint or ()) or None,
        "Cmd": command_of(state),
        "WorkingDir": WORKSPACE,
        "Labels": {"replay.state": digest},
    }
    return _json(
        {
            "architecture": architecture,
            **({"variant": variant} if variant else {}),
            "os": os_,
            "created": _CREATED,
            "config": {key: value for key, value in config.items() if value is not None},
            "rootfs": {"type": "layers", "diff_ids": list(layers)},
            "history": [{"created": _CREATED, "created_by": "replay export"} for _ in layers],
        }
    )


def command_of(state: State) -> list[str]:
    """Stages run one after the other, until one fails; they see each other's files, which in a run they do not."""
    if not state.stages:
        return list(state.command)
    return ["sh", "-c", " && ".join(shlex.join(stage.command) for stage in state.stages)]


def run_command(spec: StateSpec, name: str) -> str:
    """What gives the container the job's bounds, which no image can carry."""
    access, limits = spec.state.access, spec.state.access.limits
    words = ["docker", "run", "--rm", "--init", "--hostname", HOSTNAME]
    words += ["--network", "none"] if access.network == "none" else []
    words += [f"--memory={limits.memory}", f"--memory-swap={limits.memory}"] if limits.memory else []
    words += [f"--cpus={limits.cpus:g}"] if limits.cpus else []
    words += [f"--shm-size={limits.shm}"] if limits.shm else []
    words += [f"--pids-limit={limits.processes}"] if limits.processes else []
    words += ["--gpus", str(limits.gpus)] if limits.gpus else []
    for secret in spec.state.secrets:
        words += ["-e", secret]
    return shlex.join([*words, name])


# --- the archive ---------------------------------------------------------------------------------------------


def _write(spec: StateSpec, layers: Sequence[Layer], target: Path) -> Exported:
    """A layout that OCI's tools and `docker load` of any age read: beside OCI's index stands docker's own."""
    state, name = spec.state, f"{_NAME}:{hex_of(Digest(spec.digest))[:16]}"
    has_environment = state.dependencies.locked is not None
    config = config_of(state, spec.digest, [layer.digest for layer in layers], has_environment)
    described = [_descriptor(_LAYER, layer.digest, layer.size) for layer in layers]
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _descriptor(_CONFIG, digest_bytes(config), len(config)),
            "layers": described,
        }
    )
    entry = _descriptor(_MANIFEST, digest_bytes(manifest), len(manifest))
    named = {
        "annotations": {"io.containerd.image.name": f"docker.io/{name}", "org.opencontainers.image.ref.name": name}
    }
    index = _json({"schemaVersion": 2, "mediaType": _INDEX, "manifests": [entry | named]})
    docker = [
        {"Config": _blob(digest_bytes(config)), "RepoTags": [name], "Layers": [_blob(one.digest) for one in layers]}
    ]
    members: dict[str, bytes | Layer] = {_blob(layer.digest): layer for layer in layers}
    members |= {_blob(digest_bytes(data)): data for data in (config, manifest)}
    members |= {
        "index.json": index,
        "manifest.json": _json(docker),
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
    }
    size = _write_tar(members, target)
    return Exported(name, digest_bytes(manifest), size, run_command(spec, name))


def _write_tar(members: dict[str, bytes | Layer], target: Path) -> int:
    with appearing(target) as file:
        for chunk in tar_streams.chunks(_item(name, members[name]) for name in sorted(members)):
            file.write(chunk)
        return file.tell()


def _item(name: str, content: bytes | Layer) -> Item:
    if isinstance(content, bytes):
        return tar_streams.file(name, content)
    header = tarfile.TarInfo(name)
    header.size, header.mtime = content.size, tar_streams.EPOCH
    return Item(header, content.path)


def _blob(digest: Digest) -> str:
    return f"blobs/sha256/{hex_of(digest)}"


def _descriptor(kind: str, digest: Digest, size: int) -> dict[str, object]:
    return {"mediaType": kind, "digest": digest, "size": size}


def _json(value: object) -> bytes:
    return msgspec.json.encode(value, order="deterministic")
