"""Confinement, tried from inside: hostile jobs on a real engine, many attempts in each.

The README's table "What a job cannot do" names these tests.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.execute import disk_watch, job_owner
from runner.store.files import remove_tree
from runner.store.runs import Run
from runner.store.store import open_store
from runner.tools.containers import Engine
from tests.conftest import Done, Workspace, absent, small_files, tar_of, until
from tests.engine.conftest import Recorded, copy_store

pytestmark = pytest.mark.engine

Report = dict[str, Any]
HOSTILE = Path(__file__).with_name("hostile_job.py")
MARKER = "marker-of-the-host-4711"
NOT_REACHED = {errno.errorcode[code] for code in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ELOOP)}
NOT_WRITTEN = {"EROFS", "EACCES", "EPERM", "ENOENT", "EISDIR", "ENOTDIR"}
NOT_GIVEN = {"EPERM", "ENOSYS", "EACCES"}


# --- one hostile job, shut in and with an open network --------------------------------------------------------


class Host:
    """What a job is to look for: services on every kind of address, files, and the marker."""

    def __init__(self, folder: Path) -> None:
        self.paths = [str(folder / "of-the-host")]
        Path(self.paths[0]).write_text(MARKER)
        self.abstract = f"replay-tests-{os.urandom(6).hex()}"
        self._unix = socket.socket(socket.AF_UNIX)
        self._unix.bind("\0" + self.abstract)
        self._unix.listen()
        self._loopback = socket.create_server(("127.0.0.1", 0))
        self.port = self._loopback.getsockname()[1]
        threading.Thread(target=self._refuse, daemon=True).start()

    def _refuse(self) -> None:
        while True:
            try:
                self._loopback.accept()[0].close()
            except OSError:
                return

    def close(self) -> None:
        self._loopback.shutdown(socket.SHUT_RDWR)
        self._loopback.close()
        self._unix.close()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    made = Host(tmp_path_factory.mktemp("host"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def attacked(
    host: Host, engine: Engine, python311: str, python_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Workspace:
    if os.uname().machine != "x86_64":
        raise absent("the hostile job knows the system calls of x86-64 only")
    made = Workspace(tmp_path_factory.mktemp("attacked"))
    copy_store(python_store, made.store)
    networks = engine._client.networks(names=["bridge"])
    given = {
        "port": host.port,
        "gateway": networks[0]["IPAM"]["Config"][0].get("Gateway", "172.17.0.1") if networks else "172.17.0.1",
        "abstract": host.abstract,
        "marker backwards": MARKER[::-1],
        "sockets": ["/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock"],
        "paths": [*host.paths, str(made.store), "/var/lib/docker", "/run/docker", "/root/.ssh", str(made.root)],
        "store": str(made.store),
    }
    made.write("hostile.py", HOSTILE.read_text())
    job = {"command": ["python3", "hostile.py"], "image": python311, "env": {"GIVEN": json.dumps(given)}}
    made.jobs(none=job, open=job | {"network": "open"})
    return made


def report(workspace: Workspace, job: str) -> Report:
    done = workspace.replay("run", job, "--json", MARKER=MARKER)
    assert done.code == 0, done
    found: Report = json.loads((workspace.store / "runs" / done.json["run_id"] / "stdout").read_text())
    return found


@pytest.fixture(scope="module")
def shut_in(attacked: Workspace) -> Report:
    return report(attacked, "none")


def unlike(found: dict[str, str], wanted: set[str]) -> dict[str, str]:
    return {name: what for name, what in found.items() if what not in wanted}


def test_network_none_reaches_nothing(shut_in: Report) -> None:
    found = dict(shut_in["network"])
    assert found.pop("other interfaces") == "[]"
    assert "got" not in found.pop("dns")
    assert unlike(found, {"ENETUNREACH", "ECONNREFUSED", "EPERM", "ENOENT", "EADDRNOTAVAIL"}) == {}


def test_network_open_does_not_reach_the_hosts_own_services(attacked: Workspace) -> None:
    found = report(attacked, "open")["network"]
    assert found["other interfaces"] == "['eth0']"
    closed = [name for name in found if name.startswith("socket ") or " 127.0.0.1:" in name]
    closed += ["abstract socket of the host", "raw socket", "packet socket"]
    assert len(closed) > 6
    assert unlike({name: found[name] for name in closed}, {"ECONNREFUSED", "EPERM", "ENOENT"}) == {}


def test_files_of_the_host_are_not_there(shut_in: Report) -> None:
    assert len(shut_in["files"]) > 50
    assert unlike(shut_in["files"], NOT_REACHED) == {}


def test_nothing_but_its_own_folders_can_be_written(shut_in: Report) -> None:
    assert shut_in["writable"] == []
    assert len(shut_in["switches"]) > 40
    assert unlike(shut_in["switches"], NOT_WRITTEN) == {}


def test_no_right_of_root_can_be_had(shut_in: Report) -> None:
    assert len(shut_in["rights"]) > 50
    assert unlike(shut_in["rights"], NOT_GIVEN) == {}


def test_other_processes_and_their_memory_are_out_of_sight(shut_in: Report) -> None:
    found = shut_in["others"]
    here = {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")}
    for name in ("cgroup", "ipc", "mnt", "net", "pid", "uts"):
        assert found["namespaces"][name] != here[name], name
    assert found["processes"] == 2, "init and the job"
    for name in ("shared memory", "message queues", "system v", "abstract sockets"):
        assert found[name] == [], name
    assert {line.split(":")[2].split("/docker")[0] for line in found["cgroup"].splitlines()} <= {"/", "/.."}
    assert set(found["devices"]) <= set(
        "console core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero".split()
    )
    status = found["status"]
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert status["Groups"].split() == [str(os.getgid() or 1000)]


# --- what the engine is asked for -----------------------------------------------------------------------------


def test_the_container_is_made_as_hardening_guides_say(
    engine: Engine, workspace: Workspace, shell_image: str, tmp_path: Path
) -> None:
    workspace.jobs(j={"command": "echo up; sleep 600", "image": shell_image, "python": None})
    process = workspace.start("run", "j")
    try:
        until(lambda: any(one.stat().st_size for one in workspace.store.glob("runs/*/stdout")), "the job's first word")
        (container,) = workspace.containers()  # not before: one that looks into the image comes and goes
        found = engine._client.inspect_container(container)
        scratch = workspace.store / "scratch"
        assert scratch.stat().st_mode & 0o77 == 0, "a set-uid file there is for nobody else to run"
    finally:
        process.terminate()
        process.communicate(timeout=300)
    host = found["HostConfig"]
    wanted = {
        "Privileged": False,
        "CapAdd": None,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],  # and no word of seccomp: the engine's own profile holds
        "ReadonlyRootfs": True,
        "NetworkMode": "none",
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "PidMode": "",
        "UTSMode": "",
        "UsernsMode": "",
        "Init": True,
        "PidsLimit": 4096,
        "OomScoreAdj": 1000,
        "OomKillDisable": False,
        "AutoRemove": False,
        "PublishAllPorts": False,
        "VolumesFrom": None,
        "Devices": None,
        "DeviceRequests": None,
        "DeviceCgroupRules": None,
        "GroupAdd": None,
        "ExtraHosts": None,
        "Sysctls": None,
    }
    assert {name: host.get(name) or value for name, value in wanted.items()} == wanted
    assert {name: host.get(name) for name in wanted if wanted[name]} == {n: v for n, v in wanted.items() if v}
    assert [(one["Name"], one["Hard"], one["Soft"]) for one in host["Ulimits"]] == [("core", 0, 0)]
    assert {"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"} <= set(host["MaskedPaths"])
    assert {"/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"} <= set(host["ReadonlyPaths"])
    written = {mount["Destination"] for mount in found["Mounts"] if mount["RW"]}
    assert written == {"/workspace", "/home/replay", "/tmp"}
    assert all(Path(mount["Source"]).is_relative_to(scratch) for mount in found["Mounts"])
    assert found["Config"]["User"] == f"{os.getuid() or 1000}:{os.getgid() or 1000}"
    assert not found["Config"]["Tty"]


def test_set_uid_programs_and_devices_of_an_image_give_nothing(
    engine: Engine, workspace: Workspace, tmp_path: Path
) -> None:
    files, links = small_files()
    path = next(name for name in files if name.endswith("/id"))
    content = tar_of(files | {"planted/id": (files[path][0], 0o6755)}, links)
    disks = [os.stat(f"/dev/{name}").st_rdev for name in ("vda", "sda", "nvme0n1") if os.path.exists(f"/dev/{name}")]
    nodes = {"mem": os.makedev(1, 1), "kmsg": os.makedev(1, 11), "disk": (disks or [os.makedev(8, 0)])[0]}
    tag = f"replay-tests/planted:{os.urandom(4).hex()}"
    engine.import_tar(_with_devices(content, nodes, tmp_path / "image.tar"), tag, ["ENV PATH=/usr/bin:/bin"])
    try:
        command = (
            "/planted/id -u; /planted/id -g; for n in mem kmsg disk; do head -c 1 /planted/$n && echo GOT $n; done"
        )
        workspace.jobs(j={"command": f"{command}; true", "image": tag, "python": None})
        done = workspace.replay("run", "j", "--json")
        run = workspace.store / "runs" / done.json["run_id"]
        assert (run / "stdout").read_text() == f"{os.getuid() or 1000}\n{os.getgid() or 1000}\n"
        assert (run / "stderr").read_text().count("Operation not permitted") == 3
    finally:
        engine.remove_image(tag)


def _with_devices(content: bytes, nodes: dict[str, int], place: Path) -> Path:
    place.write_bytes(content)
    with tarfile.open(place, "a", format=tarfile.GNU_FORMAT) as tar:
        for name, device in nodes.items():
            info = tarfile.TarInfo(f"planted/{name}")
            info.type = tarfile.BLKTYPE if name == "disk" else tarfile.CHRTYPE
            info.mode, info.devmajor, info.devminor = 0o666, os.major(device), os.minor(device)
            tar.addfile(info)
    return place


# --- other runs -----------------------------------------------------------------------------------------------


def test_two_runs_at_once_do_not_see_each_other(workspace: Workspace, shell_image: str) -> None:
    base = {"image": shell_image, "python": None}
    first = "echo mine > $HOME/f; echo mine > /tmp/f; echo mine > /dev/shm/f; echo mine > f; echo up; sleep 600"
    workspace.jobs(first=base | {"command": first})
    process = workspace.start("run", "first")
    try:
        (log,) = until(lambda: list(workspace.store.glob("runs/*/stdout")), "the log")
        until(lambda: log.read_bytes() == b"up\n", "the first job")
        (scratch,) = (workspace.store / "scratch").iterdir()
        look = (
            "cat f $HOME/f /tmp/f /dev/shm/f $PLACE/work/f; ls -a . $HOME /tmp /dev/shm $PLACE; ls -d /proc/[0-9]*;"
            "cat /proc/[0-9]*/root$PLACE/work/f /workspace/../f ../../home/f; kill -9 -1; true"
        )
        workspace.jobs(second=base | {"command": ["sh", "-c", look], "env": {"PLACE": str(scratch)}})
        done = workspace.replay("run", "second", "--json")
        assert done.code in (0, 4), done
        said = (workspace.store / "runs" / done.json["run_id"] / "stdout").read_text()
        assert "mine" not in said and "f" not in said.split()
        assert process.poll() is None, "the first was not killed"
    finally:
        process.terminate()
        process.communicate(timeout=300)


POISON = """
import ctypes, glob, json, os, subprocess, sys
targets = [sys.argv[1], *glob.glob('/opt/replay/env/lib/python3*/site-packages/alpha*')]
targets += glob.glob('/opt/replay/env/lib/python3*/site-packages/__pycache__/alpha*')
assert len(targets) > 2, targets
libc, done = ctypes.CDLL(None, use_errno=True), []
def by_descriptor(path):
    with open(path, 'rb') as file:
        os.close(os.open(f'/proc/self/fd/{file.fileno()}', os.O_WRONLY))
