"""Peak memory of the tool, children of its own included, over data and outputs of 10 MB to 2 GB."""

from __future__ import annotations

import functools
import random
import subprocess
import sys
from pathlib import Path

from tests.bench.harness import Measured, Row
from tests.bench.laid_out import PLACE, Workspace, fresh_store

SIZES = {"small": 10 << 20, "large": 2 << 30}
_PEAK = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""


@functools.cache
def peaks() -> dict[str, float]:
    """Megabytes at most, while recording and while replaying a job that copies its data into its output."""
    workspace = Workspace("memory", {name: _job(name) for name in SIZES})
    for name, size in SIZES.items():
        if not (workspace.root / f"{name}.bin.dvc").exists():
            _write(workspace.root / f"{name}.bin", size)
    workspace.track(*(f"{name}.bin" for name in SIZES))
    workspace.commit()
    store = PLACE / "store-fresh"
    found = {}
    for name in SIZES:
        fresh_store(store)
        recording = _peak(workspace, *workspace.replay("run", "-q", name, store=store))
        run_id = next((store / "runs").iterdir()).name
        found[name] = max(recording, _peak(workspace, *workspace.replay("replay", "-q", run_id, store=store)))
    return found


def _job(name: str) -> dict[str, object]:
    return {"command": ["cp", f"{name}.bin", "copy.bin"], "data": [f"{name}.bin"], "outputs": ["copy.bin"]}


def _write(file: Path, size: int) -> None:
    chance = random.Random(0)
    with file.open("wb") as out:
        for _ in range(size >> 20):
            out.write(chance.randbytes(1 << 20))


def _peak(workspace: Workspace, *arguments: str) -> float:
    """What starts the command must be small itself: a process starts with the peak of the one that forked it."""
    command = [sys.executable, "-S", "-E", "-c", _PEAK, *arguments]
    done = subprocess.run(command, cwd=workspace.root, stdout=subprocess.PIPE, check=True)
    return int(done.stdout) / 1024


def most() -> Measured:
    most = max(peaks().values())
    return Measured(most, None, most, "MB")


def flat() -> Measured:
    found = peaks()
    return Measured(found["large"], found["small"], found["large"] / found["small"], "MB")


ROWS = (
    Row("memory", "peak memory, 10 MB to 2 GB of data and outputs", "–", 150, most),
    Row("memory-flat", "peak memory with 2 GB of data and of outputs", "with 10 MB", 1.1, flat),
)
