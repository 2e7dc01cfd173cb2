"""Dependencies: locked inside the image, kept as wheels, rebuilt with no index. Real pip, an index on loopback."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Done, Index, Workspace, sdist, wheel

pytestmark = pytest.mark.engine

SHOW = (
    "import importlib.metadata as m, json; "
    "print(json.dumps({d.metadata['Name']: d.version for d in m.distributions()}, sort_keys=True))"
)

BACKEND = """
import base64, hashlib, zipfile
NAME, VERSION, VALUE = {name!r}, {version!r}, {value!r}
METADATA = "Metadata-Version: 2.1\\nName: " + NAME + "\\nVersion: " + VERSION + "\\n"
WHEEL = "Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
def digest(text):
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name, info = NAME + "-" + VERSION + "-py3-none-any.whl", NAME + "-" + VERSION + ".dist-info"
    files = {{NAME + ".py": "VALUE = " + repr(VALUE) + "\\n", info + "/METADATA": METADATA, info + "/WHEEL": WHEEL}}
    record = "".join("%s,sha256=%s,%d\\n" % (path, digest(text), len(text)) for path, text in files.items())
    with zipfile.ZipFile(wheel_directory + "/" + name, "w") as out:
        for path, text in files.items():
            out.writestr(path, text)
        out.writestr(info + "/RECORD", record + info + "/RECORD,,\\n")
    return name
"""
PYPROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def source_files(name: str, version: str, value: str) -> dict[str, str]:
    """A source tree that builds without any index."""
    return {"pyproject.toml": PYPROJECT, "backend.py": BACKEND.format(name=name, version=version, value=value)}


def module(
    name: str, version: str, value: str = "", requires: tuple[str, ...] = (), extra: str = ""
) -> tuple[str, bytes]:
    return wheel(name, version, {f"{name}.py": f"VALUE = {value or version!r}\n"}, requires, extra)


@pytest.fixture
def pip_env(index: Index) -> dict[str, str]:
    """This machine's own pip settings are set aside: the index on loopback is all there is."""
    return {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": index.url,
        "PIP_FIND_LINKS": "",
        "PIP_RETRIES": "0",
        "PIP_TIMEOUT": "60",
    }


@pytest.fixture
def run(python_workspace: Workspace, pip_env: dict[str, str]) -> Callable[..., Done]:
    """Record job `j`, whose dependencies are the text given."""

    def call(requirements: str | None, *arguments: str, command: list[str] | None = None, **job: Any) -> Done:
        if requirements is not None:
            python_workspace.write("requirements.in", requirements)
            job.setdefault("dependencies", "requirements.in")
        job = {
            "command": command or ["python", "-c", SHOW],
            "image": python_workspace.image,
            "outputs": ["stdout"],
        } | job  # type: ignore[attr-defined]
        python_workspace.jobs(j=job)
        return python_workspace.replay("run", "j", "--json", *arguments, **pip_env)

    return call


def locked(workspace: Workspace, done: Done) -> dict[str, str]:
    shown = workspace.replay("show", done.json["run_id"], "--json").json
    return {one["name"]: one["version"] for one in shown["spec"]["state"]["dependencies"]["locked"]}


def printed(workspace: Workspace, done: Done) -> str:
    return workspace.replay("logs", done.json["run_id"], "--stream", "stdout").out


def test_a_lock_holds_markers_extras_and_includes_and_outlives_the_index(
    run: Callable[..., Done], python_workspace: Workspace, index: Index
) -> None:
    index.add(module("alpha", "1.0", requires=('beta>=1; extra == "more"',), extra="Provides-Extra: more\n"))
    for version in ("1.0", "1.5", "2.0"):
        index.add(module("beta", version))
    index.add(module("gamma", "3.0"))
    python_workspace.write("base.in", "gamma\n")
    python_workspace.write("limits.txt", "beta<2\n")
    text = "-r base.in\n-c limits.txt\nalpha[more]==1.0  # why\nnothere==1; python_version < '3'\n"

    first = run(text)
    assert first.code == 0, first.out
    assert locked(python_workspace, first) == {"alpha": "1.0", "beta": "1.5", "gamma": "3.0"}
    assert json.loads(printed(python_workspace, first)) == {"alpha": "1.0", "beta": "1.5", "gamma": "3.0"}

    index.add(module("gamma", "4.0"))
    asked = len(index.requests)
    again = run(text)
    assert again.json["state_digest"] == first.json["state_digest"]
    assert len(index.requests) == asked, "a known lock must not ask the index"

    index.close()
    replayed = python_workspace.replay(first.json["run_id"], "--json")
    assert replayed.json["verdict"] == "identical", replayed
    assert run(text, "--relock").code == 7


