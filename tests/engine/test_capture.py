"""Capture of each layer from what people have, and clear errors for what cannot be. Real engine, git and DVC."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.tools.containers import Engine
from tests.conftest import Done, Workspace

pytestmark = pytest.mark.engine

LIST = "ls -R1A"


class Jobs:
    """Run one job at a time in a workspace and look at what it saw."""

    def __init__(self, workspace: Workspace, image: str) -> None:
        self.workspace = workspace
        self.image = image

    def run(self, command: Any, *, file: bool = True, code: int = 0, **job: Any) -> Done:
        """`replay run j`; the job's outputs are its stdout unless given."""
        described = {"command": command, "image": self.image, "python": None, "outputs": ["stdout"]} | job
        if file:
            self.workspace.jobs(j={key: value for key, value in described.items() if value != "absent"})
        done = self.workspace.replay("run", "j", "--json")
        assert done.code == code, done
        return done

    def printed(self, command: Any, **job: Any) -> str:
        """What the job prints."""
        return self.logs(self.run(command, **job))

    def refused(self, command: Any = "true", *, code: int = 2, **job: Any) -> dict[str, Any]:
        """The error's object; it says what, and why or what next."""
        return error_of(self.run(command, code=code, **job))

    def logs(self, done: Done, stream: str = "stdout") -> str:
        return self.workspace.replay("logs", done.json["run_id"], "--stream", stream).out

    def spec(self, done: Done) -> dict[str, Any]:
        found: dict[str, Any] = self.workspace.replay("show", done.json["run_id"], "--json").json["spec"]
        return found


def error_of(done: Done) -> dict[str, Any]:
    error: dict[str, Any] = done.json["error"]
    assert error.keys() <= {"code", "what", "why", "next"} and error["code"] == done.code, error
    assert error["what"] and (error.get("why") or error.get("next")), error
    assert "\n" not in error["what"], error
    return error


def text_of(error: dict[str, Any]) -> str:
    return " | ".join(str(error.get(key, "")) for key in ("what", "why", "next"))


@pytest.fixture
def jobs(workspace: Workspace, shell_image: str) -> Jobs:
    return Jobs(workspace, shell_image)


# --- code ----------------------------------------------------------------------------------------------------


@pytest.fixture
def in_git(jobs: Jobs) -> Jobs:
    jobs.workspace.git("init", "-q")
    jobs.workspace.write(".gitignore", "*.log\nstate_specs\n/.replay\n")
    for name in ("kept.sh", "gone.sh", "dirty.sh"):
        jobs.workspace.write(name, name)
    jobs.workspace.commit("one")
    return jobs


def test_code_under_git_is_the_work_tree_as_it_stands(in_git: Jobs, tmp_path: Path) -> None:
    other = Workspace(tmp_path / "other")
    other.write("inner.sh", "inner")
    other.git("init", "-q")
    other.commit("one")
    in_git.workspace.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(other.root), "libs/sub")
    shutil.copytree(other.root, in_git.workspace.root / "nested")
    in_git.workspace.git("commit", "-qm", "two")

    (in_git.workspace.root / "gone.sh").unlink()
    in_git.workspace.write("dirty.sh", "edited\n")
    in_git.workspace.write("untracked/-dash ü.sh", "new")
    in_git.workspace.write("libs/sub/untracked.sh", "new")
    in_git.workspace.write("debug.log", "ignored")
    done = in_git.run("cat dirty.sh; " + LIST)
    printed = in_git.logs(done)
    assert printed.startswith("edited")
    files = {line for line in printed.splitlines() if line.endswith((".sh", ".log"))}
    assert files == {"kept.sh", "dirty.sh", "-dash ü.sh", "inner.sh", "untracked.sh"}
    assert printed.count("inner.sh") == 2, "of the submodule, and of the repository that git does not know"
    seen = in_git.spec(done)["observed"]["code"]
    assert seen["commit"] == in_git.workspace.git("rev-parse", "HEAD")
    assert {"dirty.sh", "gone.sh", "untracked/-dash ü.sh"} <= set(seen["dirty"])
    assert seen["submodules"] == {"libs/sub": other.git("rev-parse", "HEAD")}


