"""An engine that does not see this machine's files gives the same results as one that does.

It is a real engine of its own, in a mount namespace where another file system covers the folder that holds all
stores and workspaces of these tests. It has a network namespace too: without a bridge of its own an engine removes
the default one, which would be that of the machine's engine.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from runner.errors import OutsideError
from runner.tools.container_request import ContainerRequest, Mount
from runner.tools.containers import Engine, connect
from runner.tools.interrupts import Interrupts
from tests.conftest import Workspace, absent, until, wheel
from tests.engine.conftest import Recorded

pytestmark = pytest.mark.engine

TWIN = "twin"


class Elsewhere(NamedTuple):
    """The engine elsewhere, and a folder here that has a twin there with other content."""

    engine: Engine
    twin: Path

    @property
    def env(self) -> dict[str, str]:
        return {"DOCKER_HOST": self.engine.where}

    def images(self) -> dict[str, Any]:
        return {one["Id"]: one["Created"] for one in self.engine._client.images()}

    def left(self) -> list[str]:
        """Containers and volumes that are there now."""
        containers = [one["Id"] for one in self.engine._client.containers(all=True)]
        return containers + [one["Name"] for one in self.engine._client.volumes()["Volumes"] or ()]


def _connected(host: str) -> Engine:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", host)
        return connect()


def _started(process: subprocess.Popen[bytes], host: str, log: Path) -> Engine:
    def answering() -> Engine | None:
        if process.poll() is not None:
            raise absent(f"a second engine cannot be started: {log.read_text()[-500:]}")
        with contextlib.suppress(OutsideError):
            return _connected(host)
        return None

    return until(answering, "the second engine")


@pytest.fixture(scope="session")
def elsewhere(engine: Engine, shell_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    """Ends with the test run. At `twin` it has a folder of its own that has the path of one here."""
    if os.getuid() != 0 or not shutil.which("dockerd"):
        raise absent("a second engine needs root and dockerd")
    hidden = tmp_path_factory.getbasetemp()
    twin = hidden / TWIN
    (twin / "in").mkdir(parents=True)
    (twin / "out").mkdir()
    (twin / "in" / "mine").write_text("ours")
    place = Path(tempfile.mkdtemp(prefix="replay-elsewhere-"))
    host = f"unix://{place}/socket"
    hide = f'mount -t tmpfs none {hidden} && mkdir -p {twin}/in {twin}/out && echo theirs > {twin}/in/mine && exec "$@"'
    command = f"dockerd --data-root {place}/data --exec-root {place}/run --pidfile {place}/pid --host {host}"
    command += " --bridge=none --iptables=false --ip-forward=false --ip-masq=false"
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            ["unshare", "--mount", "--net", "sh", "-c", hide, "sh", *command.split()],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        found = _started(process, host, place / "log")
        found.load(engine.save(shell_image))
        yield Elsewhere(found, twin)
    finally:
        process.terminate()
        process.wait(120)
        shutil.rmtree(place, ignore_errors=True)


# --- whole runs -----------------------------------------------------------------------------------------------

COMMAND = """
cat code.txt p.yaml data/set/a.txt data/one.txt m.bin > out.txt; echo $S | head -c 2 >> out.txt
for f in data/set/a.txt data/one.txt m.bin; do
  (echo x > $f) 2>/dev/null && echo WROTE; rm -f $f 2>/dev/null && echo REMOVED; done
