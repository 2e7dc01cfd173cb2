"""What the tests share: a real engine, small images, workspaces of their own, a package index on loopback.

Engine tests run the command itself in a process of its own (`forked` says how). Each test has a workspace and a store
in its own temporary folder; containers carry the store's id, so what is left over can be told apart and is an error.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import http.server
import io
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from runner.errors import OutsideError
from runner.keys import Keyring
from runner.own import LIST
from runner.store.store import open_store
from runner.tools.containers import Engine, connect
from tests import forked
from tests.attest.made import Signed

ROOT = Path(__file__).parent.parent
REQUIRED = os.environ.get("REPLAY_REQUIRE_ENGINE") == "1"
UNTIL_S = float(os.environ.get("REPLAY_TESTS_UNTIL", "inf"))
"""Seconds since the epoch after which no test is begun, for those who have no more time."""

# How fast a machine is, is no property of what is tested; and whether a change lands must not hang on luck.
settings.register_profile("tests", deadline=None, derandomize=REQUIRED, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


def pytest_runtest_setup() -> None:
    if time.time() > UNTIL_S:
        pytest.skip("the time that REPLAY_TESTS_UNTIL gives is over")


@contextmanager
def only_one(name: str) -> Iterator[None]:
    """Across the processes of a test run, one at a time."""
    place = Path(os.environ.get("TMPDIR", "/tmp")) / f"replay-tests-{os.getuid()}-{name}.lock"
    with place.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def until(condition: Callable[[], Any], what: str, seconds: float = 180) -> Any:
    """What `condition` gives as soon as it is true; a test that waits says for what. The limit is for a machine that is
    slow and busy: who waits for longer waits in vain."""
    deadline, waiting = time.monotonic() + seconds, threading.Event()
    while time.monotonic() < deadline:
        if found := condition():
            return found
        waiting.wait(0.02)
    raise AssertionError(f"waited {seconds} s in vain for {what}")


def free_port() -> int:
    """A port for a server that must be told one: not of those that the system gives to whoever asks for any, or another
    test's server might be given it before this one has taken it."""
    while True:
        with (
            contextlib.suppress(OSError),
            socket.create_server(("127.0.0.1", random.randrange(20_000, 32_000))) as free,
        ):
            return int(free.getsockname()[1])


def absent(why: str) -> BaseException:
    """A test cannot run here: an error where an engine and all it takes is required, else a skip."""
    return pytest.fail.Exception(why) if REQUIRED else pytest.skip.Exception(why)


@pytest.fixture(scope="session")
def engine() -> Engine:
    try:
        found = connect()
        found.version()
    except OutsideError as error:
        raise absent(f"no container engine answers: {error.why}") from error
    return found


# --- images --------------------------------------------------------------------------------------------------


def _base_image(engine: Engine, tmp_path_factory: pytest.TempPathFactory, name: str) -> str:
    from runner.layers import image

    store = open_store(tmp_path_factory.mktemp("images") / ".replay", create=True)
    folder = ROOT / "images" / name
    with only_one(name):
        found = image._from_folder(engine, store, folder, lambda _text: None)
    return found.repo_tags[0]


