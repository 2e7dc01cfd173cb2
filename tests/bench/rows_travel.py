"""Runs on their way to a folder and back, and a look at where their pins are. No engine is needed."""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from runner.layers.code import CodeFile, listing
from runner.state.digest import digest_bytes
from runner.state.record import Outcome, Record
from runner.state.spec import Access, Dependencies, Image, RunInfo, State, StateSpec, ToolInfo, Wheel, state_digest
from runner.store.runs import Run
from runner.store.store import Store, open_store
from tests.bench.harness import QUICK, SLOW, Measured, Row, Side, command, in_turns
from tests.bench.laid_out import PLACE, REPLAY

LARGE, LARGE_BYTES = 10_000, 100_000
SMALL = 100_000
RUNS, STATES, WHEELS = 1_000, 10, 50


class Travelling:
    """A workspace with a store of its own, whose DVC has a folder as its remote."""

    def __init__(self, name: str, remote: Path) -> None:
        self.root, self.remote = PLACE / name, remote
        (self.root / ".dvc").mkdir(parents=True, exist_ok=True)
        (self.root / ".dvc" / "config").write_text(f"[core]\n remote = r\n['remote \"r\"']\n url = {remote}\n")
        (self.root / "replay.yaml").write_text(json.dumps({"version": 1, "jobs": {}}))

    @property
    def store(self) -> Path:
        return self.root / ".replay"

    def replay(self, *arguments: str) -> Side:
        words = [*REPLAY, *arguments, "--store", str(self.store)]
        return Side(command(words, self.root, accept=(0, 3)))

    def empty(self) -> None:
        for folder in (self.store, self.root / "state_specs"):
            shutil.rmtree(folder, ignore_errors=True)


def settled(*folders: Path) -> None:
    """Gone, and the disk at rest: what one side wrote is not the other's to wait for."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    os.sync()


@functools.cache
def with_blobs(name: str, count: int, size: int) -> Travelling:
    """One run whose code is so many files of random bytes."""
    made = Travelling(name, PLACE / f"{name}-remote")
    if (made.store / "laid-out").exists():
        return made
    made.empty()
    store = open_store(made.store, create=True)
    files = [CodeFile(f"f{number:06}", "file", put(store, os.urandom(size))) for number in range(count)]
    write_runs(made, store, [state(store, files)], 1)
    (made.store / "laid-out").touch()
    return made


def put(store: Store, data: bytes) -> str:
    digest = digest_bytes(data)
    path = store.blobs.path(digest)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return digest


def state(store: Store, files: Iterable[CodeFile], wheels: tuple[Wheel, ...] = ()) -> State:
    return State(
        command=("true",),
        code=put(store, listing(tuple(files))),
        image=Image("linux/amd64", (digest_bytes(b"layer"),)),
        dependencies=Dependencies(python="3.11.2", locked=wheels or None),
        access=Access(network="none", determinism="off"),
    )


def write_runs(made: Travelling, store: Store, states: list[State], count: int) -> None:
    kept, os.fsync = os.fsync, lambda _descriptor: None
    try:
        for number in range(count):
            one = states[number % len(states)]
            about = RunInfo(id=f"t-{number:05}-k3v9xq", job="t", created="2026-01-01T00:00:00Z", tool=ToolInfo("bench"))
            spec = StateSpec(run=about, state=one, digest=state_digest(one))
            run = Run(store, about.id, made.root / "state_specs")
            run.begin()
            digest = digest_bytes(run.write_spec(spec))
            outcome = Outcome(ending="exited", exit_code=0, duration_s=0.1)
            run.write_record(
                Record(
                    run_id=run.id,
                    spec_sha256=digest,
                    state_digest=spec.digest,
                    started=about.created,
                    outcome=outcome,
                )
            )
            run.end()
    finally:
        os.fsync = kept


def rsync(source: Path, target: Path) -> Side:
    return Side(command(["rsync", "-a", f"{source}/", str(target)], PLACE), lambda: settled(target))


def push() -> Measured | str:
    if not shutil.which("rsync"):
        return "rsync is not installed"
    made = with_blobs("travel", LARGE, LARGE_BYTES)
    ours = made.replay("push", "-q")._replace(prepare=lambda: settled(made.remote))
    return in_turns(ours, rsync(made.store / "blobs", PLACE / "travel-copy"), SLOW)


def pull() -> Measured | str:
    if not shutil.which("rsync"):
        return "rsync is not installed"
    made = with_blobs("travel", LARGE, LARGE_BYTES)
    made.replay("push", "-q").act()
    there = Travelling("travel-there", made.remote)

    def prepare() -> None:
        there.empty()
        settled()

    ours = there.replay("pull", "-q")._replace(prepare=prepare)
    return in_turns(ours, rsync(made.remote, PLACE / "travel-copy"), SLOW)


def listed(folder: Path) -> Side:
    """As DVC lists a remote that is a folder."""
    script = "import sys; from dvc_objects.fs import localfs; print(sum(1 for _ in localfs.find(sys.argv[1])))"
    return Side(command([sys.executable, "-c", script, str(folder)], PLACE))


def nothing_to_push() -> Measured:
    made = with_blobs("travel-small", SMALL, 16)
    made.replay("push", "-q").act()
    return in_turns(made.replay("push", "-q"), listed(made.remote), QUICK)


def nothing_to_pull() -> Measured:
    made = with_blobs("travel-small", SMALL, 16)
    made.replay("push", "-q").act()
    return in_turns(made.replay("pull", "-q"), listed(made.remote), QUICK)


@functools.cache
def sharing() -> Travelling:
    made = Travelling("travel-pins", PLACE / "travel-pins-remote")
    made.empty()
    made.remote.mkdir(exist_ok=True)
    store = open_store(made.store, create=True)
    wheels = tuple(_wheel(store, number) for number in range(WHEELS))
    files = [CodeFile(f"f{number}", "file", put(store, str(number).encode())) for number in range(100)]
    states = [state(store, files[: 90 + number], wheels[number:]) for number in range(STATES)]
    write_runs(made, store, states, RUNS)
    return made


def _wheel(store: Store, number: int) -> Wheel:
    name = f"package{number}"
    return Wheel(name, "1.0", f"{name}-1.0-py3-none-any.whl", put(store, name.encode()))


def pins() -> Measured:
    made = sharing()
    few = [f"t-{number:05}-k3v9xq" for number in range(STATES)]
    return in_turns(made.replay("pins", "--offline"), made.replay("pins", "--offline", *few), QUICK)


ROWS = (
    Row("push", "pushing 1 GB in 10,000 blobs to a folder", "`rsync -a` of the same", 1.5, push),
    Row("pull", "pulling them into an empty clone", "`rsync -a` of the remote", 1.5, pull),
    Row("push-nothing", "nothing to push, of 100,000 blobs", "DVC's listing of the remote", 2, nothing_to_push),
    Row("pull-nothing", "nothing to pull, of 100,000 blobs", "DVC's listing of the remote", 2, nothing_to_pull),
    Row("pins", "`pins` over 1,000 runs that share their blobs", "over 10 with the same pins", 1.2, pins),
)
