"""Environments of real packages, mounted as a job sees them: read-only, no network, another user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from packaging.utils import parse_wheel_filename

from runner.environment.byte_code import COMPILE_ENV, compile_command
from runner.environment.check import check_full
from runner.environment.farm import Environment
from runner.environment.layout import PREFIX, WORKSPACE, Interpreter
from runner.environment.project import Project
from runner.state.spec import Wheel

pytestmark = pytest.mark.engine

PACKAGES = ["six", "attrs", "click", "pyyaml", "numpy"]
PROBE = """
import importlib.util as u, json, os, sys
print(json.dumps([os.path.realpath(sys.executable), "%d.%d.%d" % sys.version_info[:3],
                  sys.implementation.cache_tag, u.MAGIC_NUMBER.hex()]))
"""


def docker(*arguments: str | Path) -> str:
    done = subprocess.run(["docker", "run", "--rm", "--network", "none", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Image(NamedTuple):
    name: str
    interpreter: Interpreter

    def compile_trees(self, trees: Sequence[Path]) -> None:
        variables = [word for name, value in COMPILE_ENV.items() for word in ("-e", f"{name}={value}")]
        command = compile_command(self.interpreter, [f"/trees/{tree.name}" for tree in trees])
        user = f"{os.getuid()}:{os.getgid()}"
        docker("--user", user, "-v", f"{trees[0].parent}:/trees", *variables, self.name, *command)

    def run(self, environment: Environment, *command: str, workspace: Path | None = None) -> str:
        mounts = ["-v", f"{environment.path}:{PREFIX}:ro"]
        if workspace:
            mounts += ["-v", f"{workspace}:{WORKSPACE}:ro"]
        return docker("--user", "1000", "--read-only", *mounts, self.name, *command)


@pytest.fixture(scope="module", params=["python311", "python313"])
def image(request: pytest.FixtureRequest) -> Image:
    name = request.getfixturevalue(request.param)
    return Image(name, Interpreter(*json.loads(docker(name, "python3", "-c", PROBE))))


@pytest.fixture
def environments(builder: Any, image: Image) -> Iterator[Any]:
    builder.interpreter = image.interpreter
    builder.compile_trees = image.compile_trees
    yield builder


@pytest.fixture(scope="module")
def downloads(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("downloads")
    python = ["--python-version", image.interpreter.series, "--platform", "manylinux_2_28_x86_64"]
    python += ["--platform", "manylinux2014_x86_64"]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", *python]
    subprocess.run([*pip, "--dest", folder, *PACKAGES], check=True)
    return folder


def wheels_of(folder: Path, shelf: Any) -> list[Wheel]:
    names = {file: parse_wheel_filename(file.name) for file in sorted(folder.glob("*.whl"))}
    for file in names:
        (shelf.folder / file.name).hardlink_to(file)
    return [shelf.keep(shelf.folder / file.name, name[0], str(name[1])) for file, name in names.items()]


@pytest.mark.network
def test_real_packages_work(environments: Any, image: Image, downloads: Path, shelf: Any) -> None:
    environment = environments.build(*wheels_of(downloads, shelf))
    code = (
        "import sys, importlib.metadata as m, six, attrs, click, yaml, numpy\n"
        "assert yaml.__with_libyaml__\n"
        "files = [f for n in ('six', 'attrs', 'click', 'pyyaml', 'numpy') for f in m.files(n)]\n"
        "assert all(f.locate().exists() for f in files)\n"
        "print(sys.prefix, sys.executable, numpy.linalg.det(numpy.eye(3)))"
    )
    assert image.run(environment, f"{PREFIX}/bin/python", "-c", code) == f"{PREFIX} {PREFIX}/bin/python 1.0"
    assert image.run(environment, f"{PREFIX}/bin/numpy-config", "--version")
    assert check_full(environment.folder) == []


def test_scripts_and_the_workspace_s_own_package_run(environments: Any, image: Image, tmp_path: Path) -> None:
    (tmp_path / "work/src/mine").mkdir(parents=True)
    (tmp_path / "work/src/mine/__init__.py").write_text("import tool\n\ndef main():\n    print('mine', tool.x)\n")
    tool = "x = 7\n\ndef main():\n    print('tool')\n"
    wheel = environments.shelf.make("tool", {"tool.py": tool}, entry_points="[console_scripts]\ntool = tool:main\n")
    project = Project("mine", "1.0", ("src",), {"go": "mine:main"})
    environment = environments.build(wheel, project=project)
    assert image.run(environment, f"{PREFIX}/bin/tool") == "tool"
    assert image.run(environment, f"{PREFIX}/bin/go", workspace=tmp_path / "work") == "mine 7"


@pytest.mark.parametrize("visible", [True, False])
def test_packages_of_the_image_are_seen_if_asked_for(environments: Any, image: Image, visible: bool) -> None:
    environment = environments.build(environments.shelf.make("pkg", {"pkg.py": ""}), system_packages=visible)
    code = "import pkg, sys; print(any('dist-packages' in p or p.startswith('/usr/local/lib') for p in sys.path))"
    assert image.run(environment, f"{PREFIX}/bin/python", "-c", code) == str(visible)


@pytest.mark.network
def test_byte_code_repeats_and_is_what_the_interpreter_takes(
    environments: Any, image: Image, downloads: Path, shelf: Any, tmp_path: Path
) -> None:
    """Once all together, once a tree at a time: the digests of the environments agree."""
    wheels = wheels_of(downloads, shelf)
    together = environments.build(*wheels)
    environments.cache = tmp_path / "another"
    for wheel in wheels:
        environments.build(wheel)
    assert environments.build(*wheels).tree == together.tree
    verbose = docker(
        "--entrypoint", "sh", "-v", f"{together.path}:{PREFIX}:ro", image.name,
        "-c", f"{PREFIX}/bin/python -v -c 'import click' 2>&1 | grep -c \"code object from '{PREFIX}.*[.]pyc'\"",
    )  # fmt: skip
    assert int(verbose) > 5