@pytest.fixture(scope="session")
def python311(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tag of the base image with Python 3.11."""
    return _base_image(engine, tmp_path_factory, "python311")


@pytest.fixture(scope="session")
def python313(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tag of the base image with Python 3.13."""
    return _base_image(engine, tmp_path_factory, "python313")


def tar_of(files: dict[str, tuple[bytes, int]], links: dict[str, str] | None = None) -> bytes:
    """A tar whose bytes depend on nothing but the arguments: name to content and mode."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, (content, mode) in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            tar.addfile(info, io.BytesIO(content))
        for name, target in sorted((links or {}).items()):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return out.getvalue()


def _with_libraries(programs: list[str]) -> dict[str, tuple[bytes, int]]:
    """Programs of this machine and the libraries that they load, by path."""
    paths = set()
    for program in programs:
        path = shutil.which(program)
        assert path, f"{program} is not on this machine"
        paths.add(str(Path(path).resolve()))
        listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
        paths |= {word for line in listed.splitlines() for word in line.split() if word.startswith("/")}
    return {path.lstrip("/"): (Path(path).read_bytes(), 0o755) for path in sorted(paths)}


def import_image(engine: Engine, files: dict[str, tuple[bytes, int]], tag: str, folder: Path, **links: str) -> str:
    """Import a root file system, unless the tag names that very one already: each import makes another id."""
    content = tar_of(files, links)
    there = engine.image(tag)
    if there and there.identity.diff_ids == (f"sha256:{hashlib.sha256(content).hexdigest()}",):
        return tag
    tar = folder / f"{tag.replace('/', '-').replace(':', '-')}.tar"
    tar.write_bytes(content)
    return engine.import_tar(tar, tag, ["ENV PATH=/usr/bin:/bin"]).repo_tags[0]


SMALL_PROGRAMS = [
    "dash",
    "cat",
    "cp",
    "ln",
    "ls",
    "mkdir",
    "mkfifo",
    "sleep",
    "env",
    "id",
    "head",
    "date",
    "rm",
    "touch",
]


@pytest.fixture(scope="session")
def shell_image(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A few megabytes: a shell and a handful of programs, no Python."""
    files, links = small_files()
    with only_one("shell"):
        return import_image(engine, files, "replay-tests/shell:1", tmp_path_factory.mktemp("shell"), **links)


def small_files() -> tuple[dict[str, tuple[bytes, int]], dict[str, str]]:
    """Files and links of an image with a shell and a handful of programs."""
    files = _with_libraries(SMALL_PROGRAMS)
    programs = {f"bin/{Path(path).name}": "/" + path for path in files if "/bin/" in f"/{path}"}
    programs["bin/sh"] = "/" + next(path for path in files if path.endswith("/dash"))
    return files, {name: target for name, target in programs.items() if name not in files}


@pytest.fixture(scope="session")
def bare_image(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """One program and the libraries that it loads: no shell, no Python."""
    files = _with_libraries(["env"])
    with only_one("bare"):
        return import_image(engine, files, "replay-tests/bare:1", tmp_path_factory.mktemp("bare"))


# --- workspaces ----------------------------------------------------------------------------------------------


class Done:
    """A finished command: exit code, stdout, stderr."""

    def __init__(self, done: subprocess.CompletedProcess[bytes]) -> None:
        self.code = done.returncode
        self.out = done.stdout.decode(errors="replace")
        self.err = done.stderr.decode(errors="replace")

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.out)

    def __repr__(self) -> str:
        return f"exit {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


class Workspace:
    """A folder with files, and the command to be called in it."""

    def __init__(self, root: Path, store: Path | None = None) -> None:
        self.root = root
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("REPLAY_")}
        self.env["REPLAY_KEYS"] = str(root.parent / "keys")  # never those of whoever runs the tests
        if store:
            self.env["REPLAY_STORE"] = str(store)
        self.store = store or root / ".replay"

    def write(self, path: str, content: str | bytes, mode: int = 0o644) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        file.chmod(mode)
        return file

    def jobs(self, **jobs: dict[str, Any]) -> None:
        """Write `replay.yaml`; JSON is YAML."""
        self.write("replay.yaml", json.dumps({"version": 1, "jobs": jobs}, indent=1))

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "runner", *arguments]

    def replay(self, *arguments: str, timeout: float = 900, **env: str) -> Done:
        found = Done(forked.run("runner", arguments, self.root, self.env | env, timeout))
        assert "Traceback (most recent call last)" not in found.err, found
        assert found.code != 70, found
        return found

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.root,
            env=self.env | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *arguments: str, **env: str) -> dict[str, Any]:
        """`replay run … --json`, which must succeed."""
        done = self.replay("run", *arguments, "--json", **env)
        assert done.code == 0, done
        return done.json

    def git(self, *arguments: str) -> str:
        """Whatever whoever runs the tests has told git."""
        unset = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
        done = subprocess.run(
            ["git", *identity, *arguments],
            cwd=self.root,
            capture_output=True,
            text=True,
            check=True,
            env=self.env | unset,
        )
        return done.stdout.strip()

    def commit(self, message: str, *options: str) -> str:
        """All that there is; which commit it is."""
        self.git("add", "-A")
        self.git("commit", "-qm", message, *options)
        return self.git("rev-parse", "HEAD")

    def dvc(self, *arguments: str) -> None:
        """It leaves no process behind that tells its makers of it, and takes the machine's time."""
        env = self.env | {"DVC_NO_ANALYTICS": "1", "DVC_DAEMON": "1"}
        forked.run("dvc", [*arguments, "-q"], self.root, env).check_returncode()

    def spec_path(self, run_id: str) -> Path:
        return self.root / "state_specs" / f"{run_id}.yaml"

    def blob(self, digest: str) -> Path:
        hex_digits = digest.removeprefix("sha256:")
        return self.store / "blobs" / hex_digits[:2] / hex_digits[2:]

    def same_user_as(self, other: Workspace) -> None:
        """What was recorded there is known here as the user's own."""
        known, own = (Path(one.env["REPLAY_KEYS"]) / LIST for one in (other, self))
        own.parent.mkdir(parents=True, exist_ok=True)
        own.write_bytes(known.read_bytes() + (own.read_bytes() if own.exists() else b""))

    def containers(self) -> list[str]:
        marker = self.store / "store.json"
        if not marker.is_file():
            return []
        return list(connect().containers_of(json.loads(marker.read_text())["id"]))


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """An empty workspace; afterwards none of its containers may be left, nor any scratch folder."""
    root = tmp_path / "work"
    root.mkdir()
    made = Workspace(root)
    yield made
    if (made.store / "store.json").is_file():
        try:
            left = made.containers()
        except OutsideError:
            return
        assert not left, f"containers left behind: {left}"
        assert not list((made.store / "scratch").iterdir()), "scratch folders left behind"


