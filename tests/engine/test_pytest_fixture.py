"""The fixture `replayed`, in suites of other projects."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.conftest import Recorded


def suite(recorded: Recorded, body: str) -> str:
    """What pytest says of a test of that body, run from the project's own folder as people do."""
    recorded.write("conftest.py", 'pytest_plugins = ["runner.pytest_plugin"]\n')
    recorded.write("tests/test_it.py", f"def test_it(replayed):\n    {body}\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "tests"]
    done = subprocess.run(command, cwd=recorded.root, env=recorded.env, capture_output=True, text=True, check=False)
    return done.stdout


@pytest.mark.engine
def test_a_run_that_comes_out_alike_passes_and_is_replayed_once(recorded: Recorded) -> None:
    run = recorded.ids["steady"]
    reviewed = sorted((recorded.root / "state_specs").iterdir())
    told = suite(recorded, f"assert replayed('{run}').verdict == replayed('{run}').verdict == 'identical'")
    assert "1 passed" in told, told
    assert len(recorded.replay("ls", "--job", "steady", "--json").json["runs"]) == 2
    assert sorted((recorded.root / "state_specs").iterdir()) == reviewed, "it is kept in the store alone"


@pytest.mark.engine
def test_a_failed_assertion_shows_what_differs(recorded: Recorded) -> None:
    run = recorded.ids["random"]
    told = suite(recorded, f"assert replayed('{run}').verdict == 'identical'")
    assert "1 failed" in told, told
    shown = "\n".join(line for line in told.splitlines() if line.startswith("E "))
    assert "assert 'nondeterministic' == 'identical'" in shown
    assert f"{run} is nondeterministic" in shown and "r.txt  nondeterministic" in shown
    assert "s.txt" not in shown, "what came out alike is no news"
    assert "diagnosis: nondeterminism" in shown and f"again: replay {run}" in shown


@pytest.mark.engine
def test_what_has_no_verdict_fails_with_a_way_out(recorded: Recorded) -> None:
    assert "1 failed" in suite(recorded, "replayed('nothing-20200101-aaaaaa')")
    run = recorded.ids["steady"]
    recorded.env["DOCKER_HOST"] = f"unix://{recorded.root}/nobody.sock"
    told = suite(recorded, f"assert replayed('{run}').verdict == 'identical'")
    assert "1 failed" in told and "what: no container engine answers" in told and "next: " in told, told


def test_suites_that_do_not_ask_for_it_are_left_alone(tmp_path: Path) -> None:
    """Among them those of projects that have a module of that name."""
    (tmp_path / "runner.py").write_text("raise SystemExit('this is not replay')\n")
    (tmp_path / "test_it.py").write_text(
        "import sys\n"
        "def test_it():\n"
        "    assert not {'runner', 'msgspec', 'docker', 'dvc', 'typer'} & sys.modules.keys()\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "1 passed" in done.stdout, done.stdout


def test_asking_for_it_imports_little(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["runner.pytest_plugin"]\n')
    (tmp_path / "test_it.py").write_text(
        "import sys\ndef test_it():\n    assert not {'msgspec', 'docker', 'dvc', 'typer'} & sys.modules.keys()\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "1 passed" in done.stdout, done.stdout
