"""The README says what the code does: help texts, tables, the example of `replay.yaml`, names of files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from runner.capture import contract_outputs
from runner.cli import commands
from runner.cli.main import app
from runner.compare.normalise import NORMALISERS
from runner.compare.others import GROUP
from runner.compare.registry import AUTO, COMPARATORS
from runner.errors import Exit
from runner.execute import ENVIRONMENT, HOME, WORKSPACE, environment
from runner.layers import access
from runner.layers.env import determinism_variables
from runner.state.digest import plain
from runner.state.job import Job, JobLimits, Workfile
from runner.state.record import EXIT_OF_VERDICT
from runner.state.spec import Access, Image, OutputRule, State
from runner.state.strict import load_workfile, load_yaml
from runner.store.store import open_store

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {page.name: page.read_text(encoding="utf-8") for page in sorted((ROOT / "state_specs").glob("*.md"))}


def section(title: str) -> str:
    return re.split(r"^## ", README.split(f"\n## {title}\n")[1], flags=re.MULTILINE)[0]


def block(text: str, language: str) -> str:
    """The first fenced block of that language."""
    return text.split(f"```{language}\n")[1].split("```")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of all tables, without their heads."""
    bodies = re.findall(r"^\|.*\n\|[-|]+\n((?:\|.*\n?)*)", text, flags=re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")[1:-1]] for body in bodies for line in body.splitlines()]


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# --- commands ------------------------------------------------------------------------------------------------


def command_rows() -> list[str]:
    """The table of commands as it must read."""
    group: Any = typer.main.get_command(app)
    return [_command_row(name, command) for name, command in _commands(group)]


def _commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Every command with its whole name: those of a group one by one."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{before}{name} ")
        else:
            yield before + name, command


def _command_row(name: str, command: Any) -> str:
    context = command.context_class(command, info_name=f"replay {name}")
    usage = command.get_usage(context).removeprefix("Usage: ").replace("[OPTIONS] ", "").replace(" [OPTIONS]", "")
    options = [_long(option.opts) for option in command.params if _long(option.opts)]
    told = " ".join(f"`{option}`" for option in options if option not in ("--store", "--json"))
    return f"| `{usage}` | {told} | {command.get_short_help_str(200)} |"


def _long(names: list[str]) -> str:
    return next((name for name in names if name.startswith("--")), "")


def test_the_table_of_commands_is_that_of_the_app() -> None:
    found = [line for line in section("Commands").splitlines() if line.startswith("| `")]
    assert found == command_rows()


def test_help_is_what_help_prints() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "runner", "--help"],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert block(section("Commands"), "text").strip() == done.stdout.strip()


def test_commands_in_the_readme_are_commands() -> None:
    called = re.findall(r"(?:^ *|[$`] ?)replay ([a-z]+)(?=[\s`])", README, flags=re.MULTILINE)
    assert {"init", "doctor", "run", "replay", "diff", "outputs"} <= set(called) <= commands.NAMES


def test_a_sentence_in_the_list_of_commands_is_never_cut() -> None:
    assert "..." not in block(section("Commands"), "text").replace("[ARGS]...", "")


# --- verdicts and exit codes --------------------------------------------------------------------------------


def test_every_verdict_and_exit_code_is_told() -> None:
    told = rows(section("Verdicts and exit codes"))
    verdicts = {words(row[0])[0]: int(row[2]) for row in told if len(row) == 3}
    assert verdicts == {str(verdict): int(code) for verdict, code in EXIT_OF_VERDICT.items()}
    assert [int(row[0]) for row in told if len(row) == 2] == sorted(int(code) for code in Exit)


# --- replay.yaml ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example() -> str:
    return block(section("`replay.yaml`"), "yaml")


def test_the_example_loads_and_has_every_key(example: str) -> None:
    loaded: Workfile = load_workfile(example.encode(), "README.md")
    for job in loaded.jobs.values():
        contract_outputs(job)
        access.limits(job.limits)
    jobs = load_yaml(example.encode(), "README.md")["jobs"].values()
    assert set().union(*jobs) == set(Job.__struct_encode_fields__)
    assert set().union(*(job.get("limits", {}) for job in jobs)) == set(JobLimits.__struct_encode_fields__)
    rules = [rule for job in jobs for rule in job.get("outputs", {}).values() if isinstance(rule, dict)]
    assert set().union(*rules) == set(OutputRule.__struct_encode_fields__)


