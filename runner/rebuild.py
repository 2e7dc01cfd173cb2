"""Rebuild: state → plan → environment.

`look` asks what is at hand, `plan` decides from that alone what must be done for each layer and whether
it can be, `rebuild` does it. A rebuild is frozen: it resolves nothing, re-tags nothing, asks no index, and
what cannot be had exactly is an error that names the pin.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path

import msgspec

from runner.environment.check import check_full, check_quick
from runner.environment.farm import Environment
from runner.environment.seal import discard
from runner.errors import TamperedError, UnrebuildableError
from runner.execute import ENVIRONMENT, WORK, WORKSPACE, Prepared
from runner.layers import code, data, dependencies, image, params
from runner.layers.image import ImageSource
from runner.state.digest import Digest
from runner.state.paths import inside
from runner.state.spec import DataSeen, Observed, State, Wheel
from runner.store.runs import Run
from runner.store.store import Store
from runner.tools.container_request import Mount
from runner.tools.containers import Engine
from runner.tools.interrupts import Interrupts
from runner.tools.probe import probe

Say = Callable[[str], None]


class DataPlace(StrEnum):
    """Where a data version is: mounted at once, in the store's blobs, perhaps with DVC, or nowhere known."""

    VIEW = "view"
    STORE = "store"
    DVC = "dvc"
    GONE = "gone"


class AtHand(msgspec.Struct, frozen=True, kw_only=True):
    """What was found when looking, without fetching or changing anything."""

    image: tuple[ImageSource, ...]
    wheels_missing: tuple[Wheel, ...] = ()
    data: dict[str, DataPlace] = {}
    model: dict[str, DataPlace] = {}
    code_missing: int = 0
    code_files: int = 0


class Step(msgspec.Struct, frozen=True):
    """What will be done for one layer. `possible` False means that it is known not to work."""

    layer: str
    action: str
    possible: bool = True


class Plan(msgspec.Struct, frozen=True):
    state: State
    observed: Observed
    at_hand: AtHand
    steps: tuple[Step, ...]

    @property
    def possible(self) -> bool:
        return all(step.possible for step in self.steps)


class Rebuilt(msgspec.Struct, frozen=True):
    """An environment that a state was rebuilt as, and how to tell afterwards that it was not disturbed."""

    prepared: Prepared
    environment: Environment | None
    digests: tuple[Digest, ...]


# --- look and plan ------------------------------------------------------------------------------------------


def look(engine: Engine, store: Store, root: Path, state: State, observed: Observed) -> AtHand:
    """What there is to rebuild a state from. One request to the engine where the image is in place."""
    files = code.files_of(store, Digest(state.code)) if store.blobs.has(Digest(state.code)) else None
    return AtHand(
        image=tuple(image.sources(engine, store, root, state.image, observed.image)),
        wheels_missing=tuple(dependencies.missing_wheels(store, state.dependencies)),
        data=_data_places(store, root, state.data, observed.data),
        model=_data_places(store, root, state.model, observed.model),
        code_missing=1 if files is None else sum(not store.blobs.has(Digest(file.sha256)) for file in files),
        code_files=len(files or ()),
    )


def plan(state: State, observed: Observed, at_hand: AtHand) -> Plan:
    """What to do for each layer: a decision on values alone."""
    steps = [_image_step(at_hand), _dependencies_step(state, at_hand), _code_step(at_hand)]
    steps += [_data_step("data", path, place) for path, place in sorted(at_hand.data.items())]
    steps += [_data_step("model", path, place) for path, place in sorted(at_hand.model.items())]
    steps += [Step("stage", f"{stage.name}: {shlex.join(stage.command)}") for stage in state.stages]
    return Plan(state, observed, at_hand, tuple(step for step in steps if step))


def _image_step(at_hand: AtHand) -> Step:
    if not at_hand.image:
        return Step("image", "cannot be had: engine, registry, archive and recipe were looked for", possible=False)
    first, *others = at_hand.image
    instead = f" (else from the {' or the '.join(place.kind for place in others)})" if others else ""
    words = {
        "engine": "use the engine's own copy",
        "registry": f"pull {first.name}",
        "archive": "load the store's archive of it",
        "recipe": f"build {first.name}; accepted only if every layer comes out the same",
    }
    return Step("image", words[first.kind] + instead)


def _dependencies_step(state: State, at_hand: AtHand) -> Step:
    locked = state.dependencies.locked
    if locked is None:
        return Step("dependencies", "use what the image holds")
    if at_hand.wheels_missing:
        names = ", ".join(wheel.wheel for wheel in at_hand.wheels_missing[:3])
        return Step("dependencies", f"the store lacks {names}", possible=False)
    return Step("dependencies", f"link {len(locked)} wheels into an environment (Python {state.dependencies.python})")


def _code_step(at_hand: AtHand) -> Step:
    if at_hand.code_missing:
        return Step("code", f"the store lacks {at_hand.code_missing} blobs of the code", possible=False)
    return Step("code", f"copy {at_hand.code_files} files into a workspace of its own")


