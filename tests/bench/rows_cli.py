"""Commands that only look, over 10,000 runs."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator

import msgspec

from runner.state.digest import digest_bytes
from runner.state.record import Outcome, Output, Record
from runner.state.spec import StateSpec, Wheel, state_digest
from runner.store.runs import Run
from tests.bench.harness import Measured, Row, Side, command, in_turns
from tests.bench.laid_out import Workspace
from tests.bench.rows_environment import fifty

RUNS = 10_000
PACKAGES = 300
ROUNDS = 15


@functools.cache
def many() -> tuple[Workspace, list[str]]:
    """10,000 runs, the first two of 300 packages each, written by the tool's own writers."""
    workspace, before, _ = fifty()
    like = workspace.spec(before)
    there = Workspace("many", {"true": {"command": ["true"], "outputs": ["stdout"]}})
    there.commit()
    store = there.own_store()
    kept, os.fsync = os.fsync, lambda _descriptor: None
    try:
        ids = [_write(Run(store, spec.run.id, there.root / "state_specs"), spec) for spec in _specs(like)]
    finally:
        os.fsync = kept
    return there, ids


def _specs(like: StateSpec) -> Iterator[StateSpec]:
    for number in range(RUNS):
        wheels = tuple(_wheel(one, number) for one in range(PACKAGES)) if number < 2 else ()
        dependencies = msgspec.structs.replace(like.state.dependencies, locked=wheels)
        env = like.state.env | {"SEED": str(number)}
        state = msgspec.structs.replace(like.state, env=env, dependencies=dependencies)
        created = f"2026-{1 + number // 900:02}-{1 + number // 32 % 28:02}T{number % 24:02}:00:00Z"
        run = msgspec.structs.replace(like.run, id=f"true-{number:05}-k3v9xq", job="true", created=created)
        yield msgspec.structs.replace(like, run=run, state=state, digest=state_digest(state))


def _wheel(one: int, number: int) -> Wheel:
    """Every tenth package has another version in the second run."""
    version = f"1.{one}.{number if one % 10 == 0 else 0}"
    name = f"package{one}"
    return Wheel(name, version, f"{name}-{version}-py3-none-any.whl", digest_bytes(f"{name}{version}".encode()))


def _write(run: Run, spec: StateSpec) -> str:
    run.begin()
    data = run.write_spec(spec)
    outcome = Outcome(ending="exited", exit_code=0, duration_s=0.3)
    output = Output("stdout", digest_bytes(spec.run.id.encode()), 12)
    run.write_record(
        Record(
            run_id=spec.run.id,
            spec_sha256=digest_bytes(data),
            state_digest=spec.digest,
            started=spec.run.created,
            outcome=outcome,
            outputs=(output,),
        )
    )
    run.end()
    return run.id


def version() -> Measured:
    return _against_import(Workspace("version", {}), "--version")


def ls() -> Measured:
    workspace, _ = many()
    return _against_import(workspace, "ls")


def show() -> Measured:
    workspace, ids = many()
    return _against_import(workspace, "show", ids[RUNS // 2][:12])


def diff() -> Measured:
    workspace, ids = many()
    return _against_import(workspace, "diff", *ids[:2], accept=(1,))


def _against_import(workspace: Workspace, *arguments: str, accept: tuple[int, ...] = (0,)) -> Measured:
    ours = command([sys.executable, "-m", "runner", *arguments], workspace.root, accept)
    theirs = command([sys.executable, "-c", "import runner.cli.main"], workspace.root)
    return in_turns(Side(ours), Side(theirs), ROUNDS)


_IMPORT = "python and `import runner.cli.main`"
ROWS = (
    Row("version", "--version", _IMPORT, 2.0, version),
    Row("ls", "ls over 10,000 runs", _IMPORT, 2.0, ls),
    Row("show", "show, one of 10,000 runs", _IMPORT, 2.0, show),
    Row("diff", "diff of two specs of 300 packages", _IMPORT, 2.0, diff),
)
