"""Pull: what the workspace lacks of the selected runs is brought here, blobs first and the run itself last.

Nothing is believed because of its name: blobs are hashed while they arrive, and a spec must be the one that the
record, and the reviewed copy in git, are of.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from runner import needs
from runner.erased import all_erased
from runner.errors import ReplayError, TamperedError
from runner.layers import data
from runner.needs import Need
from runner.remote import fetch, goods, layout
from runner.remote.fetch import Fetched
from runner.remote.layout import RunFile, Shared
from runner.remote.listed import listed_runs, read_manifests
from runner.remote.select import labels_here
from runner.state.digest import Digest
from runner.state.record import Record
from runner.state.spec import StateSpec
from runner.state.strict import check_digest, load_record, load_spec
from runner.state.travel import Lacking, Travel
from runner.store.files import write_atomic
from runner.store.runs import Run
from runner.tools.remote_fs import Remote
from runner.tools.threads import in_threads
from runner.workspace import Workspace

Say = Callable[[str], None]


class Arriving(msgspec.Struct, frozen=True):
    """A run that was asked for. `files` are those that the remote has and the workspace lacks."""

    run: Run
    files: Mapping[str, RunFile]
    spec: StateSpec
    record: Record


class Lost(msgspec.Struct, frozen=True):
    need: Need
    why: str


def labels_there(workspace: Workspace, remote: Remote, listed: Mapping[str, set[Digest]]) -> dict[str, tuple[str, ...]]:
    """Of every run that is here or in the remote; the specs of those that are there only are read there."""
    here = labels_here(workspace)
    unknown = sorted(listed.keys() - here.keys())

    def read(run_id: str) -> tuple[str, ...]:
        files = layout.merged(read_manifests(remote, run_id, listed[run_id]))
        return _read_run(run_id, files)[0].run.labels

    return here | dict(zip(unknown, in_threads(read, unknown, remote.jobs), strict=True))


def pull(
    workspace: Workspace, remote: Remote, listed: Mapping[str, set[Digest]], say: Say, jobs: int | None = None
) -> Travel:
    """Bring the `listed` runs. Raises `OutsideError` when the remote cannot be used and `TamperedError` for what is
    not what was pushed; whatever was right stays, so that the next pull goes on."""
    store, threads = workspace.store, jobs or remote.jobs
    with store.adding():

        def arrive(run_id: str) -> Arriving:
            return _arriving(workspace, remote, run_id, listed[run_id])

        arriving = in_threads(arrive, listed, threads)
        users = _users(arriving)
        statements = _take_statements(workspace, remote, say, threads)
        erased = all_erased(store, workspace.specs)
        fetched = _fetch(workspace, remote, arriving, users, threads, erased)
        by_dvc, lost = _through_dvc(workspace, remote, users, fetched, say, erased)
        lost_logs = [lost for one in arriving for lost in _settle(workspace, remote, one, erased)]
    return Travel(
        remote=remote.url,
        runs=tuple(sorted(listed)),
        moved_runs=tuple(sorted(one.run.id for one in arriving if one.files)),
        blobs=len(fetched.came),
        bytes=sum(fetched.came.values()),
        by_dvc=by_dvc,
        statements=statements,
        lacking=(
            *(
                Lacking(one.need.kind, one.need.name, one.need.digest, one.why, tuple(sorted(users[one.need][1])))
                for one in lost
            ),
            *lost_logs,
        ),
    )


def pull_own_files(workspace: Workspace, remote: Remote, run_ids: Collection[str]) -> None:
    """Of these runs, as far as the remote has them, what is theirs alone: above all their logs."""
    listed, store = listed_runs(remote, run_ids), workspace.store
    arriving = [_arriving(workspace, remote, run_id, digests) for run_id, digests in listed.items()]
    erased = all_erased(store, workspace.specs)
    fetched = fetch.blobs(store, remote, _logs(arriving), remote.jobs, erased)
    if fetched.wrong:
        raise fetch.wrong(fetched.wrong)
    for one in arriving:
        _settle(workspace, remote, one, erased)


def _logs(arriving: Sequence[Arriving]) -> list[str]:
    """Those that are no part of their run's manifest."""
    return [file.sha256 for one in arriving for file in one.files.values() if file.content is None]


def _arriving(workspace: Workspace, remote: Remote, run_id: str, digests: set[Digest]) -> Arriving:
    """What is here counts; what the remote has besides must not contradict it. A run that is nowhere but in the stores
    of those who pushed it stays so."""
    run = workspace.run(run_id)
    own = goods.of_run(run)
    if own and digests == {own.digest}:
        return Arriving(run, {}, own.spec, own.record)
    manifests = read_manifests(remote, run_id, digests)
    files = layout.merged([*manifests, own.manifest] if own else manifests)
    spec, record = (own.spec, own.record) if own else _read_run(run_id, files)
    if run.is_apart() if own else all(manifest.apart for manifest in manifests):
        run = Run(workspace.store, run_id, None)
    return Arriving(run, {name: file for name, file in files.items() if run.lacks(name)}, spec, record)


