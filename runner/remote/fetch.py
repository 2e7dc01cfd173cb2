"""Blobs from a remote: each is hashed while it arrives, and one with other bytes is never kept."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from runner import needs
from runner.errors import ReplayError, TamperedError
from runner.layers import image
from runner.needs import Need
from runner.remote import layout
from runner.shown import few
from runner.state.digest import Digest
from runner.state.plain import MALFORMED
from runner.state.spec import StateSpec
from runner.store.files import write_atomic
from runner.store.store import Store
from runner.tools.remote_fs import NotThere, Remote
from runner.tools.threads import in_threads


class Fetched(msgspec.Struct, frozen=True):
    """The size of each blob that came, those that the remote does not have, and the names of those that are wrong."""

    came: dict[str, int]
    absent: frozenset[str] = frozenset()
    wrong: tuple[str, ...] = ()

    def with_more(self, more: Fetched) -> Fetched:
        return Fetched(self.came | more.came, self.absent | more.absent, self.wrong + more.wrong)


def blobs(store: Store, remote: Remote, digests: Collection[str], jobs: int, erased: Collection[str] = ()) -> Fetched:
    """Bring those that the store lacks and that were not `erased` on purpose. Raises `OutsideError` when the remote
    cannot be used."""
    asked = set(digests).difference(erased)
    wanted = sorted(asked - store.blobs.present(asked))

    def get(digest: str) -> int | str | None:
        name = layout.blob_name(digest)
        try:
            found, size = store.blobs.put_stream(remote.chunks(name), digest.__eq__, durable=False)
        except NotThere:
            return None
        return size if found == digest else name

    got = dict(zip(wanted, in_threads(get, wanted, jobs), strict=True))
    return Fetched(
        {digest: size for digest, size in got.items() if isinstance(size, int)},
        frozenset(digest for digest, size in got.items() if size is None),
        tuple(sorted(name for name in got.values() if isinstance(name, str))),
    )


def pins(
    store: Store,
    remote: Remote,
    spec_needs: Sequence[tuple[StateSpec, Need]],
    jobs: int,
    erased: Collection[str] = (),
) -> Fetched:
    """Bring everything behind these pins: what they name first, then the files that it lists."""
    images = [(spec, need) for spec, need in spec_needs if need.kind == "image"]
    named = [need for _, need in spec_needs if need.kind != "image"]
    layers = [digest for spec, need in images for digest in _archive(store, remote, spec, need)]
    first = blobs(store, remote, [*(need.digest for need in named), *layers], jobs, erased)
    lists = {(need.kind, need.digest): need for need in named if store.blobs.has(Digest(need.digest))}
    behind = {digest for need in lists.values() for digest in needs.listed(store, need)}
    return first.with_more(blobs(store, remote, behind, jobs, erased))


def is_here(store: Store, spec: StateSpec, need: Need, erased: Collection[str] = ()) -> bool:
    """Whether the store has everything behind a pin but what was erased. An image that no push archived is its
    registry's to give."""
    if need.kind == "image":
        return bool(image.archive_of(store, spec.state.image)) or not spec.observed.image.archived
    if not store.blobs.has(Digest(need.digest)):
        return need.digest in erased
    return all(one in erased or store.blobs.has(Digest(one)) for one in needs.listed(store, need))


def _archive(store: Store, remote: Remote, spec: StateSpec, need: Need) -> tuple[str, ...]:
    """What the archive of an image consists of, if the remote has one; what it tells is kept in the store."""
    place = image.archive_path(store, spec.state.image)
    if not place.is_file():
        try:
            data = b"".join(remote.chunks(layout.image_name(need.digest)))
        except NotThere:
            return ()
        try:
            told = image.read_archive(data).layers
        except MALFORMED as error:
            raise wrong((layout.image_name(need.digest),), str(error)) from error
        if told != spec.state.image.diff_ids:
            raise wrong((layout.image_name(need.digest),), "it has other layers than the image")
        write_atomic(place, data, through=store.tmp)
    return tuple(image.archived_blobs(store, spec.state.image))


def wrong(names: Sequence[str], why: str = "their bytes have another digest than their names say") -> ReplayError:
    return TamperedError(
        f"the remote holds other bytes than were pushed as {few(names, 1)}",
        f"{why}; nothing of it was kept",
        "remove it there, then `replay push` where the run still is",
    )
