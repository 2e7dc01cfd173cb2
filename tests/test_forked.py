"""A forked command is as one that was started: the same checks for both."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import forked

MODULE = "shows_what_it_was_given"
SHOWS = """
import json, os, signal, sys

if "wait" in sys.argv:
    signal.pause()
sys.stderr.write("said")
held = [each for each in os.listdir("/proc/self/fd") if int(each) > 3 and os.path.exists(f"/proc/self/fd/{each}")]
caught = signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL and signal.getsignal(signal.SIGINT)
given = [__name__, sys.argv[1:], os.getcwd(), sys.path[0], dict(os.environ), sys.stdin.read(), held, str(caught)]
json.dump(given, sys.stdout)
sys.exit(len(sys.argv))
"""
Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture(params=[forked.run, forked.started])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    (tmp_path / f"{MODULE}.py").write_text(SHOWS)
    return request.param


def test_it_is_given_what_was_asked_and_nothing_else(run: Run, tmp_path: Path) -> None:
    env = {name: text for name, text in os.environ.items() if name != "HOME"} | {"ONE": "1"}
    done = run(MODULE, ["a", "b c"], tmp_path, env)
    name, arguments, cwd, first, seen, read, held, caught = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (3, b"said")
    assert (name, arguments, cwd, first) == ("__main__", ["a", "b c"], str(tmp_path), str(tmp_path))
    assert (seen, read, held) == (env, "", []) and "default_int_handler" in caught


def test_an_error_is_shown_and_its_code_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / f"{MODULE}.py").write_text("raise ValueError('no')")
    done = run(MODULE, [], tmp_path, os.environ)
    assert done.returncode == 1 and b"ValueError: no" in done.stderr


def test_who_takes_too_long_is_killed(run: Run, tmp_path: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run(MODULE, ["wait"], tmp_path, os.environ, 0.2)


def test_what_an_interpreter_reads_as_it_starts_starts_one(tmp_path: Path) -> None:
    (tmp_path / f"{MODULE}.py").write_text("import sys; print(sys.flags.utf8_mode, sys.flags.hash_randomization)")
    for given, shown in (({"PYTHONUTF8": "1", "PYTHONHASHSEED": "0"}, b"1 0\n"), ({"PYTHONUTF8": "0"}, b"0 1\n")):
        assert forked.run(MODULE, [], tmp_path, os.environ | given).stdout == shown
