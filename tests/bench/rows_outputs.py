"""Hashing and keeping what a job wrote."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.bench.harness import SLOW, Measured, Row, Side, command, in_turns
from tests.bench.laid_out import PLACE, ROOT, fresh_store

LARGE, SMALL = 4, 1024
"""Files of 256 MB, and of 1 MB: 2 GB in all."""

_GATHER = """
import sys
from pathlib import Path
from runner.outputs import gather
from runner.store.store import open_store
store, workspace = map(Path, sys.argv[1:])
found = gather(open_store(store, create=False), workspace, ["out"], ())
assert len(found.outputs) == %d and not found.problems
"""
_COPY = "cp -r work/out kept && find work/out -type f -print0 | xargs -0 openssl dgst -sha256"


def keeping() -> Measured:
    """The step that takes the outputs into the store, in a process of its own. What the job wrote is on the disk
    already, for both sides."""
    place = PLACE / "outputs"
    store, work = place / "store", place / "work"
    gather = [sys.executable, "-c", _GATHER % (LARGE + SMALL), str(store), str(work)]
    ours = Side(command(gather, ROOT), lambda: (_write(work), fresh_store(store)))
    theirs = Side(command(["sh", "-c", _COPY], place), lambda: (_write(work), _remove(place / "kept")))
    return in_turns(ours, theirs, SLOW)


def _write(work: Path) -> None:
    """2 GB that no file system can share."""
    _remove(work)
    (work / "out").mkdir(parents=True)
    for number in range(LARGE + SMALL):
        block = os.urandom(1 << 20)
        with (work / "out" / str(number)).open("wb") as file:
            for _ in range(256 if number < LARGE else 1):
                file.write(block)
    subprocess.run(["sync", "-f", work], check=True)


def _remove(path: Path) -> None:
    subprocess.run(["rm", "-rf", path], check=True)


ROWS = (Row("outputs", "hashing and keeping 2 GB of outputs", "cp and openssl dgst -sha256", 1.3, keeping),)
