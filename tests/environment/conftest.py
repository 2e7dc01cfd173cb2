"""Wheels made on the spot, and environments made of them for the Python that runs the tests."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from runner.environment.byte_code import COMPILE_ENV, compile_command
from runner.environment.farm import Environment, build_environment
from runner.environment.layout import Interpreter
from runner.environment.project import Project
from runner.state.digest import Digest, digest_file
from runner.state.spec import Wheel

Content = str | bytes


class WheelShelf:
    """A folder of wheels, kept as a store does: under their digest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)

    def find(self, digest: Digest) -> Path:
        return self.folder / digest

    def keep(self, file: Path, name: str, version: str, wheel: str | None = None) -> Wheel:
        digest = digest_file(file)
        file.replace(self.folder / digest)
        return Wheel(name, version, wheel or file.name, digest)

    def make(
        self,
        name: str,
        files: Mapping[str, Content] = {},
        *,
        version: str = "1.0",
        tag: str = "py3-none-any",
        entry_points: str | None = None,
        pure: bool = True,
        programs: Sequence[str] = (),
        record: Callable[[dict[str, str]], None] = lambda lines: None,
        archive: Callable[[zipfile.ZipFile], None] = lambda archive: None,
        wheel: str | None = None,
        metadata: str | None = None,
    ) -> Wheel:
        """`record` may spoil RECORD's lines (by path), `archive` may add members that RECORD does not list."""
        stem = f"{name.replace('-', '_')}-{version}"
        info = f"{stem}.dist-info"
        members: dict[str, Content] = dict(files)
        members[f"{info}/METADATA"] = metadata or f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        members[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nRoot-Is-Purelib: {str(pure).lower()}\nTag: {tag}\n"
        if entry_points:
            members[f"{info}/entry_points.txt"] = entry_points
        lines = {path: _record_line(path, content) for path, content in members.items()}
        lines[f"{info}/RECORD"] = f"{info}/RECORD,,"
        record(lines)
        members[f"{info}/RECORD"] = "".join(f"{line}\n" for line in lines.values())
        file = self.folder / f"{stem}-{tag}.whl"
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
            for path, content in members.items():
                member = zipfile.ZipInfo(path)
                member.external_attr = (0o100755 if path in programs else 0o100644) << 16
                made.writestr(member, content)
            archive(made)
        return self.keep(file, name, version, wheel)


def _record_line(path: str, content: Content) -> str:
    data = content.encode() if isinstance(content, str) else content
    value = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    return f'"{path}",sha256={value},{len(data)}'


@pytest.fixture
def shelf(tmp_path: Path) -> WheelShelf:
    return WheelShelf(tmp_path / "wheels")


@pytest.fixture(scope="session")
def interpreter() -> Interpreter:
    """The Python that runs the tests, as if it were an image's."""
    return Interpreter(
        executable=os.path.realpath(sys.executable),
        version=".".join(map(str, sys.version_info[:3])),
        cache_tag=str(sys.implementation.cache_tag),
        magic=importlib.util.MAGIC_NUMBER.hex(),
    )


class Builder:
    """Builds environments in one cache; `compiled` counts the trees of each call of the compiler."""

    def __init__(self, cache: Path, interpreter: Interpreter, shelf: WheelShelf) -> None:
        self.cache = cache
        self.interpreter = interpreter
        self.shelf = shelf
        self.compiled: list[int] = []

    def compile_trees(self, trees: Sequence[Path]) -> None:
        assert len({tree.parent for tree in trees}) == 1
        self.compiled.append(len(trees))
        command = compile_command(self.interpreter, [str(tree) for tree in trees])
        subprocess.run(command, env={**os.environ, **COMPILE_ENV}, check=True)

    def build(
        self,
        *wheels: Wheel,
        system_packages: bool = False,
        project: Project | None = None,
        compile_trees: Callable[[Sequence[Path]], None] | None = None,
    ) -> Environment:
        return build_environment(
            self.cache,
            self.interpreter,
            wheels,
            self.shelf.find,
            compile_trees or self.compile_trees,
            system_packages,
            project,
        )

    def run(self, environment: Environment, code: str) -> str:
        """What Python prints there. The tests' interpreter serves as the image's, so no engine is needed."""
        done = subprocess.run(
            [environment.path / "bin/python", "-c", code], capture_output=True, text=True, check=True, cwd="/"
        )
        return done.stdout.strip()


@pytest.fixture
def builder(tmp_path: Path, interpreter: Interpreter, shelf: WheelShelf) -> Builder:
    return Builder(tmp_path / "cache", interpreter, shelf)
