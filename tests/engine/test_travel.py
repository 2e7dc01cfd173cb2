"""Runs travel through DVC's remote: pushed here, pulled elsewhere, identical there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from runner.errors import OutsideError
from runner.tools.containers import connect
from tests.conftest import Index, Workspace, absent, flip_bit, free_port, until, wheel
from tests.endurance.test_kills import CUT_OFF, die

pytestmark = pytest.mark.engine

JOB = {
    "command": "cat code.txt p.yaml data/*.csv m.bin >out.txt; echo said; echo hm >&2",
    "python": None,
    "params": "p.yaml",
    "data": ["data"],
    "model": ["m.bin"],
    "outputs": ["out.txt", "stdout"],
    "labels": ["prod"],
}


class Team(Workspace):
    """A workspace in git whose DVC has a remote, with one recorded run, `id`."""

    id: str
    remote: Path

    def clone(self, root: Path) -> Workspace:
        """What a colleague has: the repository, and nothing of the store nor of the keys."""
        self.git("clone", "-q", str(self.root), str(root))
        return Workspace(root)


def make_team(root: Path, image: str, url: str, **options: str) -> Team:
    team = Team(root)
    root.mkdir(parents=True, exist_ok=True)
    team.git("init", "-q")
    team.dvc("init")
    team.dvc("remote", "add", "-d", "share", url)
    for option, value in options.items():
        team.dvc("remote", "modify", "share", option, value)
    for name in ("a", "b", "c"):
        team.write(f"data/{name}.csv", f"{name}\n")
    team.dvc("add", "data")
    team.write("m.bin", "model\n")
    team.write("code.txt", "code\n")
    team.write("p.yaml", "rate: 1\n")
    team.jobs(t=JOB | {"image": image})
    team.write(".gitignore", "/data\n.replay\n")
    team.id = team.run("t")["run_id"]
    team.commit("all")
    return team


@pytest.fixture
def team(shell_image: str, tmp_path: Path) -> Team:
    made = make_team(tmp_path / "work", shell_image, str(tmp_path / "remote"))
    made.remote = tmp_path / "remote"
    return made


@pytest.fixture(scope="module")
def second_engine(engine: Any) -> Iterator[str]:
    """The address of another dockerd, which has no image at all. Its networks are in a namespace of its own: they would
    be those of the machine's engine."""
    if os.getuid() != 0 or not shutil.which("dockerd"):
        raise absent("a second engine needs root and dockerd")
    place = Path(tempfile.mkdtemp(prefix="replay-second-"))
    host = f"unix://{place}/socket"
    command = f"dockerd --data-root {place}/data --exec-root {place}/run --pidfile {place}/pid --host {host}"
    command += " --bridge=none --iptables=false --ip-forward=false --ip-masq=false"
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            ["unshare", "--mount", "--net", *command.split()], stdout=log, stderr=subprocess.STDOUT
        )

    def answering() -> bool:
        if process.poll() is not None:
            raise absent(f"a second engine cannot be started: {(place / 'log').read_text()[-500:]}")
        with contextlib.suppress(OutsideError), pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_HOST", host)
            connect().version()
            return True
        return False

    try:
        until(answering, "the second engine")
        yield host
    finally:
        process.terminate()
        process.wait(120)
        shutil.rmtree(place, ignore_errors=True)


