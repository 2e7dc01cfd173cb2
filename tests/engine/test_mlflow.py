"""A run that is recorded under an active run of MLflow is known there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Workspace

STARTED = "from mlflow import MlflowClient as C; c = C(); print(c.create_run(c.create_experiment('e')).info.run_id)"
FOUND = """
import json, sys
from mlflow import MlflowClient, artifacts
run = MlflowClient().get_run(sys.argv[1])
names = [one.path for one in MlflowClient().list_artifacts(sys.argv[1], "replay")]
texts = [artifacts.load_text(f"{run.info.artifact_uri}/{name}") for name in names]
print(json.dumps({"tags": run.data.tags, "names": names, "texts": texts, "status": run.info.status}))
"""


HIDE = """
from importlib.machinery import PathFinder
found = PathFinder.find_spec
PathFinder.find_spec = lambda name, *more: None if name == "mlflow" else found(name, *more)
"""


def asked(program: str, *arguments: str, env: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], env=env, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def tracked(workspace: Workspace, shell_image: str, tmp_path: Path) -> Workspace:
    """A workspace whose commands are called inside of a run of MLflow, with a file store."""
    workspace.jobs(
        t={"command": ["env"], "image": shell_image, "python": None, "outputs": ["stdout"]},
        bad={"command": ["sh", "-c", "exit 3"], "image": shell_image, "python": None, "outputs": []},
    )
    workspace.env |= {"MLFLOW_TRACKING_URI": (tmp_path / "mlruns").as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true"}
    workspace.env["MLFLOW_RUN_ID"] = asked(STARTED, env=workspace.env)
    return workspace


@pytest.mark.engine
@pytest.mark.slow
def test_the_active_run_gets_the_run_id_the_state_and_the_spec(tracked: Workspace) -> None:
    run = tracked.run("t")
    found = json.loads(asked(FOUND, tracked.env["MLFLOW_RUN_ID"], env=tracked.env))
    assert found["tags"]["replay.run_id"] == run["run_id"]
    assert found["tags"]["replay.state_digest"] == run["state_digest"]
    assert found["names"] == [f"replay/{run['run_id']}.yaml"]
    assert found["texts"] == [tracked.spec_path(run["run_id"]).read_text()]
    assert found["status"] == "RUNNING", "it is its owner who ends it"

    printed = tracked.blob(run["outputs"][0]["sha256"]).read_text()
    assert "MLFLOW" not in printed and "MLFLOW" not in found["texts"][0]

    done = tracked.replay("run", "bad", "--json")
    assert done.code == 4
    found = json.loads(asked(FOUND, tracked.env["MLFLOW_RUN_ID"], env=tracked.env))
    assert found["tags"]["replay.run_id"] == done.json["run_id"] and len(found["names"]) == 2
    assert tracked.replay("replay", run["run_id"], "-q").code == 0
    found = json.loads(asked(FOUND, tracked.env["MLFLOW_RUN_ID"], env=tracked.env))
    assert found["tags"]["replay.run_id"] == done.json["run_id"], "a replay is nothing new"


@pytest.mark.engine
@pytest.mark.slow
def test_trouble_with_it_is_a_warning_and_the_run_is_recorded(tracked: Workspace) -> None:
    for address in ("http://127.0.0.1:9", "no-such-scheme://x"):
        done = tracked.replay(
            "run", "t", "--json", "-q", MLFLOW_TRACKING_URI=address, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0"
        )
        assert done.code == 0 and done.json["run_id"], done
        assert done.err.startswith("warning: MLflow could not be told of the run: ") and done.err.count("\n") == 1, done
    done = tracked.replay("run", "t", "-q", MLFLOW_RUN_ID="0" * 32)
    assert done.code == 0 and "warning: MLflow" in done.err


@pytest.mark.engine
def test_without_an_active_run_or_without_mlflow_nothing_happens(tracked: Workspace, tmp_path: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "mlruns").rglob("*")}
    for env in ({"MLFLOW_RUN_ID": ""}, {"MLFLOW_TRACKING_URI": ""}):
        assert tracked.replay("run", "t", "-q", **env).err == ""
    hidden = tracked.write("hidden/sitecustomize.py", HIDE).parent
    done = tracked.replay("run", "t", "-q", PYTHONPATH=str(hidden))
    assert done.code == 0 and done.err == ""
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "mlruns").rglob("*")}
    assert not list(tracked.root.glob("mlflow*"))
