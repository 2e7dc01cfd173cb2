"""Rebuild: state → plan → environment.

`look` asks what is at hand, `plan` decides from that alone what must be done for each layer and whether
it can be, `rebuild` does it. A rebuild is frozen: it resolves nothing, re-tags nothing, asks no index, and
what cannot be had exactly is an error that names the pin.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

import msgspec

from runner.environment.check import check_full, check_quick
from runner.environment.farm import Environment
from runner.environment.seal import discard
from runner.erased import erased_of
from runner.errors import LostError, UnrebuildableError
from runner.execute import ENVIRONMENT, WORK, WORKSPACE, Prepared
from runner.layers import code, data, dependencies, image, params
from runner.layers.image import ImageSource
from runner.shown import count
from runner.state.digest import Digest
from runner.state.paths import inside
from runner.state.spec import DataSeen, Observed, State, Wheel
from runner.store.runs import SPECS, Run
from runner.store.store import Store
from runner.tools.container_request import Mount
from runner.tools.containers import Engine
from runner.tools.interrupts import Interrupts
from runner.tools.probe import probe

Say = Callable[[str], None]


class DataPlace(StrEnum):
    """Where a data version is: mounted at once, in the store's blobs, perhaps with DVC, nowhere known, or erased."""

    VIEW = "view"
    STORE = "store"
    DVC = "dvc"
    GONE = "gone"
    ERASED = "erased"


class AtHand(msgspec.Struct, frozen=True, kw_only=True):
    """What was found when looking, without fetching or changing anything. `remote` is where what is lacking would be
    asked for; `code_again` says that the workspace or its commit has the code that the store lacks."""

    image: tuple[ImageSource, ...]
    wheels_missing: tuple[Wheel, ...] = ()
    data: dict[str, DataPlace] = {}
    model: dict[str, DataPlace] = {}
    code_missing: int = 0
    code_files: int = 0
    code_again: bool = False
    remote: str = ""


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


def look(engine: Engine | None, store: Store, root: Path, state: State, observed: Observed, remote: str = "") -> AtHand:
    """What there is to rebuild a state from. One request to the engine where the image is in place."""
    files = code.files_of(store, Digest(state.code)) if store.blobs.has(Digest(state.code)) else None
    return AtHand(
        image=tuple(image.sources(engine, store, root, state.image, observed.image)),
        wheels_missing=tuple(dependencies.missing_wheels(store, state.dependencies)),
        data=_data_places(store, root, state.data, observed.data),
        model=_data_places(store, root, state.model, observed.model),
        code_missing=1 if files is None else sum(not store.blobs.has(Digest(file.sha256)) for file in files),
        code_files=len(files or ()),
        remote=remote,
    )


def plan(state: State, observed: Observed, at_hand: AtHand) -> Plan:
    """What to do for each layer: a decision on values alone."""
    steps = [_image_step(at_hand), _dependencies_step(state, at_hand), _code_step(at_hand)]
    steps += [_data_step("data", path, place, at_hand) for path, place in sorted(at_hand.data.items())]
    steps += [_data_step("model", path, place, at_hand) for path, place in sorted(at_hand.model.items())]
    steps += [Step("stage", f"{stage.name}: {shlex.join(stage.command)}") for stage in state.stages]
    return Plan(state, observed, at_hand, tuple(step for step in steps if step))


def _image_step(at_hand: AtHand) -> Step:
    if not at_hand.image and at_hand.remote:
        return Step("image", f"load the archive of {at_hand.remote}, if it is there")
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
        return _elsewhere_step("dependencies", f"the store lacks {names}", at_hand)
    return Step(
        "dependencies", f"link {count(len(locked), 'wheel')} into an environment (Python {state.dependencies.python})"
    )


