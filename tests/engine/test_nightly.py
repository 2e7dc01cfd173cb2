"""Nights on a real engine: which runs, what moved, what a person and a script are told."""

from __future__ import annotations

import json
import shutil
import signal
from typing import Any

import pytest

from runner.errors import ConsentError, RefusedError
from runner.replaying import finding_of_error
from runner.tools.containers import Engine
from tests.conftest import Index, Workspace, flip_bit, until, wheel
from tests.engine.conftest import RANDOM, Recorded
from tests.engine.test_strangers import on_terminal

pytestmark = pytest.mark.engine


def night(workspace: Workspace, *arguments: str, code: int = 0, **env: str) -> dict[str, Any]:
    """`replay nightly … --json`, which must exit with that code."""
    done = workspace.replay("nightly", *arguments, "--json", **env)
    assert done.code == code, done
    return done.json


def by_job(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {run["job"]: run for run in found["runs"]}


def moves(found: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {job: (run["verdict"], run["moved"]) for job, run in by_job(found).items()}


def suites(workspace: Workspace, **given: dict[str, Any]) -> None:
    file = workspace.root / "replay.yaml"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"suites": given}))


def test_a_night_says_what_moved_since_the_night_before(recorded: Recorded) -> None:
    first = night(recorded, code=4)
    assert moves(first) == {
        "steady": ("identical", "new"),
        "uptime": ("equivalent", "new"),
        "random": ("nondeterministic", "flaky"),
        "where": ("diverged", "regressed"),
        "exits": ("failed", "regressed"),
        "fails": ("identical", "new"),
    }
    assert [run["moved"] for run in first["runs"][:2]] == ["regressed", "regressed"]
    assert first["counts"] == {"diverged": 1, "equivalent": 1, "failed": 1, "identical": 2, "nondeterministic": 1}
    assert by_job(first)["random"]["flaky"]["disagreed"] == 2

    second = night(recorded)
    assert moves(second) == {
        "steady": ("identical", "steady"),
        "uptime": ("equivalent", "steady"),
        "random": ("nondeterministic", "flaky"),
        "where": ("diverged", "failing"),
        "exits": ("failed", "failing"),
        "fails": ("identical", "steady"),
    }
    assert {run["since"] for run in second["runs"]} == {first["night"]}
    for found in (first, second):
        assert by_job(found)["fails"]["evidence"] == ["the original failed, too"]
        assert "evidence" not in by_job(found)["steady"]
    assert by_job(second)["random"]["flaky"]["of"] == 4


def test_a_quiet_night_is_quiet(recorded: Recorded) -> None:
    suites(recorded, nightly={"select": ["job:steady", "job:uptime"]})
    recorded.replay("nightly")
    quiet = recorded.replay("nightly")
    assert quiet.code == 0
    assert len(quiet.out.splitlines()) == 1 and quiet.out.startswith("QUIET"), quiet
    assert "2 steady" in quiet.out
    assert not quiet.err


def test_another_output_that_gets_worse_is_another_regression(workspace: Workspace, shell_image: str) -> None:
    workspace.write("a.json", "{}\n")
    workspace.write("b.txt", "b\n")
    copying = "cp a.json o.json; cp b.txt p.txt || true"
    both = {"command": copying, "image": shell_image, "python": None, "outputs": ["o.json", "p.txt"]}
    workspace.jobs(both=both)
    workspace.run("both")
    night(workspace, "--against", ".")

    def tonight(**files: str) -> tuple[str, list[str]]:
        for name, text in files.items():
            workspace.write(f"{name}.{'json' if name == 'a' else 'txt'}", text)
        told = workspace.replay("nightly", "--against", ".", "--json")
        assert told.code == (1 if told.json["runs"][0]["moved"] == "regressed" else 0)
        return told.json["runs"][0]["moved"], told.json["runs"][0]["evidence"]

    assert tonight(a='{"a": 1}\n')[0] == "regressed"
    moved, evidence = tonight(b="c\n")
    assert moved == "regressed" and "worse than last night: p.txt" in evidence
    moved, evidence = tonight(a='{"a": 2}\n')
    assert moved == "failing" and "o.json differs from last night's, too" in evidence
    (workspace.root / "b.txt").unlink()
    moved, evidence = tonight()
    assert moved == "regressed" and "worse than last night: p.txt" in evidence, "it is missing"


