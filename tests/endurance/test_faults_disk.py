"""Disks that fill, stores that cannot be written, and stores that are removed while a job runs.

| fault | expected |
|---|---|
| the disk fills at any moment of a command | 7 with what and where, or done in full; nothing of it is left |
| it is full of bytes, or of files, before | 7, no job is started |
| it fills while a job runs | ended as disk-full (4), or 7 where the log cannot be written |
| /tmp is full | no matter: the store's own folders are used |
| a read-only store, or another user's | `ls`, `show`, `diff`, `logs`, `outputs` work; the others 7, nothing changed |
| scratch, runs or the store removed while a job runs | 7 that says so, never a job that failed or outputs that differ |

After each, once the fault is gone, the next command works and sweeps what was left.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Done, Workspace, absent
from tests.endurance import failing
from tests.endurance.faults import mounted, need_root, nothing_left, remount, started, tmpfs
from tests.engine.conftest import Recorded

pytestmark = [pytest.mark.engine, pytest.mark.slow]


def reading(run: str) -> list[list[str]]:
    return [["ls"], ["show", run], ["diff", run, run], ["logs", run], ["outputs", run]]


def writing(run: str) -> list[list[str]]:
    return [["run", "steady"], ["replay", run], ["gc"], ["rm", run]]


def runs_of(workspace: Workspace) -> dict[str, str]:
    done = workspace.replay("ls", "-n", "0", "--json")
    assert done.code == 0, done
    return {row["run_id"]: row["outcome"] for row in done.json["runs"]}


def identical(workspace: Recorded, name: str) -> None:
    done = workspace.replay(workspace.ids[name], "-q", "--json")
    assert done.code == 0 and done.json["verdict"] == "identical", done
    nothing_left(workspace)


def tells(done: Done) -> None:
    """An error as it should be: what failed, why, what to do; no word of Python's."""
    assert done.code == 7, done
    assert "error: " in done.err and "why: " in done.err and "next: " in done.err, done
    assert "Errno" not in done.err, done


# --- at every moment ------------------------------------------------------------------------------------------


def with_disk_full_at(workspace: Workspace, moment: int, report: Path, arguments: list[str]) -> Done:
    command = [sys.executable, failing.__file__, str(moment), str(workspace.root), str(report), *arguments]
    path = {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        command, cwd=workspace.root, env=workspace.env | path, stdin=subprocess.DEVNULL, capture_output=True,
        check=False, timeout=900,
    )  # fmt: skip
    return Done(done)


