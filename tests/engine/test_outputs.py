"""Outputs: taken once, told apart from what only looks like one; a job cannot make the tool read the host.

Most of it needs no engine: a folder as a job might leave it, and `gather`.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.outputs import Gathered, gather
from runner.store.files import remove_tree
from runner.store.store import Store, open_store
from tests.conftest import Workspace


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store", create=True)


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """The workspace that a job has left."""
    folder = tmp_path / "left"
    folder.mkdir()
    return folder


def write(folder: Path, path: str, content: bytes = b"x", mode: int = 0o644) -> Path:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    file.chmod(mode)
    return file


def problems(found: Gathered) -> dict[str, str]:
    return {problem.path: problem.problem for problem in found.problems}


def sizes(found: Gathered) -> dict[str, int]:
    return {output.path: output.size for output in found.outputs}


def test_what_cannot_be_looked_at_is_not_called_identical(workspace: Workspace, shell_image: str) -> None:
    command = "mkdir d; echo 1 > d/$(printf 'a\\377'); ln -s /etc/passwd l; mkfifo p"
    job = {"command": command, "image": shell_image, "python": None}
    workspace.jobs(unseen=job | {"outputs": ["d"]}, seen=job | {"outputs": ["l", "p", "gone"]})
    for name, code, verdict in (("unseen", 4, "failed"), ("seen", 0, "identical")):
        recorded = workspace.replay("run", name, "--json").json
        again = workspace.replay("replay", recorded["run_id"], "--json")
        assert (again.code, again.json["verdict"]) == (code, verdict), again
        assert {one["verdict"] for one in again.json["outputs"]} == {verdict}


# --- what is taken -------------------------------------------------------------------------------------------


def test_files_and_folders_are_taken_whole(store: Store, left: Path) -> None:
    write(left, "out/a", b"12")
    write(left, "out/deep/er/b", b"123", mode=0o755)
    write(left, "out/empty", b"")
    write(left, "-rf", b"1")
    write(left, "out/grüße 世界.txt", b"1")
    (left / "out/nothing").mkdir()
    found = gather(store, left, ["out", "-rf", "gone", "out/a"], [])
    assert sizes(found) == {"-rf": 1, "out/a": 2, "out/deep/er/b": 3, "out/empty": 0, "out/grüße 世界.txt": 1}
    assert [one.path for one in found.outputs if one.executable] == ["out/deep/er/b"]
    assert problems(found) == {"gone": "missing"}
    for output in found.outputs:
        kept = store.blobs.verified(output.sha256)  # type: ignore[arg-type]
        assert (kept.stat().st_uid, kept.stat().st_mode & 0o777) == (os.getuid(), 0o444)


def test_a_file_where_a_folder_was_promised(store: Store, left: Path) -> None:
    write(left, "out", mode=0o644)
    found = gather(store, left, ["out/a", "out/a/b", "out"], [])
    assert problems(found) == {"out/a": "missing", "out/a/b": "missing"}
    assert [(one.path, one.executable) for one in found.outputs] == [("out", False)]


def test_links_inside_are_followed(store: Store, left: Path) -> None:
    write(left, "out/v2.bin", b"22")
    (left / "out/latest").symlink_to("v2.bin")
    (left / "absolute").symlink_to("/workspace/out/v2.bin")
    (left / "up").symlink_to("out/../out/latest")
    (left / "folder").symlink_to("out")
    (left / "root").symlink_to("/workspace")
    found = gather(store, left, ["out", "absolute", "up", "folder", "root/out/v2.bin"], [])
    assert problems(found) == {}
    assert set(sizes(found)) == {
        "absolute", "folder/latest", "folder/v2.bin", "out/latest", "out/v2.bin", "root/out/v2.bin", "up",
    }  # fmt: skip
    assert len({one.sha256 for one in found.outputs}) == 1


def test_files_with_several_names_are_each_taken(store: Store, left: Path) -> None:
    first = write(left, "a", b"same", mode=0o755)
    os.link(first, left / "b")
    os.link(first, left / "undeclared")
    write(left, "c", b"same")
    found = gather(store, left, ["a", "b", "c"], [])
    assert [(one.path, one.executable) for one in found.outputs] == [("a", True), ("b", True), ("c", False)]
    with (left / "undeclared").open("ab") as file:
        file.write(b"later")
    assert store.blobs.read(found.outputs[0].sha256) == b"same", "what is kept is nobody else's file"  # type: ignore[arg-type]


def test_a_sparse_file(store: Store, left: Path) -> None:
    too_much = shutil.disk_usage(left).free + (16 << 30)
    for name, size in (("some", 50 << 20), ("absurd", 1 << 43), ("too much", too_much)):
        with (left / name).open("wb") as file:
            try:
                file.truncate(size)
            except OSError:
                pytest.skip("this file system knows no such files")
    os.link(left / "too much", left / "twice")  # what has two names is copied
    found = gather(store, left, ["some", "absurd", "too much", "twice"], [])
    assert sizes(found) == {"some": 50 << 20}
    assert problems(found) == dict.fromkeys(("absurd", "too much", "twice"), "unreadable"), "it would take hours"


# --- what is not ---------------------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    return write(tmp_path, "host/secret.txt", b"of the host").parent


@pytest.mark.parametrize("kind", ["absolute", "relative", "through a folder", "by its parent", "chain", "real root"])
def test_links_to_the_host_are_not_followed(store: Store, left: Path, outside: Path, kind: str) -> None:
    if kind == "absolute":
        (left / "out").symlink_to(outside / "secret.txt")
    elif kind == "relative":
        (left / "out").symlink_to("../host/secret.txt")
    elif kind == "through a folder":
        (left / "out").mkdir()
        (left / "out/f").symlink_to(outside)
    elif kind == "by its parent":
        (left / "planted").symlink_to(outside)
        (left / "out").symlink_to("planted/secret.txt")
    elif kind == "chain":
        (left / "a").mkdir()
        (left / "a/up").symlink_to("..")
        (left / "out").symlink_to("a/up/../host/secret.txt")
    else:
        (left / "out").symlink_to(left.parent / "host")
    found = gather(store, left, ["out", "planted/secret.txt"] if kind == "by its parent" else ["out"], [])
    assert found.outputs == ()
    assert set(problems(found).values()) == {"outside"}
    assert list(store.blobs.all()) == []


def test_circles_and_floods_of_links_end(store: Store, left: Path) -> None:
    (left / "self").symlink_to("self")
    (left / "a").symlink_to("b")
    (left / "b").symlink_to("a")
    write(left, "out/f")
    (left / "out/again").symlink_to(".")
    (left / "out/over").symlink_to("../out")
    write(left, "flood/30/f")
    for level in range(30):
        (left / f"flood/{level}").mkdir(exist_ok=True)
        for name in "xy":
            (left / f"flood/{level}/{name}").symlink_to(f"../{level + 1}")
    found = gather(store, left, ["self", "a", "out", "flood/0"], [])
    assert {path: kind for path, kind in problems(found).items() if not path.startswith("flood")} == {
        "self": "outside", "a": "outside", "out/again": "outside", "out/over": "outside",
    }  # fmt: skip
    assert "out/f" in sizes(found)
    assert len(found.problems) < 5000


def test_special_files_are_named(store: Store, left: Path) -> None:
    os.mkfifo(left / "fifo")
    (left / "link").symlink_to("fifo")
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.getcwd()
        os.chdir(left)
        try:
            bound.bind("socket")
        finally:
            os.chdir(here)
    wanted = {"fifo": "special", "link": "special", "socket": "special"}
    if os.getuid() == 0:
        try:
            os.mknod(left / "device", stat.S_IFCHR | 0o666, os.makedev(1, 5))
            wanted["device"] = "special"
        except PermissionError:
            pass
    found = gather(store, left, list(wanted), [])
    assert problems(found) == wanted
    assert {one.detail for one in found.problems} >= {"a named pipe", "a socket"}


def test_an_input_is_no_output(store: Store, left: Path) -> None:
    """Where data was mounted, the workspace holds but an empty mount point."""
    write(left, "data/d.csv", b"")
    write(left, "data/own", b"1")
    (left / "alias").symlink_to("data/d.csv")
    found = gather(store, left, ["data", "alias"], [], ["data/d.csv"])
    assert problems(found) == {"data/d.csv": "outside", "alias": "outside"}
    assert sizes(found) == {"data/own": 1}


@pytest.mark.parametrize("name", [b"n\xff", b"new\nline", b"\x1b[2J\x1b]0;owned\x07", b"\xe2\x80\xae", b"tab\t"])
def test_names_that_break_terminals_are_made_harmless(store: Store, left: Path, name: bytes) -> None:
    path = os.path.join(os.fsencode(left), b"out", name)
    (left / "out").mkdir()
    Path(os.fsdecode(path)).write_bytes(b"x")
    found = gather(store, left, ["out"], [])
    (problem,) = found.problems
    assert problem.problem == "unreadable"
    assert problem.path.isprintable()
    problem.path.encode()


def test_a_folder_nested_without_end(store: Store, left: Path) -> None:
    """Deeper than recursion goes, and then deeper than a path can be."""
    here = os.open(left, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    write(left, "d/d/f", b"1")
    found = gather(store, left, ["d"], [])
    assert sizes(found) == {"d/d/f": 1}
    assert set(problems(found).values()) <= {"unreadable"}
    remove_tree(left)
    assert not left.exists()
    assert sorted(entry.name for entry in left.parent.iterdir()) == ["store"]


# --- what a job may have closed, as a caller who is not root --------------------------------------------------

CLOSED = """
import os, sys
from pathlib import Path
from runner.outputs import gather
from runner.store.files import remove_tree
from runner.store.store import open_store