def link_by_descriptor(path):
    with open(path, 'rb') as file:
        os.link(f'/proc/self/fd/{file.fileno()}', '/workspace/hard', follow_symlinks=True)
ways = {
    'write': lambda p: open(p, 'r+b'), 'append': lambda p: open(p, 'ab'), 'truncate': lambda p: os.truncate(p, 0),
    'chmod': lambda p: os.chmod(p, 0o777), 'utime': lambda p: os.utime(p, (1, 1)),
    'attribute': lambda p: os.setxattr(p, 'user.x', b'x'),
    'unlink': os.unlink, 'rename': lambda p: os.rename(p, p + 'x'),
    'move': lambda p: os.rename(p, '/workspace/moved'), 'replace': lambda p: os.rename(sys.argv[0], p),
    'link': lambda p: os.link(p, '/workspace/hard'), 'link in tmp': lambda p: os.link(p, '/tmp/hard'),
    'link by descriptor': link_by_descriptor, 'descriptor': by_descriptor,
    'beside': lambda p: open(os.path.dirname(p) + '/planted.pth', 'w') if 'site-packages' in p else open(p, 'a'),
    'chown': lambda p: os.chown(p, os.getuid(), os.getgid()),
}
for path in filter(os.path.isfile, targets):
    for name, way in ways.items():
        try:
            way(path)
            done.append(f'{name} {path}')
        except OSError:
            pass
