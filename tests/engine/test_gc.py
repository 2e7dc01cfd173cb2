"""Collecting: what no run needs goes, what a kept or running one needs stays."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import until
from tests.engine.conftest import OwnImage, Recorded

pytestmark = pytest.mark.engine

NOTHING: dict[str, Any] = {"blobs": [], "paths": [], "bytes": 0, "removed": True}


def files(store: Path) -> set[str]:
    """Everything but locks and the index, which say nothing."""
    found = (str(path.relative_to(store)) for path in store.rglob("*") if path.is_file())
    return {name for name in found if not name.endswith((".lock", "/lock", "/gc", ".sqlite"))}


def collect(workspace: Recorded, *arguments: str) -> dict[str, Any]:
    done = workspace.replay("gc", "--json", *arguments)
    assert done.code == 0, done
    return done.json


def entries(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.is_dir() else []


def test_nothing_that_a_kept_run_needs_is_removed(packaged: Recorded) -> None:
    collect(packaged)  # what was added for the image's own sake
    before = files(packaged.store)
    found = collect(packaged)
    assert NOTHING.items() <= found.items()
    assert files(packaged.store) == before
    found = packaged.replayed(packaged.ids["py"])
    assert found["verdict"] == "identical"
    shutil.rmtree(packaged.store / "cache")
    collect(packaged)
    assert packaged.replayed(found["run_id"])["verdict"] == "identical", "without any cache too"


def test_a_forgotten_run_frees_what_only_it_needed(packaged: Recorded) -> None:
    cache = packaged.store / "cache"
    full = {name: entries(cache / name) for name in ("environments", "trees", "views")}
    assert all(full.values()) and entries(packaged.store / "locks") and entries(packaged.store / "images")
    removed = packaged.replay("rm", packaged.ids["py"], "--json").json
    assert removed == {"removed": [packaged.ids["py"]]}
    assert not packaged.spec_path(packaged.ids["py"]).exists()

    before = files(packaged.store)
    planned = collect(packaged, "--dry-run")
    assert files(packaged.store) == before and not planned["removed"] and planned["blobs"] and planned["bytes"]
    done = collect(packaged)
    assert done == planned | {"removed": True}
    assert {name: entries(cache / name) for name in full} == {name: [] for name in full}
    assert not entries(packaged.store / "locks") and not entries(packaged.store / "images")
    assert not [file for file in (packaged.store / "blobs").rglob("*") if file.is_file()]
    assert collect(packaged)["blobs"] == []


def test_one_of_two_runs_keeps_what_both_need(recorded: Recorded) -> None:
    again = recorded.replayed(recorded.ids["steady"])
    for name, run_id in recorded.ids.items():
        if name != "steady":
            assert recorded.replay("rm", run_id).code == 0
    assert recorded.replay("rm", again["run_id"]).code == 0
    assert collect(recorded)["blobs"], "outputs of the others"
    assert recorded.replayed(recorded.ids["steady"])["verdict"] == "identical"
    assert recorded.replay("outputs", recorded.ids["steady"], "--to", str(recorded.root / "to")).code == 0


def test_gc_while_a_job_runs(recorded: Recorded) -> None:
    """It goes ahead, and neither the running job nor its replay misses anything."""
    recorded.write("lib/code.txt", "another\n")
    wait = 'while [ "$HOW" = wait-for-stop ] && [ ! -e stop ]; do sleep 0.1; done'
    image = recorded.spec("steady")["observed"]["image"]["reference"]
    slow = {"command": f"cat lib/code.txt m.txt >r.txt; {wait}", "secrets": {"HOW": "env:HOW"}, "limits": {"time": 600}}
    recorded.jobs(slow=slow | {"image": image, "python": None, "outputs": ["r.txt"], "model": ["m.txt"]})
    assert recorded.replay("rm", *recorded.ids.values()).code == 0
    running = recorded.start("run", "slow", "--json", HOW="wait-for-stop")
    work = wait_for(recorded, "scratch/*/work/r.txt")
    assert recorded.replay("rm", "slow-").code == 2, "a running run cannot be forgotten"
    shown = recorded.replay("ls", "--status", "running", "--json").json["runs"]
    assert len(shown) == 1
    assert collect(recorded)["blobs"], "what the forgotten runs needed"
    (work.parent / "stop").touch()
    out, err = running.communicate(timeout=300)
    assert running.returncode == 0, err
    assert NOTHING.items() <= collect(recorded).items()
    run_id = shown[0]["run_id"]
    recorded.write("replay.yaml", "")
    recorded.forget_caches()
    assert recorded.replayed(run_id, HOW="go-on")["verdict"] == "identical", out


def test_what_is_being_replayed_is_not_forgotten(recorded: Recorded) -> None:
    """Its outputs are yet to be compared; forgotten and collected meanwhile, it would be called tampered with."""
    wait = 'while [ "$HOW" = wait-for-stop ] && [ ! -e stop ]; do sleep 0.1; done'
    image = recorded.spec("steady")["observed"]["image"]["reference"]
    command = f"cat /proc/sys/kernel/random/uuid >r.txt; {wait}"
    slow = {"command": command, "secrets": {"HOW": "env:HOW"}, "limits": {"time": 600}, "outputs": ["r.txt"]}
    recorded.jobs(slow=slow | {"image": image, "python": None})
    run_id = recorded.run("slow", HOW="go-on")["run_id"]
    replaying = recorded.start("replay", run_id, "--times", "1", "--json", HOW="wait-for-stop")
    work = wait_for(recorded, "scratch/*/work/r.txt")
    assert "being replayed" in recorded.error("rm", run_id, code=2)["what"]
    collect(recorded)
    (work.parent / "stop").touch()
    out, err = replaying.communicate(timeout=300)
    assert (replaying.returncode, json.loads(out)["verdict"]) == (1, "diverged"), err
    assert recorded.replay("rm", run_id).code == 0


def wait_for(recorded: Recorded, pattern: str) -> Path:
    def written() -> list[Path]:
        return [file for file in recorded.store.glob(pattern) if file.stat().st_size > 8]

    return until(written, pattern)[0]


def test_what_cannot_be_read_is_not_guessed(recorded: Recorded) -> None:
    """A spec that cannot be read may need anything, so nothing is collected until it is restored or forgotten."""
    recorded.replay("rm", recorded.ids["random"])
    run_id = recorded.ids["steady"]
    whole = recorded.spec_path(run_id).read_text()
    for text in ("state: [", whole.replace("MODE: prod", "MODE: x"), whole + "extra: 1\n"):
        recorded.spec_path(run_id).write_text(text)
        before = files(recorded.store)
        error = recorded.error("gc", code=5)
        assert run_id in error["what"] or run_id in error["why"], error
        assert files(recorded.store) == before
    listing = recorded.spec("where")["state"]["code"]
    recorded.spec_path(run_id).write_text(whole)
    content = recorded.blob(listing).read_bytes()
    recorded.blob(listing).chmod(0o644)
    recorded.blob(listing).unlink()
    recorded.blob(listing).write_bytes(content[:-1])
    assert listing in recorded.error("gc", code=5)["what"]
    recorded.blob(listing).write_bytes(content)
    assert collect(recorded)["blobs"]


def test_half_an_archive_waits_for_its_other_half(recorded: Recorded, own_image: OwnImage) -> None:
    recorded.jobs(own={"command": "cat /own", "image": own_image.tag, "python": None, "outputs": ["stdout"]})
    run_id = recorded.run("own")["run_id"]
    own_image.remove()
    (layer,) = own_image.identity.diff_ids
    kept = recorded.blob(layer).rename(recorded.root.parent / "layer")
    recorded.error("replay", run_id, code=3)
    assert collect(recorded)["blobs"] == []
    kept.rename(recorded.blob(layer))
    assert recorded.replayed(run_id)["verdict"] == "identical"


def test_left_overs_of_killed_commands_go(recorded: Recorded) -> None:
    for name in ("tmp/blob-x", "cache/tmp/stage/file", "scratch/gone-20260101-aaaaaa/work/file"):
        place = recorded.store / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("x")
    paths = collect(recorded)["paths"]
    assert paths == ["cache/tmp/stage", "scratch/gone-20260101-aaaaaa", "tmp/blob-x"]
    assert collect(recorded)["paths"] == []


def test_a_policy_forgets_what_no_rule_keeps_and_says_so_first(recorded: Recorded) -> None:
    replayed = recorded.replayed(recorded.ids["steady"])["run_id"]
    everything = {*recorded.ids.values(), replayed}
    planned = collect(recorded, "--keep", "label:prod", "--dry-run")
    assert set(planned["runs"]) == everything - {recorded.ids["steady"]} and not planned["removed"]
    assert all(recorded.spec_path(run_id).exists() for run_id in everything)

    created = recorded.replay("release", "create", "v1", recorded.ids["where"], "--reason", "x", "--accepted-by", "me")
    assert created.code == 0, created
    done = collect(recorded, "--keep", "label:prod")
    assert set(done["runs"]) == everything - {recorded.ids["steady"], recorded.ids["where"]}
    left = {path.name for path in (recorded.store / "runs").iterdir()}
    assert left == {recorded.ids["steady"], recorded.ids["where"]}
    assert recorded.replayed(recorded.ids["steady"])["verdict"] == "identical"
    for mistyped in ("lable:x", "label:prd"):
        assert recorded.replay("gc", "--keep", mistyped).code == 2
