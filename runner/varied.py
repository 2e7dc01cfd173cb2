"""Variations: a recorded state with today's code, the newest packages, another image or variable; the rest as recorded.

Recorded states are left alone: what ran is a state of its own, in a run labelled `nightly`. Whatever is looked up for a
variation, code or packages, is looked up once for all runs of a night that it is the same for.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from runner.capture import command_of, contract_outputs, owned_paths, stages_of
from runner.execute import job_owner
from runner.layers import code, dependencies, image
from runner.layers.dependencies import Lock, Locker
from runner.layers.image import FoundImage
from runner.run import Session
from runner.stages import job_of_stage
from runner.state.digest import Digest, digest_value
from runner.state.job import LATEST
from runner.state.spec import Observed, Stage, State, StateSpec, state_digest
from runner.tools.probe import Probed, probe
from runner.workspace import Workspace

_ENV, _IMAGE = "env.", "image="
_FILE, _CONSTRAINTS = "requirements.in", "constraints.txt"


class Varied(msgspec.Struct, frozen=True):
    """A state to be run in the place of a recorded one, and what is observed of its parts."""

    state: State
    observed: Observed


class _Code(msgspec.Struct, frozen=True):
    """The pipeline of a job as it is here now."""

    digest: Digest
    command: tuple[str, ...]
    stages: tuple[Stage, ...]


class Variation:
    """What one night varies."""

    def __init__(self, against: str = "", setting: Sequence[str] = ()) -> None:
        self._against = against
        self._settings = tuple(setting)
        self._known: dict[Any, Any] = {}
        self._lock = threading.Lock()

    def of(self, session: Session, spec: StateSpec) -> Varied | None:
        """The state to run in its place; None where the variation changes nothing of it. Call it with the store being
        added to.

        Raises `UsageError` where it cannot be: a job that is declared no more, packages that cannot be resolved.
        """
        state, observed = spec.state, spec.observed
        if self._against:
            now = self._once(("code", spec.run.job), lambda: _code_now(session.workspace, spec.run.job))
            state = msgspec.structs.replace(state, code=now.digest, command=now.command, stages=now.stages)
        for setting in self._settings:
            state, observed = self._set(session, setting, state, observed)
        if state_digest(state) == spec.digest:
            return None
        return Varied(state, observed)

    @property
    def images(self) -> tuple[str, ...]:
        return tuple(one.removeprefix(_IMAGE) for one in self._settings if one.startswith(_IMAGE))

    def look_up_images(self, session: Session) -> None:
        """Before anything runs. Raises `OutsideError` or `UsageError` where one cannot be found, pulled or built."""
        with session.workspace.store.adding():
            for reference in self.images:
                self._image(session, reference, keep=False)

    def _set(self, session: Session, setting: str, state: State, observed: Observed) -> tuple[State, Observed]:
        if setting == LATEST:
            return self._with_latest(session, state, observed)
        if setting.startswith(_IMAGE):
            return self._with_image(session, setting.removeprefix(_IMAGE), state, observed)
        name, _, value = setting.removeprefix(_ENV).partition("=")
        return msgspec.structs.replace(state, env=dict(sorted({**state.env, name: value}.items()))), observed

    # --- packages and image

    def _with_latest(self, session: Session, state: State, observed: Observed) -> tuple[State, Observed]:
        requested = observed.dependencies.requested
        if state.dependencies.locked is None or not requested:
            return state, observed
        key = (digest_value(state.image), state.dependencies.interpreter, requested, state.code)
        lock = self._once(key, lambda: _resolve(session, state, observed))
        locked = msgspec.structs.replace(state.dependencies, locked=lock.wheels)
        seen = msgspec.structs.replace(observed.dependencies, tree=None, vcs=lock.vcs)
        return (
            msgspec.structs.replace(state, dependencies=locked),
            msgspec.structs.replace(observed, dependencies=seen),
        )

    def _with_image(self, session: Session, reference: str, state: State, observed: Observed) -> tuple[State, Observed]:
        keep = state.image.config.entrypoint is not None
        found = self._image(session, reference, keep)
        probed = _probed(session, found.id, state)
        before = state.dependencies
        python = probed.interpreter.version if probed else None
        state = msgspec.structs.replace(
            state, image=found.identity, dependencies=msgspec.structs.replace(before, python=python)
        )
        observed = msgspec.structs.replace(observed, image=found.seen)
        if before.locked is not None and python != before.python:
            return self._with_latest(session, state, observed)
        return state, observed

    def _image(self, session: Session, reference: str, keep: bool) -> FoundImage:
        root, store = session.workspace.root, session.workspace.store
        found: FoundImage = self._once(
            (reference, keep), lambda: image.observe(session.engine, store, root, reference, keep, session.say)
        )
        return found

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        with self._lock:
            if key not in self._known:
                self._known[key] = make()
            return self._known[key]


def _code_now(workspace: Workspace, name: str) -> _Code:
    job = job_of_stage(workspace.root, workspace.job(name))
    stages = stages_of(workspace, name, job, contract_outputs(job))
    files = code.observe(workspace.root, set(owned_paths(workspace, job)))
    return _Code(code.keep(workspace.store, workspace.root, files), command_of(job), stages)


def _probed(session: Session, image_id: str, state: State) -> Probed | None:
    python = state.dependencies.interpreter or dependencies.DEFAULT_PYTHON
    return probe(session.engine, session.workspace.store.cache, image_id, python, session.interrupts)


def _resolve(session: Session, state: State, observed: Observed) -> Lock:
    """What was asked for, resolved among what the index has now; folders of the code are those recorded."""
    from runner.tools import requirements

    store, root = session.workspace.store, session.workspace.root
    places = image.sources(session.engine, store, root, state.image, observed.image)
    image_id = image.restore(session.engine, store, root, state.image, places, session.say)
    probed = _probed(session, image_id, state)
    assert probed, "it has locked packages, so it has an interpreter"
    identity = digest_value(state.image)
    locker = Locker(session.engine, image_id, identity, probed, job_owner(), session.interrupts, session.say)
    with tempfile.TemporaryDirectory(prefix="replay-latest-") as folder:
        code.restore(store, code.files_of(store, Digest(state.code)), Path(folder))
        _write_requested(Path(folder), observed.dependencies.requested)
        wanted = requirements.read(Path(folder), _FILE)
        return dependencies.resolve(store, Path(folder), wanted, locker)


def _write_requested(folder: Path, requested: Sequence[str]) -> None:
    """The requirements as a spec keeps them, as a file again; constraints stand in one of their own."""
    constraints = [text.removeprefix("-c ") for text in requested if text.startswith("-c ")]
    lines = [text for text in requested if not text.startswith("-c ")]
    if constraints:
        (folder / _CONSTRAINTS).write_text("\n".join(constraints) + "\n")
        lines.insert(0, f"-c {_CONSTRAINTS}")
    (folder / _FILE).write_text("\n".join(lines) + "\n")