def test_replays_of_a_night_stay_in_the_store(recorded: Recorded) -> None:
    suites(recorded, nightly={"select": ["job:steady"]})
    before = sorted((recorded.root / "state_specs").iterdir())
    found = night(recorded)
    assert sorted((recorded.root / "state_specs").iterdir()) == before
    assert recorded.replayed(found["runs"][0]["replay"])["verdict"] == "identical"
    again = night(recorded)
    assert [run["run_id"] for run in again["runs"]] == [recorded.ids["steady"]], "a replay is not replayed"


def test_somebody_is_told_of_what_got_worse_and_of_nothing_else(recorded: Recorded) -> None:
    suites(recorded, nightly={"on_regression": ["sh", "-c", "cat >>told.json"]})
    first = night(recorded, code=4)
    told = recorded.root / "told.json"
    assert json.loads(told.read_text())["night"] == first["night"]
    told.unlink()
    night(recorded)
    assert not told.exists()


def test_nights_are_listed_and_shown_again(recorded: Recorded) -> None:
    suites(recorded, nightly={"select": ["job:steady"]}, other={"select": ["job:uptime", "job:steady"]})
    nothing = recorded.error("nights", "x", code=2)
    assert "names no night" in nothing["what"]
    found = [night(recorded), night(recorded, "other"), night(recorded, "other")]
    assert [moves(one) for one in found] == [
        {"steady": ("identical", "new")},
        {"steady": ("identical", "new"), "uptime": ("equivalent", "new")},
        {"steady": ("identical", "steady"), "uptime": ("equivalent", "steady")},
    ], "a suite is compared with its own nights"
    listed = recorded.replay("nights", "--json").json["nights"]
    assert [one["night"] for one in listed] == [one["night"] for one in found]
    assert recorded.replay("nights", found[1]["night"], "--json").json == found[1]
    table = [json.loads(line) for file in recorded.store.glob("nights/*/rows.jsonl") for line in file.open()]
    assert len(table) == 5 and {row["run_id"] for row in table} == {recorded.ids["steady"], recorded.ids["uptime"]}


def test_what_cannot_be_asked_for_is_told(recorded: Recorded) -> None:
    suites(recorded, nightly={"select": ["job:steady"]})
    assert recorded.error("nightly", "nihgtly", code=2)["why"] == "did you mean nightly?"
    assert "--set" in recorded.error("nightly", "--set", "dependecies=latest", code=2)["what"]
    assert "budget" in recorded.error("nightly", "--budget", "soon", code=2)["what"]
    suites(recorded, nightly={"select": ["lable:prod"]})
    assert "line " in recorded.error("nightly", code=2)["why"]


def test_a_night_that_would_watch_nothing_is_a_mistake(recorded: Recorded) -> None:
    typo = {"select": ["job:staedy"]}
    suites(
        recorded,
        nightly=typo,
        none={"select": []},
        label={"select": ["label:nope"]},
        most={"select": ["job:x", "@*", "job:steady"]},
        bad={"select": ["last:diverged"]},
    )
    found = recorded.error("nightly", code=2)
    assert "nothing fits job:staedy" in found["what"] and found["why"] == "did you mean job:steady?"
    assert "is empty" in recorded.error("nightly", "none", code=2)["what"]
    assert "label:eu, label:prod" in recorded.error("nightly", "label", code=2)["why"]
    assert not list((recorded.store / "nights").glob("*/night.json")), "none of these was a night"

    most = recorded.replay("nightly", "most", "--json")
    assert most.code == 0 and "warning: select: no run fits job:x" in most.err
    assert most.json["unmatched"] == ["job:x"]
    bad = recorded.replay("nightly", "bad")
    assert bad.code == 0 and bad.out.startswith("QUIET") and not bad.err, "none is that bad: so much the better"


