"""Podman as the engine, through its Docker API: the same suite, the same states, the same verdicts.

Each service has its storage in a folder of its own and its mounts in a namespace of its own, which go with it. Where
podman would set up a network, it does so in a network namespace: nothing of it stays on the machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from runner.errors import OutsideError
from runner.tools.containers import Engine, connect
from tests.conftest import ROOT, Done, Workspace, absent, until

pytestmark = [pytest.mark.engine, pytest.mark.slow]

SUITE = "execute signals secrets replay".split()

_RULES = "it would leave rules in the machine's firewall; an open network is tried below, in a namespace"
# What is not run against podman, and why.
DESELECTED = {
    "test_execute.py::test_a_job_that_takes_all_memory": "podman 4.3 looks for conmon's word of it in another folder",
    "test_execute.py::test_an_open_network_works_and_the_verdict_says_so": _RULES,
    "test_replay.py::test_a_service_outside_makes_it_diverge": _RULES,
    "test_replay.py::test_a_lost_image_names_the_places_tried": "it makes up a registry's digest: one more place",
}

OWNER = 4243
"""A user that the machine does not know; the rootless service and its callers do."""


class Service(NamedTuple):
    """A running service, and a folder that goes with it."""

    host: str
    folder: Path

    @property
    def env(self) -> dict[str, str]:
        return {"DOCKER_HOST": self.host}

    def engine(self) -> Engine:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_HOST", self.host)
            return connect()

    def left(self) -> list[str]:
        """Containers that are there now."""
        return [one["Id"] for one in self.engine()._client.containers(all=True)]


def _configuration() -> str:
    """Limits no higher than here, since some machines let nobody raise any; runc, since crun refuses hybrid cgroups."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most, here = int(Path("/proc/sys/kernel/pid_max").read_text()), resource.getrlimit(resource.RLIMIT_NPROC)[1]
    processes = most if here == resource.RLIM_INFINITY else min(most, here)
    return f"""
[containers]
default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}", "core=0:0"]
[engine]
{'runtime = "runc"' if shutil.which("runc") else ""}
helper_binaries_dir = ["/usr/libexec/podman", "/usr/lib/podman"]
events_logger = "file"
cgroup_manager = "cgroupfs"
[network]
network_backend = "netavark"
"""


@contextlib.contextmanager
def serving(*namespaces: str, become: Sequence[str] = (), before: str = "") -> Iterator[Service]:
    """`before` is run in the namespaces, as root; `become` starts the service as somebody else."""
    if os.getuid() != 0 or not shutil.which("podman") or not shutil.which("catatonit"):
        raise absent("this needs root, podman and catatonit")
    folder = Path(tempfile.mkdtemp(prefix="replay-podman-"))
    owner = OWNER if become else 0
    for name in ("home", "run", "storage", "t"):
        (folder / name).mkdir(mode=0o700)
    (folder / "containers.conf").write_text(_configuration())
    (folder / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/storage"\nrunroot = "{folder}/run"\n'
    )
    for path in (folder, *folder.iterdir()):
        os.chown(path, owner, owner)
    folder.chmod(0o755)
    host = f"unix://{folder}/socket"
    command = f"podman --tmpdir {folder}/run/tmp system service --time=0 {host}"
    places = {"HOME": f"{folder}/home", "XDG_RUNTIME_DIR": f"{folder}/run", "TMPDIR": f"{folder}/t"}
    places |= {"CONTAINERS_CONF": f"{folder}/containers.conf", "CONTAINERS_STORAGE_CONF": f"{folder}/storage.conf"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["unshare", "--mount", *namespaces, "sh", "-c", f'{before} exec "$@"', "sh", *become, *command.split()],
            cwd=folder,
            env=os.environ | places,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    service = Service(host, folder)

    def answering() -> bool:
        if process.poll() is not None:
            raise absent(f"podman cannot be started: {(folder / 'log').read_text()[-500:]}")
        with contextlib.suppress(OutsideError):
            service.engine()
            return True
        return False

    try:
        until(answering, "podman")
        yield service
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        _end_all(folder)
        process.wait(60)
        subprocess.run(["rm", "-rf", str(folder)], check=False)


def _end_all(folder: Path) -> None:
    """Rootless, podman goes on in processes of its own; their environment names the folder."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"TMPDIR={folder}/t\0".encode() in (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


@pytest.fixture(scope="module")
def podman(engine: Engine, shell_image: str) -> Iterator[Service]:
    """As root, in a network of its own."""
    with serving("--net") as service:
        service.engine().load(engine.save(shell_image))
        yield service


# --- the suite ------------------------------------------------------------------------------------------------


def test_the_same_suite_passes() -> None:
    with serving() as service:
        skip = [f"--deselect=tests/engine/{name}" for name in DESELECTED]
        files = [f"tests/engine/test_{name}.py" for name in SUITE]
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_") and k != "REPLAY_TESTS_UNTIL"}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", *skip, *files],
            cwd=ROOT,
            env=kept | service.env | {"TMPDIR": f"{service.folder}/t", "REPLAY_REQUIRE_ENGINE": "1"},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
        assert f"{len(DESELECTED)} deselected" in done.stdout, "each of them is still there"
        assert not service.left()


# --- both engines ---------------------------------------------------------------------------------------------

# What a job can find out about where it is; podman gives variables in any order, the shell sorts them.
LOOK = """
unset S; export -p
cat /etc/hosts /etc/hostname /etc/resolv.conf /etc/passwd /etc/group m.txt; pwd; id; ls -a /tmp "$HOME"
for d in / /run /var/tmp /etc /opt; do (echo x >$d/probe) 2>/dev/null && echo WROTE $d; done
while read -r a at type rest; do case $at in /dev/shm) echo "$at $type $rest";; esac; done </proc/mounts
while read -r key value; do case $key in Cap*|NoNewPrivs*|Seccomp:|Groups*|Uid*) echo "$key $value";; esac; done \
    </proc/self/status
cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ls /sys/class/net
mkdir out; echo 1 >out/a; ln -s a out/link; cp tool.sh out/
"""


@pytest.fixture
def looking(workspace: Workspace, shell_image: str) -> Workspace:
    workspace.write("m.txt", "model\n")
    workspace.write("tool.sh", "#!/bin/sh\n", 0o755)
    job = {"command": LOOK, "image": shell_image, "python": None, "model": ["m.txt"], "outputs": ["out", "stdout"]}
    workspace.jobs(j=job | {"secrets": {"S": "env:S"}, "limits": {"memory": "64m", "cpus": 1}})
    workspace.env["S"] = "secretvalue"
    return workspace


def _replayed(workspace: Workspace, run_id: str, env: dict[str, str]) -> dict[str, Any]:
    done = workspace.replay(run_id, "--json", **env)
    assert done.code == 0, done
    return done.json


def test_a_run_is_identical_on_the_other_engine(looking: Workspace, podman: Service) -> None:
    here, there = looking.run("j"), looking.run("j", **podman.env)
    for key in ("state_digest", "exit_code", "outputs", "undeclared", "ending"):
        assert here[key] == there[key], key
    said = (looking.store / "runs" / there["run_id"] / "stdout").read_text()
    assert "WROTE" not in said and "size=65536k" in said
    assert _replayed(looking, here["run_id"], podman.env)["verdict"] == "identical"
    assert _replayed(looking, there["run_id"], {})["verdict"] == "identical"
    assert not podman.left()


def test_the_image_travels_through_the_store(workspace: Workspace, own_image: Any, podman: Service) -> None:
    """Recorded on the one, the other gets it from the archive; and back, when the first has lost it."""
    job = {"command": "cat /own", "python": None, "outputs": ["stdout"]}
    workspace.jobs(j=job | {"image": own_image.tag})
    recorded = workspace.run("j")["run_id"]
    assert _replayed(workspace, recorded, podman.env)["verdict"] == "identical"
    there = podman.engine()
    (moved,) = (one for one in there.images() if one.identity.diff_ids == own_image.identity.diff_ids)
    assert moved.identity == own_image.identity
    own_image.remove()
    shutil.rmtree(workspace.store)
    workspace.jobs(j=job | {"image": moved.id})
    again = workspace.run("j", **podman.env)["run_id"]
    assert _replayed(workspace, again, {})["verdict"] == "identical"
    assert own_image.present()


def test_an_open_network_is_a_network(workspace: Workspace, shell_image: str, podman: Service) -> None:
    workspace.jobs(j={"command": "ls /sys/class/net", "image": shell_image, "python": None, "network": "open"})
    run = workspace.run("j", **podman.env)
    assert (workspace.store / "runs" / run["run_id"] / "stdout").read_text().split() == ["eth0", "lo"]


def test_doctor_recognises_it(workspace: Workspace, podman: Service) -> None:
    findings = workspace.replay("doctor", "--json", **podman.env).json["findings"]
    engine = next(one for one in findings if one["name"] == "engine")
    version = subprocess.run(["podman", "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
    assert engine["detail"] == f"podman {version} at {podman.host}"


# --- rootless -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rootless(engine: Engine, shell_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """As an ordinary user that only the service's own mount namespace knows."""
    if not shutil.which("newuidmap"):
        raise absent("newuidmap is not installed")
    names = tmp_path_factory.mktemp("names")
    (names / "passwd").write_text(f"root:x:0:0:root:/root:/bin/sh\nowner:x:{OWNER}:{OWNER}::/:/bin/sh\n")
    (names / "group").write_text(f"root:x:0:\nowner:x:{OWNER}:\n")
    for name in ("subuid", "subgid"):
        (names / name).write_text("owner:1000000:65536\n")
        Path("/etc", name).touch()
    known = "".join(f"mount --bind {names}/{name} /etc/{name} && " for name in ("passwd", "group", "subuid", "subgid"))
    become = ["setpriv", f"--reuid={OWNER}", f"--regid={OWNER}", "--clear-groups"]
    with serving(become=become, before=known) as service:
        service.engine().load(engine.save(shell_image))
        yield service


