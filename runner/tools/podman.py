"""What podman does otherwise than docker when it is asked through the same API, and what makes up for it."""

from __future__ import annotations

from typing import Any

from runner.errors import OutsideError
from runner.state.spec import Limits

_COMPONENT = "Podman Engine"
_ADDED_VARIABLES = ["TERM", "container"]
# A container with a read-only root gets these writable, in memory that only `limits.memory` bounds.
_ADDED_FOLDERS = ("/run", "/tmp", "/var/tmp")
_READ_ONLY = "ro,tmpcopyup"
# As docker has it: an ordinary user may listen at any port of the container's own network.
_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0"}


def is_podman(version: dict[str, Any]) -> bool:
    """By the engine's answer to `/version`."""
    return any(component.get("Name") == _COMPONENT for component in version.get("Components") or ())


def is_rootless(info: dict[str, Any]) -> bool:
    """By the engine's answer to `/info`; docker and later podman say it among the security options."""
    return bool(info.get("Rootless")) or "name=rootless" in (info.get("SecurityOptions") or ())


def ignores_limits(info: dict[str, Any]) -> bool:
    """Rootless on version 1 of control groups it starts a container without its limits, and does not say so."""
    return is_rootless(info) and info.get("CgroupVersion") == "1"


def refuse_ignored(limits: Limits, info: dict[str, Any]) -> None:
    """Raises `OutsideError` when a declared limit would not hold: the job would not run in its state."""
    names = [name for name in ("memory", "cpus", "processes") if getattr(limits, name)]
    if names and ignores_limits(info):
        raise OutsideError(
            f"the engine cannot hold a job to limits.{names[0]}",
            "podman is rootless here, on cgroup v1, and ignores such limits",
            "use an engine that runs as root, a machine with cgroup v2, or a job without that limit",
        )


def adapted(config: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    """What to ask podman for, so that a job finds what docker would give it."""
    host = config["HostConfig"]
    # With any of them given it takes none from containers.conf, and the rest as high as they go, which may be refused.
    changed = {key: value for key, value in host.items() if key != "Ulimits"}
    if host.get("ReadonlyRootfs"):
        mounted = {mount["Target"] for mount in host.get("Mounts") or ()}
        changed["Tmpfs"] = {folder: _READ_ONLY for folder in _ADDED_FOLDERS if folder not in mounted}
    if host.get("NetworkMode") != "host":
        changed["Sysctls"] = _SYSCTLS
    if is_rootless(info):
        changed["UsernsMode"] = "keep-id"  # else the caller's own files belong to root in the container
    return config | {"HostConfig": changed, "UnsetEnv": _ADDED_VARIABLES}
