"""Capture: job → state spec, before the job starts.

Each layer observes its part of the present; here they are put together. Nothing is run but what it takes
to look (an image's Python is asked once) and to lock (once per requirements and image).
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial

import msgspec

from runner import __version__
from runner.compare import check_installed, check_rule
from runner.erased import refuse_erased
from runner.errors import UsageError
from runner.execute import job_owner
from runner.layers import access, code, data, dependencies, env, host, image, params, schema, sources
from runner.layers.dependencies import Locker
from runner.state.digest import digest_value
from runner.state.job import Job, JobStage, words_of
from runner.state.moment import moment_text
from runner.state.paths import STDOUT, covers, inside, is_marked
from runner.state.spec import (
    Access,
    AccessSeen,
    Better,
    Binding,
    Check,
    Contract,
    DataSeen,
    Observed,
    OutputRule,
    RunInfo,
    Stage,
    State,
    StateSpec,
    ToolInfo,
    state_digest,
)
from runner.store.runs import new_run_id
from runner.tools import git
from runner.tools.containers import Engine
from runner.tools.interrupts import Interrupts
from runner.tools.probe import probe
from runner.workspace import Workspace

Say = Callable[[str], None]


class Captured(msgspec.Struct, frozen=True):
    """A spec, and the secrets' values, which are kept nowhere else."""

    spec: StateSpec
    secrets: dict[str, bytes]

    def bound(self, binding: Binding) -> Captured:
        """The same, held to a release."""
        run = msgspec.structs.replace(self.spec.run, release=binding)
        return Captured(msgspec.structs.replace(self.spec, run=run), self.secrets)


def capture(
    workspace: Workspace,
    engine: Engine,
    name: str,
    job: Job,
    interrupts: Interrupts,
    say: Say,
    *,
    relock: bool = False,
    as_of: str | None = None,
    standing: StateSpec | None = None,
    now: datetime.datetime,
) -> Captured:
    """The state that the job would run under now, its files safe in the store. With `as_of`, packages are resolved
    among those that the index had at that moment; the lock of `standing` stands where there is none.

    Raises `UsageError` for what a person must mend, `OutsideError` when the engine, the index or a
    registry fails.
    """
    store, root = workspace.store, workspace.root
    outputs = contract_outputs(job)
    check_installed(outputs, outputs)
    command = command_of(job)
    refuse_overlaps(job, outputs)
    stages = stages_of(workspace, name, job, outputs)
    contract = contract_of(workspace, name, job, outputs, stages, keep=True)
    limits = access.limits(job.limits)
    env.refuse_unset(job.env, os.environ)
    asked = sources.declared(job)
    secrets = access.read_secrets(job.secrets, root, os.environ)
    sources.refuse_telling(asked, secrets)
    parameters = params.observe(store, root, job.params)
    allow = partial(refuse_erased, store, workspace.specs)
    data_found = [data.observe(store, root, path, allow) for path in job.data]
    model_found = [data.observe_model(store, root, path, named, allow) for path, named in models_of(job).items()]
    found = image.observe(engine, store, root, job.image, job.entrypoint == "keep", say)
    probed = probe(engine, store.cache, found.id, job.python, interrupts) if job.python else None
    identity = digest_value(found.identity)
    # A lock of another moment is another lock.
    scope = digest_value([identity, as_of]) if as_of else identity
    locker = Locker(engine, found.id, scope, probed, job_owner(), interrupts, say, as_of) if probed else None
    locked, locked_seen = dependencies.observe(store, root, job, probed, locker, relock, standing)
    files = code.observe(root, set(owned_paths(workspace, job)))
    refuse_idle_marks(job, [file.path for file in files], [stage.name for stage in stages])
    state = State(
        command=command,
        stages=stages,
        code=code.keep(store, root, files),
        params=parameters,
        image=found.identity,
        dependencies=locked,
        env=env.observe(job.env, os.environ, job.determinism, limits.cpus, locked.locked or ()),
        secrets=tuple(sorted(job.secrets)),
        data={path: version.digest for path, version, _ in sorted(data_found)},
        model={path: version.digest for path, version, _ in sorted(model_found)},
        access=Access(network=job.network, limits=limits, determinism=job.determinism),
    )
    observed = Observed(
        code=git.seen(root),
        image=found.seen,
        dependencies=locked_seen,
        data=_seen(data_found),
        schema=schema.observe(store, state.data, say),
        model=_seen(model_found),
        access=AccessSeen(
            access.seen(job.secrets, secrets, store.fingerprint_key()) if secrets else {},
            sources.observe(root, asked, secrets),
        ),
        host=host.observe(engine.version()),
    )
    run = RunInfo(
        id=new_run_id(name, now),
        job=name,
        created=moment_text(now),
        tool=ToolInfo(version=__version__),
        labels=tuple(sorted(set(job.labels))),
    )
    spec = StateSpec(run=run, state=state, observed=observed, contract=contract, digest=state_digest(state))
    return Captured(spec, secrets)


def models_of(job: Job) -> dict[str, str | None]:
    """Each model's path with what a registry calls it."""
    return job.model if isinstance(job.model, dict) else dict.fromkeys(job.model)


def command_of(job: Job) -> tuple[str, ...]:
    """Nothing for a job of stages."""
    words = words_of(job.command)
    if not words and not job.stages:
        raise UsageError("the job has no command", next="give it a `command`, `stages`, or the `stage` of a dvc.yaml")
    return words


