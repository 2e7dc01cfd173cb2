"""A run in one file that can be verified elsewhere: a plain tar whose bytes depend on the run alone.

    spec.yaml  record.json  *.sigstore.json  tlog-proof     as in `state_specs/`
    logs/      blobs/                                       what the job printed; outputs, code and parameters
    erased/                                                 tombstones, of what of these was erased
    releases/NAME/*                                         of the release that was asked for, else of those that name
                                                            the run and were not revoked; of the one it is bound to

Wheels, data, models and images stay where they are: the spec pins them by digest. No key is in it: one that came with
what it signed would prove nothing. It is read as strictly as it is written: every header must be the one that its name
and size give, so no byte of it can differ unseen.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from runner.attest.bundle import load_bundle
from runner.attest.rejected import Rejected
from runner.attest.releases import ReleaseSeen
from runner.attest.statement import stated_digests
from runner.attest.verify import BlobState
from runner.erased import erased_of
from runner.errors import ReplayError, UsageError
from runner.layers import code
from runner.state.digest import Digest, digest_of_hex, hex_of
from runner.state.record import Record
from runner.state.spec import StateSpec
from runner.state.strict import load_record, load_spec
from runner.store import tombstones
from runner.store.files import appearing
from runner.store.releases import FILES, Copies
from runner.store.runs import ATTESTED, SIGNED, Run
from runner.store.store import Store
from runner.store.tombstones import Tombstones

_BLOCK = 512
_END = bytes(2 * _BLOCK)
_CHUNK = 1 << 20
_LARGEST_SMALL = 64 << 20
_MOST_MEMBERS = 1_000_000
_SPEC, _RECORD = "spec.yaml", "record.json"
_SMALL = frozenset({_SPEC, _RECORD, *ATTESTED})
_LOGS = frozenset({"logs/order", "logs/stderr", "logs/stdout"})
_BLOB = re.compile(r"blobs/[0-9a-f]{64}")
_TOMBSTONE = re.compile(rf"erased/([0-9a-f]{{64}})\.({re.escape(tombstones.BUNDLE)}|{re.escape(tombstones.PROOF)})")
_RELEASE = re.compile(rf"releases/([A-Za-z0-9][A-Za-z0-9_.-]{{0,63}})/({'|'.join(map(re.escape, FILES))})")


class Place(NamedTuple):
    """Where a member's bytes are in the file."""

    start: int
    size: int


# --- writing -------------------------------------------------------------------------------------------------


def pack(store: Store, run: Run, target: Path, releases: Mapping[str, Copies] = {}) -> int:
    """Write the bundle of a signed run, with the files of these releases; how many files are in it. Raises
    `TamperedError` for a damaged blob."""
    spec, record = run.spec_and_record()
    if record is None or not run.is_signed():
        raise UsageError(f"{run.id} is not signed", "nobody could verify it", f"`replay sign {run.id}`")
    of_releases = {
        f"releases/{name}/{file}": found[0] for name, copies in releases.items() for file, found in copies.items()
    }
    members = dict(sorted({**dict(_members(store, run, spec, record)), **of_releases}.items()))
    with appearing(target) as out:
        for name, source in members.items():
            _write(out, name, source)
        out.write(_END)
    return len(members)


def _members(store: Store, run: Run, spec: StateSpec, record: Record) -> Iterator[tuple[str, bytes | Path]]:
    for name, reviewed in ((_SPEC, "yaml"), (_RECORD, _RECORD), *((name, name) for name in ATTESTED)):
        if copies := run.copies(name, reviewed):
            yield name, copies[0]
    for name in sorted(_LOGS):
        file = run.folder / name.removeprefix("logs/")
        if file.is_file():
            yield name, file
    listing = store.blobs.read(Digest(spec.state.code))
    needed = {*_needed(spec, record, listing)}
    erased = erased_of(store, run.specs, map(Digest, needed))
    lost = {Digest(one.sha256) for name, one in run.sums().items() if not (run.folder / name).is_file()}
    for digest in {*erased, *erased_of(store, run.specs, lost)}:
        for kept in Tombstones(store, run.specs).copies(digest)[:1]:
            yield f"erased/{hex_of(digest)}.{tombstones.BUNDLE}", kept.bundle
            yield f"erased/{hex_of(digest)}.{tombstones.PROOF}", kept.proof or b""
    for digest in map(Digest, needed - erased.keys()):
        yield f"blobs/{hex_of(Digest(digest))}", store.blobs.verified(Digest(digest))


