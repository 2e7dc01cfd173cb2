"""Boundaries on a real engine: before a job, between stages, after it, and what follows when one is broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Done, Workspace

pytestmark = pytest.mark.engine

COMMAND = 'cp in.csv out.csv; echo \'{"accuracy": 0.8, "n": 2}\' >m.json; echo said'
FEW = {"table": {"rows": {"min": 5}}}


class Checked(Workspace):
    image: str
    job: dict[str, Any]

    def define(self, *checks: dict[str, Any], **more: Any) -> None:
        job = {"image": self.image, "python": None, "model": ["in.csv"], "outputs": ["out.csv", "m.json", "stdout"]}
        self.jobs(t=job | ({} if "stages" in more else {"command": COMMAND}) | {"checks": list(checks)} | more)

    def run_to(self, code: int, **env: str) -> dict[str, Any]:
        done = self.replay("run", "t", "--json", **env)
        assert done.code == code, done
        return done.json

    def results(self, run: dict[str, Any]) -> dict[str, str]:
        return {one["name"]: one["result"] for one in run["checks"]}


@pytest.fixture
def checked(workspace: Workspace, shell_image: str) -> Checked:
    made = Checked(workspace.root)
    made.image = shell_image
    made.write("in.csv", "id,age\n1,20\n2,\n")
    return made


def test_boundaries_that_are_met_are_recorded(checked: Checked) -> None:
    checked.write("m.schema.json", json.dumps({"required": ["accuracy"]}))
    checked.define(
        {"on": "in.csv", "table": {"columns": {"id": {"type": "integer", "unique": True}, "age": "number"}}},
        {"on": "m.json", "metrics": {"accuracy": "> 0.7, < 1", "n": "== 2"}},
        {"on": "m.json", "schema": "m.schema.json"},
        {"name": "same", "on": "out.csv", "command": ["cat", "out.csv"]},
    )
    run = checked.run_to(0)
    assert checked.results(run) == {
        "table of in.csv": "pass",
        "metrics of m.json": "pass",
        "schema of m.json": "pass",
        "same": "pass",
    }
    shown = checked.replay("show", run["run_id"], "--json").json
    assert [one["name"] for one in shown["spec"]["contract"]["checks"]] == list(checked.results(run))
    assert shown["spec"]["contract"]["checks"][2]["schema"] == {"required": ["accuracy"]}
    assert shown["record"]["checks"] == run["checks"]
    replayed = checked.replay(run["run_id"], "--json")
    assert replayed.code == 0 and replayed.json["checks"] == run["checks"]


def test_a_broken_boundary_before_keeps_the_job_from_starting(checked: Checked) -> None:
    checked.define(
        {"name": "rows", "on": "in.csv"} | FEW,
        {"name": "ages", "on": "in.csv", "table": {"columns": {"age": {"nulls": 0}}}},
        {"name": "late", "on": "m.json", "metrics": {"accuracy": "> 0"}},
    )
    run = checked.run_to(6)
    assert checked.results(run) == {"rows": "fail", "ages": "fail", "late": "skipped"}
    assert run["ending"] == "halted" and run["outputs"] == [] and "set_apart" not in run
    assert checked.replay("logs", run["run_id"]).out == ""
    assert [one["outcome"] for one in checked.replay("ls", "--json").json["runs"]] == ["halted"]
    assert "halted" in checked.replay("show", run["run_id"]).out
    replayed = checked.replay(run["run_id"], "--json")
    assert replayed.code == 0 and replayed.json["verdict"] == "identical", replayed
    assert any("as in the original" in note for note in replayed.json["notes"])


def test_outputs_of_a_run_that_a_boundary_halted_are_set_apart(checked: Checked, tmp_path: Path) -> None:
    checked.define({"name": "good", "on": "m.json", "metrics": {"accuracy": ">= 0.9"}})
    run = checked.run_to(6)
    assert run["outputs"] == [] and run["ending"] == "exited" and run["exit_code"] == 0
    assert {one["path"] for one in run["set_apart"]} == {"out.csv", "m.json", "stdout"}
    assert run["checks"][0]["detail"] == "accuracy: 0.8 is not >= 0.9"
    refused = checked.replay("outputs", run["run_id"], "--to", str(tmp_path / "to"))
    assert refused.code == 6 and "--set-apart" in refused.err and not (tmp_path / "to").exists()
    given = checked.replay("outputs", run["run_id"], "--set-apart", "--to", str(tmp_path / "to"))
    assert given.code == 0 and (tmp_path / "to" / "out.csv").read_text() == "id,age\n1,20\n2,\n"
    assert checked.replay("gc", "--json").code == 0
    assert checked.replay("fsck").code == 0
    replayed = checked.replay(run["run_id"], "--json")
    assert replayed.code == 0 and replayed.json["verdict"] == "identical", replayed
    assert {one["path"] for one in replayed.json["outputs"]} == {"out.csv", "m.json", "stdout"}


def test_a_warning_prints_and_records(checked: Checked) -> None:
    checked.define({"name": "rows", "on": "in.csv", "action": "warn"} | FEW)
    done = checked.replay("run", "t")
    assert done.code == 0 and "2 rows, fewer than 5" in done.err and "rows  fail, warn" in done.out
    run = checked.run_to(0)
    assert checked.results(run) == {"rows": "fail"} and run["outputs"]


def test_what_cannot_be_evaluated_counts_as_broken(checked: Checked) -> None:
    checked.define(
        {"name": "table", "on": "m.json", "schema": {}, "action": "warn"},
        {"name": "values", "on": "out.csv", "metrics": {"a": "> 1"}},
        {"name": "tool", "on": "out.csv", "command": ["no-such-tool"], "action": "warn"},
    )
    assert checked.results(checked.run_to(6)) == {"table": "pass", "values": "error", "tool": "error"}


def test_stdout_can_be_checked(checked: Checked) -> None:
    checked.define({"name": "said", "on": "stdout", "table": {"rows": {"min": 9}}})
    assert checked.results(checked.run_to(6)) == {"said": "fail"}


def test_an_escalation_is_told_what_broke_and_never_runs_for_a_replay(checked: Checked, tmp_path: Path) -> None:
    told = tmp_path / "told"
    escalate = ["sh", "-c", f"cat >>{told}; exit 3"]
    checked.define(
        {"name": "rows", "on": "in.csv", "action": "warn", "escalate": escalate} | FEW,
        {"name": "gone", "on": "in.csv", "action": "warn", "escalate": ["no-such-program"]} | FEW,
        {"name": "met", "on": "in.csv", "escalate": escalate, "table": {}},
    )
    run = checked.run_to(0)
    said = {one["name"]: one.get("escalated") for one in run["checks"]}
    assert said["rows"] == "exit 3" and "could not be run" in said["gone"] and said["met"] is None
    payload = json.loads(told.read_text())
    assert payload["run_id"] == run["run_id"] and payload["check"]["detail"] == "2 rows, fewer than 5"
    told.unlink()
    assert checked.replay(run["run_id"]).code == 0 and not told.exists()


def test_a_command_is_shut_in_and_changes_nothing(checked: Checked) -> None:
    write = "{ echo x >out.csv || echo x >new; } 2>/dev/null || { ls /sys/class/net; exit 1; }"
    checked.define(
        {"name": "writes", "on": "out.csv", "command": write, "action": "warn"},
        {"name": "secret", "on": "out.csv", "command": '[ -z "$KEY" ]'},
        network="open",
        secrets={"KEY": "env:KEY"},
    )
    run = checked.run_to(0, KEY="hunter2-hunter2")
    assert checked.results(run) == {"writes": "fail", "secret": "pass"}
    assert run["checks"][0]["detail"] == "exit 1: lo"
    assert next(one["size"] for one in run["outputs"] if one["path"] == "out.csv") == len("id,age\n1,20\n2,\n")


def test_no_secret_gets_into_a_result(checked: Checked) -> None:
    checked.define(
        {"name": "c", "on": "out.csv", "command": "echo hunter2-hunter2; exit 1"}, secrets={"KEY": "env:KEY"}
    )
    run = checked.run_to(6, KEY="hunter2-hunter2")
    assert run["checks"][0]["detail"] == "exit 1: ***"


STAGES = [
    {"name": "prepare", "command": "cp in.csv clean.csv", "deps": ["in.csv"], "outs": ["clean.csv"]},
    {
        "name": "fit",
        "command": "cp clean.csv out.csv; touch m.json",
        "deps": ["clean.csv"],
        "outs": ["out.csv", "m.json"],
    },
]


@pytest.mark.parametrize("within", [True, False], ids=["of the stage", "of the job"])
def test_a_boundary_between_stages_halts_before_the_next(checked: Checked, within: bool) -> None:
    check = {"name": "rows", "on": "clean.csv"} | FEW
    stages = [STAGES[0] | ({"checks": [check]} if within else {}), STAGES[1]]
    checked.define(*([] if within else [check]), stages=stages)
    run = checked.run_to(6)
    assert [one["name"] for one in run["stages"]] == ["prepare"] and run["checks"][0]["stage"] == "prepare"
    replayed = checked.replay(run["run_id"], "--json")
    assert replayed.code == 0 and replayed.json["verdict"] == "identical", replayed


def test_a_command_between_stages_sees_code_and_what_was_left(checked: Checked) -> None:
    checked.write("check.sh", "cat clean.csv && ! cat out.csv")
    checked.define({"name": "c", "on": "clean.csv", "command": "sh check.sh"}, stages=STAGES)
    run = checked.run_to(0)
    assert checked.results(run) == {"c": "pass"} and len(run["stages"]) == 2


def test_a_replay_that_breaks_another_boundary_is_refused(checked: Checked) -> None:
    odd = "read up idle </proc/uptime; [ -e out.csv ] && read a b c </proc/self/mountinfo; "
    first = "case $(cat /proc/sys/kernel/random/uuid) in [0-7]*) exit 0;; esac; exit 1"
    checked.define({"name": "chance", "on": "out.csv", "command": odd + first})
    seen = set()
    for _ in range(60):  # one in ten million times that is not enough
        done = checked.replay("run", "t", "--json")
        run_id, halted = done.json["run_id"], done.code == 6
        replayed = checked.replay(run_id, "--times", "1", "--json")
        again = any(one["result"] != "pass" for one in replayed.json["checks"])
        verdict = {(False, True): "refused", (True, False): "diverged"}.get((halted, again), "identical")
        assert replayed.json["verdict"] == verdict
        assert replayed.code == {"refused": 6, "diverged": 1, "identical": 0}[verdict]
        seen.add(verdict)
        if len(seen) == 3:
            break
    assert seen == {"refused", "diverged", "identical"}


@pytest.fixture
def drifting(checked: Checked) -> Checked:
    checked.git("init", "-q")
    checked.dvc("init")
    checked.job = {"image": checked.image, "python": None, "command": "cp in.csv out.csv", "data": ["in.csv"]}
    return checked


def _rows(count: int, values: int) -> str:
    return "v,w\n" + "".join(f"{number * 7919 % values},{number % 3}\n" for number in range(count))


def test_drift_since_a_run_halts(drifting: Checked) -> None:
    def run(text: str, *checks: dict[str, Any]) -> Done:
        drifting.write("in.csv", text)
        drifting.dvc("add", "in.csv")
        drifting.jobs(t=drifting.job | {"outputs": ["out.csv"], "checks": list(checks)})
        return drifting.replay("run", "t", "--json")

    first = run(_rows(2000, 500)).json["run_id"]
    before, after = ({"name": on, "on": on, "drift": first} for on in ("in.csv", "out.csv"))
    assert run(_rows(1900, 500), before, after).code == 0
    moved = run(_rows(2000, 900), before)
    assert moved.code == 6 and "exit_code" in moved.json
    (check,) = moved.json["checks"]
    assert check["kind"] == "drift" and check["detail"].startswith("v moved by 0.4") and first in check["detail"]
    assert run(_rows(2000, 900), after).json["checks"][0]["result"] == "fail"
    assert "BIGINT → VARCHAR" in run("v,w\n" + "a,1\n" * 2000, before).json["checks"][0]["detail"]
    spec = drifting.replay("show", moved.json["run_id"], "--json").json["spec"]
    assert spec["contract"]["checks"][0]["drift"]["run"] == first
    assert drifting.replay("rm", first).code == 0 and drifting.replay("gc").code == 0
    assert drifting.replay(moved.json["run_id"], "--json").json["verdict"] == "identical", "the baseline is kept"
    assert drifting.replay("fsck").code == 0
    gone = run(_rows(10, 5), before)
    assert gone.code == 2 and "no run is called" in gone.json["error"]["what"]


def test_drift_needs_a_run_that_had_the_table(drifting: Checked) -> None:
    drifting.dvc("add", "in.csv")
    drifting.jobs(t=drifting.job | {"outputs": ["out.csv", "stdout"]})
    first = drifting.run("t")["run_id"]
    drifting.jobs(t=drifting.job | {"outputs": ["out.csv", "stdout"], "checks": [{"on": "stdout", "drift": first}]})
    done = drifting.replay("run", "t", "--json")
    assert done.code == 2 and "no baseline for the drift of stdout" in done.json["error"]["what"]


def test_a_job_that_fails_skips_its_boundaries(checked: Checked) -> None:
    checked.define({"name": "c", "on": "m.json", "metrics": {"accuracy": "> 0"}}, command="exit 3")
    run = checked.run_to(4)
    assert checked.results(run) == {"c": "skipped"} and "set_apart" not in run


def test_checks_are_no_part_of_the_state(checked: Checked) -> None:
    checked.define()
    plain = checked.run_to(0)
    checked.define({"on": "m.json", "metrics": {"accuracy": "> 0"}})
    assert checked.run_to(0)["state_digest"] == plain["state_digest"]
    found = checked.replay("diff", plain["run_id"], ".", "--json").json
    (check,) = found["contract"]
    assert found["equal"] and check["layer"] == "contract" and check["b"] == "declared"
    assert (
        "declared otherwise, no part of the state:\n  contract  checks."
        in checked.replay("diff", plain["run_id"], ".").out
    )


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ({"on": "in.csv", "table": {"columns": {"id": "int"}}}, ["checks[0].table.columns.id", "expected"]),
        ({"on": "in.csv", "table": {}, "metrics": {"a": "> 1"}}, ["checks[0]", "exactly one of"]),
        ({"on": "in.csv"}, ["checks[0]", "found none", "exactly one of"]),
        ({"on": "m.json", "metrics": {"a": "about 1"}}, ["checks[0].metrics.a", "a comparison like"]),
        ({"on": "nowhere.csv", "table": {}}, ["checks[0].on", "'nowhere.csv' is not declared"]),
        ({"on": "m.json", "schema": {"type": "nope"}}, ["checks[0].schema", "a JSON Schema"]),
        ({"on": "m.json", "schema": {"$ref": "http://localhost:9/x"}}, ["checks[0].schema", "outside the schema"]),
        ({"on": "m.json", "schema": "nope.json"}, ["checks[0].schema", "there is no file nope.json"]),
        ({"on": "in.csv", "table": {"columns": {"id": {"type": "date", "min": 3}}}}, ["columns.id", "expected min"]),
        ({"on": "in.csv", "table": {"columns": {"id": {"nulls": 2}}}}, ["columns.id.nulls", "share"]),
        ({"on": "in.csv", "table": {"rows": {"min": 5, "max": 1}}}, ["rows", "expected min up to max"]),
        ({"on": "stdout", "command": "true"}, ["checks[0].command", "stdout"]),
        ({"on": "in.csv", "table": {}, "action": "ignore"}, ["checks[0].action", "halt"]),
    ],
)
def test_checks_that_cannot_be_are_refused(checked: Checked, check: dict[str, Any], words: list[str]) -> None:
    checked.define(check)
    done = checked.replay("run", "t")
    assert done.code == 2 and "replay.yaml" in done.err, done
    assert [word for word in words if word not in done.err] == [], done
