"""Secrets: they arrive exactly, stay nowhere, and are masked or set apart where a job lets them out."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Done, Workspace

pytestmark = pytest.mark.engine

SECRET = "s3cr3t-Zq8w-value"


@pytest.fixture
def job(workspace: Workspace, shell_image: str) -> Any:
    """Record a job with the secret S, taken from the caller's variable SECRET unless said otherwise."""

    def call(command: str | list[str], *arguments: str, caller: dict[str, str] | None = None, **described: Any) -> Done:
        described = {"image": shell_image, "python": None, "secrets": {"S": "env:SECRET"}} | described
        workspace.jobs(j={"command": command} | described)
        return workspace.replay("run", "j", *arguments, **({"SECRET": SECRET} if caller is None else caller))

    return call


def places_with(folder: Path, text: bytes) -> list[str]:
    """Files below a folder whose name or content holds that."""
    found = []
    for here, folders, files in os.walk(os.fsencode(folder)):
        found += [name for name in (*folders, *files) if text in name]
        for name in files:
            path = os.path.join(here, name)
            if os.path.isfile(path) and not os.path.islink(path) and text in Path(os.fsdecode(path)).read_bytes():
                found.append(path)
    return [os.fsdecode(one) for one in found]


ODD = {
    "PLAIN": b"simple",
    "LINES": b"-----BEGIN-----\nabc\n\ndef\n-----END-----\n\n",
    "QUOTES": b"'\"`$(touch /tmp/pwned)${HOME}\\n\\0101\\\\ \\c stop %s %d * ~ ! # ; & |",
    "BYTES": bytes(range(1, 256)),
    "WORDS": "  grüße, 世界 \t ".encode(),
    "EQUALS": b"a=b=c",
    "DASH": b"-n",
    "OCTAL": b"7\x01" + b"1",
    "n": b"named like nothing special",
    "v": b"nor this",
    "LONG": b"0123456789abcdef" * 2000,
}


TELL = """
import os, sys
for name in sorted(os.environb):
    if name.startswith(b"S_") or name in (b"n", b"v"):
        print(name.decode(), os.environb[name].hex(" "))
print("stdin", sys.stdin.read() == "")
"""


def test_every_byte_arrives(python_workspace: Workspace) -> None:
    """Told in hex, so that nothing is masked. A file's last newline belongs to the file, not to the secret."""
    here = python_workspace
    wanted = {f"S_{name}": value for name, value in ODD.items()}
    for name, value in wanted.items():
        here.write(f"secret/{name}", value + b"\n")
    here.write("tell.py", TELL)
    here.write("secret/.gitignore", "*\n")
    here.git("init", "-q")
    here.jobs(
        j={
            "command": ["python3", "tell.py"],
            "image": here.image,  # type: ignore[attr-defined]
            "env": {"n": "declared", "v": ""},
            "secrets": {name: f"file:secret/{name}" for name in wanted} | {"S_ENV": "env:SECRET"},
        }
    )
    run_id = here.run("j", SECRET="from 'the' caller\n\n")["run_id"]
    lines = (here.store / "runs" / run_id / "stdout").read_text().splitlines()
    assert lines.pop() == "stdin True", "nothing is left on the job's stdin"
    found = {name: bytes.fromhex(value) for name, _, value in (line.partition(" ") for line in lines)}
    assert found == wanted | {"S_ENV": b"from 'the' caller\n\n", "n": b"declared", "v": b""}


def test_a_secret_is_nowhere_while_and_after_its_job_runs(
    workspace: Workspace, shell_image: str, tmp_path: Path
) -> None:
    """Not in the container's description, the engine's files, any process's arguments, store, spec, record."""
    workspace.jobs(
        j={
            "command": "echo up; until [ -e go ]; do sleep .1; done; echo $S $S >&2; echo ok > r",
            "image": shell_image,
            "python": None,
            "secrets": {"S": "env:SECRET"},
            "outputs": ["r"],
        }
    )
    process = workspace.start("run", "j", SECRET=SECRET)
    assert process.stderr
    early = b""
    try:
        for line in iter(process.stderr.readline, b""):
            early += line
            if line == b"up\n":
                break
        (container,) = workspace.containers()
        inspected = subprocess.run(["docker", "inspect", container], capture_output=True, check=True).stdout
        assert SECRET.encode() not in inspected
        engines_own = Path(json.loads(inspected)[0]["HostnamePath"]).parent
        assert places_with(engines_own, SECRET.encode()) == []
        for arguments in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                assert SECRET.encode() not in arguments.read_bytes()
            except OSError:
                continue
        assert places_with(workspace.root, SECRET.encode()) == []
        (scratch,) = workspace.store.glob("scratch/*/work")
        (scratch / "go").touch()
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert SECRET.encode() not in out + early + err
    assert b"*** ***" in err
    assert places_with(workspace.root, SECRET.encode()) == []


