"""Rot is seen before it is felt: each pin of the kept runs, and where it still is."""

from __future__ import annotations

import http.server
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Index, Workspace, wheel
from tests.engine.conftest import OwnImage, Recorded

pytestmark = pytest.mark.engine


def pins(workspace: Workspace, *arguments: str, code: int = 0, **env: str) -> dict[str, Any]:
    done = workspace.replay("pins", *arguments, "--json", **env)
    assert done.code == code, done
    found: dict[str, Any] = done.json
    return found


def of(found: dict[str, Any], kind: str) -> dict[str, Any]:
    (one,) = (pin for pin in found["pins"] if pin["kind"] == kind)
    return dict(one)


def with_index(index: Index) -> dict[str, str]:
    return {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index.url, "PIP_FIND_LINKS": "", "PIP_RETRIES": "0"}


def test_each_pin_is_told_with_its_places(packaged: Recorded, index: Index, tmp_path: Path) -> None:
    env = with_index(index)
    found = pins(packaged, **env)
    assert (of(found, "wheel")["places"], of(found, "wheel")["state"]) == (["store"], "last-copy")
    assert of(found, "image")["state"] == "safe" and "engine" in of(found, "image")["places"]
    assert of(found, "data")["runs"] == [packaged.ids["py"]] and found["lost"] == 0

    index.add(wheel("alpha", "1.0", {"alpha.py": "VALUE = 'alpha 1.0'\n"}))
    assert of(pins(packaged, **env), "wheel")["places"] == ["index", "store"]
    assert index.requests and not any(request.endswith(".whl") for request in index.requests)

    packaged.dvc("remote", "add", "-d", "share", str(tmp_path / "remote"))
    (tmp_path / "remote").mkdir()
    assert packaged.replay("push").code == 0
    pushed = pins(packaged, **env)
    assert {pin["state"] for pin in pushed["pins"]} == {"safe"}
    assert all("remote" in pin["places"] for pin in pushed["pins"])


def test_what_is_lost_is_named_with_the_runs_that_need_it(packaged: Recorded, index: Index) -> None:
    wheel_pin = of(pins(packaged, "--offline"), "wheel")
    packaged.blob(wheel_pin["digest"]).unlink()
    found = pins(packaged, code=3, **with_index(index))
    assert found["pins"][0] == wheel_pin | {"state": "lost", "places": []}
    assert packaged.replay(packaged.ids["py"]).code == 3
    told = packaged.replay("pins", **with_index(index))
    assert told.code == 3 and "lost" in told.out and "alpha-1.0" in told.out and packaged.ids["py"] in told.out
    assert pins(packaged, "--offline")["lost"] == 0  # the index may have it


def test_what_cannot_be_asked_is_not_lost(packaged: Recorded, index: Index) -> None:
    def silent(request: http.server.BaseHTTPRequestHandler) -> bool:
        request.send_error(503)
        return True

    index.fault = silent
    wheel_pin = of(pins(packaged, "--offline"), "wheel")
    assert of(pins(packaged, **with_index(index)), "wheel")["state"] == "unknown"
    packaged.blob(wheel_pin["digest"]).unlink()
    found = pins(packaged, code=7, **with_index(index))
    assert found["lost"] == 0 and "503" in found["unasked"][0]["why"]


def test_code_that_was_clean_comes_from_its_commit(workspace: Workspace, own_image: OwnImage) -> None:
    workspace.git("init", "-q")
    workspace.write("code.txt", "code\n")
    workspace.write(".gitignore", ".replay\n")
    workspace.jobs(t={"image": own_image.tag, "python": None, "command": "cat code.txt", "outputs": ["stdout"]})
    workspace.commit("all")
    run_id = workspace.run("t")["run_id"]
    found = pins(workspace)
    assert of(found, "code")["places"] == ["git", "store"]
    assert of(found, "image")["places"] == ["engine", "store"]
    own_image.remove()
    assert of(pins(workspace), "image")["places"] == ["store"]
    workspace.blob(of(found, "code")["digest"]).unlink()
    workspace.write("code.txt", "edited since\n")
    assert of(pins(workspace), "code")["places"] == ["git"]
    done = workspace.replay(run_id, "--json")
    assert done.code == 0 and done.json["verdict"] == "identical" and "from git" in done.err, done


def test_params_that_were_committed_come_from_the_commit(recorded: Recorded) -> None:
    recorded.git("init", "-q")
    recorded.write(".gitignore", ".replay\nstate_specs\n")
    recorded.commit("all")
    recorded.write("lib/code.txt", "edited\n")
    run_id = recorded.run("steady")["run_id"]
    found = pins(recorded, run_id, "--offline")
    assert of(found, "params")["places"] == ["git", "store"] and of(found, "params")["state"] == "safe"
    assert of(found, "code")["places"] == ["store"]
    told = recorded.replay("pins", run_id, "--offline").out
    assert "code code" not in told and f"needed by 1 run: {run_id}\n" in told and "pins of 1 run:" in told, told
    recorded.blob(of(found, "params")["digest"]).unlink()
    assert of(pins(recorded, run_id, "--offline"), "params")["places"] == ["git"]
    recorded.write("p.yaml", "rate: 2\n")
    edited = recorded.run("steady")["run_id"]
    assert of(pins(recorded, edited, "--offline"), "params")["places"] == ["store"]


def test_runs_are_chosen_by_name_job_and_label(recorded: Recorded) -> None:
    assert pins(recorded, "--offline")["runs"] == len(recorded.ids)
    assert pins(recorded, "--offline", "--label", "eu")["runs"] == 1
    assert pins(recorded, "--offline", "eu")["runs"] == 1
    assert pins(recorded, "--offline", "--job", "random")["runs"] == 1
    assert pins(recorded, "--offline", recorded.ids["where"])["runs"] == 1
    assert recorded.replay("pins", "nothing").code == 2


def test_a_store_that_lost_everything_says_so(recorded: Recorded) -> None:
    shutil.rmtree(recorded.store / "blobs")
    found = pins(recorded, recorded.ids["steady"], code=3)
    assert {pin["kind"] for pin in found["pins"] if pin["state"] == "lost"} == {"code", "model", "params"}
