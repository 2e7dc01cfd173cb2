"""An engine that does not close the stream of a job that has ended: the real one, behind a relay that holds back its
last word."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.errors import OutsideError
from runner.tools import containers
from runner.tools.container_request import ContainerRequest
from runner.tools.containers import Engine, connect
from runner.tools.interrupts import Interrupts

pytestmark = pytest.mark.engine


class Relay(socketserver.ThreadingUnixStreamServer):
    """What attaches never hears that the engine is done with it, if `holds`."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, place: Path, engine: str, holds: bool) -> None:
        self.engine, self.holds, self.over = engine, holds, threading.Event()
        super().__init__(str(place), _Relayed)


class _Relayed(socketserver.BaseRequestHandler):
    server: Relay

    def handle(self) -> None:
        with socket.socket(socket.AF_UNIX) as engine:
            engine.connect(self.server.engine)
            first = self.request.recv(1 << 16)
            engine.sendall(first)
            threading.Thread(target=_pump, args=(self.request, engine), daemon=True).start()
            _pump(engine, self.request)
            if self.server.holds and b"/attach" in first.partition(b"\n")[0]:
                self.server.over.wait(60)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)


@contextlib.contextmanager
def behind_relay(place: Path, engine: Engine, holds: bool) -> Iterator[Engine]:
    with Relay(place, engine.where.removeprefix("unix://"), holds) as relay, pytest.MonkeyPatch.context() as patch:
        threading.Thread(target=relay.serve_forever, daemon=True).start()
        patch.setenv("DOCKER_HOST", f"unix://{place}")
        found = connect()
        try:
            yield found
        finally:
            relay.over.set()
            found.close()
            relay.shutdown()


class Said:
    def __init__(self) -> None:
        self.data = b""

    def write(self, _stream: int, data: bytes) -> None:
        self.data += data


@pytest.mark.parametrize("holds", [False, True])
def test_a_stream_that_stays_open_is_not_waited_for(
    engine: Engine, shell_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holds: bool
) -> None:
    """A job that says nothing for long is; and one that has ended counts only if all that it said has come."""
    monkeypatch.setattr(containers, "SILENCE_S", 0.2)
    monkeypatch.setattr(containers, "TICK_S", 0.1)
    request = ContainerRequest(
        image=shell_image, command=("sh", "-c", "echo a; sleep 2; echo b"), user="1:1", workdir="/"
    )
    said = Said()
    with behind_relay(tmp_path / "socket", engine, holds) as there, contextlib.closing(Interrupts()) as interrupts:
        if holds:
            with pytest.raises(OutsideError, match="where the job's output ends"):
                there.run(request, said, interrupts)
        else:
            assert there.run(request, said, interrupts).exit_code == 0
    assert said.data == b"a\nb\n"