def _code_step(at_hand: AtHand) -> Step:
    if at_hand.code_again:
        return Step("code", "take what the store lacks of it from the workspace or its commit, and copy it")
    if at_hand.code_missing:
        return _elsewhere_step("code", f"the store lacks {count(at_hand.code_missing, 'blob')} of the code", at_hand)
    return Step("code", f"copy {count(at_hand.code_files, 'file')} into a workspace of its own")


def _elsewhere_step(layer: str, lacks: str, at_hand: AtHand) -> Step:
    return Step(layer, lacks + (f"; ask {at_hand.remote}" if at_hand.remote else ""), possible=bool(at_hand.remote))


def _data_step(layer: str, path: str, place: DataPlace, at_hand: AtHand) -> Step:
    words = {
        DataPlace.VIEW: "mount the view",
        DataPlace.STORE: "make a view from the store and mount it",
        DataPlace.DVC: "fetch through DVC; the store does not hold it",
        DataPlace.ERASED: "it was erased on purpose, and a tombstone says why",
        DataPlace.GONE: "the store does not hold it, and there is no DVC repository to ask",
    }
    if place is DataPlace.GONE:
        return _elsewhere_step(layer, f"{path}: {words[place]}", at_hand)
    return Step(layer, f"{path}: {words[place]}", possible=place is not DataPlace.ERASED)


def _data_places(
    store: Store, root: Path, versions: Mapping[str, str], seen: Mapping[str, DataSeen]
) -> dict[str, DataPlace]:
    return {
        path: _data_place(store, Digest(digest)) or _elsewhere(store, root, path, Digest(digest), seen.get(path))
        for path, digest in versions.items()
    }


def _data_place(store: Store, digest: Digest) -> DataPlace | None:
    """In the store, if there. A view serves only beside the blob that says what it must hold."""
    if store.blobs.has(digest) and data.has_view(store, digest):
        return DataPlace.VIEW
    return DataPlace.STORE if data.available(store, digest) else None


def _elsewhere(store: Store, root: Path, path: str, digest: Digest, seen: DataSeen | None) -> DataPlace:
    if erased_of(store, root / SPECS, data.blobs_of(store, digest)):
        return DataPlace.ERASED
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
    with _kept_by_the_store_alone("code"):
        code.restore(store, code.files_of(store, Digest(state.code)), workspace)
    with _kept_by_the_store_alone("params"):
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


@contextmanager
def _kept_by_the_store_alone(layer: str) -> Iterator[None]:
    """What is lost was not changed: the state cannot be had again, which is another verdict."""
    try:
        yield
    except LostError as error:
        raise UnrebuildableError(
            f"the {layer} cannot be had again",
            f"{error.what}, and neither the files here nor their commit have these bytes",
            "`replay fsck --repair`, or bring a copy of the store",
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
        say(f"dependencies: made an environment of {count(len(state.dependencies.locked), 'wheel')}")
    return environment


def _restore_views(store: Store, root: Path, made: Plan, say: Say) -> dict[str, Path]:
    state, seen, at_hand = made.state, made.observed.data | made.observed.model, made.at_hand
    views = {}
    for versions, places in ((state.data, at_hand.data), (state.model, at_hand.model)):
        for path, digest in versions.items():
            if places[path] is DataPlace.ERASED:
                raise _erased(store, root, path, Digest(digest))
            if places[path] in (DataPlace.DVC, DataPlace.GONE):
                say(f"data: {path} is not in the store; asking DVC")
                data.fetch_again(store, root, path, Digest(digest), seen[path].dvc if path in seen else None)
            views[path] = data.restore(store, Digest(digest))
    return views


def _erased(store: Store, root: Path, path: str, digest: Digest) -> UnrebuildableError:
    told = erased_of(store, root / SPECS, data.blobs_of(store, digest)).values()
    return UnrebuildableError(
        f"the data {path} was erased, so this state cannot be had again",
        "; ".join(f"{one.path} {one.told}" for one in told),
        "what was erased is not fetched again; record a new run with other data",
    )


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
