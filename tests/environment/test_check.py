"""Damage is found and named; what only looks like damage is not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.environment import seal
from runner.environment.check import check_full, check_quick
from runner.environment.farm import Environment
from runner.environment.layout import EPOCH

FILES = {"pkg/__init__.py": "x = 1\n", "pkg/other.py": "y = 2\n"}


@pytest.fixture
def environment(builder: Any) -> Environment:
    return builder.build(builder.shelf.make("pkg", FILES))


@pytest.fixture
def package(environment: Environment, builder: Any) -> Path:
    return environment.path / builder.interpreter.site_packages / "pkg"


def _edit_in_secret(package: Path) -> None:
    """Same size, and the time put back; only the ctime tells."""
    (package / "other.py").write_text("y = 3\n")
    os.utime(package / "other.py", (EPOCH, EPOCH))


def _replace_in_secret(package: Path) -> None:
    (package / "new").write_text("y = 3\n")
    os.utime(package / "new", (EPOCH, EPOCH))
    (package / "new").replace(package / "other.py")


def _link_elsewhere(package: Path) -> None:
    link = package.parents[3] / "bin/python"
    link.unlink()
    link.symlink_to("/bin/sh")


def _unlinked(package: Path) -> Path:
    (package / "other.py").unlink()
    return package / "other.py"


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "edited": (lambda package: (package / "other.py").write_text("y = 2222\n"), "pkg/other.py"),
    "edited in secret": (_edit_in_secret, "pkg/other.py"),
    "replaced in secret": (_replace_in_secret, "pkg/other.py"),
    "emptied": (lambda package: os.truncate(package / "other.py", 0), "pkg/other.py"),
    "touched": (lambda package: os.utime(package / "other.py"), "pkg/other.py"),
    "closed": (lambda package: (package / "other.py").chmod(0o600), "pkg/other.py"),
    "made a program": (lambda package: (package / "other.py").chmod(0o755), "pkg/other.py"),
    "missing": (lambda package: (package / "other.py").unlink(), "pkg/other.py"),
    "extra": (lambda package: (package / "extra.py").write_text(""), "pkg/extra.py"),
    "extra folder": (lambda package: (package / "empty").mkdir(), "pkg/empty"),
    "folder for a file": (
        lambda package: ((package / "other.py").unlink(), (package / "other.py").mkdir()),
        "pkg/other.py",
    ),
    "link for a file": (lambda package: _unlinked(package).symlink_to("__init__.py"), "pkg/other.py"),
    "pipe for a file": (
        lambda package: ((package / "other.py").unlink(), os.mkfifo(package / "other.py")),
        "pkg/other.py",
    ),
    "link elsewhere": (_link_elsewhere, "bin/python"),
    "folder gone": (lambda package: shutil.rmtree(package), "pkg"),
    "root gone": (lambda package: shutil.rmtree(package.parents[3]), "root"),
    "manifest edited": (lambda package: (package.parents[4] / "manifest").write_text(""), "manifest"),
    "manifest gone": (lambda package: (package.parents[4] / "manifest").unlink(), "manifest"),
}


@pytest.mark.parametrize("check", [check_quick, check_full])
@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named_every_time(
    environment: Environment, package: Path, kind: str, check: Callable[[Path], list[str]]
) -> None:
    assert check(environment.folder) == []
    damage, name = DAMAGE[kind]
    damage(package)
    assert any(found.endswith(name) for found in check(environment.folder))
    assert any(found.endswith(name) for found in check(environment.folder)), "asking does not mend it"


def _break_every_file(package: Path) -> None:
    for file in package.glob("*.py"):
        file.write_text("broken\n")


@pytest.mark.parametrize("kind", [*DAMAGE, "everything"])
def test_what_is_discarded_comes_back_right(environment: Environment, package: Path, builder: Any, kind: str) -> None:
    """Though the tree shares the damaged file with the environment."""
    (DAMAGE[kind][0] if kind in DAMAGE else _break_every_file)(package)
    seal.discard(environment.folder)
    again = builder.build(builder.shelf.make("pkg", FILES))
    assert again == environment
    assert check_full(again.folder) == []
    assert builder.run(again, "import pkg, pkg.other; print(pkg.x + pkg.other.y)") == "3"


@pytest.mark.parametrize("check", [check_quick, check_full])
def test_a_new_link_is_no_damage_and_is_looked_at_once(
    environment: Environment, package: Path, tmp_path: Path, check: Callable[[Path], list[str]]
) -> None:
    before = seal.read_stamps(environment.folder)
    os.link(package / "other.py", tmp_path / "link")
    assert check(environment.folder) == []
    after = seal.read_stamps(environment.folder)
    assert after != before
    assert after == seal.survey(environment.path)[0]


def test_stamping_one_file_anew_does_not_forget_that_another_is_damaged(
    environment: Environment, package: Path, tmp_path: Path
) -> None:
    os.utime(package / "other.py")
    os.link(package / "__init__.py", tmp_path / "link")
    for _ in range(2):
        assert [name.rpartition("/")[2] for name in check_quick(environment.folder)] == ["other.py"]


@pytest.mark.parametrize("content", [None, b"", b"nonsense"])
def test_without_stamps_content_decides(environment: Environment, package: Path, content: bytes | None) -> None:
    stamps = environment.folder / "stamps"
    stamps.unlink() if content is None else stamps.write_bytes(content)
    assert check_quick(environment.folder) == []
    stamps.unlink()
    _edit_in_secret(package)
    assert [name.rpartition("/")[2] for name in check_quick(environment.folder)] == ["other.py"]


def test_a_copy_restored_from_a_backup_is_right(environment: Environment, tmp_path: Path) -> None:
    shutil.copytree(environment.folder, tmp_path / "backup", symlinks=True)
    shutil.rmtree(environment.folder)
    shutil.copytree(tmp_path / "backup", environment.folder, symlinks=True)
    assert check_quick(environment.folder) == []


def test_only_the_full_check_sees_bytes_that_went_bad_by_themselves(environment: Environment, package: Path) -> None:
    """Stamps taken after the fact stand for a disk that changed bytes without any write."""
    _edit_in_secret(package)
    seal.write_stamps(environment.folder, seal.survey(environment.path)[0])
    assert check_quick(environment.folder) == []
    assert [name.rpartition("/")[2] for name in check_full(environment.folder)] == ["other.py"]


def test_discarding_what_is_not_there(environment: Environment, builder: Any) -> None:
    seal.discard(environment.folder)
    seal.discard(environment.folder)
    assert not environment.folder.exists()
    assert not list((builder.cache / "tmp").iterdir())
