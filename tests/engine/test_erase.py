"""Erasing what a person has a right to have removed: it is gone here, stays gone, and the record still verifies."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Workspace
from tests.engine.test_nightly import night
from tests.engine.test_signed import reasons
from tests.engine.test_travel import make_team

pytestmark = pytest.mark.engine

JOB = {"command": ["sh", "-c", "{ cat in.txt; echo Jane Doe; } > out.txt; cat out.txt"], "outputs": ["out.txt"]}


@pytest.fixture
def signing(workspace: Workspace, shell_image: str) -> Workspace:
    workspace.write("in.txt", "hello\n")
    workspace.jobs(t=JOB | {"image": shell_image, "python": None})
    assert workspace.replay("keys", "init", "--plain").code == 0
    return workspace


def holding(folder: Path, text: str) -> list[str]:
    """Files of a folder with these words in them."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sorted(str(path.relative_to(folder)) for path in files if text.encode() in path.read_bytes())


def check(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in found["checks"] if one["name"] == name)


def test_an_erased_output_is_gone_and_its_record_still_verifies(signing: Workspace, tmp_path: Path) -> None:
    run_id = signing.run("t")["run_id"]
    planned = signing.replay("erase", run_id, "out.txt", "--dry-run", "--json")
    assert planned.code == 0 and planned.json["removed"] == [], planned
    assert signing.replay("verify", run_id).code == 0
    done = signing.replay("erase", run_id, "out.txt", "--reason", "asked for it", "--logs", "--json")
    assert done.code == 0 and done.json["runs"] == [run_id], done
    (digest,) = {one["sha256"] for one in done.json["erased"] if one["path"] == "out.txt"}
    assert not signing.blob(digest).exists()
    assert not (signing.store / "runs" / run_id / "stdout").exists()
    assert (signing.store / "runs" / run_id / "stderr").exists(), "it is empty: nothing of it to erase"
    assert signing.replay("logs", run_id).code == 0

    found = signing.replay("verify", run_id, "--json")
    assert found.code == 0 and found.json["verified"], found
    assert check(found.json, "outputs")["reason"] == check(found.json, "logs")["reason"] == "erased-by-tombstone"
    assert "asked for it" in check(found.json, "outputs")["detail"]
    for command in (("fsck",), ("gc",), ("fsck",)):
        assert signing.replay(*command, "--json").code == 0, command
    listed = signing.replay("outputs", run_id, "--to", str(tmp_path / "copied"))
    assert listed.code == 0 and "out.txt was erased on" in listed.err and not (tmp_path / "copied/out.txt").exists()
    (told,) = signing.replay("outputs", run_id, "--json").json["outputs"]
    assert "asked for it" in told["erased"] and told["erased"] in signing.replay("outputs", run_id).out
    again = signing.replay("erase", run_id, "out.txt", "--reason", "asked for it", "--json")
    assert again.code == 0 and again.json["removed"] == [], again

    bundle = tmp_path / "b.replay.tar"
    assert signing.replay("bundle", run_id, "--to", str(bundle)).code == 0
    assert signing.replay("verify", str(bundle), "--json").code == 0
    (key,) = (signing.root / "state_specs" / "keys").iterdir()
    signing.env["REPLAY_KEYS"] = str(tmp_path / "elsewhere")
    found = signing.replay("verify", str(bundle), "--json")
    assert reasons(found.json)["outputs"] == "missing-blob"
    assert signing.replay("verify", str(bundle), "--key", str(key)).code == 0


