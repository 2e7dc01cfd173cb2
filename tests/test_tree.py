"""Small checks of the repository itself: what lies where, and what must not be in it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from runner.tools.debian import load_recipe

ROOT = Path(__file__).parent.parent
TOP_LEVEL = {
    "LICENSE",
    "Makefile",
    "README.md",
    "examples",
    "images",
    "pyproject.toml",
    "runner",
    "state_specs",
    "tests",
}
SCRIPTS = [".ci/apt", ".ci/engine", ".ci/run", ".ci/setup", "examples/demo"]
IMAGES = sorted(path.name for path in (ROOT / "images").iterdir() if path.is_dir())
LOCK = ROOT / ".ci" / "requirements.txt"


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    return [name for name in os.fsdecode(listed.stdout).split("\0") if name]


def test_the_top_level_is_the_agreed_one() -> None:
    top = {name.split("/")[0] for name in tracked()}
    assert {name for name in top if not name.startswith(".")} <= TOP_LEVEL


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_can_be_run_and_parsed(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", script], cwd=ROOT, check=True)


@pytest.mark.parametrize("image", IMAGES)
def test_every_image_has_a_dockerfile_and_a_recipe(image: str) -> None:
    folder = ROOT / "images" / image
    assert (folder / "Dockerfile").is_file()
    assert load_recipe(folder / "recipe.yaml").mmdebstrap.include


def test_the_lock_names_no_index_and_hashes_everything() -> None:
    lock = LOCK.read_text(encoding="utf-8")
    assert not re.search(r"^\s*--(?!hash=)|://", lock, re.MULTILINE)
    pins = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)[1:]
    assert len(pins) > 50
    assert [pin.split()[0] for pin in pins if "==" not in pin or "--hash=sha256:" not in pin] == []


def test_make_lists_its_targets_and_works_in_a_path_with_a_space(tmp_path: Path) -> None:
    checkout = tmp_path / "a b"
    (checkout / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", checkout)
    (checkout / ".ci" / "engine").write_text("#!/bin/sh\necho here: $PWD\n")
    (checkout / ".ci" / "engine").chmod(0o755)
    assert "test-slow" in make(checkout)
    assert "a b" in make(checkout, "engine")


def make(folder: Path, *targets: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(["make", *targets], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_a_missing_engine_is_reported_with_a_way_to_get_one(tmp_path: Path) -> None:
    host = f"unix://{tmp_path}/nothing.sock"
    for arguments in ([], ["--check"]):
        done = subprocess.run(
            [ROOT / ".ci" / "engine", *arguments],
            env={**os.environ, "DOCKER_HOST": host},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 7
        assert host in done.stderr and "DOCKER_HOST=unix://" in done.stderr
        assert done.stdout == ""


def test_a_python_that_is_too_old_is_reported(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    (checkout / ".ci").mkdir(parents=True)
    for name in ("setup", "requirements.txt"):
        shutil.copy(ROOT / ".ci" / name, checkout / ".ci")
    shutil.copy(ROOT / "pyproject.toml", checkout)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "cat", "dirname", "sha256sum"):
        (programs / name).symlink_to(shutil.which(name) or name)
    done = subprocess.run(
        [checkout / ".ci" / "setup"], env={"PATH": str(programs)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "no Python 3.11 or newer" in done.stderr
    assert not (checkout / ".venv").exists()
