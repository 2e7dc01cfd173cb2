"""The same container without the tool: `docker run` with what the tool asks the engine for.

The request is the tool's own, made from the recorded spec; only the folders that a run writes to are others, laid
out once and used again.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from runner.execute import container_request, job_owner, lay_out
from runner.rebuild import look, plan, rebuild
from runner.store.runs import Run
from runner.tools.container_request import DEFAULT_PROCESSES, ContainerRequest
from runner.tools.containers import connect
from runner.tools.interrupts import Interrupts
from tests.bench.laid_out import PLACE, Workspace


def bare_run(workspace: Workspace, run_id: str) -> list[str]:
    """The `docker run` command that runs a recorded state."""
    return docker_run(request_of(workspace, run_id))


def request_of(workspace: Workspace, run_id: str) -> ContainerRequest:
    """What the tool asks the engine for to run a recorded state, in folders that stay."""
    spec, engine, store = workspace.spec(run_id), connect(), workspace.store
    run = Run(store, run_id, None)
    run.scratch = PLACE / "bare" / run_id
    shutil.rmtree(run.scratch, ignore_errors=True)
    made = plan(spec.state, spec.observed, look(engine, store, workspace.root, spec.state, spec.observed))
    rebuilt = rebuild(engine, store, workspace.root, made, run, Interrupts(), lambda _text: None)
    lay_out(run.scratch, rebuilt.prepared, job_owner())
    return container_request(store, run, spec.state, rebuilt.prepared, {}, job_owner())


def docker_run(request: ContainerRequest) -> list[str]:
    """The request as arguments of the docker client; as `container_config` has it for the API."""
    limits = request.limits
    options = {
        "--network": request.network,
        "--cap-drop": "ALL",
        "--security-opt": "no-new-privileges",
        "--log-driver": "none",
        "--memory": limits.memory,
        "--memory-swap": limits.memory,
        "--shm-size": limits.shm,
        "--cpus": limits.cpus,
        "--pids-limit": limits.processes or DEFAULT_PROCESSES,
        "--user": request.user,
        "--workdir": request.workdir,
        "--hostname": request.hostname,
    }
    command = ["docker", "run", "--rm", "--init", "--no-healthcheck"]
    command += ["--read-only"] if request.read_only else []
    command += [f"{name}={value}" for name, value in options.items() if value is not None]
    command += [f"--env={name}={value}" for name, value in sorted(request.env.items())]
    command += [f"--label={name}=bench" for name in request.labels]
    command += [f"--mount={_mount(mount.source, mount.target, mount.read_only)}" for mount in request.mounts]
    entrypoint, *arguments = [*(request.entrypoint or ()), *request.command]
    return [*command, f"--entrypoint={entrypoint}", request.image, *arguments]


def _mount(source: Path, target: str, read_only: bool) -> str:
    return f'type=bind,"source={source}",target={target}' + (",readonly" if read_only else "")
