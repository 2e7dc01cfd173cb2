"""Replay: from the record alone, whatever has become of the surroundings; and the verdict over what came of it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.environment import seal
from tests.conftest import Workspace, absent, flip_bit, until
from tests.engine.conftest import OwnImage, Recorded

pytestmark = pytest.mark.engine


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    return {one["path"]: one["verdict"] for one in found["outputs"]}


def details(found: dict[str, Any]) -> str:
    return " ".join(one["detail"] for one in found["outputs"])


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.lstat().st_mtime_ns, p.lstat().st_ino) for p in folder.rglob("*") if p.name != "lock"}


# --- from the record alone ----------------------------------------------------------------------------------


def test_an_empty_directory_with_only_the_store_is_enough(recorded: Recorded, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    elsewhere = Workspace(empty, recorded.store)
    first = elsewhere.replay(recorded.ids["steady"], "--json").json
    assert first["verdict"] == "identical" and first["replay_of"] == recorded.ids["steady"]
    assert first.keys() >= {"replay_of", "run_id", "verdict", "state_digest", "outputs", "duration_s"}
    assert verdicts(first) == dict.fromkeys(("out/a.txt", "out/tool.sh", "stdout"), "identical")
    assert first["state_digest"] == recorded.spec("steady")["digest"]
    assert not list(empty.iterdir()), "a folder that is no workspace gets no files"

    again = elsewhere.replay("replay", first["run_id"], "--json").json
    assert again["verdict"] == "identical" and again["replay_of"] == first["run_id"]
    assert again["state_digest"] == first["state_digest"]


def test_a_spec_is_replayed_by_its_path_and_is_the_file_that_counts(recorded: Recorded, tmp_path: Path) -> None:
    run_id = recorded.ids["steady"]
    empty = tmp_path / "empty"
    empty.mkdir()
    copied = shutil.copy(recorded.spec_path(run_id), empty / "another name.yaml")
    elsewhere = Workspace(empty, recorded.store)
    assert elsewhere.replay(str(copied), "--json").json["verdict"] == "identical"

    copied.write_text(copied.read_text().replace("compare: text", "compare: json"))
    edited = elsewhere.replay(str(copied), "--json")
    assert edited.code == 5, edited
    assert str(copied) in edited.json["error"]["what"]


def test_the_live_tree_may_be_edited_or_gone(recorded: Recorded) -> None:
    recorded.write("lib/code.txt", "edited\n")
    recorded.write("p.yaml", "rate: 0.2\n")
    recorded.write("new.txt", "new\n")
    recorded.write("replay.yaml", "jobs: [")
    for name in ("m.txt", "tool.sh"):
        (recorded.root / name).unlink()
    assert recorded.replayed(recorded.ids["steady"])["verdict"] == "identical"


def test_packages_and_data_come_from_the_store(packaged: Recorded) -> None:
    """The index is gone already. The data, DVC's cache and DVC itself go too."""
    shutil.rmtree(packaged.root / ".dvc")
    for name in ("d.csv", "d.csv.dvc", "requirements.in", "code.txt"):
        (packaged.root / name).unlink()
    unreachable = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "HTTPS_PROXY": "http://127.0.0.1:9"}
    found = packaged.replayed(packaged.ids["py"], **unreachable)
    assert found["verdict"] == "identical", found


def test_an_image_that_is_gone_comes_back_from_the_archive(
    recorded: Recorded, own_image: OwnImage, shell_image: str
) -> None:
    recorded.jobs(own={"command": "cat /own", "image": own_image.tag, "python": None, "outputs": ["stdout"]})
    recorded.ids |= {"own": recorded.run("own")["run_id"]}
    own_image.move_tag(shell_image)
    assert recorded.replayed(recorded.ids["own"])["verdict"] == "identical", "the tag names other content now"

    own_image.remove()
    assert not own_image.present()
    assert recorded.replayed(recorded.ids["own"])["verdict"] == "identical"
    assert own_image.present()

    own_image.remove()
    own_image.make(f"{own_image.name}:2")
    assert recorded.replayed(recorded.ids["own"])["verdict"] == "identical", "the same layers under another id"


