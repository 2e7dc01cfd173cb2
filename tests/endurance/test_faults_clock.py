"""Clocks that jump, between commands and during them, and file times that lie.

| fault | expected |
|---|---|
| the clock is a day back or ahead between commands | runs are recorded, replay identical; gc takes nothing |
| it jumps a day, either way, while a job runs | recorded; no time limit is hit or missed, no duration is a day |
| the engine's clock is set back or forward while a job runs | the same |
| files from the future | captured by content, never remembered by their looks |
| other content under the same modification time | noticed: a change of content changes the state |

The clock of the tool's process alone is moved (libfaketime), job and file system keep the machine's; what the engine
tells of its own is moved in its answers.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import sysconfig
import time
from pathlib import Path
from typing import Any

import pytest

from runner.state.spec import Limits
from runner.tools.container_request import ContainerRequest
from runner.tools.containers import Engine
from runner.tools.interrupts import Interrupts
from tests.conftest import Workspace
from tests.endurance.faults import nothing_left, started
from tests.engine.conftest import Recorded

pytestmark = [pytest.mark.engine, pytest.mark.slow]

DAYS = pytest.mark.parametrize("jump", ["-1d", "+1d"])


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """A file that says how far off the tool's clock is; read at every look at the clock."""
    triplet = sysconfig.get_config_var("MULTIARCH") or ""
    library = Path(f"/usr/lib/{triplet}/faketime/libfaketimeMT.so.1")
    if not library.is_file():
        raise pytest.skip.Exception("needs libfaketime")
    file = tmp_path / "clock"
    file.write_text("+0d")
    return file


def faked(clock: Path) -> dict[str, str]:
    triplet = sysconfig.get_config_var("MULTIARCH") or ""
    return {
        "LD_PRELOAD": f"/usr/lib/{triplet}/faketime/libfaketimeMT.so.1",
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }


@DAYS
def test_a_clock_that_jumps_between_commands(recorded: Recorded, clock: Path, jump: str) -> None:
    recorded.env |= faked(clock)
    first = recorded.run("steady", "-q")
    clock.write_text(jump)
    second = recorded.run("steady", "-q")
    assert second["run_id"] != first["run_id"] and second["state_digest"] == first["state_digest"]
    created = {row["run_id"]: row["created"] for row in recorded.replay("ls", "-n", "0", "--json").json["runs"]}
    apart = _moment(created[second["run_id"]]) - _moment(created[first["run_id"]])
    assert 23 < abs(apart) / datetime.timedelta(hours=1) < 25, "the clock was moved indeed"
    for run in (first["run_id"], second["run_id"], recorded.ids["steady"]):
        for offset in ("+0d", jump):
            clock.write_text(offset)
            assert recorded.replayed(run, "-q")["verdict"] == "identical"
    assert recorded.replay("gc", "--json").code == 0
    assert recorded.replayed(first["run_id"], "-q")["verdict"] == "identical", "gc took nothing of it"
    assert recorded.replay("fsck").code == 0


def _moment(created: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(created)


@DAYS
def test_a_clock_that_jumps_while_a_job_runs(recorded: Recorded, clock: Path, jump: str) -> None:
    declared = json.loads((recorded.root / "replay.yaml").read_text())
    slow = {"command": "echo ready; sleep 2; echo 1 > r.txt", "outputs": ["r.txt"], "limits": {"time": "5m"}}
    declared["jobs"]["slow"] = declared["jobs"]["steady"] | slow
    hasty = slow | {"command": "echo ready; sleep 600", "outputs": [], "limits": {"time": "5s"}}
    declared["jobs"]["hasty"] = declared["jobs"]["steady"] | hasty
    recorded.write("replay.yaml", json.dumps(declared))
    recorded.env |= faked(clock)
    for job, code, ending in (("slow", 0, "exited"), ("hasty", 4, "time-limit")):
        clock.write_text("+0d")
        process = started(recorded, "run", job, "--json")
        clock.write_text(jump)
        out, err = process.communicate(timeout=300)
        assert process.returncode == code, (out, err)
        found = json.loads(out)
        assert found["ending"] == ending and 1 < found["duration_s"] < 300
    nothing_left(recorded)


def _data(workspace: Workspace, content: str, at: int) -> None:
    """Other content of the same length at the same modification time."""
    file = workspace.write("m.txt", content)
    os.utime(file, (at, at))


@pytest.mark.parametrize("off", [-86400, 86400])
def test_file_times_tell_nothing(recorded: Recorded, off: int) -> None:
    at = int(time.time()) + off
    digests = []
    for content in ("model a\n", "model b\n", "model a\n"):
        _data(recorded, content, at)
        recorded.write("lib/code.txt", f"for {content}")
        os.utime(recorded.root / "lib/code.txt", (at, at))
        digests.append(recorded.run("steady", "-q")["state_digest"])
    assert digests[0] == digests[2] != digests[1]


@DAYS
def test_looks_are_not_trusted_by_a_clock_that_is_off(recorded: Recorded, clock: Path, jump: str) -> None:
    """A file is remembered by its looks once it is old enough; by a clock a day ahead, every file is."""
    recorded.env |= faked(clock)
    clock.write_text(jump)
    at, digests = int(time.time()), []
    for content in ("model a\n", "model b\n", "model c\n"):
        file = recorded.root / "m.txt"
        file.write_text(content)  # in place: the same inode
        os.utime(file, (at, at))
        digests.append(recorded.run("steady", "-q")["state_digest"])
    assert len(set(digests)) == 3


class Silent:
    def write(self, _stream: int, _data: bytes) -> None:
        """Nobody listens."""


@pytest.mark.parametrize("set_back_s", [3600, -3600])
def test_an_engine_whose_clock_is_set_while_a_job_runs(
    engine: Engine, shell_image: str, monkeypatch: pytest.MonkeyPatch, set_back_s: float
) -> None:
    """The engine is real, and so is what it answers about a start before, and an end after."""
    inspect = engine._client.inspect_container

    def inspected(container: str) -> dict[str, Any]:
        found: dict[str, Any] = inspect(container)
        started = datetime.datetime.fromisoformat(found["State"]["StartedAt"])
        found["State"]["StartedAt"] = (started + datetime.timedelta(seconds=set_back_s)).isoformat()
        return found

    monkeypatch.setattr(engine._client, "inspect_container", inspected)
    with contextlib.closing(Interrupts()) as interrupts:
        for command, seconds, stopped in (("true", 60.0, None), ("sleep 0.3", 0.1, "time-limit")):
            request = ContainerRequest(
                image=shell_image, command=("sh", "-c", command), user="0:0", workdir="/", limits=Limits(time=seconds)
            )
            assert engine.run(request, Silent(), interrupts).stopped == stopped