class S3(str):
    """The address of an S3 server."""

    def make_bucket(self) -> str:
        import boto3

        name = f"b{os.urandom(6).hex()}"
        self.client(boto3).create_bucket(Bucket=name)
        return f"s3://{name}/team"

    def client(self, boto3: Any) -> Any:
        keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
        return boto3.client("s3", endpoint_url=str(self), **keys)

    @property
    def options(self) -> dict[str, str]:
        return {"endpointurl": str(self), "access_key_id": "k", "secret_access_key": "s", "region": "us-east-1"}


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    port = free_port()
    serve = "import sys; from moto.server import main; main(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", serve, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answering() -> bool:
        assert process.poll() is None, "the S3 server ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    try:
        until(answering, "the S3 server")
        yield S3(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(120)


def moved(workspace: Workspace, *arguments: str, code: int = 0, **env: str) -> dict[str, Any]:
    done = workspace.replay(*arguments, "--json", **env)
    assert done.code == code, done
    found: dict[str, Any] = done.json
    return found


def push_all_once(team: Team) -> dict[str, Any]:
    """What was pushed; nothing is left to be pushed after it."""
    pushed = moved(team, "push")
    assert pushed["moved_runs"] == [team.id] and pushed["blobs"] > 5 and not pushed.get("lacking")
    again = moved(team, "push")
    assert (again["moved_runs"], again["blobs"], again["had"]) == ([], 0, pushed["blobs"])
    return pushed


def test_a_colleague_replays_what_was_pushed(team: Team, tmp_path: Path) -> None:
    pushed = push_all_once(team)

    other = team.clone(tmp_path / "there" / "other")
    pulled = moved(other, "pull")
    assert pulled["runs"] == [team.id] and pulled["blobs"] == pushed["blobs"] and not pulled.get("lacking")
    shutil.rmtree(team.store)
    found = moved(other, team.id, "--trust")
    assert found["verdict"] == "identical"
    logs = other.replay("logs", team.id)
    assert (logs.out, logs.err) == ("said\n", "hm\n")
    assert other.replay("fsck").code == 0
    assert (moved(other, "pull")["blobs"], moved(other, "pull")["moved_runs"]) == (0, [])


def test_what_the_store_alone_has_gets_no_copy_for_review_elsewhere(team: Team, tmp_path: Path) -> None:
    """A night's replay is nothing to commit, here or there, and is a run like any other in both stores."""
    workfile = team.root / "replay.yaml"
    workfile.write_text(json.dumps(json.loads(workfile.read_text()) | {"suites": {"nightly": {"select": ["all"]}}}))
    (told,) = moved(team, "nightly")["runs"]
    replay = told["replay"]
    team.commit("what there is to review", "--allow-empty")
    moved(team, "push")

    other = team.clone(tmp_path / "there" / "other")
    assert replay in moved(other, "pull")["moved_runs"]
    assert other.git("status", "--porcelain") == ""
    assert moved(other, "show", replay)["record"]["replay"]["verdict"] == "identical"
    assert moved(other, "pull")["moved_runs"] == moved(other, "push")["moved_runs"] == []
    assert other.replay("fsck").code == 0 and other.git("status", "--porcelain") == ""


def test_a_replay_fetches_what_it_lacks(team: Team, tmp_path: Path) -> None:
    moved(team, "push")
    shutil.rmtree(team.store)
    other = team.clone(tmp_path / "there" / "other")
    planned = moved(other, team.id, "--trust", "--dry-run")
    assert planned["possible"] and any(str(team.remote) in step["action"] for step in planned["steps"])
    done = other.replay(team.id, "--trust", "--json")
    assert done.code == 0 and done.json["verdict"] == "identical", done
    assert f"fetched from {team.remote}" in done.err
    assert "fetched" not in other.replay(team.id, "--trust", "--json").err


def test_what_the_remote_does_not_have_either_is_told_so(team: Team, tmp_path: Path) -> None:
    other = team.clone(tmp_path / "there" / "other")
    team.remote.mkdir(exist_ok=True)
    found = moved(other, team.id, "--trust", code=3)
    assert found["verdict"] == "unrebuildable" and f"at {team.remote} does not have it" in found["error"]["why"]
    team.remote.rmdir()
    found = moved(other, team.id, "--trust", code=7)["error"]
    assert "cannot be reached" in found["what"] and str(team.remote) in found["why"]


def test_a_blob_with_other_bytes_is_refused_and_the_rest_arrives(team: Team, tmp_path: Path) -> None:
    moved(team, "push")
    blobs = sorted(path for path in (team.remote / "replay" / "blobs").rglob("*") if path.is_file())
    flip_bit(blobs[0])
    name = "".join(blobs[0].parts[-2:])
    other = team.clone(tmp_path / "there" / "other")
    error = moved(other, "pull", code=5)["error"]
    assert name[2:] in error["what"]
    assert not other.blob(f"sha256:{name}").exists()
    flip_bit(blobs[0])
    assert moved(other, "pull")["blobs"] >= 1
    assert moved(other, team.id, "--trust")["verdict"] == "identical"
    blobs[0].unlink()
    blobs[0].write_bytes(b"cut")
    shutil.rmtree(team.remote / "replay" / "runs")  # as when a crash came before the manifest
    assert moved(team, "push")["blobs"] == 1


def without_images(host: str) -> None:
    with contextlib.closing(docker.DockerClient(base_url=host)) as client:
        for image in client.images.list():
            client.images.remove(image.id, force=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_it_is_identical_on_another_engine(
    kind: str, shell_image: str, s3: S3, second_engine: str, tmp_path: Path
) -> None:
    url, options = (s3.make_bucket(), s3.options) if kind == "s3" else (str(tmp_path / "remote"), {})
    team = make_team(tmp_path / "work", shell_image, url, **options)
    pushed = moved(team, "push")
    assert pushed["moved_runs"] == [team.id]
    assert moved(team, "push")["blobs"] == 0
    shutil.rmtree(team.store)

    there = {"DOCKER_HOST": second_engine}
    without_images(second_engine)
    fresh = team.clone(tmp_path / "there" / "fresh")
    done = fresh.replay(team.id, "--trust", "--json", **there)
    assert done.code == 0 and done.json["verdict"] == "identical", done
    assert f"fetched from {url}" in done.err and "image" in done.err

    pulled = team.clone(tmp_path / "there" / "pulled")
    found = moved(pulled, "pull")
    assert found["blobs"] == pushed["blobs"] and not found.get("lacking")
    assert moved(pulled, team.id, "--trust", **there)["verdict"] == "identical"


def test_an_s3_remote_that_does_not_answer_is_the_networks_fault(shell_image: str, tmp_path: Path) -> None:
    options = {"endpointurl": f"http://127.0.0.1:{free_port()}", "access_key_id": "k", "secret_access_key": "geheim"}
    team = make_team(tmp_path / "work", shell_image, "s3://b/team", **options)
    done = team.replay("push", "--json")
    assert done.code == 7 and "the remote share at s3://b/team" in done.json["error"]["what"], done
    assert "geheim" not in done.out + done.err


def large(team: Team, size: int) -> str:
    """A run with a model that takes a moment to send."""
    with (team.root / "m.bin").open("wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 10) * (1 << 10))
    return str(team.run("t")["run_id"])


IN_A_LARGE_BLOB = f"+{4 << 20}"
"""A moment of `die`: when so much of it has been written."""


def test_a_push_that_was_killed_goes_on(team: Team, tmp_path: Path) -> None:
    run_id = large(team, 32 << 20)
    remote, tmp = team.remote / "replay", team.remote / "replay" / "tmp"
    assert die(team, IN_A_LARGE_BLOB, ["push", run_id, "-j", "1"], tmp_path / "moments") == CUT_OFF
    left = list(tmp.iterdir())
    assert left and not list(remote.glob("runs/*"))
    for blob in remote.glob("blobs/*/*"):
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.parent.name + blob.name
    os.utime(left[0], (0, 0))
    done = moved(team, "push", run_id)
    assert done["moved_runs"] == [run_id] and done["blobs"] >= 1
    assert not list(tmp.iterdir())
    other = team.clone(tmp_path / "there" / "other")
    assert not moved(other, "pull", run_id).get("lacking")


def test_a_pull_that_was_killed_goes_on(team: Team, tmp_path: Path) -> None:
    run_id = large(team, 32 << 20)
    moved(team, "push", run_id)
    other = team.clone(tmp_path / "there" / "other")
    assert die(other, IN_A_LARGE_BLOB, ["pull", run_id, "-j", "1"], tmp_path / "moments") == CUT_OFF
    assert any(one.stat().st_size > 1 << 20 for one in (other.store / "tmp").glob("blob-*"))
    assert not (other.store / "runs" / run_id).exists()
    moved(other, "pull", run_id)
    assert moved(other, run_id, "--trust")["verdict"] == "identical"


def test_two_pushes_at_once_do_not_disturb_each_other(team: Team, tmp_path: Path) -> None:
    run_id = large(team, 32 << 20)
    both = [team.start("push", "--json") for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, (out, err)
    other = team.clone(tmp_path / "there" / "other")
    assert sorted(moved(other, "pull")["runs"]) == sorted([team.id, run_id])
    assert other.replay("fsck").code == 0


def test_a_damaged_blob_is_not_sent(team: Team) -> None:
    spec = team.replay("show", team.id, "--json").json["spec"]
    model = spec["state"]["model"]["m.bin"]
    flip_bit(team.blob(model))
    error = moved(team, "push", code=5)["error"]
    assert model in error["what"]
    assert not (team.remote / "replay" / "blobs" / model[7:9] / model[9:]).exists()
    team.blob(model).unlink()
    lame = moved(team, "push", code=3)
    assert [lost["name"] for lost in lame["lacking"]] == ["m.bin"] and lame["moved_runs"] == []


def test_data_that_dvc_pushed_is_not_sent_again(team: Team, tmp_path: Path) -> None:
    team.dvc("push")
    before = sorted(team.remote.rglob("files/**/*"))
    pushed = moved(team, "push")
    assert pushed["by_dvc"] == ["data"] and sorted(team.remote.rglob("files/**/*")) == before
    data = team.replay("show", team.id, "--json").json["spec"]["state"]["data"]["data"]
    assert not (team.remote / "replay" / "blobs" / data[7:9] / data[9:]).exists()
    shutil.rmtree(team.store)
    other = team.clone(tmp_path / "there" / "other")
    pulled = moved(other, "pull")
    assert pulled["by_dvc"] == ["data"] and not pulled.get("lacking")
    assert moved(other, team.id, "--trust")["verdict"] == "identical"


def test_names_that_lead_elsewhere_are_refused(team: Team, s3: S3, tmp_path: Path) -> None:
    import boto3

    url = s3.make_bucket()
    bucket = url.split("/")[2]
    s3.client(boto3).put_object(Bucket=bucket, Key=f"team/replay/runs/../../evil/{'0' * 64}", Body=b"{}")
    team.dvc("remote", "add", "hostile", url)
    for option, value in s3.options.items():
        team.dvc("remote", "modify", "hostile", option, value)
    for command in ("pull", "status"):
        error = moved(team, command, "--remote", "hostile", code=5)["error"]
        assert "../../evil" in error["what"], error
    moved(team, "push", "--remote", "hostile")  # it asks for its own runs alone
    assert not list(tmp_path.rglob("evil"))


def test_releases_travel_and_runs_are_chosen_by_them(team: Team, tmp_path: Path) -> None:
    other_id = team.run("t")["run_id"]
    made = team.replay("release", "create", "base", team.id, "--accepted-by", "t", "--reason", "first", "--json")
    assert made.code == 0, made
    assert moved(team, "push", "@base")["runs"] == [team.id]
    assert sorted(moved(team, "push", "prod")["runs"]) == sorted([team.id, other_id])
    other = team.clone(tmp_path / "there" / "other")
    assert "releases/base/release.yaml" in moved(other, "pull", "prod")["statements"]
    assert [one["where"] for one in moved(other, "status", "@base")["runs"]] == ["both"]
    assert moved(other, "pull", "nothing", code=2)["error"]["what"]


def test_a_signed_run_is_verified_where_it_was_pulled(team: Team, shell_image: str, tmp_path: Path) -> None:
    """The log that it is in stays where it was recorded; a log of one's own is another."""

    def verified(workspace: Workspace) -> str:
        done = workspace.replay("verify", signed, "--json")
        assert done.code == 0 and done.json["verified"], done
        return next(check["result"] for check in done.json["checks"] if check["name"] == "log-consistency")

    made = team.replay("keys", "init", "--plain", "--json")
    assert made.code == 0, made
    signed = team.run("t")["run_id"]
    assert verified(team) == "pass"
    moved(team, "push")
    other = team.clone(tmp_path / "there" / "other")
    moved(other, "pull", signed)
    assert other.replay("keys", "trust", made.json["key"]).code == 0
    assert verified(other) == "skipped"
    assert other.replay("keys", "init", "--plain").code == 0
    other.jobs(own={"command": "true", "python": None, "image": shell_image})
    other.run("own")
    assert verified(other) == "skipped"


def test_a_run_that_is_held_to_a_release_takes_its_packages_in_a_clone(
    python_workspace: Workspace, index: Index, tmp_path: Path
) -> None:
    team = python_workspace
    pip = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index.url, "PIP_FIND_LINKS": ""}
    index.add(wheel("tool", "1.0", {"tool.py": "V = 1"}))
    team.git("init", "-q")
    team.dvc("init")
    (tmp_path / "remote").mkdir()
    team.dvc("remote", "add", "-d", "share", str(tmp_path / "remote"))
    team.write("requirements.in", "tool\n")
    team.write(".gitignore", ".replay\n")
    show = ["python", "-c", "import tool; print(tool.V)"]
    team.jobs(
        t={"command": show, "image": team.image, "dependencies": "requirements.in", "outputs": ["stdout"]}  # type: ignore[attr-defined]
    )
    run_id = team.run("t", **pip)["run_id"]
    assert team.replay("release", "create", "v1", run_id, "--reason", "x", "--accepted-by", "me").code == 0
    assert team.replay("push", run_id).code == 0
    team.commit("all")

    index.add(wheel("tool", "2.0", {"tool.py": "V = 2"}))
    team.git("clone", "-q", str(team.root), str(tmp_path / "clone"))
    clone = Workspace(tmp_path / "clone")
    unheld = clone.run("t", **pip)
    assert clone.replay("logs", unheld["run_id"]).out == "2\n", "what is held to nothing is resolved anew"
    shutil.rmtree(clone.store / "locks")
    assert clone.replay("pull", "@v1").code == 0
    told = clone.replay("release", "check", "v1", ".", "--json")
    assert told.code == 0 and told.json["equal"], told
    held = clone.run("t", "--release", "v1", "--policy", "refuse", **pip)
    assert clone.replay("logs", held["run_id"]).out == "1\n"
    relocked = clone.replay("run", "t", "--release", "v1", "--relock", "--json", **pip)
    assert relocked.code == 6 and relocked.json["release"]["deviations"][0]["name"] == "tool", relocked
