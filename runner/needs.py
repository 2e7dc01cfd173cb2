"""What a run needs to be replayed or looked at: the pins that its spec and record name, and the blobs that they are.

A pin is named in the spec; what lies behind it (the files of a listing, the layers of an image) is told by the pin's
own blob, which can only be read where it is.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from runner.layers import code, data, image
from runner.state.digest import Digest
from runner.state.pins import PinKind
from runner.state.record import Record
from runner.state.spec import DvcPin, StateSpec
from runner.store.store import Store


class Need(msgspec.Struct, frozen=True):
    """One pin. `digest` is that of its blob; an image's is the name of its archive. `dvc` is DVC's pin of data."""

    kind: PinKind
    name: str
    digest: str
    dvc: DvcPin | None = None


def of_spec(spec: StateSpec) -> Iterator[Need]:
    state, seen = spec.state, spec.observed
    yield Need("code", "code", state.code)
    if state.params and state.params.sha256:
        yield Need("params", state.params.file or "params", state.params.sha256)
    yield Need("image", seen.image.reference or state.image.platform, image.archive_digest(state.image))
    for wheel in state.dependencies.locked or ():
        yield Need("wheel", wheel.wheel, wheel.sha256)
    for path, digest in state.data.items():
        yield Need("data", path, digest, seen.data[path].dvc if path in seen.data else None)
    for path, digest in state.model.items():
        yield Need("model", path, digest, seen.model[path].dvc if path in seen.model else None)
    for path, found in seen.schema.items():
        if found.profile:
            yield Need("profile", path, found.profile)
    for check in spec.contract.checks:
        if check.drift:
            yield Need("profile", check.on, check.drift.profile)


def of_record(record: Record) -> Iterator[Need]:
    for output in record.every_output:
        yield Need("output", output.path, output.sha256)


def behind(store: Store, spec: StateSpec, need: Need) -> tuple[str, ...]:
    """The blobs that a pin is, as far as the store can tell: the pin's own first."""
    if need.kind == "image":
        return (
            tuple(image.archived_blobs(store, spec.state.image)) if image.has_archive(store, spec.state.image) else ()
        )
    if need.kind in ("code", "data", "model") and store.blobs.has(Digest(need.digest)):
        return need.digest, *listed(store, need)
    return (need.digest,)


def listed(store: Store, need: Need) -> tuple[str, ...]:
    """The files that the blob of a pin lists; none where it is a file itself. Raises `TamperedError` for one that is
    not what it must be."""
    if need.kind == "code":
        return tuple(file.sha256 for file in code.files_of(store, Digest(need.digest)))
    if need.kind in ("data", "model"):
        return tuple(file.sha256 for file in data.files_of(store, Digest(need.digest)) or ())
    return ()
