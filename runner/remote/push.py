"""Push: what the remote lacks of the selected runs is sent there, blobs first and what names them last.

So it may be cut off at any moment: the next one goes on where it was, and a run that is listed is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from runner.erased import all_erased
from runner.layers import image
from runner.needs import Need
from runner.remote import by_dvc, goods, layout
from runner.remote.goods import Expander, Goods, Planned
from runner.remote.layout import Shared
from runner.remote.listed import listed_runs, read_manifests
from runner.state.digest import Digest, digest_bytes
from runner.state.spec import StateSpec
from runner.state.travel import Lacking, Travel
from runner.store.blobs import damaged
from runner.store.runs import Run
from runner.tools.remote_fs import Remote
from runner.tools.threads import in_threads
from runner.workspace import Workspace

Say = Callable[[str], None]
_FEW = 500


class Load(msgspec.Struct, frozen=True):
    """What a push comes to: the size of each blob that is to be sent, how many are there already, archives of images
    to be told of, data that DVC's part of the remote has, and what is neither here nor there."""

    blobs: Mapping[str, int]
    had: int
    images: Mapping[str, bytes]
    by_dvc: tuple[str, ...]
    lacking: tuple[Lacking, ...]


def push(workspace: Workspace, remote: Remote, runs: Sequence[Run], say: Say, jobs: int | None = None) -> Travel:
    """Raises `OutsideError` when the remote cannot be used, `TamperedError` for a blob that is not what was kept.
    A run that lacks something is left out, and so told."""
    threads = jobs or remote.jobs
    with workspace.store.adding():  # `gc` must not take away what is being sent
        found = {run.id: goods.of_run(run) for run in runs}
        loads = [one for one in found.values() if one]
        remote.make_ready()
        listed = listed_runs(remote, [one.run.id for one in loads])
        load = weigh(workspace, remote, loads, listed)
        _send_blobs(workspace, remote, loads, load, say, threads)
        lame = {run_id for lost in load.lacking for run_id in lost.runs}
        moved = _send_manifests(remote, [one for one in loads if one.run.id not in lame], listed, threads)
        statements = _send_statements(workspace, remote, threads)
    return Travel(
        remote=remote.url,
        runs=tuple(sorted(one.run.id for one in loads)),
        moved_runs=tuple(sorted(moved)),
        blobs=len(load.blobs),
        bytes=sum(load.blobs.values()),
        had=load.had,
        by_dvc=load.by_dvc,
        statements=statements,
        skipped=tuple(sorted(run_id for run_id, one in found.items() if one is None)),
        lacking=load.lacking,
    )


def push_state(workspace: Workspace, remote: Remote, run: Run, spec: StateSpec) -> tuple[Lacking, ...]:
    """Send what a run that is yet to be is made of, so that who has the remote can run it; what is neither here nor
    there."""
    with workspace.store.adding():
        planned = [Planned(run, spec, Digest(spec.digest))]
        remote.make_ready()
        load = weigh(workspace, remote, planned, {})
        _send_blobs(workspace, remote, planned, load, lambda _text: None, remote.jobs)
    return load.lacking


