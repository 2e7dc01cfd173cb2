"""What a job says beside its paths: what a registry calls a model, which code is preprocessing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import Workspace
from tests.engine.conftest import Recorded

pytestmark = pytest.mark.engine


def edit(recorded: Recorded, **more: Any) -> None:
    workfile = json.loads((recorded.root / "replay.yaml").read_text())
    workfile["jobs"]["steady"] |= more
    recorded.write("replay.yaml", json.dumps(workfile))


def record(recorded: Recorded, **more: Any) -> str:
    edit(recorded, **more)
    run_id: str = recorded.run("steady")["run_id"]
    return run_id


def between(workspace: Workspace, a: str, b: str, code: int) -> dict[str, Any]:
    done = workspace.replay("diff", a, b, "--json")
    assert done.code == code, done
    found: dict[str, Any] = done.json
    return found


def test_a_reference_that_names_other_bytes(recorded: Recorded) -> None:
    first = record(recorded, model={"m.txt": "models:/base/3"})
    assert "models:/base/3" in recorded.replay("show", first).out
    assert recorded.replay("show", first, "--json").json["spec"]["observed"]["model"]["m.txt"]["reference"]
    assert between(recorded, recorded.ids["steady"], first, 0)["changes"] == []
    assert between(recorded, first, ".", 0)["changes"] == []
    recorded.write("m.txt", "other bytes\n")
    found = between(recorded, first, ".", 1)
    assert [one["detail"] for one in found["changes"]] == ["models:/base/3 names other bytes than it did"]
    assert found["diagnosis"]["evidence"] == ["model: m.txt (models:/base/3 names other bytes than it did)"]
    second = record(recorded)
    assert between(recorded, first, second, 1)["changes"][0]["detail"] == found["changes"][0]["detail"]
    third = record(recorded, model={"m.txt": "org/base@v4"})
    assert between(recorded, second, third, 0)["changes"] == [], "another name of the same bytes is no change"
    (change,) = between(recorded, first, third, 1)["changes"]
    assert change["detail"] == "models:/base/3 → org/base@v4"
    assert recorded.replayed(first)["verdict"] == "identical", "the bytes are kept"


@pytest.mark.parametrize(
    "reference", ["", "v3", "models:/base", "https://u:pw@host/base@v1", "https://tok@host/b", "a@b\n"]
)
def test_what_is_no_reference(recorded: Recorded, reference: str) -> None:
    edit(recorded, model={"m.txt": reference})
    error = recorded.error("run", "steady", code=2)
    assert "m.txt" in error["what"] and "models:/" in error["next"] and "pw" not in str(error)


def test_preprocessing_is_called_that(recorded: Recorded) -> None:
    recorded.write("features/deep/scale.py", "def scale(x):\n    return x\n")
    recorded.write("src/train.py", "RATE = 1\n")
    first = record(recorded, preprocessing=["features/*", "lib"])
    spec = recorded.replay("show", first, "--json").json["spec"]
    assert spec["contract"]["preprocessing"] == ["features/*", "lib"]
    recorded.write("features/deep/scale.py", "def scale(x):\n    return x / 255\n")
    recorded.write("src/train.py", "RATE = 2\n")
    found = between(recorded, first, ".", 1)["diagnosis"]
    assert found["kind"] == ["execution state drift"]
    assert found["evidence"][0] == "code, preprocessing: features/deep/scale.py (scale changed)"
    assert found["evidence"][1].startswith("code: src/train.py")
    recorded.write("lib/code.txt", "code 2\n")
    evidence = between(recorded, first, ".", 1)["diagnosis"]["evidence"][0]
    assert evidence.startswith("code, preprocessing:") and "lib/code.txt" in evidence


@pytest.mark.parametrize("mark", ["features/*", "m.txt", "", "out"])
def test_a_mark_that_marks_nothing_is_a_mistake(recorded: Recorded, mark: str) -> None:
    edit(recorded, preprocessing=[mark])
    assert repr(mark) in recorded.error("run", "steady", code=2)["what"]


def test_marks_and_references_are_no_conditions(recorded: Recorded) -> None:
    first = record(recorded, model={"m.txt": "models:/base/3"}, preprocessing=["lib"])
    assert recorded.spec("steady")["digest"] == recorded.replay("show", first, "--json").json["spec"]["digest"]
