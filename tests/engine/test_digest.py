"""The state digest repeats, and covers what it must and nothing else. Real engine, real git, real DVC."""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.capture import capture
from runner.state.spec import StateSpec
from runner.state.strict import dump_spec, load_spec
from runner.tools.containers import Engine
from runner.tools.interrupts import listening
from runner.workspace import open_workspace
from tests.conftest import SMALL_PROGRAMS, Index, Workspace, tar_of, wheel
from tests.conftest import _with_libraries as with_libraries

pytestmark = pytest.mark.engine

SECRET = {"TOKEN": "first secret value"}
LIMITS = {"memory": "64m", "cpus": 1, "shm": "16m", "disk": "100m", "processes": 50, "time": "1m"}


def job(image: str, **changes: Any) -> dict[str, Any]:
    """A job that leans on every layer but the dependencies."""
    return {
        "command": "mkdir out; cat run.sh params.yaml data/rows.csv model.bin > out/result; echo $COLOUR",
        "image": image,
        "python": None,
        "params": "params.yaml",
        "env": {"COLOUR": "red"},
        "secrets": {"TOKEN": "env:TOKEN"},
        "data": ["data/rows.csv"],
        "model": ["model.bin"],
        "limits": LIMITS,
        "outputs": ["out", "stdout"],
    } | changes


@pytest.fixture(scope="module")
def template(shell_image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace under git and DVC whose job was run once."""
    workspace = Workspace(tmp_path_factory.mktemp("template") / "work")
    workspace.write("run.sh", "echo code\n")
    workspace.write("tool.sh", "echo tool\n", 0o755)
    (workspace.root / "link").symlink_to("run.sh")
    workspace.write("params.yaml", "# learning\nlr: 0.1\ndeep:\n  layers: [1, 2]\n")
    workspace.write("data/rows.csv", "id,value\n1,2\n")
    workspace.write("model.bin", b"\x00weights")
    workspace.git("init", "-q")
    workspace.dvc("init")
    workspace.dvc("add", "data/rows.csv")
    workspace.jobs(j=job(shell_image))
    workspace.write(".gitignore", "*.log\n/.replay\n")
    workspace.commit("one")
    workspace.run("j", **SECRET)
    return workspace.root


def copy_of(template: Path, target: Path) -> Workspace:
    """A copy with a store of its own; blobs, which nothing writes to, are shared by hard links."""
    shutil.copytree(template, target, symlinks=True, ignore=shutil.ignore_patterns(".replay"))
    shutil.copytree(template / ".replay", target / ".replay", copy_function=os.link)
    own_store_id(target / ".replay")
    copied = Workspace(target)
    copied.same_user_as(Workspace(template))
    return copied


def own_store_id(store: Path) -> None:
    described = json.loads((store / "store.json").read_text()) | {"id": os.urandom(8).hex()}
    (store / "store.json").unlink()
    (store / "store.json").write_text(json.dumps(described))


@pytest.fixture
def copied(template: Path, tmp_path: Path) -> Workspace:
    return copy_of(template, tmp_path / "copy")


def first_run(template: Path) -> str:
    """The run-id of the template's run."""
    return next((template / ".replay" / "runs").iterdir()).name


def digest_of(template: Path) -> str:
    return str(load_spec((template / "state_specs" / f"{first_run(template)}.yaml").read_bytes(), "spec").digest)


# --- the same state, seen otherwise --------------------------------------------------------------------------


def test_a_first_run_does_not_change_the_second(template: Path, copied: Workspace) -> None:
    assert (copied.root / "state_specs").is_dir()
    assert copied.replay("outputs", first_run(template), "--to", ".").code == 0
    assert (copied.root / "out/result").is_file()
    again = copied.run("j", TZ="Asia/Tokyo", LC_ALL="C", LANG="tr_TR.UTF-8", PYTHONHASHSEED="7", EXTRA="x", **SECRET)
    assert again["state_digest"] == digest_of(template)
    assert copied.replay("diff", first_run(template), again["run_id"]).code == 0


def test_git_and_dvc_remotes_branches_commits_and_umask_do_not_count(template: Path, copied: Workspace) -> None:
    copied.git("remote", "add", "origin", "https://user:pass@word@example.org/other.git")
    copied.git("checkout", "-qb", "elsewhere")
    copied.git("commit", "-q", "--allow-empty", "-m", "two")
    copied.git("tag", "v1")
    copied.dvc("remote", "add", "-d", "other", "/nowhere")
    before = os.umask(0o077)
    try:
        found = copied.run("j", **SECRET)
        seen = copied.replay("show", found["run_id"], "--json").json["spec"]["observed"]["code"]
    finally:
        os.umask(before)
    assert found["state_digest"] == digest_of(template)
    assert (seen["branch"], seen["commit"]) == ("elsewhere", copied.git("rev-parse", "HEAD"))
    assert seen["remote"] == "https://example.org/other.git"


def test_a_clone_and_a_plain_copy_are_the_same_state(template: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "-q", str(template), str(tmp_path / "clone")], check=True)
    clone = Workspace(tmp_path / "clone")
    shutil.copy(template / "model.bin", clone.root)
    shutil.copytree(template / ".dvc/cache", clone.root / ".dvc/cache")
    assert not (clone.root / "data/rows.csv").exists()
    assert clone.run("j", **SECRET)["state_digest"] == digest_of(template)

    shutil.copytree(template, tmp_path / "plain", symlinks=True, ignore=shutil.ignore_patterns(".git", ".replay"))
    plain = Workspace(tmp_path / "plain")
    assert plain.run("j", **SECRET)["state_digest"] == digest_of(template)