def _needed(spec: StateSpec, record: Record, listing: bytes) -> Iterator[str]:
    yield from (output.sha256 for output in record.outputs)
    yield from (digest for _, digest in _inputs(spec, listing))


def _inputs(spec: StateSpec, listing: bytes) -> Iterator[tuple[str, str]]:
    yield "the list of the code", spec.state.code
    for file in code.read_listing(listing, Digest(spec.state.code)):
        yield f"code {file.path}", file.sha256
    if spec.state.params and spec.state.params.sha256:
        yield f"params {spec.state.params.file}", spec.state.params.sha256


def _write(out: BinaryIO, name: str, source: bytes | Path) -> None:
    if isinstance(source, bytes):
        out.write(_header(name, len(source)) + source)
        size = len(source)
    else:
        size = source.stat().st_size
        out.write(_header(name, size))
        with source.open("rb") as file:
            while chunk := file.read(_CHUNK):
                out.write(chunk)
    out.write(bytes(-size % _BLOCK))


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


# --- reading -------------------------------------------------------------------------------------------------


class Packed:
    """A bundle, open. `problem` is a reason and its detail, both empty when the file is as one is written."""

    def __init__(self, file: Path) -> None:
        try:
            self._file = file.open("rb")
        except OSError as error:
            raise UsageError(f"cannot read {file}", error.strerror or str(error)) from None
        self._places, self.problem = _survey(self._file)
        self.small = {name: self._read(place) for name, place in self._places.items() if _is_small(name)}
        self._spec, self._record = self._values()
        self.run_id = self._record.run_id if self._record else self._spec.run.id if self._spec else file.stem
        if self._spec and self._record and not self.problem[0]:
            self.problem = self._spare(self._spec, self._record)

    def __enter__(self) -> Packed:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def blobs(self, digests: Iterable[str]) -> dict[str, BlobState]:
        return {digest: self._state(digest) for digest in set(digests)}

    def logs(self) -> dict[str, str]:
        found = ((name, place) for name, place in self._places.items() if name in _LOGS)
        return {name.removeprefix("logs/"): self._digest(place) for name, place in found}

    def tombstones(self, sha256: str) -> list[tuple[bytes, bytes | None]]:
        place = f"erased/{hex_of(Digest(sha256))}"
        bundle = self.small.get(f"{place}.{tombstones.BUNDLE}")
        return [] if bundle is None else [(bundle, self.small.get(f"{place}.{tombstones.PROOF}"))]

    def releases(self) -> dict[str, ReleaseSeen]:
        """Those that are in it, and the one that the run was bound to, be it in it or not."""
        bound = self._spec.run.release if self._spec else None
        found: dict[str, dict[str, tuple[bytes, ...]]] = {bound.name: {}} if bound else {}
        for member, data in self.small.items():
            if named := _RELEASE.fullmatch(member):
                found.setdefault(named[1], {})[named[2]] = (data,)
        return {name: ReleaseSeen(name, files) for name, files in sorted(found.items())}

    def inputs(self, spec: StateSpec) -> list[tuple[str, str]]:
        """Raises `TamperedError` when the list of the code is none."""
        place = self._place(spec.state.code)
        if place is None or self._digest(place) != spec.state.code:
            return [("the list of the code", spec.state.code)]
        return list(_inputs(spec, self._read(place)))

    def _values(self) -> tuple[StateSpec | None, Record | None]:
        spec = record = None
        with contextlib.suppress(ReplayError):
            spec = load_spec(self.small.get(_SPEC, b""), _SPEC)
        with contextlib.suppress(ReplayError):
            record = load_record(self.small.get(_RECORD, b""), _RECORD)
        return spec, record

    def _spare(self, spec: StateSpec, record: Record) -> tuple[str, str]:
        wanted = {output.sha256 for output in record.outputs}
        with contextlib.suppress(ReplayError):
            wanted |= {digest for _, digest in self.inputs(spec)}
        there = {str(digest_of_hex(name.removeprefix("blobs/"))) for name in self._places if _BLOB.fullmatch(name)}
        if spare := sorted(there - wanted):
            return "unknown-member", f"blob {spare[0]} belongs to nothing"
        named = [found for name in self._places if (found := _TOMBSTONE.fullmatch(name))]
        told = {str(digest_of_hex(found[1])) for found in named}
        if spare := sorted(told - ((wanted - there) | self._stated_logs())):
            return "unknown-member", f"the tombstone of {spare[0]} belongs to nothing that is missing"
        return "", ""

    def _stated_logs(self) -> set[str]:
        try:
            payload = load_bundle(self.small.get(SIGNED, b"")).envelope.payload
            return set(stated_digests(payload, "predicate", "runDetails", "byproducts").values())
        except Rejected:
            return set()

    def _state(self, digest: str) -> BlobState:
        place = self._place(digest)
        if place is None:
            return "missing"
        return "whole" if self._digest(place) == digest else "damaged"

    def _place(self, digest: str) -> Place | None:
        return self._places.get(f"blobs/{hex_of(Digest(digest))}")

    def _digest(self, place: Place) -> str:
        hasher, left = hashlib.sha256(), place.size
        self._file.seek(place.start)
        while left and (chunk := self._file.read(min(left, _CHUNK))):
            hasher.update(chunk)
            left -= len(chunk)
        return digest_of_hex(hasher.hexdigest())

    def _read(self, place: Place) -> bytes:
        self._file.seek(place.start)
        return self._file.read(place.size)


