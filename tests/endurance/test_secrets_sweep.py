"""Planted secrets are searched for wherever a command may leave them, in every form that it could give them.

Searched while a job runs and after: the workspace with its store, index, git objects and specs, the temporary files,
what every command prints, the engine's description and folder of the container, and the arguments and variables of
the processes that the command starts. Allowed: where the caller keeps them, and the memory of the job.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import threading
import urllib.parse
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from runner.tools.containers import connect
from tests.conftest import Done, Index, Workspace, until, wheel

pytestmark = [pytest.mark.engine, pytest.mark.slow]

FROM_CALLER = {
    "WORD": "Zq8w-s3cr3t-value",
    "FOUR": "ÿ~Q7"[1:] + "x",
    "LINES": "-----BEGIN-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END-----",
    "UNICODE": "grüße-世界-пароль",
    "SHELL": "a'b\"c`d$(e)${f}\\g;h&i|j*k?",
}
FROM_FILE = {
    "LONG": "L0ng/" + "0123456789abcdef+/=" * 400,
    "JSON": '{"type": "service_account", "key": "\\u00e9\\n\t"}',
}
PLANTED = FROM_CALLER | FROM_FILE


def forms_of(secret: str) -> Iterator[bytes]:
    """As it is, and as this tool could have written it."""
    raw = secret.encode()
    yield raw
    yield base64.b64encode(raw).rstrip(b"=")[: len(raw) * 4 // 3]
    yield base64.urlsafe_b64encode(raw).rstrip(b"=")[: len(raw) * 4 // 3]
    yield raw.hex().encode()
    yield urllib.parse.quote(secret, safe="").encode()
    yield json.dumps(secret)[1:-1].encode()
    yield json.dumps(secret, ensure_ascii=False)[1:-1].encode()
    yield "".join(f"\\0{byte:03o}" for byte in raw).encode()
    yield repr(secret)[1:-1].encode()
    yield secret.encode("unicode_escape")
    yield secret.encode("utf-16-le")
    yield from (line.encode() for line in secret.splitlines() if len(line) > 8 and not line.startswith("---"))


def search_for(secrets: dict[str, str]) -> re.Pattern[bytes]:
    forms = {form for secret in secrets.values() for form in forms_of(secret) if len(form) >= 4}
    return re.compile(b"|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)))


ANY = search_for(PLANTED)


def found_below(*folders: Path, wanted: re.Pattern[bytes] = ANY) -> list[str]:
    """Names and contents, also of compressed git objects. What goes away meanwhile is passed over."""
    found = []
    for top in folders:
        for here, below, files in os.walk(os.fsencode(top)):
            found += [os.fsdecode(name) for name in (*below, *files) if wanted.search(name)]
            for name in files:
                with suppress(OSError):
                    found += [os.fsdecode(os.path.join(here, name))] * bool(_matches(os.path.join(here, name), wanted))
    return found


def _matches(path: bytes, wanted: re.Pattern[bytes]) -> bool:
    if os.path.islink(path):
        return bool(wanted.search(os.readlink(path)))
    if not os.path.isfile(path):
        return False
    data = Path(os.fsdecode(path)).read_bytes()
    with suppress(zlib.error):
        data += zlib.decompress(data)
    return bool(wanted.search(data))


class Processes:
    """Looks, from now to the end, at every process below one: its arguments, and its variables but the caller's own."""

    def __init__(self, top: int, wanted: re.Pattern[bytes], caller: dict[str, str]) -> None:
        self.found: list[str] = []
        self.seen = 0
        self._top, self._wanted, self._caller = top, wanted, {f"{n}={v}".encode() for n, v in caller.items()}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> list[str]:
        self._done.set()
        self._thread.join()
        return self.found

    def _look(self) -> None:
        while not self._done.wait(0.02):
            for pid in _below(self._top):
                self._look_at(pid)

    def _look_at(self, pid: int) -> None:
        with suppress(OSError):
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            foreign = b"\0".join(one for one in variables if one not in self._caller)
            self.seen += 1
            if self._wanted.search(arguments) or self._wanted.search(foreign):
                self.found.append(arguments.decode(errors="replace")[:200])