def test_what_was_erased_stays_so(signing: Workspace, shell_image: str) -> None:
    """A replay gives it again, is compared by its digest, and does not keep it."""
    signing.write("make.sh", 'printf "%s %s\\n" Jane Doe')
    signing.jobs(
        t={
            "command": ["sh", "-c", "sh make.sh > out.txt; cat out.txt"],
            "image": shell_image,
            "python": None,
            "outputs": ["out.txt", "stdout"],
        }
    )
    run_id = signing.run("t")["run_id"]
    assert signing.replay("erase", run_id, "out.txt", "--reason", "asked").code == 0
    assert holding(signing.store / "blobs", "Jane Doe\n") == []
    done = signing.replay(run_id, "--json")
    assert done.code == 0 and done.json["verdict"] == "identical", done
    assert "it is not kept again" in done.err
    assert holding(signing.store, "Jane Doe\n") == []
    assert signing.replay("verify", done.json["run_id"], "--json").code == 0
    assert signing.replay("fsck").code == 0
    crate = signing.root / "crate"
    assert signing.replay("export", run_id, "--crate", str(crate)).code == 0
    assert "erased on" in (crate / "ro-crate-metadata.json").read_text() and not (crate / "outputs/out.txt").exists()


@pytest.mark.parametrize(("rule", "verdict", "code"), [("bytes", "diverged", 1), ("json", "unrebuildable", 3)])
def test_other_bytes_than_the_erased_ones_cannot_be_held_to_a_tolerance(
    signing: Workspace, shell_image: str, rule: str, verdict: str, code: int
) -> None:
    job = {"command": "read up idle </proc/uptime; echo $up >m.json", "image": shell_image, "python": None}
    signing.jobs(t=job | {"outputs": {"m.json": {"compare": rule} | ({"rtol": 0.5} if rule == "json" else {})}})
    run_id = signing.run("t")["run_id"]
    assert signing.replay("erase", run_id, "m.json", "--reason", "asked").code == 0
    done = signing.replay(run_id, "--times", "1", "--json")
    assert done.code == code and done.json["verdict"] == verdict, done
    assert "erased on" in done.json["outputs"][0]["detail"]


def test_erased_data_is_gone_with_all_that_was_made_of_it(signing: Workspace, shell_image: str) -> None:
    signing.git("init", "-q")
    signing.dvc("init")
    table = "name,street\n" + "".join(f"Jane Doe {n},Elm Street\n" for n in range(20))
    signing.write("d/people.csv", table)
    signing.write("d/other.csv", "a\n1\n")
    signing.dvc("add", "d")
    command = "while read -r line; do :; done <d/people.csv; echo done > out.txt"
    job = {"image": shell_image, "python": None, "outputs": ["out.txt"]}
    signing.jobs(t=job | {"command": command, "data": ["d"]}, u=job | {"command": "echo 1 >out.txt"})
    run_id, other = signing.run("t")["run_id"], signing.run("u")["run_id"]
    assert {run["moved"] for run in night(signing)["runs"]} == {"new"}
    shutil.rmtree(signing.root / "d")
    assert holding(signing.store, "Jane Doe") and holding(signing.root / ".dvc", "Jane Doe")
    done = signing.replay("erase", run_id, "d/people.csv", "--reason", "asked", "--json")
    assert done.code == 0, done
    assert {one["path"] for one in done.json["erased"]} == {"d/people.csv", "the profile of d/people.csv"}
    assert holding(signing.root, "Jane Doe") == [], "store, views, profiles, DVC's cache"

    found = signing.replay("verify", run_id, "--json")
    assert found.code == 0 and check(found.json, "blobs")["reason"] == "erased-by-tombstone", found
    assert signing.replay("fsck").code == 0
    (data,) = (pin for pin in signing.replay("pins", "--json").json["pins"] if pin["kind"] == "data")
    assert (data["state"], data["places"]) == ("erased", ["store"])
    told = signing.replay("pins")
    assert told.code == 0 and "erased" in told.out and " 0 lost" in told.out, told
    done = signing.replay(run_id, "--json")
    assert done.code == 3 and done.json["verdict"] == "unrebuildable", done
    assert "was erased" in done.json["error"]["what"] and "asked" in done.json["error"]["why"]
    planned = signing.replay(run_id, "--dry-run")
    assert planned.code == 3 and "it was erased on purpose" in planned.out
    for gone in ([run_id], []):
        after = night(signing)
        assert [run["run_id"] for run in after["runs"]] == [other] and after.get("gone", []) == gone, after

    signing.write("d/people.csv", table)
    signing.write("d/other.csv", "a\n1\n")
    signing.dvc("add", "d")
    again = signing.replay("run", "t", "--json")
    assert again.code == 6 and "what was erased here" in again.json["error"]["what"], again
    assert holding(signing.store, "Jane Doe") == []


