"""A tracked folder of 50,000 files."""

from __future__ import annotations

import functools
import random

from tests.bench.harness import QUICK, SLOW, Measured, Row, Side, command, in_turns
from tests.bench.laid_out import PLACE, Workspace, fresh_store

FOLDERS = 100
FILES_EACH = 500


@functools.cache
def folder() -> tuple[Workspace, str]:
    """A job that does nothing and has the folder as its data, and a run of it."""
    keys = {"command": ["true"], "outputs": ["stdout"]}
    workspace = Workspace("folder", {"many": keys | {"data": ["data"]}, "none": keys})
    if not (workspace.root / "data.dvc").exists():
        chance = random.Random(0)
        for number in range(FOLDERS * FILES_EACH):
            workspace.write(f"data/{number % FOLDERS:02}/{number}.bin", chance.randbytes(1024))
    workspace.track("data")
    workspace.commit()
    return workspace, workspace.record("many")


def replaying() -> Measured:
    workspace, many = folder()
    ours, theirs = (workspace.replay("replay", "-q", run_id) for run_id in (many, workspace.record("none")))
    return in_turns(Side(command(ours, workspace.root)), Side(command(theirs, workspace.root)), QUICK)


def first_capture() -> Measured:
    """On a store that has the image and has never seen the data."""
    workspace, _ = folder()
    store = PLACE / "store-fresh"
    ours = workspace.replay("run", "-q", "many", store=store)
    hashing = ["sh", "-c", "find data -type f -print0 | xargs -0 sha256sum"]
    prepare = functools.partial(fresh_store, store)
    return in_turns(Side(command(ours, workspace.root), prepare), Side(command(hashing, workspace.root)), SLOW)


ROWS = (
    Row("data-replay", "warm replay of `true` with a folder of 50,000 files", "one with no data", 1.2, replaying),
    Row("data-capture", "first capture of that folder, after `dvc add`", "sha256sum of it", 2.5, first_capture),
)
