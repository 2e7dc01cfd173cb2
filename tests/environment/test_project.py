"""What `pyproject.toml` says of the workspace's own package."""

from __future__ import annotations

import pytest

from runner.environment.project import Project, read_project
from runner.errors import UsageError

WHOLE = b"""
[build-system]
requires = ["hatchling"]

[project]
name = "My_Project"
version = "1.0.0-rc.1"
dependencies = ["numpy"]

[project.scripts]
train = "mine.train:main"
[project.gui-scripts]
show = "mine.show : App.run"
[project.entry-points."mine.plugins"]
csv = "mine.csv"
json = "mine.json:Reader [fast]"
"""


def test_a_whole_table() -> None:
    assert read_project(WHOLE, has_src=True) == Project(
        name="my-project",
        version="1.0.0rc1",
        package_dirs=("src",),
        scripts={"train": "mine.train:main", "show": "mine.show : App.run"},
        entry_points={"mine.plugins": {"csv": "mine.csv", "json": "mine.json:Reader [fast]"}},
    )


def test_the_least() -> None:
    assert read_project(b'[project]\nname = "a"\nversion = "1"\n', has_src=False) == Project("a", "1", (".",))


def test_a_version_that_only_a_build_would_know() -> None:
    project = read_project(b'[project]\nname = "a"\ndynamic = ["version"]\n', has_src=False)
    assert project and project.version == "0"


@pytest.mark.parametrize("text", [b"", b"[tool.ruff]\nline-length = 100\n"])
def test_no_package(text: bytes) -> None:
    assert read_project(text, has_src=True) is None


HEAD = '[project]\nname = "a"\nversion = "1"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[project\n", "line 1"),
        ("project = 1\n", "`project`"),
        ("[project]\nversion = '1'\n", "name"),
        ("[project]\nname = 'a b'\nversion = '1'\n", "'a b'"),
        ("[project]\nname = '../x'\nversion = '1'\n", "'../x'"),
        ("[project]\nname = 'a'\n", "project.version"),
        ("[project]\nname = 'a'\nversion = 1\n", "project.version"),
        ("[project]\nname = 'a'\nversion = 'one'\n", "'one'"),
        (HEAD + "scripts = []\n", "project.scripts"),
        (HEAD + "[project.scripts]\nx = 1\n", "project.scripts"),
        (HEAD + "[project.scripts]\nx = 'mine'\n", "project.scripts.x"),
        (HEAD + "[project.scripts]\nx = 'mine:f()'\n", "mine:f()"),
        (HEAD + "[project.scripts]\n'../x' = 'mine:f'\n", "'../x'"),
        (HEAD + "[project.entry-points.g]\nx = 'a b'\n", "project.entry-points.g.x"),
        (HEAD + "[project.entry-points.g]\n\"a\\nb\" = 'a'\n", "project.entry-points.g"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_project(text.encode(), has_src=False)
    assert "pyproject.toml" in caught.value.what
    assert said in caught.value.why
    assert caught.value.next


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(UsageError):
        read_project(b"\xff\xfe", has_src=False)
