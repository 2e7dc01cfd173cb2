"""Specs of strangers on a real engine: what is asked before they run, and what they cannot do when they are allowed."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.layers import code
from runner.layers.code import CodeFile
from runner.state.digest import Digest
from runner.store.store import open_store
from tests.conftest import Done, Workspace
from tests.strangers import Change, forge

pytestmark = pytest.mark.engine

JOB = {"command": ["sh", "-c", "cat in.txt > out.txt"], "outputs": ["out.txt"]}


@pytest.fixture
def here(workspace: Workspace, shell_image: str) -> Workspace:
    workspace.write("in.txt", "hello\n")
    workspace.jobs(t=JOB | {"image": shell_image})
    return workspace


def as_somebody_else(workspace: Workspace) -> None:
    """From now on it is another user who calls the commands: one who has recorded nothing."""
    workspace.env["REPLAY_KEYS"] = str(workspace.root.parent / "keys-of-another")


def refused(done: Done) -> dict[str, Any]:
    assert done.code == 6, done
    assert done.json["verdict"] == "refused" and done.json["error"]["code"] == 6
    found: dict[str, Any] = done.json["error"]
    assert found["what"] and found["why"] and found["next"]
    return found


def on_terminal(workspace: Workspace, *arguments: str, answers: str = "", term: str = "dumb") -> tuple[int, str]:
    """The command with a terminal on stdin and stderr; what it showed there."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        workspace.command(*arguments),
        cwd=workspace.root,
        env=workspace.env | {"TERM": term},
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    os.write(ours, answers.encode())
    shown = b"".join(_shown(ours))
    os.close(ours)
    return process.wait(), shown.decode(errors="replace")


