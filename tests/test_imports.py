"""Who may import what, with a reason for each rule. Read from the source; only the last test runs any.

A *room* is a module or package directly below `runner`: `state`, `tools`, `replay`, …
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "runner").rglob("*.py"))


class Room(NamedTuple):
    """A room, the rooms that it may import, and files with reasons of their own: `exceptions`."""

    name: str
    may_import: set[str]
    reason: str
    exceptions: dict[str, set[str]] = {}


class Reserved(NamedTuple):
    """Something outside, or a way of speaking, that only some files may use: rooms, or single files."""

    names: set[str]
    only: set[str]
    reason: str


ROOMS = [
    Room("errors", set(), "everything may raise them, so they can lean on nothing"),
    Room("state", {"errors"}, "the values pass between all steps, so they know none of them"),
    Room("shown", set(), "text of strangers is made harmless wherever it is met"),
    Room("tables", {"shown"}, "tables are opened alike, whatever for"),
    Room("profile", {"tables", "shown", "state"}, "a profile is a pure function of one file, drift of two profiles"),
    Room("compare", {"shown", "tables", "state", "errors"}, "a verdict is a pure function of two sets of outputs"),
    Room(
        "checks", {"tables", "shown", "state", "errors"}, "whether a boundary is met is told by a file and a rule alone"
    ),
    Room(
        "declared", {"checks", "compare", "state", "errors", "store"}, "what is declared is judged before anything runs"
    ),
    Room("attest", {"shown", "state", "errors"}, "whether a claim holds is a pure function of evidence and keys"),
    Room("confined", {"state", "errors"}, "what no spec may say is told by the spec alone"),
    Room("own", {"keys"}, "whose a spec is must not be told by a workspace or a store"),
    Room("diff", {"state", "errors"}, "a difference is a pure function of two states"),
    Room("bisect", {"diff", "state", "errors"}, "the search is a pure function of what was seen"),
    Room(
        "night",
        {"shown", "state", "errors"},
        "what moved, and what comes next, is decided from values and a given time",
    ),
    Room("report", {"shown", "state", "errors"}, "what people read of nights is a pure function of them"),
    Room("functions", {"shown"}, "what changed in a source is read from its text alone"),
    Room("diagnose", {"diff", "shown", "state", "errors"}, "a diagnosis is a pure function of what was found"),
    Room(
        "store",
        {"shown", "state", "errors"},
        "keeping things needs no engine, git, DVC or index",
        {
            "runner/store/log.py": {"attest"},  # keeps a tree whose hashes are attest's
            "runner/store/releases.py": {"attest"},  # looks for a revocation in that tree
        },
    ),
    Room(
        "releases",
        {
            "attest",
            "compare",
            "diff",
            "errors",
            "layers",
            "present",
            "rebuild",
            "run",
            "seal",
            "shown",
            "state",
            "store",
            "tools",
            "verify",
            "workspace",
        },
        "a release is made of runs, and held against them, by the steps of a run",
    ),
    Room("environment", {"state", "errors"}, "trees are made of wheels and folders alone"),
    Room(
        "tools",
        {"state", "errors"},
        "a door knows nothing of what it is opened for",
        {
            "runner/tools/probe.py": {"environment", "store"},  # keeps its answers, by the place of the venv
        },
    ),
    Room(
        "layers",
        {"state", "errors", "store", "environment", "tools", "profile", "tables"},
        "a layer observes and restores one part; the steps put the parts together",
    ),
    Room("needs", {"state", "layers", "store"}, "what a run needs is told by its spec, its record and the store"),
    Room(
        "pins",
        {"needs", "erased", "remote", "workspace", "layers", "state", "store", "tools", "errors"},
        "whether pins can be had is looked up, and nothing is fetched; what was erased is not missed",
    ),
    Room(
        "remote",
        {"needs", "erased", "keys", "workspace", "layers", "shown", "state", "store", "tools", "errors"},
        "moving runs needs no engine, and runs nothing; what was erased does not travel",
    ),
]

RESERVED = [
    Reserved(
        {"docker", "requests", "socket", "subprocess", "urllib.request"},
        # The plugin is a part of other projects' tests, and calls the command as they would.
        {"tools", "runner/pytest_plugin.py"},
        "the only doors outside",
    ),
    Reserved({"click", "rich", "typer"}, {"cli"}, "only the command line speaks to people"),
    Reserved(
        {"print()", "input()", "exit()", "sys.exit()", "os._exit()"},
        # The other runs as a program inside the image.
        {"cli", "runner/environment/compile_in_image.py"},
        "only the command line prints, asks, or decides the exit code",
    ),
    Reserved({"yaml"}, {"runner/state/yaml_reader.py"}, "YAML is read by one set of rules"),
    Reserved({"cryptography"}, {"runner/tools/signing.py"}, "keys are read and used by one set of rules"),
    Reserved({"sqlite3"}, {"store"}, "the index is the store's"),
    Reserved({"duckdb"}, {"runner/tables/duck.py"}, "it is opened with the same bounds everywhere"),
    Reserved({"mlflow"}, set(), "importing it costs two seconds: it is run as a program"),
    Reserved({"distributed", "dask"}, {"runner/tools/cluster.py"}, "clusters are reached by one set of rules"),
    Reserved({"dvc"}, set(), "importing it costs .3 s and more: it is run as a program"),
    Reserved({"dvc_objects", "fsspec"}, {"runner/tools/remote_fs.py"}, "remotes are met in one place, and late"),
    Reserved({"pydantic"}, set(), "importing it costs twice what a whole command may"),
    Reserved({"joblib", "marshal", "pickle", "shelve"}, set(), "nothing is unpickled on the host"),
]

LATE = {
    "PIL",
    "cryptography",
    "distributed",
    "docker",
    "duckdb",
    "dvc",
    "dvc_objects",
    "fsspec",
    "jsonschema_rs",
    "mlflow",
    "numpy",
    "pydantic",
    "requests",
    "rich",
    "sqlite3",
    "zipfile",
}


def room_of(file: str) -> str:
    """`runner/tools/git.py` → `tools`; `runner/replay.py` → `replay`."""
    return file.split("/")[1].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def called(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield f"{ast.unparse(node.func)}()"


def names_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {*imported(tree), *called(tree)}


def rooms_imported_by(file: str) -> set[str]:
    ours = (name.split(".") for name in names_in(file) if name.startswith("runner."))
    return {parts[1] for parts in ours} - {room_of(file), "__version__"}


def uses(name: str, reserved: str) -> bool:
    """A call is meant exactly, a module with all that it holds."""
    return name == reserved or (name.startswith(f"{reserved}.") and not name.endswith("()"))


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_room_imports_only_what_it_may(room: Room) -> None:
    files = [file for file in FILES if room_of(file) == room.name]
    assert files, f"there is no runner/{room.name} any more: mend the table"
    broken = {
        file: sorted(more)
        for file in files
        if (more := rooms_imported_by(file) - room.may_import - room.exceptions.get(file, set()))
    }
    assert not broken, room.reason


@pytest.mark.parametrize("rule", RESERVED, ids=lambda rule: ",".join(sorted(rule.names)))
def test_reserved_names_stay_where_they_belong(rule: Reserved) -> None:
    others = [file for file in FILES if room_of(file) not in rule.only and file not in rule.only]
    broken = {
        file: sorted(found)
        for file in others
        if (found := {name for name in names_in(file) if any(uses(name, one) for one in rule.names)})
    }
    assert not broken, rule.reason


def test_nothing_imports_the_command_line() -> None:
    importers = {file for file in FILES if "cli" in rooms_imported_by(file)}
    assert importers == {"runner/__main__.py"}, "it wires everything, so whatever needs it is in the wrong place"


def test_exceptions_are_needed() -> None:
    idle = {
        file: sorted(spare)
        for room in ROOMS
        for file, allowed in room.exceptions.items()
        if (spare := allowed - rooms_imported_by(file))
    }
    assert not idle, "an exception that nothing needs any more invites the next"


def test_a_command_starts_without_what_it_may_not_need() -> None:
    script = "import json, sys, runner.cli.main; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert LATE.isdisjoint(json.loads(done.stdout)), "a command starts hundreds of times a night"