import alpha
print(json.dumps([done, alpha.VALUE, len(targets)]))
"""


def test_packages_byte_code_and_data_cannot_be_poisoned_for_the_next_run(packaged: Recorded, python311: str) -> None:
    """Nor can a link be made that would outlive the mount; all that belongs to the job's user, as it does for a
    caller who is not root."""
    packaged.write("poison.py", POISON)
    job = {"image": python311, "dependencies": "requirements.in", "data": ["d.csv"]}
    packaged.jobs(poison=job | {"command": ["python", "poison.py", "d.csv"]})
    for path in (*packaged.store.glob("cache/**/*"), *packaged.store.glob("blobs/*/*")):
        os.chown(path, *job_owner(), follow_symlinks=False)
    before = below_roots(packaged)
    done = packaged.replay("run", "poison", "--json", PIP_CONFIG_FILE="/dev/null", PIP_INDEX_URL="http://127.0.0.1:1")
    assert done.code == 0, done
    got, value, targets = json.loads((packaged.store / "runs" / done.json["run_id"] / "stdout").read_text())
    assert (got, value) == ([], "alpha 1.0")
    assert targets >= 3
    assert len(before) > targets and below_roots(packaged) == before
    assert packaged.replayed("py")["verdict"] == "identical"


def below_roots(workspace: Workspace) -> dict[Path, tuple[bytes, int, int]]:
    """What is mounted: unpacked wheels, environments, views of data."""
    files = (path for path in workspace.store.glob("cache/*/*/root/**/*") if path.is_file() and not path.is_symlink())
    return {path: (path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns) for path in files}


# --- more than allowed ----------------------------------------------------------------------------------------

GREEDY = """
import json, mmap, os, resource, sys, threading
def anonymous(): bytearray(256 << 20)
def in_a_memfd():
    fd = os.memfd_create('x')
    os.ftruncate(fd, 256 << 20)
    shared = mmap.mmap(fd, 256 << 20)
    while True: shared.write(bytes(1 << 20))