def test_where_nothing_was_recorded_a_night_says_so(workspace: Workspace) -> None:
    (workspace.root / "state_specs").mkdir()
    done = workspace.replay("nightly", "--json")
    assert done.code == 2 and done.json["error"]["next"].startswith("record something first"), done


def test_runs_that_were_removed_since_the_last_night_are_told(recorded: Recorded) -> None:
    suites(recorded, nightly={"select": ["job:steady", "job:fails"]})
    night(recorded)
    assert recorded.replay("rm", recorded.ids["fails"]).code == 0
    told = recorded.replay("nightly")
    assert told.code == 0 and told.out.startswith("NO WORSE"), told
    assert f"1 run of last night is gone: {recorded.ids['fails']}" in told.out
    assert recorded.replay("nightly").out.startswith("QUIET"), "it is told once"
    assert recorded.replay("rm", *[one for job, one in recorded.ids.items() if job != "fails"]).code == 0
    assert recorded.error("nightly", code=2)["why"] == "1 run of last night is gone"


def test_a_run_whose_spec_was_edited_is_told_though_no_index_knew_it(recorded: Recorded) -> None:
    suites(recorded, nightly={"select": ["job:fails", "label:prod", "label:pord"]})
    file = recorded.root / "state_specs" / f"{recorded.ids['fails']}.yaml"
    file.write_bytes(file.read_bytes() + b"# edited\n")
    for index in recorded.store.glob("index.sqlite*"):
        index.unlink()
    tonight = night(recorded, code=5)
    found = by_job(tonight)["fails"]
    assert (found["verdict"], found["moved"]) == ("tampered", "regressed")
    assert tonight["unmatched"] == ["label:pord"], "which it fits as well as any"
    again = recorded.replay("nightly")
    assert again.out.startswith("NO WORSE"), "it was told, and is not quiet"
    assert "no run that can be read fits label:pord: did you mean label:prod?" in again.err


def test_a_budget_leaves_out_what_it_has_no_time_for_and_that_is_not_quiet(recorded: Recorded) -> None:
    suites(recorded, nightly={"budget": 0.000001})
    found = night(recorded)
    assert found["runs"] == [] and found["left_out"] == 6
    assert sorted(found["left_out_runs"]) == sorted(recorded.ids.values())
    done = recorded.replay("nightly", "--junit", "junit.xml")
    assert done.out.startswith("NO WORSE") and "6 not looked at for want of time" in done.out.splitlines()[0], done
    assert (recorded.root / "junit.xml").read_text().count("<skipped") == 6
    assert "6 not looked at" in recorded.replay("nights").out
    assert "6 not looked at" in recorded.replay("report").out


def test_releases_are_replayed_by_name(recorded: Recorded) -> None:
    suites(recorded, nightly={"select": ["@*"]}, one={"select": ["@v2"]})
    assert "selects no run" in recorded.error("nightly", code=2)["what"]
    made = recorded.replay("release", "create", "v1", recorded.ids["steady"], "--reason", "good", "--accepted-by", "me")
    assert made.code == 0, made
    assert list(moves(night(recorded))) == ["steady"]
    assert "no release @v2" in recorded.error("nightly", "one", code=2)["what"]


# --- variations -----------------------------------------------------------------------------------------------