def weigh(
    workspace: Workspace, remote: Remote, loads: Sequence[Goods | Planned], listed: Mapping[str, set[Digest]]
) -> Load:
    """What of the runs the remote lacks. A blob of a run that is not listed there yet, and that has another size there,
    was cut short: it counts as lacking."""
    blobs, expander = workspace.store.blobs, Expander(workspace.store)
    users: dict[Need, list[str]] = {}
    behind: dict[Need, tuple[str, ...]] = {}
    images: dict[str, bytes] = {}
    fresh: set[Need] = set()
    for one in loads:
        is_listed = one.digest in listed.get(one.run.id, ())
        for need in one.needs():
            users.setdefault(need, []).append(one.run.id)
            if not is_listed:
                fresh.add(need)
            if need not in behind:
                behind[need] = expander.blobs(one.spec, need)
            if need.kind == "image" and behind[need]:
                archive = image.archive_path(workspace.store, one.spec.state.image)
                images[layout.image_name(need.digest)] = archive.read_bytes()
    large = {digest: path for one in loads for digest, path in one.large.items()}
    every = set(large).union(*behind.values())
    doubted = set(large).union(*(behind[need] for need in fresh))
    doubted |= _lacked(remote, every - doubted)
    here = {digest: blobs.size(Digest(digest)) for digest in doubted}
    here |= {digest: path.stat().st_size for digest, path in large.items()}
    names = layout.blob_names(doubted)
    found = remote.sizes([*names, *images])
    there = {digest: found[name] for name, digest in names.items() if name in found}
    away = {digest for digest in doubted if digest not in there}
    unknown = [need for need, parts in behind.items() if need.dvc and not away.isdisjoint(parts)]
    left_to_dvc = {one for one in unknown if one.dvc and by_dvc.holds(remote, workspace.root, one.name, one.dvc)}
    spared = set().union(*(behind[need] for need in left_to_dvc))
    spared -= set().union(*(parts for need, parts in behind.items() if need not in left_to_dvc))
    wanted = {digest: size for digest, size in here.items() if digest not in spared and there.get(digest) != size}
    erased = all_erased(workspace.store, workspace.specs)
    lost = {digest for digest in away if here[digest] is None} - set(erased)
    return Load(
        blobs={digest: size for digest, size in wanted.items() if size is not None},
        had=len(every) - len(away | wanted.keys()),
        images={name: data for name, data in images.items() if name not in found},
        by_dvc=tuple(sorted({need.name for need in left_to_dvc})),
        lacking=tuple(
            _lacking(need, users[need], remote)
            for need, parts in behind.items()
            if need not in left_to_dvc and not lost.isdisjoint(parts)
        ),
    )


def _lacked(remote: Remote, digests: set[str]) -> set[str]:
    if len(digests) < _FEW:
        names = layout.blob_names(digests)
        there = remote.sizes(names)
        return {digest for name, digest in names.items() if name not in there}
    lacked = set(digests)
    for folder, names_there in remote.folders(layout.BLOBS):
        lacked.difference_update(map(f"sha256:{folder}".__add__, names_there))
    return lacked


def _lacking(need: Need, users: Sequence[str], remote: Remote) -> Lacking:
    why = f"neither the store nor {remote.url} has all of it"
    return Lacking(need.kind, need.name, need.digest, why, tuple(sorted(set(users))))


def _send_blobs(
    workspace: Workspace, remote: Remote, loads: Sequence[Goods | Planned], load: Load, say: Say, threads: int
) -> None:
    """Archives of images are told of once their layers are there."""
    own = {digest: path for one in loads for digest, path in one.large.items()}

    def send(name: str) -> None:
        digest = Digest(name)
        path = own.get(digest) or workspace.store.blobs.path(digest)
        if not remote.send(layout.blob_name(digest), path, digest):
            raise damaged(digest, path)

    if load.blobs:
        say(f"push: {len(load.blobs)} blobs, {sum(load.blobs.values()) / 1e6:.1f} MB, to {remote.url}")
    in_threads(send, load.blobs, threads)
    in_threads(lambda name: remote.send_bytes(name, load.images[name]), load.images, threads)


def _send_manifests(
    remote: Remote, loads: Sequence[Goods], listed: Mapping[str, set[Digest]], threads: int
) -> list[str]:
    """The runs of which something was added. What was pushed of a run before is not to be contradicted."""

    def send(one: Goods) -> str | None:
        known = listed.get(one.run.id, set())
        if one.digest in known:
            return None
        there = read_manifests(remote, one.run.id, known)
        news = one.manifest.apart < all(manifest.apart for manifest in there)
        if there and not news and layout.covers(layout.merged(there), one.manifest.files):
            return None
        layout.merged([*there, one.manifest])
        remote.send_bytes(layout.run_name(one.run.id, one.digest), layout.encoded(one.manifest))
        return one.run.id

    return [run_id for run_id in in_threads(send, loads, threads) if run_id]


def _send_statements(workspace: Workspace, remote: Remote, threads: int) -> tuple[str, ...]:
    found = {path: layout.encoded(Shared(path, data)) for path, data in goods.statements(workspace.specs).items()}
    listed = layout.shared_listed(remote.listing(layout.SHARED)) if found else set()
    fresh = {path: data for path, data in found.items() if digest_bytes(data) not in listed}
    in_threads(
        lambda path: remote.send_bytes(layout.shared_name(digest_bytes(fresh[path])), fresh[path]), fresh, threads
    )
    return tuple(sorted(fresh))
