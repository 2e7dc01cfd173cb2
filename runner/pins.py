"""Pins: can everything that kept runs need still be had, and from where?

Each distinct pin is asked for once, in bulk, and nothing is downloaded: the store, the engine, git and DVC's cache on
this machine; the remote, registries and package indexes with a limit of time. `judge` decides from what was found.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from runner import needs
from runner.erased import erased_of
from runner.errors import OutsideError, ReplayError
from runner.layers import image
from runner.layers.params import MAX_BYTES
from runner.needs import Need
from runner.state.digest import Digest, digest_bytes, hex_of
from runner.state.pins import Pin, PinKind, Pins, PinState, Unasked
from runner.state.spec import DvcPin, StateSpec
from runner.store.remembered import answers
from runner.store.runs import Run
from runner.store.store import Store
from runner.tools.threads import in_time
from runner.workspace import Workspace

if TYPE_CHECKING:
    from runner.tools.containers import Engine

Say = Callable[[str], None]

QUESTION = "pins 2"
PATIENCE_S = 60.0
_JOBS = 16
_KINDS: tuple[PinKind, ...] = ("code", "params", "image", "wheel", "data", "model")


class Wanted(msgspec.Struct, frozen=True, array_like=True):
    """A pin, and where else it may be: an image's names in registries, the commit of clean code, and of params;
    `layers` are those of an image."""

    kind: PinKind
    name: str
    digest: str
    names: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    dvc: DvcPin | None = None


class Found(msgspec.Struct, frozen=True):
    """The places that have a pin, and those that would be but could not be asked. What of it was erased on purpose is
    looked for nowhere; `erased` where nothing else of it is lost."""

    places: tuple[str, ...] = ()
    unasked: tuple[str, ...] = ()
    erased: bool = False


# --- decide --------------------------------------------------------------------------------------------------


def judge(
    runs: int, users: Mapping[Wanted, Collection[str]], found: Mapping[Wanted, Found], unasked: Iterable[Unasked]
) -> Pins:
    """What is lost, what is down to its last copy, and who needs it: a decision on values alone. The worst come first.

    Of a pin that different runs find in different places (an image under several names), the places are put together.
    """
    erased = {wanted.digest for wanted in users if found[wanted].erased}
    merged: dict[tuple[PinKind, str], tuple[str, set[str], set[str], set[str]]] = {}
    for wanted, run_ids in users.items():
        one = merged.setdefault((wanted.kind, wanted.digest), (wanted.name, set(), set(), set()))
        one[1].update(found[wanted].places)
        one[2].update(found[wanted].unasked)
        one[3].update(run_ids)
    pins = [
        Pin(
            kind,
            name,
            digest,
            "erased" if digest in erased else _state(places, open_),
            tuple(sorted(places)),
            tuple(sorted(run_ids)),
        )
        for (kind, digest), (name, places, open_, run_ids) in merged.items()
    ]
    order = ("lost", "last-copy", "unknown", "erased", "safe")
    pins.sort(key=lambda pin: (order.index(pin.state), pin.kind, pin.name, pin.digest))
    count = {state: sum(pin.state == state for pin in pins) for state in order}
    return Pins(
        runs=runs,
        pins=tuple(pins),
        last_copy=count["last-copy"],
        lost=count["lost"],
        unknown=count["unknown"],
        erased=count["erased"],
        unasked=tuple(unasked),
    )


def _state(places: Collection[str], unasked: Collection[str]) -> PinState:
    if len(places) > 1:
        return "safe"
    if unasked:
        return "unknown"
    return "last-copy" if places else "lost"


# --- what is wanted ------------------------------------------------------------------------------------------


def wanted_by(workspace: Workspace, run_ids: Sequence[str]) -> dict[Wanted, list[str]]:
    """Each distinct pin with the runs that need it. A spec is read once, and then only after it was changed."""
    runs = {run_id: workspace.run(run_id) for run_id in run_ids}
    stamps = {run_id: stamp for run_id, run in runs.items() if (stamp := run.spec_stamp())}
    index = workspace.store.folder / "index.sqlite"
    named, said = answers(index, QUESTION, stamps, lambda run_id: _encoded(runs[run_id]))
    decoded = {name: msgspec.msgpack.decode(answer, type=tuple[Wanted, ...]) for name, answer in said.items()}
    users: dict[str, list[str]] = {}
    for run_id, name in named.items():
        users.setdefault(name, []).append(run_id)
    found: dict[Wanted, list[str]] = {}
    for name, sharing in users.items():
        for wanted in decoded[name]:
            found.setdefault(wanted, []).extend(sharing)
    return found


def _encoded(run: Run) -> bytes:
    spec = run.spec()
    return msgspec.msgpack.encode([_wanted(spec, need) for need in needs.of_spec(spec) if need.kind in _KINDS])


def _wanted(spec: StateSpec, need: Need) -> Wanted:
    names: tuple[str, ...] = ()
    if need.kind == "image":
        names = spec.observed.image.repo_digests
    elif need.kind == "params" or (need.kind == "code" and not spec.observed.code.dirty):
        names = tuple(filter(None, [spec.observed.code.commit]))
    layers = spec.state.image.diff_ids if need.kind == "image" else ()
    return Wanted(need.kind, need.name, need.digest, names, layers, need.dvc)


# --- look ----------------------------------------------------------------------------------------------------


class _Seen:
    """What was found out so far."""

    def __init__(self, users: Mapping[Wanted, Collection[str]]) -> None:
        self.users = users
        self.places: dict[Wanted, list[str]] = {wanted: [] for wanted in users}
        self.open: dict[Wanted, list[str]] = {wanted: [] for wanted in users}
        self.unasked: dict[str, str] = {}
        self.erased: dict[Wanted, frozenset[str]] = {wanted: frozenset() for wanted in users}

    def of(self, *kinds: PinKind) -> list[Wanted]:
        return [wanted for wanted in self.users if wanted.kind in kinds]

    def cannot_ask(self, place: str, wanted: Iterable[Wanted], why: str) -> None:
        for one in wanted:
            self.open[one].append(place)
            self.unasked[place] = why

    def found(self) -> dict[Wanted, Found]:
        return {one: Found(tuple(self.places[one]), tuple(self.open[one]), self.is_erased(one)) for one in self.users}

    def is_erased(self, wanted: Wanted) -> bool:
        gone = self.erased[wanted]
        return wanted.digest in gone or bool(gone and self.places[wanted])


def look(
    workspace: Workspace,
    run_ids: Sequence[str],
    say: Say = lambda _: None,
    *,
    offline: bool = False,
    remote: str | None = None,
    patience_s: float = PATIENCE_S,
) -> Pins:
    """Where everything that these runs need can be had. A place that cannot be asked is told, and no error."""
    seen = _Seen(wanted_by(workspace, run_ids))
    say(f"pins: {len(seen.users)} of {len(run_ids)} runs")
    _leave_out_erased(workspace, seen)
    _in_store(workspace, seen)
    _in_git(workspace, seen)
    _in_remote(workspace, seen, remote, offline)
    _in_engine_and_registries(seen, offline, patience_s)
    _in_index(seen, offline, patience_s)
    unasked = (Unasked(place, why) for place, why in sorted(seen.unasked.items()))
    return judge(len(run_ids), seen.users, seen.found(), unasked)


def _leave_out_erased(workspace: Workspace, seen: _Seen) -> None:
    behind = {wanted: _blobs(workspace.store, wanted) for wanted in seen.users}
    every = (Digest(digest) for digests in behind.values() for digest in digests)
    erased = frozenset(erased_of(workspace.store, workspace.specs, every))
    if erased:
        seen.erased |= {wanted: erased.intersection(digests) for wanted, digests in behind.items()}


def _in_store(workspace: Workspace, seen: _Seen) -> None:
    """A file of DVC's cache is often another name of the store's: it counts only where the store has none."""
    for wanted in seen.users:
        if _store_has(workspace.store, wanted, seen.erased[wanted]):
            seen.places[wanted].append("store")
        elif wanted.dvc and _dvc_cache_has(workspace.root, wanted):
            seen.places[wanted].append("dvc-cache")


def _store_has(store: Store, wanted: Wanted, erased: Collection[str]) -> bool:
    if wanted.kind == "image":
        return image.archived_at(store, Digest(wanted.digest))
    if not store.blobs.has(Digest(wanted.digest)):
        return False
    try:
        behind = needs.listed(store, Need(wanted.kind, wanted.name, wanted.digest))
    except ReplayError:  # its list is damaged
        return False
    return all(store.blobs.has(Digest(digest)) for digest in behind if digest not in erased)


def _blobs(store: Store, wanted: Wanted) -> tuple[str, ...]:
    """What a pin is made of, as far as the store can tell."""
    try:
        has = store.blobs.has(Digest(wanted.digest))
        return (wanted.digest, *(needs.listed(store, Need(wanted.kind, wanted.name, wanted.digest)) if has else ()))
    except ReplayError:  # a damaged list names nothing that can be looked for
        return (wanted.digest,)


def _dvc_cache_has(root: Path, wanted: Wanted) -> bool:
    from runner.tools import dvc

    repo = dvc.repo_of(root, wanted.name)
    try:
        return bool(repo and wanted.dvc and not dvc.missing_objects(dvc.cache_dir(repo), wanted.name, wanted.dvc))
    except ReplayError:
        return False


def _in_git(workspace: Workspace, seen: _Seen) -> None:
    """Code that was clean is what its commit holds; of params it is told by their bytes, whatever else was edited."""
    from runner.tools import git

    code = [wanted for wanted in seen.of("code") if wanted.names]
    known = git.known_commits(workspace.root, {commit for wanted in code for commit in wanted.names}) if code else set()
    for wanted in code:
        if known.issuperset(wanted.names):
            seen.places[wanted].append("git")
    params = {wanted: (wanted.names[0], wanted.name) for wanted in seen.of("params") if wanted.names}
    held = git.small_contents(workspace.root, set(params.values()), MAX_BYTES)
    digests = {place: digest_bytes(content) for place, content in held.items()}
    for wanted, place in params.items():
        if digests.get(place) == wanted.digest:
            seen.places[wanted].append("git")


def _in_remote(workspace: Workspace, seen: _Seen, name: str | None, offline: bool) -> None:
    from runner.remote import by_dvc
    from runner.remote.select import default_remote, remote_of

    remote = remote_of(workspace, name) if name else default_remote(workspace)
    if remote is None:
        return
    if offline and not remote.is_local:
        seen.cannot_ask("remote", seen.users, "--offline")
        return
    parts = {wanted: tuple(_remote_names(workspace.store, wanted, seen.erased[wanted])) for wanted in seen.users}
    try:
        there = remote.sizes({part for names in parts.values() for part in names})
        for wanted, names in parts.items():
            if all(part in there for part in names):
                seen.places[wanted].append("remote")
            elif wanted.dvc and by_dvc.holds(remote, workspace.root, wanted.name, wanted.dvc):
                seen.places[wanted].append("dvc-remote")
    except ReplayError as error:
        seen.cannot_ask("remote", seen.users, f"{error.what}: {error.why}")


def _remote_names(store: Store, wanted: Wanted, erased: Collection[str]) -> Iterator[str]:
    from runner.remote import layout

    if wanted.kind == "image":
        yield layout.image_name(wanted.digest)
    for digest in wanted.layers or _blobs(store, wanted):
        if digest == wanted.digest or digest not in erased:
            yield layout.blob_name(digest)


def _in_engine_and_registries(seen: _Seen, offline: bool, patience_s: float) -> None:
    from runner.tools.containers import connect

    images = seen.of("image")
    if not images:
        return
    try:
        engine = connect()
        held = {image.archive_digest(found.identity) for found in engine.images()}
    except ReplayError as error:
        seen.cannot_ask("engine", images, f"{error.what}: {error.why}")
        seen.cannot_ask("registry", [one for one in images if one.names], "the engine asks registries")
        return
    for wanted in images:
        if wanted.digest in held:
            seen.places[wanted].append("engine")
    _in_registries(engine, seen, [one for one in images if one.names], offline, patience_s)


def _in_registries(engine: Engine, seen: _Seen, images: Sequence[Wanted], offline: bool, patience_s: float) -> None:
    if offline:
        seen.cannot_ask("registry", images, "--offline")
        return
    names = {name for wanted in images for name in wanted.names}
    known = in_time(engine.registry_knows, names, _JOBS, patience_s)
    for wanted in images:
        answers_ = [known.get(name) for name in wanted.names]
        if any(answers_):
            seen.places[wanted].append("registry")
        elif None in answers_:
            seen.cannot_ask("registry", [wanted], f"{wanted.names[0].partition('@')[0]} does not answer")


def _in_index(seen: _Seen, offline: bool, patience_s: float) -> None:
    wheels = seen.of("wheel")
    if not wheels:
        return
    if offline:
        seen.cannot_ask("index", wheels, "--offline")
        return
    from runner.tools import pip, simple_index

    urls = simple_index.urls_of(pip.caller_settings().env)
    trouble: list[str] = []

    def ask(project: str) -> frozenset[str]:
        try:
            return simple_index.listed(urls, project, patience_s / 2)
        except OutsideError as error:
            trouble.append(error.why)
            raise

    listed = in_time(ask, {_project(wanted) for wanted in wheels}, _JOBS, patience_s)
    for wanted in wheels:
        digests = listed.get(_project(wanted))
        if digests is None:
            seen.cannot_ask("index", [wanted], (trouble or ["no answer in time"])[0])
        elif hex_of(Digest(wanted.digest)) in digests:
            seen.places[wanted].append("index")


def _project(wanted: Wanted) -> str:
    return re.sub(r"[-_.]+", "-", wanted.name.partition("-")[0]).lower()
