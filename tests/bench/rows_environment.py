"""Making environments, against pip doing so in the same image; and locking once."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Sequence

from runner.environment import seal
from runner.environment.farm import read_recipe
from runner.environment.tree import tree_folder
from runner.execute import ENVIRONMENT, job_owner
from runner.state.digest import Digest
from runner.state.spec import StateSpec, Wheel
from runner.tools.container_request import ContainerRequest, Mount
from tests.bench.bare import docker_run, request_of
from tests.bench.harness import QUICK, SLOW, Measured, Row, Side, command, in_turns, summary, timed
from tests.bench.laid_out import FILES, PLACE, Workspace

CHANGED = ("tabulate==0.10.0", "tabulate==0.9.0")
_PIP = "python3 -m venv --without-pip /env && python3 -m pip --python /env/bin/python install "
_PIP += "--quiet --no-index --no-deps --no-cache-dir --disable-pip-version-check /wheels/*"


@functools.cache
def fifty() -> tuple[Workspace, str, str]:
    """Two jobs that do nothing with 50 packages, of which one has another version; a run of each."""
    keys = {"command": ["true"], "outputs": ["stdout"]}
    jobs = {name: keys | {"dependencies": f"{name}.in"} for name in ("before", "after")}
    workspace = Workspace("fifty", jobs | {"hashed": keys | {"dependencies": "hashed.txt"}})
    asked = (FILES / "fifty.in").read_text()
    workspace.write("before.in", asked)
    workspace.write("after.in", asked.replace(*CHANGED))
    workspace.write("hashed.txt", "")
    workspace.commit()
    before, after = workspace.record("before"), workspace.record("after")
    workspace.write("hashed.txt", _hashed(workspace.spec(before)))
    workspace.commit()
    return workspace, before, after


def wheels_of(workspace: Workspace, run_id: str) -> tuple[Wheel, ...]:
    return workspace.spec(run_id).state.dependencies.locked or ()


def _hashed(spec: StateSpec) -> str:
    locked = spec.state.dependencies.locked or ()
    return "".join(f"{one.name}=={one.version} --hash={one.sha256}\n" for one in locked)


@functools.cache
def against_pip() -> dict[str, Measured]:
    """The whole command that makes the environment and runs `true` in it, against pip alone. Pip takes long, so
    one pip serves both rows of a round."""
    workspace, before, after = fifty()
    new = [wheel for wheel in wheels_of(workspace, after) if wheel not in wheels_of(workspace, before)]
    pip = _pip(workspace, before)
    changed, cold = _made_anew(workspace, after, new), _made_anew(workspace, before, wheels_of(workspace, before))
    taken = [(timed(pip), timed(cold), timed(changed)) for _ in range(SLOW)]
    return {
        "cold": summary([(ours, theirs) for theirs, ours, _ in taken]),
        "changed": summary([(ours, theirs) for theirs, _, ours in taken]),
    }


def one_changed() -> Measured:
    """All but the one package's tree and the environment are there."""
    return against_pip()["changed"]


def from_nothing() -> Measured:
    return against_pip()["cold"]


def _made_anew(workspace: Workspace, run_id: str, wheels: Sequence[Wheel]) -> Side:
    """A replay that has to make the environment, and the trees of these wheels."""
    store, request = workspace.store, request_of(workspace, run_id)
    environment = next(mount.source.parent for mount in request.mounts if mount.target == ENVIRONMENT)
    recipe = read_recipe(environment)
    assert recipe
    folders = [environment, *(tree_folder(store.cache, wheel, recipe.interpreter) for wheel in wheels)]

    def drop() -> None:
        for folder in folders:
            seal.discard(folder)

    return Side(command(workspace.replay("replay", "-q", run_id), workspace.root), drop)


def _pip(workspace: Workspace, run_id: str) -> Side:
    request = request_of(workspace, run_id)
    wheels, target = PLACE / "wheels", PLACE / "installed"
    shutil.rmtree(wheels, ignore_errors=True)
    wheels.mkdir()
    for wheel in wheels_of(workspace, run_id):
        os.link(workspace.store.blobs.path(Digest(wheel.sha256)), wheels / wheel.wheel)
    mounts = tuple(mount for mount in request.mounts if mount.target != ENVIRONMENT)
    mounts += (Mount(wheels, "/wheels"), Mount(target, "/env", read_only=False))
    env = {name: request.env[name] for name in ("HOME", "USER", "TMPDIR")}
    asked = ContainerRequest(
        image=request.image,
        command=("sh", "-c", _PIP),
        env=env,
        mounts=mounts,
        user=request.user,
        workdir=request.workdir,
    )

    def empty() -> None:
        subprocess.run(["rm", "-rf", target], check=True)
        target.mkdir()
        os.chown(target, *job_owner())

    return Side(command(docker_run(asked), workspace.root), empty)


def lock_at_hand() -> Measured:
    workspace, _, _ = fifty()
    workspace.record("hashed")
    asked, hashed = (workspace.replay("run", "-q", job) for job in ("before", "hashed"))
    return in_turns(Side(command(asked, workspace.root)), Side(command(hashed, workspace.root)), QUICK)


ROWS = (
    Row("env-changed", "environment of 50 packages, one changed", "pip install of the same wheels", 0.1, one_changed),
    Row("env-cold", "environment of 50 packages from nothing", "pip install of the same wheels", 0.3, from_nothing),
    Row(
        "lock", "`run`, nothing changed since the last lock", "`run` with a hashed requirements.txt", 1.05, lock_at_hand
    ),
)
