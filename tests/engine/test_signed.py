"""Runs that are signed: by `run` and `replay`, verified here and elsewhere, and refused when anything was changed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Workspace, flip_bit

pytestmark = pytest.mark.engine

JOB = {"command": ["sh", "-c", "{ cat in.txt; echo more; } > out.txt; echo said"], "outputs": ["out.txt", "stdout"]}
FILES = ("sigstore.json", "tlog-proof")
VERDICT_FILES = (*FILES, "test-result.sigstore.json", "verdict.sigstore.json")


@pytest.fixture
def signing(workspace: Workspace, shell_image: str) -> Workspace:
    """A workspace with a key that signs, and a job."""
    workspace.write("in.txt", "hello\n")
    workspace.jobs(t=JOB | {"image": shell_image})
    made = workspace.replay("keys", "init", "--plain", "--json")
    assert made.code == 0, made
    return workspace


def results(found: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["result"] for check in found["checks"]}


def reasons(found: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["reason"] for check in found["checks"] if check["result"] == "fail"}


def test_a_run_and_its_replay_are_signed_and_verify_here_and_elsewhere(signing: Workspace, tmp_path: Path) -> None:
    run_id = signing.run("t")["run_id"]
    replayed = signing.replay(run_id, "--json").json["run_id"]
    specs = signing.root / "state_specs"
    for name in FILES:
        assert (specs / f"{run_id}.{name}").read_bytes() == (signing.store / "runs" / run_id / name).read_bytes()
    assert all((specs / f"{replayed}.{name}").is_file() for name in VERDICT_FILES)
    for one, skipped in ((run_id, {"bundle", "verdict"}), (replayed, {"bundle"})):
        done = signing.replay("verify", one, "--json")
        assert done.code == 0 and done.json["verified"] and done.json["run_id"] == one, done
        found = results(done.json)
        assert {name for name, result in found.items() if result == "skipped"} == skipped | {
            "release",
            "policy",
            "revocation",
        }
    listed = signing.replay("ls", "--json").json["runs"]
    assert [row["signed"] for row in listed] == [True, True]
    assert signing.replay("show", run_id, "--json").json["signed"] is True

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    bundle = elsewhere / "b.replay.tar"
    assert signing.replay("bundle", replayed, "--to", str(bundle)).code == 0
    (key,) = (specs / "keys").iterdir()
    shutil.copy(key, elsewhere / "key.pem")
    other = Workspace(elsewhere)
    other.env["REPLAY_KEYS"] = str(tmp_path / "no-keys")
    other.env["DOCKER_HOST"] = "unix:///nowhere"
    done = other.replay("verify", "b.replay.tar", "--key", "key.pem", "--json")
    assert done.code == 0 and results(done.json)["bundle"] == "pass", done
    assert results(done.json)["log-inclusion"] == results(done.json)["logs"] == "pass"
    untrusted = other.replay("verify", "b.replay.tar", "--json")
    assert untrusted.code == 5 and reasons(untrusted.json)["signature"] == "untrusted-key"
    assert sorted(path.name for path in elsewhere.iterdir()) == ["b.replay.tar", "key.pem"]


def test_what_was_changed_after_the_run_is_named(signing: Workspace) -> None:
    run_id = signing.run("t")["run_id"]
    specs = signing.root / "state_specs"
    record = json.loads((specs / f"{run_id}.record.json").read_text())
    flip_bit(signing.blob(record["outputs"][0]["sha256"]))
    done = signing.replay("verify", run_id, "--json")
    assert done.code == 5 and reasons(done.json) == {"outputs": "damaged-blob"}
    assert "NOT VERIFIED: 1 check failed" in signing.replay("verify", run_id).out

    record["outputs"][0]["sha256"] = "sha256:" + "0" * 64
    for file in (specs / f"{run_id}.record.json", signing.store / "runs" / run_id / "record.json"):
        file.write_text(json.dumps(record))
    found = reasons(signing.replay("verify", run_id, "--json").json)
    assert found["record"] == "changed" and found["log-inclusion"] == "not-included"


def test_without_a_key_a_run_is_unsigned_and_everybody_sees_it(workspace: Workspace, shell_image: str) -> None:
    workspace.write("in.txt", "hello\n")
    workspace.jobs(t=JOB | {"image": shell_image})
    run_id = workspace.run("t")["run_id"]
    assert not list((workspace.store / "log").iterdir())
    assert workspace.replay("ls", "--json").json["runs"][0]["signed"] is False
    assert "signed    no" in workspace.replay("show", run_id).out
    done = workspace.replay("verify", run_id, "--json")
    assert done.code == 5
    assert reasons(done.json) == {"envelope": "unsigned", "log-inclusion": "no-proof"}
    assert "next: `replay sign`" in workspace.replay("verify", run_id).out
    assert workspace.replay("bundle", run_id).code == 2
    assert workspace.replay("sign", run_id).code == 2

    assert workspace.replay("keys", "init", "--plain").code == 0
    assert workspace.replay("sign", run_id, "--json").json["signed"] == [run_id]
    assert workspace.replay("sign", run_id, "--json").json["signed"] == []
    assert workspace.replay("verify", run_id).code == 0


def test_an_unsigned_run_never_loads_cryptography(workspace: Workspace, shell_image: str) -> None:
    workspace.write("in.txt", "hello\n")
    workspace.jobs(t=JOB | {"image": shell_image})
    script = "import sys\nfrom runner.cli.main import run\nassert run(['run', 't']) == 0\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=workspace.root, env=workspace.env, capture_output=True, text=True
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert done.returncode == 0 and "runner.store.runs" in loaded, done
    assert not {one for one in loaded if one.split(".")[0] == "cryptography" or one.startswith("runner.attest")}


def test_a_key_that_cannot_be_opened_is_told_before_the_job_runs(workspace: Workspace, shell_image: str) -> None:
    workspace.jobs(t={"command": ["sh", "-c", "true"], "image": shell_image})
    assert workspace.replay("keys", "init", REPLAY_KEY_PASSPHRASE="right").code == 0
    for env in ({}, {"REPLAY_KEY_PASSPHRASE": "wrong"}):
        done = workspace.replay("run", "t", **env)
        assert done.code == 2 and "REPLAY_KEY_PASSPHRASE" in done.err, done
    assert not list((workspace.store / "runs").iterdir())
    done = workspace.replay("run", "t", "--json", REPLAY_KEY_PASSPHRASE="right")
    assert done.code == 0
    assert workspace.replay("verify", done.json["run_id"]).code == 0, "no private key is needed for that"


def test_a_command_may_sign_in_the_place_of_a_key(workspace: Workspace, shell_image: str, tmp_path: Path) -> None:
    workspace.jobs(t={"command": ["sh", "-c", "true"], "image": shell_image})
    for line in (
        "openssl ecparam -name prime256v1 -genkey -noout -out private.pem",
        "openssl pkey -in private.pem -pubout -out public.pem",
    ):
        subprocess.run(line.split(), cwd=tmp_path, check=True, capture_output=True)
    command = {
        "REPLAY_SIGN_COMMAND": f"openssl dgst -sha256 -sign {tmp_path}/private.pem",
        "REPLAY_SIGN_KEY": str(tmp_path / "public.pem"),
    }
    run_id = workspace.run("t", **command)["run_id"]
    assert workspace.replay("verify", run_id, "--key", command["REPLAY_SIGN_KEY"]).code == 0
    assert workspace.replay("verify", run_id).code == 5

    broken = workspace.replay("run", "t", "--json", **(command | {"REPLAY_SIGN_COMMAND": "echo no; exit 3"}))
    assert broken.code == 7 and "exited 3" in broken.json["error"]["why"]
    newest = workspace.replay("ls", "--json").json["runs"]
    assert sorted(row["signed"] for row in newest) == [False, True], "recorded, and visibly not signed"
    (unsigned,) = (row["run_id"] for row in newest if not row["signed"])
    assert f"{unsigned} is recorded, and not signed" in broken.json["error"]["why"]
    assert broken.json["error"]["next"].endswith(f", then `replay sign {unsigned}`")


def test_a_run_that_its_release_refuses_is_recorded_even_if_nothing_can_sign(signing: Workspace) -> None:
    run_id = signing.run("t")["run_id"]
    assert signing.replay("release", "create", "prod", run_id, "--reason", "it is right").code == 0
    signing.write("in.txt", "other\n")
    key = str(next((signing.root / "state_specs" / "keys").glob("*.pem")))
    done = signing.replay("run", "t", "--release", "prod", "--json", REPLAY_SIGN_COMMAND="exit 3", REPLAY_SIGN_KEY=key)
    assert done.code == 7 and "is recorded, and not signed" in done.json["error"]["why"], done
    (unsigned,) = (row for row in signing.replay("ls", "--json").json["runs"] if not row["signed"])
    assert f"`replay sign {unsigned['run_id']}`" in done.json["error"]["next"], unsigned
