"""An SSH server for tests, in a process of its own."""

from __future__ import annotations

import contextlib
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import free_port, until
from tests.remote import ssh_server


class Ssh:
    """A server that can be stopped, and started again under the same address."""

    def __init__(self, folder: Path) -> None:
        import asyncssh

        self.folder = folder
        self.folder.mkdir()
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        for name in ("host", "user"):
            key = asyncssh.generate_private_key("ssh-ed25519")
            key.write_private_key(str(folder / name))
            key.write_public_key(str(folder / f"{name}.pub"))

    @property
    def options(self) -> dict[str, str]:
        return {"user": "t", "port": str(self.port), "keyfile": str(self.folder / "user")}

    def start(self) -> None:
        command = [sys.executable, ssh_server.__file__, str(self.folder), str(self.port)]
        process = self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def answering() -> bool:
            assert process.poll() is None, "the SSH server ended"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
            return False

        until(answering, "the SSH server")

    def stop_in_a_file(self, size: int) -> None:
        """It goes away in the middle of a write, that of the first file which it makes longer than that."""
        assert self.process
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (size, size))

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait(120)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Ssh]:
    made = Ssh(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
