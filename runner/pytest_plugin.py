"""A fixture for the tests of a project: `assert replayed("train-20261120-k3v9xq").verdict == "identical"`.

A project asks for it with `pytest_plugins = ["runner.pytest_plugin"]` in its `conftest.py`; suites that do not are
left alone. It imports next to nothing, and calls the command.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest


class Verdict(str):
    """What `replay` concluded. A comparison that does not hold shows `explained`."""

    __slots__ = ("explained",)
    explained: list[str]


class Replayed(NamedTuple):
    """What came of one `replay RUN`. `told` is all that it said, as `--json` gives it."""

    run_id: str
    verdict: Verdict
    told: dict[str, Any]


_DONE = pytest.StashKey[dict[tuple[Path, str], Replayed]]()


@pytest.fixture
def replayed(request: pytest.FixtureRequest) -> Callable[[str], Replayed]:
    """Replays a run that was recorded in the workspace around the test's file, once in a session.

    The replay is kept in the store alone: a test adds nothing to `state_specs/`."""
    done = request.config.stash.setdefault(_DONE, {})
    folder = request.path.parent

    def replay(run: str) -> Replayed:
        if (folder, run) not in done:
            done[folder, run] = _replay(folder, run)
        return done[folder, run]

    return replay


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """The outputs that differ and what is known of why, below the comparison that failed."""
    verdict = left if isinstance(left, Verdict) else right
    return [f"{left!r} {op} {right!r}", *verdict.explained] if isinstance(verdict, Verdict) else None


def _replay(folder: Path, run: str) -> Replayed:
    """Trouble that kept the run from a verdict fails the test."""
    import subprocess

    done = subprocess.run(
        # Without -P, a folder called `runner` where the tests are run would be taken for the command.
        [sys.executable, "-P", "-m", "runner", "replay", run, "--apart", "--quiet", "--json"],
        cwd=folder,
        env=os.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        told = json.loads(done.stdout)
    except ValueError:
        told = {"error": {"what": f"`replay {run}` ended with {done.returncode}", "why": done.stderr.strip()}}
    if "verdict" not in told:
        pytest.fail("\n".join(_error_lines(told["error"])), pytrace=False)
    verdict = Verdict(told["verdict"])
    verdict.explained = _explained(told)
    return Replayed(told["replay_of"], verdict, told)


def _explained(told: dict[str, Any]) -> list[str]:
    lines = [f"{told['replay_of']} is {told['verdict']}"]
    for one in told["outputs"]:
        if one["verdict"] != "identical":
            lines.append(f"  {one['path']}  {one['verdict']}  {one['comparator']}  {one['detail']}".rstrip())
    found = told.get("diagnosis", {})
    lines += [f"diagnosis: {', '.join(found['kind'])}"] if found else []
    lines += [f"  {line}" for line in found.get("evidence", ())]
    lines += [f"note: {note}" for note in told.get("notes", ())]
    lines += _error_lines(told.get("error", {}))
    return [*lines, f"again: replay {told['replay_of']}"]


def _error_lines(error: dict[str, Any]) -> list[str]:
    return [f"{name}: {error[name]}" for name in ("what", "why", "next") if error.get(name)]