@pytest.fixture
def signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Signed:
    """A workspace `work` to be signed in without an engine. The user's keys and lists are `keys` beside it: they trust
    nobody, and nothing counts as recorded here."""
    monkeypatch.setenv("REPLAY_KEYS", str(tmp_path / "keys"))
    return Signed(tmp_path / "work")


@pytest.fixture
def trusted(signed: Signed, tmp_path: Path) -> Signed:
    """The same, whose key is trusted."""
    Keyring(tmp_path / "keys").trust(signed.signer.key)
    return signed


@pytest.fixture(scope="session")
def python_store(python311: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that holds the archived base image already; it is copied by hard links, never used."""
    template = Workspace(tmp_path_factory.mktemp("template"))
    template.jobs(t={"command": ["true"], "image": python311})
    template.run("t")
    shutil.rmtree(template.store / "runs")
    (template.store / "runs").mkdir()
    return template.store


@pytest.fixture
def python_workspace(workspace: Workspace, python_store: Path, python311: str) -> Workspace:
    """A workspace for Python jobs, its store warm with the base image; `workspace.image` names it."""
    shutil.copytree(python_store, workspace.store, copy_function=os.link)
    marker = workspace.store / "store.json"
    described = json.loads(marker.read_text()) | {"id": os.urandom(8).hex()}
    marker.unlink()
    marker.write_text(json.dumps(described))
    workspace.image = python311  # type: ignore[attr-defined]
    return workspace


def flip_bit(file: Path) -> None:
    """Change one bit of a file without touching other names of its inode; length and mode stay."""
    data, mode = bytearray(file.read_bytes()), file.stat().st_mode
    data[len(data) // 2] ^= 1
    file.unlink()
    file.write_bytes(bytes(data))
    file.chmod(mode)


# --- packages ------------------------------------------------------------------------------------------------


def wheel(
    name: str,
    version: str,
    files: dict[str, str],
    requires: tuple[str, ...] = (),
    extra: str = "",
    tag: str = "py3-none-any",
) -> tuple[str, bytes]:
    """A small pure wheel, whatever its tag says: its file name and bytes."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {one}\n" for one in requires) + extra
    contents = files | {
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = "".join(f"{path},{_record_hash(text)},{len(text.encode())}\n" for path, text in contents.items())
    contents[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, text in contents.items():
            archive.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), text)
    return f"{module}-{version}-{tag}.whl", out.getvalue()


def sdist(name: str, version: str, files: dict[str, str]) -> tuple[str, bytes]:
    """A source distribution whose build needs nothing from any index: its backend is in the tree."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for path, text in ({"PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"} | files).items():
            info = tarfile.TarInfo(f"{name}-{version}/{path}")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return f"{name}-{version}.tar.gz", out.getvalue()


def _record_hash(text: str) -> str:
    import base64

    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


class Index:
    """A simple package index on loopback. `fault` may answer in its place: it gets the request's path."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.fault: Callable[[http.server.BaseHTTPRequestHandler], bool] | None = None
        self.requests: list[str] = []
        handler = functools.partial(_IndexHandler, self)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/simple"

    def add(self, file: tuple[str, bytes]) -> None:
        self.files[file[0]] = file[1]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _IndexHandler(http.server.BaseHTTPRequestHandler):
    def __init__(self, index: Index, *arguments: Any) -> None:
        self._index = index
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self._index.requests.append(self.path)
        if self._index.fault and self._index.fault(self):
            return
        parts = self.path.split("#")[0].strip("/").split("/")
        if len(parts) == 2 and parts[0] == "simple":
            self._answer(self._page(parts[1]), "text/html")
        elif len(parts) == 2 and parts[0] == "files" and parts[1] in self._index.files:
            self._answer(self._index.files[parts[1]], "application/octet-stream")
        else:
            self.send_error(404)

    def _page(self, name: str) -> bytes:
        prefix = name.replace("-", "_") + "-"
        links = "".join(
            f'<a href="/files/{file}#sha256={hashlib.sha256(data).hexdigest()}">{file}</a>\n'
            for file, data in self._index.files.items()
            if file.replace("-", "_").lower().startswith(prefix.replace("-", "_"))
        )
        return f"<!DOCTYPE html><html><body>{links}</body></html>".encode()

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture
def index() -> Iterator[Index]:
    made = Index()
    yield made
    made.close()