for d in / /etc /opt/replay; do (echo x > $d/probe) 2>/dev/null && echo WROTE $d; done
rm gone.txt; mkdir folder folder/deep; cp tool.sh folder/; echo 1 > folder/deep/x; ln folder/deep/x folder/hard
ln -s out.txt link; ln -s /etc/passwd away; mkfifo pipe; echo more >> changed.txt
unset S; id; cat /etc/passwd; ls -a /tmp $HOME; env; echo said; echo oh >&2; exit 0
"""
OUTPUTS = "out.txt folder link away pipe gone.txt changed.txt stdout".split()


@pytest.fixture
def full(workspace: Workspace, shell_image: str) -> Workspace:
    """A job that uses all there is; its outputs are good, missing, special and outside."""
    workspace.git("init", "-q")
    workspace.dvc("init")
    for path in ("data/set/a.txt", "data/set/deep/b.txt", "data/one.txt", "code.txt", "gone.txt", "changed.txt"):
        workspace.write(path, f"{path}\n")
    workspace.write("m.bin", "weights\n")
    workspace.write("tool.sh", "#!/bin/sh\n", 0o755)
    workspace.write("p.yaml", "rate: 1\n")
    workspace.dvc("add", "data/set", "data/one.txt")
    job = {"command": COMMAND, "image": shell_image, "python": None, "data": ["data/set", "data/one.txt"]}
    job |= {"model": ["m.bin"], "params": "p.yaml", "secrets": {"S": "env:S"}, "outputs": OUTPUTS, "env": {"A": "1"}}
    workspace.jobs(j=job)
    workspace.env["S"] = "secretvalue"
    return workspace


def _record(workspace: Workspace, **env: str) -> dict[str, Any]:
    done = workspace.replay("run", "j", "--json", **env)
    assert done.code == 4, done  # some outputs are meant to be missing
    return done.json


def test_a_run_gives_the_same_there_as_here(full: Workspace, elsewhere: Elsewhere) -> None:
    here, there = _record(full), _record(full, **elsewhere.env)
    said = [(full.store / "runs" / run["run_id"] / "stdout").read_text() for run in (here, there)]
    assert said[0] == said[1]
    assert "said\n" in said[0] and "WROTE" not in said[0] and "REMOVED" not in said[0]
    for key in ("state_digest", "exit_code", "outputs", "problems", "undeclared", "ending"):
        assert here[key] == there[key], key
    assert [(one["path"], one["problem"]) for one in there["problems"]] == [
        ("away", "outside"),
        ("gone.txt", "missing"),
        ("pipe", "special"),
    ]
    assert {"folder/deep/x", "folder/hard", "folder/tool.sh", "link", "out.txt", "stdout"} <= {
        one["path"] for one in there["outputs"]
    }
    assert not elsewhere.left()

    before = elsewhere.images()
    again = full.replay(here["run_id"], **elsewhere.env)
    assert again.code == 0, again
    assert "IDENTICAL" in again.out
    assert "sending" not in again.err
    assert elsewhere.images() == before, "nothing is sent twice"
    assert not elsewhere.left()

    collected = full.replay("gc", "--json", **elsewhere.env).json["images"]
    assert len(collected) == 1
    assert set(elsewhere.images()) == set(before) - set(collected)
    first = full.replay(here["run_id"], **elsewhere.env)
    assert first.code == 0, first
    assert "sending" in first.err, "the first time it says so"
    assert set(elsewhere.images()) == set(before), "the same content gives the same image"
    full.replay("gc", **elsewhere.env)


def test_an_interrupt_ends_a_run_there_and_leaves_nothing(
    workspace: Workspace, elsewhere: Elsewhere, shell_image: str
) -> None:
    workspace.jobs(long={"command": "echo up >y; cat y; sleep 600", "image": shell_image, "python": None})
    process = workspace.start("run", "long", **elsewhere.env)
    assert process.stdout and process.stderr
    assert b"up\n" in iter(process.stderr.readline, b"")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    (path,) = (workspace.root / "state_specs").glob("*.record.json")
    record = json.loads(path.read_text())
    assert record["outcome"]["ending"] == "interrupted"
    assert record["undeclared"] == ["y"], "what it wrote until then was brought back"
    assert not elsewhere.left()
    workspace.replay("gc", **elsewhere.env)


def test_packages_are_compiled_locked_and_run_there(
    packaged: Recorded, elsewhere: Elsewhere, engine: Engine, python311: str, tmp_path: Path
) -> None:
    """A run recorded here: its image comes there from the store's archive, its environment as a layer."""
    wanted = engine.image(python311)
    assert wanted
    packaged.forget_caches()
    replayed = packaged.replayed(packaged.ids["py"], **elsewhere.env)
    assert replayed["verdict"] == "identical"
    assert replayed["state_digest"] == packaged.spec("py")["digest"]
    (found,) = (one for one in elsewhere.engine.images() if one.identity.diff_ids == wanted.identity.diff_ids)
    (tmp_path / "links").mkdir()
    for name, content in (
        wheel("beta", "2.0", {"beta.py": "VALUE = 'beta 2.0'\n"}, requires=("gamma",)),
        wheel("gamma", "1.0", {"gamma.py": ""}),
    ):
        (tmp_path / "links" / name).write_bytes(content)
    packaged.write("requirements.in", "beta\n")
    job = {"command": ["python", "-c", "import beta, gamma; print(beta.VALUE)"], "dependencies": "requirements.in"}
    packaged.jobs(there=job | {"image": found.id, "outputs": ["stdout"]})
    # An index on loopback, never asked, lets pip use the network of the engine's machine: it has no other.
    pip = {"PIP_INDEX_URL": "http://127.0.0.1:1/simple", "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null"}
    pip["PIP_FIND_LINKS"] = str(tmp_path / "links")
    run = packaged.run("there", **pip, **elsewhere.env)
    assert (packaged.store / "runs" / run["run_id"] / "stdout").read_text() == "beta 2.0\n"
    assert packaged.replayed(run["run_id"])["verdict"] == "identical", "and back here"
    assert not elsewhere.left()
    packaged.replay("gc", **elsewhere.env)


