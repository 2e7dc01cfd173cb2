"""What a bisect's trials cost beyond the job that they run."""

from __future__ import annotations

import functools
import json
import os
import time

from tests.bench.harness import SLOW, Measured, Row, command, summary
from tests.bench.laid_out import Workspace
from tests.cases.test_bisect import INNOCUOUS

JOB = 1.0
SHOW = "sleep 1; python -c 'import attrs; print(attrs.__version__ > \"23\")'"


@functools.cache
def drifted() -> Workspace:
    """A job of a second, beside some fifty packages that change and one that matters."""
    workspace = Workspace("drifted", {"shown": {"command": SHOW, "outputs": ["stdout"], "dependencies": "r.in"}})
    workspace.commit()
    return workspace


def a_trial() -> Measured:
    """Wall time of the whole command, the looks at both ends included, by the runs that it made, less the job's own."""
    workspace, rounds = drifted(), []
    for _ in range(SLOW):
        runs = _recorded(workspace)
        started = time.perf_counter()
        command(workspace.replay("bisect", "-q", *runs), workspace.root)()
        taken = time.perf_counter() - started
        log = json.loads(workspace.call(*workspace.replay("bisect", "log", "--json")))
        made = sum(line["doing"] != "recorded" for line in log["lines"])
        rounds.append((taken / made - JOB, 1.0))
    return summary(rounds)._replace(theirs=None)


def _recorded(workspace: Workspace) -> list[str]:
    """Both ends, in a state that nobody tried before."""
    name = os.urandom(4).hex()
    runs = []
    for side in (1, 2):
        listed = (one.split() for one in INNOCUOUS.replace("\n", " ").split(","))
        workspace.write("r.in", "\n".join(f"{words[0]}=={words[side]}" for words in listed) + "\n")
        workspace.write("round.txt", name)
        runs.append(workspace.record("shown"))
    return runs


ROWS = (Row("bisect-trial", "a trial among 50 changes, beyond the job", "", 2.0, a_trial),)