def at_every_moment(workspace: Recorded, name: str, arguments: list[str], prepare: Callable[[int], Any]) -> None:
    report = workspace.root.parent / "moments"
    prepare(0)
    assert with_disk_full_at(workspace, 0, report, arguments).code == 0
    total = int(report.read_text())
    step = max(1, total // 12)
    for moment in range(1, total + 1, step):
        prepare(moment)
        before = runs_of(workspace)
        done = with_disk_full_at(workspace, moment, report, arguments)
        where = f"full at {moment} of {total}: {done}"
        assert done.code in (0, 7) and "Traceback" not in done.err, where
        if done.code == 7:
            assert "No space left on device" in done.err and "replay gc" in done.err, where
        after = runs_of(workspace)
        assert {run: after.get(run) for run in before} == before, where
        assert {after[run] for run in after.keys() - before.keys()} <= {"ok", "interrupted"}, where
        identical(workspace, name)


def test_the_disk_fills_while_recording(recorded: Recorded) -> None:
    at_every_moment(
        recorded, "steady", ["run", "steady", "-q"], lambda n: recorded.write("lib/code.txt", f"code {n}\n")
    )


def test_the_disk_fills_while_replaying(recorded: Recorded) -> None:
    at_every_moment(recorded, "steady", ["replay", recorded.ids["steady"], "-q"], lambda n: None)


def test_the_disk_fills_while_an_environment_is_built(packaged: Recorded) -> None:
    at_every_moment(packaged, "py", ["replay", packaged.ids["py"], "-q"], lambda n: packaged.forget_caches())


def test_the_disk_fills_while_collecting(recorded: Recorded) -> None:
    def garbage(number: int) -> None:
        recorded.write("lib/code.txt", f"garbage {number}\n")
        assert recorded.replay("rm", recorded.run("steady", "-q")["run_id"]).code == 0

    at_every_moment(recorded, "steady", ["gc"], garbage)


# --- really full ----------------------------------------------------------------------------------------------


@pytest.fixture
def on_small_disk(recorded: Recorded) -> Iterator[Recorded]:
    """The store alone on a file system of its own, whose size can be changed."""
    kept = recorded.store.rename(recorded.root / "kept")
    with tmpfs(recorded.store, "1g", 100_000):
        shutil.copytree(kept, recorded.store, dirs_exist_ok=True, symlinks=True)
        shutil.rmtree(kept)
        yield recorded
        copied = recorded.root / "copied"
        shutil.copytree(recorded.store, copied, symlinks=True)
    recorded.store.rmdir()
    copied.rename(recorded.store)


@pytest.mark.parametrize("limit", ["size=300m", "nr_inodes=5000"])
def test_a_disk_that_is_nearly_full_starts_no_job(on_small_disk: Recorded, limit: str) -> None:
    here = on_small_disk
    before = runs_of(here)
    remount(here.store, limit)
    for command in (["run", "steady"], ["replay", here.ids["steady"]]):
        done = here.replay(*command)
        tells(done)
        assert "too full to run a job" in done.err
    assert runs_of(here) == before
    remount(here.store, "size=1g,nr_inodes=100000")
    identical(here, "steady")


def _fill(folder: Path) -> Path:
    """Take all space there is, in ever smaller pieces: others may be taking some as well."""
    file, piece = folder / "filler", 1 << 26
    with file.open("wb") as opened:
        while piece >= 4096:
            try:
                os.posix_fallocate(opened.fileno(), os.fstat(opened.fileno()).st_size, piece)
            except OSError:
                piece //= 2
    return file


def test_a_disk_that_is_full_to_the_last_byte(on_small_disk: Recorded) -> None:
    here = on_small_disk
    filler = _fill(here.store)
    here.write("m.txt", "another model\n" * 1000)
    for command in (["run", "steady"], ["replay", here.ids["steady"]]):
        tells(here.replay(*command))
    for command in reading(here.ids["steady"]):
        done = here.replay(*command)
        assert done.code == 0, done
    filler.unlink()
    assert here.replay("fsck").code == 0, "reading left nothing half made"
    here.write("m.txt", "model\n")
    identical(here, "steady")


@pytest.mark.parametrize("how", ["the machine's", "the job's log"])
def test_a_disk_that_fills_while_a_job_runs(on_small_disk: Recorded, how: str) -> None:
    here = on_small_disk
    loop = "echo ready; while :; do echo 0123456789012345678901234567890123456789; done"
    declared = json.loads((here.root / "replay.yaml").read_text())
    declared["jobs"]["talks"] = declared["jobs"]["steady"] | {"command": loop if how != "the machine's" else WAITS}
    here.write("replay.yaml", json.dumps(declared))
    process = started(here, "run", "talks", "--json")
    filler = _fill(here.store)
    out, err = process.communicate(timeout=600)
    assert process.returncode in (4, 7), (out, err[-2000:])
    found = json.loads(out)
    if process.returncode == 4:
        assert found["ending"] == "disk-full"
    else:
        assert found["error"]["why"] == "No space left on device", found
    filler.unlink()
    assert here.replay("gc").code == 0
    identical(here, "steady")


WAITS = "echo ready; sleep 600; echo done > o"


def test_a_full_tmp_is_no_matter(packaged: Recorded, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "tmp", "1m") as full:
        _fill(full)
        packaged.env["TMPDIR"] = str(full)
        identical(packaged, "py")
        packaged.forget_caches()
        identical(packaged, "py")
        assert packaged.run("py")["exit_code"] == 0


# --- read-only ------------------------------------------------------------------------------------------------


@pytest.fixture
def cut_off(recorded: Recorded) -> Recorded:
    """As `recorded`, and with a run that was killed: what its lock says must be found out by reading."""
    declared = json.loads((recorded.root / "replay.yaml").read_text())
    declared["jobs"]["waits"] = declared["jobs"]["steady"] | {"command": "echo ready; sleep 600"}
    recorded.write("replay.yaml", json.dumps(declared))
    process = started(recorded, "run", "waits")
    process.kill()
    process.communicate()
    return recorded


def test_a_read_only_store(cut_off: Recorded, tmp_path: Path) -> None:
    run = cut_off.ids["steady"]
    with mounted(cut_off.store, "--bind", str(cut_off.store)):
        (cut_off.store / "index.sqlite").unlink(missing_ok=True)
        remount(cut_off.store, "bind,ro")
        seen = runs_of(cut_off)
        assert "interrupted" in seen.values()
        for command in reading(run):
            assert cut_off.replay(*command).code == 0, command
        assert cut_off.replay("outputs", run, "--to", str(tmp_path / "copies")).code == 0
        assert (tmp_path / "copies" / "out" / "tool.sh").is_file()
        assert cut_off.replay("fsck").code == 0
        for command in writing(run):
            tells(cut_off.replay(*command))
        assert runs_of(cut_off) == seen
        assert cut_off.spec_path(run).is_file(), "what could not be forgotten is there as a whole"
    identical(cut_off, "steady")


# --- another user's -------------------------------------------------------------------------------------------


def _python_for_anybody() -> list[str]:
    """An interpreter that any user may start, with what this one has installed."""
    for python in (sys.executable, "/usr/bin/python3"):
        asked = [*_AS_NOBODY, python, "-c", "import sys, typer, msgspec, docker, yaml; print(sys.prefix)"]
        found = subprocess.run(asked, env=_ANYBODY, capture_output=True, text=True, cwd="/", check=False)
        if found.returncode == 0:
            return [*_AS_NOBODY, python]
    raise absent("no interpreter that another user may start")


_AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
_ANYBODY = {
    "PATH": os.environ["PATH"],
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *(p for p in sys.path if "site-packages" in p)]),
    "PYTHONDONTWRITEBYTECODE": "1",
}


