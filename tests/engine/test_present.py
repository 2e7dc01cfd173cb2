"""`replay diff RUN .`: what would be different if the job ran now; nothing is run, pulled or written to find out."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.engine.conftest import Recorded

pytestmark = pytest.mark.engine


def present(recorded: Recorded, job: str, code: int) -> dict[str, Any]:
    done = recorded.replay("diff", recorded.ids[job], ".", "--json")
    assert done.code == code, done
    found: dict[str, Any] = done.json
    return found


def named(found: dict[str, Any]) -> dict[tuple[str, str], tuple[Any, Any]]:
    return {(one["layer"], one["name"]): (one.get("a"), one.get("b")) for one in found["changes"]}


def test_nothing_changed(recorded: Recorded) -> None:
    found = present(recorded, "steady", 0)
    assert found["equal"] and found["changes"] == [] and found["unknown"] == {} and found["diagnosis"]["kind"] == []


def test_each_edit_is_named_and_nothing_is_kept(recorded: Recorded) -> None:
    before = {path for path in recorded.store.rglob("*") if "stat" not in path.parts}
    recorded.write("lib/code.txt", "code 2\n")
    recorded.write("p.yaml", "rate: 0.1\nnet: {depth: 5, width: 4}\n")
    recorded.write("m.txt", "model 2\n")
    found = present(recorded, "steady", 1)
    assert set(named(found)) == {("code", "lib/code.txt"), ("params", "net.depth"), ("model", "m.txt")}
    assert found["diagnosis"]["kind"] == ["execution state drift"]
    assert {path for path in recorded.store.rglob("*") if "stat" not in path.parts} == before
    back = recorded.replay("diff", ".", recorded.ids["steady"], "--json").json
    assert {key: (b, a) for key, (a, b) in named(back).items()} == named(found)


def test_a_python_file_is_told_by_its_functions(recorded: Recorded) -> None:
    recorded.write("lib/steps.py", "def clean(x):\n    return x\n")
    first = recorded.run("steady")["run_id"]
    recorded.write("lib/steps.py", "def clean(x):\n    return x + 1\n")
    found = recorded.replay("diff", first, ".", "--json").json
    assert [one.get("detail") for one in found["changes"]] == ["clean changed"]
    assert "lib/steps.py (clean changed)" in found["diagnosis"]["evidence"][0]
    assert "clean changed" in recorded.replay("diff", first, ".").out


def test_an_image_that_is_not_at_hand_is_unknown(recorded: Recorded) -> None:
    workfile = json.loads((recorded.root / "replay.yaml").read_text())
    job = workfile["jobs"]["steady"] | {"image": "nowhere.invalid/none:1"}
    recorded.write("replay.yaml", json.dumps(workfile | {"jobs": {"steady": job}}))
    found = present(recorded, "steady", 1)
    assert "nowhere.invalid/none:1" in found["unknown"]["image"] and not found["equal"]
    assert found["diagnosis"]["kind"] == ["unknown"]


def test_without_an_engine_the_rest_is_told(recorded: Recorded) -> None:
    recorded.write("p.yaml", "rate: 0.5\nnet: {depth: 3, width: 4}\n")
    done = recorded.replay("diff", recorded.ids["steady"], ".", "--json", DOCKER_HOST="unix:///nowhere.sock")
    assert ("params", "rate") in named(done.json) and "no engine" in done.json["unknown"]["image"], done


def test_a_job_that_is_gone_is_said(recorded: Recorded) -> None:
    workfile = json.loads((recorded.root / "replay.yaml").read_text())
    recorded.write("replay.yaml", json.dumps(workfile | {"jobs": {"other": workfile["jobs"]["where"]}}))
    assert "steady" in recorded.error("diff", recorded.ids["steady"], ".", code=2)["what"]


def test_data_and_locks(packaged: Recorded) -> None:
    """Edited data, another version of it, requirements that have no lock yet."""
    assert present(packaged, "py", 0)["changes"] == []
    packaged.write("d.csv", "a,b\n7,7\n")
    assert named(present(packaged, "py", 1))[("data", "d.csv")][1] == "edited since `dvc add`"
    packaged.dvc("add", "d.csv")
    assert named(present(packaged, "py", 1))[("data", "d.csv")][1].startswith("MD5 ")
    subprocess.run(["git", "-C", str(packaged.root), "status"], check=False, capture_output=True)
    requirements = next(packaged.root.glob("requirements*"))
    requirements.write_text(requirements.read_text() + "beta\n")
    assert "resolve" in present(packaged, "py", 1)["unknown"]["dependencies"]
