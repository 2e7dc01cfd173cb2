"""Each case is recorded before and after something moved, by the command itself on the real engine; then
`replay diff A B --json` has to name the kind of drift and the layers, and no others."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from runner.diagnose import diagnose
from runner.diff import Side, diff
from runner.state.strict import load_spec
from tests.answering import answering
from tests.cases.conftest import diagnosed, record
from tests.cases.drift import EXECUTION_STATE, HOST, NONDETERMINISM, Case, Conditions, Finding, Row, finding, rendered
from tests.conftest import Index, Workspace, wheel

NOTHING = Finding()


def execution(*layers: str) -> Finding:
    return Finding((EXECUTION_STATE,), layers)


# What the job sees of its own conditions is what it writes, so that whatever moves shows in the output.
SEES = 'cat steps.py p.yaml m.txt >out.txt; echo "$MODE $LC_ALL $OMP_NUM_THREADS" >>out.txt'
STEPS = """\
def load(lines):
    return [float(line) for line in lines]


def normalise(values):
    return [value / max(values) for value in values]
"""
PYTHON = """\
import pathlib
import sys
import steps

values = steps.normalise(steps.load(pathlib.Path("values.txt").read_text().split()))
print(sys.version_info[:2], values)
"""
SHELL = Conditions(
    {"command": SEES, "python": None, "outputs": ["out.txt"], "model": ["m.txt"], "params": "p.yaml"},
    {"steps.py": STEPS, "p.yaml": "rate: 0.1\nnet: {depth: 3}\n", "m.txt": "model 1\n"},
)
SCRIPT = Conditions(
    {"command": ["python3", "train.py"], "outputs": ["stdout"]},
    {"steps.py": STEPS, "train.py": PYTHON, "values.txt": "1 2 3 4\n"},
)
BY_SUM = STEPS.replace("/ max(values)", "/ sum(values)")


def job(**keys: Any) -> Conditions:
    return Conditions(keys)


def file(path: str, content: str) -> Conditions:
    return Conditions(files={path: content})


KEYED = Conditions({"secrets": {"KEY": "env:KEY"}}, caller={"KEY": "a secret"})
PYTHON311 = ("python311", "python311")
CASES = [
    Case("nothing moved", SHELL, Conditions(), NOTHING, steady=True),
    Case("labels and a tolerance", SHELL, job(labels=["x"], outputs={"out.txt": "text"}), NOTHING, steady=True),
    Case("a normalisation", SCRIPT, file("steps.py", BY_SUM), execution("code"), ("(normalise changed)",), PYTHON311),
    Case(
        "preprocessing, marked as such",
        SCRIPT.moved(job(preprocessing=["steps.py"])),
        file("steps.py", BY_SUM),
        execution("code"),
        ("code, preprocessing: steps.py (normalise changed)",),
        PYTHON311,
    ),
    Case("a parameter", SHELL, file("p.yaml", "rate: 0.1\nnet: {depth: 4}\n"), execution("params"), ("depth 3 → 4",)),
    Case("the command", SHELL, job(command=f"{SEES}; echo >>out.txt"), execution("code"), ("command",)),
    Case("a variable", SHELL, job(env={"MODE": "prod"}), execution("env"), ("MODE added",)),
    Case("the locale", SHELL, job(env={"LC_ALL": "C"}), execution("env"), ("LC_ALL C.UTF-8 → C",)),
    Case("the thread count", SHELL, job(env={"OMP_NUM_THREADS": "2"}), execution("env"), ("OMP_NUM_THREADS 1 → 2",)),
    Case("a limit of CPUs", SHELL, job(limits={"cpus": 2}), execution("access", "env"), ("limits.cpus", "_THREADS 1")),
    Case(
        "Python 3.11 to 3.13",
        SCRIPT,
        Conditions(),
        execution("dependencies", "image"),
        ("python 3.11",),
        ("python311", "python313"),
    ),
    Case("the network", SHELL, job(network="open"), execution("access"), ("network none → open",), steady=True),
    Case(
        "a credential more",
        SHELL,
        KEYED,
        execution("access"),
        ("KEY added",),
        steady=True,
    ),
    Case(
        "a credential changed",
        SHELL.moved(KEYED),
        Conditions(caller={"KEY": "another secret"}),
        execution("access"),
        ("KEY (the credential changed)",),
        steady=True,
    ),
    Case("a limit of memory", SHELL, job(limits={"memory": "64m"}), execution("access"), ("memory",), steady=True),
    Case("the model", SHELL, file("m.txt", "model 2\n"), execution("model"), ("m.txt",)),
    Case(
        "a parameter and a variable",
        SHELL,
        Conditions({"env": {"MODE": "prod"}}, {"p.yaml": "rate: 0.2\nnet: {depth: 3}\n"}),
        execution("env", "params"),
        ("rate 0.1 → 0.2", "MODE added"),
    ),
]


@pytest.mark.engine
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_the_diagnosis_names_what_moved(case: Case, request: pytest.FixtureRequest, table: list[Row]) -> None:
    is_python = case.images != ("shell_image", "shell_image")
    workspace: Workspace = request.getfixturevalue("python_workspace" if is_python else "workspace")
    images = [request.getfixturevalue(name) for name in case.images]
    before = record(workspace, case.before, images[0])
    after = record(workspace, case.before.moved(case.moved), images[1])
    said = diagnosed(workspace, before, after)
    table.append(Row(case.name, case.expected, finding(said)))
    assert finding(said) == case.expected, said
    assert all(any(word in line for line in said["evidence"]) for word in case.told), said
    assert bool(said["next"]) == bool(said["kind"])
    assert (before["outputs"] == after["outputs"]) == case.steady


@pytest.mark.engine
def test_a_source_that_is_refused(workspace: Workspace, shell_image: str, table: list[Row]) -> None:
    with answering() as server:
        declared = SHELL.moved(job(sources=[server.url]))
        before = record(workspace, declared, shell_image)
        server.status = 403
        said = diagnosed(workspace, before, record(workspace, declared, shell_image))
    table.append(Row("a source refused", execution("access"), finding(said)))
    assert finding(said) == execution("access") and "403 Forbidden" in said["evidence"][0], said


RANDOM = Conditions({"command": "cat /proc/sys/kernel/random/uuid", "python": None, "outputs": ["stdout"]})


@pytest.mark.engine
def test_chance_and_the_host(workspace: Workspace, shell_image: str, table: list[Row]) -> None:
    """Two runs of one state that disagree, by `diff` and by `replay`. There is one machine here, so the other host is
    written into a copy of what was recorded."""
    before, after = (record(workspace, RANDOM, shell_image) for _ in range(2))
    chance, host = Finding((NONDETERMINISM,)), Finding((HOST,))
    replayed = workspace.replay(before["run_id"], "--json")
    assert replayed.code == 1 and replayed.json["verdict"] == "nondeterministic", replayed
    for name, said in (
        ("random bytes, by diff", diagnosed(workspace, before, after)),
        ("random bytes, by replay", replayed.json["diagnosis"]),
    ):
        table.append(Row(name, chance, finding(said)))
        assert finding(said) == chance, said

    here, there = (seen_side(workspace, run) for run in (before, after))
    seen = msgspec.structs.replace(there.spec.observed.host, cpu="another", flags=("sse4_2",))
    observed = msgspec.structs.replace(there.spec.observed, host=seen)
    there = msgspec.structs.replace(there, spec=msgspec.structs.replace(there.spec, observed=observed))
    elsewhere = msgspec.to_builtins(diagnose(diff(here, there)))
    table.append(Row("another host", host, finding(elsewhere)))
    assert finding(elsewhere) == host and "cpu, flags" in elsewhere["evidence"][0]


def seen_side(workspace: Workspace, run: dict[str, Any]) -> Side:
    """The run as `diff` sees it."""
    path = workspace.spec_path(run["run_id"])
    outputs = {one["path"]: one["sha256"] for one in run["outputs"]}
    return Side(load_spec(path.read_bytes(), str(path)), {}, outputs)


def test_the_table_shows_what_was_found_otherwise() -> None:
    right, wrong = execution("code"), Finding((EXECUTION_STATE, NONDETERMINISM), ("code", "env"))
    assert rendered([Row("a", right, right), Row("b", NOTHING, wrong)]) == (
        "| case | expected | found |\n"
        "| --- | --- | --- |\n"
        "| a | execution state drift (code) | as expected |\n"
        "| b | nothing | execution state drift and nondeterminism (code, env) |\n"
    )


# --- packages: a release that only says so in its notes ----------------------------------------------------------


@pytest.mark.engine
def test_a_package_of_an_index(python_workspace: Workspace, python311: str, index: Index, table: list[Row]) -> None:
    for version in ("1.0", "1.1"):
        index.add(wheel("alpha", version, {"alpha.py": f"VALUE = {version}\n"}))
    pip = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index.url, "PIP_FIND_LINKS": "", "PIP_RETRIES": "0"}
    command = ["python3", "-c", "import alpha; print(alpha.VALUE)"]
    keys = {"command": command, "dependencies": "requirements.in", "outputs": ["stdout"]}
    runs = []
    for pin in ("alpha==1.0", "alpha==1.1"):
        runs.append(record(python_workspace, Conditions(keys, {"requirements.in": f"{pin}\n"}, pip), python311))
    said = diagnosed(python_workspace, *runs)
    table.append(Row("a package", execution("dependencies"), finding(said)))
    assert finding(said) == execution("dependencies") and said["evidence"] == ["dependencies: alpha 1.0 → 1.1"]