def in_shared_memory():
    with open('/dev/shm/x', 'wb') as file:
        for _ in range(256): file.write(bytes(1 << 20)); file.flush()
def files():
    kept = []
    while True: kept.append(os.open('/dev/null', 0))
def more_files():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY: raise OSError(1, '')
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard + 1, hard + 1))
def processes():
    children = []
    try:
        while len(children) < 1000:
            child = os.fork()
            if not child: threading.Event().wait()
            children.append(child)
    finally:
        for child in children: os.kill(child, 9); os.waitpid(child, 0)
def threads():
    while True: threading.Thread(target=threading.Event().wait, daemon=True).start()
def in_child(way):
    child = os.fork()
    if not child:
        try: way(); os._exit(0)
        except OSError as error: os._exit(error.errno)
        except RuntimeError: os._exit(11)
        except ValueError: os._exit(1)
    status = os.waitpid(child, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
ways = (anonymous, in_a_memfd, in_shared_memory, files, more_files, processes, threads)
print(json.dumps({way.__name__: in_child(way) for way in ways}))
"""


def test_memory_processes_and_open_files_end_at_their_limits(python_workspace: Workspace) -> None:
    python_workspace.write("greedy.py", GREEDY)
    limits = {"memory": "64m", "shm": "8m", "processes": 40}
    job = {"command": ["python3", "greedy.py"], "image": python_workspace.image, "limits": limits}  # type: ignore[attr-defined]
    python_workspace.jobs(j=job)
    done = python_workspace.replay("run", "j", "--json")
    assert done.code == 0, done
    found = json.loads((python_workspace.store / "runs" / done.json["run_id"] / "stdout").read_text())
    assert found == {
        "anonymous": -signal.SIGKILL,
        "in_a_memfd": -signal.SIGKILL,
        "in_shared_memory": errno.ENOSPC,
        "files": errno.EMFILE,
        "more_files": errno.EPERM,
        "processes": errno.EAGAIN,
        "threads": errno.EAGAIN,
    }


def test_a_fork_bomb_is_ended(workspace: Workspace, shell_image: str) -> None:
    command = "f() { f | f & }; f; while :; do sleep 1; done"
    limits = {"processes": 30, "time": "3s"}
    workspace.jobs(j={"command": command, "image": shell_image, "python": None, "limits": limits})
    done = workspace.replay("run", "j", "--json")
    # A shell that cannot fork any more may end by itself.
    assert done.code == 4 and done.json["ending"] in ("time-limit", "exited"), done
    assert b"fork" in (workspace.store / "runs" / done.json["run_id"] / "stderr").read_bytes()


FILLS = {
    "folders": "i=0; while [ $i -lt 4000 ]; do mkdir d$i; i=$((i+1)); done; sleep 600",
    "logs": "while :; do echo 0123456789012345678901234567890123456789012345678901234567890123456789; done",
    "small writes": "while :; do printf x >&2; done",
    "home": "head -c 9000000 /dev/zero > $HOME/f; sleep 600",
    "tmp": "head -c 9000000 /dev/zero > /tmp/f; sleep 600",
}


@pytest.mark.parametrize("kind", FILLS)
def test_the_disk_limit_counts_everything(workspace: Workspace, shell_image: str, kind: str) -> None:
    limits = {"disk": "8m" if kind != "small writes" else "200k"}
    workspace.jobs(j={"command": FILLS[kind], "image": shell_image, "python": None, "limits": limits})
    done = workspace.replay("run", "j", "--json")
    assert (done.code, done.json["ending"]) == (4, "disk-full"), done
    assert sum(path.stat().st_size for path in workspace.store.glob("runs/*/std*")) < 1 << 30


@pytest.mark.parametrize("ends", ["bytes", "files"])
def test_what_the_machine_needs_of_its_disk_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str) -> None:
    store = open_store(tmp_path / ".replay", create=True)
    run = Run(store, "r", None)
    (run.scratch / "work").mkdir(parents=True)
    run.folder.mkdir(parents=True)
    watch = disk_watch(run, None)
    real = os.statvfs(store.folder)
    little = {"bytes": {4: (511 << 20) // real.f_frsize}, "files": {7: 9_000}}[ends]
    plenty = {4: (1 << 40) // real.f_frsize, 5: 1 << 20, 7: 1 << 20}
    for changed, wanted in ((plenty, None), (plenty | little, "disk-full"), (plenty | {5: 0, 7: 0}, None)):
        seen = os.statvfs_result([changed.get(i, value) for i, value in enumerate(real)])
        monkeypatch.setattr(os, "statvfs", lambda _path, seen=seen: seen)
        assert watch() == wanted


# --- outputs ---------------------------------------------------------------------------------------------------

LEAVES = r"""
import os, socket, subprocess, sys
def name(raw): return os.path.join(b'out', raw)
os.makedirs('out/closed'); os.makedirs('deep'); os.makedirs('many')
names = b'new\nline', b'\x1b]0;owned\x07\x1b[2J', b'\xff\xfe', '\u202egpj.exe'.encode(), b'c1\xc2\x9b2J', b'l' * 255
for raw in names:
    open(name(raw), 'w').write('x')
    open(b'un' + raw[:250], 'w').write('x')
open('out/tool', 'w').write('#!/bin/sh\n'); os.chmod('out/tool', 0o6755)
open('out/closed/f', 'w').write('x'); os.chmod('out/closed/f', 0); os.chmod('out/closed', 0)
for target in ('/etc/shadow', '/proc/1/environ', '/proc/self/root/etc/passwd', '../../../store.json', '../../key',
               '/workspace/../etc/passwd', '/dev/zero', sys.argv[1]):
    os.symlink(target, 'out/to' + str(len(os.listdir('out'))))
os.mkfifo('out/fifo')
socket.socket(socket.AF_UNIX).bind('out/socket')
try: os.mknod('out/device', 0o20666, os.makedev(1, 5))
except OSError: pass
with open('out/holes', 'wb') as file: file.truncate(1 << 43)
os.link('out/holes', 'out/holes again')
for source in ('/etc/passwd', '/etc/shadow', sys.executable):
    try: os.link(source, 'out/hard')
    except OSError: pass
here = os.open('deep', os.O_RDONLY)
for _ in range(3000):
    os.mkdir('d', dir_fd=here)
    here, before = os.open('d', os.O_RDONLY, dir_fd=here), here
    os.close(before)
for i in range(int(sys.argv[2])): os.close(os.open(f'many/{i}', os.O_CREAT))
sys.stdout.buffer.write(b'\x1b]0;owned\x07\x1b[2J\xc2\x9b2J\x9b\r\n'); sys.stdout.flush()
if not os.fork():
    os.setsid(); os.close(1); os.close(2)
    while True:
        with open('out/changing', 'w') as file: file.write('x' * 100000)
        os.path.lexists('out/swap') and os.unlink('out/swap')
        os.symlink('/etc/shadow', 'out/swap'); os.unlink('out/swap'); open('out/swap', 'w').write('x')
while not os.path.exists('out/swap'): pass
"""


@pytest.fixture
def littered(python_workspace: Workspace) -> tuple[Workspace, Done]:
    """What the worst job left, recorded."""
    here = python_workspace
    here.write("leaves.py", LEAVES)
    command = ["python3", "leaves.py", str(here.store / "store.json"), "20000"]
    here.jobs(j={"command": command, "image": here.image, "outputs": ["out", "deep", "many", "stdout"]})  # type: ignore[attr-defined]
    return here, here.replay("run", "j", "--json")


def test_outputs_lead_nowhere_and_break_nothing(littered: tuple[Workspace, Done], tmp_path: Path) -> None:
    here, done = littered
    assert done.code == 4, done
    taken = {one["path"]: one["size"] for one in done.json["outputs"]}
    assert len([path for path in taken if path.startswith("many/")]) == 20_000
    rest = {path for path in taken if not path.startswith("many/")}
    assert rest - {"out/changing", "out/swap"} == {"out/tool", "out/closed/f", "out/" + "l" * 255, "stdout"}
    kinds = sorted(one["problem"] for one in done.json["problems"] if one["path"] != "out/swap")
    assert {kind: kinds.count(kind) for kind in kinds} == {"outside": 8, "special": 2, "unreadable": 8}
    to = tmp_path / "to"
    assert here.replay("outputs", "j-", "--to", str(to)).code == 0
    assert (to / "out/tool").stat().st_mode & 0o7777 == 0o755
    assert (
        here.blob(next(o["sha256"] for o in done.json["outputs"] if o["path"] == "out/tool")).stat().st_mode & 0o7000
        == 0
    )
    assert not [path for path in to.rglob("*") if path.is_symlink()]


def test_no_terminal_obeys_what_a_job_left(littered: tuple[Workspace, Done]) -> None:
    here, _ = littered
    for arguments in (["ls"], ["show", "j-"], ["show", "j-", "--json"], ["outputs", "j-"], ["logs", "j-"]):
        assert unprintable(on_a_terminal(here, *arguments)) == set(), arguments
    piped = subprocess.run(here.command("logs", "j-"), cwd=here.root, env=here.env, capture_output=True, check=True)
    assert piped.stdout == b"\x1b]0;owned\x07\x1b[2J\xc2\x9b2J\x9b\r\n", "a pipe gets every byte"


def test_no_terminal_obeys_what_a_job_prints(workspace: Workspace, shell_image: str) -> None:
    says = r"printf '\033]0;owned\007\033[2J\302\2332J\233caf\303'; printf '\251\n'; printf '\342\200\256' >&2"
    forged = r"printf '[FATAL tini (7)] exec \033[2J failed: \033c\n' >&2; exit 127"
    base = {"image": shell_image, "python": None}
    workspace.jobs(says=base | {"command": says}, forged=base | {"command": forged})
    said = on_a_terminal(workspace, "run", "says")
    assert unprintable(said) == set()
    assert rb"\x1b]0;owned\x07\x1b[2J\x9b2J\x9bcaf" in said and "café\r\n".encode() in said and rb"\u202e" in said
    assert unprintable(on_a_terminal(workspace, "run", "forged")) == set()


def on_a_terminal(workspace: Workspace, *arguments: str) -> bytes:
    """All that a terminal is sent by the command."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        workspace.command(*arguments), cwd=workspace.root, env=workspace.env, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    sent = bytearray()
    try:
        while data := os.read(ours, 1 << 16):
            sent += data
    except OSError:
        pass  # the other side was closed
    finally:
        os.close(ours)
        process.wait(120)
    return bytes(sent)


def unprintable(sent: bytes) -> set[str]:
    return {c for c in sent.decode() if not c.isprintable()} - {"\r", "\n", "\t"}


def test_a_forged_start_error_does_not_carry_a_secret_out(workspace: Workspace, shell_image: str) -> None:
    forged = 'echo "[FATAL tini (7)] exec $KEY failed: $KEY" >&2; exit 127'
    job = {"command": forged, "image": shell_image, "python": None, "secrets": {"KEY": "env:KEY"}}
    workspace.jobs(j=job)
    done = workspace.replay("run", "j", "--json", KEY="planted-secret")
    assert done.code == 4
    for file in (path for path in workspace.root.rglob("*") if path.is_file()):
        assert b"planted-secret" not in file.read_bytes(), file
    assert "planted-secret" not in done.out + done.err


def test_removal_follows_no_link_that_is_swapped_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a job that outlives its engine: between a look at the folder and its use, it is a link elsewhere."""
    outside = tmp_path / "outside"
    (outside / "inner").mkdir(parents=True)
    (outside / "kept").touch()
    outside.chmod(0o755)
    (tmp_path / "left/d").mkdir(parents=True)
    list_folder = os.scandir

    def swap(folder: int | str) -> Any:
        with list_folder(folder) as listed:
            entries = list(listed)
        place = Path(f"/proc/self/fd/{folder}" if isinstance(folder, int) else folder)
        if any(entry.name == "d" for entry in entries):
            (place / "d").rename(place / "was")
            (place / "d").symlink_to(outside)
        return contextlib.nullcontext(entries)

    monkeypatch.setattr(os, "scandir", swap)
    with contextlib.suppress(OSError):
        remove_tree(tmp_path / "left")
    assert sorted(os.listdir(outside)) == ["inner", "kept"]
    assert outside.stat().st_mode & 0o777 == 0o755
