"""What a declared job lacks here, as its layers tell it. Nothing is built, fetched, kept or run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from runner.capture import command_of, contract_outputs, models_of, refuse_overlaps
from runner.compare import check_installed
from runner.errors import ReplayError, UsageError
from runner.layers import access, dependencies, env, image, params
from runner.stages import job_of_stage
from runner.state.job import Job
from runner.state.paths import inside
from runner.tools import dvc
from runner.tools.containers import Engine

Look = Callable[[], object]


def lacking(root: Path, job: Job, engine: Engine | None) -> Iterator[ReplayError]:
    """Each thing that would keep a run from starting. Without an engine, images are not looked for."""
    try:
        job = job_of_stage(root, job)
    except ReplayError as error:
        yield error
        return
    for look in _looks(root, job, engine):
        try:
            look()
        except ReplayError as error:
            yield error


def _looks(root: Path, job: Job, engine: Engine | None) -> Iterator[Look]:
    yield partial(command_of, job)
    yield partial(_outputs, job)
    yield partial(env.refuse_unset, job.env, os.environ)
    yield partial(params.look, root, job.params)
    for name, reference in job.secrets.items():
        yield partial(access.read_secrets, {name: reference}, root, os.environ)
    for path in job.data:
        yield partial(_data, root, path)
    for path in models_of(job):
        yield partial(_model, root, path)
    if job.dependencies:
        yield partial(dependencies.read_requirements, root, job.dependencies)
    if engine:
        yield partial(_image, engine, root, job.image)


def _outputs(job: Job) -> None:
    outputs = contract_outputs(job)
    check_installed(outputs, outputs)
    refuse_overlaps(job, outputs)


def _data(root: Path, path: str) -> None:
    dvc.find_pin(root, inside(path, "data"))


def _model(root: Path, path: str) -> None:
    if not (root / inside(path, "model")).exists():
        _data(root, path)


def _image(engine: Engine, root: Path, reference: str) -> None:
    if image.image_folder(root, reference) is None and image.at_hand(engine, root, reference) is None:
        raise UsageError(
            f"the engine has no image {reference}",
            "it is no folder of this workspace either; a run asks the image's registry for it",
            f"docker pull {reference}",
        )