def _shown(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # a terminal that nobody has open any more
            return
        if not data:
            return
        yield data


def test_own_runs_go_without_asking_and_a_strangers_do_not(here: Workspace) -> None:
    run_id = here.run("t")["run_id"]
    assert here.replay(run_id).code == 0
    as_somebody_else(here)
    found = refused(here.replay(run_id, "--json"))
    assert "nobody signed it" in found["what"] and "cat in.txt" in found["why"] and "--trust" in found["next"]
    assert "network: none" in found["why"] and "none on memory, time, disk" in found["why"]
    assert here.replay(run_id, "--dry-run").code == 0, "nothing runs, so nobody needs to be asked"
    assert here.replay(run_id, "--trust").code == 0
    assert here.replay(run_id).code == 0, "what was allowed once is not asked again"


def test_a_change_to_an_own_spec_makes_it_a_strangers(here: Workspace) -> None:
    run_id = here.run("t")["run_id"]

    def other_command(spec: dict[str, Any]) -> None:
        spec["state"]["command"] = ["sh", "-c", "echo evil > out.txt"]

    forge(here.root, here.store, run_id, other_command)
    assert "echo evil" in refused(here.replay(run_id, "--json"))["why"]


def test_a_store_that_came_with_a_clone_vouches_for_nothing(here: Workspace, tmp_path: Path) -> None:
    run_id = here.run("t")["run_id"]
    shutil.copytree(here.root, tmp_path / "clone" / "work")
    clone = Workspace(tmp_path / "clone" / "work")
    refused(clone.replay(run_id, "--json"))
    clone.env["REPLAY_KEYS"] = here.env["REPLAY_KEYS"]
    assert clone.replay(run_id).code == 0, "the same user in another clone"


def test_a_trusted_key_goes_without_asking(here: Workspace) -> None:
    assert here.replay("keys", "init", "--plain").code == 0
    run_id = here.run("t")["run_id"]
    as_somebody_else(here)
    found = refused(here.replay(run_id, "--json"))
    assert "a key that you do not trust" in found["what"] and "keys trust" in found["next"]
    (key,) = (here.root / "state_specs" / "keys").iterdir()
    assert here.replay("keys", "trust", str(key)).code == 0
    assert here.replay(run_id).code == 0
    signature = here.root / "state_specs" / f"{run_id}.sigstore.json"
    kept = signature.read_text()
    other = here.run("t")["run_id"]
    as_somebody_else(here)
    shutil.rmtree(here.env["REPLAY_KEYS"])
    assert here.replay("keys", "trust", str(key)).code == 0
    (here.store / "runs" / other / "sigstore.json").unlink(missing_ok=True)
    (here.root / "state_specs" / f"{other}.sigstore.json").write_text(kept)
    assert "is for another spec" in refused(here.replay(other, "--json"))["what"]


def test_on_a_terminal_it_is_shown_and_asked(here: Workspace) -> None:
    run_id = here.run("t")["run_id"]
    as_somebody_else(here)
    code, shown = on_terminal(here, "replay", run_id, answers="n\n")
    assert code == 6 and "Run it? [y/N]" in shown and "cat in.txt > out.txt" in shown and "you said no" in shown
    code, shown = on_terminal(here, "replay", run_id, answers="y\n")
    assert code == 0 and "Run it?" in shown
    code, shown = on_terminal(here, "replay", run_id, answers="")
    assert code == 0 and "Run it?" not in shown


def test_bisect_asks_as_well(here: Workspace) -> None:
    good = here.run("t")["run_id"]
    here.write("in.txt", "other\n")
    bad = here.run("t")["run_id"]
    as_somebody_else(here)
    done = here.replay("bisect", good, bad, "--json")
    assert done.code == 6 and "nobody signed it" in done.json["error"]["what"], done
    assert not here.containers()
    done = here.replay("bisect", good, bad, "--trust", "--json")
    assert done.code == 0 and done.json["proven"], done
    assert here.replay("bisect", "replay", "1").code == 0, "its trials are the user's own"


# --- secrets ------------------------------------------------------------------------------------------------


def secret_from(source: str, *, uri: str | None = None) -> Change:
    def change(spec: dict[str, Any]) -> None:
        spec["state"]["secrets"] = ["TOKEN"]
        seen = {"TOKEN": {"from": source, "fingerprint": "hmac-sha256:" + "0" * 32}}
        asked = [{"uri": uri, "reachable": True, "identity": "x", "secret": "TOKEN"}] if uri else []
        spec["observed"]["access"] = {"secrets": seen, "sources": asked}
        spec["state"]["command"] = ["sh", "-c", "echo ${#TOKEN} > out.txt"]

    return change


def test_trust_hands_over_no_secret_that_nobody_here_declared(here: Workspace, shell_image: str) -> None:
    run_id = here.run("t")["run_id"]
    forge(here.root, here.store, run_id, secret_from("env:AWS_SECRET_ACCESS_KEY"))
    given = {"AWS_SECRET_ACCESS_KEY": "do not tell"}
    found = refused(here.replay(run_id, "--json", **given))
    assert "env:AWS_SECRET_ACCESS_KEY" in found["why"] and "--allow-secret" in found["next"]
    found = refused(here.replay(run_id, "--trust", "--json", **given))
    assert found["what"].endswith("env:AWS_SECRET_ACCESS_KEY") and "replay.yaml" in found["next"]
    refused(here.replay(run_id, "--trust", "--allow-secret", "env:OTHER", "--json", **given))
    here.jobs(t=JOB | {"image": shell_image, "secrets": {"TOKEN": "env:OTHER"}})
    refused(here.replay(run_id, "--trust", "--json", **given))
    done = here.replay(run_id, "--trust", "--allow-secret", "env:AWS_SECRET_ACCESS_KEY", "--json", **given)
    assert done.code == 1, "the output differs, since it ran"


def test_a_secret_that_replay_yaml_takes_from_there_is_no_strangers(here: Workspace, shell_image: str) -> None:
    run_id = here.run("t")["run_id"]
    forge(here.root, here.store, run_id, secret_from("env:TOKEN"))
    here.jobs(t=JOB | {"image": shell_image, "secrets": {"TOKEN": "env:TOKEN"}})
    assert here.replay(run_id, "--trust", "--json", TOKEN="abcdefgh").code == 1


def test_a_secret_is_shown_to_no_source_that_replay_yaml_does_not_show_it_to(here: Workspace, shell_image: str) -> None:
    run_id = here.run("t")["run_id"]
    forge(here.root, here.store, run_id, secret_from("env:TOKEN", uri="http://127.0.0.1:9/steal"))
    here.jobs(t=JOB | {"image": shell_image, "secrets": {"TOKEN": "env:TOKEN"}})
    found = refused(here.replay(run_id, "--trust", "--json", TOKEN="abcdefgh"))
    assert found["what"].endswith("env:TOKEN")
    as_somebody_else(here)
    assert "http://127.0.0.1:9/steal" in refused(here.replay(run_id, "--json", TOKEN="abcdefgh"))["why"]


def test_no_trial_hands_a_secret_over_to_a_strangers_code_unasked(here: Workspace, shell_image: str) -> None:
    """The user's own run takes a secret, the stranger's takes none and may run: trials are of both."""
    here.env["TOKEN"] = "abcdefgh"
    here.jobs(t=JOB | {"image": shell_image, "secrets": {"TOKEN": "env:TOKEN"}})
    good = here.run("t")["run_id"]
    here.write("in.txt", "other\n")
    here.jobs(t=JOB | {"image": shell_image})
    bad = here.run("t")["run_id"]
    forge(here.root, here.store, bad, lambda spec: spec["state"].update(env={"FORGED": "1"}))
    here.jobs(t=JOB | {"image": shell_image, "secrets": {"TOKEN": "env:TOKEN"}})
    assert here.replay(bad, "--trust").code == 0
    done = here.replay("bisect", good, bad, "--json")
    found = done.json["error"]
    assert done.code == 6 and f"secret TOKEN: env:TOKEN, shown to the job, in trials, as {good} has it" in found["why"]
    assert found["next"].startswith("if it may, give --trust --allow-secret env:TOKEN")
    done = here.replay("bisect", good, bad, "--trust", "--json")
    assert (
        done.code == 6 and done.json["error"]["what"] == f"trials would hand secrets over to what {bad} runs: env:TOKEN"
    )
    assert here.replay("ls", "--label", "bisect", "-n", "0", "--json").json["runs"] == []
    done = here.replay("bisect", good, bad, "--trust", "--allow-secret", "env:TOKEN", "--json")
    assert done.code == 0 and done.json["proven"], done
    assert here.replay("bisect", good, bad).code == 0, "what was allowed once is not asked again"


def test_secrets_are_asked_for_one_by_one_on_a_terminal(here: Workspace) -> None:
    run_id = here.run("t")["run_id"]
    forge(here.root, here.store, run_id, secret_from("env:TOKEN"))
    here.env["TOKEN"] = "abcdefgh"
    code, shown = on_terminal(here, "replay", run_id, answers="y\nn\n")
    assert code == 6 and "Hand env:TOKEN over to it? [y/N]" in shown
    code, _ = on_terminal(here, "replay", run_id, "--trust", answers="y\n")
    assert code == 1


# --- what no answer allows ----------------------------------------------------------------------------------


def leads_to(outside: Path, path: str) -> str:
    return f"{path}/" + "../" * 30 + str(outside).lstrip("/")


def test_no_stage_mounts_or_writes_what_is_outside(workspace: Workspace, shell_image: str, tmp_path: Path) -> None:
    """The holes that were there: a dep below a folder of data mounted anything, an out wrote anywhere."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "private").write_text("private\n")
    workspace.write("m/a.txt", "model\n")
    workspace.write("m.txt", "model\n")
    stage = {"name": "one", "command": "cat m.txt > out.txt", "deps": ["m.txt"], "outs": ["out.txt"]}
    job = {"image": shell_image, "python": None, "model": ["m.txt"], "stages": [stage], "outputs": ["out.txt"]}
    workspace.jobs(t=job)
    run_id = workspace.run("t")["run_id"]
    kept = workspace.spec_path(run_id).read_bytes()

    for key, path in (
        ("deps", leads_to(outside / "private", "m.txt")),
        ("deps", leads_to(Path("/var/run/docker.sock"), "m.txt")),
        ("outs", str(outside / "planted")),
        ("outs", leads_to(outside / "planted", "x")),
    ):

        def change(spec: dict[str, Any], key: str = key, path: str = path) -> None:
            spec["state"]["stages"][0][key] = [*spec["state"]["stages"][0][key], path]

        forge(workspace.root, workspace.store, run_id, change)
        found = refused(workspace.replay(run_id, "--trust", "--json"))
        assert path in found["what"] and "no option allows it" in found["next"]
        (workspace.store / "runs" / run_id / "spec.yaml").write_bytes(kept)
    assert [one.name for one in outside.iterdir()] == ["private"]


def test_a_link_in_the_code_lets_no_boundary_read_what_is_outside(
    workspace: Workspace, shell_image: str, tmp_path: Path
) -> None:
    private = tmp_path / "private.json"
    private.write_text('{"token": 424242}')
    workspace.write("in.json", '{"token": 1}')
    boundary = {"on": "m.json", "metrics": {"token": "> 0"}, "action": "warn"}
    workspace.write("m.json", '{"token": 1}')
    job = {"command": ["sh", "-c", "echo x > out.txt"], "outputs": ["out.txt"], "model": ["m.json"]}
    workspace.jobs(t=job | {"image": shell_image, "python": None, "checks": [boundary]})
    run_id = workspace.run("t")["run_id"]
    store = open_store(workspace.store, create=False)

    def change(spec: dict[str, Any]) -> None:
        files = [*code.files_of(store, Digest(spec["state"]["code"]))]
        files.append(CodeFile("x.json", "link", store.blobs.put_bytes(str(private).encode())))
        spec["state"]["code"] = store.blobs.put_bytes(code.listing(tuple(files)))
        spec["contract"]["checks"][0].update(on="x.json", metrics={"token": "< 0"})

    forge(workspace.root, workspace.store, run_id, change)
    done = workspace.replay(run_id, "--trust", "--json")
    (found,) = done.json["checks"]
    assert (found["result"], found["detail"]) == ("error", "a link leads out of the workspace there"), done
    assert "424242" not in done.out + done.err


def test_variables_of_a_spec_reach_the_job_and_no_tool_of_the_host(here: Workspace, tmp_path: Path) -> None:
    run_id = here.run("t")["run_id"]
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / "sitecustomize.py").write_text(f"open({str(evil / 'ran')!r}, 'w')")
    for name in ("git", "docker", "dvc"):
        (evil / name).write_text(f"#!/bin/sh\ntouch {evil}/ran\n")
        (evil / name).chmod(0o755)
    variables = {
        "DOCKER_HOST": "tcp://127.0.0.1:1",
        "GIT_SSH_COMMAND": f"touch {evil}/ran",
        "LD_PRELOAD": "/nothing.so",
        "PATH": f"{evil}:/usr/bin:/bin",
        "PYTHONPATH": str(evil),
        "REPLAY_KEYS": str(evil),
        "REPLAY_SIGN_COMMAND": f"touch {evil}/ran",
    }

    def change(spec: dict[str, Any]) -> None:
        spec["state"]["env"] |= variables
        spec["state"]["command"] = ["sh", "-c", "env > out.txt"]

    forge(here.root, here.store, run_id, change)
    done = here.replay(run_id, "--trust", "--json")
    assert done.code == 1, done
    (output,) = done.json["outputs"]
    record = json.loads((here.store / "runs" / done.json["run_id"] / "record.json").read_text())
    text = here.blob(record["outputs"][0]["sha256"]).read_text()
    assert output["path"] == "out.txt" and all(f"{name}={value}\n" in text for name, value in variables.items())
    assert not (evil / "ran").exists()


def test_an_image_is_built_of_no_folder_outside(here: Workspace, tmp_path: Path) -> None:
    """Neither by a path, nor through a link in the workspace."""
    run_id = here.run("t")["run_id"]
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "Dockerfile").write_text("FROM scratch\n")
    (here.root / "images").mkdir()
    (here.root / "images" / "own").symlink_to(outside)

    def change(spec: dict[str, Any]) -> None:
        spec["observed"]["image"] = {"reference": "images/own", "folder": "images/own"}
        spec["state"]["image"]["diff_ids"] = ["sha256:" + "0" * 64]

    forge(here.root, here.store, run_id, change)
    done = here.replay(run_id, "--trust", "--json")
    assert done.code == 3 and "recipe" not in done.json["error"]["why"].partition(" or recipe")[0], done


def test_data_of_a_strangers_spec_comes_by_no_command(here: Workspace, tmp_path: Path) -> None:
    """A remote's address that git, ssh or a shell would take for a command is only looked at as DVC does."""
    here.dvc("init", "--no-scm")
    run_id = here.run("t")["run_id"]
    for remote in (
        f"ext::sh -c touch% {tmp_path}/ran",
        f"ssh://-oProxyCommand=touch {tmp_path}/ran/x",
        f"--upload-pack=touch {tmp_path}/ran",
        f"'; touch {tmp_path}/ran; '",
        f'x"\n[core]\nremote = "{tmp_path}',
    ):

        def change(spec: dict[str, Any], remote: str = remote) -> None:
            spec["state"]["data"] = {"d.csv": "sha256:" + "0" * 64}
            spec["observed"]["data"] = {"d.csv": {"dvc": {"md5": "0" * 32, "remote": remote}}}

        forge(here.root, here.store, run_id, change)
        done = here.replay(run_id, "--trust", "--json")
        assert done.code in (2, 3, 7), done
        assert not (tmp_path / "ran").exists()


def test_json_of_a_refusal_is_an_error_object_too(here: Workspace) -> None:
    run_id = here.run("t")["run_id"]
    as_somebody_else(here)
    assert json.loads(here.replay(run_id, "--json").out)["replay_of"] == run_id
