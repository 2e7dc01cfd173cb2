"""Signals: a run that is stopped ends cleanly and says so; one that was killed is swept by the next command."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.store.files import FileLock
from tests.conftest import Index, Workspace, connect, until

pytestmark = pytest.mark.engine

WAITS = "trap 'echo cleaning up; exit 5' TERM; echo ready; sleep 600 & wait"
STUBBORN = "trap 'echo told' TERM; echo ready; sleep 600 & while kill -0 $!; do wait $!; done"
PATIENT = "from runner.cli.main import main; from runner.tools import attached; attached.STOP_GRACE_S = 3600; main()"
"""The command, but with all the time in the world between TERM and KILL."""


@pytest.fixture
def here(workspace: Workspace, shell_image: str) -> Iterator[Workspace]:
    """A workspace whose commands and containers are gone afterwards, however a test ends."""
    image = {"image": shell_image, "python": None}
    workspace.jobs(
        waits={"command": WAITS, "outputs": ["r"]} | image,
        stubborn={"command": STUBBORN} | image,
        ok={"command": "true"} | image,
    )
    started: list[subprocess.Popen[bytes]] = []
    start = workspace.start

    def remembered(*arguments: str, **env: str) -> subprocess.Popen[bytes]:
        started.append(start(*arguments, **env))
        return started[-1]

    workspace.start = remembered  # type: ignore[method-assign]
    yield workspace
    failed = [process for process in started if process.poll() is None]
    for process in failed:
        process.kill()
        process.communicate()
    for container in workspace.containers() if failed else ():
        connect().remove(container)


def until_ready(process: subprocess.Popen[bytes]) -> None:
    """Return once the job has said that it is up."""
    assert process.stderr
    lines = b""
    for line in iter(process.stderr.readline, b""):
        lines += line
        if line == b"ready\n":
            return
    pytest.fail(f"the job never started: {lines!r}")


def listed(here: Workspace) -> dict[str, Any]:
    (row,) = here.replay("ls", "--json").json["runs"]
    return row


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_job_cleanly(here: Workspace, number: signal.Signals) -> None:
    process = here.start("run", "waits")
    until_ready(process)
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130, (out, err)
    assert b"cleaning up" in err
    assert b"interrupted" in out and b"again:" not in out
    assert b"Traceback" not in err
    assert here.containers() == []
    assert list((here.store / "scratch").iterdir()) == []
    (record,) = here.root.glob("state_specs/*.record.json")
    assert json.loads(record.read_text())["outcome"]["ending"] == "interrupted"
    row = listed(here)
    assert row["outcome"] == "interrupted"
    again = here.replay("replay", row["run_id"])
    assert again.code == 2
    assert "was interrupted" in again.err


def test_a_second_signal_does_not_wait_for_a_stubborn_job(here: Workspace) -> None:
    here.command = lambda *arguments: [sys.executable, "-c", PATIENT, *arguments]  # type: ignore[method-assign]
    process = here.start("run", "stubborn", "--json")

    def says(word: bytes) -> bool:
        return any(word in log.read_bytes() for log in here.store.glob("runs/*/stdout"))

    until(lambda: says(b"ready"), "the job")
    process.send_signal(signal.SIGINT)
    until(lambda: says(b"told"), "the job to hear of it")
    assert process.poll() is None, "TERM is given its time, a second signal none"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 130
    assert json.loads(out)["ending"] == "interrupted"
    assert here.containers() == []


def test_a_replay_that_is_stopped_leaves_no_verdict(here: Workspace, shell_image: str) -> None:
    """The secret is no part of the state, so the same state can end at once or wait."""
    command = '[ "$WAIT" = no ] || { echo ready; sleep 600 & wait; }'
    here.jobs(j={"command": command, "image": shell_image, "python": None, "secrets": {"WAIT": "env:WAIT"}})
    run_id = here.run("j", WAIT="no")["run_id"]
    process = here.start("replay", run_id, WAIT="yes")
    until_ready(process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130, (out, err)
    assert out == b""
    assert b"error: interrupted" in err
    assert here.containers() == []
    assert list((here.store / "scratch").iterdir()) == []


def test_what_a_killed_command_left_is_swept(here: Workspace) -> None:
    """kill -9: the container goes on until the next command; what other commands are running is left alone."""
    running = here.start("run", "waits")
    until_ready(running)
    killed = here.start("run", "stubborn")
    until_ready(killed)
    before = connect().containers_of(json.loads((here.store / "store.json").read_text())["id"])
    killed.kill()
    killed.communicate()
    assert len(here.containers()) == 2, "nobody was there to end it"
    lost = {run_id for run_id in before.values() if run_id.startswith("stubborn-")}
    rows = {row["run_id"]: row["outcome"] for row in here.replay("ls", "--json").json["runs"]}
    assert {rows[run_id] for run_id in lost} == {"interrupted"}
    assert sorted(rows.values()) == ["interrupted", "running"]

    here.run("ok")
    assert [run_id.split("-")[0] for run_id in connect().containers_of(
        json.loads((here.store / "store.json").read_text())["id"]).values()] == ["waits"]  # fmt: skip
    assert [folder.name.split("-")[0] for folder in (here.store / "scratch").iterdir()] == ["waits"]
    shown = here.replay("show", *lost)
    assert "interrupted" in shown.out
    again = here.replay("replay", *lost)
    assert again.code == 2
    assert "never finished" in again.err

    running.send_signal(signal.SIGINT)
    running.communicate(timeout=300)
    assert running.returncode == 130


def test_a_container_that_belongs_to_no_run_is_swept_too(
    here: Workspace, python_workspace: Workspace, index: Index
) -> None:
    """Killed while it locks: pip's container goes on, until a command comes that is alone on the store."""
    go_on = threading.Event()
    index.fault = lambda _handler: not go_on.wait(600)
    here.write("requirements.in", "alpha\n")
    jobs = json.loads((here.root / "replay.yaml").read_text())["jobs"]
    image = python_workspace.image  # type: ignore[attr-defined]
    here.jobs(locks={"command": ["true"], "image": image, "dependencies": "requirements.in"}, **jobs)
    pip = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index.url, "PIP_FIND_LINKS": "", "PIP_TIMEOUT": "600"}
    running = here.start("run", "waits")
    until_ready(running)
    killed = here.start("run", "locks", **pip)
    until(lambda: index.requests, "pip to ask the index")
    here.run("ok")
    assert len(here.containers()) == 2, "those of living commands are left alone"
    killed.kill()
    killed.communicate()
    here.run("ok")
    assert len(here.containers()) == 1
    assert list((here.store / "tmp").iterdir()) == []
    go_on.set()
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=300)


def test_a_signal_before_the_job_starts_is_told_in_one_object(here: Workspace) -> None:
    here.run("ok")
    lock = FileLock(here.store / "turnstile.lock")
    lock.acquire()
    process = here.start("run", "ok", "--json")
    blocked = f"-> FLOCK  ADVISORY  WRITE {process.pid} "
    until(lambda: blocked in Path("/proc/locks").read_text(), "the command to wait for the lock")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    lock.release()
    assert (process.returncode, err) == (130, b"")
    assert json.loads(out)["error"]["code"] == 130
    assert len(here.replay("ls", "--json").json["runs"]) == 1