def test_relock_resolves_anew(run: Callable[..., Done], python_workspace: Workspace, index: Index) -> None:
    index.add(module("alpha", "1.0"))
    assert locked(python_workspace, run("alpha\n")) == {"alpha": "1.0"}
    index.add(module("alpha", "1.1"))
    assert locked(python_workspace, run("alpha\n")) == {"alpha": "1.0"}
    assert locked(python_workspace, run("alpha\n", "--relock")) == {"alpha": "1.1"}


def test_sdist_git_and_folder_requirements_are_built_once_and_pinned_as_wheels(
    run: Callable[..., Done], python_workspace: Workspace, index: Index, tmp_path: Any
) -> None:
    index.add(sdist("fromsdist", "1.0", source_files("fromsdist", "1.0", "s")))
    repo = Workspace(tmp_path / "repo")
    for path, text in source_files("fromgit", "2.0", "g").items():
        repo.write(path, text)
    repo.git("init", "-q")
    repo.commit("one")
    for path, text in source_files("fromfolder", "3.0", "f").items():
        python_workspace.write(f"libs/fromfolder/{path}", text)
    text = f"fromsdist\nfromgit @ git+file://{repo.root}\n./libs/fromfolder\n"
    show = "import fromsdist, fromgit, fromfolder; print(fromsdist.VALUE, fromgit.VALUE, fromfolder.VALUE)"

    done = run(text, command=["python", "-c", show])
    assert done.code == 0, done
    assert printed(python_workspace, done) == "s g f\n"
    spec = python_workspace.replay("show", done.json["run_id"], "--json").json["spec"]
    assert all(one["wheel"].endswith(".whl") for one in spec["state"]["dependencies"]["locked"])
    assert spec["observed"]["dependencies"]["vcs"] == {"fromgit": f"file://{repo.root}@{repo.git('rev-parse', 'HEAD')}"}

    index.close()
    assert run(text, command=["python", "-c", show]).json["state_digest"] == done.json["state_digest"]
    python_workspace.write("libs/fromfolder/backend.py", BACKEND.format(name="fromfolder", version="3.0", value="new"))
    assert run("./libs/fromfolder\n", command=["python", "-c", "import fromfolder; print(fromfolder.VALUE)"]).code == 0


def test_a_hashed_file_is_its_own_lock(run: Callable[..., Done], python_workspace: Workspace, index: Index) -> None:
    index.add(module("alpha", "1.0", requires=("beta",)))
    index.add(module("beta", "1.0"))
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in index.files.items()}
    lines = {name: f"{name.split('-')[0]}==1.0 \\\n    --hash=sha256:{digest}\n" for name, digest in hashes.items()}

    done = run("".join(lines.values()))
    assert done.code == 0, done
    assert locked(python_workspace, done) == {"alpha": "1.0", "beta": "1.0"}
    shown = python_workspace.replay("show", done.json["run_id"], "--json").json
    assert "requested" not in shown["spec"]["observed"]["dependencies"], "it would only repeat the lock"


def test_other_bytes_than_the_hash_are_refused(run: Callable[..., Done], index: Index) -> None:
    index.add(module("alpha", "1.0"))
    done = run(f"alpha==1.0 --hash=sha256:{'0' * 64}\n")
    assert done.code == 7, done
    assert "hash" in done.json["error"]["why"].lower()


def test_a_pyproject_with_extras_makes_the_project_importable_and_runnable(
    run: Callable[..., Done], python_workspace: Workspace, index: Index
) -> None:
    index.add(module("alpha", "1.0"))
    index.add(module("beta", "1.0"))
    python_workspace.write(
        "pyproject.toml",
        '[project]\nname = "my.project"\nversion = "0.3"\ndependencies = ["alpha"]\n'
        'optional-dependencies = {ml = ["beta"]}\nscripts = {say = "mine:say"}\n',
    )
    python_workspace.write(
        "src/mine.py",
        "import alpha, beta, importlib.metadata as m\ndef say(): print(m.version('my-project'), beta.VALUE)\n",
    )
    done = run(None, command=["say"], dependencies="pyproject.toml[ml]")
    assert done.code == 0, done
    assert printed(python_workspace, done) == "0.3 1.0\n"
    missing = run(None, command=["say"], dependencies="pyproject.toml[mll]")
    assert missing.code == 2 and "mll" in missing.json["error"]["what"]