# --- how it is found out --------------------------------------------------------------------------------------


class Said:
    def __init__(self) -> None:
        self.text = ""

    def write(self, _stream: int, data: bytes) -> None:
        self.text += data.decode()


def _cat(engine: Engine, image: str, folder: Path) -> str:
    """What the engine's containers see of `folder/in`, twice mounted; as root they try to change it."""
    said, out = Said(), folder / "out"
    command = "cat /opt/replay/in/mine; for f in /opt/replay/in/mine /bound/mine; do (echo x > $f) 2>/dev/null"
    command += " && echo WROTE; done; echo back > /replay/out/new; cat /bound/mine > /replay/out/mine"
    mounts = (Mount(folder / "in", "/opt/replay/in"), Mount(folder / "in", "/bound"))
    request = ContainerRequest(
        image=image,
        command=("sh", "-c", command),
        mounts=(*mounts, Mount(out, "/replay/out", read_only=False)),
        user="0:0",
        workdir="/",
    )
    with contextlib.closing(Interrupts()) as interrupts:
        assert engine.run(request, said, interrupts).exit_code == 0
    assert {entry.name for entry in out.iterdir()} == {"new", "mine"}, "no marker stays"
    assert (out / "new").read_text() == "back\n"
    assert (out / "mine").read_text() == said.text
    return said.text


def test_an_engine_with_other_files_at_the_same_paths_is_found_out(elsewhere: Elsewhere, shell_image: str) -> None:
    assert _cat(Engine(elsewhere.engine._client, "tcp://elsewhere"), shell_image, elsewhere.twin) == "ours"
    assert not elsewhere.left()


def test_where_a_lone_layer_cannot_be_loaded_it_is_built(
    elsewhere: Elsewhere, shell_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on engines with containerd's image store; here the builder of the one at hand."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "mine").write_text("built")
    monkeypatch.setattr("runner.tools.elsewhere._load", lambda _client, archive: not list(archive))
    before = set(elsewhere.images())
    assert _cat(elsewhere.engine, shell_image, tmp_path) == "built"
    made = set(elsewhere.images()) - before
    assert made <= set(elsewhere.engine.layers_of("any"))
    assert not elsewhere.left()


def test_a_layer_depends_on_content_alone(elsewhere: Elsewhere, shell_image: str, tmp_path: Path) -> None:
    """Copies of other age, owner and modes, in another place, give the same layer; another byte gives another."""
    layers = []
    for number, content in enumerate(("same", "same", "else")):
        folder = tmp_path / str(number) / "in"
        (folder / "below").mkdir(parents=True)
        (tmp_path / str(number) / "out").mkdir()
        (folder / "mine").write_text(content)
        (folder / "below" / "run").write_text("")
        (folder / "below" / "run").chmod(0o744 + number)
        os.utime(folder / "mine", (number, number))
        os.chown(folder / "mine", number, number)
        before = set(elsewhere.images())
        assert _cat(elsewhere.engine, shell_image, folder.parent) == content
        new = set(elsewhere.images()) - before
        layers.append([elsewhere.engine._client.inspect_image(one)["RootFS"]["Layers"][-1] for one in new])
    assert len(layers[0]) == len(layers[2]) == 1
    assert layers[1] == [], "the second is the first"
    assert layers[0] != layers[2]
