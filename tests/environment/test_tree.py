"""Trees: compiled once, the same bytes every time, whole or not there."""

from __future__ import annotations

import ast
import importlib.util
import marshal
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from runner.environment import compile_in_image
from runner.environment.layout import EPOCH, PREFIX, Entry
from runner.environment.tree import Tree, open_trees, tree_folder
from runner.errors import OutsideError, ReplayError, UnrebuildableError
from runner.state.spec import Wheel

SOURCE = """
import os
A = {"x", "y", "z"}

def f(a, b=(1, 2)):
    return a in {"p", "q", "r"}, "common"
"""
FILES = {"pkg/__init__.py": SOURCE, "pkg/sub.py": "common = 'common'\n", "pkg/old.py": "print 'Python 2'\n"}


def opened(builder: Any, *wheels: Wheel) -> list[Tree]:
    return open_trees(builder.cache, builder.interpreter, wheels, builder.shelf.find, builder.compile_trees)


def byte_code(tree: Tree) -> dict[str, Entry]:
    return {Path(entry.path).name.split(".")[0]: entry for entry in tree.entries if entry.path.endswith(".pyc")}


def test_source_is_compiled_for_its_final_place(builder: Any) -> None:
    (tree,) = opened(builder, builder.shelf.make("pkg", FILES))
    found = byte_code(tree)
    assert set(found) == {"__init__", "sub"}, "old.py does not compile, which is no error"
    file = tree.folder / "root" / found["__init__"].path
    data = file.read_bytes()
    assert data[:4] == importlib.util.MAGIC_NUMBER
    assert data[4:8] == b"\1\0\0\0", "an unchecked hash"
    assert marshal.loads(data[16:]).co_filename == f"{PREFIX}/{builder.interpreter.site_packages}/pkg/__init__.py"
    assert file.stat().st_mtime_ns == EPOCH * 10**9


def test_what_tests_a_package_is_there_without_byte_code(builder: Any) -> None:
    (tree,) = opened(builder, builder.shelf.make("pkg", FILES | {"pkg/tests/test_sub.py": "A = 1\n"}))
    assert set(byte_code(tree)) == {"__init__", "sub"}
    assert any(entry.path.endswith("pkg/tests/test_sub.py") for entry in tree.entries)


def test_byte_code_repeats_whatever_is_compiled_beside_it(builder: Any, tmp_path: Path) -> None:
    pkg = builder.shelf.make("pkg", FILES)
    others = [builder.shelf.make(f"aaa{n}", {f"aaa{n}/__init__.py": SOURCE + f"B = {n}\n"}) for n in range(4)]
    (alone,) = opened(builder, pkg)
    builder.cache = tmp_path / "another"
    *_, beside = opened(builder, *others, pkg)
    assert alone.entries == beside.entries
    assert builder.compiled == [1, 5]


def test_only_new_trees_are_made(builder: Any) -> None:
    one, two = (builder.shelf.make(name, {f"{name}.py": ""}) for name in ("one", "two"))
    first = opened(builder, one)
    both = opened(builder, one, two)
    assert builder.compiled == [1, 1]
    assert both[0] == first[0]


def test_another_python_has_its_own_trees(builder: Any) -> None:
    wheel = builder.shelf.make("pkg")
    changes = [{"version": "3.11.99"}, {"magic": "00"}, {"cache_tag": "cpython-399"}]
    fields = {name: getattr(builder.interpreter, name) for name in builder.interpreter.__struct_fields__}
    others = [type(builder.interpreter)(**{**fields, **change}) for change in changes]
    assert len({tree_folder(builder.cache, wheel, python) for python in (builder.interpreter, *others)}) == 4


def test_a_damaged_tree_is_made_again(builder: Any) -> None:
    wheel = builder.shelf.make("pkg", FILES)
    (tree,) = opened(builder, wheel)
    file = tree.folder / "root" / byte_code(tree)["sub"].path
    file.write_bytes(b"x" * file.stat().st_size)
    os.utime(file, (EPOCH, EPOCH))
    assert opened(builder, wheel) == [tree]
    assert builder.compiled == [1, 1]
    assert file.read_bytes()[:1] != b"x"


def test_a_tree_made_by_two_at_once(builder: Any) -> None:
    wheels = [builder.shelf.make(f"pkg{n}", {f"pkg{n}.py": SOURCE}) for n in range(5)]
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda _: opened(builder, *wheels), range(2)))
    assert made[0] == made[1]
    assert not list((builder.cache / "tmp").iterdir())


def test_nothing_is_left_of_a_failure(builder: Any) -> None:
    good, bad = builder.shelf.make("good"), builder.shelf.make("bad")
    builder.shelf.find(bad.sha256).unlink()
    with pytest.raises(UnrebuildableError):
        opened(builder, good, bad)
    assert not list((builder.cache / "tmp").iterdir())
    assert not (builder.cache / "trees").exists()


@pytest.mark.parametrize("name", ["pkg/extra.py", "share/extra.txt"])
def test_a_compiler_that_adds_other_files(builder: Any, name: str) -> None:
    def compile_trees(trees: Sequence[Path]) -> None:
        place = trees[0] / "root" / name
        place.parent.mkdir(parents=True)
        place.write_text("")

    with pytest.raises(OutsideError) as caught:
        open_trees(builder.cache, builder.interpreter, [builder.shelf.make("pkg")], builder.shelf.find, compile_trees)
    assert name in caught.value.why


def test_a_compiler_that_fails(builder: Any) -> None:
    def compile_trees(trees: Sequence[Path]) -> None:
        raise OutsideError("the engine is away")

    with pytest.raises(ReplayError, match="the engine is away"):
        builder.build(builder.shelf.make("pkg"), compile_trees=compile_trees)
    assert not list((builder.cache / "tmp").iterdir())


SCRIPT = Path(compile_in_image.__file__).read_text()


def test_the_script_is_for_old_pythons_too() -> None:
    ast.parse(SCRIPT, feature_version=(3, 8))


def test_the_script_insists_on_a_fixed_hash_seed() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, "/", "0"], env={}, capture_output=True, text=True)
    assert done.returncode == 2
    assert "PYTHONHASHSEED" in done.stderr


def test_the_script_fails_when_a_tree_cannot_be_compiled(builder: Any, tmp_path: Path) -> None:
    (tmp_path / "t/root/lib").mkdir(parents=True)
    (tmp_path / "t/root/lib/a.py").write_text("")
    (tmp_path / "t/root/lib/__pycache__").write_text("in the way")
    with pytest.raises(subprocess.CalledProcessError):
        builder.compile_trees([tmp_path / "t"])