def test_a_workspace_below_the_top_of_its_repository(in_git: Jobs) -> None:
    inner = Jobs(Workspace(in_git.workspace.root / "projects/one"), in_git.image)
    inner.workspace.write("mine.sh", "mine")
    inner.workspace.write("unused.log", "ignored by the file above")
    done = inner.run(LIST)
    assert inner.logs(done).splitlines() == [".:", "mine.sh"]
    assert inner.spec(done)["observed"]["code"]["dirty"] == ["mine.sh", "replay.yaml"]


def test_code_without_git_is_the_folder_without_what_tools_leave(jobs: Jobs) -> None:
    jobs.workspace.write("run.sh", "run", 0o755)
    jobs.workspace.write("deep/file.sh", "deep")
    (jobs.workspace.root / "deep/link").symlink_to("../run.sh")
    (jobs.workspace.root / "folder-link").symlink_to("deep")
    for path in ("__pycache__/a.pyc", "venv/pyvenv.cfg", "venv/bin/python", ".hg/x", "b.pyc"):
        jobs.workspace.write(path, "x")
    done = jobs.run(LIST + "; cat folder-link/link")
    assert jobs.logs(done).splitlines() == [
        *[".:", "deep", "folder-link", "run.sh", "", "./deep:", "file.sh", "link"],
        "run",
    ]
    assert "code" not in jobs.spec(done)["observed"]


def test_the_job_runs_on_a_copy_and_not_in_the_live_tree(jobs: Jobs) -> None:
    jobs.workspace.write("a.txt", "before")
    jobs.run("echo changed > a.txt; echo x > b.txt; cat a.txt")
    assert (jobs.workspace.root / "a.txt").read_text() == "before"
    assert not (jobs.workspace.root / "b.txt").exists()


def test_the_callers_umask_is_not_seen_by_the_job(jobs: Jobs) -> None:
    jobs.workspace.write("a.sh", "echo a", 0o755)
    jobs.workspace.write("sub/b.txt", "b")
    jobs.workspace.write("m.bin", "model")
    command = "id -un; ls -lAR --time-style=+ .; cat m.bin"
    printed = []
    for mask in (0o022, 0o077):
        before = os.umask(mask)
        try:
            printed.append(jobs.printed(command, model=["m.bin"]))
        finally:
            os.umask(before)
        shutil.rmtree(jobs.workspace.store)
    assert printed[0].startswith("replay\n") and printed[0].endswith("model")
    assert printed[0] == printed[1]


# --- image ---------------------------------------------------------------------------------------------------


@pytest.fixture
def built(engine: Engine) -> Iterator[Callable[[Path], None]]:
    """Forget what was built from folders, afterwards."""
    before = {tag for image in engine.images() for tag in image.repo_tags}
    folders: list[Path] = []
    yield folders.append
    names = tuple(f"replay/{folder.name}:" for folder in folders)
    for image in list(engine.images()):
        for tag in set(image.repo_tags) - before:
            if tag.startswith(names):
                engine._client.remove_image(tag, force=True)


def test_an_image_by_a_folder_of_images(jobs: Jobs, built: Callable[[Path], None], tmp_path: Path) -> None:
    folder = f"images/t{os.urandom(4).hex()}"
    built(jobs.workspace.root / folder)
    jobs.workspace.write(f"{folder}/Dockerfile", f"FROM {jobs.image}\nENV FLAVOUR=vanilla\nWORKDIR /srv\n")
    jobs.workspace.write("run.sh", "run")
    done = jobs.run("echo $FLAVOUR; " + LIST, image=folder)
    assert jobs.logs(done).splitlines() == ["vanilla", ".:", "run.sh"]
    spec = jobs.spec(done)
    assert spec["observed"]["image"]["folder"] == folder
    assert spec["state"]["image"]["config"] == {
        "env": {"FLAVOUR": "vanilla", "PATH": "/usr/bin:/bin"},
        "workdir": "/srv",
    }
    assert jobs.run("true", image=folder + "/").json["exit_code"] == 0


@pytest.mark.parametrize(
    ("image", "code", "words"),
    [
        ("images/absent", 2, "there is no folder images/absent"),
        ("./absent", 2, "there is no folder"),
        ("images/empty", 2, "no Dockerfile and no recipe.yaml"),
        ("localhost:1/no/such:1", 7, "there is no image localhost:1/no/such:1"),
        ("Not A Reference!", 2, "reference"),
        ("", 2, "image"),
        ("-x", 2, "reference"),
    ],
)
def test_an_image_that_cannot_be_had(jobs: Jobs, image: str, code: int, words: str) -> None:
    (jobs.workspace.root / "images/empty").mkdir(parents=True)
    error = jobs.refused(image=image, code=code)
    assert words in text_of(error), error
    assert error["next"], error


