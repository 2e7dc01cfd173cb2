"""A job that names a stage, or several, of `dvc.yaml` instead of repeating their commands, deps, params and outs.

What the job says itself wins. Of the deps, those under DVC are data and the rest is code, which every job
has anyway. Templates (`${…}`) are taken resolved from `dvc.lock`, where DVC writes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from runner.errors import UsageError
from runner.state.job import Job, JobStage
from runner.state.paths import covers
from runner.state.spec import OutputRule
from runner.state.strict import load_yaml
from runner.tools import dvc

_PIPELINE, _LOCK = "dvc.yaml", "dvc.lock"
_DEFAULT_PARAMS = "params.yaml"
_LISTS = ("deps", "params", "outs", "metrics", "plots")


def job_of_stage(root: Path, job: Job) -> Job:
    """The job with what its stage, or its stages, say filled in; unchanged when it names none."""
    if job.stages:
        return _job_of_stages(root, job)
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


def _job_of_stages(root: Path, job: Job) -> Job:
    """Stages written out stay as they are. Those named are taken from `dvc.yaml`, each after those whose outs it
    needs; what is under DVC and no out of theirs is the job's data."""
    if job.command is not None or job.stage is not None:
        raise UsageError(
            "the job has stages, and a command or stage of its own",
            f"found stages and {'command' if job.command is not None else 'stage'}",
            "keep one of command, stage and stages",
        )
    named = [one for one in job.stages if isinstance(one, str)] if isinstance(job.stages, tuple) else None
    if named == []:
        return job
    if named is not None and len(named) < len(job.stages):
        raise UsageError(
            "stages: some are written out and some are named", "an order of both is not known", "write all or name all"
        )
    pipeline = {name: _stage(root, name) for name in (_all_names(root) if named is None else named)}
    made = {out for name, stage in pipeline.items() for out in _outputs(name, stage)}
    order = _in_order(
        {name: (list(_deps(name, stage)), list(_outputs(name, stage))) for name, stage in pipeline.items()}
    )
    data = [path for name in order for path in _data(root, name, pipeline[name]) if not _is_made(path, made)]
    params = {_params(pipeline[name]) for name in order} - {None}
    if len(params) > 1:
        raise UsageError(
            f"stages: they read several parameter files: {', '.join(sorted(map(str, params)))}", "a job has one"
        )
    return msgspec.structs.replace(
        job,
        stages=tuple(_job_stage(root, name, pipeline[name]) for name in order),
        data=job.data or tuple(dict.fromkeys(data)),
        params=job.params if job.params is not None else next(iter(params), None),
        outputs=job.outputs or dict.fromkeys(sorted(made - _used(pipeline)), OutputRule()),
    )


def _job_stage(root: Path, name: str, stage: dict[str, Any]) -> JobStage:
    own = _params(stage)
    deps = (*_deps(name, stage), *([own] if own else []))
    return JobStage(name=name, command=_command(root, name, stage), deps=deps, outs=tuple(_outputs(name, stage)))


def _all_names(root: Path) -> list[str]:
    file = root / _PIPELINE
    if not file.is_file():
        raise UsageError(f"stages: there is no {_PIPELINE} in {root}", "the job takes its stages")
    return list(_stages(file))


def _in_order(paths: dict[str, tuple[list[str], list[str]]]) -> list[str]:
    """Names of stages, each after those of which it needs an out, else in the order given."""
    order: list[str] = []
    while len(order) < len(paths):
        waiting = [name for name in paths if name not in order]
        ready = [name for name in waiting if not _needs(paths[name][0], [paths[one][1] for one in waiting])]
        if not ready:
            raise UsageError(f"stages: {', '.join(waiting)} of {_PIPELINE} need one another")
        order.append(ready[0])
    return order


def _needs(deps: list[str], outs: list[list[str]]) -> bool:
    return any(_is_made(dep, set(made)) for dep in deps for made in outs)


def _is_made(path: str, outs: set[str]) -> bool:
    return any(covers(out, path) or covers(path, out) for out in outs)


def _used(pipeline: dict[str, dict[str, Any]]) -> set[str]:
    """Outs that are a dep of another stage."""
    deps = {dep for name, stage in pipeline.items() for dep in _deps(name, stage)}
    return {out for name, stage in pipeline.items() for out in _outputs(name, stage) if _is_made(out, deps)}


def _deps(name: str, stage: dict[str, Any]) -> Iterator[str]:
    for path in _names(stage.get("deps")):
        if "${" in path:
            raise _cannot_be_a_job(name, f"there is a template in its deps: {path!r}")
        yield path


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