def _as_owner(workspace: Workspace, service: Service, *arguments: str) -> Done:
    """The right to read is for an interpreter that lies in root's home."""
    reading = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    become = ["setpriv", f"--reuid={OWNER}", f"--regid={OWNER}", "--clear-groups", *reading]
    return Done(
        subprocess.run(
            [*become, *workspace.command(*arguments, "--json")],
            cwd=workspace.root,
            env=workspace.env | service.env | {"HOME": str(workspace.root), "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    )


@pytest.fixture
def owned(rootless: Service, shell_image: str) -> Iterator[Workspace]:
    """A workspace of the service's user."""
    with tempfile.TemporaryDirectory(prefix="replay-tests-") as folder:
        made = Workspace(Path(folder) / "work")
        job = {"command": "id -u; mkdir out; echo 1 >out/a; touch left", "image": shell_image, "python": None}
        limited = {name: job | {"limits": {name: 64 << 20}} for name in ("memory", "processes")}
        made.jobs(j=job | {"outputs": ["out", "stdout"]}, **limited)
        subprocess.run(["chown", "-R", f"{OWNER}:{OWNER}", folder], check=True)
        yield made


def test_outputs_of_a_rootless_engine_are_the_callers(owned: Workspace, rootless: Service) -> None:
    done = _as_owner(owned, rootless, "run", "j")
    assert done.code == 0, done
    run_id = done.json["run_id"]
    assert (owned.store / "runs" / run_id / "stdout").read_text() == f"{OWNER}\n"
    replayed = _as_owner(owned, rootless, run_id)
    assert (replayed.code, replayed.json["verdict"]) == (0, "identical"), replayed
    assert {path.lstat().st_uid for path in owned.root.rglob("*")} == {OWNER}
    assert not list((owned.store / "scratch").iterdir())
    assert not rootless.left()


def test_a_limit_that_would_not_hold_is_refused(owned: Workspace, rootless: Service) -> None:
    """On cgroup v1; where limits hold, the jobs run."""
    info = rootless.engine().info()
    assert info["Rootless"]
    for name in ("memory", "processes"):
        done = _as_owner(owned, rootless, "run", name)
        if info["CgroupVersion"] == "1":
            assert done.code == 7 and f"limits.{name}" in done.json["error"]["what"], done
            assert "cgroup v1" in done.json["error"]["why"] and done.json["error"]["next"]
        else:
            assert done.code == 0, done
    findings = {one["name"]: one for one in json.loads(_as_owner(owned, rootless, "doctor").out)["findings"]}
    assert ", rootless, at " in findings["engine"]["detail"]
    assert ("limits" in findings) == (info["CgroupVersion"] == "1")
