"""What other tools add to the same job of about 3 s: `make bench-peers`.

They are looked for in `.demo/peers/bin`, then on PATH; `dvc` is a dependency of the tool itself. To have them:

    python3 -m venv .demo/peers
    .demo/peers/bin/pip install datalad git-annex mlflow reprozip pandas scikit-learn

dvc, datalad and mlflow run the very `docker run` that they are compared with. reprozip traces a process, not a
container, so it is compared with the job run by its own Python.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from runner.execute import WORKSPACE
from runner.tools.container_request import Mount
from tests.bench.bare import docker_run, request_of
from tests.bench.harness import SLOW, Measured, Row, Side, command, in_turns
from tests.bench.laid_out import PLACE, ROOT, Workspace
from tests.bench.rows_run import training

_INSTALLED = ROOT / ".demo" / "peers" / "bin"
_OUTPUTS = ("predictions.csv", "metrics.json")
_ABSENT = "not installed"
_MLFLOW = """\
import mlflow, subprocess
with mlflow.start_run():
    subprocess.run(["sh", "job.sh"], check=True, stdout=subprocess.DEVNULL)
    for name in ("predictions.csv", "metrics.json", "train.py"):
        mlflow.log_artifact(name)
"""


def dvc() -> Measured | str:
    place = _place("dvc")
    _call(place.root, sys.executable, "-m", "dvc", "init", "-q", "-f")
    tracked = ("-d", "train.py", "-d", "data", "-o", _OUTPUTS[0], "-M", _OUTPUTS[1])
    _call(place.root, sys.executable, "-m", "dvc", "stage", "add", "-q", "-f", "-n", "train", *tracked, "sh job.sh")
    return _against_bare(place, [sys.executable, "-m", "dvc", "repro", "-q", "-f", "train"])


def datalad() -> Measured | str:
    if not (_program("datalad") and _program("git-annex")):
        return _ABSENT
    place = _place("datalad")
    _call(place.root, "datalad", "create", "-f")
    _call(place.root, "datalad", "save", "-m", "as measured")
    declared = [word for name in _OUTPUTS for word in ("-o", name)]
    return _against_bare(place, [*_found("datalad"), "run", "-m", "train", "-i", "data", *declared, "sh job.sh"])


def mlflow() -> Measured | str:
    if not _program("mlflow"):
        return _ABSENT
    place = _place("mlflow")
    place.write("log.py", _MLFLOW)
    return _against_bare(place, [_python("mlflow"), "log.py"])


def reprozip() -> Measured | str:
    if not _program("reprozip"):
        return _ABSENT
    python = _python("reprozip")
    if subprocess.run([python, "-c", "import pandas, sklearn"], capture_output=True, check=False).returncode:
        return f"{_ABSENT}: its Python has no pandas and scikit-learn for the job"
    place = _place("reprozip")
    job = [python, "train.py"]
    traced = [*_found("reprozip"), "trace", "--overwrite", "--dont-identify-packages", *job]
    return in_turns(_side(place, traced), _side(place, job), SLOW)


def _place(name: str) -> Workspace:
    """The job and its data, and a script that runs it as the bare container does."""
    workspace, run_id = training()
    place = Workspace(f"peer-{name}", {})
    shutil.rmtree(place.root)
    place.root.mkdir()
    shutil.copytree(workspace.root / "data", place.root / "data", ignore=shutil.ignore_patterns("*.dvc", ".git*"))
    shutil.copy(workspace.root / "train.py", place.root)
    request = request_of(workspace, run_id)
    others = tuple(mount for mount in request.mounts if not mount.target.startswith(WORKSPACE))
    request = msgspec.structs.replace(request, mounts=(Mount(place.root, WORKSPACE, read_only=False), *others))
    place.write("job.sh", f"rm -f {shlex.join(_OUTPUTS)}\nexec {shlex.join(docker_run(request))}\n")
    place.root.chmod(0o777)  # the job is not root
    place.call("git", "init", "-q")
    return place


def _against_bare(place: Workspace, arguments: Sequence[str]) -> Measured:
    """The bare container writes to a copy of its own: some peers refuse to start where outputs have changed."""
    return in_turns(_side(place, arguments), _side(_place("none"), ["sh", "job.sh"]), SLOW)


def _side(place: Workspace, arguments: Sequence[str]) -> Side:
    return Side(command(arguments, place.root, env=_environment()))


def _call(cwd: Path, *arguments: str) -> None:
    found = _found(arguments[0]) if not os.path.isabs(arguments[0]) else [arguments[0]]
    command([*found, *arguments[1:]], cwd, env=_environment())()


def _program(name: str) -> str | None:
    return shutil.which(name, path=_path())


def _found(name: str) -> list[str]:
    program = _program(name)
    return [program] if program else [name]


def _python(name: str) -> str:
    """The Python that a program is installed for."""
    beside = Path(_found(name)[0]).with_name("python3")
    return str(beside) if beside.exists() else sys.executable


def _path() -> str:
    return f"{_INSTALLED}{os.pathsep}{os.environ.get('PATH', '')}"


def _environment() -> dict[str, str]:
    who = {f"GIT_{role}_{what}": "bench" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    settings = {"DVC_NO_ANALYTICS": "true", "MLFLOW_TRACKING_URI": f"sqlite:///{PLACE / 'peer-mlflow' / 'mlflow.db'}"}
    return os.environ | who | settings | {"PATH": _path(), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


_WHAT = "the job of about 3 s, by "
ROWS = (
    Row("dvc", _WHAT + "dvc repro", "bare docker run", None, dvc),
    Row("datalad", _WHAT + "datalad run", "bare docker run", None, datalad),
    Row("mlflow", _WHAT + "mlflow, its files logged", "bare docker run", None, mlflow),
    Row("reprozip", _WHAT + "reprozip trace", "python train.py", None, reprozip),
)