def test_either_copy_of_a_tombstone_will_do_and_none_will_not(signing: Workspace) -> None:
    run_id = signing.run("t")["run_id"]
    assert signing.replay("erase", run_id, "out.txt", "--reason", "asked").code == 0
    shutil.rmtree(signing.store / "erased")
    assert signing.replay("verify", run_id).code == 0, "the copy in state_specs/ tells it too"
    shutil.rmtree(signing.root / "state_specs" / "erased")
    assert reasons(signing.replay("verify", run_id, "--json").json) == {
        "outputs": "missing-blob",
        "logs": "missing-log",
    }


def test_what_cannot_be_erased_is_said(signing: Workspace, shell_image: str) -> None:
    signing.jobs(t=JOB | {"command": "cat in.txt > out.txt", "image": shell_image, "python": None})
    run_id = signing.run("t")["run_id"]
    for words, code, said in (
        ((run_id, "never.txt"), 2, "has no output and no data"),
        (("sha256:" + "0" * 64,), 2, "no run has"),
        ((run_id,), 2, "erase what?"),
        ((run_id, "out.txt"), 6, "is code in.txt of"),
    ):
        done = signing.replay("erase", *words, "--reason", "asked", "--json")
        assert done.code == code and said in done.json["error"]["what"], done
    assert "why" in signing.replay("erase", run_id, "out.txt", "--json").json["error"]["what"]
    signing.env["REPLAY_KEYS"] = str(signing.root.parent / "none")
    assert "no signing key" in signing.replay("erase", run_id, "out.txt", "--reason", "x").err


def test_what_was_erased_does_not_travel(shell_image: str, tmp_path: Path) -> None:
    """Neither is it asked for where it is gone, nor brought back from a remote that still has it."""
    team = make_team(tmp_path / "work", shell_image, str(tmp_path / "remote"))
    assert team.replay("keys", "init", "--plain").code == 0
    assert team.replay("sign", team.id).code == 0
    assert team.replay("push").code == 0
    shutil.rmtree(team.root / "data")
    for name in ("out.txt", "data/b.csv"):
        done = team.replay("erase", team.id, name, "--reason", "asked", "--json")
        assert done.code == 0, done
    gone = [one["sha256"] for one in done.json["erased"]]
    assert team.replay("push", "--json").code == 0, "what was erased is not lacking"
    assert team.replay("status", "--json").json["pull"]["blobs"] == 0, "nor to be pulled"
    team.commit("erased")
    there = team.clone(tmp_path / "there")
    done = there.replay("pull", "--json")
    assert done.code == 0 and done.json.get("lacking", []) == [], done
    assert not any(there.blob(digest).exists() for digest in gone)
    found = there.replay("verify", team.id, "--json")
    assert {check(found.json, name)["reason"] for name in ("outputs", "blobs")} == {"erased-by-tombstone"}, found
    done = there.replay(team.id, "--json")
    assert done.code == 3 and "was erased" in done.json["error"]["what"], done


def test_trials_of_a_bisect_keep_nothing_that_was_erased(signing: Workspace, shell_image: str) -> None:
    command = 'cat in.txt >log.txt; [ "$MODE" = new ] && echo Jane Doe >>log.txt; echo "$MODE" >mode.txt'
    ends = []
    for mode in ("old", "new"):
        env = {"MODE": mode, "OTHER": mode}
        job = JOB | {"image": shell_image, "python": None, "command": command, "env": env}
        signing.jobs(t=job | {"outputs": ["log.txt", "mode.txt"]})
        ends.append(signing.run("t")["run_id"])
    assert signing.replay("erase", ends[1], "log.txt", "--reason", "asked for it").code == 0
    found = signing.replay("bisect", *ends, "--output", "mode.txt", "--json")
    assert found.code == 0 and [one["name"] for one in found.json["cause"]] == ["MODE"], found
    assert not holding(signing.store / "blobs", "Jane Doe")
