"""The files of examples/nightly: they can be read by what they are for, and what they call is there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from runner.cli.main import app
from tests.conftest import absent

FOLDER = Path(__file__).parents[2] / "examples" / "nightly"
FILES = sorted(path.name for path in FOLDER.iterdir())


def calls(name: str) -> list[list[str]]:
    """The arguments of each call of the command."""
    lines = [line for line in (FOLDER / name).read_text().splitlines() if not line.lstrip().startswith("#")]
    return [shlex.split(found[1]) for line in lines if (found := re.search(r'(?:/bin/|run: )replay"? (.*)', line))]


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith(".timer")])
def test_commands_and_options_are_there(name: str) -> None:
    group: Any = typer.main.get_command(app)
    found = calls(name)
    assert found and any(arguments[0] == "nightly" for arguments in found)
    for command, *arguments in found:
        # Raises for an option or a command that there is not; nothing is run.
        group.commands[command].make_context(command, arguments)


def test_the_workflow_is_one() -> None:
    loaded = yaml.safe_load((FOLDER / "github.yml").read_text())
    assert {"name", "permissions", "jobs"} <= set(loaded) and loaded["permissions"] == {"contents": "read"}
    assert loaded[True]["schedule"] == [{"cron": "17 2 * * *"}], "YAML 1.1 reads `on` so"
    (job,) = loaded["jobs"].values()
    assert all(("uses" in step) != ("run" in step) for step in job["steps"])
    assert "always()" in [step.get("if") for step in job["steps"] if "report" in step.get("run", "")]


def test_the_workflow_keeps_bad_nights_too() -> None:
    """`actions/cache` by itself saves after success only."""
    (job,) = yaml.safe_load((FOLDER / "github.yml").read_text())["jobs"].values()
    used = {step.get("uses", step.get("run", "")).split(" --")[0]: step for step in job["steps"]}
    order = list(used)
    restore, save = used["actions/cache/restore@v4"], used["actions/cache/save@v4"]
    assert (
        order.index("actions/cache/restore@v4") < order.index("replay nightly") < order.index("actions/cache/save@v4")
    )
    assert save["if"] == "always()"
    assert (
        restore["with"]["key"] == save["with"]["key"] and restore["with"]["path"] == save["with"]["path"] == ".replay"
    )
    assert "github.run_id" in save["with"]["key"], "a cache is never overwritten"
    assert save["with"]["key"].startswith(restore["with"]["restore-keys"])


def test_the_workflow_trusts_somebody() -> None:
    """A machine of CI has recorded none of the runs: without, every one would be not-run."""
    (nightly,) = [arguments for arguments in calls("github.yml") if arguments[0] == "nightly"]
    assert "--trust" in nightly


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith((".service", ".timer"))])
def test_systemd_takes_the_units(name: str, tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        raise absent("systemd-analyze is not here")
    for unit in FOLDER.glob("replay-nightly.*"):
        text = unit.read_text().replace("%h/replay/bin/replay", "/bin/sh").replace("%h/my-project", "/tmp")
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run([program, "verify", "--man=no", tmp_path / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "replay-nightly" not in done.stderr, done.stderr


def test_cron_has_five_fields_and_a_command() -> None:
    (line,) = [line for line in (FOLDER / "crontab").read_text().splitlines() if not line.startswith("#")]
    assert re.fullmatch(r"(?:[\d*]+ ){5}cd .*", line) and "%" not in line
