"""Check: a run, or what would run here now, held against a release. No container is started, nothing is changed."""

from __future__ import annotations

import os
from collections.abc import Iterator

from runner.compare import compare_outputs
from runner.diff import source_words
from runner.errors import UsageError
from runner.layers import access, data
from runner.present import look
from runner.rebuild import AtHand, DataPlace
from runner.rebuild import look as look_for_pins
from runner.releases.bind import Recorded, by_path, deviations, is_allowed, some_of_each
from runner.shown import count
from runner.state.record import Record, Verdict, worst
from runner.state.release import Pin, ReleaseCheck
from runner.state.spec import StateSpec
from runner.store.releases import Known
from runner.tools.containers import Engine
from runner.workspace import PRESENT, RELEASED, Workspace

_LOCAL_IMAGE = ("engine", "archive")


def check_present(workspace: Workspace, known: Known, engine: Engine | None) -> ReleaseCheck:
    """Whether the release's run could be run here now, unchanged: what differs, and which pins are not at hand."""
    then = workspace.find_run(RELEASED + known.release.name).spec()
    present = look(workspace, then, held=True)
    found = list(deviations(known.release, Recorded.of(workspace, then), Recorded(present.spec, by_path(present.code))))
    listed = some_of_each(found)
    unreadable = dict(_unreadable(workspace, then, present.spec))
    return ReleaseCheck(
        name=known.release.name,
        sha256=known.sha256,
        status=known.status,
        against=PRESENT,
        equal=not found and not present.unknown and not unreadable,
        allowed=is_allowed(known.release.policy, found),
        deviations=listed,
        unlisted=len(found) - len(listed),
        unknown=present.unknown,
        unreadable=unreadable,
        pins=tuple(_pins(workspace, then, engine)),
    )


def check_run(workspace: Workspace, known: Known, part: str) -> ReleaseCheck:
    """Whether a recorded run is what the release names: state, contract, and outputs within the tolerances that were
    accepted. Raises `UsageError` for a run that has no record."""
    run = workspace.find_run(part)
    spec, record = run.spec_and_record()
    if record is None:
        raise UsageError(f"{run.id} was never finished", "it has no record, so nothing can be held against the release")
    then = workspace.find_run(RELEASED + known.release.name).spec()
    found = list(deviations(known.release, Recorded.of(workspace, then), Recorded.of(workspace, spec)))
    listed = some_of_each(found)
    outputs = compare_outputs(
        {output.path: output for output in known.release.outputs},
        {output.path: output for output in record.every_output},
        known.release.contract.outputs,
        workspace.store.blobs.verified,
    )
    return ReleaseCheck(
        name=known.release.name,
        sha256=known.sha256,
        status=known.status,
        against=run.id,
        equal=not found,
        allowed=is_allowed(known.release.policy, found),
        deviations=listed,
        unlisted=len(found) - len(listed),
        verdict=worst([*(one.verdict for one in outputs), _ended(record)]),
        outputs=outputs,
    )


def _ended(record: Record) -> Verdict:
    if record.outcome.ending == "refused" or record.halted:
        return Verdict.REFUSED
    return Verdict.IDENTICAL if record.ok else Verdict.FAILED


def _unreadable(workspace: Workspace, then: StateSpec, now: StateSpec) -> Iterator[tuple[str, str]]:
    """Secrets, without which no run starts, and sources that could be read then, each with why it cannot be now."""
    for name, reference in sorted(workspace.job(then.run.job).secrets.items()):
        try:
            access.read_secrets({name: reference}, workspace.root, os.environ)
        except UsageError as error:
            yield name, error.what
    readable = {source.uri for source in then.observed.access.sources if source.reachable}
    for source in now.observed.access.sources:
        if source.uri in readable and not source.reachable:
            yield source.uri, f"{source.uri} is {source_words(source)}"


def _pins(workspace: Workspace, spec: StateSpec, engine: Engine | None) -> Iterator[Pin]:
    """What the state is rebuilt from, each where it is best had. Only the engine is asked."""
    at_hand = look_for_pins(engine, workspace.store, workspace.root, spec.state, spec.observed)
    yield _image(spec, at_hand)
    for wheel in at_hand.wheels_missing:
        yield Pin("dependencies", f"{wheel.name} {wheel.version}", "nowhere: its wheel is not in the store", False)
    if spec.state.dependencies.locked and not at_hand.wheels_missing:
        yield Pin("dependencies", count(len(spec.state.dependencies.locked), "wheel"), "store", True)
    lost = at_hand.code_missing
    place = f"nowhere: the store lacks {count(lost, 'blob')} of it" if lost else "store"
    yield Pin("code", count(at_hand.code_files, "file"), place, not lost)
    for layer, places, seen in (
        ("data", at_hand.data, spec.observed.data),
        ("model", at_hand.model, spec.observed.model),
    ):
        for path, found in sorted(places.items()):
            pin = seen[path].dvc if path in seen else None
            cached = found is DataPlace.DVC and data.in_dvc_cache(workspace.root, path, pin)
            yield _data(layer, path, found, cached=cached)


def _image(spec: StateSpec, at_hand: AtHand) -> Pin:
    name = spec.observed.image.reference or "image"
    kinds = [source.kind for source in at_hand.image]
    local = next((kind for kind in _LOCAL_IMAGE if kind in kinds), None)
    return Pin("image", name, local or (f"{kinds[0]}, not here" if kinds else "nowhere"), local is not None)


def _data(layer: str, path: str, place: DataPlace, *, cached: bool) -> Pin:
    words = {
        DataPlace.VIEW: "store",
        DataPlace.STORE: "store",
        DataPlace.DVC: "DVC's cache" if cached else "DVC's remote, not here",
        DataPlace.GONE: "nowhere",
        DataPlace.ERASED: "erased on purpose, a tombstone says why",
    }
    return Pin(layer, path, words[place], cached or place in (DataPlace.VIEW, DataPlace.STORE))