def test_the_defaults_in_the_example_hold(example: str) -> None:
    told = dict(re.findall(r"^ {4}(\w+):.*; default: (\S+)$", example, flags=re.MULTILINE))
    given = Job(image="x")
    assert told == {name: str(json.loads(json.dumps(plain(getattr(given, name))))).lower() for name in told}
    assert set(told) == {"python", "entrypoint", "system_packages", "network", "determinism"}
    assert JobLimits() == given.limits == JobLimits(**dict.fromkeys(JobLimits.__struct_fields__))


def test_every_comparator_with_its_options_is_told() -> None:
    told = {name: set(words(row[2])) - {"*"} for row in rows(section("`replay.yaml`")) for name in words(row[0])}
    everything = set(OutputRule.__struct_encode_fields__) - {"compare"}
    options = {name: set(comparator.options) for name, comparator in COMPARATORS.items()}
    assert told.pop(AUTO) == set()
    assert told == options
    assert set().union(*options.values()) == everything


def test_every_normaliser_and_extra_is_told() -> None:
    text = section("`replay.yaml`")
    assert set(NORMALISERS) <= set(words(next(line for line in text.split("\n\n") if "Normalisers: " in line)))
    extras = ",".join(dict.fromkeys(filter(None, (COMPARATORS[name].extra for name in ("table", "array", "image")))))
    assert f"pip install 'replay-runner[{extras}]'" in text and f"`{GROUP}`" in text


def test_what_a_job_finds_is_told() -> None:
    text = section("`replay.yaml`")
    state = State(
        command=("true",),
        code="sha256:" + "0" * 64,
        image=Image(platform="linux/amd64", diff_ids=()),
        env=determinism_variables("same-host", None, ()),
        access=Access(network="none", determinism="same-host"),
    )
    found = environment(state, has_environment=True)
    assert WORKSPACE in text and HOME in text and ENVIRONMENT in found["PATH"]
    threads = {name for name in found if name.endswith("_THREADS")}
    assert {found[name] for name in threads} == {"1"}
    assert [name for name in sorted(found.keys() - threads) if not re.search(rf"\b{name}\b", text)] == []
    assert f"PYTHONHASHSEED={found['PYTHONHASHSEED']}" in text
    assert f"SOURCE_DATE_EPOCH={found['SOURCE_DATE_EPOCH']}" in text


# --- files and targets ----------------------------------------------------------------------------------------


def test_the_targets_are_those_of_the_makefile() -> None:
    declared = re.findall(r"^([a-z-]+):.*?## (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    told = [(words(row[0])[0], row[1]) for row in rows(section("For developers"))]
    assert told == [(f"make {name}", text) for name, text in declared if name != "help"]


def test_the_store_has_the_folders_that_are_told(tmp_path: Path) -> None:
    store = open_store(tmp_path / ".replay", create=True)
    store.fingerprint_key()
    made = {entry.name for entry in store.folder.iterdir() if entry.is_dir()} | {"key"}
    told = [name for row in rows(section("How it works")) for name in words(row[0]) if len(row) == 2]
    assert {name.rstrip("/") for name in told} - {".replay"} == made


def test_named_files_exist() -> None:
    named = set(
        re.findall(r"`((?:runner|tests|images|examples|state_specs|\.ci)/[\w./-]*)`", README + "".join(PAGES.values()))
    )
    here = set(re.findall(r"`([a-z_]+(?:\.py|/))`", section("For developers")))
    assert len(named) > 4 and len(here) > 8
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
    assert [name for name in sorted(here) if not any((base / name).exists() for base in (ROOT, ROOT / "runner"))] == []


def test_every_test_of_what_a_job_cannot_do_exists() -> None:
    table = rows(PAGES["CONFINEMENT.md"])
    named = {name for row in table for name in words(row[2])}
    written = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(table) > 14 and all(words(row[2]) for row in table)
    assert [name for name in sorted(named) if f"def {name}(" not in written] == []
    told = set(re.findall(r"^def (test_\w+)", (ROOT / "tests/engine/test_confinement.py").read_text(), re.MULTILINE))
    assert sorted(told - named) == ["test_the_container_is_made_as_hardening_guides_say"]


def test_it_stays_short_and_tells_nothing_of_where_it_was_made() -> None:
    assert len(README.splitlines()) < 700
    assert not re.search(r"/work/|https?://(?!localhost)", README)


def test_every_page_is_named_in_the_readme() -> None:
    assert [name for name in PAGES if f"`state_specs/{name}`" not in README] == []
