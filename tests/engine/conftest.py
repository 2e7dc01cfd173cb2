"""Runs recorded once, to be copied by every test that replays, looks or collects."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.tools.containers import Engine
from tests.conftest import Index, Workspace, import_image, small_files, wheel

Record = Callable[[str], dict[str, Any]]

# Shows where on the host the model is: the same at every replay, and another in a store elsewhere.
WHERE = 'while read -r a b c root at rest; do case "$at" in */m.txt) echo "$root";; esac; done </proc/self/mountinfo'
RANDOM = "cat /proc/sys/kernel/random/uuid"
TOOL = "#!/bin/sh\necho tool\n"
JOBS = {
    "steady": {
        "command": "mkdir out; cat m.txt p.yaml lib/code.txt >out/a.txt; cp tool.sh out/; echo said; echo hm >&2",
        "outputs": {"out": "bytes", "stdout": "text"},
        "params": "p.yaml",
        "model": ["m.txt"],
        "env": {"MODE": "prod"},
        "labels": ["prod", "eu"],
    },
    # Another number each time, and however much later: three and some nanoseconds.
    "uptime": {
        "command": 'echo "{\\"up\\": 3.$(date +%N), \\"n\\": 1}" >m.json',
        "outputs": {"m.json": {"compare": "json", "rtol": 0.5}},
    },
    "random": {"command": f"{RANDOM} >r.txt; echo same >s.txt; echo 1 >only.txt", "outputs": ["r.txt", "s.txt"]},
    "where": {
        "command": f"{WHERE} >where.txt; echo same >s.txt",
        "outputs": ["where.txt", "s.txt"],
        "model": ["m.txt"],
    },
    "exits": {
        "command": f'case "$({WHERE})" in */template*) exit 0;; *) exit 3;; esac',
        "outputs": [],
        "model": ["m.txt"],
    },
    "fails": {"command": "echo no >&2; exit 9", "outputs": ["never.txt"]},
}


def write_sources(workspace: Workspace, image: str, jobs: dict[str, Any]) -> None:
    workspace.write("m.txt", "model\n")
    workspace.write("p.yaml", "rate: 0.1\nnet: {depth: 3, width: 4}\n")
    workspace.write("lib/code.txt", "code\n")
    workspace.write("tool.sh", TOOL, 0o755)
    workspace.jobs(**{name: {"image": image, "python": None} | job for name, job in jobs.items()})


@pytest.fixture(scope="session")
def recorded_template(shell_image: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, dict[str, str]]:
    """A workspace with one run of each job; nobody runs anything in it afterwards."""
    template = Workspace(tmp_path_factory.mktemp("template"))
    write_sources(template, shell_image, JOBS)
    runs = {}
    for name in JOBS:
        done = template.replay("run", name, "--json")
        assert done.code == (4 if name == "fails" else 0), done
        runs[name] = done.json["run_id"]
    return template, runs


class Recorded(Workspace):
    """A copy of a template: its store, its sources, and `ids`, the run of each job."""

    ids: dict[str, str]

    def replayed(self, part: str, *arguments: str, code: int = 0, **env: str) -> dict[str, Any]:
        """`replay PART --json`, which must exit with that code."""
        done = self.replay(part, *arguments, "--json", **env)
        assert done.code == code, done
        return done.json

    def error(self, *arguments: str, code: int) -> dict[str, Any]:
        """The error object of a command that must fail so; it has a way out or a reason."""
        done = self.replay(*arguments, "--json")
        assert done.code == code, done
        found: dict[str, Any] = done.json["error"]
        assert found["code"] == code and found["what"] and (found.get("why") or found.get("next")), found
        return found

    def spec(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.replay("show", self.ids[name], "--json").json["spec"]
        return found

    def forget_caches(self) -> None:
        shutil.rmtree(self.store / "cache")


def copy_store(source: Path, target: Path) -> None:
    """Blobs by hard link, the rest as copies, under an identity of its own."""

    def copy(a: str, b: str) -> None:
        os.link(a, b) if "/blobs/" in a else shutil.copy2(a, b)

    shutil.copytree(source, target, copy_function=copy, symlinks=True)
    marker = target / "store.json"
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"id": os.urandom(8).hex()}))


def copy_of(template: Workspace, ids: dict[str, str], root: Path) -> Recorded:
    copied = Recorded(root)
    shutil.copytree(template.root, root, ignore=shutil.ignore_patterns(".replay"), dirs_exist_ok=True, symlinks=True)
    copy_store(template.store, copied.store)
    copied.same_user_as(template)
    copied.ids = dict(ids)
    return copied


def check_left_over(workspace: Workspace) -> None:
    assert not workspace.containers(), "containers left behind"
    assert not list((workspace.store / "scratch").iterdir()), "scratch folders left behind"
    assert not list((workspace.store / "tmp").iterdir()), "temporary files left behind"


@pytest.fixture
def recorded(recorded_template: tuple[Workspace, dict[str, str]], tmp_path: Path) -> Iterator[Recorded]:
    """Runs of jobs that need no Python."""
    copied = copy_of(*recorded_template, tmp_path / "work")
    yield copied
    check_left_over(copied)


# --- with packages and data -------------------------------------------------------------------------------

PYTHON_JOB = "import pathlib, alpha; print(alpha.VALUE, pathlib.Path('d.csv').read_text(), open('code.txt').read())"


@pytest.fixture(scope="session")
def python_template(
    python311: str, python_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workspace, dict[str, str]]:
    """One run with a locked package and data under DVC."""
    template = Workspace(tmp_path_factory.mktemp("packages"))
    copy_store(python_store, template.store)
    index = Index()
    try:
        index.add(wheel("alpha", "1.0", {"alpha.py": "VALUE = 'alpha 1.0'\n"}))
        template.git("init", "-q")
        template.dvc("init")
        template.write("d.csv", "a,b\n1,2\n")
        template.dvc("add", "d.csv")
        template.write("code.txt", "code")
        template.write("requirements.in", "alpha\n")
        job = {"command": ["python", "-c", PYTHON_JOB], "image": python311, "outputs": ["stdout"]}
        template.jobs(py=job | {"dependencies": "requirements.in", "data": ["d.csv"]})
        pip = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index.url, "PIP_FIND_LINKS": "", "PIP_RETRIES": "0"}
        return template, {"py": template.run("py", **pip)["run_id"]}
    finally:
        index.close()


@pytest.fixture
def packaged(python_template: tuple[Workspace, dict[str, str]], tmp_path: Path) -> Iterator[Recorded]:
    """A run with a locked package and data under DVC; no index serves the package any more."""
    copied = copy_of(*python_template, tmp_path / "work")
    yield copied
    check_left_over(copied)


# --- images of one test's own -----------------------------------------------------------------------------


class OwnImage:
    """A small image that no other test has: it can be removed, moved and made again under another id."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine = engine
        self._folder = folder
        self._files, self._links = small_files()
        self.name = f"replay-tests/own-{os.urandom(6).hex()}"
        self.tag = f"{self.name}:1"
        self._files["own"] = (self.name.encode(), 0o644)
        self.make(self.tag)
        found = engine.image(self.tag)
        assert found
        self.id, self.identity = found.id, found.identity
        self.names = [self.tag]

    def make(self, tag: str) -> None:
        """Import the same content anew: equal layers, another id."""
        import_image(self._engine, self._files, tag, self._folder, **self._links)

    def move_tag(self, other: str) -> None:
        self._engine._client.tag(other, self.name, "1")

    def present(self) -> bool:
        return any(found.identity.diff_ids == self.identity.diff_ids for found in self._engine.images())

    def remove(self) -> None:
        """From the engine, whatever it is called there."""
        for found in list(self._engine.images()):
            if found.identity.diff_ids == self.identity.diff_ids:
                self._engine._client.remove_image(found.id, force=True)
        for name in (self.tag, f"{self.name}:2"):
            if self._engine.image(name):
                self._engine._client.remove_image(name)


@pytest.fixture
def own_image(engine: Engine, tmp_path: Path) -> Iterator[OwnImage]:
    made = OwnImage(engine, tmp_path)
    yield made
    made.remove()
