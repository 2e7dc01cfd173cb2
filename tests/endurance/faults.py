"""What the fault tests break: an engine that can be stopped, killed and frozen, and disks that can be filled.

All of it is real and this test run's own: no other process's engine or file system is touched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runner.errors import OutsideError
from runner.tools.containers import Engine, connect
from tests.conftest import Workspace, absent, until


def need_root(*programs: str) -> None:
    """A test that mounts or starts an engine cannot run without."""
    missing = [program for program in programs if not shutil.which(program)]
    if os.getuid() != 0 or missing:
        raise absent(f"needs root{' and ' if missing else ''}{', '.join(missing)}")


class OwnEngine:
    """An engine that sees this machine's files and can be ended and started again, its images kept.

    It lives in namespaces of a holder, a process that does nothing: a network of its own, or it would remove the
    default bridge of the machine's engine, and process ids of its own, so that whatever is left of it ends with
    the holder.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.socket = place / "socket"
        self.env = {"DOCKER_HOST": f"unix://{self.socket}"}
        self._daemon: subprocess.Popen[bytes] | None = None
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sleep", "infinity"],
            start_new_session=True,
        )
        self._inside = until(lambda: _only_child(self._holder.pid), "the holder of the engine's namespaces")

    def revive(self) -> None:
        """Have it answer again, whatever was done to it."""
        if self._daemon and self._daemon.poll() is None:
            self.signal(signal.SIGCONT)
            if not self.socket.exists():
                self.end(signal.SIGTERM)
        self.start()

    def engine(self) -> Engine:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_HOST", self.env["DOCKER_HOST"])
            return connect()

    def containers(self) -> list[str]:
        return [entry["Id"] for entry in self.engine()._client.containers(all=True)]

    def docker(self, *arguments: str) -> None:
        subprocess.run(["docker", *arguments], env=os.environ | self.env, check=True, capture_output=True)

    def start(self) -> Engine:
        """Start it, unless it runs, and wait until it answers."""
        if self._daemon is None or self._daemon.poll() is not None:
            # A killed engine leaves these, and in a small namespace their number is soon somebody else's.
            for stale in (self.place / "pid", self.place / "run" / "containerd" / "containerd.pid"):
                stale.unlink(missing_ok=True)
            command = f"dockerd --data-root {self.place}/data --exec-root {self.place}/run --pidfile {self.place}/pid"
            command += f" --host unix://{self.socket} --bridge=none --iptables=false --ip-forward=false --ip-masq=false"
            self._enter(command.split())
        return self._answering()

    def signal(self, number: signal.Signals) -> None:
        """To the engine alone: what runs in its containers is told by it, or not at all."""
        assert self._daemon
        os.kill(until(lambda: _only_child(self._daemon.pid), "the engine's process"), number)
        if number == signal.SIGCONT:  # nsenter stops itself when its child is stopped
            self._daemon.send_signal(number)

    def end(self, number: signal.Signals) -> None:
        """End it, and return when it is gone."""
        self.signal(number)
        assert self._daemon
        self._daemon.wait(300)

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait(120)
        if self._daemon:
            self._daemon.kill()
            self._daemon.wait(120)
        shutil.rmtree(self.place, ignore_errors=True)

    def _enter(self, command: list[str]) -> None:
        enter = ["nsenter", "--target", str(self._inside), "--mount", "--net", "--pid"]
        with (self.place / "log").open("ab") as log:
            self._daemon = subprocess.Popen(
                [*enter, *command], stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def _answering(self) -> Engine:
        def answers() -> Engine | None:
            if self._daemon and self._daemon.poll() is not None:
                raise absent(f"a second engine cannot be started: {(self.place / 'log').read_text()[-500:]}")
            with contextlib.suppress(OutsideError):
                return self.engine()
            return None

        return until(answers, "the second engine")


def _only_child(pid: int) -> int | None:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(found[0]) if found else None


@contextmanager
def own_engine(engine: Engine, image: str) -> Iterator[OwnEngine]:
    """A running engine of one's own that holds one image of the machine's."""
    need_root("dockerd", "docker", "unshare", "nsenter")
    made = OwnEngine(Path(tempfile.mkdtemp(prefix="replay-faults-")))
    try:
        made.start().load(engine.save(image))
        yield made
    finally:
        made.close()


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A mount at `folder` while this lasts: `mount OPTIONS FOLDER`."""
    need_root("mount", "umount")
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise absent(f"cannot mount: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)


def tmpfs(folder: Path, size: str = "2g", inodes: int = 0) -> contextlib.AbstractContextManager[Path]:
    """A file system in memory with a limit on its bytes and, if given, on its files."""
    return mounted(folder, "-t", "tmpfs", "-o", f"size={size},nr_inodes={inodes}", "none")


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True, capture_output=True)


def started(workspace: Workspace, *arguments: str, **env: str) -> subprocess.Popen[bytes]:
    """A command whose job has said that it is up."""
    process = workspace.start(*arguments, **env)
    assert process.stderr
    said = b""
    for line in iter(process.stderr.readline, b""):
        said += line
        if line == b"ready\n":
            return process
    process.communicate()
    raise AssertionError(f"the job never started: {said!r}")


def nothing_left(workspace: Workspace) -> None:
    """No scratch folder and no temporary file."""
    store = workspace.store
    left = [path for name in ("scratch", "tmp", "cache/tmp") for path in _entries(store / name)]
    left += list(store.rglob("*.tmp"))
    assert not left, f"left behind: {left}"


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []
