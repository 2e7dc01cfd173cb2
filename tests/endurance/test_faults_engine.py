"""The engine stopped, killed, frozen and back; its socket gone; a container ended or removed under the tool.

| fault | expected |
|---|---|
| the engine stops (TERM), while recording or replaying | 7; the run is shown as interrupted, also if the job exited 0 |
| it is killed (KILL), while recording or replaying | 7; the run is shown as interrupted |
| the same, between the trials of a bisect | 7; what was learnt is kept, and `resume` goes on to the proof |
| it is gone between commands | 7 where an engine is needed; `ls`, `show`, `logs`, `outputs`, `diff` work |
| it freezes (STOP) and goes on | the run is recorded, or identical |
| it freezes for good, before or during a job | 7 within REPLAY_TIMEOUT, which the message names |
| it freezes, and the user has had enough | 7 or 130 within REPLAY_TIMEOUT |
| its socket vanishes | 7 |
| the job's container is stopped, killed or removed | 7, not a failed job |

After each, once the engine is back, the next command works and sweeps what was left.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.tools.containers import Engine
from tests.conftest import Workspace, until
from tests.endurance.faults import OwnEngine, nothing_left, own_engine, started

pytestmark = [pytest.mark.engine, pytest.mark.slow]

JOBS: dict[str, dict[str, Any]] = {
    "quick": {"command": "echo done > o"},
    "waits": {"command": "echo ready; sleep 5; echo done > o"},
    "yields": {"command": "trap 'echo part > o; exit 0' TERM; echo ready; sleep 600 & wait"},
}
STOP_OR_KILL = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])


@pytest.fixture(scope="module")
def own(engine: Engine, shell_image: str) -> Iterator[OwnEngine]:
    with own_engine(engine, shell_image) as made:
        yield made


@pytest.fixture
def here(own: OwnEngine, tmp_path: Path) -> Iterator[Workspace]:
    """A workspace at an engine of one's own, which answers before and after each test."""
    own.revive()
    (image,) = (image.id for image in own.engine().images())
    made = Workspace(tmp_path / "work")
    made.root.mkdir()
    made.env |= own.env
    made.jobs(**{name: {"image": image, "python": None, "outputs": ["o"]} | job for name, job in JOBS.items()})
    yield made
    own.revive()


def end(process: subprocess.Popen[bytes], code: int) -> str:
    """What it says on stderr, once it has ended as it should."""
    out, err = process.communicate(timeout=600)
    assert process.returncode == code, (out, err)
    assert b"Traceback" not in err
    return err.decode()


def outcomes(workspace: Workspace) -> list[str]:
    """Of all runs, newest first. No engine is needed."""
    done = workspace.replay("ls", "--json", DOCKER_HOST="unix:///nowhere")
    assert done.code == 0, done
    return [row["outcome"] for row in done.json["runs"]]


def works(workspace: Workspace, own: OwnEngine) -> None:
    """The engine is back: the next command does what it should and leaves nothing of the last one."""
    own.revive()
    run = workspace.run("quick", "-q")
    replayed = workspace.replay(run["run_id"], "-q", "--json")
    assert replayed.json["verdict"] == "identical", replayed
    assert not own.containers(), "the container that was running is left"
    nothing_left(workspace)


@STOP_OR_KILL
@pytest.mark.parametrize("job", ["waits", "yields"])
def test_an_engine_that_goes_while_recording(here: Workspace, own: OwnEngine, number: signal.Signals, job: str) -> None:
    process = started(here, "run", job)
    own.end(number)
    said = end(process, 7)
    assert "went away" in said or "ended from outside" in said
    assert "next: " in said and "Error" not in said
    assert outcomes(here) == ["interrupted"]
    works(here, own)


@STOP_OR_KILL
def test_an_engine_that_goes_while_bisecting(here: Workspace, own: OwnEngine, number: signal.Signals) -> None:
    (image,) = (image.id for image in own.engine().images())
    job = {"command": 'sleep 1; test "$V3" = 1 && echo good || echo bad', "image": image, "python": None}
    runs = []
    for side in ("1", "2"):
        here.jobs(t=job | {"outputs": ["stdout"], "env": {f"V{number}": side for number in range(8)}})
        runs.append(here.run("t", "-q")["run_id"])

    def lines() -> int:
        return sum(log.read_bytes().count(b"\n") for log in (here.store / "bisects").glob("*/log.jsonl"))

    process = here.start("bisect", *runs, "-j", "2")
    until(lambda: lines() >= 5, "some trials")
    own.end(number)
    end(process, 7)
    own.revive()
    kept = lines()
    done = here.replay("bisect", "resume", "--json")
    assert done.code == 0 and [one["name"] for one in done.json["cause"]] == ["V3"], done
    assert lines() > kept >= 5
    assert not own.containers()
    nothing_left(here)


