"""`kill -9` of the tool at hundreds of moments, spread over all that it does to the world; nothing may be lost.

After each: every earlier run is whole, the cut one is interrupted or never was, what has its final name is whole, and
the next command works and sweeps what was left. A failure names its moment; `AT=` in the environment repeats it alone.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from runner.store.index import damage
from runner.store.runs import Run
from runner.store.store import open_store
from tests.conftest import Index, Workspace, until, wheel
from tests.endurance import dying
from tests.engine.conftest import Recorded
from tests.store.test_runs import finished

pytestmark = [pytest.mark.engine, pytest.mark.slow]

KILLED = -signal.SIGKILL
CUT_OFF = -signal.SIGXFSZ
Prepare = Callable[[int], None]


class Scenario(NamedTuple):
    """`prepare` is called with a fresh number before each kill, so that the command has something to do."""

    name: str
    workspace: Recorded
    arguments: list[str]
    prepare: Prepare


def die(workspace: Workspace, moment: int | str, arguments: list[str], report: Path) -> int:
    command = [sys.executable, dying.__file__, str(moment), str(report), *arguments]
    path = str(Path(__file__).parents[2])
    done = subprocess.run(
        command, cwd=workspace.root, env=workspace.env | {"PYTHONPATH": path}, stdin=subprocess.DEVNULL,
        capture_output=True, check=False, timeout=900,
    )  # fmt: skip
    assert b"Traceback" not in done.stderr, done.stderr
    return done.returncode


def spread(total: int, wanted: int) -> list[int]:
    """Numbers from 1 to `total`, evenly, first and last among them; AT in the environment chooses one."""
    if one := os.environ.get("AT"):
        return [int(one)]
    return sorted({1 + round(step * (total - 1) / max(1, wanted - 1)) for step in range(wanted)})


def kill_at_moments(scenario: Scenario, wanted: int, report: Path) -> int:
    """Kill `wanted` times; how often it was indeed, as threads may end a command before the last moment."""
    for warm in (-1, 0):  # what only the first has to do, such as getting a package, the killed ones have not
        scenario.prepare(warm)
        assert die(scenario.workspace, 0, scenario.arguments, report) == 0
    names = report.read_text().splitlines()
    killed = 0
    for number, moment in enumerate(spread(len(names), wanted), 1):
        scenario.prepare(number)
        before = whole_runs(scenario.workspace)
        code = die(scenario.workspace, moment, scenario.arguments, report)
        killed += code == KILLED
        where = f"{scenario.name}: AT={moment} of {len(names)}, before {names[moment - 1]}, exit {code}"
        try:
            check(scenario.workspace, before)
        except AssertionError as error:
            raise AssertionError(f"killed at {where}: {error}") from error
    return wanted if "AT" in os.environ else killed


def whole_runs(workspace: Workspace) -> dict[str, str]:
    done = workspace.replay("ls", "-n", "0", "--json")
    assert done.code == 0, done
    return {row["run_id"]: row["outcome"] for row in done.json["runs"]}


def check(workspace: Recorded, before: dict[str, str]) -> None:
    after = whole_runs(workspace)
    gone = before.keys() - after.keys()
    assert not gone, f"lost {gone}"
    assert {run: after[run] for run in before} == before
    cut = after.keys() - before.keys()
    assert {after[run] for run in cut} <= {"interrupted", "ok"}, after
    steady = workspace.ids[next(iter(workspace.ids))]
    for run in (steady, *(run for run in sorted(cut) if after[run] == "ok")):
        done = workspace.replay("replay", run, "-q", "--json")
        assert done.code == 0 and done.json["verdict"] == "identical", done
    left_over(workspace)
    health = workspace.replay("fsck")
    assert health.code == 0, health.out


def left_over(workspace: Workspace) -> None:
    assert not workspace.containers(), "containers are left"
    assert not list((workspace.store / "scratch").iterdir()), "scratch is left"
    assert not list((workspace.store / "tmp").iterdir()), "temporary files are left"
    staged = workspace.store / "cache" / "tmp"
    assert not staged.is_dir() or not list(staged.iterdir()), "half-made caches are left"
    hidden = [path for root in (workspace.store, workspace.root / "state_specs") for path in root.rglob(".*.tmp")]
    assert not hidden, f"{hidden} are left"


# --- the scenarios --------------------------------------------------------------------------------------------


def edit(workspace: Workspace) -> Prepare:
    return lambda number: void(workspace.write("lib/code.txt", f"code {number}\n" * 3))


def void(_: object) -> None:
    return None


def nothing(_: int) -> None:
    """The command has something to do each time."""


def test_recording(recorded: Recorded, tmp_path: Path) -> None:
    scenario = Scenario("recording", recorded, ["run", "steady", "-q", "--json"], edit(recorded))
    assert kill_at_moments(scenario, 70, tmp_path / "moments") >= 60


def test_replaying(recorded: Recorded, tmp_path: Path) -> None:
    scenario = Scenario("replaying", recorded, ["replay", recorded.ids["steady"], "-q", "--json"], nothing)
    assert kill_at_moments(scenario, 60, tmp_path / "moments") >= 50


def test_replaying_with_nothing_in_the_cache(packaged: Recorded, tmp_path: Path) -> None:
    scenario = Scenario(
        "building", packaged, ["replay", packaged.ids["py"], "-q", "--json"], lambda _: packaged.forget_caches()
    )
    assert kill_at_moments(scenario, 70, tmp_path / "moments") >= 60


def test_recording_new_data_and_packages(packaged: Recorded, index: Index, tmp_path: Path) -> None:
    pip = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index.url, "PIP_FIND_LINKS": "", "PIP_RETRIES": "0"}
    packaged.env |= pip
    index.add(wheel("alpha", "1.1", {"alpha.py": "VALUE = 'alpha 1.1'\n"}))

    def prepare(number: int) -> None:
        packaged.write("d.csv", f"a,b\n{number},{number}\n")
        packaged.dvc("add", "d.csv")
        packaged.write("code.txt", f"code {number}\n")

    scenario = Scenario("recording anew", packaged, ["run", "py", "--relock", "-q", "--json"], prepare)
    assert kill_at_moments(scenario, 45, tmp_path / "moments") >= 38


def test_collecting(recorded: Recorded, tmp_path: Path) -> None:
    def prepare(number: int) -> None:
        for one in range(40):
            recorded.write(f"lib/garbage{one}.txt", f"garbage {number} {one}\n")
        run = recorded.run("steady", "-q")["run_id"]
        assert recorded.replay("rm", run).code == 0

    scenario = Scenario("collecting", recorded, ["gc", "--json"], prepare)
    assert kill_at_moments(scenario, 40, tmp_path / "moments") >= 30


def test_forgetting(recorded: Recorded, tmp_path: Path) -> None:
    """What was to be forgotten may be there or gone, and never half there."""
    latest = {"run": ""}

    def prepare(_: int) -> None:
        latest["run"] = recorded.run("steady", "-q")["run_id"]

    report, moments = tmp_path / "moments", 0
    prepare(0)
    assert die(recorded, 0, ["rm", latest["run"]], report) == 0
    total = len(report.read_text().splitlines())
    for moment in spread(total, 20):
        prepare(moment)
        before = whole_runs(recorded)
        moments += die(recorded, moment, ["rm", latest["run"]], report) == KILLED
        after = whole_runs(recorded)
        assert after.get(latest["run"], "gone") in ("ok", "interrupted", "gone", "unreadable"), f"AT={moment}: {after}"
        assert recorded.replay("rm", latest["run"]).code in (0, 2), f"AT={moment}"
        check(recorded, {run: outcome for run, outcome in before.items() if run != latest["run"]})
    assert moments >= 3


def test_indexing(recorded: Recorded, tmp_path: Path) -> None:
    scenario = Scenario(
        "indexing", recorded, ["ls", "--json"], lambda _: (recorded.store / "index.sqlite").unlink(missing_ok=True)
    )
    kill_at_moments(scenario, 10, tmp_path / "moments")


def test_in_the_middle_of_a_write(recorded: Recorded, tmp_path: Path) -> None:
    """Files are cut off after so many bytes: specs, records, sums, listings, whatever comes first."""
    prepare, killed = edit(recorded), 0
    for number, size in enumerate([*range(0, 2000, 250), *range(2000, 10000, 2000)]):
        prepare(number)
        before = whole_runs(recorded)
        killed += die(recorded, f"+{size}", ["run", "steady", "-q", "--json"], tmp_path / "moments") == CUT_OFF
        check(recorded, before)
    assert killed >= 6


def test_in_the_middle_of_writing_the_index(workspace: Workspace, tmp_path: Path) -> None:
    """An index that grows, and one that shrinks."""
    store = open_store(workspace.store, create=True)
    index, killed = store.folder / "index.sqlite", 0
    for number in range(80):
        finished(store, None, f"j-{number}")
    small = (whole_runs(workspace), index.read_bytes())[1]
    for number in range(80, 160):
        finished(store, None, f"j-{number}")
    listed, whole = whole_runs(workspace), index.read_bytes()
    assert len(small) < len(whole)
    for size in range(0, len(whole) + 4096, 2048):
        for before in (small, whole):
            for left in store.folder.glob("index.sqlite-*"):
                left.unlink()
            index.write_bytes(before)
            if before is whole:
                Run(store, "j-0", None).forget()
            killed += die(workspace, f"+{size}", ["ls", "-n", "0", "--json"], tmp_path / "moments") == CUT_OFF
            if before is whole:
                finished(store, None, "j-0")
            assert whole_runs(workspace) == listed, f"cut off at +{size}"
            assert damage(index, lambda run_id: Run(store, run_id, None)) is None, f"cut off at +{size}"
    assert killed >= 20


def test_the_first_command_on_a_store(recorded: Recorded, tmp_path: Path) -> None:
    """What is half made of a store is made whole by the next command."""
    report, command = tmp_path / "moments", ["run", "steady", "-q", "--json"]
    folders = (recorded.store, recorded.root / "state_specs")

    def forget_all() -> None:
        for folder in folders:
            shutil.rmtree(folder)

    forget_all()
    assert die(recorded, 0, command, report) == 0
    names = report.read_text().splitlines()
    for moment in spread(len(names), 14):
        forget_all()
        die(recorded, moment, command, report)
        done = recorded.replay(*command)
        assert done.code == 0, f"AT={moment}, before {names[moment - 1]}: {done}"
        recorded.ids = {"steady": done.json["run_id"]}
        check(recorded, {done.json["run_id"]: "ok"})


def test_while_the_job_runs(recorded: Recorded) -> None:
    """From outside, at times spread over the job's life: its container is found and removed by the next command."""
    workfile: dict[str, Any] = json.loads((recorded.root / "replay.yaml").read_text())
    job = workfile["jobs"]["steady"] | {"command": "i=0; while [ $i -lt 1000000 ]; do i=$((i+1)); done"}
    recorded.write("replay.yaml", json.dumps(workfile | {"jobs": workfile["jobs"] | {"long": job}}))
    for step in range(8):
        before = whole_runs(recorded)
        process = recorded.start("run", "long", "-q")
        until(lambda one=process: recorded.containers() or one.poll() is not None, "the job's container")
        deadline = time.monotonic() + step * 0.04
        until(lambda at=deadline: time.monotonic() >= at, "the moment")
        process.kill()
        process.communicate()
        check(recorded, before)