def test_a_folder_that_happens_to_have_the_name_of_an_image_is_no_image(jobs: Jobs) -> None:
    (jobs.workspace.root / "replay-tests").mkdir()
    (jobs.workspace.root / jobs.image).mkdir()
    assert jobs.printed("echo up") == "up\n"


def test_the_entrypoint_is_ignored_unless_it_is_kept(jobs: Jobs, built: Callable[[Path], None]) -> None:
    folder = f"images/t{os.urandom(4).hex()}"
    built(jobs.workspace.root / folder)
    jobs.workspace.write(f"{folder}/Dockerfile", f'FROM {jobs.image}\nENTRYPOINT ["env", "MARK=kept"]\n')
    command = ["sh", "-c", "echo ${MARK:-ignored}"]
    assert jobs.printed(command, image=folder) == "ignored\n"
    kept = jobs.run(command, image=folder, entrypoint="keep")
    assert jobs.logs(kept) == "kept\n"
    assert jobs.workspace.replay(kept.json["run_id"], "--json").json["verdict"] == "identical"


def test_images_without_python_or_without_a_shell(jobs: Jobs, bare_image: str) -> None:
    implicit = jobs.run("echo up", python="absent")
    explicit = jobs.run("echo up", python=None)
    assert implicit.json["state_digest"] == explicit.json["state_digest"]
    assert "A=1" in jobs.printed(["env"], image=bare_image, env={"A": "1"})
    failed = jobs.run("echo up", image=bare_image, code=4)
    assert "sh" in jobs.logs(failed, "stderr")
    error = jobs.refused(python="python9.9")
    assert "python9.9" in error["what"]
    jobs.workspace.write("requirements.in", "alpha\n")
    assert "python3" in jobs.refused(python="absent", dependencies="requirements.in")["what"]


# --- params, env, secrets ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "text", "values"),
    [
        ("conf/p.yaml", "# kept\na: no\nb: [1, 2.0]\n", {"a": "no", "b": [1, 2.0]}),
        ("p.json", '{"a": {"b": 1e-3},\n "c": null}', {"a": {"b": 0.001}, "c": None}),
        ("p.toml", 'when = 2026-01-02\n[a]\nb = "ü"\n', {"when": "2026-01-02", "a": {"b": "ü"}}),
        ("p.yml", "", {}),
    ],
)
def test_params_are_kept_byte_for_byte_at_their_path(jobs: Jobs, path: str, text: str, values: dict[str, Any]) -> None:
    jobs.workspace.write(path, text)
    done = jobs.run(f"cat {path}; echo :$REPLAY_PARAMS", params=path)
    assert jobs.logs(done) == text + ":\n"
    assert jobs.spec(done)["state"]["params"].get("values", {}) == values
    (jobs.workspace.root / path).unlink()
    assert jobs.workspace.replay(done.json["run_id"], "--json").json["verdict"] == "identical"


def test_params_as_a_mapping_are_given_as_json(jobs: Jobs) -> None:
    values = {"lr": 0.1, "deep": {"n": [1, "2"], "on": True}, "none": None}
    assert json.loads(jobs.printed("echo $REPLAY_PARAMS", params=values)) == values


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        ("p.yaml", "a: 1\na: 2\n", "line 2"),
        ("p.yaml", "- 1\n", "no mapping"),
        ("p.yaml", "a: .nan\n", "a: nan"),
        ("p.yaml", "a: [1\n", "line"),
        ("p.yaml", b"a: \xff\n", "line 1"),
        ("p.json", '{"a": 1, "a": 2}', "twice"),
        ("p.toml", "a = \n", "line 1"),
        ("p.ini", "a = 1\n", "use .yaml, .json or .toml"),
        ("p.yaml", b"a: " + b"x" * (1 << 20), "larger than 512 KiB"),
    ],
    ids=["twice", "list", "nan", "syntax", "bytes", "json-twice", "toml", "ending", "huge"],
)
def test_params_that_cannot_be_read(jobs: Jobs, path: str, content: str | bytes, words: str) -> None:
    jobs.workspace.write(path, content)
    error = jobs.refused(params=path)
    assert words in text_of(error) and path in text_of(error), error
    assert jobs.workspace.replay("ls", "--json").json["runs"] == []