@STOP_OR_KILL
def test_an_engine_that_goes_while_replaying(here: Workspace, own: OwnEngine, number: signal.Signals) -> None:
    run = here.run("waits", "-q")["run_id"]
    process = started(here, "replay", run)
    own.end(number)
    end(process, 7)
    assert outcomes(here) == ["interrupted", "ok"]
    own.revive()
    again = here.replay(run, "-q", "--json")
    assert again.json["verdict"] == "identical", again
    works(here, own)


def test_no_engine_between_commands(here: Workspace, own: OwnEngine) -> None:
    run = here.run("quick", "-q")["run_id"]
    own.end(signal.SIGKILL)
    for command in (["run", "quick"], ["replay", run], ["replay", run, "--dry-run"]):
        done = here.replay(*command, "--json")
        assert done.code == 7, done
        assert done.json["error"]["what"].startswith("no container engine answers")
        assert done.json["error"]["why"] == "connection refused"
    for command in (["ls"], ["show", run], ["logs", run], ["outputs", run], ["diff", run, run], ["gc"]):
        assert here.replay(*command).code == 0, command
    assert outcomes(here) == ["ok"], "what never started never was"
    works(here, own)


def test_an_engine_that_freezes_and_goes_on(here: Workspace, own: OwnEngine) -> None:
    run = here.run("waits", "-q")["run_id"]
    for command in (["run", "waits"], ["replay", run]):
        process = started(here, *command)
        own.signal(signal.SIGSTOP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(7)
        own.signal(signal.SIGCONT)
        end(process, 0)
    works(here, own)


def test_an_engine_that_freezes_for_good(here: Workspace, own: OwnEngine) -> None:
    process = started(here, "run", "waits", REPLAY_TIMEOUT="8")
    own.signal(signal.SIGSTOP)
    began = time.monotonic()
    said = end(process, 7)
    assert "does not answer: no answer for 8 s (REPLAY_TIMEOUT" in said
    for command in (["run", "quick"], ["replay", "waits"]):
        done = here.replay(*command, REPLAY_TIMEOUT="8")
        assert "no answer for 8 s" in done.err or "never finished" in done.err, done
    assert time.monotonic() - began < 300
    own.signal(signal.SIGCONT)
    assert outcomes(here) == ["interrupted"]
    works(here, own)


def test_an_interrupt_while_the_engine_is_frozen(here: Workspace, own: OwnEngine) -> None:
    process = started(here, "run", "waits", REPLAY_TIMEOUT="8")
    own.signal(signal.SIGSTOP)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=300)
    assert process.returncode in (7, 130)
    own.signal(signal.SIGCONT)
    works(here, own)


def test_a_socket_that_vanishes(here: Workspace, own: OwnEngine) -> None:
    process = started(here, "run", "waits")
    own.socket.unlink()
    assert "no such file" in end(process, 7)
    own.end(signal.SIGTERM)
    assert outcomes(here) == ["interrupted"]
    works(here, own)


@pytest.mark.parametrize("job", ["waits", "yields"])
@pytest.mark.parametrize("how", ["stop", "kill", "rm -f"])
def test_a_container_ended_under_the_tool(here: Workspace, own: OwnEngine, how: str, job: str) -> None:
    process = started(here, "run", job)
    (container,) = own.containers()
    own.docker(*how.split(), container)
    said = end(process, 7)
    assert "the job was ended from outside" in said and "next: run the command again" in said
    assert outcomes(here) == ["interrupted"]
    works(here, own)


def test_a_job_that_kills_itself_has_failed(here: Workspace, own: OwnEngine) -> None:
    """What looks alike from its exit status is told apart."""
    (image,) = (image.id for image in own.engine().images())
    for name in ("TERM", "KILL"):
        done = here.replay("run", "--image", image, "--json", "--", "sh", "-c", f"kill -{name} $$")
        assert done.code == 4, done
        assert done.json["ending"] == "exited" and done.json["exit_code"] > 128


@pytest.mark.parametrize("given", ["soon", "0", "-1", "inf"])
def test_a_timeout_that_is_no_time(here: Workspace, given: str) -> None:
    done = here.replay("run", "quick", REPLAY_TIMEOUT=given)
    assert done.code == 2 and "REPLAY_TIMEOUT is no time" in done.err