def test_another_users_store(recorded: Recorded) -> None:
    need_root("setpriv")
    python = _python_for_anybody()
    with tempfile.TemporaryDirectory() as place:
        folder = shutil.copytree(recorded.root, Path(place) / "work", symlinks=True)
        for path in (place, folder):
            os.chmod(path, 0o755)
        (folder / ".replay" / "index.sqlite").unlink(missing_ok=True)

        def call(*arguments: str) -> Done:
            command = [*python, "-m", "runner", *arguments]
            done = Done(subprocess.run(command, cwd=folder, env=_ANYBODY, capture_output=True, check=False))
            assert "Traceback" not in done.err, done
            return done

        run = recorded.ids["steady"]
        for command in reading(run):
            done = call(*command)
            assert done.code == 0, done
        for command in writing(run):
            done = call(*command)
            expected = 6 if command[0] == "replay" else 7  # whose run it is not, is asked first
            assert done.code == expected and "next: " in done.err and "Errno" not in done.err, done
        key = folder / ".replay" / "key"
        assert not key.exists() or key.stat().st_mode & 0o077 == 0
        mine = Workspace(folder)
        mine.same_user_as(recorded)
        assert mine.replay(run, "-q").code == 0, "and nothing was changed for whose it is"


# --- removed while a job runs ---------------------------------------------------------------------------------


def _runs(here: Recorded) -> Path:
    return here.store / "runs"


REMOVALS: dict[str, Callable[[Recorded], Path]] = {
    "scratch": lambda here: here.store / "scratch",
    "the run's scratch": lambda here: next((here.store / "scratch").iterdir()),
    "runs": _runs,
    "the store": lambda here: here.store,
}


@pytest.mark.parametrize("what", REMOVALS)
@pytest.mark.parametrize("command", ["run", "replay"])
def test_a_store_that_is_removed_while_a_job_runs(recorded: Recorded, what: str, command: str) -> None:
    declared = json.loads((recorded.root / "replay.yaml").read_text())
    declared["jobs"]["waits"] = declared["jobs"]["steady"] | {
        "command": "echo ready; sleep 4; mkdir out; echo 1 > out/x"
    }
    recorded.write("replay.yaml", json.dumps(declared))
    arguments = ["run", "waits"]
    if command == "replay":
        arguments = ["replay", recorded.run("waits", "-q")["run_id"]]
    process = started(recorded, *arguments)
    shutil.rmtree(REMOVALS[what](recorded))
    out, err = process.communicate(timeout=300)
    assert process.returncode == 7, (out, err)
    assert b"a folder of the running job is gone" in err and b"somebody removed" in err and b"next: " in err
    assert not recorded.containers()
    assert recorded.run("steady", "-q")["exit_code"] == 0
    assert recorded.replay("gc").code == 0
    nothing_left(recorded)