def test_a_variable_that_the_caller_lacks_is_named_before_anything_takes_time(jobs: Jobs) -> None:
    jobs.workspace.jobs(j={"command": "true", "image": "images/none", "env": {"LACKING": None}})
    done = jobs.workspace.replay("run", "j")
    assert done.code == 2
    assert "LACKING" in done.err and "image" not in done.err, done


def test_env_takes_the_callers_value_where_it_is_null_and_nothing_else(jobs: Jobs) -> None:
    jobs.workspace.env |= {"TAKEN": "the caller's = value\n", "LEAKED": "x"}
    done = jobs.run('echo "$TAKEN|$LEAKED|$SET"', env={"TAKEN": None, "SET": ""})
    assert jobs.logs(done) == "the caller's = value\n||\n"
    assert jobs.spec(done)["state"]["env"]["TAKEN"] == "the caller's = value\n"
    jobs.workspace.env["TAKEN"] = "other"
    assert jobs.workspace.replay(done.json["run_id"], "--json").json["verdict"] == "identical"
    error = jobs.refused(env={"UNSET": None})
    assert "UNSET" in error["what"] and "export UNSET" in error["next"]
    jobs.workspace.env["TAKEN"] = os.fsdecode(b"\xff")
    assert "TAKEN" in jobs.refused(env={"TAKEN": None})["what"]


@pytest.mark.parametrize(
    ("secret", "words"),
    [("env:UNSET", "export UNSET"), ("file:absent", "absent"), ("plain value", "env:NAME"), ("env:EMPTY", "empty")],
)
def test_secrets_that_cannot_be_had(jobs: Jobs, secret: str, words: str) -> None:
    jobs.workspace.env["EMPTY"] = ""
    error = jobs.refused(secrets={"KEY": secret})
    assert "KEY" in error["what"] and words in text_of(error)
    assert "plain value" not in text_of(error), "a secret written in the file by mistake is not repeated"


def test_a_name_is_a_variable_or_a_secret(jobs: Jobs) -> None:
    assert "KEY" in jobs.refused(env={"KEY": "a"}, secrets={"KEY": "env:HOME"})["what"]


# --- data and models -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dvc_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data that DVC tracks by `.dvc` files and by `dvc.lock`, without git."""
    workspace = Workspace(tmp_path_factory.mktemp("dvc") / "work")
    workspace.write("rows.csv", "rows")
    workspace.write("set/a.txt", "a")
    workspace.write("set/deep/b.txt", "b")
    workspace.write("big.bin", "model under dvc")
    workspace.write("plain.bin", "plain model")
    workspace.dvc("init", "--no-scm")
    workspace.dvc("add", "rows.csv", "set", "big.bin")
    workspace.write("params.yaml", "n: 3\n")
    workspace.write("make.sh", "cat rows.csv > made.txt; echo made >> made.txt\n")
    stage = "{cmd: 'sh make.sh ${n}', deps: [rows.csv, make.sh], params: [n], outs: [made.txt]}"
    workspace.write("dvc.yaml", "stages:\n  make: " + stage)
    workspace.dvc("repro")
    return workspace.root


@pytest.fixture
def data(jobs: Jobs, dvc_template: Path) -> Jobs:
    shutil.copytree(dvc_template, jobs.workspace.root, dirs_exist_ok=True)
    return jobs


def test_data_by_dvc_files_by_the_lock_and_single_files_of_a_folder(data: Jobs) -> None:
    paths = ["rows.csv", "set", "made.txt"]
    done = data.run("cat rows.csv set/a.txt set/deep/b.txt made.txt; echo x > set/a.txt", data=paths, code=4)
    assert data.logs(done) == "rowsabrowsmade\n"
    assert "Read-only" in data.logs(done, "stderr")
    spec = data.spec(done)
    assert spec["state"]["data"].keys() == set(paths)
    assert spec["observed"]["data"]["set"]["nfiles"] == 2
    assert (data.workspace.root / "set/a.txt").read_text() == "a"

    single = data.run("cat set/deep/b.txt; " + LIST + " set", data=["set/deep/b.txt"])
    assert data.logs(single) == "bset:\ndeep\n\nset/deep:\nb.txt\n"
    assert data.spec(single)["observed"]["data"]["set/deep/b.txt"]["dvc"]["inside"] == "set"
    data.run("cat set/a.txt", data=["set", "set/a.txt", "./set"])
    part = data.run(LIST + " set", data=["set/deep"])
    assert data.logs(part) == "set:\ndeep\n\nset/deep:\nb.txt\n"


