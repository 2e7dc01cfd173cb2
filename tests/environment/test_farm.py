"""Environments: what is linked into them, that they work as virtual environments, and what cannot be one."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.environment import seal
from runner.environment.check import check_full, check_quick
from runner.environment.farm import MOST_KEPT, RECIPE, Environment, merge
from runner.environment.layout import FILE, PYTHON, SYMLINK, Entry, folders_of
from runner.environment.project import Project
from runner.environment.tree import tree_folder
from runner.errors import OutsideError, UsageError


def test_it_looks_like_a_virtual_environment(builder: Any) -> None:
    root = builder.build(builder.shelf.make("pkg", {"pkg.py": ""})).path
    python = builder.interpreter
    assert (root / "pyvenv.cfg").read_text() == (
        f"home = {Path(python.executable).parent}\ninclude-system-site-packages = false\nversion = {python.version}\n"
    )
    assert os.readlink(root / "lib64") == "lib"
    for name in ("python", "python3", f"python{python.series}"):
        assert os.readlink(root / "bin" / name) == python.executable
    assert (root / python.site_packages / "pkg.py").stat().st_nlink == 2


def test_it_runs_and_knows_its_packages(builder: Any) -> None:
    environment = builder.build(builder.shelf.make("pkg", {"pkg.py": "x = 1\n"}))
    said = builder.run(
        environment,
        "import sys, pkg, importlib.metadata as m\n"
        "print(sys.prefix, pkg.__file__, m.version('pkg'), all(f.locate().exists() for f in m.files('pkg')))",
    )
    site = environment.path / builder.interpreter.site_packages
    assert said == f"{environment.path} {site}/pkg.py 1.0 True"


def test_an_environment_of_nothing_runs(builder: Any) -> None:
    assert builder.run(builder.build(), "print(1)") == "1"


def test_byte_code_is_used_as_it_is(builder: Any) -> None:
    environment = builder.build(builder.shelf.make("pkg", {"pkg.py": "x = 1\n"}))
    command = [environment.path / "bin/python", "-v", "-c", "import pkg"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert re.search(r"code object from '.*/pkg\.[\w-]+\.pyc'", said)
    assert not check_quick(environment.folder), "running it wrote nothing"


def test_system_packages(builder: Any) -> None:
    wheel = builder.shelf.make("pkg")
    closed, opened = builder.build(wheel), builder.build(wheel, system_packages=True)
    assert closed.path != opened.path
    assert "include-system-site-packages = true\n" in (opened.path / "pyvenv.cfg").read_text()


def test_it_is_made_once_whatever_the_order(builder: Any) -> None:
    wheels = [builder.shelf.make(name, {f"{name}.py": ""}) for name in ("b", "a", "c")]
    made, found = builder.build(*wheels), builder.build(*reversed(wheels))
    assert (made.made, found.made) == (True, False)
    assert (made.path, made.tree) == (found.path, found.tree)
    assert builder.compiled == [3]


def test_its_tree_digest_repeats_in_another_cache(builder: Any, tmp_path: Path) -> None:
    wheels = [builder.shelf.make(name, {f"{name}.py": "x = {'a', 'b'}\n"}) for name in ("a", "b")]
    project = Project("mine", scripts={"mine": "mine:main"})
    first = builder.build(*wheels, project=project)
    builder.cache = tmp_path / "another"
    assert builder.build(*wheels, project=project).tree == first.tree
    assert builder.build(*wheels).tree != first.tree


def test_made_by_several_at_once(builder: Any) -> None:
    wheels = [builder.shelf.make(f"pkg{n}", {f"pkg{n}.py": ""}) for n in range(3)]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: builder.build(*wheels), range(4)))
    assert sorted(one.made for one in made) == [False, False, False, True]
    assert len({one.tree for one in made}) == 1
    assert builder.compiled == [3]


def test_environments_share_their_files_and_stay_clean(builder: Any) -> None:
    a, b = (builder.shelf.make(name, {f"{name}.py": ""}) for name in "ab")
    one, two = builder.build(a), builder.build(a, b)
    file = f"{builder.interpreter.site_packages}/a.py"
    assert (one.path / file).samefile(two.path / file)
    assert check_quick(one.folder) == check_full(one.folder) == check_quick(two.folder) == []
    tree = tree_folder(builder.cache, a, builder.interpreter)
    stamps, _ = seal.survey(tree / seal.ROOT)
    assert seal.read_stamps(tree) == stamps, "linking again would hash what is fresh"


def test_environments_long_unused_go_unless_a_run_holds_them(builder: Any) -> None:
    def build(number: int) -> Environment:
        wheel = builder.shelf.make(f"p{number}", {f"p{number}.py": ""})
        made: Environment = builder.build(wheel, compile_trees=lambda trees: None)
        os.utime(made.folder / RECIPE, (number, number))
        return made

    first = [build(number) for number in range(MOST_KEPT)]
    assert all(one.path.exists() for one in first)
    held = os.open(first[0].folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(held, fcntl.LOCK_SH)
        assert not build(1).made, "using one again makes it the latest"
        os.utime(first[1].folder / RECIPE)
        build(MOST_KEPT), build(MOST_KEPT + 1)
        assert [one.path.exists() for one in first[:5]] == [True, True, False, True, True]
    finally:
        os.close(held)
    build(MOST_KEPT + 2)
    assert not first[0].path.exists()
    assert builder.build(builder.shelf.make("p2", {"p2.py": ""}), compile_trees=lambda trees: None).made


# --- what packages bring -----------------------------------------------------------------------------------


def test_namespace_packages(builder: Any) -> None:
    environment = builder.build(
        builder.shelf.make("ns-one", {"ns/one.py": "x = 1\n"}), builder.shelf.make("ns-two", {"ns/two.py": "x = 2\n"})
    )
    assert builder.run(environment, "import ns.one, ns.two; print(ns.one.x + ns.two.x)") == "3"


def test_pth_files(builder: Any) -> None:
    files = {"hook.pth": "import sys; sys.hooked = True\ninner\n", "inner/deep.py": "x = 5\n"}
    environment = builder.build(builder.shelf.make("hook", files))
    assert builder.run(environment, "import sys, deep; print(sys.hooked, deep.x)") == "True 5"


def test_console_scripts_data_and_headers(builder: Any) -> None:
    files = {
        "pkg.py": "def main():\n    print('hello')\n",
        "pkg-1.0.data/data/share/pkg/d.txt": "data",
        "pkg-1.0.data/headers/pkg.h": "header",
        "pkg-1.0.data/scripts/old": "#!python\nprint('old')\n",
    }
    environment = builder.build(builder.shelf.make("pkg", files, entry_points="[console_scripts]\nhi = pkg:main\n"))
    root = environment.path
    assert (root / "bin/hi").read_text().startswith(f"#!{PYTHON}\n")
    for script, said in (("hi", "hello\n"), ("old", "old\n")):
        assert os.access(root / "bin" / script, os.X_OK)
        run = subprocess.run([root / "bin/python", root / "bin" / script], capture_output=True, text=True, check=True)
        assert run.stdout == said
    assert (root / "share/pkg/d.txt").read_text() == "data"
    assert (root / f"include/site/python{builder.interpreter.series}/pkg/pkg.h").read_text() == "header"


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs a C compiler")
def test_shared_libraries_find_each_other_across_packages(builder: Any, tmp_path: Path) -> None:
    """As torch finds the nvidia packages: through `$ORIGIN/../other`."""
    (tmp_path / "other.c").write_text("int answer(void) { return 42; }\n")
    (tmp_path / "mod.c").write_text("int answer(void); int ask(void) { return answer(); }\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", "libother.so", "other.c"], cwd=tmp_path, check=True)
    link = ["-L.", "-lother", "-Wl,-rpath,$ORIGIN/../../nvidia/other/lib"]
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", "libmod.so", "mod.c", *link], cwd=tmp_path, check=True)
    tag = f"py3-none-{re.sub('[-.]', '_', sysconfig.get_platform())}"
    other = {"nvidia/other/lib/libother.so": (tmp_path / "libother.so").read_bytes()}
    mod = {"mod/lib/libmod.so": (tmp_path / "libmod.so").read_bytes(), "mod/__init__.py": ""}
    environment = builder.build(
        builder.shelf.make("nvidia-other", other, tag=tag, pure=False),
        builder.shelf.make("mod", mod, tag=tag, pure=False),
    )
    code = "import ctypes, mod; print(ctypes.CDLL(mod.__path__[0] + '/lib/libmod.so').ask())"
    assert builder.run(environment, code) == "42"


def test_the_workspace_s_own_package_is_known(builder: Any) -> None:
    project = Project("my-pkg", "1.2", ("src",), {"go": "mine.cli:main"}, {"plugins": {"p": "mine:P"}})
    environment = builder.build(project=project)
    assert (environment.path / builder.interpreter.site_packages / "my-pkg.pth").read_text() == "/workspace/src\n"
    assert "from mine.cli import main" in (environment.path / "bin/go").read_text()
    said = builder.run(
        environment,
        "import importlib.metadata as m\n"
        "points = m.distribution('my-pkg').entry_points\n"
        "print(m.version('my_pkg'), sorted((p.group, p.name, p.value) for p in points), len(m.files('my-pkg')))",
    )
    assert said == "1.2 [('console_scripts', 'go', 'mine.cli:main'), ('plugins', 'p', 'mine:P')] 5"


# --- what cannot be together -------------------------------------------------------------------------------


def refusal(builder: Any, *wheels: Any, **more: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        builder.build(*wheels, **more)
    assert caught.value.next
    assert not (builder.cache / "environments").exists()
    return caught.value


def test_colliding_files_name_both_packages_and_the_path(builder: Any) -> None:
    wheels = [builder.shelf.make(name, {"tests/__init__.py": f"# {name}\n"}) for name in ("one", "two")]
    error = refusal(builder, *wheels)
    assert "one" in error.what and "two" in error.what
    assert "tests/__init__.py" in error.why


def test_equal_files_do_not_collide(builder: Any) -> None:
    wheels = [builder.shelf.make(name, {"tests/__init__.py": "# same\n"}) for name in ("one", "two")]
    assert not check_full(builder.build(*wheels).folder)


def test_a_file_where_another_has_a_folder(builder: Any) -> None:
    error = refusal(builder, builder.shelf.make("one", {"x": ""}), builder.shelf.make("two", {"x/y.py": ""}))
    assert "one" in error.what and "two" in error.what


@pytest.mark.parametrize("path", ["pyvenv.cfg", "bin/python", "lib64/x"])
def test_the_environment_s_own_files_are_not_for_packages(builder: Any, path: str) -> None:
    error = refusal(builder, builder.shelf.make("pkg", {f"pkg-1.0.data/data/{path}": "mine"}))
    assert "the environment itself" in error.what and "pkg" in error.what


def test_a_script_of_the_workspace_that_is_no_script(builder: Any) -> None:
    assert "bin/python" in refusal(builder, project=Project("mine", scripts={"python": "mine:main"})).why


def test_a_package_twice(builder: Any) -> None:
    one, two = builder.shelf.make("pkg", version="1.0"), builder.shelf.make("pkg", version="2.0")
    assert "pkg" in refusal(builder, one, two).what
    assert "pkg" in refusal(builder, one, project=Project("pkg")).what


def test_a_python_whose_layout_is_not_known(builder: Any) -> None:
    builder.interpreter = msgspec.structs.replace(builder.interpreter, cache_tag="pypy311")
    assert "pypy311" in refusal(builder).why


# --- merging, as a pure function ---------------------------------------------------------------------------

names = st.sampled_from("abc")
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
entries = st.builds(lambda path, content: Entry(path, FILE, 1, f"sha256:{content * 64}"), paths, st.sampled_from("01"))
parts = st.dictionaries(names, st.lists(entries, unique_by=lambda entry: entry.path, max_size=4), max_size=3)


@given(parts)
def test_merging_keeps_every_file_or_says_who_disagrees(parts: dict[str, list[Entry]]) -> None:
    everything = {entry for some in parts.values() for entry in some}
    unique = {entry.path for entry in everything}
    agreed = len(unique) == len(everything) and not unique & folders_of(unique)
    try:
        plan = merge(parts)
    except UsageError:
        assert not agreed
        return
    assert agreed
    assert {planned.entry for planned in plan.values()} == everything
    assert all(planned.entry in parts[planned.owner] for planned in plan.values())


# --- when the disk does not play along ----------------------------------------------------------------------


def test_past_the_link_limit_files_are_copied(builder: Any, tmp_path: Path) -> None:
    wheel = builder.shelf.make("pkg", {"pkg.py": "x = 1\n"})
    builder.build(wheel)
    root = tree_folder(builder.cache, wheel, builder.interpreter) / "root"
    file = root / builder.interpreter.site_packages / "pkg.py"
    (tmp_path / "links").mkdir()
    try:
        for number in range(66_000):
            os.link(file, tmp_path / "links" / str(number))
    except OSError:
        pass
    else:
        pytest.skip("this file system has no link limit below 66,000")
    environment = builder.build(wheel, system_packages=True)
    copy = environment.path / builder.interpreter.site_packages / "pkg.py"
    assert copy.stat().st_nlink == 1
    assert copy.read_bytes() == file.read_bytes()
    assert check_quick(environment.folder) == check_full(environment.folder) == []


def test_a_tree_that_vanishes_while_another_is_made_is_made_again(builder: Any) -> None:
    a, b = (builder.shelf.make(name, {f"{name}.py": ""}) for name in "ab")
    builder.build(a)
    lost = []

    def lose_a_tree(trees: Sequence[Path]) -> None:
        builder.compile_trees(trees)
        if not lost:
            lost.append(tree_folder(builder.cache, a, builder.interpreter))
            shutil.rmtree(lost[0])

    environment = builder.build(a, b, compile_trees=lose_a_tree)
    assert lost
    assert check_full(environment.folder) == []
    assert builder.compiled == [1, 1, 1]


@pytest.mark.parametrize("folder", ["", "trees", "environments", "locks", "tmp"])
def test_any_folder_of_the_cache_may_go(builder: Any, folder: str) -> None:
    wheel = builder.shelf.make("pkg", {"pkg.py": ""})
    tree = builder.build(wheel).tree
    shutil.rmtree(builder.cache / folder)
    assert builder.build(wheel).tree == tree
    assert builder.build(wheel, system_packages=True).made


@pytest.mark.parametrize("name", ["digest", "root"])
def test_an_environment_that_is_not_whole_is_made_again(builder: Any, name: str) -> None:
    wheel = builder.shelf.make("pkg", {"pkg.py": ""})
    environment = builder.build(wheel)
    place = environment.folder / name
    shutil.rmtree(place) if place.is_dir() else place.write_text("nonsense")
    again = builder.build(wheel)
    assert again == environment
    assert check_full(again.folder) == []


def test_a_cache_that_cannot_be_written(builder: Any) -> None:
    builder.cache.write_text("a file")
    with pytest.raises(OutsideError) as caught:
        builder.build(builder.shelf.make("pkg"))
    assert str(builder.cache) in caught.value.what
    assert str(builder.cache) in caught.value.next


def test_links_are_entries_of_their_own(builder: Any) -> None:
    environment = builder.build()
    modes = {entry.path: entry.mode for entry in seal.read_manifest(environment.folder)}
    assert modes["lib64"] == modes["bin/python"] == SYMLINK
