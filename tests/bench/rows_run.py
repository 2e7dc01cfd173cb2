"""Recording and replaying, against the bare container."""

from __future__ import annotations

import functools
import random

from tests.bench.bare import bare_run
from tests.bench.harness import QUICK, Measured, Row, Side, command, in_turns
from tests.bench.laid_out import FILES, Workspace

ROWS_OF_TABLE = 425_000
NOTES = 2_000


@functools.cache
def training() -> tuple[Workspace, str]:
    """A job of about 3 s over a table of 47 MB and 2,000 small files, and a run of it."""
    outputs = ["metrics.json", "predictions.csv", "stdout"]
    job = {"command": "python train.py", "dependencies": "requirements.in", "outputs": outputs}
    workspace = Workspace("training", {"train": job | {"data": ["data/table.csv", "data/notes"]}})
    workspace.write("train.py", (FILES / "train.py").read_text())
    workspace.write("requirements.in", "pandas==3.1.1\nscikit-learn==1.9.1\n")
    if not (workspace.root / "data" / "notes.dvc").exists():
        _write_data(workspace)
    workspace.track("data/table.csv", "data/notes")
    workspace.commit()
    return workspace, workspace.record("train")


def _write_data(workspace: Workspace) -> None:
    chance = random.Random(0)
    lines = ["id,label," + ",".join(f"x{number}" for number in range(12))]
    for number in range(ROWS_OF_TABLE):
        values = [chance.gauss(0, 1) for _ in range(12)]
        label = int(values[0] + values[1] * values[2] + chance.gauss(0, 1) > 0)
        lines.append(f"{number},{label}," + ",".join(f"{value:.5f}" for value in values))
    workspace.write("data/table.csv", "\n".join(lines) + "\n")
    for number in range(NOTES):
        workspace.write(f"data/notes/{number}.txt", " ".join(["word"] * chance.randrange(20, 80)) + "\n")


@functools.cache
def nothing() -> tuple[Workspace, str]:
    """A job that does nothing, and a run of it."""
    workspace = Workspace("nothing", {"nothing": {"command": ["true"], "outputs": ["stdout"]}})
    workspace.commit()
    return workspace, workspace.record("nothing")


def replaying_the_job() -> Measured:
    return _against_bare(*training(), "replay")


def recording_the_job() -> Measured:
    return _against_bare(*training(), "run")


def replaying_nothing() -> Measured:
    return _against_bare(*nothing(), "replay")


def recording_nothing() -> Measured:
    return _against_bare(*nothing(), "run")


def _against_bare(workspace: Workspace, run_id: str, what: str) -> Measured:
    job = workspace.spec(run_id).run.job
    ours = workspace.replay(what, "-q", job if what == "run" else run_id)
    return in_turns(
        Side(command(ours, workspace.root)), Side(command(bare_run(workspace, run_id), workspace.root)), QUICK
    )


ROWS = (
    Row("job-replay", "warm replay of a job of about 3 s", "bare docker run", 1.1, replaying_the_job),
    Row("job-run", "recording it, warm", "bare docker run", 1.1, recording_the_job),
    Row("true-replay", "warm replay of `true`", "bare docker run --rm", 2.0, replaying_nothing),
    Row("true-run", "recording `true`, warm", "bare docker run --rm", 2.0, recording_nothing),
)