def test_a_dry_run_prints_the_plan_and_does_nothing(recorded: Recorded) -> None:
    recorded.forget_caches()
    (recorded.store / "cache").mkdir()
    before = everything(recorded.root)
    found = recorded.replayed(recorded.ids["steady"], "--dry-run")
    assert found["possible"] and {s["layer"] for s in found["steps"]} == {"image", "dependencies", "code", "model"}
    shown = recorded.replay(recorded.ids["steady"], "--dry-run")
    assert shown.code == 0 and "m.txt: make a view from the store" in shown.out
    assert everything(recorded.root) == before

    recorded.blob(recorded.spec("steady")["state"]["model"]["m.txt"]).unlink()
    shown = recorded.replay(recorded.ids["steady"], "--dry-run")
    assert shown.code == 3 and "MISSING: m.txt" in shown.out
    assert not recorded.replayed(recorded.ids["steady"], "--dry-run", code=3)["possible"]


# --- verdicts ------------------------------------------------------------------------------------------------


def test_equivalent_says_within_which_tolerance(recorded: Recorded) -> None:
    found = recorded.replayed(recorded.ids["uptime"])
    assert found["verdict"] == "equivalent" and "0.5" in details(found), found
    shown = recorded.replay("ls", "--status", "equivalent", "--json").json["runs"]
    assert [row["run_id"] for row in shown] == [found["run_id"]]


def test_nondeterministic_names_the_outputs_that_are(recorded: Recorded) -> None:
    done = recorded.replay(recorded.ids["random"])
    assert done.code == 1 and done.out.startswith("NONDETERMINISTIC"), done
    assert "(2 replays)" in done.out, "a difference is looked at once more"
    found = recorded.replayed(recorded.ids["random"], "--times", "3", code=1)
    assert verdicts(found) == {"r.txt": "nondeterministic", "s.txt": "identical"}
    assert "replays 1 and 2 disagree" in details(found) and len(found["replays"]) == 3
    once = recorded.replayed(recorded.ids["random"], "--times", "1", code=1)
    assert verdicts(once)["r.txt"] == "diverged", "one replay cannot tell"
    assert len(recorded.replayed(recorded.ids["steady"], "--times", "2")["replays"]) == 2


def test_diverged_is_another_result_that_repeats(recorded: Recorded) -> None:
    """The job writes down where on the host its model is; in a copy of the store that is elsewhere."""
    found = recorded.replayed(recorded.ids["where"], code=1)
    assert found["verdict"] == "diverged", found
    assert verdicts(found) == {"s.txt": "identical", "where.txt": "diverged"}
    assert len(found["replays"]) == 2 and "template" in details(found)
    again = recorded.replayed(found["run_id"])
    assert again["verdict"] == "identical", "a replay of the replay has the same surroundings"


def test_failed_is_another_exit_status(recorded: Recorded) -> None:
    found = recorded.replayed(recorded.ids["exits"], code=4)
    assert found["verdict"] == "failed" and any("exited 3" in note for note in found["notes"]), found
    same = recorded.replayed(recorded.ids["fails"])
    assert same["verdict"] == "identical", "failing as it did then is the same result"
    assert "missing" in details(same)


def test_an_unfinished_run_has_nothing_to_compare_with(recorded: Recorded) -> None:
    run_id = recorded.ids["steady"]
    for place in (
        recorded.store / "runs" / run_id / "record.json",
        recorded.spec_path(run_id).with_suffix(".record.json"),
    ):
        place.unlink()
    assert "never finished" in recorded.error("replay", run_id, code=2)["what"]


class Service:
    """An HTTP server in a container of its own; `page` sets what it serves."""

    def __init__(self, container: Any, folder: Path) -> None:
        self._folder = folder
        wrapped = container.get_wrapped_container()
        wrapped.reload()
        networks = wrapped.attrs["NetworkSettings"]["Networks"]
        self.url = f"http://{next(iter(networks.values()))['IPAddress']}:8000/page"

    def page(self, text: str) -> None:
        (self._folder / "page").write_text(text)

    def wait(self) -> None:
        import urllib.request

        def answers() -> bool:
            try:
                urllib.request.build_opener(urllib.request.ProxyHandler({})).open(self.url, timeout=30).close()
            except OSError:
                return False
            return True

        self.page("ready")
        until(answers, self.url)


