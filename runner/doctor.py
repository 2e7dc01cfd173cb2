"""`replay doctor`: what this machine and workspace lack, and the one command that mends each."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from runner.errors import ReplayError
from runner.store.store import find_store
from runner.tools import containers, git, podman
from runner.workspace import WORKFILE, open_workspace

_LOW_DISK_BYTES = 5 << 30


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """`level` is `ok`, `warning` (some jobs will not work) or `missing` (nothing will)."""

    name: str
    level: Literal["ok", "warning", "missing"]
    detail: str
    mend: str = ""


def examine(start: Path, store: Path | None) -> list[Finding]:
    return [finding for check in _CHECKS for finding in check(start, store)]


def _python(_start: Path, _store: Path | None) -> Iterator[Finding]:
    yield Finding("python", "ok", sys.version.split()[0])


def _engine(_start: Path, _store: Path | None) -> Iterator[Finding]:
    try:
        engine = containers.connect()
        version, info = engine.version(), engine.info()
    except ReplayError as error:
        yield Finding("engine", "missing", f"{error.what}: {error.why}"[:200], _engine_command())
        return
    name = "podman" if engine.is_podman() else "docker"
    rootless = ", rootless," if podman.is_rootless(info) else ""
    yield Finding("engine", "ok", f"{name} {version.get('Version')}{rootless} at {engine.where}")
    if engine.is_podman() and podman.ignores_limits(info):
        yield Finding(
            "limits",
            "warning",
            "podman ignores them, rootless on cgroup v1: jobs that declare memory, cpus or processes are not run",
            "sudo podman system service --time=0 unix:///run/podman/podman.sock &",
        )
    if not shutil.which("docker"):
        yield Finding(
            "docker client", "warning", "Dockerfiles cannot be built", "install the docker client (docker-cli)"
        )


def _engine_command() -> str:
    if shutil.which("dockerd"):
        return "sudo systemctl start docker" if Path("/run/systemd/system").is_dir() else "dockerd &"
    if shutil.which("apt-get"):
        return "sudo apt-get install -y docker.io && sudo systemctl start docker"
    return "install Docker Engine or podman, and start it"


def _programs(_start: Path, _store: Path | None) -> Iterator[Finding]:
    yield _program("git", git.available(), "code is listed without git's ignore rules", "sudo apt-get install -y git")
    has_dvc = importlib.util.find_spec("dvc") is not None
    yield _program("dvc", has_dvc, "data cannot be fetched", f"{sys.executable} -m pip install dvc")
    yield _program(
        "mmdebstrap",
        shutil.which("mmdebstrap") is not None,
        "images/ folders can be built from a registry only",
        "sudo apt-get install -y mmdebstrap",
    )


def _program(name: str, there: bool, otherwise: str, mend: str) -> Finding:
    return Finding(name, "ok", "found") if there else Finding(name, "warning", f"not found: {otherwise}", mend)


def _workspace(start: Path, store: Path | None) -> Iterator[Finding]:
    try:
        workspace = open_workspace(start, store)
    except ReplayError as error:
        folder = store or find_store(start)
        if (folder / "store.json").exists():
            yield Finding("store", "missing", f"{error.what}: {error.why}", error.next)
        else:
            yield Finding("store", "ok", "none yet; the first run makes one")
        yield from _workfile(start)
        return
    yield Finding("store", "ok", f"{workspace.store.folder}, {len(workspace.run_ids())} runs")
    if not os.access(workspace.store.folder, os.W_OK):
        place = shlex.quote(str(workspace.store.folder))
        yield Finding("store", "missing", "it cannot be written to", f"sudo chown -R $(id -u) {place}")
    free = shutil.disk_usage(workspace.store.folder).free
    if free < _LOW_DISK_BYTES:
        yield Finding("disk", "warning", f"{free >> 20} MiB are free where the store is", "replay gc")
    yield from _workfile(workspace.root)


def _workfile(root: Path) -> Iterator[Finding]:
    file = root / WORKFILE
    if not file.is_file():
        yield Finding(WORKFILE, "warning", f"none in {root}", "replay init")
        return
    from runner.state.strict import load_workfile

    try:
        jobs = load_workfile(file.read_bytes(), str(file)).jobs
    except ReplayError as error:
        yield Finding(WORKFILE, "missing", f"{error.what}: {error.why}", error.next or "correct the file")
        return
    yield Finding(WORKFILE, "ok", f"jobs: {', '.join(sorted(jobs))}")
    from runner.lacking import lacking

    engine = _connected()
    for name, job in sorted(jobs.items()):
        for lack in lacking(root, job, engine):
            why = f"{lack.what}: {lack.why}" if lack.why else lack.what
            yield Finding(f"job {name}", "warning", why, lack.next or f"correct {WORKFILE}")


def _connected() -> containers.Engine | None:
    try:
        return containers.connect()
    except ReplayError:
        return None


_CHECKS: tuple[Callable[[Path, Path | None], Iterator[Finding]], ...] = (_python, _engine, _programs, _workspace)