@pytest.fixture(scope="module")
def shell_tar() -> bytes:
    """The file system of `shell_image`, to be imported again."""
    files = with_libraries(SMALL_PROGRAMS)
    links = {f"bin/{Path(path).name}": "/" + path for path in files if "/bin/" in f"/{path}"}
    links["bin/sh"] = "/" + next(path for path in files if path.endswith("/dash"))
    return tar_of(files, {name: target for name, target in links.items() if name not in files})


@pytest.fixture
def imported(engine: Engine, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Import a tar as an image under a new tag; all of them are gone afterwards."""
    tags: list[str] = []

    def call(tar: bytes, *changes: str) -> str:
        tags.append(f"replay-tests/digest-{os.urandom(4).hex()}:1")
        (tmp_path / "image.tar").write_bytes(tar)
        engine.import_tar(tmp_path / "image.tar", tags[-1], ["ENV PATH=/usr/bin:/bin", *changes])
        return tags[-1]

    yield call
    for tag in tags:
        engine._client.remove_image(tag, force=True)


def test_the_same_content_by_another_tag_and_image_id(
    engine: Engine, shell_image: str, shell_tar: bytes, imported: Any, copied: Workspace, template: Path
) -> None:
    other = imported(shell_tar)
    held, again = engine.image(shell_image), engine.image(other)
    assert held and again and held.id != again.id
    copied.jobs(j=job(other))
    found = copied.run("j", **SECRET)
    assert found["state_digest"] == digest_of(template)
    assert copied.replay("show", found["run_id"], "--json").json["spec"]["observed"]["image"]["reference"] == other


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_sees_the_same_state(template: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="replay-tests-") as folder:
        os.chmod(folder, 0o755)
        there = copy_of(template, Path(folder) / "work")
        shutil.rmtree(there.store)
        subprocess.run(["chown", "-R", "4242:4242", folder], check=True)
        socket = os.stat("/var/run/docker.sock")
        become = ["setpriv", "--reuid=4242", "--regid=4242", f"--groups={socket.st_gid}"]
        done = subprocess.run(
            [*become, *there.command("run", "j", "--json")],
            cwd=there.root,
            env=there.env | SECRET | {"HOME": folder, "USER": "somebody"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done
        assert json.loads(done.stdout)["state_digest"] == digest_of(template)
        assert {path.stat().st_uid for path in there.store.rglob("*")} == {4242}


# --- one thing changed ---------------------------------------------------------------------------------------


class Capture:
    """Capture a job of a workspace, without running it, as a run that was cut off; and diff such runs."""

    def __init__(self, workspace: Workspace, engine: Engine) -> None:
        self.workspace = workspace
        self._engine = engine

    def __call__(self, changed: dict[str, Any]) -> StateSpec:
        self.workspace.jobs(j=changed)
        here = open_workspace(self.workspace.root, None)
        now = datetime.datetime.now(datetime.UTC)
        with listening() as interrupts:
            spec = capture(here, self._engine, "j", here.job("j"), interrupts, lambda _text: None, now=now).spec
        run = here.run(spec.run.id)
        run.begin()
        run.write_spec(spec)
        run.end()
        return spec

    def diff(self, a: str, b: str) -> dict[str, Any]:
        done = self.workspace.replay("diff", a, b, "--json")
        assert done.code == (0 if done.json["equal"] else 1), done
        return done.json


@pytest.fixture
def captured(copied: Workspace, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Capture:
    monkeypatch.setenv("TOKEN", SECRET["TOKEN"])
    monkeypatch.delenv("REPLAY_STORE", raising=False)
    return Capture(copied, engine)


Edit = Callable[[Workspace], object]


def write(path: str, content: str | bytes, mode: int = 0o644) -> Edit:
    return lambda workspace: workspace.write(path, content, mode)


def relink(workspace: Workspace) -> None:
    (workspace.root / "link").unlink()
    (workspace.root / "link").symlink_to("tool.sh")


def add_again(workspace: Workspace) -> None:
    workspace.write("data/rows.csv", "id,value\n1,3\n")
    workspace.dvc("add", "data/rows.csv")


def nothing(_workspace: Workspace) -> None:
    pass


# What is edited, what the job says otherwise, and what `replay diff` must name.
CHANGES: list[tuple[Edit, dict[str, Any], str, str]] = [
    (nothing, {"command": "cat run.sh > out/result"}, "code", "command"),
    (nothing, {"command": ["sh", "-c", "true"]}, "code", "command"),
    (write("run.sh", "echo other\n"), {}, "code", "run.sh"),
    (write("run.sh", "echo code\n", 0o755), {}, "code", "run.sh"),
    (write("deep/er/new.sh", ""), {}, "code", "deep/er/new.sh"),
    (lambda workspace: (workspace.root / "tool.sh").unlink(), {}, "code", "tool.sh"),
    (relink, {}, "code", "link"),
    (write("params.yaml", "# learning\nlr: 0.2\ndeep:\n  layers: [1, 2]\n"), {}, "params", "lr"),
    (write("params.yaml", "# learning\nlr: 0.1\ndeep:\n  layers: [1]\n"), {}, "params", "deep.layers"),
    (write("params.yaml", "# other\nlr: 0.1\ndeep:\n  layers: [1, 2]\n"), {}, "params", "params.yaml (text only)"),
    (nothing, {"env": {"COLOUR": "blue"}}, "env", "COLOUR"),
    (nothing, {"env": {"COLOUR": "red", "SIZE": "1"}}, "env", "SIZE"),
    (nothing, {"env": {"COLOUR": "red", "TZ": "Asia/Tokyo"}}, "env", "TZ"),
    (nothing, {"env": {}}, "env", "COLOUR"),
    (nothing, {"secrets": {}}, "access", "secrets.TOKEN"),
    (nothing, {"network": "open"}, "access", "network"),
    (nothing, {"limits": LIMITS | {"memory": "65m"}}, "access", "limits.memory"),
    (nothing, {"limits": LIMITS | {"cpus": 0.5}}, "access", "limits.cpus"),
    (nothing, {"limits": LIMITS | {"gpus": 1}}, "access", "limits.gpus"),
    (nothing, {"limits": LIMITS | {"shm": "17m"}}, "access", "limits.shm"),
    (nothing, {"limits": LIMITS | {"disk": "101m"}}, "access", "limits.disk"),
    (nothing, {"limits": LIMITS | {"processes": 51}}, "access", "limits.processes"),
    (nothing, {"limits": LIMITS | {"time": 61}}, "access", "limits.time"),
    (add_again, {}, "data", "data/rows.csv"),
    (nothing, {"data": []}, "data", "data/rows.csv"),
    (write("model.bin", b"\x01weights"), {}, "model", "model.bin"),
]


@pytest.mark.parametrize(
    ("edit", "changes", "layer", "name"), CHANGES, ids=[f"{n}-{one[2]}-{one[3]}" for n, one in enumerate(CHANGES)]
)
def test_each_thing_that_the_digest_covers(
    captured: Capture, template: Path, shell_image: str, edit: Edit, changes: dict[str, Any], layer: str, name: str
) -> None:
    edit(captured.workspace)
    found = captured(job(shell_image, **changes))
    assert found.digest != digest_of(template)
    differing = captured.diff(first_run(template), found.run.id)
    assert [(one["layer"], one["name"]) for one in differing["changes"]] == [(layer, name)]
    assert differing["equal"] is False


def test_determinism_is_a_condition_and_sets_variables(captured: Capture, template: Path, shell_image: str) -> None:
    portable = captured(job(shell_image, determinism="portable"))
    changes = captured.diff(first_run(template), portable.run.id)["changes"]
    assert ("access", "determinism") in [(one["layer"], one["name"]) for one in changes]
    assert {one["layer"] for one in changes} == {"access", "env"}


def test_each_part_of_an_image_that_the_digest_covers(
    captured: Capture, template: Path, shell_tar: bytes, imported: Any
) -> None:
    more = tar_of({"etc/more": (b"x", 0o644)})[:1024] + shell_tar
    cases = {
        imported(more): "image",
        imported(shell_tar, "ENV COLOURS=1"): "config.env.COLOURS",
        imported(shell_tar, "ENV PATH=/usr/bin:/bin:/more"): "config.env.PATH",
        imported(shell_tar, "USER nobody"): "config.user",
        imported(shell_tar, "WORKDIR /srv"): "config.workdir",
    }
    for image, name in cases.items():
        found = captured(job(image))
        changes = captured.diff(first_run(template), found.run.id)["changes"]
        assert [(one["layer"], one["name"]) for one in changes] == [("image", name)]
    with_entrypoint = imported(shell_tar, 'ENTRYPOINT ["env"]')
    ignored, kept = captured(job(with_entrypoint)), captured(job(with_entrypoint, entrypoint="keep"))
    assert ignored.digest == digest_of(template)
    changes = captured.diff(ignored.run.id, kept.run.id)["changes"]
    assert [(one["layer"], one["name"]) for one in changes] == [("image", "config.entrypoint")]


def test_a_package_version_and_the_interpreter_count_and_a_comment_does_not(
    python_workspace: Workspace, engine: Engine, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": index.url,
        "PIP_FIND_LINKS": "",
        "PIP_RETRIES": "0",
    }.items():
        monkeypatch.setenv(name, value)
    for version in ("1.0", "1.1"):
        index.add(wheel("alpha", version, {"alpha.py": f"VALUE = {version!r}\n"}))
    capturing = Capture(python_workspace, engine)
    here = {"command": "true", "image": python_workspace.image}  # type: ignore[attr-defined]
    locked = here | {"dependencies": "requirements.in"}
    python_workspace.write("replay.yaml", "")
    open_workspace(python_workspace.root, None, create=True)

    python_workspace.write("limits.in", "alpha<2\n")
    python_workspace.write("requirements.in", "-c limits.in\nalpha==1.0\n")
    first = capturing(locked)
    python_workspace.write("limits.in", "alpha<2  # why\n")
    python_workspace.write("requirements.in", "# why\n-c limits.in\nalpha==1.0\n\n")
    assert capturing(locked).digest == first.digest
    python_workspace.write("requirements.in", "-c limits.in\nalpha==1.1\n")
    second = capturing(locked)
    changes = capturing.diff(first.run.id, second.run.id)["changes"]
    assert changes == [{"layer": "dependencies", "name": "alpha", "a": "1.0", "b": "1.1"}]

    with_python, without = capturing(here), capturing(here | {"python": None})
    changes = capturing.diff(with_python.run.id, without.run.id)["changes"]
    assert [(one["layer"], one["name"]) for one in changes] == [("dependencies", "python")]


# --- what must not count -------------------------------------------------------------------------------------


def comment_on_jobs(workspace: Workspace) -> None:
    file = workspace.root / "replay.yaml"
    file.write_text("# a comment\n" + file.read_text())


def clutter(workspace: Workspace) -> None:
    for path in ("debug.log", "state_specs/extra.yaml", "__pycache__/run.pyc", ".dvc/tmp/x", "out/other"):
        workspace.write(path, "clutter")
    os.utime(workspace.root / "run.sh", (1, 1))
    (workspace.root / "tool.sh").chmod(0o711)


@pytest.mark.parametrize(
    ("edit", "changes"),
    [
        (comment_on_jobs, {}),
        (clutter, {}),
        (nothing, {"labels": ["prod"]}),
        (nothing, {"outputs": {"out": {"compare": "json", "rtol": 0.1}}}),
        (nothing, {"params": "./params.yaml", "data": ["./data//rows.csv"], "model": ["./model.bin"]}),
        (nothing, {"limits": LIMITS | {"memory": 64 << 20, "time": 60, "cpus": 1.0}}),
        (nothing, {"command": job("")["command"], "secrets": {"TOKEN": "file:/dev/null/../null"}}),
    ],
    ids=["comment", "clutter", "labels", "tolerance", "spelling", "units", "secret-elsewhere"],
)
def test_what_is_no_condition_does_not_count(
    captured: Capture, template: Path, shell_image: str, edit: Edit, changes: dict[str, Any], tmp_path: Path
) -> None:
    if "secrets" in changes:
        (tmp_path / "token").write_text("another value\n")
        changes = changes | {"secrets": {"TOKEN": f"file:{tmp_path / 'token'}"}}
    edit(captured.workspace)
    found = captured(job(shell_image, **changes))
    moved = captured.diff(first_run(template), found.run.id)["changes"]
    # A credential that changed is drift of access, and no condition all the same.
    assert {(one["layer"], one["name"]) for one in moved} == ({("access", "TOKEN")} if "secrets" in changes else set())
    assert found.digest == digest_of(template)


def test_the_value_of_a_secret_does_not_count_and_stands_nowhere(copied: Workspace, template: Path) -> None:
    found = copied.run("j", TOKEN="a value that nobody may see")
    assert found["state_digest"] == digest_of(template)
    for place in (copied.root / "state_specs", copied.store / "runs"):
        for file in place.rglob("*"):
            assert not file.is_file() or b"nobody may see" not in file.read_bytes()
    specs = [copied.spec_path(run_id).read_text() for run_id in (found["run_id"], first_run(template))]
    prints = [re.findall("hmac-sha256:[0-9a-f]+", text) for text in specs]
    assert prints[0] and prints[0] != prints[1], "the fingerprint tells the two values apart"


# --- the spec as a file --------------------------------------------------------------------------------------


def test_the_spec_is_read_back_to_the_same_bytes_and_is_never_written_again(copied: Workspace, template: Path) -> None:
    run_id = first_run(template)
    spec_file = copied.spec_path(run_id)
    before = spec_file.read_bytes(), spec_file.stat().st_mtime_ns, spec_file.stat().st_ino
    assert dump_spec(load_spec(before[0], "spec")) == before[0]
    assert copied.replay(run_id, "--json", **SECRET).json["verdict"] == "identical"
    copied.run("j", **SECRET)
    assert (spec_file.read_bytes(), spec_file.stat().st_mtime_ns, spec_file.stat().st_ino) == before
    assert (copied.store / "runs" / run_id / "spec.yaml").read_bytes() == before[0]


def test_the_spec_stands_before_the_engine_is_asked_to_run(workspace: Workspace, shell_image: str) -> None:
    workspace.jobs(j={"command": "true", "image": shell_image, "python": None, "limits": {"cpus": 100000}})
    done = workspace.replay("run", "j", "--json")
    assert done.code == 7, done
    listed = workspace.replay("ls", "--json").json["runs"]
    assert [one["outcome"] for one in listed] == ["interrupted"], listed
    run_id = listed[0]["run_id"]
    assert workspace.spec_path(run_id).is_file()
    assert workspace.replay("show", run_id, "--json").json["status"] == "interrupted"
    assert not list((workspace.root / "state_specs").glob(".*")), "temporary files are left"


def test_the_spec_outlives_a_run_that_is_killed(workspace: Workspace, shell_image: str) -> None:
    workspace.jobs(
        j={"command": "echo up; exec sleep 300", "image": shell_image, "python": None},
        k={"command": "true", "image": shell_image, "python": None},
    )
    running = workspace.start("run", "j")
    assert running.stderr
    seen = b""
    while b"up\n" not in seen:
        piece = running.stderr.readline()
        assert piece, seen
        seen += piece
    listed = workspace.replay("ls", "--json").json["runs"]
    assert [one["outcome"] for one in listed] == ["running"]
    running.send_signal(signal.SIGKILL)
    running.communicate()
    run_id = listed[0]["run_id"]
    assert workspace.replay("show", run_id, "--json").json["status"] == "interrupted"
    assert load_spec(workspace.spec_path(run_id).read_bytes(), "spec").run.id == run_id
    workspace.run("k")
    assert workspace.replay("show", run_id, "--json").json["status"] == "interrupted"