def test_a_service_outside_makes_it_diverge(python_workspace: Workspace, service: Service) -> None:
    """A job with an open network reads a page that changes between record and replay, and stays so."""
    python_workspace.jobs(
        net={
            "command": ["python3", "-c", "import urllib.request as u; print(u.urlopen(input_url()).read().decode())"],
            "image": python_workspace.image,  # type: ignore[attr-defined]
            "outputs": ["stdout"],
            "network": "open",
            "env": {"URL": service.url},
        }
    )
    text = (python_workspace.root / "replay.yaml").read_text()
    python_workspace.write("replay.yaml", text.replace("input_url()", "__import__('os').environ['URL']"))
    service.page("one")
    run_id = python_workspace.run("net")["run_id"]
    found = python_workspace.replay(run_id, "--json").json
    assert found["verdict"] == "identical" and any("network is open" in note for note in found["notes"])
    service.page("two")
    done = python_workspace.replay(run_id, "--json")
    assert done.code == 1 and done.json["verdict"] == "diverged" and "two" in details(done.json), done


@pytest.fixture
def service(python311: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("TESTCONTAINERS_RYUK_DISABLED", "true")
    from docker.errors import APIError
    from testcontainers.core.config import testcontainers_config
    from testcontainers.core.container import DockerContainer

    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", True)
    folder = tmp_path / "served"
    folder.mkdir(mode=0o755)
    container = DockerContainer(python311).with_command("python3 -m http.server 8000 --directory /served")
    container = container.with_volume_mapping(str(folder), "/served", "ro")
    try:
        container.start()
    except APIError as error:
        container.stop()
        if "bridge" not in str(error):
            raise
        raise absent(f"the engine's own bridge does not work: {error}") from error
    try:
        made = Service(container, folder)
        made.wait()
        yield made
    finally:
        container.stop()


# --- tampered --------------------------------------------------------------------------------------------------


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text, text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("MODE: prod", "MODE: test"),
        ("reference: ", "reference: x"),
        ("compare: text", "compare: json"),
        ("prod\n", "tst\n"),
    ],
    ids=["state", "observed", "contract", "labels"],
)
@pytest.mark.parametrize("place", ["state_specs", "store"])
def test_a_hand_edited_spec_is_found_out(recorded: Recorded, old: str, new: str, place: str) -> None:
    run_id = recorded.ids["steady"]
    in_store = recorded.store / "runs" / run_id / "spec.yaml"
    edit(recorded.spec_path(run_id) if place == "state_specs" else in_store, old, new)
    recorded.error("replay", run_id, code=5)
    if place == "store":
        shutil.rmtree(recorded.root / "state_specs")
        recorded.error("replay", run_id, code=5)


