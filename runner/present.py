"""The present: what a job's state would be if it ran now, as far as looking alone can tell.

No container is started, nothing is pulled, built or resolved, and nothing is written. A layer for which that would be
needed is unknown, and says what would be done.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

from runner import __version__
from runner.capture import command_of, contract_of, contract_outputs, models_of, owned_paths, stages_of
from runner.layers import access, code, data, dependencies, env, host, image, params, sources
from runner.stages import job_of_stage
from runner.state.digest import digest_bytes, digest_value
from runner.state.job import Job
from runner.state.paths import inside
from runner.state.spec import (
    Access,
    AccessSeen,
    DataSeen,
    Dependencies,
    ImageSeen,
    Observed,
    RunInfo,
    SecretSeen,
    State,
    StateSpec,
    ToolInfo,
    state_digest,
)
from runner.tools import git
from runner.tools.containers import Engine, EngineImage, connect_if_any
from runner.tools.probe import probed_before
from runner.workspace import PRESENT, Workspace


class Present(msgspec.Struct, frozen=True):
    """A spec called `.`; `code` lists its files; `unknown` maps layers that only a run could tell to why. These have
    the value of the run that it is compared with."""

    spec: StateSpec
    code: tuple[code.CodeFile, ...]
    unknown: dict[str, str]


def look(workspace: Workspace, then: StateSpec, *, held: bool = False) -> Present:
    """The state that the job of a recorded run would have now, or would if it were `held` to that run.

    Raises `UsageError` where the job is no longer declared, or could not be run as things are.
    """
    job = job_of_stage(workspace.root, workspace.job(then.run.job))
    unknown: dict[str, str] = {}
    root, limits = workspace.root, access.limits(job.limits)
    outputs = contract_outputs(job)
    stages = stages_of(workspace, then.run.job, job, outputs)
    engine = connect_if_any()
    found = _image(engine, workspace, job, then, unknown)
    locked = _dependencies(workspace, job, found, then, held, unknown)
    files = code.observe(root, set(owned_paths(workspace, job)))
    state = State(
        command=command_of(job),
        stages=stages,
        code=digest_bytes(code.listing(files)),
        params=params.look(root, job.params)[0],
        image=image.identity_of(found, job.entrypoint == "keep") if found else then.state.image,
        dependencies=locked,
        env=env.observe(job.env, os.environ, job.determinism, limits.cpus, locked.locked or ()),
        secrets=tuple(sorted(job.secrets)),
        data=_data(workspace, job.data, then.state.data, then),
        model=_data(workspace, tuple(job.model), then.state.model, then),
        access=Access(network=job.network, limits=limits, determinism=job.determinism),
    )
    observed = Observed(
        code=git.seen(root),
        image=ImageSeen(reference=job.image, config=found.id if found else None),
        model={inside(path, "model"): DataSeen(reference=named) for path, named in models_of(job).items()},
        access=_access(workspace, job),
        host=host.observe(engine.version()) if engine else then.observed.host,
    )
    run = RunInfo(id=PRESENT, job=then.run.job, created="", tool=ToolInfo(version=__version__))
    contract = contract_of(workspace, then.run.job, job, outputs, stages, keep=False)
    spec = StateSpec(run=run, state=state, observed=observed, contract=contract, digest=state_digest(state))
    return Present(spec, files, unknown)


def _image(
    engine: Engine | None, workspace: Workspace, job: Job, then: StateSpec, unknown: dict[str, str]
) -> EngineImage | None:
    found = image.at_hand(engine, workspace.root, job.image) if engine else None
    if found is None:
        was = then.observed.image.reference
        other = f" (the run had {was})" if was != job.image else ""
        why = "is not in the engine; a run would get or build it" if engine else "cannot be seen: no engine answers"
        unknown["image"] = f"{job.image}{other} {why}"
    return found


def _dependencies(
    workspace: Workspace, job: Job, found: EngineImage | None, then: StateSpec, held: bool, unknown: dict[str, str]
) -> Dependencies:
    if found is None:
        unknown["dependencies"] = "they are those of an image that could not be looked at"
        return then.state.dependencies
    probed = probed_before(workspace.store.cache, found.id, job.python) if job.python else None
    if job.python and probed is None and not (job.dependencies is None and then.state.dependencies.python is None):
        unknown["dependencies"] = "the image's Python was never looked at; a run would start it once"
        return then.state.dependencies
    identity = digest_value(image.identity_of(found, job.entrypoint == "keep"))
    standing = then if held else None
    known = dependencies.at_hand(workspace.store, workspace.root, job, probed, identity, standing)
    if known is None:
        unknown["dependencies"] = f"{job.dependencies} has no lock for this image; a run would resolve it anew"
        return then.state.dependencies
    return known


def _access(workspace: Workspace, job: Job) -> AccessSeen:
    """Secrets that cannot be read here are left out. In a store that never made a key, none has a fingerprint."""
    secrets = sources.readable(job.secrets, workspace.root, os.environ)
    key = workspace.store.known_key()
    return AccessSeen(
        access.seen(job.secrets, secrets, key)
        if key
        else {name: SecretSeen(job.secrets[name], "") for name in secrets},
        sources.observe(workspace.root, sources.declared(job), secrets),
    )


def _data(workspace: Workspace, paths: tuple[str, ...], before: Mapping[str, str], then: StateSpec) -> dict[str, str]:
    seen = then.observed.data | then.observed.model
    found = {}
    for path in sorted(inside(path, "data") for path in paths):
        pin = seen[path].dvc if path in seen else None
        found[path] = data.at_hand(workspace.store, workspace.root, path, pin, before.get(path))
    return found
