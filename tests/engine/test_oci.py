"""A run as one image: the same bytes for the same state, and the job runs with `docker run` alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.tools.containers import Engine
from tests.conftest import Workspace, absent
from tests.engine.conftest import Recorded
from tests.engine.test_travel import second_engine as second_engine

pytestmark = pytest.mark.engine


def export(workspace: Workspace, run_id: str, file: Path, **env: str) -> dict[str, Any]:
    done = workspace.replay("export", run_id, "--oci", str(file), "--json", **env)
    assert done.code == 0, done
    found: dict[str, Any] = done.json
    return found


def docker(*arguments: str, **env: str) -> str:
    program = shutil.which("docker")
    if program is None:
        raise absent("there is no docker client")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, env=env or None)
    assert done.returncode == 0, done
    return done.stdout


@pytest.fixture
def loaded(engine: Engine) -> Iterator[list[str]]:
    """Images to be removed again."""
    names: list[str] = []
    yield names
    for name in names:
        engine.remove_image(name)


def test_the_job_runs_from_the_image_alone(
    recorded: Recorded, loaded: list[str], engine: Engine, tmp_path: Path
) -> None:
    made = export(recorded, recorded.ids["steady"], tmp_path / "a.tar")
    engine.load(iter([(tmp_path / "a.tar").read_bytes()]))
    loaded.append(made["image"])
    shutil.rmtree(recorded.store / "blobs")
    assert docker("run", "--rm", "--network", "none", made["image"]) == "said\n"
    found = docker(
        "run", "--rm", "--network", "none", made["image"], "sh", "-c", "cat m.txt p.yaml; echo $MODE; id -u; pwd"
    )
    assert found == "model\nrate: 0.1\nnet: {depth: 3, width: 4}\nprod\n1000\n/workspace\n"


def test_packages_and_data_are_in_it(packaged: Recorded, loaded: list[str], engine: Engine, tmp_path: Path) -> None:
    run_id = packaged.ids["py"]
    made = export(packaged, run_id, tmp_path / "a.tar")
    engine.load(iter([(tmp_path / "a.tar").read_bytes()]))
    loaded.append(made["image"])
    recorded = packaged.replay("logs", run_id).out
    assert docker("run", "--rm", "--network", "none", made["image"]) == recorded and "alpha 1.0" in recorded


def test_the_same_state_gives_the_same_bytes(recorded: Recorded, second_engine: str, tmp_path: Path) -> None:
    run_id = recorded.ids["steady"]
    first = export(recorded, run_id, tmp_path / "a.tar")
    recorded.forget_caches()
    (recorded.store / "cache").mkdir()
    again = recorded.replay("run", "steady", "--json").json["run_id"]
    assert export(recorded, again, tmp_path / "b.tar") == first | {"run_id": again, "file": str(tmp_path / "b.tar")}
    elsewhere = export(recorded, run_id, tmp_path / "c.tar", DOCKER_HOST=second_engine)
    assert elsewhere["digest"] == first["digest"]
    contents = {name: (tmp_path / name).read_bytes() for name in ("a.tar", "b.tar", "c.tar")}
    assert len(set(contents.values())) == 1
    assert str(tmp_path).encode() not in contents["a.tar"]


def test_it_is_an_oci_layout_whose_digests_hold(recorded: Recorded, tmp_path: Path) -> None:
    import hashlib

    made = export(recorded, recorded.ids["steady"], tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as tar:
        held = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}  # type: ignore[union-attr]
    for name, content in held.items():
        if name.startswith("blobs/"):
            assert name == f"blobs/sha256/{hashlib.sha256(content).hexdigest()}"
    (entry,) = json.loads(held["index.json"])["manifests"]
    assert entry["digest"] == made["digest"]
    manifest = json.loads(held["blobs/sha256/" + entry["digest"].removeprefix("sha256:")])
    config = json.loads(held["blobs/sha256/" + manifest["config"]["digest"].removeprefix("sha256:")])
    assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]
    assert config["config"]["User"] == "1000:1000" and config["config"]["WorkingDir"] == "/workspace"


def test_secrets_are_never_in_it(
    workspace: Workspace, shell_image: str, loaded: list[str], engine: Engine, tmp_path: Path
) -> None:
    job = {"command": "echo ${#KEY}", "image": shell_image, "python": None, "outputs": ["stdout"]}
    workspace.jobs(j=job | {"secrets": {"KEY": "env:KEY"}})
    run_id = workspace.run("j", KEY="hushhushhush")["run_id"]
    made = export(workspace, run_id, tmp_path / "a.tar")
    assert b"hushhushhush" not in (tmp_path / "a.tar").read_bytes()
    engine.load(iter([(tmp_path / "a.tar").read_bytes()]))
    loaded.append(made["image"])
    assert docker("run", "--rm", "--network", "none", "-e", "KEY=four", made["image"]) == "4\n"
    told = workspace.replay("export", run_id, "--oci", str(tmp_path / "b.tar"))
    assert "-e KEY" in told.out and "--network none" in told.out
    assert workspace.replay("export", run_id, "--oci", str(tmp_path / "b.tar")).code == 2
