"""A job that names a stage of `dvc.yaml` instead of repeating its command, deps, params and outs.

What the job says itself wins. Of the deps, those under DVC are data and the rest is code, which every job
has anyway. Templates (`${…}`) are taken resolved from `dvc.lock`, where DVC writes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from runner.errors import UsageError
from runner.state.job import Job
from runner.state.spec import OutputRule
from runner.state.strict import load_yaml
from runner.tools import dvc

_PIPELINE, _LOCK = "dvc.yaml", "dvc.lock"
_DEFAULT_PARAMS = "params.yaml"
_LISTS = ("deps", "params", "outs", "metrics", "plots")


def job_of_stage(root: Path, job: Job) -> Job:
    """The job with what its stage says filled in; unchanged when it names none."""
    if job.stage is None:
        return job
    stage = _stage(root, job.stage)
    filled: dict[str, Any] = {}
    if job.command is None:
        filled["command"] = _command(root, job.stage, stage)
    if not job.data:
        filled["data"] = tuple(_data(root, job.stage, stage))
    if job.params is None:
        filled["params"] = _params(stage)
    if not job.outputs:
        filled["outputs"] = dict.fromkeys(_outputs(job.stage, stage), OutputRule())
    return msgspec.structs.replace(job, **filled)


def _stage(root: Path, name: str) -> dict[str, Any]:
    file = root / _PIPELINE
    if not file.is_file():
        raise UsageError(f"stage: there is no {_PIPELINE} in {root}", f"the job names its stage {name!r}")
    stages = _stages(file)
    if name not in stages:
        raise UsageError(f"stage: {_PIPELINE} has no stage {name!r}", f"it has {', '.join(sorted(stages)) or 'none'}")
    stage = stages[name]
    if not isinstance(stage, dict) or "cmd" not in stage:
        raise _cannot_be_a_job(name, "it has no cmd; foreach and matrix stages stand for several")
    if stage.get("wdir") not in (None, "."):
        raise _cannot_be_a_job(name, f"it runs in {stage['wdir']}, and a job in the workspace")
    for key in _LISTS:
        if not _is_list_of_names(stage.get(key, [])):
            raise _cannot_be_a_job(name, f"its {key} are no list of paths")
    return stage


def _stages(file: Path) -> dict[str, Any]:
    content = load_yaml(file.read_bytes(), str(file))
    stages = content.get("stages", {}) if isinstance(content, dict) else None
    if not isinstance(stages, dict):
        raise UsageError(f"stage: {file} is not as DVC writes it", "it holds no mapping of stages", f"correct {file}")
    return stages


def _cannot_be_a_job(name: str, why: str) -> UsageError:
    return UsageError(f"stage: {name!r} of {_PIPELINE} cannot be a job", why, "write the job out in replay.yaml")


def _is_list_of_names(listed: Any) -> bool:
    """Members are a path, or one path with options."""
    return isinstance(listed, list) and all(isinstance(one, str) or (isinstance(one, dict) and one) for one in listed)


def _command(root: Path, name: str, stage: dict[str, Any]) -> str:
    given = stage["cmd"]
    if not isinstance(given, str) and not _is_list_of_names(given):
        raise _cannot_be_a_job(name, "its cmd is neither a string nor a list of them")
    command = " && ".join(map(str, given)) if isinstance(given, list) else given
    return _resolved(root, name, "cmd", command) if "${" in command else command


def _resolved(root: Path, name: str, key: str, template: str) -> str:
    file = root / _LOCK
    stages = _stages(file) if file.is_file() else {}
    if name not in stages:
        raise UsageError(
            f"stage: {name!r} has a template in its {key}: {template!r}",
            f"{_LOCK} does not hold it resolved",
            f"`dvc repro {name}` or `dvc commit`, or write the command in replay.yaml",
        )
    locked = stages[name]
    command = locked.get(key) if isinstance(locked, dict) else None
    if not isinstance(command, str) and not (command and _is_list_of_names(command)):
        raise _cannot_be_a_job(name, f"{_LOCK} holds no {key} of it")
    return " && ".join(map(str, command)) if isinstance(command, list) else command


def _data(root: Path, name: str, stage: dict[str, Any]) -> Iterator[str]:
    for path in _names(stage.get("deps")):
        if "${" in path:
            raise UsageError(
                f"stage: {name!r} has a template in its deps: {path!r}", next="list the data in replay.yaml"
            )
        if _is_tracked(root, path):
            yield path


def _is_tracked(root: Path, path: str) -> bool:
    try:
        dvc.find_pin(root, path)
    except UsageError:
        return False
    return True


def _params(stage: dict[str, Any]) -> str | None:
    """The one parameter file; DVC lists keys of `params.yaml`, or files with keys."""
    files = {next(iter(one)) if isinstance(one, dict) else _DEFAULT_PARAMS for one in stage.get("params") or ()}
    if len(files) > 1:
        raise UsageError(
            f"stage: it reads several parameter files: {', '.join(sorted(files))}",
            "a job has one",
            "name it with `params` in replay.yaml; the others are code",
        )
    return next(iter(files), None)


def _outputs(name: str, stage: dict[str, Any]) -> Iterator[str]:
    for key in ("outs", "metrics", "plots"):
        for path in _names(stage.get(key)):
            if "${" in path:
                raise _cannot_be_a_job(name, f"there is a template in its {key}: {path!r}")
            yield path


def _names(listed: Any) -> Iterator[str]:
    """Paths of a list whose members are a path, or a path with options."""
    for one in listed or ():
        yield str(next(iter(one)) if isinstance(one, dict) else one)
