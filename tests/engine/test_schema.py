"""Data that differs is told by schema and distribution, between runs and against the present."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Workspace
from tests.engine.conftest import Recorded, check_left_over, copy_of

pytestmark = pytest.mark.engine

ROWS = 1000


def customers(seed: int, age: float = 40, **odd: Any) -> str:
    """A table of that many customers; `odd` says what is unusual of it."""
    chance = random.Random(seed)
    plans = ["free", "plus", *odd.get("plans", [])]
    lines = ["id,age,plan,spent"]
    for number in range(ROWS):
        spent = "" if chance.random() < odd.get("nulls", 0) else f"{chance.expovariate(0.1):.2f}"
        lines.append(f"{number},{chance.gauss(age, 10):.1f},{chance.choice(plans)},{spent}")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def template(shell_image: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, dict[str, str]]:
    made = Workspace(tmp_path_factory.mktemp("schema"))
    made.git("init", "-q")
    made.dvc("init")
    made.write("c.csv", customers(1))
    made.dvc("add", "c.csv")
    job = {
        # The score is the id of the last customer, so that only data decides it.
        "command": "while read -r one; do last=${one%%,*}; done <c.csv; echo '{\"accuracy\": 0.'$last'}' >metrics.json",
        "image": shell_image,
        "python": None,
        "data": ["c.csv"],
        "outputs": {"metrics.json": {"compare": "json", "atol": 0.01}},
        "metrics": {"metrics.json": {"accuracy": "higher"}},
    }
    made.jobs(job=job)
    return made, {"job": made.run("job")["run_id"]}


@pytest.fixture
def tabular(template: tuple[Workspace, dict[str, str]], tmp_path: Path) -> Iterator[Recorded]:
    copied = copy_of(*template, tmp_path / "work")
    yield copied
    check_left_over(copied)


def again(tabular: Recorded, content: str) -> dict[str, Any]:
    """The diff of the first run and one on that content."""
    tabular.write("c.csv", content)
    tabular.dvc("add", "c.csv")
    second = tabular.run("job")["run_id"]
    done = tabular.replay("diff", tabular.ids["job"], second, "--json")
    assert done.code == 1, done
    found: dict[str, Any] = done.json
    return found


def schema(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in found["changes"] if one["layer"] == "schema"}


def test_the_profile_is_observed_kept_and_copied_by_a_replay(tabular: Recorded) -> None:
    seen = tabular.spec("job")["observed"]["schema"]["c.csv"]
    assert (seen["columns"], seen["rows"]) == (4, ROWS)
    profile = json.loads(tabular.blob(seen["profile"]).read_bytes())
    assert [one["name"] for one in profile["columns"]] == ["id", "age", "plan", "spent"]
    replayed = tabular.replayed(tabular.ids["job"])["run_id"]
    assert tabular.replay("show", replayed, "--json").json["spec"]["observed"]["schema"]["c.csv"] == seen

    assert tabular.replay("gc").code == 0 and tabular.blob(seen["profile"]).is_file()
    assert tabular.replay("fsck").code == 0
    tabular.blob(seen["profile"]).unlink()
    assert tabular.replay("fsck").code == 5
    assert tabular.replay("fsck", "--repair").code == 0 and tabular.blob(seen["profile"]).is_file()


def test_a_profile_that_is_known_costs_no_duckdb(tabular: Recorded) -> None:
    first = tabular.spec("job")["observed"]["schema"]
    tabular.write("fake/duckdb.py", "raise AssertionError('imported')\n")
    second = tabular.run("job", PYTHONPATH=str(tabular.root / "fake"))["run_id"]
    assert tabular.replay("show", second, "--json").json["spec"]["observed"]["schema"] == first


def test_new_rows_of_the_old_kind_are_no_schema_and_no_move(tabular: Recorded) -> None:
    found = again(tabular, customers(2))
    assert not schema(found) and not found["moved"] and found["diagnosis"]["kind"] == ["data drift"]
    assert "schema and distributions are equal" in found["diagnosis"]["evidence"][0]


def test_values_that_moved_are_data_drift_with_the_column_named(tabular: Recorded) -> None:
    found = again(tabular, customers(2, age=55))
    assert not schema(found) and found["diagnosis"]["kind"] == ["data drift"]
    assert [(one["path"], one["column"], one["statistic"]) for one in found["moved"]] == [("c.csv", "age", "KS")]
    assert found["moved"][0]["p"] < 1e-6 < 0.4 < found["moved"][0]["size"]
    text = tabular.replay("diff", tabular.ids["job"], found["b"]).out
    assert "age moved by 0." in text and "columns whose distribution moved" in text


@pytest.mark.parametrize(
    ("content", "column", "words"),
    [
        (customers(2).replace("id,age", "id,years"), "age", "renamed to years"),
        (customers(2, plans=["gone"]), "plan", "category added: gone"),
        (customers(2, nulls=0.2), "spent", ""),
        (customers(2).replace("\n500,", "\n500,x"), "age", ""),
    ],
    ids=["renamed", "category", "nulls", "coerced"],
)
def test_a_broken_schema_is_execution_state_drift(tabular: Recorded, content: str, column: str, words: str) -> None:
    found = again(tabular, content)
    broken = schema(found)
    assert list(broken) == [f"c.csv:{column}"] and words in broken[f"c.csv:{column}"].get("detail", "")
    assert found["diagnosis"]["kind"] == ["execution state drift"]
    assert found["diagnosis"]["evidence"][0].startswith(f"schema: c.csv: {column}")


def test_the_present_is_profiled_where_it_lies(tabular: Recorded) -> None:
    before = {path for path in tabular.store.rglob("*") if "stat" not in path.parts}
    tabular.write("c.csv", customers(2, nulls=0.2))
    found = tabular.replay("diff", tabular.ids["job"], ".", "--json").json
    assert list(schema(found)) == ["c.csv:spent"] and found["diagnosis"]["kind"] == ["execution state drift"]
    assert {path for path in tabular.store.rglob("*") if "stat" not in path.parts} == before


def test_a_metric_that_worsens_on_data_of_the_same_kind_is_model_drift(tabular: Recorded) -> None:
    lines = customers(2).splitlines()
    worse = [line for line in lines if not line.startswith("500,")] + [lines[501]]
    found = again(tabular, "\n".join(worse) + "\n")
    assert found["diagnosis"]["kind"] == ["model drift"]
    assert found["diagnosis"]["evidence"] == ["accuracy in metrics.json: 0.999 → 0.5"]
    moved = again(tabular, "\n".join([*customers(3, age=55).splitlines()[:-1], lines[501]]) + "\n")
    assert moved["diagnosis"]["kind"] != ["model drift"]


def test_a_file_that_cannot_be_profiled_stops_nothing(tabular: Recorded) -> None:
    found = again(tabular, 'a,b\n"1,2\n')
    seen = tabular.replay("show", found["b"], "--json").json["spec"]["observed"]["schema"]["c.csv"]
    assert seen.keys() == {"unknown"}
    assert found["diagnosis"]["kind"] == ["unknown"] and seen["unknown"] in found["diagnosis"]["evidence"][0]


def test_metrics_are_of_outputs(tabular: Recorded) -> None:
    workfile = json.loads((tabular.root / "replay.yaml").read_text())
    workfile["jobs"]["job"]["metrics"] = {"other.json": {"accuracy": "higher"}}
    tabular.write("replay.yaml", json.dumps(workfile))
    assert "other.json is no output" in tabular.error("run", "job", code=2)["what"]
