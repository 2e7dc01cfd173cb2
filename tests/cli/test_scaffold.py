"""`replay init` and `replay doctor`: what is found is what is written, and what is missing is named."""

from __future__ import annotations

import json

import pytest

from runner.scaffold import Findings, find, workfile
from runner.state.strict import load_workfile
from tests.conftest import Workspace

CASES = [
    Findings(),
    Findings(script="train.py", requirements="requirements.in", params="params.yaml"),
    Findings(script="my script.py", data=("data/a.csv", "data/with: colon", "data/näme"), dockerfile=True),
    Findings(stages=("prepare", "train-model", "9 odd:name"), image_folders=("images/python311",)),
    Findings(script="no.py", requirements="pyproject.toml", image_folders=("images/a", "images/b")),
]


@pytest.mark.parametrize("found", CASES)
def test_what_is_written_loads_and_says_what_was_found(found: Findings) -> None:
    text = workfile(found)
    jobs = load_workfile(text.encode(), "replay.yaml").jobs
    assert len(jobs) == max(1, len(found.stages))
    for name, job in jobs.items():
        assert job.dependencies == found.requirements
        assert (job.stage is not None) == bool(found.stages)
        if not found.stages:
            assert job.data == found.data
            assert job.params == found.params
            assert name
    assert text.count("#") > 5, "it is to be commented"


def test_init_finds_what_is_there(workspace: Workspace) -> None:
    workspace.write("train.py", "print(1)\n")
    workspace.write("requirements.in", "six\n")
    workspace.write("params.toml", "a = 1\n")
    workspace.write("data/x.csv.dvc", "outs:\n- md5: d41d8cd98f00b204e9800998ecf8427e\n  path: x.csv\n")
    workspace.write("images/base/Dockerfile", "FROM scratch\n")
    assert find(workspace.root) == Findings(
        script="train.py",
        requirements="requirements.in",
        image_folders=("images/base",),
        data=("data/x.csv",),
        params="params.toml",
    )
    done = workspace.replay("init", "--json")
    assert done.code == 0 and done.json["written"] == str(workspace.root / "replay.yaml"), done
    job = load_workfile((workspace.root / "replay.yaml").read_bytes(), "replay.yaml").jobs["train"]
    assert (job.command, job.image, job.data) == ("python train.py", "images/base", ("data/x.csv",))
    again = workspace.replay("init")
    assert again.code == 2 and "--force" in again.err
    assert workspace.replay("init", "--force").code == 0


def test_init_names_the_stages_of_a_pipeline(workspace: Workspace) -> None:
    workspace.write(
        "dvc.yaml", "stages:\n  train:\n    cmd: python t.py\n  every:\n    foreach: [1]\n    do: {cmd: x}\n"
    )
    assert find(workspace.root).stages == ("train",)


def test_doctor_names_a_missing_engine_and_the_command_that_mends_it(workspace: Workspace) -> None:
    done = workspace.replay("doctor", "--json", DOCKER_HOST="unix:///nowhere/docker.sock")
    assert done.code == 7
    engine = next(one for one in done.json["findings"] if one["name"] == "engine")
    assert engine["level"] == "missing" and engine["mend"]
    text = workspace.replay("doctor", DOCKER_HOST="unix:///nowhere/docker.sock")
    assert engine["mend"] in text.out


def test_doctor_reads_the_workspace(workspace: Workspace) -> None:
    workspace.write("replay.yaml", "version: 1\njobs:\n  a: {imag: x}\n")
    (workspace.root / "state_specs").mkdir()
    findings = {one["name"]: one for one in workspace.replay("doctor", "--json").json["findings"]}
    assert findings["replay.yaml"]["level"] == "missing"
    assert "image" in findings["replay.yaml"]["detail"]


JOB = {
    "image": "images/nope",
    "dependencies": "nope.in",
    "data": ["nope.csv"],
    "model": ["nope.bin"],
    "params": "nope.yaml",
    "env": {"UNSET": None},
    "secrets": {"KEY": "env:NOBODY_SETS_IT", "OTHER": "file:nowhere"},
}


def test_doctor_names_all_that_a_job_lacks(workspace: Workspace) -> None:
    workspace.jobs(
        whole={"image": "images/own", "command": "true"}, t=JOB | {"command": "true"}, staged=JOB | {"stage": "x"}
    )
    workspace.write("images/own/Dockerfile", "FROM scratch\n")
    found = workspace.replay("doctor", "--json").json["findings"]
    told = [one["detail"] for one in found if one["name"] == "job t"]
    for lack in ("UNSET", "KEY", "OTHER", "nope.in", "nope.csv", "nope.bin", "nope.yaml"):
        assert sum(lack in detail for detail in told) == 1, (lack, told)
    assert all(one["mend"] for one in found if one["name"].startswith("job "))
    assert [one["name"] for one in found if "no dvc.yaml" in one["detail"]] == ["job staged"]
    assert not [one for one in found if one["name"] == "job whole"]


def test_a_run_of_nothing_leaves_nothing(workspace: Workspace) -> None:
    assert workspace.replay("run").code == 2
    assert not workspace.store.exists(), "projects below would share it"


def test_errors_are_objects_under_json_and_three_lines_otherwise(workspace: Workspace) -> None:
    done = workspace.replay("nosuchrun-abc", "--json")
    assert done.code == 2
    assert set(done.json["error"]) == {"code", "what", "why", "next"}
    assert json.loads(done.out)["error"]["code"] == 2
    plain = workspace.replay("nosuchrun-abc")
    assert plain.out == "" and plain.err.startswith("error: ") and "  next: " in plain.err
    unknown = workspace.replay("ls", "--nosuch")
    assert unknown.code == 2 and "--nosuch" in unknown.err


def test_version_and_help(workspace: Workspace) -> None:
    assert workspace.replay("--version").out.strip().count(".") == 2
    top = workspace.replay("--help")
    assert top.code == 0 and "bisect" in top.out and "nightly" in top.out
