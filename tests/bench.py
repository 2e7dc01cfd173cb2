"""What a run costs against the bare container, side by side: `make bench`.

A job that does nothing, in rounds of one bare `docker run`, one `replay run`, one replay and one `--version`, so
that whatever else the machine does falls on all of them alike. Medians, and ratios to the bare run.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from runner.state.strict import load_spec

ROOT = Path(__file__).parent.parent
WORKSPACE = ROOT / ".demo" / "bench"
REPLAY = [sys.executable, "-m", "runner"]
ROUNDS = 5
JOBS = """\
version: 1
jobs:
  nothing: {command: "true", image: images/python311, outputs: [stdout]}
"""


def main() -> None:
    lay_out_workspace()
    run_id = json.loads(output([*REPLAY, "run", "-q", "nothing", "--json"]))["run_id"]
    bare = ["docker", "run", "--rm", "--network", "none", image_of(run_id), "sh", "-c", "true"]
    took = measure(
        {
            "bare docker run": bare,
            "replay run": [*REPLAY, "run", "-q", "nothing"],
            "replay replay": [*REPLAY, "replay", "-q", run_id],
            "replay --version": [*REPLAY, "--version"],
        }
    )
    for name, seconds in took.items():
        print(f"{name:<18}{seconds:7.3f} s{seconds / took['bare docker run']:7.2f}")


def lay_out_workspace() -> None:
    shutil.copytree(ROOT / "images" / "python311", WORKSPACE / "images" / "python311", dirs_exist_ok=True)
    (WORKSPACE / "replay.yaml").write_text(JOBS, encoding="utf-8")
    if not (WORKSPACE / ".git").exists():
        output(["git", "init", "--quiet"])


def image_of(run_id: str) -> str:
    """The engine's id of the image that a run had."""
    path = WORKSPACE / "state_specs" / f"{run_id}.yaml"
    return load_spec(path.read_bytes(), str(path)).observed.image.config or ""


def measure(commands: dict[str, list[str]]) -> dict[str, float]:
    """The median seconds of each command."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            started = time.perf_counter()
            output(command)
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(found) for name, found in seconds.items()}


def output(command: list[str]) -> bytes:
    return subprocess.run(command, cwd=WORKSPACE, check=True, stdout=subprocess.PIPE).stdout


if __name__ == "__main__":
    main()
