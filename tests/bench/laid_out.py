"""Workspaces to measure in, below `.demo/bench`; what is laid out already stays."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from runner.state.spec import StateSpec
from runner.state.strict import load_spec
from runner.store.store import Store, open_store

ROOT = Path(__file__).parents[2]
PLACE = ROOT / ".demo" / "bench"
FILES = Path(__file__).parent / "files"
REPLAY = [sys.executable, "-m", "runner"]
IMAGE = "images/python311"


class Workspace:
    """A git repository with a `replay.yaml`. All of them use one store, so the image is archived once."""

    def __init__(self, name: str, jobs: dict[str, dict[str, Any]]) -> None:
        self.root = PLACE / name
        self.root.mkdir(parents=True, exist_ok=True)
        shutil.copytree(ROOT / IMAGE, self.root / IMAGE, dirs_exist_ok=True)
        declared = {job: {"image": IMAGE, **keys} for job, keys in jobs.items()}
        self.write("replay.yaml", json.dumps({"version": 1, "jobs": declared}, indent=1))
        shutil.rmtree(self.root / "state_specs", ignore_errors=True)
        if not (self.root / ".git").exists():
            self.call("git", "init", "-q")

    @property
    def store(self) -> Store:
        return open_store(shared_store(), create=False)

    def own_store(self) -> Store:
        """An empty store in the workspace itself, where commands look first."""
        _remove(self.root / ".replay")
        return open_store(self.root / ".replay", create=True)

    def write(self, path: str, content: str | bytes) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    def call(self, *arguments: str) -> bytes:
        done = subprocess.run(arguments, cwd=self.root, env=_environment(), stdout=subprocess.PIPE, check=False)
        if done.returncode:
            sys.exit(f"exit {done.returncode}: {' '.join(arguments)}")
        return done.stdout

    def commit(self) -> None:
        self.call("git", "add", "-A", ".")
        who = ("-c", "user.name=bench", "-c", "user.email=bench@example.org")
        if self.call("git", "status", "--porcelain"):
            self.call("git", *who, "commit", "-q", "-m", "as measured")

    def track(self, *paths: str) -> None:
        """`dvc add`, for what is not tracked yet."""
        if not (self.root / ".dvc").exists():
            self.call(sys.executable, "-m", "dvc", "init", "-q")
        if new := [path for path in paths if not (self.root / f"{path}.dvc").exists()]:
            self.call(sys.executable, "-m", "dvc", "add", "-q", *new)

    def replay(self, *arguments: str, store: Path | None = None) -> list[str]:
        """The command line of `replay`, on the store that all share, or on another."""
        return [*REPLAY, *arguments, "--store", str(store or shared_store())]

    def record(self, job: str) -> str:
        """Record a run; its id."""
        return str(json.loads(self.call(*self.replay("run", "-q", job, "--json")))["run_id"])

    def spec(self, run_id: str) -> StateSpec:
        path = self.root / "state_specs" / f"{run_id}.yaml"
        return load_spec(path.read_bytes(), str(path))


@functools.cache
def shared_store() -> Path:
    """The store of all workspaces. Runs of earlier measurements are dropped; blobs and caches stay."""
    folder = PLACE / "store"
    for name in ("runs", "releases", "index.sqlite", "log"):
        _remove(folder / name)
    open_store(folder, create=True)
    (folder / "runs").mkdir(exist_ok=True)
    return folder


def fresh_store(place: Path) -> None:
    """A store that knows the image and nothing else, in the place of what was there."""
    _remove(place)
    shutil.copytree(_store_with_image(), place, copy_function=os.link)


@functools.cache
def _store_with_image() -> Path:
    folder = PLACE / "store-with-image"
    if not folder.exists():
        workspace = Workspace("image", {"nothing": {"command": ["true"]}})
        workspace.call(*workspace.replay("run", "-q", "nothing", store=folder))
        _remove(folder / "runs")
        (folder / "runs").mkdir()
    return folder


def _remove(path: Path) -> None:
    if path.is_dir():
        subprocess.run(["rm", "-rf", path], check=True)
    else:
        path.unlink(missing_ok=True)


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("REPLAY_")}
    return kept | {"DVC_NO_ANALYTICS": "true"}