def test_what_is_recorded_of_a_secret(job: Any, workspace: Workspace) -> None:
    """Its name is state; where it came from and a keyed fingerprint are observations."""
    first, second = job("true", "--json").json, job("true", "--json", caller={"SECRET": "another value"}).json
    assert first["state_digest"] == second["state_digest"]
    specs = [workspace.replay("show", one["run_id"], "--json").json["spec"] for one in (first, second)]
    assert specs[0]["state"]["secrets"] == ["S"]
    seen = [spec["observed"]["access"]["secrets"]["S"] for spec in specs]
    assert seen[0]["from"] == "env:SECRET"
    assert seen[0]["fingerprint"] != seen[1]["fingerprint"]
    assert (workspace.store / "key").stat().st_mode & 0o077 == 0


def test_secrets_are_masked_in_logs_however_they_come(job: Any, workspace: Workspace) -> None:
    done = job("printf 'a s3cr3t-'; sleep .3; printf 'Zq8w-value b\\n'; echo $S$S; printf '%s' s3cr3t-Zq")
    assert done.code == 0, done
    assert "a *** b\n******\ns3cr3t-Zq" in done.err
    assert places_with(workspace.root, SECRET.encode()) == []


def test_outputs_that_hold_a_secret_are_set_apart(job: Any, workspace: Workspace) -> None:
    command = (
        "echo fine > good; echo x${S}y > bad; ln -s bad alias; mkdir d; echo 1 > d/$S; echo 2 > d/b;"
        " echo 3 > extra-$S; echo $S"
    )
    done = job(command, "--json", outputs=["good", "bad", "alias", "d", "stdout"])
    assert done.code == 4, done
    assert [one["path"] for one in done.json["outputs"]] == ["d/b", "good"]
    assert {(one["path"], one["problem"]) for one in done.json["problems"]} == {
        ("alias", "secret"), ("bad", "secret"), ("d/***", "secret"), ("stdout", "secret"),
    }  # fmt: skip
    assert done.json["undeclared"] == ["extra-***"]
    assert SECRET not in done.out + done.err
    assert places_with(workspace.root, SECRET.encode()) == []
    again = workspace.replay("replay", done.json["run_id"], SECRET=SECRET)
    assert SECRET not in again.out + again.err


@pytest.mark.parametrize("path", ["out", "stdout"])
def test_an_output_that_is_set_apart_is_compared_all_the_same(job: Any, workspace: Workspace, path: str) -> None:
    """What is not in the store is never called identical unseen; another secret of today is no difference."""
    command = 'echo "$S $(cat /proc/sys/kernel/random/uuid)" > out; cat out'
    done = job(command, "--json", outputs=[path])
    again = workspace.replay("replay", done.json["run_id"], "--json", SECRET=SECRET)
    assert (again.code, again.json["verdict"]) == (1, "nondeterministic"), again
    done = job('echo "$S steady" > out; cat out', "--json", outputs=[path])
    again = workspace.replay("replay", done.json["run_id"], "--json", SECRET="another value")
    assert (again.code, again.json["verdict"]) == (0, "identical"), again


def test_a_replay_takes_secrets_from_where_they_were(job: Any, workspace: Workspace) -> None:
    run_id = job("echo ${#S} > n", "--json", outputs=["n"]).json["run_id"]
    assert workspace.replay("replay", run_id, SECRET=SECRET).code == 0
    without = workspace.replay("replay", run_id)
    assert without.code == 2
    assert "SECRET is not set" in without.err


def test_secrets_that_cannot_be_had(job: Any, workspace: Workspace) -> None:
    workspace.write("nul", b"a\0b")
    workspace.write("empty", b"\n")
    for reference, words in (
        ("env:SECRET", "SECRET is not set"),
        ("file:absent", "absent"),
        ("file:nul", "NUL"),
        ("file:empty", "empty"),
        (SECRET, "no reference"),
    ):
        done = job("true", secrets={"S": reference}, caller={})
        assert (done.code, words in done.err) == (2, True), done
        assert "secret S" in done.err
        assert SECRET not in done.err, "a value given in place of a reference"
    assert not list(workspace.store.glob("runs/*"))


def test_an_image_without_a_shell_cannot_take_secrets(job: Any, bare_image: str, workspace: Workspace) -> None:
    done = job(["env"], image=bare_image)
    assert done.code == 4, done
    assert "could not be started" in done.out
    assert "'sh'" in done.out
    assert "secrets enter through the image's `sh`" in done.out
    assert SECRET not in done.out + done.err


def test_a_job_that_ends_before_it_takes_its_secrets(workspace: Workspace, shell_image: str) -> None:
    """Values larger than any pipe's buffer, and a shell that is interrupted while it reads them."""
    workspace.write("big", b"x" * 300_000)
    workspace.write(".gitignore", "big\n")
    workspace.git("init", "-q")
    workspace.jobs(
        j={
            "command": "true",
            "image": shell_image,
            "python": None,
            "secrets": {"S": "file:big"},
            "limits": {"time": 0.05},
        }
    )
    done = workspace.replay("run", "j", "--json", timeout=300)
    assert done.code == 4, done
    assert done.json["ending"] in ("time-limit", "exited")
