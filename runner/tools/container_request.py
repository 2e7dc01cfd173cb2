"""A container to be run to its end, and how the Docker API is asked for it."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner.state.spec import Limits

if TYPE_CHECKING:
    from docker import APIClient

DEFAULT_PROCESSES = 4096
DEFAULT_SHM_BYTES = 64 << 20
FIRST_TO_GO = 1000
"""When the machine's memory ends, a container ends before anything else does."""


class Mount(msgspec.Struct, frozen=True):
    """A file or folder of this machine at a path in the container; what can be written is a folder.

    What is in a `scratch` folder matters to no one but a container: it is not taken to an engine elsewhere.
    """

    source: Path
    target: str
    read_only: bool = True
    scratch: bool = False


class ContainerRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A container to be run to its end.

    `image` is the engine's own id. `entrypoint` is None for none at all. `stdin` is sent whole, then
    closed. `internal` containers (probing, locking) may use the host's network.
    """

    image: str
    command: tuple[str, ...]
    entrypoint: tuple[str, ...] | None = None
    env: dict[str, str] = {}
    mounts: tuple[Mount, ...] = ()
    user: str
    workdir: str
    network: str = "none"
    limits: Limits = Limits()
    labels: dict[str, str] = {}
    hostname: str = "replay"
    stdin: bytes | None = None
    read_only: bool = True


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a container ended. `stopped` says why this tool ended it, if it did."""

    exit_code: int
    duration_s: float
    out_of_memory: bool = False
    stopped: str | None = None


def container_config(client: APIClient, request: ContainerRequest) -> dict[str, Any]:
    limits = request.limits
    host_config = client.create_host_config(
        network_mode=request.network,
        mounts=[
            {"Type": "bind", "Source": str(mount.source), "Target": mount.target, "ReadOnly": mount.read_only}
            for mount in request.mounts
        ],
        read_only=request.read_only,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        ipc_mode="private",
        cgroupns="private",
        ulimits=[{"Name": "core", "Soft": 0, "Hard": 0}],
        oom_score_adj=FIRST_TO_GO,
        init=True,
        log_config={"Type": "none"},
        mem_limit=limits.memory,
        memswap_limit=limits.memory,
        shm_size=limits.shm or DEFAULT_SHM_BYTES,
        nano_cpus=int(limits.cpus * 1e9) if limits.cpus else None,
        pids_limit=limits.processes or DEFAULT_PROCESSES,
    )
    if limits.gpus:
        host_config["DeviceRequests"] = [{"Driver": "", "Count": limits.gpus, "Capabilities": [["gpu"]]}]
    return {
        "Image": request.image,
        "Entrypoint": list(request.entrypoint) if request.entrypoint else [""],
        "Cmd": list(request.command),
        "Env": [f"{name}={value}" for name, value in sorted(request.env.items())],
        "User": request.user,
        "WorkingDir": request.workdir,
        "Hostname": request.hostname,
        "Labels": request.labels,
        "AttachStdout": True,
        "AttachStderr": True,
        "AttachStdin": request.stdin is not None,
        "OpenStdin": request.stdin is not None,
        "StdinOnce": request.stdin is not None,
        "Tty": False,
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": host_config,
    }


def deadline_of(started: float, request: ContainerRequest) -> float | None:
    return started + request.limits.time if request.limits.time else None


def lifespan(state: dict[str, Any], duration_s: float) -> tuple[float, float]:
    """When a container that has ended started and ended, by its engine's clock, in seconds. If the clock was set back
    meanwhile, `duration_s` tells how long ago it started."""
    start, end = (datetime.datetime.fromisoformat(state[name]).timestamp() for name in ("StartedAt", "FinishedAt"))
    return start if start <= end else end - duration_s, end


def stopped_late(state: dict[str, Any], duration_s: float, request: ContainerRequest) -> str | None:
    """Whether a container that ended by itself had outlived its limit before anybody looked. The engine's clock tells
    best, this process's in case that one jumped."""
    start, end = lifespan(state, duration_s)
    lived = min(end - start, duration_s)
    return "time-limit" if request.limits.time and lived > request.limits.time else None


def program_of(request: ContainerRequest) -> str:
    """What is started first."""
    return (*(request.entrypoint or ()), *request.command)[0]
