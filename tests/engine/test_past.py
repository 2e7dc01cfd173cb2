"""`replay run --at … --as-of …`: a past state rebuilt where nothing was recorded."""

from __future__ import annotations

import hashlib
import http.server
import json
from typing import Any

import pytest

from tests.conftest import Index, Workspace, wheel

pytestmark = pytest.mark.engine

PIP = {"PIP_CONFIG_FILE": "/dev/null", "PIP_FIND_LINKS": "", "PIP_RETRIES": "0"}


def started(workspace: Workspace) -> None:
    workspace.git("init", "-q")
    workspace.write(".gitignore", ".replay\n")


def test_code_params_data_and_job_are_those_of_the_commit(workspace: Workspace, shell_image: str) -> None:
    started(workspace)
    workspace.dvc("init")
    for side in ("old", "new"):
        workspace.write("code.txt", f"{side} code\n")
        workspace.write("p.yaml", f"side: {side}\n")
        workspace.write("d.csv", f"{side} data\n")
        workspace.dvc("add", "d.csv")
        job = {"command": "cat code.txt p.yaml d.csv >out.txt", "image": shell_image, "python": None}
        workspace.jobs(t=job | {"params": "p.yaml", "data": ["d.csv"], "outputs": ["out.txt"], "env": {"SIDE": side}})
        workspace.commit(side)
        if side == "old":
            then = workspace.run("t")
            workspace.commit("specs")
    workspace.write("code.txt", "edited since\n")
    past = workspace.run("t", "--at", "HEAD~2")
    assert past["state_digest"] == then["state_digest"] and past["outputs"] == then["outputs"]
    assert workspace.run("t")["state_digest"] != then["state_digest"]
    assert workspace.git("status", "--porcelain", "--", "code.txt") == "M code.txt"
    spec = workspace.replay("show", past["run_id"], "--json").json["spec"]
    assert spec["observed"]["code"]["commit"] == workspace.git("rev-parse", "HEAD~2")
    assert workspace.spec_path(past["run_id"]).is_file()
    assert workspace.replay(past["run_id"], "--json").json["verdict"] == "identical"


def test_a_workspace_below_the_top_of_the_repository(workspace: Workspace, shell_image: str) -> None:
    below = Workspace(workspace.root / "jobs")
    below.write("code.txt", "old\n")
    below.jobs(t={"command": "cat code.txt", "image": shell_image, "python": None, "outputs": ["stdout"]})
    started(workspace)
    first = workspace.commit("old")
    below.write("code.txt", "new\n")
    workspace.commit("new")
    now, then = below.run("t"), below.run("t", "--at", first)
    assert then["outputs"][0]["size"] == now["outputs"][0]["size"] and then["outputs"] != now["outputs"]


def test_what_git_does_not_have_is_refused(workspace: Workspace, shell_image: str) -> None:
    workspace.jobs(t={"command": "true", "image": shell_image, "python": None, "outputs": []})
    assert workspace.replay("run", "t", "--at", "HEAD", "--json").code == 2
    started(workspace)
    workspace.commit("one")
    for words in (["--at", "nothing"], ["--at", "--help"], ["--as-of", "last week"], ["--as-of", "2999-01-01"]):
        done = workspace.replay("run", "t", *words, "--json")
        assert done.code == 2 and done.json["error"]["what"], (words, done)


def dated(index: Index, times: dict[str, str]) -> Any:
    """Answers as an index does that tells when each file was uploaded."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> bool:
        parts = handler.path.strip("/").split("/")
        if len(parts) != 2 or parts[0] != "simple":
            return False
        files = [
            {"filename": name, "url": f"/files/{name}", "upload-time": times[name], "hashes": {"sha256": _sha(content)}}
            for name, content in index.files.items()
            if name.startswith(parts[1])
        ]
        body = json.dumps({"meta": {"api-version": "1.1"}, "name": parts[1], "files": files}).encode()
        handler.send_response(200)
        handler.send_header("Content-Type", "application/vnd.pypi.simple.v1+json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
        return True

    return answer


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_packages_are_those_of_the_day(python_workspace: Workspace, index: Index) -> None:
    times = {}
    for day, version in ((1, "1.0"), (2, "2.0"), (3, "3.0")):
        file = wheel("alpha", version, {"alpha.py": f"VALUE = {version}\n"})
        index.add(file)
        times[file[0]] = f"2026-03-0{day}T12:00:00Z"
    job = {"command": ["python", "-c", "import alpha; print(alpha.VALUE)"], "dependencies": "r.in"}
    image = python_workspace.image  # type: ignore[attr-defined]
    python_workspace.jobs(t=job | {"image": image, "outputs": ["stdout"]})
    python_workspace.write("r.in", "alpha\n")
    pip = PIP | {"PIP_INDEX_URL": index.url}

    refused = python_workspace.replay("run", "t", "--as-of", "2026-03-02", "--json", **pip)
    assert refused.code == 2 and "upload-time" in refused.json["error"]["why"], refused

    index.fault = dated(index, times)
    versions = {}
    for day in ("2026-03-01", "2026-03-02", "2026-03-02T11:00:00Z", "2026-03-09"):
        run = python_workspace.run("t", "--as-of", day, **pip)
        locked = python_workspace.replay("show", run["run_id"], "--json").json["spec"]["state"]["dependencies"][
            "locked"
        ]
        versions[day] = locked[0]["version"]
    assert list(versions.values()) == ["1.0", "2.0", "1.0", "3.0"]