def test_todays_code_is_tried_with_what_else_was_recorded(recorded: Recorded) -> None:
    own = {"select": ["job:steady", "job:fails"]}
    suites(recorded, head=own | {"against": "."}, nightly=own)
    same = night(recorded, "head")
    assert moves(same) == {"steady": ("identical", "new"), "fails": ("identical", "new")}
    assert "changes" not in by_job(same)["steady"]

    recorded.write("lib/code.txt", "another code\n")
    recorded.write("p.yaml", "rate: 0.9\n")
    found = night(recorded, "head", code=1)
    steady = by_job(found)["steady"]
    assert moves(found) == {"steady": ("diverged", "regressed"), "fails": ("identical", "steady")}
    assert [(one["layer"], one["name"]) for one in steady["changes"]] == [("code", "lib/code.txt")]
    assert steady["kind"] == ["execution state drift"]
    assert steady["ran"] != steady["state_digest"] == recorded.spec("steady")["digest"]
    assert night(recorded)["runs"][0]["moved"] == "new", "recorded states have nights of their own"
    shown = recorded.replay("show", steady["replay"], "--json").json
    assert "replay_of" not in shown["spec"]["run"] and shown["spec"]["run"]["labels"] == ["nightly"]


def test_a_variable_and_an_image_can_be_set(recorded: Recorded, bare_image: str) -> None:
    suites(recorded, nightly={"select": ["job:steady"]})
    found = night(recorded, "--set", "env.MODE=test")
    (run,) = found["runs"]
    assert found["setting"] == ["env.MODE=test"]
    assert run["changes"] == [{"layer": "env", "name": "MODE", "a": "prod", "b": "test"}]
    assert "as_recorded" not in found
    same = recorded.replay("nightly", "--set", "env.MODE=prod")
    assert same.out.startswith("NO WORSE"), same
    assert "1 of 1 run is as recorded: what was set changes nothing of it" in same.out
    assert "1 of 1 run is as recorded" in recorded.replay("report").out
    broken = night(recorded, "--set", f"image={bare_image}", code=4)
    assert moves(broken) == {"steady": ("failed", "regressed")}, "it has no shell"
    assert {one["layer"] for one in broken["runs"][0]["changes"]} == {"image"}


def test_an_image_that_cannot_be_had_ends_a_night_before_it_starts(recorded: Recorded) -> None:
    nowhere = "localhost:1/nope:1"
    suites(recorded, nightly={"select": ["job:steady"]})
    found = recorded.error("nightly", "--set", f"image={nowhere}", code=7)
    assert found["what"] == f"there is no image {nowhere}"
    assert "no folder images/nope" in recorded.error("nightly", "--set", "image=images/nope", code=2)["what"]
    assert not list((recorded.store / "nights").glob("*/night.json"))


def test_an_upgrade_is_tried(packaged: Recorded, index: Index) -> None:
    for version in ("1.0", "2.0"):
        index.add(wheel("alpha", version, {"alpha.py": f"VALUE = 'alpha {version}'\n"}))
    pip = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index.url, "PIP_FIND_LINKS": "", "PIP_RETRIES": "0"}
    found = night(packaged, "--set", "dependencies=latest", "--bisect", code=1, **pip)
    (run,) = found["runs"]
    assert (run["cause"], run["proven"]) == (run["changes"], True)
    assert (run["verdict"], run["moved"]) == ("diverged", "regressed")
    assert run["changes"] == [{"layer": "dependencies", "name": "alpha", "a": "1.0", "b": "2.0"}]
    asked = len(index.requests)
    assert moves(night(packaged)) == {"py": ("identical", "new")}
    assert len(index.requests) == asked, "a replay asks no index"
    locks = sorted((packaged.store / "locks").iterdir())
    assert len(locks) == 1, "what was resolved for a night is no lock of the next run"


def test_an_upgrade_that_has_nothing_newer_is_no_quiet_night(packaged: Recorded, index: Index) -> None:
    index.add(wheel("alpha", "1.0", {"alpha.py": "VALUE = 'alpha 1.0'\n"}))
    pip = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index.url, "PIP_FIND_LINKS": "", "PIP_RETRIES": "0"}
    done = packaged.replay("nightly", "--set", "dependencies=latest", **pip)
    assert done.code == 0 and done.out.startswith("NO WORSE"), done
    assert "1 of 1 run is as recorded: nothing newer fits its requirements" in done.out
    assert packaged.replay("report", "--json").json["as_recorded"] == 1