def _below(top: int) -> list[int]:
    waiting, found = [top], []
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        with suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
    return found


def arguments_anywhere(wanted: re.Pattern[bytes]) -> list[str]:
    """Of every process of the machine, those of the engine and of the container too."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            arguments = file.read_bytes()
            found += [arguments.decode(errors="replace")[:200]] * bool(wanted.search(arguments))
    return found


def in_the_engine(container: str, wanted: re.Pattern[bytes]) -> list[str]:
    """Its description of a container, its folder of it, where this machine has that, and its log."""
    client = connect()._client
    inspected = client.inspect_container(container)
    found = ["inspect"] * bool(wanted.search(json.dumps(inspected, ensure_ascii=False).encode()))
    found += ["log"] * bool(wanted.search(b"".join(_engine_log(client, container))))
    folder = Path(inspected.get("HostnamePath") or "/nonexistent").parent
    return found + (found_below(folder, wanted=wanted) if folder.is_dir() else [])


def _engine_log(client: Any, container: str) -> Iterator[bytes]:
    with suppress(Exception):
        yield client.logs(container)


# --- a workspace with planted secrets ---------------------------------------------------------------------------


@pytest.fixture
def planted(workspace: Workspace, shell_image: str, tmp_path: Path) -> Workspace:
    """In git, with one job for each way to end. `tmp_path/kept` is the caller's own place, `tmp_path/tmp` all that is
    temporary."""
    here = workspace
    (tmp_path / "tmp").mkdir()
    kept = tmp_path / "kept"
    kept.mkdir()
    for name, value in FROM_FILE.items():
        (kept / name).write_text(value + "\n", encoding="utf-8")
    here.env |= {f"MY_{name}": value for name, value in FROM_CALLER.items()} | {"TMPDIR": str(tmp_path / "tmp")}
    secrets = {name: f"env:MY_{name}" for name in FROM_CALLER} | {name: f"file:{kept / name}" for name in FROM_FILE}
    told = "; ".join(f'printf "%s\\n" "${name}"' for name in PLANTED)
    wait = "echo up; until [ -e go ]; do sleep .05; done"
    commands: dict[str, Any] = {
        "good": "echo fine >out",
        "fails": f"{told}; echo fine >out; exit 1",
        "crashes": "env; env >&2; echo fine >out; kill -SEGV $$",
        "outputs": f'({told}) >out; cp out "$WORD"; mkdir d; cp out "d/$UNICODE"; ln -s "/$WORD" link; {told}',
        "slow": f"{told}; env; {wait}; {told}; echo fine >out",
        "missing": ["/no/such/program"],
    }
    outputs = {"outputs": ["out", "d", "link", "stdout"]}
    job = {"image": shell_image, "python": None, "secrets": secrets, "outputs": ["out"]}
    jobs = {name: job | {"command": command} for name, command in commands.items()}
    jobs["outputs"] |= outputs
    jobs["late"] = jobs["slow"] | {"limits": {"time": 1}}
    here.jobs(**jobs)
    here.write(".gitignore", ".replay/\n")
    here.git("init", "-q")
    here.commit("start")
    return here


LOOKING = (
    ["ls"],
    ["show", "RUN"],
    ["logs", "RUN"],
    ["logs", "RUN", "--stream", "stdout"],
    ["outputs", "RUN"],
    ["diff", "RUN", "RUN"],
    ["replay", "RUN", "--dry-run"],
    ["gc", "--dry-run"],
    ["doctor"],
    ["gc"],
)


def check_nowhere(here: Workspace, *, wanted: re.Pattern[bytes] = ANY) -> None:
    assert found_below(here.root, here.root.parent / "tmp", wanted=wanted) == []


def check_said(done: Done, wanted: re.Pattern[bytes] = ANY) -> Done:
    assert not wanted.search((done.out + done.err).encode()), done
    return done


def say(here: Workspace, *arguments: str) -> Done:
    """What a command prints, which may be a traceback under `--debug`."""
    command = here.command(*arguments)
    return Done(subprocess.run(command, cwd=here.root, env=here.env, capture_output=True, timeout=600, check=False))


def look_in_every_way(here: Workspace, run_id: str) -> None:
    for words in LOOKING:
        for more in ([], ["--json", "--debug"]):
            check_said(say(here, *(run_id if word == "RUN" else word for word in words), *more))
    to = here.root.parent / "copied"
    check_said(say(here, "outputs", run_id, "--to", str(to), "--force"))
    assert found_below(to) == []


def only_run(here: Workspace) -> str:
    (folder,) = (here.store / "runs").iterdir()
    return folder.name


def commit_all(here: Workspace) -> None:
    here.git("add", "-f", "state_specs")
    here.git("commit", "-qm", "specs")


# --- the ways to end ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["good", "fails", "crashes", "outputs", "missing", "late"])
def test_a_run_and_its_replay_leave_no_secret(planted: Workspace, name: str) -> None:
    done = check_said(say(planted, "run", name, "--debug"))
    assert done.code == (0 if name == "good" else 4), done
    check_nowhere(planted)
    run_id = only_run(planted)
    look_in_every_way(planted, run_id)
    again = check_said(say(planted, "replay", run_id, "--json", "--debug"))
    assert again.code in (0, 1, 4), again
    commit_all(planted)
    check_nowhere(planted)


def test_the_search_finds_what_it_searches_for(planted: Workspace) -> None:
    """Every form, in a file, a name, a link, a git object, a process and a container."""
    for number, form in enumerate({form for secret in PLANTED.values() for form in forms_of(secret)}):
        file = planted.write(f"copy{number}", b"x" + form + b"y")
        assert found_below(planted.root), form
        file.unlink()
    (planted.root / "link").symlink_to("/" + PLANTED["WORD"])
    assert found_below(planted.root)
    (planted.root / "link").unlink()
    planted.write("object", PLANTED["UNICODE"])
    planted.git("hash-object", "-w", "object")
    (planted.root / "object").unlink()
    assert found_below(planted.root)
    with subprocess.Popen(["sleep", "600"], env={"A": PLANTED["WORD"]}) as child:
        processes = Processes(child.pid, ANY, {})
        try:
            until(lambda: processes.found, "the variable of a process")
        finally:
            processes.stop()
            child.kill()


@contextmanager
def running(here: Workspace, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], Processes, str]]:
    """The job `slow`, once it has printed its secrets: the command, the look-out, its container."""
    process = here.start(*arguments)
    processes = Processes(process.pid, ANY, here.env)
    try:
        container = until(lambda: next(iter(here.containers()), None), "the container")
        until(lambda: any(b"up\n" in log.read_bytes() for log in here.store.glob("runs/*/stdout")), "the job")
        yield process, processes, container
    finally:
        processes.stop()
        process.kill()
        process.communicate()


def check_while_running(here: Workspace, processes: Processes, container: str) -> None:
    assert in_the_engine(container, ANY) == []
    assert arguments_anywhere(ANY) == []
    assert processes.seen and processes.found == []
    check_nowhere(here)


def finish(here: Workspace) -> None:
    (workspace,) = here.store.glob("scratch/*/work")
    (workspace / "go").touch()


@pytest.mark.parametrize("how", ["run", "replay"])
def test_a_secret_is_nowhere_while_its_job_runs(planted: Workspace, how: str) -> None:
    arguments = ["run", "slow"]
    if how == "replay":
        with running(planted, "run", "slow") as (process, _, _):
            finish(planted)
            process.wait(300)
        arguments = ["replay", only_run(planted), "--times", "1"]
        (planted.store / "runs" / arguments[1] / "stdout").unlink()
    with running(planted, *arguments) as (process, processes, container):
        check_while_running(planted, processes, container)
        finish(planted)
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        assert not ANY.search(out) and not ANY.search(err)
    check_nowhere(planted)


@pytest.mark.parametrize(
    "signals", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGINT], [signal.SIGKILL]]
)
def test_a_command_that_is_ended_leaves_no_secret(planted: Workspace, signals: list[signal.Signals]) -> None:
    with running(planted, "run", "slow", "--debug") as (process, processes, container):
        for one in signals:
            process.send_signal(one)
        out, err = process.communicate(timeout=600)
        assert not ANY.search(out) and not ANY.search(err)
        assert processes.found == []
        if signals == [signal.SIGKILL]:
            assert in_the_engine(container, ANY) == []
    check_nowhere(planted)
    look_in_every_way(planted, only_run(planted))
    check_said(planted.replay("run", "good"))
    check_nowhere(planted)


# --- passwords of indexes, repositories and remotes ------------------------------------------------------------------

USER, PASSWORD = "someone", "p4ss%2FW-0rd"
PASSWORDS = search_for({"quoted": PASSWORD, "plain": urllib.parse.unquote(PASSWORD)})


def authorised(handler: BaseHTTPRequestHandler) -> bool:
    wanted = base64.b64encode(f"{USER}:{urllib.parse.unquote(PASSWORD)}".encode()).decode()
    return handler.headers.get("Authorization") == f"Basic {wanted}"


def ask_for_password(handler: BaseHTTPRequestHandler) -> bool:
    """Whether the request was refused."""
    if authorised(handler):
        return False
    handler.send_response(401)
    handler.send_header("WWW-Authenticate", 'Basic realm="x"')
    handler.send_header("Content-Length", "0")
    handler.end_headers()
    return True


@contextmanager
def containers_watched(wanted: re.Pattern[bytes]) -> Iterator[tuple[list[str], list[str]]]:
    """Of every container that is there while this is open: ids, and what was found of the wanted."""
    seen: set[str] = set()
    found: list[str] = []
    done = threading.Event()

    def look() -> None:
        client = connect()._client
        while not done.wait(0.05):
            for one in client.containers(all=True, filters={"volume": "/replay/locker"}):
                with suppress(Exception):
                    if one["Id"] not in seen:
                        found.extend(in_the_engine(one["Id"], wanted))
                        seen.add(one["Id"])

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    names: list[str] = []
    try:
        yield names, found
    finally:
        done.set()
        thread.join()
        names += seen


@pytest.mark.parametrize("works", [True, False])
@pytest.mark.parametrize("given", ["variable", "file"])
def test_an_index_password_stays_with_pip(
    python_workspace: Workspace, index: Index, tmp_path: Path, works: bool, given: str
) -> None:
    here = python_workspace
    (tmp_path / "tmp").mkdir()
    index.fault = ask_for_password
    if works:
        index.add(wheel("alpha", "1.0", {"alpha.py": "VALUE = 1\n"}))
    url = index.url.replace("://", f"://{USER}:{PASSWORD}@")
    config = tmp_path / "pip.conf"
    config.write_text(f"[global]\nindex-url = {url}\n")
    pip = {"PIP_FIND_LINKS": "", "PIP_RETRIES": "0", "TMPDIR": str(tmp_path / "tmp")}
    pip |= (
        {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": url}
        if given == "variable"
        else {"PIP_CONFIG_FILE": str(config)}
    )
    here.env = {name: value for name, value in here.env.items() if not name.startswith(("PIP_", "UV_"))} | pip
    job = {"command": ["python3", "-c", "import alpha"], "image": here.image}  # type: ignore[attr-defined]
    here.jobs(j=job | {"dependencies": "requirements.in"})
    here.write("requirements.in", "alpha\n")
    with containers_watched(PASSWORDS) as (seen, found):
        process = here.start("run", "j", "--debug")
        processes = Processes(process.pid, PASSWORDS, here.env)
        out, err = process.communicate(timeout=600)
        processes.stop()
    assert process.returncode == (0 if works else 2), err
    assert seen and found == [] and processes.found == []
    assert not PASSWORDS.search(out + err), err
    assert found_below(here.root, tmp_path / "tmp", wanted=PASSWORDS) == []


def test_a_repository_password_stays_with_git(python_workspace: Workspace, tmp_path: Path) -> None:
    """Of a requirement from git: not in git's arguments, the clone, the lock, the spec."""
    here, source = python_workspace, Workspace(tmp_path / "source")
    source.root.mkdir()
    (tmp_path / "tmp").mkdir()
    source.write("beta.py", "VALUE = 1\n")
    source.write("pyproject.toml", BACKEND_TOML)
    source.write("backend.py", BACKEND)
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"], ["update-server-info"]):
        source.git(*words)

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if not ask_for_password(self):
                super().do_GET()

        def log_message(self, *_arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: Handler(*a, directory=str(source.root / ".git")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://{USER}:{PASSWORD}@127.0.0.1:{server.server_port}/"
        here.env |= {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "TMPDIR": str(tmp_path / "tmp")}
        job = {"command": ["python3", "-c", "import beta"], "image": here.image}  # type: ignore[attr-defined]
        here.jobs(j=job | {"dependencies": "requirements.in"})
        file = here.write("requirements.in", f"beta @ git+{url}\n")
        process = here.start("run", "j", "--debug")
        processes = Processes(process.pid, search_for({"p": PASSWORD}), here.env)
        out, err = process.communicate(timeout=600)
        processes.stop()
    finally:
        server.shutdown()
        server.server_close()
    file.unlink()
    assert process.returncode == 0, err
    arguments = [one for one in processes.found if PASSWORD in one]
    assert arguments == []
    assert not PASSWORDS.search(out + err), err
    assert found_below(here.root, tmp_path / "tmp", wanted=PASSWORDS) == []


BACKEND_TOML = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
BACKEND = """
import base64, hashlib, zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    name, info = "beta-1.0-py3-none-any.whl", "beta-1.0.dist-info"
    files = {"beta.py": "VALUE = 1\\n", info + "/METADATA": "Metadata-Version: 2.1\\nName: beta\\nVersion: 1.0\\n",
             info + "/WHEEL": "Wheel-Version: 1.0\\nGenerator: b\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"}
    rows = ""
    with zipfile.ZipFile(folder + "/" + name, "w") as archive:
        for path, text in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            rows += "%s,sha256=%s,%d\\n" % (path, digest, len(text))
            archive.writestr(path, text)
        archive.writestr(info + "/RECORD", rows + info + "/RECORD,,\\n")
    return name
"""


def test_a_remote_password_stays_with_dvc(planted: Workspace, shell_image: str) -> None:
    """Of a remote that must be asked and does not answer: not in the specs, errors, logs or processes' arguments."""
    here = planted
    here.dvc("init")
    here.write("d.csv", "a,b\n")
    here.dvc("add", "d.csv")
    here.dvc("remote", "add", "-d", "r", f"http://{USER}:{PASSWORD}@127.0.0.1:1/x")
    here.dvc("remote", "modify", "--local", "r", "password", urllib.parse.unquote(PASSWORD))
    here.jobs(
        j={"command": "cat d.csv >out", "image": shell_image, "python": None, "data": ["d.csv"], "outputs": ["out"]}
    )
    run_id = check_said(here.replay("run", "j", "--json"), PASSWORDS).json["run_id"]
    own = [here.root / ".dvc" / "config", here.root / ".dvc" / "config.local"]
    assert set(found_below(here.root, wanted=PASSWORDS)) == set(map(str, own))
    pinned = here.spec_path(run_id).read_text()
    assert "http://127.0.0.1:1/x" in pinned
    for folder in (here.store / "blobs", here.store / "cache", here.root / ".dvc" / "cache"):
        subprocess.run(["rm", "-rf", folder], check=True)
        folder.mkdir()
    here.write("d.csv", "c\n")
    process = here.start("run", "j", "--debug")
    processes = Processes(process.pid, PASSWORDS, here.env)
    out, err = process.communicate(timeout=600)
    assert processes.stop() == []
    assert process.returncode in (2, 3, 7), err
    assert not PASSWORDS.search(out + err), err
    assert set(found_below(here.root, here.root.parent / "tmp", wanted=PASSWORDS)) == set(map(str, own))
