"""Nights: what replaying many runs costs beside the bare containers, here and on a cluster, and in memory."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from runner.run import Session, record_run
from runner.state.job import Job
from runner.tools.containers import connect
from runner.tools.interrupts import Interrupts
from runner.workspace import open_workspace
from tests.bench.bare import bare_run
from tests.bench.harness import Measured, Row, Side, command, in_turns
from tests.bench.laid_out import IMAGE, PLACE, Workspace, shared_store

RUNS = int(os.environ.get("REPLAY_BENCH_RUNS", "100"))
AT_ONCE = 2
_MANY = 10_000
_COORDINATOR = """
import sys
from concurrent.futures import Future
from pathlib import Path

from runner.cli.output import print_json
from runner.nightly import Clock, Request, run_night
from runner.replaying import Finding, Told
from runner.state.record import OutputVerdict, Verdict
from runner.store.nights import Nights
from runner.workspace import open_workspace


class Workers:
    def submit(self, run_ids):
        done = Future()
        done.set_result(Told(tuple(map(finding, run_ids))))
        return done

    def stop(self):
        pass


def finding(run_id):
    paths = [f"out/{number}.csv" for number in range(10)]
    outputs = tuple(OutputVerdict(path, Verdict.IDENTICAL, "bytes") for path in paths)
    return Finding(run_id=run_id, verdict="identical", replay=run_id, replays=1, outputs=outputs, duration_s=1.0)


workspace = open_workspace(Path(sys.argv[1]), Path(sys.argv[1], ".replay"))
nights = Nights(workspace.store)
for _ in range(3):
    night = run_night(workspace, nights, Request(workers=2), Workers(), Clock(), lambda run: None, None).night
print_json(night)
with open("/proc/self/status") as status:
    peak = next(line for line in status if line.startswith("VmHWM"))
print(peak.split()[1], file=sys.stderr)
"""


@functools.cache
def sleeping() -> tuple[Workspace, list[str]]:
    """Runs of 1 s, each in a state of its own."""
    job = {"command": ["sleep", "1"], "outputs": ["stdout"], "env": {"NUMBER": "0"}}
    workspace = Workspace("night", {"sleeping": job})
    workspace.call(sys.executable, "-m", "dvc", "init", "-q", "-f")
    remote = PLACE / "night-remote"
    shutil.rmtree(remote, ignore_errors=True)
    remote.mkdir()
    workspace.call(sys.executable, "-m", "dvc", "remote", "add", "-q", "-f", "-d", "share", str(remote))
    workspace.commit()
    shutil.rmtree(shared_store() / "nights", ignore_errors=True)
    opened = open_workspace(workspace.root, shared_store())
    session = Session(opened, connect(store_id=opened.store.id), Interrupts(), lambda _text: None)

    def record(number: int) -> str:
        own = Job(image=IMAGE, command=("sleep", "1"), outputs=("stdout",), env={"NUMBER": str(number)})
        return record_run(session, "sleeping", own)[0].run.id

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return workspace, list(pool.map(record, range(RUNS)))


def night(workspace: Workspace, *arguments: str) -> list[str]:
    return workspace.replay("nightly", "--quiet", "-j", str(AT_ONCE), *arguments)


def against_bare() -> Measured:
    workspace, runs = sleeping()
    commands = [bare_run(workspace, run_id) for run_id in runs]

    def bare() -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda words: command(words, workspace.root)(), commands))

    return in_turns(Side(command(night(workspace), workspace.root)), Side(bare), 1)


def on_a_cluster() -> Measured:
    workspace, _ = sleeping()
    with scheduler() as address:
        there = night(workspace, "--on", address)
        return in_turns(Side(command(there, workspace.root)), Side(command(night(workspace), workspace.root)), 1)


@contextlib.contextmanager
def scheduler() -> Iterator[str]:
    """A scheduler and a worker on this machine, with a store of its own."""
    place = PLACE / "night-cluster"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    file = place / "scheduler.json"
    started = [_dask("dask_scheduler", place, "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file))]
    try:
        address = _address(file)
        started.append(_dask("dask_worker", place, address, "--no-nanny", "--nthreads", str(AT_ONCE)))
        yield address.replace("tcp://", "dask://")
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait()


def _dask(what: str, place: Path, *arguments: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", f"distributed.cli.{what}", "--no-dashboard", *arguments]
    env = os.environ | {"REPLAY_STORE": str(place / ".replay")}
    return subprocess.Popen(words, cwd=place, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _address(file: Path) -> str:
    for _ in range(300):
        with contextlib.suppress(OSError, ValueError):
            return str(json.loads(file.read_text())["address"])
        time.sleep(0.1)
    sys.exit("no Dask scheduler started")


def memory() -> Measured:
    """A night of 10,000 runs after two of them, without the replays: those are the workers'."""
    from runner.store.index import Row as IndexRow
    from runner.store.index import _write
    from runner.store.store import open_store

    root = PLACE / "many"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    store = open_store(root / ".replay", create=True)
    ids = [f"train-20261120-{number:06}" for number in range(_MANY)]
    for run_id in ids:
        (store.runs / run_id).mkdir()
    rows = (
        IndexRow(run_id, "train", "2026-11-20T00:00:00Z", f"sha256:{run_id:0>64}", ("prod",), "ok", 0, duration_s=1.0)
        for run_id in ids
    )
    _write(store.folder / "index.sqlite", rows, ())
    words = [sys.executable, "-c", _COORDINATOR, str(root)]
    done = subprocess.run(words, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)
    shutil.rmtree(root)
    peak = int(done.stderr) / 1024
    return Measured(peak, None, peak, "MB")


ROWS = (
    Row("night", f"{RUNS} warm replays of 1 s, {AT_ONCE} at once", "bare docker run from a pool", 1.15, against_bare),
    Row("night-dask", "the same through Dask on one machine", "a night here", 1.15, on_a_cluster),
    Row("night-memory", f"memory of a night of {_MANY:,} runs", "–", 300, memory),
)