def test_an_edited_record_is_found_out(recorded: Recorded) -> None:
    run_id = recorded.ids["where"]
    reviewed = recorded.root / "state_specs" / f"{run_id}.record.json"
    kept = recorded.store / "runs" / run_id / "record.json"
    whole = kept.read_text()
    output = next(o["sha256"] for o in json.loads(whole)["outputs"] if o["path"] == "where.txt")
    for file in (reviewed, kept):
        edit(file, output, "sha256:" + "0" * 64)
        recorded.error("replay", run_id, code=5)
    recorded.error("replay", run_id, code=5)  # both say the same, of an output that was never kept

    for file in (reviewed, kept):
        file.write_text(whole.replace(json.loads(whole)["spec_sha256"], "sha256:" + "1" * 64))
    recorded.error("replay", run_id, code=5)
    kept.write_text(whole)
    reviewed.write_text(whole[: len(whole) // 2])
    recorded.error("replay", run_id, code=5)


def code_digests(recorded: Recorded) -> dict[str, str]:
    listing = recorded.blob(recorded.spec("steady")["state"]["code"]).read_bytes()
    return {path: digest for path, _, digest in json.loads(listing)}


def test_a_flipped_bit_is_never_identical(recorded: Recorded) -> None:
    """In the code, its list, the params, the model: the replay stops before it has run."""
    state = recorded.spec("steady")["state"]
    recorded.forget_caches()
    runs = len(list((recorded.store / "runs").iterdir()))
    for digest in (
        state["code"],
        code_digests(recorded)["lib/code.txt"],
        state["params"]["sha256"],
        state["model"]["m.txt"],
    ):
        whole = recorded.blob(digest).read_bytes()
        flip_bit(recorded.blob(digest))
        assert digest in recorded.error("replay", recorded.ids["steady"], code=5)["what"]
        recorded.blob(digest).unlink()
        recorded.blob(digest).write_bytes(whole)
    assert len(list((recorded.store / "runs").iterdir())) == runs, "what could not start leaves no run"
    assert recorded.replayed(recorded.ids["steady"])["verdict"] == "identical"


def test_a_flipped_bit_in_a_recorded_output(recorded: Recorded) -> None:
    """Equal digests need no blob. A difference cannot be judged without it, nor can it be handed out."""
    outputs = {
        o["path"]: o["sha256"] for o in recorded.replay("outputs", recorded.ids["where"], "--json").json["outputs"]
    }
    flip_bit(recorded.blob(outputs["where.txt"]))
    assert outputs["where.txt"] in recorded.error("replay", recorded.ids["where"], code=5)["what"]
    recorded.error("outputs", recorded.ids["where"], "--to", str(recorded.root / "to"), code=5)


def test_a_changed_view_is_noticed_and_made_anew(recorded: Recorded) -> None:
    run_id = recorded.ids["steady"]
    (view,) = [file for file in (recorded.store / "cache" / "views").rglob("file") if file.is_file()]
    flip_bit(view)
    assert recorded.spec("steady")["state"]["model"]["m.txt"][:19] in recorded.error("replay", run_id, code=5)["why"]
    assert recorded.replayed(run_id)["verdict"] == "identical", "the next use makes it anew"


def test_a_changed_environment_is_noticed_and_made_anew(packaged: Recorded) -> None:
    (module,) = (packaged.store / "cache" / "environments").rglob("alpha.py")
    module.unlink()
    module.write_text("VALUE = 'alpha 6.6'\n")
    assert "alpha.py" in packaged.error("replay", packaged.ids["py"], code=5)["why"]
    assert packaged.replayed(packaged.ids["py"])["verdict"] == "identical"


def test_a_damaged_or_lost_wheel(packaged: Recorded) -> None:
    (locked,) = packaged.spec("py")["state"]["dependencies"]["locked"]
    for folder in ("environments", "trees"):
        shutil.rmtree(packaged.store / "cache" / folder)
    blob = packaged.blob(locked["sha256"])
    flip_bit(blob)
    assert locked["sha256"] in packaged.error("replay", packaged.ids["py"], code=5)["what"]
    blob.unlink()
    error = packaged.error("replay", packaged.ids["py"], code=3)
    assert locked["wheel"] in error["what"] and "no index" in error["why"] and error["next"]
    assert not packaged.replayed(packaged.ids["py"], "--dry-run", code=3)["possible"]


def test_damage_that_the_stamps_miss_is_found_before_diverged(packaged: Recorded) -> None:
    """Bytes changed behind the file system's back: same inode, size and times, so only hashing tells."""
    (module,) = (packaged.store / "cache" / "environments").rglob("alpha.py")
    (byte_code,) = (packaged.store / "cache" / "environments").rglob("alpha.*.pyc")
    root = module.parents[3]
    for file in (module, byte_code):
        before = file.stat()
        with file.open("r+b") as opened:
            opened.write(file.read_bytes().replace(b"alpha 1.0", b"alpha 1.9"))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    restamp(root, [module, byte_code])
    error = packaged.error("replay", packaged.ids["py"], code=5)
    assert "alpha" in error["why"], error
    assert packaged.replayed(packaged.ids["py"])["verdict"] == "identical"


def restamp(root: Path, files: list[Path]) -> None:
    now, _ = seal.survey(root)
    changed = {name: now[name] for name in (str(file.relative_to(root)) for file in files)}
    seal.write_stamps(root.parent, seal.read_stamps(root.parent) | changed)


# --- unrebuildable ---------------------------------------------------------------------------------------------


def test_lost_code_and_models_are_named(recorded: Recorded) -> None:
    state = recorded.spec("steady")["state"]
    recorded.forget_caches()
    (recorded.root / "tool.sh").unlink()  # or it would be taken from there
    lost = {state["code"]: "code", code_digests(recorded)["tool.sh"]: "code", state["model"]["m.txt"]: "m.txt"}
    for digest, named in lost.items():
        whole = recorded.blob(digest).read_bytes()
        recorded.blob(digest).unlink()
        error = recorded.error("replay", recorded.ids["steady"], code=3)
        assert named in error["what"] and "store" in error["why"] and error["next"], error
        recorded.blob(digest).write_bytes(whole)
    assert recorded.replay("ls", "--status", "interrupted", "--json").json["runs"] == []


def test_a_lost_wheel_is_said_to_be_mended_by_what_mends_it(packaged: Recorded) -> None:
    (wheel, *_) = packaged.spec("py")["state"]["dependencies"]["locked"]
    packaged.forget_caches()
    packaged.blob(wheel["sha256"]).unlink()
    error = packaged.error("replay", packaged.ids["py"], code=3)
    assert wheel["wheel"] in error["what"] and "`replay fsck --repair`" in error["next"], error


def test_a_lost_image_names_the_places_tried(recorded: Recorded, own_image: OwnImage) -> None:
    recorded.jobs(own={"command": "cat /own", "image": own_image.tag, "python": None, "outputs": ["stdout"]})
    run_id = recorded.run("own")["run_id"]
    layer = own_image.identity.diff_ids[0]
    own_image.remove()
    flip_bit(recorded.blob(layer))
    assert layer in recorded.error("replay", run_id, code=5)["what"]
    recorded.blob(layer).unlink()
    error = recorded.error("replay", run_id, code=3)
    assert "image" in error["what"] and "no copy" in error["why"] and error["next"]
    assert not recorded.replayed(run_id, "--dry-run", code=3)["possible"]


def test_lost_data_is_fetched_by_the_recorded_pin(packaged: Recorded) -> None:
    """The store lost it, the workspace has moved on to another version; DVC's remote still has it."""
    digest = packaged.spec("py")["state"]["data"]["d.csv"]
    remote = packaged.root.parent / "remote"
    packaged.dvc("remote", "add", "-d", "origin", str(remote))
    packaged.dvc("push")
    packaged.write("d.csv", "a,b\n3,4\n")
    packaged.dvc("add", "d.csv")
    shutil.rmtree(packaged.store / "cache" / "views")
    packaged.blob(digest).unlink()
    shutil.rmtree(packaged.root / ".dvc" / "cache")
    assert packaged.replayed(packaged.ids["py"])["verdict"] == "identical"


def test_lost_data_that_dvc_cannot_give_or_gives_wrong(packaged: Recorded) -> None:
    digest = packaged.spec("py")["state"]["data"]["d.csv"]
    shutil.rmtree(packaged.store / "cache" / "views")
    packaged.blob(digest).unlink()
    (cached,) = (file for file in (packaged.root / ".dvc" / "cache").rglob("*") if file.is_file())
    cached.chmod(0o644)
    flip_bit(cached)
    assert str(cached) in packaged.error("replay", packaged.ids["py"], code=5)["why"], "dvc hands it out with exit 0"
    cached.unlink()
    error = packaged.error("replay", packaged.ids["py"], code=3)
    assert "d.csv" in error["what"] and digest in error["what"] and "store" in error["why"] and error["next"], error
    shutil.rmtree(packaged.root / ".dvc")
    assert "no DVC repository" in packaged.error("replay", packaged.ids["py"], code=3)["why"]


def test_a_view_without_its_blob_is_no_crash(recorded: Recorded) -> None:
    recorded.blob(recorded.spec("steady")["state"]["model"]["m.txt"]).unlink()
    recorded.error("replay", recorded.ids["steady"], code=3)


# --- caches ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parts", [["environments", "views", "stat"], ["trees", "probes", "versions"], ["", "../index.sqlite"]]
)
def test_deleting_caches_costs_time_only(packaged: Recorded, parts: list[str]) -> None:
    for part in parts:
        place = packaged.store / "cache" / part
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    assert packaged.replayed(packaged.ids["py"])["verdict"] == "identical"
    assert len(packaged.replay("ls", "--json").json["runs"]) == 2
