"""Package indexes, image registries and DVC remotes that fail, fall silent, or send something else.

| fault | expected |
|---|---|
| an index answers 500, resets, redirects without end or hangs, while locking or getting wheels | 7, in time |
| it sends half a page, half a wheel, or other bytes of the same length | 7, nothing kept |
| it has no such package, or a page that is none | 2: as far as can be told, the requirement is wrong |
| a registry does any of that while an image is pulled by digest | 3 naming the place tried; never another image |
| a DVC remote is gone | 3 naming the data |
| a DVC remote holds other bytes | 3 or 5; never a job with other data |

Afterwards the same command works. How long to wait is set by PIP_TIMEOUT and PIP_RETRIES, and by REPLAY_TIMEOUT.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Index, Workspace, flip_bit, wheel
from tests.endurance.faults import nothing_left
from tests.engine.conftest import OwnImage, Recorded, own_image

__all__ = ["own_image"]

pytestmark = [pytest.mark.engine, pytest.mark.slow]

Request = http.server.BaseHTTPRequestHandler
Fault = Callable[[Request], bool]
OVER = threading.Event()


def answer(status: int, body: bytes = b"no", length: int | None = None, **headers: str) -> Fault:
    def fault(request: Request) -> bool:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body) if length is None else length))
        request.end_headers()
        request.wfile.write(body)
        request.close_connection = True
        return True

    return fault


def around(request: Request) -> bool:
    return answer(302, b"", Location=request.path)(request)


def hang(_request: Request) -> bool:
    OVER.wait(600)
    return True


def reset(request: Request) -> bool:
    request.connection.close()
    return True


def for_files(fault: Fault) -> Fault:
    return lambda request: request.path.startswith("/files/") and fault(request)


def other_bytes(index: Index) -> Fault:
    def fault(request: Request) -> bool:
        content = index.files[request.path.split("/")[-1]]
        return answer(200, bytes(byte ^ 1 for byte in content))(request)

    return fault


PAGES: dict[str, tuple[Fault, int]] = {
    "500": (answer(500), 7),
    "hang": (hang, 7),
    "redirects without end": (around, 7),
    "reset": (reset, 7),
    "half a page": (answer(200, b"<html><a href=", 5000), 7),
    "404": (answer(404), 2),
    "garbage": (answer(200, b"<<<\xff\xfe" * 50), 2),
}
FILES: dict[str, Fault] = {
    "500": answer(500),
    "404": answer(404),
    "hang": hang,
    "redirects without end": around,
    "half a wheel": answer(200, b"PK\3\4", 5000),
}


@pytest.fixture
def asking(python_workspace: Workspace, index: Index) -> Iterator[Workspace]:
    """A job with one package, of an index that can fail; nothing is retried."""
    here = python_workspace
    index.add(wheel("alpha", "1.0", {"alpha.py": "VALUE = 1\n"}))
    here.env |= {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index.url, "PIP_FIND_LINKS": ""}
    here.env |= {"PIP_RETRIES": "0"}
    OVER.clear()
    yield here
    OVER.set()


def declare(here: Workspace, index: Index, how: str) -> None:
    """`lock`: the tool locks; `wheels`: the user has, so that only wheels are asked for."""
    (content,) = index.files.values()
    pin = f"alpha==1.0 --hash=sha256:{hashlib.sha256(content).hexdigest()}"
    here.write("requirements.txt", "alpha\n" if how == "lock" else f"{pin}\n")
    image: str = here.image  # type: ignore[attr-defined]
    here.jobs(j={"command": ["python", "-c", "import alpha"], "image": image, "dependencies": "requirements.txt"})


def patience(fault: str) -> dict[str, str]:
    """Who never answers is not waited for, and whoever does may take his time."""
    return {"PIP_TIMEOUT": "1" if fault == "hang" else "60"}


def refused(here: Workspace, code: int, **env: str) -> dict[str, Any]:
    done = here.replay("run", "j", "-q", "--json", **env)
    assert done.code == code, done
    error: dict[str, Any] = done.json["error"]
    assert error["what"] and error["why"] and error["next"] and error["why"] != "Exception:", error
    assert not list(here.store.glob("runs/*")) and not list(here.store.glob("locks/*.json"))
    nothing_left(here)
    return error


@pytest.mark.parametrize("how", ["lock", "wheels"])
def test_an_index_that_fails(asking: Workspace, index: Index, how: str) -> None:
    declare(asking, index, how)
    for name, (fault, code) in PAGES.items():
        index.fault = fault
        error = refused(asking, code, **patience(name))
        assert name != "hang" or "timed out" in error["why"], error
    for name, fault in FILES.items():
        index.fault = for_files(fault)
        refused(asking, 7, **patience(name))
    index.fault = for_files(other_bytes(index))
    assert "is not what its hash promises" in refused(asking, 7)["why"]
    index.fault = None
    assert asking.run("j", "-q")["exit_code"] == 0
    nothing_left(asking)


# --- registries -----------------------------------------------------------------------------------------------

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class Registry(Index):
    """A registry with one name; `manifest` and `blobs` are what it sends."""

    def __init__(self) -> None:
        super().__init__()
        self.manifest = b""
        self.blobs: dict[str, bytes] = {}
        self.fault = self.serve
        self.instead: Fault | None = None

    @property
    def host(self) -> str:
        return self.url.split("/")[2]

    def serve(self, request: Request) -> bool:
        parts = request.path.strip("/").split("/")
        if parts == ["v2"]:
            return answer(200, b"{}")(request)
        if self.instead:
            return self.instead(request)
        if "manifests" in parts:
            return answer(200, self.manifest, **{"Content-Type": MANIFEST})(request)
        return answer(200, self.blobs[parts[-1]])(request) if parts[-1] in self.blobs else answer(404)(request)


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry()
    OVER.clear()
    yield made
    OVER.set()
    made.close()


def test_a_registry_that_fails(workspace: Workspace, own_image: OwnImage, registry: Registry, tmp_path: Path) -> None:
    workspace.jobs(j={"command": "echo done", "image": own_image.tag, "python": None, "outputs": ["stdout"]})
    run = workspace.run("j", "-q")["run_id"]
    # As if the registry had been seen to serve it, by a digest, when it was recorded: so the store kept no copy.
    name = f"{registry.host}/own@sha256:{hashlib.sha256(b'manifest').hexdigest()}"
    run = _recorded_with(workspace, run, name)
    shutil.rmtree(workspace.store / "images")
    own_image.remove()
    faults: dict[str, Fault] = {
        "500": answer(500),
        "404": answer(404),
        "garbage": answer(200, b"<html>", **{"Content-Type": "text/html"}),
        "half a manifest": answer(200, b'{"schemaVersion": 2', 5000, **{"Content-Type": MANIFEST}),
        "another manifest": answer(200, b'{"schemaVersion": 2}', **{"Content-Type": MANIFEST}),
        "redirects without end": around,
        "reset": reset,
        "hang": hang,
    }
    for what, fault in faults.items():
        registry.instead = fault
        done = workspace.replay(run, "-q", "--trust", "--json", REPLAY_TIMEOUT="8")
        assert done.code == 3, (what, done)
        error = done.json["error"]
        assert done.json["verdict"] == "unrebuildable" and name in error["why"] and error["next"], (what, done)
    nothing_left(workspace)
    own_image.make(own_image.tag)
    own_image.names.append(own_image.tag)
    assert workspace.replay(run, "-q", "--json").json["verdict"] == "identical"


def _recorded_with(workspace: Workspace, run: str, name: str) -> str:
    """A spec that names a registry, as a run recorded beside one has; its observations are in no digest."""
    spec = workspace.spec_path(run)
    text = spec.read_text()
    assert "repo_digests" not in text
    lines = [line for line in text.splitlines(keepends=True) if "archived:" not in line]
    at = next(number for number, line in enumerate(lines) if line.strip().startswith("reference: "))
    indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    lines.insert(at + 1, f"{indent}repo_digests:\n{indent}- {name}\n")
    changed = "".join(lines).encode()
    record = workspace.root / "state_specs" / f"{run}.record.json"
    described = json.loads(record.read_text())
    described["spec_sha256"] = f"sha256:{hashlib.sha256(changed).hexdigest()}"
    shutil.rmtree(workspace.store / "runs" / run)
    spec.write_bytes(changed)
    record.write_text(json.dumps(described))
    return run


# --- DVC remotes ----------------------------------------------------------------------------------------------


@pytest.fixture
def remote(packaged: Recorded, tmp_path: Path) -> Path:
    """A run whose data only a DVC remote has."""
    folder = tmp_path / "remote"
    packaged.dvc("remote", "add", "-d", "far", str(folder))
    packaged.dvc("push")
    data = packaged.spec("py")["state"]["data"]["d.csv"]
    packaged.blob(data).unlink()
    packaged.forget_caches()
    shutil.rmtree(packaged.root / ".dvc" / "cache")
    (packaged.root / "d.csv").unlink()
    return folder


def test_a_dvc_remote_that_is_gone(packaged: Recorded, remote: Path) -> None:
    hidden = remote.rename(remote.with_name("hidden"))
    done = packaged.replay(packaged.ids["py"], "-q", "--json")
    assert done.code == 7 and "verdict" not in done.json, "it may have the data: nobody knows until it is back"
    assert "d.csv" in done.json["error"]["why"] and done.json["error"]["next"]
    hidden.rename(remote)
    assert packaged.replayed(packaged.ids["py"])["verdict"] == "identical"
    nothing_left(packaged)


def test_a_dvc_remote_that_holds_other_bytes(packaged: Recorded, remote: Path, tmp_path: Path) -> None:
    shutil.copytree(remote, tmp_path / "good")
    (file,) = (path for path in remote.rglob("*") if path.is_file())
    flip_bit(file)
    done = packaged.replay(packaged.ids["py"], "-q", "--json")
    assert done.code in (3, 5), done
    assert "d.csv" in json.dumps(done.json["error"]) and done.json["error"]["next"], done
    shutil.rmtree(remote)
    (tmp_path / "good").rename(remote)
    shutil.rmtree(packaged.root / ".dvc" / "cache", ignore_errors=True)
    assert packaged.replayed(packaged.ids["py"])["verdict"] == "identical"
    nothing_left(packaged)
