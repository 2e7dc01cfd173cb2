"""Images from a real registry: recorded by what they are, pulled by digest, and an honest end when they are gone."""

from __future__ import annotations

import http.server
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from runner.errors import OutsideError
from runner.tools.containers import Engine, connect
from tests.conftest import Workspace, absent, free_port, until
from tests.engine.conftest import OwnImage

pytestmark = pytest.mark.engine

CONFIG = """
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: "{folder}"}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


class Registry:
    """Debian's registry on loopback, with a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._config = folder.with_suffix(".yml")
        self._config.write_text(CONFIG.format(folder=folder, port=self.port))
        self.start()

    def start(self) -> None:
        command = ["docker-registry", "serve", str(self._config)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._answers, "the registry")

    def _answers(self) -> bool:
        with closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(120)

    def name(self, repository: str) -> str:
        return f"127.0.0.1:{self.port}/{repository}"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    if not shutil.which("docker-registry"):
        raise absent("docker-registry is not installed")
    made = Registry(tmp_path / "registry")
    yield made
    made.stop()


@pytest.fixture
def pushed(registry: Registry, own_image: OwnImage, engine: Engine) -> Iterator[str]:
    """A reference of an image that only the registry and the engine hold."""
    name = registry.name(f"own-{os.urandom(4).hex()}")
    push(engine, own_image.tag, name)
    yield f"{name}:1"


def push(engine: Engine, image: str, name: str) -> None:
    engine._client.tag(image, name, "1")
    answer = engine._client.push(name, "1")
    assert '"error"' not in answer, answer


def record(workspace: Workspace, reference: str) -> str:
    job: dict[str, Any] = {"command": "cat /own", "image": reference, "python": None, "outputs": ["stdout"]}
    workspace.jobs(j=job)
    found: str = workspace.run("j")["run_id"]
    return found


def image_seen(workspace: Workspace, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = workspace.replay("show", run_id, "--json").json["spec"]["observed"]["image"]
    return found


def test_an_image_that_a_registry_serves_is_pulled_by_digest(
    workspace: Workspace, registry: Registry, pushed: str, own_image: OwnImage, shell_image: str, engine: Engine
) -> None:
    own_image.remove()
    run_id = record(workspace, pushed)
    seen = image_seen(workspace, run_id)
    assert seen["reference"] == pushed and not seen.get("archived") and "@sha256:" in seen["repo_digests"][0]
    assert not list((workspace.store / "images").iterdir()), "the registry serves it, so no copy is kept"

    own_image.remove()
    push(engine, shell_image, pushed.rpartition(":")[0])
    engine._client.remove_image(pushed)
    plan = workspace.replay(run_id, "--dry-run")
    assert plan.code == 0 and f"pull {seen['repo_digests'][0]}" in plan.out, plan
    assert not own_image.present()
    found = workspace.replay(run_id, "--json")
    assert found.code == 0 and found.json["verdict"] == "identical", "the tag names other content by now"
    assert own_image.present()


def test_a_registry_that_lost_it_or_is_gone(
    workspace: Workspace, registry: Registry, pushed: str, own_image: OwnImage
) -> None:
    run_id = record(workspace, pushed)
    own_image.remove()
    shutil.rmtree(registry.folder)
    unrebuildable(workspace, run_id, registry.port)
    registry.stop()
    unrebuildable(workspace, run_id, registry.port)
    with answering(registry.port, lambda request: request.send_error(500)):
        unrebuildable(workspace, run_id, registry.port)
    registry.start()


def unrebuildable(workspace: Workspace, run_id: str, port: int) -> None:
    done = workspace.replay(run_id, "--json", timeout=180)
    assert done.code == 3, done
    error = done.json["error"]
    assert f"registry 127.0.0.1:{port}" in error["why"] and error["next"], error
    assert len(list((workspace.store / "runs").iterdir())) == 1, "what could not start leaves no run"


@contextmanager
def answering(port: int, answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        do_HEAD = do_GET

        def log_message(self, *_arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.usefixtures("engine")
def test_a_registry_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine waits for ever for an answer after the first; here nobody does."""
    monkeypatch.setenv("REPLAY_TIMEOUT", "2")
    engine = connect()
    silence = threading.Event()

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        if request.path.strip("/") != "v2":
            silence.wait(600)
            return
        request.send_response(200)
        request.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        request.send_header("Content-Length", "0")
        request.end_headers()

    with answering(0, answer) as port:
        name = f"127.0.0.1:{port}/x@sha256:{'0' * 63}1"
        started = time.monotonic()
        with pytest.raises(OutsideError, match="cannot pull") as raised:
            engine.pull(name)
        assert name in raised.value.what and "nothing came" in raised.value.why
        assert not engine.registry_has(name)
        assert time.monotonic() - started < 300
        silence.set()