def test_data_that_dvc_tracks_is_no_code(data: Jobs) -> None:
    assert data.printed("ls -1").splitlines() == ["dvc.yaml", "make.sh", "params.yaml", "plain.bin"]


def test_models_plain_and_under_dvc(data: Jobs) -> None:
    done = data.run("cat plain.bin big.bin", model=["plain.bin", "big.bin"])
    assert data.logs(done) == "plain modelmodel under dvc"
    spec = data.spec(done)
    assert spec["state"]["model"].keys() == {"plain.bin", "big.bin"}
    assert spec["observed"]["model"]["big.bin"]["dvc"]["md5"]
    (data.workspace.root / "plain.bin").unlink()
    assert data.workspace.replay(done.json["run_id"], "--json").json["verdict"] == "identical"
    assert "plain.bin" in data.refused(model=["plain.bin"])["what"]
    (data.workspace.root / "plain.bin").symlink_to("/etc/passwd")
    assert "outside" in text_of(data.refused(model=["plain.bin"]))


def test_data_that_is_not_what_dvc_has_on_record(data: Jobs) -> None:
    data.workspace.write("loose.csv", "x")
    untracked = data.refused(data=["loose.csv"])
    assert "not tracked" in untracked["what"] and "dvc add loose.csv" in untracked["next"]
    assert "dvc add" in data.refused(data=["absent.csv"])["next"]

    for path, edited in (("rows.csv", "rows.csv"), ("set", "set/a.txt"), ("set/a.txt", "set/a.txt")):
        (data.workspace.root / edited).unlink()
        data.workspace.write(edited, "edited")
        error = data.refused(data=[path])
        assert f"dvc add {path}" in error["next"], error
    data.workspace.write("set/more.txt", "added")
    assert "more.txt" in data.refused(data=["set"])["why"]
    data.workspace.write("rows.csv.dvc", "outs: 1\n")
    assert "rows.csv.dvc" in text_of(data.refused(data=["rows.csv"]))


def test_a_job_that_names_a_stage(data: Jobs) -> None:
    done = data.run("absent", stage="make", outputs="absent")
    spec = data.spec(done)
    assert spec["state"]["command"] == ["sh", "-c", "sh make.sh 3"]
    assert spec["state"]["data"].keys() == {"rows.csv"}
    assert spec["state"]["params"]["file"] == "params.yaml"
    assert [one["path"] for one in done.json["outputs"]] == ["made.txt"]
    assert data.logs(data.run("echo mine", stage="make", outputs=["stdout"])) == "mine\n"
    assert "make" in text_of(data.refused("absent", stage="mak"))


@pytest.mark.parametrize(
    "pipeline",
    [
        "- 1\n",
        "stages: 3\n",
        "stages: {make: {cmd: true, deps: 3}}\n",
        "stages: {make: {cmd: a, outs: [{made.txt: {}}, 4]}}\n",
        "stages: {make: {cmd: a, outs: ['${x}.txt']}}\n",
        "stages: {make: {cmd: a, params: 7}}\n",
        "stages: {make: {foreach: [1], do: {cmd: a}}}\n",
        "stages: {make: {cmd: a, wdir: sub}}\n",
        "stages: {make: {cmd: {a: b}}}\n",
        "stages: [\n",
    ],
)
def test_a_stage_that_cannot_be_a_job(jobs: Jobs, pipeline: str) -> None:
    jobs.workspace.write("dvc.yaml", pipeline)
    assert "dvc.yaml" in text_of(jobs.refused("absent", stage="make", outputs="absent"))


# --- ad hoc --------------------------------------------------------------------------------------------------