if os.getuid() == 0:
    os.setgroups([])
    os.setgid(4242)
    os.setuid(4242)
root = Path(sys.argv[1])
left = root / "left"
for path in ("out/closed/deep/f", "out/readonly/f", "parent/f"):
    (left / path).parent.mkdir(parents=True)
    (left / path).write_bytes(b"1")
    (left / path).chmod(0)
for folder, mode in (("out/closed/deep", 0), ("out/closed", 0), ("out/readonly", 0o555), ("parent", 0)):
    (left / folder).chmod(mode)
found = gather(open_store(root / "store", create=True), left, ["out", "parent/f"], [])
assert [one.path for one in found.outputs] == ["out/closed/deep/f", "out/readonly/f", "parent/f"], found
assert found.problems == (), found
(left / "other/inner").mkdir(parents=True)
for folder in ("other/inner", "other", "out/closed"):
    (left / folder).chmod(0)
remove_tree(left)
assert not left.exists()
"""


@pytest.fixture
def anybodys(tmp_path: Path) -> Iterator[Path]:
    """A folder that any user may use."""
    folder = Path(tempfile.mkdtemp(prefix="replay-tests-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def test_unreadable_files_and_folders_are_opened_up(anybodys: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CLOSED, str(anybodys)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- with a job ----------------------------------------------------------------------------------------------


@pytest.mark.engine
def test_all_kinds_of_outputs_of_one_job(workspace: Workspace, shell_image: str) -> None:
    """Named on the terminal, in `--json`, in the record, and again by `show`; the rest is copied out by `outputs`."""
    command = (
        "echo 1 > plain; mkdir -p out/sub; echo 2 > out/sub/f; : > out/empty; echo sh > out/tool; cp /bin/cat out/cat;"
        "ln -s /etc/passwd host; ln -s ../../store.json up; mkfifo fifo; ln -s plain alias; echo 3 > closed;"
        "printf x > \"$(printf 'esc\\033[31m\\nline')\"; echo 4 > extra; mkdir later; echo 5 > later/f; echo told"
    )
    outputs = ["plain", "out", "host", "up", "fifo", "alias", "never", "stdout"]
    workspace.jobs(j={"command": command, "image": shell_image, "python": None, "outputs": outputs})
    done = workspace.replay("run", "j", "--json")
    assert done.code == 4, "an output that is missing fails the run"
    found: dict[str, Any] = done.json
    assert found["exit_code"] == 0
    assert [one["path"] for one in found["outputs"]] == [
        "alias", "out/cat", "out/empty", "out/sub/f", "out/tool", "plain", "stdout",
    ]  # fmt: skip
    assert {one["path"]: one["problem"] for one in found["problems"]} == {
        "fifo": "special", "host": "outside", "never": "missing", "up": "outside",
    }  # fmt: skip
    assert found["undeclared"] == ["closed", "esc\x1b[31m\nline", "extra", "later/f"]
    (record,) = workspace.root.glob("state_specs/*.record.json")
    assert json.loads(record.read_text())["undeclared"] == found["undeclared"]

    shown = workspace.replay("show", found["run_id"])
    for words in ("host: outside: a link to /etc/passwd", "fifo: special", "never: missing", "extra"):
        assert words in shown.out
    assert "\x1b" not in shown.out + done.err
    to = workspace.root / "copied"
    assert workspace.replay("outputs", found["run_id"], "--to", str(to)).code == 0
    assert (to / "alias").read_text() == "1\n"
    assert (to / "stdout").read_text() == "told\n"
    assert os.access(to / "out/cat", os.X_OK)
    assert not os.access(to / "out/tool", os.X_OK)
    for file in (path for path in to.rglob("*") if path.is_file()):
        assert (file.stat().st_uid, file.is_symlink()) == (os.getuid(), False)

    again = workspace.replay("replay", found["run_id"])
    assert again.code == 0, "the same files and the same trouble"


@pytest.mark.engine
def test_the_terminal_names_what_is_missing_and_what_is_too_much(workspace: Workspace, shell_image: str) -> None:
    command = "echo 1 > extra; echo 2 > \"$(printf 'e\\033c')\""
    workspace.jobs(j={"command": command, "image": shell_image, "python": None, "outputs": ["r"]})
    done = workspace.replay("run", "j")
    assert done.code == 4
    assert "r: missing: the job did not write it" in done.out
    assert "also wrote (not declared, not kept): e\\x1bc, extra" in done.out
