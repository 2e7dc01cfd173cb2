"""Probes of models: run inside the recorded environment, where a model may be loaded.

Each has a container of its own, as the job's but without network and secrets: a fresh copy of the code, the same
packages, data and variables, the model's file read-only at its path.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import msgspec

from runner.compare import Printed, shown
from runner.errors import InterruptedRunError
from runner.execute import WORK, WORKSPACE, Prepared, container_request, disk_watch, job_owner, lay_out
from runner.layers import code, params
from runner.logs import STDERR, STDOUT
from runner.run import Session
from runner.state.digest import Digest
from runner.state.spec import Access, OutputRule, State
from runner.store.runs import Run
from runner.tools.container_request import Ended, Mount
from runner.tools.engine_errors import ExecutableMissingError

FILE = "{}"
"""What stands for the model's path in a probe."""

PATIENCE_S = 600.0
MOST_PRINTED = 16 << 20
_SHOWN = 120


class Probes:
    """What the probes of a replay print, by the output's path and digest. One output is probed once."""

    def __init__(self, session: Session, run: Run, state: State, prepared: Prepared) -> None:
        self._session = session
        self._run = run
        self._state = state
        self._prepared = prepared
        self.printed: dict[tuple[str, Digest], Printed] = {}

    def __call__(self, path: str, digest: Digest, rule: OutputRule) -> Printed:
        if (path, digest) not in self.printed:
            self.printed[path, digest] = self._print(path, digest, command_of(rule, path))
        return self.printed[path, digest]

    def _print(self, path: str, digest: Digest, command: tuple[str, ...]) -> Printed:
        session, run, store = self._session, self._run, self._session.workspace.store
        session.say(f"probe of {path} {digest[:19]}")
        scratch = run.scratch / f"probe-{len(self.printed)}"
        prepared = self._laid_out(scratch / WORK, Mount(store.blobs.verified(digest), f"{WORKSPACE}/{path}"))
        owner = job_owner()
        lay_out(scratch, prepared, owner)
        request = container_request(store, run, probing(self._state, command), prepared, {}, owner, scratch)
        said = _Said()
        try:
            ended = session.engine.run(request, said, session.interrupts, disk_watch(run, None))
        except ExecutableMissingError:
            return Printed(problem="cannot be started")
        if ended.stopped == "interrupted":
            raise InterruptedRunError("interrupted", f"replay {run.id} was stopped while a model was probed")
        return _printed(ended, said)

    def _laid_out(self, workspace: Path, model: Mount) -> Prepared:
        store, state = self._session.workspace.store, self._state
        workspace.mkdir(parents=True)
        code.restore(store, code.files_of(store, Digest(state.code)), workspace)
        params.restore(store, state.params, workspace)
        return msgspec.structs.replace(self._prepared, workspace=workspace, mounts=(*self._prepared.mounts, model))


def command_of(rule: OutputRule, path: str) -> tuple[str, ...]:
    """The probe with the model's path in it."""
    path = f"{WORKSPACE}/{path}"
    if isinstance(rule.probe, str):
        return "sh", "-c", rule.probe.replace(FILE, shlex.quote(path))
    return tuple(word.replace(FILE, path) for word in rule.probe)


def probing(state: State, command: tuple[str, ...]) -> State:
    """The state's conditions for another command, which reaches nothing and ends."""
    limits = msgspec.structs.replace(state.access.limits, time=min(state.access.limits.time or PATIENCE_S, PATIENCE_S))
    access = Access(network="none", limits=limits, determinism=state.access.determinism)
    return msgspec.structs.replace(state, command=command, access=access, secrets=())


def _printed(ended: Ended, said: _Said) -> Printed:
    if ended.stopped or ended.out_of_memory:
        return Printed(problem=f"was ended ({ended.stopped or 'out of memory'})")
    if ended.exit_code:
        last = shown(bytes(said.err).decode(errors="replace").strip().rpartition("\n")[2], _SHOWN)
        return Printed(problem=f"exits {ended.exit_code}" + (f": {last}" if said.err else ""))
    if not said.out.strip():
        return Printed(problem="prints nothing")
    if len(said.out) > MOST_PRINTED:
        return Printed(problem=f"prints more than {MOST_PRINTED >> 20} MiB")
    return Printed(bytes(said.out))


class _Said:
    """What a container prints: of its stdout what is compared, of its stderr the end."""

    def __init__(self) -> None:
        self.out = bytearray()
        self.err = bytearray()

    def write(self, stream: int, data: bytes) -> None:
        if stream == STDOUT:
            self.out += data[: MOST_PRINTED + 1 - len(self.out)]
        elif stream == STDERR:
            self.err += data
            del self.err[:-4096]