def test_without_dependencies_the_job_sees_the_image_and_with_them_only_the_wheels(
    run: Callable[..., Done], python_workspace: Workspace, index: Index
) -> None:
    index.add(module("alpha", "1.0"))
    held = run(None, command=["python3", "-c", SHOW])
    assert "pip" in json.loads(printed(python_workspace, held))
    shown = python_workspace.replay("show", held.json["run_id"], "--json").json
    assert "pip" in shown["spec"]["observed"]["dependencies"]["image_packages"]
    assert set(json.loads(printed(python_workspace, run("alpha\n")))) == {"alpha"}
    both = json.loads(printed(python_workspace, run("alpha\n", system_packages=True)))
    assert {"alpha", "pip"} <= set(both)


def test_two_pythons(python_workspace: Workspace, python313: str, index: Index, pip_env: dict[str, str]) -> None:
    index.add(wheel("alpha", "1.0", {"alpha.py": "import sys\nVALUE = sys.version_info[:2]\n"}))
    python_workspace.write("requirements.in", "alpha\n")
    show = ["python", "-c", "import alpha; print(alpha.VALUE, alpha.__file__)"]
    python_workspace.jobs(
        j={"command": show, "image": python313, "dependencies": "requirements.in", "outputs": ["stdout"]}
    )
    done = python_workspace.replay("run", "j", "--json", **pip_env)
    assert done.code == 0, done
    assert printed(python_workspace, done) == "(3, 13) /opt/replay/env/lib/python3.13/site-packages/alpha.py\n"


def test_pip_settings_reach_locking_and_never_the_job(
    run: Callable[..., Done], python_workspace: Workspace, index: Index
) -> None:
    index.add(module("alpha", "1.0"))
    done = run("alpha\n", command=["sh", "-c", "env"])
    assert done.code == 0, done
    text = printed(python_workspace, done)
    assert "PIP_" not in text and "SSL_CERT" not in text and index.url not in text
    spec = python_workspace.spec_path(done.json["run_id"]).read_text()
    assert index.url not in spec


@pytest.mark.parametrize(
    ("requirements", "code", "word"),
    [
        ("alpha==9\n", 2, "alpha"),
        ("alpha\nbeta==2\n", 2, "beta"),
        ("absent\n", 2, "absent"),
        ("alpha ==== 1\n", 2, "alpha"),
        ("-r nowhere.in\n", 2, "nowhere.in"),
        ("-r requirements.in\n", 2, "includes itself"),
        ("../outside\n", 2, "outside the workspace"),
        ("./absent-folder\n", 2, "absent-folder"),
    ],
)
def test_requirements_that_cannot_be_met(
    run: Callable[..., Done], index: Index, requirements: str, code: int, word: str
) -> None:
    index.add(module("alpha", "1.0", requires=("beta<2",)))
    index.add(module("beta", "1.0"))
    index.add(module("beta", "2.0"))
    done = run(requirements)
    assert done.code == code, done.out
    error = done.json["error"]
    assert word in error["what"] + error.get("why", ""), str(error)


def _status(code: int) -> Callable[[Any], bool]:
    def answer(request: Any) -> bool:
        request.send_error(code)
        return True

    return answer


def _other_bytes(request: Any) -> bool:
    if not request.path.startswith("/files/"):
        return False
    request.send_response(200)
    request.end_headers()
    request.wfile.write(b"not a wheel")
    return True


def _hang(request: Any) -> bool:
    threading.Event().wait(600)
    return True


@pytest.mark.parametrize("fault", [_status(500), _other_bytes, _hang], ids=["500", "other-bytes", "hangs"])
def test_an_index_in_trouble_is_said_to_be(
    run: Callable[..., Done], index: Index, pip_env: dict[str, str], fault: Callable[[Any], bool]
) -> None:
    index.add(module("alpha", "1.0"))
    index.fault = fault
    if fault is _hang:
        pip_env["PIP_TIMEOUT"] = "2"
    done = run("alpha\n")
    assert done.code == 7, done.out
    assert done.json["error"]["next"]


def test_packages_that_bring_the_same_file_with_other_content_are_named(run: Callable[..., Done], index: Index) -> None:
    index.add(wheel("alpha", "1.0", {"shared.py": "A = 1\n"}))
    index.add(wheel("beta", "1.0", {"shared.py": "A = 2\n"}))
    done = run("alpha\nbeta\n")
    assert done.code == 2, done
    assert "alpha" in done.json["error"]["what"] and "shared.py" in done.json["error"]["why"]
