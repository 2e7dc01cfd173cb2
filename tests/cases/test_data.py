"""Data that differs: its schema, its distributions, or neither; each case as in `test_cases.py`."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.cases.conftest import diagnosed, record
from tests.cases.drift import EXECUTION_STATE, Conditions, Finding, Row, finding
from tests.conftest import Workspace

pytestmark = pytest.mark.engine

SCHEMA = Finding((EXECUTION_STATE,), ("schema",))
DATA = Finding(("data drift",), ("data",))
BOTH = Finding((EXECUTION_STATE, "data drift"), ("data", "params"))


def table_of(seed: int, age: float = 40, plans: str = "free plus", nulls: float = 0, rows: int = 2000) -> str:
    chance = random.Random(seed)
    lines = ["id,age,plan,spent"]
    for number in range(rows):
        spent = "" if chance.random() < nulls else f"{chance.expovariate(0.1):.2f}"
        lines.append(f"{number},{chance.gauss(age, 10):.1f},{chance.choice(plans.split())},{spent}")
    return "\n".join(lines) + "\n"


JOB = Conditions({"command": "cat d.csv >out.csv", "python": None, "data": ["d.csv"], "outputs": ["out.csv"]})
CASES = [
    ("the same table", table_of(1), Finding(), ""),
    ("a column's type coerced", table_of(2).replace("\n500,", "\n500x,"), SCHEMA, "schema: d.csv: id"),
    ("a category added", table_of(2, plans="free plus gold"), SCHEMA, "category added: gold"),
    ("nulls up by 20 points", table_of(2, nulls=0.2), SCHEMA, "schema: d.csv: spent"),
    ("a column renamed", table_of(2).replace("age", "years"), SCHEMA, "renamed to years"),
    ("a distribution moved", table_of(2, age=55), DATA, "data: d.csv: age moved"),
    ("rows of the old kind", table_of(2), DATA, "schema and distributions are equal"),
    ("nulls up by 2 points", table_of(2, nulls=0.02), DATA, "schema and distributions are equal"),
]


@pytest.mark.parametrize(("name", "content", "expected", "told"), CASES, ids=[case[0] for case in CASES])
def test_the_diagnosis_tells_schema_from_values(
    name: str, content: str, expected: Finding, told: str, tracked: Any, table: list[Row]
) -> None:
    workspace, image = tracked
    runs = []
    for version in (table_of(1), content):
        workspace.write("d.csv", version)
        workspace.dvc("add", "d.csv")
        runs.append(record(workspace, JOB, image))
    said = diagnosed(workspace, *runs)
    table.append(Row(name, expected, finding(said)))
    assert finding(said) == expected, said
    assert told in "".join(said["evidence"])
    assert (runs[0]["outputs"] == runs[1]["outputs"]) == (not expected.kinds)


def test_data_and_a_parameter(tracked: tuple[Workspace, str], table: list[Row]) -> None:
    workspace, image = tracked
    runs = []
    for rate, age in ((1, 40), (2, 55)):
        workspace.write("d.csv", table_of(rate, age))
        workspace.dvc("add", "d.csv")
        runs.append(record(workspace, JOB.moved(Conditions({"params": {"rate": rate}})), image))
    said = diagnosed(workspace, *runs)
    table.append(Row("a distribution and a parameter", BOTH, finding(said)))
    assert finding(said) == BOTH, said
    assert "rate 1 → 2" in said["evidence"][0] and "age moved" in said["evidence"][1]


@pytest.fixture
def tracked(workspace: Workspace, shell_image: str) -> tuple[Workspace, str]:
    """A workspace under git and DVC, and the image of its job."""
    workspace.git("init", "-q")
    workspace.dvc("init")
    return workspace, shell_image
