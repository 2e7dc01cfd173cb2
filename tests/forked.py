"""Commands in processes of their own, forked from one that has imported what they need.

Most commands of the tests work for a tenth of a second, behind three tenths of imports. What is forked has the
arguments, environment and folder that it is given, and files for its output. What an interpreter reads but once, as it
starts, is the server's: `is_alike` tells whose environment differs in that.
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

ROOT = Path(__file__).parent.parent
_LARGEST = 1 << 17
_NUMBER = struct.Struct("q")
_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "TZ", "TMPDIR")
_BESIDE = {
    "runner": ("cryptography.hazmat.primitives.asymmetric.ec", "docker", "requests", "unicodedata", "yaml"),
    "dvc": (
        *("dvc.cachemgr", "dvc.cli.parser", "dvc.daemon", "dvc.data_cloud", "dvc.dirs", "dvc.lock", "dvc.repo.add"),
        *("dvc.repo.graph", "dvc.repo.index", "dvc.repo.init", "dvc.repo.push", "dvc.repo.worktree", "dvc.scm"),
        *(
            "dvc.utils.strictyaml",
            "dvc_data.hashfile.status",
            "dvc_data.index.push",
            "networkx",
            "psutil",
            "ruamel.yaml",
        ),
    ),
}
"""What the commands of a package import while they work."""
_NEVER = ("runner.__main__", "runner.pytest_plugin")


class Request(NamedTuple):
    arguments: list[str]
    cwd: str
    env: dict[str, str]


def run(
    module: str, arguments: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float = 900
) -> subprocess.CompletedProcess[bytes]:
    """`python -m MODULE …` with its output and without input. Raises `subprocess.TimeoutExpired`."""
    if is_alike(env):
        return _server(module).run(Request([*arguments], str(cwd), {**env}), timeout)
    return started(module, arguments, cwd, env, timeout)


def started(
    module: str, arguments: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float = 900
) -> subprocess.CompletedProcess[bytes]:
    """The same by an interpreter of its own."""
    command = [sys.executable, "-m", module, *arguments]
    nothing = subprocess.DEVNULL
    return subprocess.run(command, cwd=cwd, env=env, stdin=nothing, capture_output=True, timeout=timeout, check=False)


def is_alike(env: Mapping[str, str]) -> bool:
    """Whether a command in that environment may be forked from here."""
    return all(env.get(name) == os.environ.get(name) for name in {*env, *os.environ} if name.startswith(_AT_START))


class Server:
    """What forks `python -m MODULE` again and again. It ends with the process that started it."""

    def __init__(self, module: str) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "tests.forked", str(theirs.fileno()), module]
        with theirs:
            subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=2)

    def run(self, request: Request, timeout: float) -> subprocess.CompletedProcess[bytes]:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            code = self._run(request, out, err, timeout)
            for file in (out, err):
                file.seek(0)
            return subprocess.CompletedProcess(request.arguments, code, out.read(), err.read())

    def _run(self, request: Request, out: IO[bytes], err: IO[bytes], timeout: float) -> int:
        told, answer = os.pipe()
        with open(told, "rb", buffering=0) as told_file:
            try:
                socket.send_fds(self._control, [json.dumps(request).encode()], [out.fileno(), err.fileno(), answer])
            finally:
                os.close(answer)
            (pid,) = _NUMBER.unpack(told_file.read(_NUMBER.size))
            if not select.select([told_file], [], [], timeout)[0]:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(request.arguments, timeout)
            (status,) = _NUMBER.unpack(told_file.read(_NUMBER.size))
            return os.waitstatus_to_exitcode(status)


@functools.cache
def _server(module: str) -> Server:
    return Server(module)


def _imported(module: str) -> None:
    if module == "runner":
        import runner

        found = (entry.name for entry in pkgutil.walk_packages(runner.__path__, "runner."))
        for name in found:
            if name not in _NEVER:
                importlib.import_module(name)
    for name in _BESIDE.get(module, ()):
        importlib.import_module(name)
    gc.freeze()


def _become(control: socket.socket, module: str) -> Request | None:
    """Fork at every request. It returns in what was forked, with what it is to run, and at the end, with nothing."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        data, descriptors, _flags, _address = socket.recv_fds(control, _LARGEST, 3)
        if not data:
            return None
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            control.close()
            return _forked(Request(*json.loads(data)), module, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _forked(request: Request, module: str, out: int, err: int, answer: int) -> Request:
    if child := os.fork():
        os.write(answer, _NUMBER.pack(child))
        os.write(answer, _NUMBER.pack(os.waitpid(child, 0)[1]))
        os._exit(0)
    for given, place in ((out, 1), (err, 2)):
        os.dup2(given, place)
    for descriptor in (out, err, answer):
        os.close(descriptor)
    os.chdir(request.cwd)
    os.environ.clear()
    os.environ.update(request.env)
    sys.argv = [module, *request.arguments]
    sys.path[0] = request.cwd
    return request


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as given:
        name = sys.argv[2]
        _imported(name)
        wanted = _become(given, name)
    if wanted:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