# --- trouble, and each kind of regression ----------------------------------------------------------------------


def test_an_engine_that_is_not_there_is_no_regression(recorded: Recorded) -> None:
    suites(recorded, nightly={"select": ["job:steady", "job:uptime"], "patience": 1})
    told = recorded.replay("nightly", "--json", DOCKER_HOST="unix:///nowhere/docker.sock")
    found = told.json
    assert told.code == 7
    assert moves(found) == {"steady": ("not-run", "not-run"), "uptime": ("not-run", "not-run")}
    waits = [line for line in told.err.splitlines() if line.startswith("· waiting to try again: ")]
    assert len(waits) == sum(run.get("attempts", 1) for run in found["runs"]) - 1, "each attempt but the last"
    assert all(": no container engine answers at unix:///nowhere/docker.sock: " in line for line in waits)
    for run in found["runs"]:
        assert run["error"]["code"] == 7 and "no container engine answers" in run["error"]["what"]
    assert moves(night(recorded)) == {"steady": ("identical", "new"), "uptime": ("equivalent", "new")}


def test_an_engine_that_comes_back_is_waited_for(recorded: Recorded, engine: Engine) -> None:
    """The socket of the real engine, under a name that appears while the night waits for it."""
    suites(recorded, nightly={"select": ["job:steady"]})
    socket = recorded.root.parent / "later.sock"
    process = recorded.start("nightly", "--json", DOCKER_HOST=f"unix://{socket}")
    until(lambda: list((recorded.store / "nights").glob("*.lock")), "the night's begin")
    socket.symlink_to(engine.where.removeprefix("unix://"))
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, (out, err)
    assert moves(json.loads(out)) == {"steady": ("identical", "new")}


def test_a_night_that_is_interrupted_leaves_nothing_behind(workspace: Workspace, shell_image: str) -> None:
    job = {"command": '[ "$WAIT" = no ] || sleep 600', "secrets": {"WAIT": "env:WAIT"}}
    workspace.jobs(long=job | {"image": shell_image, "python": None, "outputs": []})
    workspace.run("long", WAIT="no")
    process = workspace.start("nightly", WAIT="yes")
    until(workspace.containers, "the replay")
    second = workspace.replay("nightly", "--json", WAIT="no")
    assert second.code == 2 and "going on" in second.json["error"]["what"]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert not workspace.containers()
    assert not list((workspace.store / "nights").glob("*/night.json"))
    assert workspace.replay("nightly", WAIT="no").code == 0


def test_an_interrupt_while_causes_are_looked_for_keeps_the_night(workspace: Workspace, shell_image: str) -> None:
    """Both ends of its bisect end at once, and what lies between them never."""
    waiting = 'case "$(cat src.txt)$MODE" in 1a|2b) cat src.txt;; *) sleep 600;; esac'
    job = {"command": waiting, "env": {"MODE": "a"}, "image": shell_image, "python": None, "outputs": ["stdout"]}
    workspace.write("src.txt", "1\n")
    workspace.jobs(waits=job)
    workspace.run("waits")
    workspace.write("src.txt", "2\n")
    process = workspace.start(
        "nightly", "--against", ".", "--set", "env.MODE=b", "--bisect", "--json", "--junit", "junit.xml"
    )
    until(lambda: list((workspace.store / "nights").glob("*/night.json")), "the end of the replays")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130 and b"warning: interrupted" in err, err
    found = json.loads(out)
    assert moves(found) == {"waits": ("diverged", "regressed")} and found["not_looked_at"] == ["causes"]
    assert any("no cause was looked for to an end" in line for line in found["runs"][0]["evidence"])
    assert workspace.replay("nights", found["night"], "--json").json == found
    assert "causes were not looked at" in (workspace.root / "junit.xml").read_text()
    assert not workspace.containers()


def test_a_strangers_runs_are_not_run_until_they_are_trusted(recorded: Recorded) -> None:
    """As on a machine of CI: it has recorded none of them and trusts no key."""
    suites(recorded, nightly={"select": ["job:steady", "job:fails"]})
    recorded.env["REPLAY_KEYS"] = str(recorded.root.parent / "keys-of-another")
    found = night(recorded, code=7)
    assert moves(found) == {"steady": ("not-run", "not-run"), "fails": ("not-run", "not-run")}
    for run in found["runs"]:
        assert run["error"]["code"] == 6 and "--trust" in run["error"]["next"] and "signed" in run["error"]["what"]
    assert moves(night(recorded, "--trust")) == {"steady": ("identical", "new"), "fails": ("identical", "new")}
    assert set(moves(night(recorded)).values()) == {("identical", "steady")}, "what was allowed once needs no more"


def test_a_report_that_cannot_be_written_is_told_before_the_night(recorded: Recorded) -> None:
    suites(recorded, nightly={"select": ["job:steady"]})
    recorded.write("taken", "a file\n")
    (recorded.root / "folder").mkdir()
    for arguments in (("--html", "taken"), ("--junit", "taken/j.xml"), ("--junit", "folder"), ("--html", "taken/page")):
        assert arguments[1].split("/")[0] in recorded.error("nightly", *arguments, code=7)["what"]
    assert not list((recorded.store / "nights").glob("*/night.json"))


def test_a_terminal_shows_that_a_night_is_at_work(recorded: Recorded) -> None:
    suites(recorded, nightly={"select": ["job:steady", "job:fails"]})
    code, shown = on_terminal(recorded, "nightly", term="xterm")
    assert code == 0 and "· 0 of 2 done; replaying " in shown and "· 1 of 2 done; replaying " in shown
    assert on_terminal(recorded, "nightly", "--quiet", term="xterm") == (0, "")


def test_a_night_is_printed_though_its_report_could_not_be_written(recorded: Recorded) -> None:
    spoil = {"on_regression": ["sh", "-c", "rm -r page && echo >page"]}
    suites(recorded, nightly={"select": ["job:where"]} | spoil)
    done = recorded.replay("nightly", "--html", "page", "--json")
    assert done.code == 1 and moves(done.json) == {"where": ("diverged", "regressed")}, done
    assert "warning: cannot write page" in done.err


def test_a_part_of_a_run_id_means_the_recorded_run_among_its_replays(recorded: Recorded) -> None:
    suites(recorded, nightly={"select": ["job:steady"]})
    night(recorded)
    varied = night(recorded, "--set", "env.MODE=test")["runs"][0]["replay"]
    run_id = recorded.ids["steady"]
    listed = recorded.replay("ls", "--job", "steady", "--json").json["runs"]
    assert len(listed) > 2 and varied in {row["run_id"] for row in listed}
    assert recorded.replay("show", "steady", "--json").json["spec"]["run"]["id"] == run_id
    assert recorded.replay("show", varied, "--json").json["spec"]["run"]["id"] == varied
    assert "fits several runs" in recorded.error("rm", "steady", code=2)["what"], "what is forgotten is named"
    assert recorded.run("steady")["run_id"] != run_id
    assert run_id in recorded.error("show", "steady", code=2)["why"]


def test_a_credential_that_changed_is_told_once(workspace: Workspace, shell_image: str) -> None:
    job = {"image": shell_image, "python": None, "command": "echo ${#API_KEY}", "outputs": ["stdout"]}
    workspace.jobs(asks=job | {"secrets": {"API_KEY": "env:API_KEY"}})
    workspace.run("asks", API_KEY="first secret")
    (run,) = night(workspace, code=1, API_KEY="another secret")["runs"]
    assert [line for line in run["evidence"] if "credential" in line] == ["access: API_KEY (the credential changed)"]


def test_what_policy_forbids_is_refused_and_what_nobody_allowed_was_not_tried() -> None:
    assert finding_of_error("run", RefusedError("no")).verdict == "refused"
    assert finding_of_error("run", ConsentError("not yet")).verdict == "not-run"