def _is_small(name: str) -> bool:
    return name in _SMALL or bool(_RELEASE.fullmatch(name) or _TOMBSTONE.fullmatch(name))


def _survey(file: BinaryIO) -> tuple[dict[str, Place], tuple[str, str]]:
    """The members up to the first thing that is not as it is written, and what that is."""
    places: dict[str, Place] = {}
    size = file.seek(0, 2)
    at, last = 0, ""
    while True:
        file.seek(at)
        block = file.read(_BLOCK)
        if block == bytes(_BLOCK):
            whole = file.read() == _END[_BLOCK:] if size - at == len(_END) else False
            return places, ("", "") if whole else ("malformed", "it does not end where it should")
        member = _member(block)
        if member is None or at + _BLOCK + member[1] > size:
            return places, ("malformed", f"at byte {at} stands no whole file")
        name, length = member
        known = _is_small(name) or name in _LOGS or _BLOB.fullmatch(name)
        if not known or (_is_small(name) and length > _LARGEST_SMALL) or len(places) >= _MOST_MEMBERS:
            return places, ("unknown-member", name[:100])
        if name <= last:
            return places, ("malformed", f"{name} is out of order")
        places[name], last = Place(at + _BLOCK, length), name
        at += _BLOCK + length
        file.seek(at)
        padding = -length % _BLOCK
        if file.read(padding) != bytes(padding):
            return places, ("malformed", f"something stands behind {name}")
        at += padding


def _member(block: bytes) -> tuple[str, int] | None:
    """Name and size; None for a header that is not the one that they give."""
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        return (info.name, info.size) if info.size >= 0 and _header(info.name, info.size) == block else None
    except (tarfile.HeaderError, ValueError):
        return None
