"""Looking: `ls`, `show`, `logs`, `outputs`, `diff`, run-id abbreviations; each for people and as JSON."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import Index, Workspace, wheel
from tests.engine.conftest import JOBS, TOOL, Recorded

pytestmark = pytest.mark.engine


def ls(recorded: Recorded, *arguments: str) -> list[dict[str, Any]]:
    done = recorded.replay("ls", "--json", *arguments)
    assert done.code == 0, done
    rows: list[dict[str, Any]] = done.json["runs"]
    return rows


def ids(rows: list[dict[str, Any]]) -> set[str]:
    return {row["run_id"] for row in rows}


def changes(found: dict[str, Any]) -> dict[tuple[str, str], tuple[Any, Any]]:
    return {(c["layer"], c["name"]): (c.get("a"), c.get("b")) for c in found["changes"]}


# --- ls ------------------------------------------------------------------------------------------------------


def test_ls_filters_and_orders(recorded: Recorded) -> None:
    steady = recorded.ids["steady"]
    rows = ls(recorded)
    assert ids(rows) == set(recorded.ids.values())
    assert [(r["created"], r["run_id"]) for r in rows] == sorted(
        ((r["created"], r["run_id"]) for r in rows), reverse=True
    )
    assert ids(ls(recorded, "--job", "steady")) == ids(ls(recorded, "--label", "eu")) == {steady}
    assert ids(ls(recorded, "--status", "failed")) == {recorded.ids["fails"]}
    assert ids(ls(recorded, "--status", "ok", "--job", "where")) == {recorded.ids["where"]}
    for odd in (["--status", "fine"], ["--limit", "-1"]):
        assert recorded.replay("ls", *odd).code == 2
    digest = recorded.spec("steady")["digest"]
    assert ids(ls(recorded, "--state", digest)) == ids(ls(recorded, "--state", digest[7:19])) == {steady}
    assert len(ls(recorded, "-n", "2")) == 2 and len(ls(recorded, "-n", "0")) == len(JOBS)
    assert ls(recorded, "--job", "nothere") == []

    text = recorded.replay("ls", "-n", "2")
    assert text.out.startswith("RUN ") and len(text.out.splitlines()) == 3
    assert f"{len(JOBS) - 2} older runs" in text.err
    assert "no runs fit" in recorded.replay("ls", "--job", "nothere").err
    (recorded.store / "index.sqlite").write_bytes(b"no database")
    assert ls(recorded) == rows


def test_ls_shows_replays_and_what_was_cut_off(recorded: Recorded) -> None:
    replayed = recorded.replayed(recorded.ids["steady"])["run_id"]
    row = next(row for row in ls(recorded) if row["run_id"] == replayed)
    assert row["verdict"] == "identical" and row["replay_of"] == recorded.ids["steady"]
    assert ids(ls(recorded, "--status", "identical")) == {replayed}
    assert f"identical ({recorded.ids['steady']})" in recorded.replay("ls").out

    cut, broken = recorded.ids["random"], recorded.ids["where"]
    for place in (recorded.root / "state_specs" / f"{cut}.record.json", recorded.store / "runs" / cut / "record.json"):
        place.unlink()
    recorded.spec_path(broken).write_text("spec: 1\nspec: 1\n")
    (recorded.store / "index.sqlite").unlink()
    assert ids(ls(recorded, "--status", "interrupted")) == {cut}
    assert ids(ls(recorded, "--status", "unreadable")) == {broken}
    assert broken in recorded.replay("ls").out
    assert len(ls(recorded)) == len(JOBS) + 1


def test_where_there_is_nothing_to_see(recorded: Recorded, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    recorded.root = empty
    recorded.env.pop("REPLAY_STORE", None)
    assert "no store" in recorded.error("ls", code=2)["what"]
    assert not list(empty.iterdir())
    assert recorded.replay("ls", "--store", str(recorded.store)).code == 0


# --- run-ids -------------------------------------------------------------------------------------------------


def test_run_ids_may_be_cut(recorded: Recorded) -> None:
    run_id = recorded.ids["steady"]
    for part in (run_id, run_id[-6:], "steady", run_id[2:]):
        assert recorded.replay("show", part, "--json").json["run_id"] == run_id
    many = recorded.error("show", "20", code=2)  # of the year: midnight may come between runs
    assert "several" in many["what"] and many["next"]
    none = recorded.error("show", "nothere", code=2)
    assert "nothere" in none["what"] and "ls" in none["next"]
    assert recorded.error("nothere", code=2)["what"] == none["what"], "`replay X` is `replay replay X`"
    assert recorded.error("logs", "", code=2)
    by_path = recorded.replay("show", f"state_specs/{run_id}.yaml", "--json")
    assert by_path.json["run_id"] == run_id


# --- show, logs, outputs ---------------------------------------------------------------------------------------


def test_show(recorded: Recorded) -> None:
    found = recorded.replay("show", "steady", "--json").json
    assert found.keys() == {"run_id", "status", "signed", "spec", "record"} and found["status"] == "finished"
    assert found["spec"]["state"]["env"]["MODE"] == "prod"
    text = recorded.replay("show", "steady").out
    assert all(word in text for word in (recorded.ids["steady"], "out/tool.sh", "exited, exit 0", "m.txt"))
    failed = recorded.replay("show", "fails").out
    assert "exit 9" in failed and "never.txt: missing" in failed
    assert "also wrote (not declared, not kept)  only.txt" in recorded.replay("show", "random").out


def test_logs(recorded: Recorded) -> None:
    both = recorded.replay("logs", "steady")
    assert (both.out, both.err) == ("said\n", "hm\n")
    assert recorded.replay("logs", "steady", "--stream", "stderr").out == "hm\n"
    pieces = recorded.replay("logs", "steady", "--json").json["pieces"]
    assert sorted((p["stream"], p["text"]) for p in pieces) == [("stderr", "hm\n"), ("stdout", "said\n")]
    recorded.error("logs", "steady", "--stream", "nothere", code=2)
    shutil.rmtree(recorded.store / "runs" / recorded.ids["steady"])
    assert "no logs" in recorded.error("logs", "steady", code=2)["what"]


def test_outputs_are_copied_out_and_overwrite_nothing(recorded: Recorded, tmp_path: Path) -> None:
    listed = recorded.replay("outputs", "steady", "--json").json
    assert [o["path"] for o in listed["outputs"]] == ["out/a.txt", "out/tool.sh", "stdout"]
    assert all(o.keys() == {"path", "sha256", "size"} for o in listed["outputs"])
    to = tmp_path / "to"
    assert recorded.replay("outputs", "steady", "--to", str(to)).code == 0
    assert (to / "out" / "tool.sh").read_text() == TOOL
    assert os.access(to / "out" / "tool.sh", os.X_OK) and not (to / "out" / "a.txt").stat().st_mode & 0o111
    assert (to / "stdout").read_text() == "said\n"

    (to / "out" / "a.txt").write_text("mine")
    (to / "stdout").unlink()
    assert "there already" in recorded.error("outputs", "steady", "--to", str(to), code=2)["what"]
    assert (to / "out" / "a.txt").read_text() == "mine" and not (to / "stdout").exists()
    assert recorded.replay("outputs", "steady", "--to", str(to), "--force").code == 0
    assert (to / "out" / "a.txt").read_text() != "mine"

    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.rmtree(to / "out")
    (to / "out").symlink_to(outside)
    assert "link" in recorded.error("outputs", "steady", "--to", str(to), "--force", code=2)["what"]
    assert not list(outside.iterdir())
    blob = recorded.blob(listed["outputs"][0]["sha256"])
    kept = blob.stat()
    (tmp_path / "two").mkdir()
    assert recorded.replay("outputs", "steady", "--to", str(tmp_path / "two")).code == 0
    (tmp_path / "two" / "out" / "a.txt").write_text("changed by its owner")
    assert (blob.stat().st_size, blob.stat().st_mtime_ns) == (kept.st_size, kept.st_mtime_ns)
    for place in ("/dev/null/x", "/proc/x"):
        assert recorded.replay("outputs", recorded.ids["steady"], "--to", place).code == 7


GREY = "{ printf 'P5 9 1 255\\n'; date +%N; }"
"""An image of nine grey pixels, the digits of the nanosecond."""


def test_pictures_of_where_images_differ(recorded: Recorded, shell_image: str, tmp_path: Path) -> None:
    """Images by rule and by name, one that cannot be read, one that stays the same, a file that is no image."""
    command = f"mkdir out; {GREY} >out/plot.pgm; {GREY} >a.png; date +%N >no.png; echo 1 >same.png; date +%N >n.txt"
    outputs = {"out": "image", "a.png": "bytes", "no.png": "bytes", "same.png": "image", "n.txt": "text"}
    recorded.jobs(plots={"command": command, "image": shell_image, "python": None, "outputs": outputs})
    first = recorded.run("plots")["run_id"]
    said = recorded.replay(first)
    replay = recorded.replayed(first, code=1)["run_id"]
    assert " --differences DIR" in said.out, said

    to = tmp_path / "pictures"
    done = recorded.replay("outputs", replay, "--differences", str(to), "--json")
    assert done.code == 0, done
    found = {one["path"]: one for one in done.json["pictures"]}
    assert found.keys() == {"a.png", "no.png", "out/plot.pgm"}
    assert "original: not an image that is read here" in found["no.png"]["problem"]
    for path in ("a.png", "out/plot.pgm"):
        drawn = to / f"{path}.difference.png"
        assert found[path]["picture"] == str(drawn)
        with Image.open(drawn) as picture:
            assert (picture.size, picture.mode) == ((9, 1), "RGB")
    assert len([entry for entry in to.rglob("*") if entry.is_file()]) == 2

    assert "there already" in recorded.error("outputs", replay, "--differences", str(to), code=2)["what"]
    assert "picture   a.png" in recorded.replay("outputs", replay, "--differences", str(to), "--force").out
    assert "no original" in recorded.error("outputs", first, "--differences", str(to), code=2)["what"]
    again = recorded.replayed(recorded.ids["steady"])["run_id"]
    assert "no image differs" in recorded.replay("outputs", again, "--differences", str(to)).out


# --- diff --------------------------------------------------------------------------------------------------------


def test_diff_of_equal_states(recorded: Recorded) -> None:
    again = recorded.replayed(recorded.ids["steady"])["run_id"]
    done = recorded.replay("diff", recorded.ids["steady"], again, "--json")
    assert done.code == 0 and done.json["equal"] and done.json["changes"] == []
    assert done.json["diagnosis"] == {"kind": [], "evidence": [], "next": []} and done.json["contract"] == []
    assert recorded.replay("diff", recorded.ids["steady"], again).out.startswith("equal: ")


def test_diff_names_what_moved_layer_by_layer(recorded: Recorded) -> None:
    first = recorded.ids["steady"]
    recorded.write("lib/code.txt", "code 2\n")
    recorded.write("lib/more.txt", "more\n")
    recorded.write("m.txt", "model 2\n")
    recorded.write("p.yaml", "rate: 0.1\nnet: {depth: 5, width: 4, bias: true}\n")
    workfile = json.loads((recorded.root / "replay.yaml").read_text())
    job = workfile["jobs"]["steady"] | {"env": {"MODE": "test", "NEW": "1"}, "limits": {"memory": "512m"}}
    recorded.write("replay.yaml", json.dumps(workfile | {"jobs": {"steady": job}}))
    second = recorded.run("steady")["run_id"]
    done = recorded.replay("diff", first, second, "--json")
    assert done.code == 1
    found = done.json
    assert found.keys() >= {"a", "b", "equal", "changes", "diagnosis"}
    assert (found["a"], found["b"], found["equal"]) == (first, second, False)
    moved = changes(found)
    assert moved.pop(("params", "net.depth")) == ("3", "5")
    assert moved.pop(("params", "net.bias")) == (None, "true")
    assert moved.pop(("env", "MODE")) == ("prod", "test") and moved.pop(("env", "NEW")) == (None, "1")
    assert moved.pop(("access", "limits.memory")) == (None, str(512 << 20))
    assert {name for name, _ in moved} == {"code", "model"}
    assert set(moved) == {("code", "lib/code.txt"), ("code", "lib/more.txt"), ("model", "m.txt")}
    layers = [change["layer"] for change in found["changes"]]
    assert layers == sorted(
        layers, key=["code", "params", "image", "dependencies", "env", "data", "model", "access"].index
    )
    assert "execution state drift" in found["diagnosis"]["kind"] and found["diagnosis"]["evidence"]

    text = recorded.replay("diff", first, second)
    assert text.code == 1 and "net.depth" in text.out and "3 → 5" in text.out
    back = recorded.replay("diff", second, first, "--json").json
    assert {key: (b, a) for key, (a, b) in changes(found).items()} == changes(back)


def test_diff_says_how_the_outputs_differ(workspace: Workspace, shell_image: str) -> None:
    job = {"command": 'echo {\\"loss\\": $LOSS} >m.json; echo $LOSS >log', "image": shell_image, "python": None}
    job["outputs"] = {"m.json": {"compare": "json", "rtol": 0.1}, "log": "text"}
    runs = []
    for loss in ("1.0", "1.01", "2.0"):
        workspace.jobs(j=job | {"env": {"LOSS": loss}})
        runs.append(workspace.run("j")["run_id"])
    near, far = (workspace.replay("diff", runs[0], other, "--json").json["outputs"] for other in runs[1:])
    assert [one["name"] for one in near] == ["log", "m.json"]
    assert near[1]["detail"].startswith("equivalent: ") and "loss 1.0 became 2.0" in far[1]["detail"]
    assert "outputs that differ:\n" in workspace.replay("diff", runs[0], runs[2]).out


def test_diff_names_the_image_and_data(packaged: Recorded, shell_image: str) -> None:
    first = packaged.ids["py"]
    packaged.write("d.csv", "a,b\n9,9\n")
    packaged.dvc("add", "d.csv")
    packaged.jobs(py={"command": ["cat", "d.csv"], "image": shell_image, "python": None, "data": ["d.csv"]})
    second = packaged.run("py")["run_id"]
    moved = changes(packaged.replay("diff", first, second, "--json").json)
    assert ("data", "d.csv") in moved and ("image", "image") in moved and ("code", "command") in moved
    assert moved[("dependencies", "locked")] == ("locked wheels", "what the image holds")


def test_diff_shows_a_package_by_version_before_hashes(packaged: Recorded, index: Index) -> None:
    pip = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index.url, "PIP_FIND_LINKS": "", "PIP_RETRIES": "0"}
    index.add(wheel("alpha", "1.1", {"alpha.py": "VALUE = 'alpha 1.1'\n"}))
    second = packaged.run("py", "--relock", **pip)["run_id"]
    found = packaged.replay("diff", packaged.ids["py"], second, "--json").json
    assert changes(found) == {("dependencies", "alpha"): ("1.0", "1.1")}
    assert found["diagnosis"]["kind"] == ["execution state drift"]
    assert found["diagnosis"]["evidence"] == ["dependencies: alpha 1.0 → 1.1"]

    index.add(wheel("alpha", "1.1", {"alpha.py": "VALUE = 'other bytes'\n"}))
    third = packaged.run("py", "--relock", **pip)["run_id"]
    same_version = changes(packaged.replay("diff", second, third, "--json").json)
    before, after = same_version[("dependencies", "alpha")]
    assert before.startswith("1.1 sha256:") and after.startswith("1.1 sha256:") and before != after


def test_diff_trusts_no_edited_spec(recorded: Recorded) -> None:
    path = recorded.spec_path(recorded.ids["steady"])
    path.write_text(path.read_text().replace("reference: ", "reference: x"))
    recorded.error("diff", recorded.ids["steady"], recorded.ids["where"], code=5)
    recorded.error("show", recorded.ids["steady"], code=5)