def _read_run(run_id: str, files: Mapping[str, RunFile]) -> tuple[StateSpec, Record]:
    """Raises `TamperedError` when the spec and the record of the remote are not of that run, or not of each other."""
    source = f"{layout.RUNS}/{run_id} of the remote"
    held = {name: file.content for name, file in files.items() if file.content is not None}
    if not {"spec.yaml", "record.json"} <= held.keys():
        raise TamperedError(f"{source} has no spec or no record", "no push leaves them out")
    spec = load_spec(held["spec.yaml"], f"{source}: spec.yaml")
    check_digest(spec, f"{source}: spec.yaml")
    record = load_record(held["record.json"], f"{source}: record.json")
    if (spec.run.id, record.run_id, record.spec_sha256) != (run_id, run_id, files["spec.yaml"].sha256):
        raise TamperedError(f"{source} is not what was pushed", "its spec and its record do not belong together")
    return spec, record


def _users(arriving: Sequence[Arriving]) -> dict[Need, tuple[StateSpec, list[str]]]:
    """Each pin once, with a spec that names it and the runs that need it."""
    found: dict[Need, tuple[StateSpec, list[str]]] = {}
    for one in arriving:
        for need in {*needs.of_spec(one.spec), *needs.of_record(one.record)}:
            found.setdefault(need, (one.spec, []))[1].append(one.run.id)
    return found


def _fetch(
    workspace: Workspace,
    remote: Remote,
    arriving: Sequence[Arriving],
    users: Mapping[Need, tuple[StateSpec, list[str]]],
    threads: int,
    erased: Collection[str],
) -> Fetched:
    pins = [(spec, need) for need, (spec, _) in users.items()]
    fetched = fetch.pins(workspace.store, remote, pins, threads, erased)
    fetched = fetched.with_more(fetch.blobs(workspace.store, remote, _logs(arriving), threads, erased))
    if fetched.wrong:
        raise fetch.wrong(fetched.wrong)
    return fetched


def _through_dvc(
    workspace: Workspace,
    remote: Remote,
    users: Mapping[Need, tuple[StateSpec, list[str]]],
    fetched: Fetched,
    say: Say,
    erased: Collection[str],
) -> tuple[tuple[str, ...], tuple[Lost, ...]]:
    """Ask DVC for data that is not among what was pushed; what came of that, and what is nowhere."""
    came, lost = [], []
    for need, (spec, _) in users.items():
        doubted = fetched.absent or need.kind == "image"
        if not doubted or fetch.is_here(workspace.store, spec, need, erased):
            continue
        why = f"{remote.url} does not have it"
        if need.dvc:
            say(f"pull: asking DVC for {need.name}")
            try:
                data.fetch_again(workspace.store, workspace.root, need.name, Digest(need.digest), need.dvc)
                came.append(need.name)
                continue
            except TamperedError:
                raise
            except ReplayError as error:
                why += f"; {error.why or error.what}"
        lost.append(Lost(need, why))
    return tuple(sorted(set(came))), tuple(lost)


def _settle(workspace: Workspace, remote: Remote, one: Arriving, erased: Collection[str]) -> list[Lacking]:
    """Put the files that came where they belong; those that the remote has lost."""
    if not one.files:
        return []
    store, lost = workspace.store, []
    with tempfile.TemporaryDirectory(prefix="pull-", dir=store.tmp) as folder:
        placed = {}
        for name, file in one.files.items():
            if file.sha256 in erased:
                continue
            if file.content is not None:
                placed[name] = Path(folder, name)
                placed[name].write_bytes(file.content)
            elif store.blobs.has(Digest(file.sha256)):
                placed[name] = store.blobs.path(Digest(file.sha256))
            else:
                lost.append(Lacking("log", name, file.sha256, f"{remote.url} does not have it", (one.run.id,)))
        one.run.take_in(placed)
    return lost


def _take_statements(workspace: Workspace, remote: Remote, say: Say, threads: int) -> tuple[str, ...]:
    """Those of `state_specs/` that are not here. One that is here otherwise stays: git tells which is right."""
    specs = workspace.specs
    if specs is None:
        return ()
    digests = layout.shared_listed(remote.listing(layout.SHARED))
    here = {layout.digest_of(path, data) for path, data in goods.statements(specs).items()}

    def read(digest: Digest) -> Shared:
        return layout.read_shared(b"".join(remote.chunks(layout.shared_name(digest))), digest)

    taken = []
    for shared in in_threads(read, sorted(digests - here), threads):
        place = specs / shared.path
        if not layout.is_statement(shared.path):
            say(f"pull: {shared.path!r}, which the remote has, is no release, key or tombstone, and stays there")
            continue
        if place.exists():
            say(f"pull: {place} differs from what the remote has, and stays as it is")
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(place, shared.content, through=workspace.store.tmp)
        taken.append(shared.path)
    return tuple(taken)
