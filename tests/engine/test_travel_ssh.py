"""Runs travel over SSH, with an SSH server in a process of its own."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import flip_bit
from tests.engine.test_travel import Team, large, make_team, moved, push_all_once
from tests.remote.ssh import Ssh, served

pytestmark = pytest.mark.engine


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[Ssh]:
    with served(tmp_path / "server") as made:
        yield made


@pytest.fixture
def team(ssh: Ssh, shell_image: str, tmp_path: Path) -> Team:
    made = make_team(tmp_path / "work", shell_image, f"ssh://127.0.0.1{tmp_path}/remote", **ssh.options)
    made.remote = tmp_path / "remote"
    return made


def test_a_colleague_pulls_what_was_pushed(team: Team, tmp_path: Path) -> None:
    pushed = push_all_once(team)
    assert [one["where"] for one in moved(team, "status")["runs"]] == ["both"]
    assert all("remote" in pin["places"] for pin in moved(team, "pins")["pins"])

    shutil.rmtree(team.store)
    other = team.clone(tmp_path / "there" / "other")
    pulled = moved(other, "pull")
    assert pulled["runs"] == [team.id] and pulled["blobs"] == pushed["blobs"] and not pulled.get("lacking")
    assert other.replay("fsck").code == 0
    assert moved(other, team.id, "--trust")["verdict"] == "identical"


def test_a_server_that_goes_away_midway_is_the_networks_fault_and_the_push_goes_on(
    team: Team, ssh: Ssh, tmp_path: Path
) -> None:
    run_id = large(team, 32 << 20)
    remote = team.remote / "replay"
    ssh.stop_in_a_file(4 << 20)
    error = moved(team, "push", run_id, "-j", "1", code=7)["error"]
    assert any(one.stat().st_size > 1 << 20 for one in remote.glob("tmp/*")), "a large blob was on its way"
    assert "cannot write to the remote share at ssh://127.0.0.1" in error["what"] and error["why"] and error["next"]
    assert not list(remote.glob("runs/*")), "a run that is listed is whole"
    for blob in remote.glob("blobs/*/*"):
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.parent.name + blob.name

    for command in ("push", "pull", "status"):
        told = moved(team, command, code=7)["error"]
        assert "cannot reach the remote share" in told["what"], told
    ssh.start()
    done = moved(team, "push", run_id)
    assert done["moved_runs"] == [run_id] and done["blobs"] >= 1
    other = team.clone(tmp_path / "there" / "other")
    assert not moved(other, "pull", run_id).get("lacking")
    assert moved(other, run_id, "--trust")["verdict"] == "identical"


def test_a_blob_with_other_bytes_is_refused(team: Team, tmp_path: Path) -> None:
    moved(team, "push")
    blob = next(path for path in (team.remote / "replay" / "blobs").rglob("*") if path.is_file())
    flip_bit(blob)
    other = team.clone(tmp_path / "there" / "other")
    assert blob.name in moved(other, "pull", code=5)["error"]["what"]
    assert not other.blob(blob.parent.name + blob.name).exists()


def test_a_key_that_the_server_does_not_know_is_told(team: Team, ssh: Ssh) -> None:
    team.dvc("remote", "modify", "share", "keyfile", str(ssh.folder / "host"))
    error = moved(team, "push", code=7)["error"]
    assert "cannot reach the remote share" in error["what"] and "Permission denied" in error["why"], error


def test_without_the_package_the_way_to_it_is_told(team: Team, tmp_path: Path) -> None:
    hidden = team.write("without/dvc_ssh.py", "raise ImportError(name=__name__)\n").parent
    error = moved(team, "push", code=2, PYTHONPATH=str(hidden))["error"]
    assert "needs a package" in error["what"] and "pip install" in error["next"] and "ssh" in error["next"], error