def test_a_run_that_needs_no_file(jobs: Jobs) -> None:
    workspace = jobs.workspace
    workspace.write("in.txt", "in")
    workspace.write("p.yaml", "a: 1\n")
    arguments = ["--image", jobs.image, "--output", "o", "--output", "stdout", "--params", "p.yaml"]
    arguments += ["--env", "A=1=2", "--env", "B", "--name", "quick", "--json", "--"]
    arguments += ["sh", "-c", 'cat in.txt p.yaml > o; echo "$A $B" "$@"', "x", "--json", "-q"]
    workspace.env["B"] = "mine"
    found = workspace.replay("run", *arguments).json
    assert found["run_id"].startswith("quick-")
    assert workspace.replay("logs", found["run_id"], "--stream", "stdout").out == "1=2 mine --json -q\n"
    assert [one["path"] for one in found["outputs"]] == ["o", "stdout"]
    assert not (workspace.root / "state_specs").exists(), "a folder without replay.yaml is left as it is"
    assert workspace.replay(found["run_id"], "--json").json["verdict"] == "identical"
    assert workspace.replay("run", *arguments).json["state_digest"] == found["state_digest"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--image", "x"],
        ["--", "true"],
        ["--image", "x", "--name", "../../evil", "--", "true"],
        ["--image", "x", "--name", "", "--", "true"],
        ["--image", "x", "--env", "A B=1", "--", "true"],
        ["--image", "x", "--env", "=1", "--", "true"],
        ["--image", "x", "--network", "wide", "--", "true"],
        ["--image", "x", "--output", "../o", "--", "true"],
        ["--image", "x", "--data", "/abs", "--", "true"],
        ["--image", "x", "--unknown", "--", "true"],
        ["absent"],
        ["--image", "x", "--", "echo", b"\xff"],
    ],
    ids=str,
)
def test_a_command_line_that_cannot_be(workspace: Workspace, arguments: list[str | bytes]) -> None:
    done = workspace.replay("run", "--json", *map(os.fsdecode, arguments))
    assert done.code == 2, done
    error_of(done)
    assert [path.name for path in workspace.root.parent.iterdir()] == ["work"]


def test_a_name_that_is_none_is_told_in_words(workspace: Workspace) -> None:
    error = error_of(workspace.replay("run", "--json", "--image", "x", "--name", "<b>", "--", "true"))
    assert error["what"] == "--name: '<b>' names no job" and "at most 64 letters" in error["next"]


# --- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("version: 1\njobs:\n  j:\n    image: x\n    comand: true\n", ["line 5", "did you mean `command`"]),
        ("version: 1\njobs:\n  j:\n    image: x\n    limits: {memroy: 1g}\n", ["line 5", "did you mean `memory`"]),
        ("version: 1\njobs:\n  j:\n    image: x\n    network: opn\n", ["line 5", "open"]),
        ("version: 1\njobs:\n  j:\n    image: x\n    image: y\n", ["line 5", "image"]),
        ("version: 1\njobs:\n  j:\n    command: x\n", ["image", "missing"]),
        ("version: 2\njobs: {}\n", ["newer"]),
        ("version: 1\njobs:\n  'a b': {image: x}\n", ["line 3", "a b"]),
        ("version: 1\njobs:\n  j: {image: x, env: {A: 1}}\n", ["line 3", "quotes"]),
        ("version: 1\njobs: [1]\n", ["line 2", "mapping"]),
        ("version: 1\njobs: {}\n", ["no job"]),
        ("a: &a [x]\nb: [*a", ["line"]),
        ("", ["empty"]),
    ],
    ids=lambda value: None if isinstance(value, list) else value[-30:].replace("\n", " "),
)
def test_a_workfile_that_is_wrong_is_told_where(workspace: Workspace, text: str, words: list[str]) -> None:
    workspace.write("replay.yaml", text)
    for arguments in (["j"], []):
        done = workspace.replay("run", *arguments, "--json")
        assert done.code == 2, done
        found = text_of(error_of(done))
        assert "replay.yaml" in found and all(word in found for word in words), found
    plain = workspace.replay("run", "j")
    assert plain.err.startswith("error: ") and plain.out == ""


BAD_PATHS = ["a/../../x", "/etc/x", "a\nb"]


@pytest.mark.parametrize("key", ["data", "model", "outputs", "params", "dependencies"])
def test_paths_that_cannot_be(jobs: Jobs, key: str) -> None:
    for path in BAD_PATHS:
        error = jobs.refused(**{key: path if key in ("params", "dependencies") else [path]}, python="absent")
        assert repr(path) in text_of(error) or path in text_of(error), error


