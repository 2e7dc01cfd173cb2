"""A DVC remote in trouble, asked by DVC for real: data that neither the store nor DVC's cache holds any more.

| fault | expected |
|---|---|
| the remote does not have it, or answers 429 or 500, closes, hangs | 3: DVC says the same of all these |
| it truncates, or hangs midway | 7 |
| it gives other bytes, nothing, or a log-in page | 5, and what it gave is kept nowhere |

No run is recorded then, nothing is left, and once the remote is as it was the replay is identical.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import Workspace
from tests.endurance.faults import nothing_left
from tests.engine.test_rebuild import answering

pytestmark = [pytest.mark.engine, pytest.mark.slow]

DATA = b"a,b\n1,2\n" * 200
MD5 = hashlib.md5(DATA, usedforsecurity=False).hexdigest()


Request = Any
Fault = Callable[[Request, bytes], object]
OVER = threading.Event()
"""Nobody sets it: who waits for it is silent until the test ends."""


def send(request: Request, body: bytes, *, missing: int = 0) -> None:
    """An answer that promises `missing` bytes more than it has."""
    request.send_response(200)
    request.send_header("Content-Type", "text/html")
    request.send_header("Content-Length", str(len(body) + missing))
    request.end_headers()
    request.wfile.write(body)
    request.wfile.flush()


def half(request: Request, body: bytes) -> None:
    cut = len(body) // 2
    send(request, body[:cut], missing=len(body) - cut)


def half_and_silence(request: Request, body: bytes) -> None:
    half(request, body)
    OVER.wait(20)


def close(request: Request, _body: bytes) -> None:
    request.close_connection = True
    request.connection.close()


LOGIN = b"<!DOCTYPE html><html><body><form action='/login'><input name='user'></form></body></html>"
FAULTS: dict[str, Fault] = {
    "429": lambda request, _: request.send_error(429),
    "500": lambda request, _: request.send_error(500),
    "closes": close,
    "truncates": half,
    "hangs": lambda _request, _body: OVER.wait(20),
    "hangs midway": half_and_silence,
    "other bytes": lambda request, body: send(request, bytes(byte ^ 1 for byte in body)),
    "nothing": lambda request, _: send(request, b""),
    "a log-in page": lambda request, _: send(request, LOGIN),
}


class Remote:
    """It serves the one object, or what `fault` says."""

    def __init__(self) -> None:
        self.fault: Fault | None = None

    def answer(self, request: Request) -> None:
        if not request.path.endswith(f"/{MD5[:2]}/{MD5[2:]}"):
            request.send_error(404)
        elif self.fault:
            self.fault(request, DATA)
        else:
            send(request, DATA)


@pytest.fixture
def remote(workspace: Workspace) -> Iterator[Remote]:
    made = Remote()
    workspace.git("init", "-q")
    workspace.dvc("init")
    with answering(0, made.answer) as port:
        workspace.dvc("remote", "add", "-d", "there", f"http://127.0.0.1:{port}/kept")
        yield made


@pytest.fixture
def run(workspace: Workspace, remote: Remote, shell_image: str) -> str:
    workspace.write("d.csv", DATA)
    workspace.dvc("add", "d.csv")
    job = {"command": "cp d.csv o", "image": shell_image, "python": None, "data": ["d.csv"], "outputs": []}
    workspace.jobs(j=job)
    found: str = workspace.run("j")["run_id"]
    return found


def lose(workspace: Workspace) -> None:
    """The data is nowhere but on the remote."""
    shutil.rmtree(workspace.root / ".dvc" / "cache", ignore_errors=True)
    shutil.rmtree(workspace.store / "cache", ignore_errors=True)
    (workspace.root / "d.csv").unlink(missing_ok=True)
    workspace.blob(hashlib.sha256(DATA).hexdigest()).unlink(missing_ok=True)


EXPECTED = {
    **dict.fromkeys(("404", "429", "500", "closes", "hangs"), 3),
    **dict.fromkeys(("truncates", "hangs midway"), 7),
    **dict.fromkeys(("other bytes", "nothing", "a log-in page"), 5),
}


@pytest.mark.parametrize("what", EXPECTED)
def test_a_remote_in_trouble(workspace: Workspace, remote: Remote, run: str, what: str) -> None:
    for option in ("read_timeout", "connect_timeout") if what.startswith("hangs") else ():
        workspace.dvc("remote", "modify", "there", option, "2")
    lose(workspace)
    remote.fault = FAULTS.get(what) or (lambda request, _: request.send_error(404))
    for _ in range(2 if EXPECTED[what] == 5 else 1):  # what was dropped is not found the second time
        done = workspace.replay(run, "--json")
        assert done.code == EXPECTED[what], done
        error = done.json["error"]
        assert "d.csv" in error["what"] and error["why"] and error["next"], error
        assert len(list((workspace.store / "runs").iterdir())) == 1, "what could not start leaves no run"
        nothing_left(workspace)
    remote.fault = None
    assert workspace.replay(run, "--json").json["verdict"] == "identical"
    assert workspace.replay("fsck").code == 0
