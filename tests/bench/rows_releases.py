"""What it costs to be held to a release, and to ask whether one could be."""

from __future__ import annotations

import functools

from tests.bench.harness import QUICK, Measured, Row, Side, command, in_turns
from tests.bench.laid_out import Workspace

FILES = 1000
NAME = "bench"


@functools.cache
def released() -> Workspace:
    """A job of one second with 1,000 files of code, its run released."""
    workspace = Workspace("released", {"second": {"command": ["sleep", "1"], "outputs": ["stdout"]}})
    for number in range(FILES):
        workspace.write(f"code/{number}.py", f"print({number})\n")
    workspace.commit()
    run_id = workspace.record("second")
    workspace.call(*workspace.replay("release", "create", NAME, run_id, "--reason", "to be measured"))
    workspace.commit()
    return workspace


def checking() -> Measured:
    workspace = released()
    ours = command(workspace.replay("release", "check", NAME), workspace.root)
    return in_turns(Side(ours), Side(command(["sleep", "1"], workspace.root)), QUICK)


def bound() -> Measured:
    workspace = released()
    run = workspace.replay("run", "-q", "second")
    held = command([*run, "--release", NAME], workspace.root)
    return in_turns(Side(held), Side(command(run, workspace.root)), QUICK)


ROWS = (
    Row("release-check", "could a run of 1,000 files be run here, now, unchanged?", "one second", 1.0, checking),
    Row("release-run", "a run of 1 s that is held to a release", "the same, held to none", 1.05, bound),
)
