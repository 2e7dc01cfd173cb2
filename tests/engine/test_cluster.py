"""Nights and bisects on a cluster: a real scheduler, three workers, each with an engine and a store of its own.

Whatever breaks on the way, each run ends exactly once, with a verdict that is true.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Workspace, until
from tests.endurance.faults import OwnEngine, need_root
from tests.engine.test_nightly import by_job, moves, night, suites

pytestmark = [pytest.mark.engine, pytest.mark.slow]

WORKERS = 3
SLOW_JOB = "touch started; sleep 6; echo done >out.txt"

RANDOM = "cat /proc/sys/kernel/random/uuid >out.txt"


class Worker:
    """A Dask worker with its engine and its store; it can be killed and started again."""

    def __init__(self, place: Path, scheduler: str) -> None:
        self.place = place
        self.scheduler = scheduler
        self.store = place / ".replay"
        self.engine = OwnEngine(Path(tempfile.mkdtemp(prefix="replay-worker-")))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.engine.revive()
        if self.process and self.process.poll() is None:
            return
        self.place.mkdir(exist_ok=True)
        own = {"REPLAY_STORE": str(self.store), "REPLAY_KEYS": str(self.place / "keys"), **self.engine.env}
        command = [sys.executable, "-m", "distributed.cli.dask_worker", self.scheduler, "--no-nanny", "--no-dashboard"]
        command += ["--nthreads", "1", "--local-directory", str(self.place), "--name", self.place.name]
        with (self.place / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=os.environ | own, cwd=self.place, stdout=log, stderr=subprocess.STDOUT
            )

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait(30)

    def descriptors(self) -> int:
        assert self.process
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def runs(self, what: str = "") -> list[str]:
        """Containers that run there now, with `what` in their commands."""
        return [entry["Id"] for entry in self.engine.engine()._client.containers() if what in entry["Command"]]

    def close(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait(30)
        self.engine.close()


class Machines:
    """The scheduler and its workers."""

    def __init__(self, place: Path) -> None:
        file = place / "scheduler.json"
        command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
        command += ["--no-dashboard", "--scheduler-file", str(file)]
        with (place / "log").open("wb") as log:
            self.scheduler = subprocess.Popen(command, cwd=place, stdout=log, stderr=subprocess.STDOUT)
        import json

        found = until(lambda: file.is_file() and file.read_text().endswith("}") and json.loads(file.read_text()), "it")
        self.address = found["address"]
        self.workers = [Worker(place / f"worker-{number}", self.address) for number in range(WORKERS)]

    @property
    def on(self) -> str:
        return self.address.replace("tcp://", "dask://")

    def revive(self) -> None:
        """All workers at work, whatever was done to them."""
        from distributed import Client

        for worker in self.workers:
            worker.start()
        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(WORKERS, timeout=60)

    def at_work(self, what: str = "") -> list[Worker]:
        """Workers whose engines run a container now, with `what` in its command."""
        return [worker for worker in self.workers if worker.runs(what)]

    def close(self) -> None:
        for worker in self.workers:
            worker.close()
        self.scheduler.terminate()
        self.scheduler.wait(30)


@pytest.fixture(scope="module")
def machines(engine: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    need_root("dockerd", "docker", "unshare", "nsenter")
    made = Machines(tmp_path_factory.mktemp("machines"))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def sharing(machines: Machines, workspace: Workspace, tmp_path: Path) -> Workspace:
    """A workspace with a remote, and all workers at work."""
    machines.revive()
    (tmp_path / "remote").mkdir()
    workspace.dvc("init", "--no-scm")
    workspace.dvc("remote", "add", "-d", "team", str(tmp_path / "remote"))
    return workspace


@pytest.fixture
def team(sharing: Workspace, shell_image: str) -> Workspace:
    """One run of each of four jobs; two take a while."""
    workspace = sharing
    job = {"image": shell_image, "python": None, "outputs": ["out.txt"]}
    commands = {"quick": "echo 1 >out.txt", "random": RANDOM}
    commands |= {f"slow{number}": f"{SLOW_JOB}; echo {number} >>out.txt" for number in (1, 2)}
    workspace.jobs(**{name: job | {"command": command} for name, command in commands.items()})
    for name in commands:
        workspace.run(name)
    return workspace


STEADY = dict.fromkeys(("quick", "slow1", "slow2"), ("identical", "new"))
EXPECTED = STEADY | {"random": ("nondeterministic", "flaky")}


def check_whole(workspace: Workspace, found: dict[str, Any], expected: dict[str, tuple[str, str]]) -> None:
    """Each run once, and each verdict with a replay that is here."""
    assert moves(found) == expected, found
    assert len(found["runs"]) == len(expected)
    for run in found["runs"]:
        shown = workspace.replay("show", run["replay"], "--json")
        assert shown.code == 0 and shown.json["spec"]["run"]["replay_of"] == run["run_id"], shown
    kept = [path.name for path in (workspace.root / "state_specs").glob("*.yaml")]
    assert len(kept) == 4, "replays are kept in the store alone"


def started(workspace: Workspace, machines: Machines) -> tuple[subprocess.Popen[bytes], Worker]:
    """A night under way, and a worker that is at a slow job; what is quick may be over."""
    process = workspace.start("nightly", "--on", machines.on, "--json")
    return process, until(lambda: machines.at_work(SLOW_JOB), "a slow replay at work", 120)[0]


def ended(process: subprocess.Popen[bytes], code: int = 1) -> dict[str, Any]:
    import json

    out, err = process.communicate(timeout=300)
    assert process.returncode == code, (process.returncode, out, err)
    found: dict[str, Any] = json.loads(out)
    return found


def test_workers_need_a_run_id_and_the_remote(team: Workspace, machines: Machines) -> None:
    found = night(team, "--on", machines.on, code=1)
    check_whole(team, found, EXPECTED)
    assert len({run["worker"] for run in found["runs"]}) >= 2
    assert all("attempts" not in run for run in found["runs"])
    again = night(team, code=0)
    assert moves(again)["random"] == ("nondeterministic", "flaky"), "nights here and there are nights of one suite"
    suites(team, nightly={"select": ["job:quick"], "on": machines.on})
    assert "variations" in team.replay("nightly", "--against", ".", "--json").json["error"]["what"]


def test_whether_a_strangers_run_may_run_is_decided_here(team: Workspace, machines: Machines) -> None:
    suites(team, nightly={"select": ["job:quick"], "on": machines.on})
    team.env["REPLAY_KEYS"] = str(team.root.parent / "keys-of-another")
    found = night(team, code=7)
    assert moves(found) == {"quick": ("not-run", "not-run")} and "--trust" in found["runs"][0]["error"]["next"]
    assert moves(night(team, "--trust")) == {"quick": ("identical", "new")}


def test_a_worker_keeps_no_connection_of_a_replay_that_is_over(team: Workspace, machines: Machines) -> None:
    """It goes on for weeks."""
    held = []
    for code in (1, 0, 0):  # what is flaky is news once
        night(team, "--on", machines.on, code=code)
        held.append(sum(worker.descriptors() for worker in machines.workers))
    assert held[2] < held[0] + WORKERS, held


def test_a_worker_that_is_killed_costs_nothing_but_time(team: Workspace, machines: Machines) -> None:
    process, worker = started(team, machines)
    worker.kill()
    check_whole(team, ended(process), EXPECTED)


def test_an_engine_that_stops_is_not_a_regression(team: Workspace, machines: Machines) -> None:
    process, worker = started(team, machines)
    worker.engine.end(signal.SIGKILL)
    found = ended(process)
    check_whole(team, found, EXPECTED)
    assert any("attempts" in run for run in found["runs"]), "it was tried again"


def test_a_remote_that_is_gone_for_a_while_is_waited_for(team: Workspace, machines: Machines, tmp_path: Path) -> None:
    process, _worker = started(team, machines)
    remote = tmp_path / "remote"
    remote.rename(tmp_path / "away")
    remote.write_text("in its place is something else")
    until(lambda: not machines.at_work(), "the replays' end", 60)
    remote.unlink()
    (tmp_path / "away").rename(remote)
    check_whole(team, ended(process), EXPECTED)


def test_a_cluster_without_engines_ends_with_the_trouble(team: Workspace, machines: Machines) -> None:
    for worker in machines.workers:
        worker.engine.end(signal.SIGKILL)
    suites(team, nightly={"patience": 5})
    found = night(team, "--on", machines.on, code=7)
    assert {run["moved"] for run in found["runs"]} == {"not-run"}
    assert all("engine" in run["error"]["what"] for run in found["runs"]), by_job(found)


SCORE = """sleep 1; if [ "$MODE" = new ]; then echo '{"score": 0.5}' >m.json; else echo '{"score": 0.9}' >m.json; fi"""


@pytest.fixture
def ends(sharing: Workspace, shell_image: str) -> tuple[str, str]:
    """A good and a bad run, whose code, params, data and variables differ; one variable is the cause. DVC has brought
    the data to the remote."""
    job = {"image": shell_image, "python": None, "outputs": ["m.json"], "command": SCORE, "params": "p.yaml"}
    job |= {"data": ["data", "d.csv"]}
    found = []
    for number, mode in enumerate(("old", "new")):
        sharing.write("code.txt", f"{number}\n")
        sharing.write("p.yaml", f"rate: {number}\ndepth: {number}\n")
        for name in ("data/a.csv", "data/b.csv", "d.csv"):
            sharing.write(name, f"{number} of {name}\n")
        sharing.dvc("add", "data", "d.csv")
        sharing.dvc("push")
        sharing.jobs(t=job | {"env": {"MODE": mode} | {f"V{each}": str(number) for each in range(5)}})
        found.append(str(sharing.run("t")["run_id"]))
    return found[0], found[1]


def proven(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    found = ended(process, 0)
    assert found["proven"] and found["cause"] == [{"layer": "env", "name": "MODE", "good": "old", "bad": "new"}], found
    return found


def test_trials_run_on_workers_and_prove_the_same_cause(
    sharing: Workspace, machines: Machines, ends: tuple[str, str]
) -> None:
    before = [len(list((worker.store / "runs").glob("*"))) for worker in machines.workers]
    there = proven(sharing.start("bisect", *ends, "--on", machines.on, "--json"))
    after = [len(list((worker.store / "runs").glob("*"))) for worker in machines.workers]
    assert sum(now > then for now, then in zip(after, before, strict=True)) >= 2, (before, after)
    assert not sharing.containers()
    tried = sharing.replay("bisect", "log", "--json").json["lines"]
    for trial in tried[2:]:
        assert sharing.replay("show", trial["run_id"], "--json").json["spec"]["run"]["labels"] == ["bisect"]
    assert sharing.replay(there["proof"][-1]["run_id"], "--json").json["verdict"] == "identical"
    assert proven(sharing.start("bisect", *ends, "--json")) == there, "here nothing is tried again"
    assert proven(sharing.start("bisect", "show", "--json")) == there


def test_a_worker_that_is_killed_does_not_make_a_bisect_wrong(
    sharing: Workspace, machines: Machines, ends: tuple[str, str]
) -> None:
    process = sharing.start("bisect", *ends, "--on", machines.on, "--json")
    at_work = until(machines.at_work, "a trial at work", 120)
    at_work[0].kill()
    assert proven(process)["unresolved"] == 0


def test_a_bisect_that_was_interrupted_goes_on_elsewhere(
    sharing: Workspace, machines: Machines, ends: tuple[str, str]
) -> None:
    process = sharing.start("bisect", *ends, "--on", machines.on, "--json")
    until(machines.at_work, "a trial at work", 120)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and b"Traceback" not in err, (out, err)
    proven(sharing.start("bisect", "resume", "--on", "local", "--json"))


def test_an_engine_that_stops_does_not_make_a_bisect_wrong(
    sharing: Workspace, machines: Machines, ends: tuple[str, str]
) -> None:
    process = sharing.start("bisect", *ends, "--on", machines.on, "--json")
    at_work = until(machines.at_work, "a trial at work", 120)
    at_work[0].engine.end(signal.SIGKILL)
    assert proven(process)["unresolved"] == 0


def test_no_scheduler_is_told(team: Workspace) -> None:
    done = team.replay("nightly", "--on", "dask://127.0.0.1:1", "--json")
    assert done.code == 7 and "scheduler" in done.json["error"]["what"]