def stages_of(workspace: Workspace, name: str, job: Job, outputs: Mapping[str, OutputRule]) -> tuple[Stage, ...]:
    if not job.stages:
        return ()
    from runner.declared import stages_of

    return stages_of(name, job, outputs, code.paths(workspace.root, set(owned_paths(workspace, job))))


def contract_of(
    workspace: Workspace,
    name: str,
    job: Job,
    outputs: dict[str, OutputRule],
    stages: tuple[Stage, ...],
    *,
    keep: bool,
) -> Contract:
    """What the job promises; what it is held against is kept in the store, if it is to `keep`."""
    checks: tuple[Check, ...] = ()
    if job.checks or any(isinstance(stage, JobStage) and stage.checks for stage in job.stages):
        from runner.baseline import baseline
        from runner.declared import checks_of

        baseline_of = partial(baseline, workspace, keep=keep)
        checks = checks_of(name, job, workspace.root, outputs, stages, baseline_of)
    return Contract(outputs, contract_metrics(job, outputs), tuple(sorted(set(job.preprocessing))), checks)


def stage_outs(job: Job) -> Iterator[str]:
    """Paths that the stages of a job write. Those of stages named by `dvc.yaml` are known once they are filled in."""
    for stage in job.stages:
        if isinstance(stage, JobStage):
            yield from (inside(out, f"stages: outs of {stage.name}") for out in stage.outs)


def contract_outputs(job: Job) -> dict[str, OutputRule]:
    """Each declared output with its rule. Raises `UsageError` for paths and rules that cannot be."""
    declared: Mapping[str, OutputRule | str | None]
    declared = job.outputs if isinstance(job.outputs, dict) else dict.fromkeys(job.outputs)
    rules: dict[str, OutputRule] = {}
    for path, rule in declared.items():
        name = path if path == STDOUT else inside(path, "outputs")
        if name in rules or code.is_reserved(name):
            raise UsageError(
                f"outputs: {path!r} cannot be one",
                f"{name} is declared twice" if name in rules else "it belongs to replay, DVC or version control",
                "declare a path of the job's own",
            )
        rules[name] = OutputRule(rule) if isinstance(rule, str) else rule or OutputRule()
        check_rule(name, rules[name])
    return dict(sorted(rules.items()))


def refuse_idle_marks(job: Job, files: Collection[str], stages: Collection[str]) -> None:
    """Raises `UsageError` for a mark of preprocessing that marks nothing."""
    for mark in job.preprocessing:
        if mark not in stages and not any(is_marked(path, (mark,)) for path in files):
            raise UsageError(
                f"preprocessing: {mark!r} marks no code file and no stage",
                "paths and globs are those of code files; what is ignored, data, params and outputs are none",
                "correct it, or leave it out",
            )


def contract_metrics(job: Job, outputs: Mapping[str, OutputRule]) -> dict[str, dict[str, Better]]:
    """The declared metrics. Raises `UsageError` for one that no output holds."""
    for path in job.metrics:
        if not any(covers(output, path) for output in outputs):
            raise UsageError(
                f"metrics: {path} is no output of the job",
                f"its outputs are {', '.join(outputs) or 'none'}",
                "declare the file under `outputs`, too",
            )
    return job.metrics


def owned_paths(workspace: Workspace, job: Job) -> Iterator[str]:
    """Paths that belong to other layers than code: this job's, and every declared job's outputs."""
    yield from (inside(path, "data") for path in job.data)
    yield from (inside(path, "model") for path in job.model)
    if isinstance(job.params, str):
        yield inside(job.params, "params")
    if job.dependencies:
        yield from dependencies.owned_files(workspace.root, job.dependencies)
    if job.image and image.image_folder(workspace.root, job.image):
        yield inside(job.image, "image")
    yield from image.folders_of(workspace.root)
    jobs = [job]
    if (workspace.root / code.WORKFILE).is_file():
        jobs += workspace.workfile().jobs.values()
    for one in jobs:
        yield from contract_outputs(one)
        yield from stage_outs(one)
    store = workspace.store.folder
    if workspace.root in store.parents:
        yield str(store.relative_to(workspace.root))


def refuse_overlaps(job: Job, outputs: Mapping[str, OutputRule]) -> None:
    """An input is read-only, so an output at, in or around one could never be written or be told apart; and what
    is one thing cannot be another as well."""
    data_paths = {inside(path, "data") for path in job.data}
    model_paths = {inside(path, "model") for path in job.model}
    params_paths = {inside(job.params, "params")} if isinstance(job.params, str) else set()
    _refuse_both("data", data_paths, "model", model_paths)
    _refuse_both("env", job.env, "secrets", job.secrets)
    for path in sorted(data_paths | model_paths | params_paths):
        for output in outputs:
            if covers(path, output) or covers(output, path):
                raise UsageError(
                    f"{output} is declared as an output, and {path} as an input",
                    "what a job reads and what it writes are told apart by their paths",
                    "write the result to a path of its own",
                )


def _refuse_both(one: str, names: Collection[str], other: str, others: Collection[str]) -> None:
    for name in sorted({*names} & {*others}):
        raise UsageError(f"{name} is declared under `{one}` and under `{other}`", next="declare it once")


def _seen(found: list[tuple[str, data.Version, DataSeen]]) -> dict[str, DataSeen]:
    return {path: seen for path, _, seen in sorted(found, key=lambda one: one[0])}