@pytest.mark.parametrize(
    "job",
    [
        {"outputs": ["set"], "data": ["set"]},
        {"outputs": ["set/a.txt"], "data": ["set"]},
        {"outputs": ["set"], "data": ["set/a.txt"]},
        {"outputs": ["./set//a.txt"], "data": ["./set"]},
        {"outputs": ["plain.bin"], "model": ["plain.bin"]},
        {"outputs": ["params.yaml"], "params": "params.yaml"},
        {"outputs": ["replay.yaml"]},
        {"outputs": [".replay/blobs"]},
        {"outputs": ["state_specs/x"]},
        {"outputs": [".git/hooks/pre-commit"]},
        {"outputs": ["sub/.dvc/config"]},
        {"outputs": {"a": None, "./a": "json"}},
        {"data": ["big.bin"], "model": ["big.bin"]},
    ],
    ids=str,
)
def test_paths_that_stand_in_each_others_way(data: Jobs, job: dict[str, Any]) -> None:
    error = data.refused(**job)
    assert error["what"], error


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"memory": "lots"}, "memory"),
        ({"memory": "1k"}, "memory"),
        ({"memory": 0}, "memory"),
        ({"cpus": -1}, "cpus"),
        ({"time": "soon"}, "time"),
        ({"time": 0}, "time"),
        ({"processes": 0}, "processes"),
    ],
)
def test_limits_that_cannot_be(jobs: Jobs, limits: dict[str, Any], words: str) -> None:
    assert words in jobs.refused(limits=limits)["what"]


@pytest.mark.parametrize("command", [None, "", "  ", [], [""], ["a\x00b"], "a\x00b"])
def test_commands_that_cannot_be(jobs: Jobs, command: Any) -> None:
    assert "command" in text_of(jobs.refused("absent" if command is None else command))


def test_files_that_code_cannot_hold(jobs: Jobs) -> None:
    root = jobs.workspace.root

    def refused(words: str) -> None:
        error = jobs.refused()
        assert words in text_of(error) and error["next"], error

    os.mkfifo(root / "pipe")
    refused("pipe")
    (root / "pipe").unlink()
    (root / "two\nlines").touch()
    refused("newline")
    (root / "two\nlines").unlink()
    bad = os.path.join(os.fsencode(root), b"caf\xe9.txt")
    os.close(os.open(bad, os.O_CREAT))
    refused("UTF-8")
    os.unlink(bad)
    for target in ("/etc/passwd", "../../outside", "sub/../../x"):
        (root / "link").symlink_to(target)
        refused("outside the workspace")
        (root / "link").unlink()
    (root / "--help ü😀").touch()
    (root / "dangling").symlink_to("nowhere")
    assert jobs.printed("ls -1 .").splitlines() == ["--help ü😀", "dangling"]


def test_pipes_and_links_where_files_are_named(jobs: Jobs) -> None:
    root = jobs.workspace.root
    os.mkfifo(root / "p.yaml")
    assert "p.yaml" in jobs.refused(params="p.yaml")["what"]
    assert "p.yaml" in jobs.refused(model=["p.yaml"])["what"]
    (root / "p.yaml").unlink()
    (root / "p.yaml").mkdir()
    assert "p.yaml" in jobs.refused(params="p.yaml")["what"]
    (root / "p.yaml").rmdir()
    (root.parent / "outside.yaml").write_text("a: 1\n")
    (root / "p.yaml").symlink_to("../outside.yaml")
    assert "outside" in text_of(jobs.refused(params="p.yaml"))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_folders_that_the_caller_may_not_read_are_not_left_out_in_silence(shell_image: str) -> None:
    with tempfile.TemporaryDirectory(prefix="replay-tests-") as name:
        jobs = Jobs(Workspace(Path(name) / "work"), shell_image)
        jobs.workspace.write("shut/inner.sh", "x")
        jobs.workspace.jobs(j={"command": "true", "image": shell_image, "python": None})
        (jobs.workspace.root / "shut").chmod(0o700)
        for folder in (name, jobs.workspace.root):
            os.chmod(folder, 0o777)
        socket = os.stat("/var/run/docker.sock").st_gid
        done = subprocess.run(
            ["setpriv", "--reuid=4242", "--regid=4242", f"--groups={socket}", *jobs.workspace.command("run", "--json")],
            cwd=jobs.workspace.root,
            env=jobs.workspace.env | {"HOME": name},
            capture_output=True,
            check=False,
        )
    error = error_of(Done(done))
    assert done.returncode == 2 and "shut" in error["what"], error
