"""Stages: each in a container of its own that finds what it declares, one after the other."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from tests.conftest import Workspace, until

pytestmark = pytest.mark.engine

PREPARE = {
    "name": "prepare",
    "command": "cat raw.txt lib/a.txt >clean.txt",
    "deps": ["raw.txt", "lib"],
    "outs": ["clean.txt"],
}
TRAIN = {
    "name": "train",
    "command": "mkdir model; cat clean.txt p.yaml >model/weights; echo trained; ls >model/seen",
    "deps": ["clean.txt", "p.yaml"],
    "outs": ["model"],
}


@pytest.fixture
def staged(workspace: Workspace, shell_image: str) -> Workspace:
    """Sources, and `define`, which writes a job of stages."""
    workspace.write("raw.txt", "raw\n")
    workspace.write("lib/a.txt", "lib\n")
    workspace.write("secret.txt", "not declared\n")
    workspace.write("p.yaml", "rate: 1\n")
    base = {
        "image": shell_image,
        "python": None,
        "params": "p.yaml",
        "model": ["raw.txt"],
        "outputs": ["model", "stdout"],
    }

    def define(*stages: Any, **more: Any) -> None:
        workspace.jobs(t=base | {"stages": list(stages)} | more)

    workspace.define = define  # type: ignore[attr-defined]
    define(PREPARE, TRAIN)
    return workspace


def output(workspace: Workspace, run: dict[str, Any], path: str) -> str:
    digest = next(one["sha256"] for one in run["outputs"] if one["path"] == path)
    return workspace.blob(digest).read_text()


def test_stages_run_in_order_and_see_what_they_declare(staged: Workspace) -> None:
    done = staged.run("t")
    assert [(one["name"], one["exit_code"], one["ending"]) for one in done["stages"]] == [
        ("prepare", 0, "exited"),
        ("train", 0, "exited"),
    ]
    assert output(staged, done, "model/weights") == "raw\nlib\nrate: 1\n"
    assert output(staged, done, "model/seen").split() == ["clean.txt", "model", "p.yaml"]
    assert output(staged, done, "stdout") == "trained\n"
    assert {one["path"] for one in done["outputs"]} == {"model/weights", "model/seen", "stdout"}


def test_staged_runs_replay(staged: Workspace) -> None:
    done = staged.run("t")
    assert staged.run("t")["state_digest"] == done["state_digest"]
    replayed = staged.replay(done["run_id"], "--json")
    assert replayed.code == 0 and replayed.json["verdict"] == "identical", replayed
    assert [one["name"] for one in replayed.json["stages"]] == ["prepare", "train"]
    plan = staged.replay("replay", done["run_id"], "--dry-run", "--json").json["steps"]
    assert [step["action"].partition(":")[0] for step in plan if step["layer"] == "stage"] == ["prepare", "train"]


def test_a_stage_does_not_find_what_it_does_not_declare(staged: Workspace) -> None:
    staged.define(PREPARE | {"command": "cat secret.txt >clean.txt"}, TRAIN)  # type: ignore[attr-defined]
    done = staged.replay("run", "t", "--json")
    assert done.code == 4
    assert [(one["name"], one["exit_code"]) for one in done.json["stages"]] == [("prepare", 1)]
    assert "train was not run" in json.dumps(done.json["problems"])
    shown = staged.replay("show", done.json["run_id"])
    assert (
        "stage prepare; 1 later stage not run" in shown.out
        and "No such file" in staged.replay("logs", done.json["run_id"]).err
    )


def test_a_stage_cannot_change_what_another_left(staged: Workspace) -> None:
    staged.define(PREPARE, TRAIN | {"command": "echo x >>clean.txt"})  # type: ignore[attr-defined]
    done = staged.replay("run", "t", "--json")
    assert done.code == 4 and done.json["stages"][1]["exit_code"] != 0


def test_an_out_that_is_missing_or_leads_outside_ends_the_run(staged: Workspace) -> None:
    for command, problem in (("true", "missing"), ("ln -s /etc/passwd clean.txt", "outside")):
        staged.define(PREPARE | {"command": command}, TRAIN)  # type: ignore[attr-defined]
        done = staged.replay("run", "t", "--json")
        assert done.code == 4 and len(done.json["stages"]) == 1
        assert {"path": "clean.txt", "problem": problem} == {
            key: done.json["problems"][0][key] for key in ("path", "problem")
        }


def test_logs_tell_which_stage_wrote(staged: Workspace) -> None:
    staged.define(PREPARE | {"command": "echo one; cp raw.txt clean.txt"}, TRAIN)  # type: ignore[attr-defined]
    run = staged.run("t")["run_id"]
    pieces = staged.replay("logs", run, "--json").json["pieces"]
    assert [(one["stage"], one["text"]) for one in pieces] == [("prepare", "one\n"), ("train", "trained\n")]
    shown = staged.replay("logs", run)
    assert shown.out == "one\ntrained\n" and "stage prepare" in shown.err and "stage train" in shown.err


def test_each_stage_has_its_own_home_and_tmp(staged: Workspace) -> None:
    left = PREPARE | {"command": "touch /tmp/x $HOME/x; cp raw.txt clean.txt"}
    staged.define(left, TRAIN | {"command": "mkdir model; ls /tmp $HOME >model/seen"})  # type: ignore[attr-defined]
    assert "x\n" not in output(staged, staged.run("t"), "model/seen")


def test_a_changed_stage_is_named(staged: Workspace) -> None:
    first = staged.run("t")["run_id"]
    staged.define(PREPARE, TRAIN | {"command": "mkdir model; cp clean.txt model/weights"})  # type: ignore[attr-defined]
    for other in (".", staged.run("t")["run_id"]):
        found = staged.replay("diff", first, other, "--json").json
        assert [(one["layer"], one["name"]) for one in found["changes"]] == [("code", "stages.train")]
    staged.define(PREPARE, TRAIN)  # type: ignore[attr-defined]
    assert staged.replay("diff", first, ".", "--json").json["equal"]


@pytest.mark.parametrize(
    ("stages", "key"),
    [
        ([PREPARE | {"deps": ["nowhere.txt"]}, TRAIN], "jobs.t.stages[0].deps"),
        ([TRAIN, PREPARE], "jobs.t.stages[0].deps"),
        ([PREPARE, TRAIN | {"outs": ["clean.txt"]}], "jobs.t.stages[1].outs"),
        ([PREPARE, TRAIN | {"name": "prepare"}], "jobs.t.stages[1].name"),
        ([PREPARE], "jobs.t.outputs"),
        ([PREPARE | {"command": ""}, TRAIN], "jobs.t.stages[0].command"),
        ([PREPARE | {"outs": ["lib"]}, TRAIN], "jobs.t.stages[0].outs"),
    ],
)
def test_stages_that_cannot_be_are_refused(staged: Workspace, stages: list[Any], key: str) -> None:
    staged.define(*stages)  # type: ignore[attr-defined]
    done = staged.replay("run", "t")
    assert done.code == 2 and key in done.err and "expected" in done.err, done


def test_stages_of_dvc_yaml(workspace: Workspace, shell_image: str) -> None:
    workspace.write("raw.txt", "raw\n")
    workspace.write("params.yaml", "rate: 1\n")
    pipeline = {
        "train": {
            "cmd": "cat clean.txt params.yaml >model",
            "deps": ["clean.txt"],
            "params": ["rate"],
            "outs": ["model"],
        },
        "prepare": {"cmd": "cp raw.txt clean.txt", "deps": ["raw.txt"], "outs": ["clean.txt"]},
        "other": {"cmd": "cp raw.txt other", "deps": ["raw.txt"], "outs": ["other"]},
    }
    workspace.write("dvc.yaml", json.dumps({"stages": pipeline}))
    job = {"image": shell_image, "python": None}
    workspace.jobs(every=job | {"stages": "dvc.yaml"}, some=job | {"stages": ["train", "prepare"]})
    done = workspace.run("every")
    assert [one["name"] for one in done["stages"]] == ["prepare", "train", "other"]
    assert {one["path"] for one in done["outputs"]} == {"model", "other"}
    assert output(workspace, done, "model") == "raw\nrate: 1\n"
    some = workspace.run("some")
    assert [one["name"] for one in some["stages"]] == ["prepare", "train"]
    assert workspace.replay(some["run_id"]).code == 0


def test_an_interrupt_ends_all_stages(staged: Workspace) -> None:
    staged.define(PREPARE | {"command": "echo started; sleep 600"}, TRAIN)  # type: ignore[attr-defined]
    process = staged.start("run", "t")
    until(lambda: "started" in "".join(f.read_text() for f in staged.store.glob("runs/*/stdout")), "the first stage")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=300)
    assert process.returncode == 130
    found = staged.replay("ls", "--json").json["runs"]
    assert [one["outcome"] for one in found] == ["interrupted"]


def test_the_time_limit_is_that_of_all_stages(staged: Workspace) -> None:
    slow = "sleep 4; cp raw.txt clean.txt"
    staged.define(PREPARE | {"command": slow}, TRAIN | {"command": "sleep 600"}, limits={"time": 9})  # type: ignore[attr-defined]
    done = staged.replay("run", "t", "--json")
    assert done.code == 4 and done.json["ending"] == "time-limit"
    assert done.json["stages"][1]["duration_s"] < 9