def _data_step(layer: str, path: str, place: DataPlace) -> Step:
    words = {
        DataPlace.VIEW: "mount the view",
        DataPlace.STORE: "make a view from the store and mount it",
        DataPlace.DVC: "fetch through DVC; the store does not hold it",
        DataPlace.GONE: "the store does not hold it, and there is no DVC repository to ask",
    }
    return Step(layer, f"{path}: {words[place]}", possible=place is not DataPlace.GONE)


def _data_places(
    store: Store, root: Path, versions: Mapping[str, str], seen: Mapping[str, DataSeen]
) -> dict[str, DataPlace]:
    return {
        path: _data_place(store, Digest(digest)) or _elsewhere(root, path, seen.get(path))
        for path, digest in versions.items()
    }


def _data_place(store: Store, digest: Digest) -> DataPlace | None:
    """In the store, if there. A view serves only beside the blob that says what it must hold."""
    if store.blobs.has(digest) and data.has_view(store, digest):
        return DataPlace.VIEW
    return DataPlace.STORE if data.available(store, digest) else None


def _elsewhere(root: Path, path: str, seen: DataSeen | None) -> DataPlace:
    return DataPlace.DVC if data.can_fetch(root, path, seen.dvc if seen else None) else DataPlace.GONE


# --- act ---------------------------------------------------------------------------------------------------


def rebuild(
    engine: Engine, store: Store, root: Path, made: Plan, run: Run, interrupts: Interrupts, say: Say
) -> Rebuilt:
    """Do what the plan says, in `run`'s scratch folder. Raises `UnrebuildableError` naming the pin."""
    state = made.state
    image_id = image.restore(engine, store, root, state.image, list(made.at_hand.image), say)
    workspace = run.scratch / WORK
    workspace.mkdir(parents=True)
    _restore_code(store, state, workspace)
    params.restore(store, state.params, workspace)
    environment = _restore_environment(engine, store, state, image_id, workspace, interrupts, say)
    while environment and not run.hold(environment.folder):  # dropped by another command since it was made
        environment = _restore_environment(engine, store, state, image_id, workspace, interrupts, say)
    views = _restore_views(store, root, made, say)
    mounts = [Mount(place, f"{WORKSPACE}/{inside(path, 'data')}") for path, place in views.items()]
    if environment:
        mounts.append(Mount(environment.path, ENVIRONMENT))
    return Rebuilt(
        Prepared(image_id, workspace, tuple(mounts), environment is not None),
        environment,
        tuple(Digest(digest) for digest in (*state.data.values(), *state.model.values())),
    )


def _restore_code(store: Store, state: State, workspace: Path) -> None:
    try:
        code.restore(store, code.files_of(store, Digest(state.code)), workspace)
    except TamperedError as error:
        if "missing" not in error.what:
            raise
        raise UnrebuildableError(
            "the code cannot be had again",
            f"{error.what}; the store is the only place that keeps it",
            "bring the store's copy back",
        ) from error


def _restore_environment(
    engine: Engine,
    store: Store,
    state: State,
    image_id: str,
    workspace: Path,
    interrupts: Interrupts,
    say: Say,
) -> Environment | None:
    if state.dependencies.locked is None:
        return None
    python = state.dependencies.interpreter or dependencies.DEFAULT_PYTHON
    probed = probe(engine, store.cache, image_id, python, interrupts)
    if probed is None:
        raise UnrebuildableError(f"the image has no {python}", "the state has locked dependencies")
    project = dependencies.project_of(state.dependencies, workspace)
    environment = dependencies.restore(
        engine, store, image_id, probed.interpreter, state.dependencies, project, interrupts
    )
    if environment and environment.made:
        say(f"dependencies: made an environment of {len(state.dependencies.locked)} wheels")
    return environment


def _restore_views(store: Store, root: Path, made: Plan, say: Say) -> dict[str, Path]:
    state, seen, at_hand = made.state, made.observed.data | made.observed.model, made.at_hand
    views = {}
    for versions, places in ((state.data, at_hand.data), (state.model, at_hand.model)):
        for path, digest in versions.items():
            if places[path] in (DataPlace.DVC, DataPlace.GONE):
                say(f"data: {path} is not in the store; asking DVC")
                data.fetch_again(store, root, path, Digest(digest), seen[path].dvc if path in seen else None)
            views[path] = data.restore(store, Digest(digest))
    return views


# --- was it undisturbed? ---------------------------------------------------------------------------------


def damage(store: Store, rebuilt: Rebuilt, *, full: bool = False) -> list[str]:
    """Files of environment and views that are not what they must be; with `full`, every file is re-hashed."""
    found: list[str] = []
    if rebuilt.environment:
        names = check_full(rebuilt.environment.folder) if full else check_quick(rebuilt.environment.folder)
        found += [f"environment: {name}" for name in names]
    for digest in rebuilt.digests:
        found += [f"data {digest[:19]}: {name}" for name in data.check(store, digest, full=full)]
    return found


def discard_damaged(store: Store, rebuilt: Rebuilt) -> None:
    """Drop the environment and views, so that the next rebuild makes them anew from wheels and blobs."""
    if rebuilt.environment:
        discard(rebuilt.environment.folder)
    for digest in rebuilt.digests:
        data.discard(store, digest)