@pytest.mark.slow
def test_each_kind_of_regression_is_reported_as_what_it_is(packaged: Recorded, index: Index, shell_image: str) -> None:
    """Package, data, code, flaky, infrastructure, lost pin: all planted after a night."""
    for version in ("1.0", "2.0"):
        index.add(wheel("alpha", version, {"alpha.py": f"VALUE = 'alpha {version}'\n"}))
    pip = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index.url, "PIP_FIND_LINKS": "", "PIP_RETRIES": "0"}
    shell = {"image": shell_image, "python": None, "outputs": ["stdout"]}
    packaged.write("src.txt", "code\n")
    packaged.write("beside.txt", "code\n")
    packaged.write("lost.bin", "weights\n")
    packaged.write(".gitignore", ".replay\nd.csv\ne.csv\nlost.bin\n")
    packaged.write("e.csv", "a,b\n3,4\n")
    packaged.dvc("add", "e.csv")
    packaged.jobs(
        **json.loads((packaged.root / "replay.yaml").read_text())["jobs"],
        code=shell | {"command": "cat src.txt"},
        data=shell | {"command": "cat e.csv", "data": ["e.csv"]},
        flaky=shell | {"command": RANDOM},
        lost=shell | {"command": "cat lost.bin", "model": ["lost.bin"]},
        same=shell | {"command": "echo same"},
    )
    for name in ("code", "data", "flaky", "lost", "same"):
        packaged.ids[name] = packaged.run(name)["run_id"]
    first = moves(night(packaged, code=1))
    assert first.pop("flaky") == ("nondeterministic", "flaky") and set(first.values()) == {("identical", "new")}

    own = {"select": ["job:code", "job:same", "job:py"], "bisect": True}
    head, upgrade = own | {"against": "."}, own | {"set": ["dependencies=latest"]}
    suites(packaged, nightly={"patience": 1}, head=head, upgrade=upgrade)
    packaged.write("src.txt", "another code\n")
    packaged.write("beside.txt", "another code\n")
    lost = packaged.blob(packaged.spec("lost")["state"]["model"]["lost.bin"])
    lost.unlink()
    (packaged.root / "lost.bin").unlink()
    flip_bit(packaged.blob(packaged.spec("data")["state"]["data"]["e.csv"]))
    shutil.rmtree(packaged.store / "cache" / "views")

    told = night(packaged, code=5)
    assert {"lost.bin", "e.csv"} >= {pin["name"] for pin in told["pins"]} >= {"lost.bin"}
    plain = by_job(told)
    assert {job: (run["verdict"], run["moved"]) for job, run in plain.items()} == {
        "data": ("tampered", "regressed"),
        "lost": ("unrebuildable", "regressed"),
        "flaky": ("nondeterministic", "flaky"),
        "code": ("identical", "steady"),
        "py": ("identical", "steady"),
        "same": ("identical", "steady"),
    }
    assert "lost.bin" in plain["lost"]["error"]["what"]

    headed = by_job(night(packaged, "head", code=1))
    (cause,) = headed["code"]["cause"]
    assert (cause["layer"], headed["code"]["proven"], cause["inside"]) == ("code", True, "of it: src.txt")
    assert headed["same"]["moved"] == headed["py"]["moved"] == "new"

    upgraded = by_job(night(packaged, "upgrade", code=1, **pip))
    assert upgraded["py"]["cause"] == [{"layer": "dependencies", "name": "alpha", "a": "1.0", "b": "2.0"}]
    assert upgraded["py"]["proven"] and upgraded["code"]["moved"] == upgraded["same"]["moved"] == "new"

    away = night(packaged, code=7, DOCKER_HOST="unix:///nowhere/docker.sock")["runs"]
    assert {run["moved"] for run in away} == {"not-run"}
    assert {run["moved"] for run in night(packaged)["runs"]} == {"failing", "flaky", "steady"}, "nothing is new"
