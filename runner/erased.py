"""Erased: which blobs are missing on purpose, as tombstones that are believed here tell.

Asked only where something is missing: whoever finds all blobs in place pays nothing for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from runner import needs
from runner.errors import RefusedError, ReplayError
from runner.keys import keyring
from runner.layers import data
from runner.state.digest import Digest
from runner.state.pins import PinKind
from runner.state.record import Record
from runner.store.runs import Run
from runner.store.store import Store
from runner.store.tombstones import Tombstones

if TYPE_CHECKING:
    from runner.attest.tombstone import Tombstone

_TO_RUN: frozenset[PinKind] = frozenset({"code", "params", "image", "wheel", "data", "model"})


def tombstone_of(store: Store, specs: Path | None, digest: Digest) -> Tombstone | None:
    """None when there is no tombstone of it, or none that a trusted key signed."""
    copies = Tombstones(store, specs).copies(digest)
    if not copies:
        return None
    from runner.attest.rejected import Rejected
    from runner.attest.tombstone import read_tombstone
    from runner.seal import judge_of

    for kept in copies:
        with contextlib.suppress(Rejected):
            return read_tombstone(digest, kept.bundle, kept.proof, judge_of(keyring().trusted()))
    return None


def erased_of(store: Store, specs: Path | None, digests: Iterable[Digest]) -> dict[Digest, Tombstone]:
    """Those that are missing and were erased."""
    if not Tombstones(store, specs).exist():
        return {}
    missing = (digest for digest in digests if not store.blobs.has(digest))
    found = ((digest, tombstone_of(store, specs, digest)) for digest in missing)
    return {digest: tombstone for digest, tombstone in found if tombstone}


def all_erased(store: Store, specs: Path | None) -> dict[Digest, Tombstone]:
    """Every believed tombstone, whether its blob is missing or came back."""
    found = ((digest, tombstone_of(store, specs, digest)) for digest in Tombstones(store, specs).digests())
    return {digest: tombstone for digest, tombstone in found if tombstone}


def lost_states(store: Store, specs: Path | None, runs: Mapping[str, Run]) -> set[str]:
    """Of states, each with a run of it, those that cannot be had again, as something that they run on was erased."""
    erased = {digest for digest in all_erased(store, specs) if not store.blobs.has(digest)}
    return {state for state, run in runs.items() if _lacks(store, run, erased)} if erased else set()


def _lacks(store: Store, run: Run, erased: set[Digest]) -> bool:
    try:
        spec = run.spec()
        wanted = (need for need in needs.of_spec(spec) if need.kind in _TO_RUN)
        return any(not erased.isdisjoint(needs.behind(store, spec, need)) for need in wanted)
    except ReplayError:  # its replay tells what is wrong with it
        return False


def keep_erased(store: Store, specs: Path | None, run: Run, record: Record) -> list[str]:
    """What was erased stays so: outputs and logs of a new run that are it again are not kept; what they are called."""
    erased = all_erased(store, specs)
    if not erased:
        return []
    again = [output for output in record.every_output if output.sha256 in erased]
    for output in again:
        store.blobs.discard(Digest(output.sha256))
    logs = [name for name, one in run.sums().items() if one.sha256 in erased]
    for name in logs:
        (run.folder / name).unlink(missing_ok=True)
    return sorted({*(output.path for output in again), *logs})


def refuse_erased(store: Store, specs: Path | None, path: str, version: Digest) -> None:
    """Raises `RefusedError` for data that was erased, or has a file that was, and takes it out of the store again."""
    erased = all_erased(store, specs)
    again = [digest for digest in data.blobs_of(store, version) if digest in erased]
    if again:
        data.discard(store, version)
        for digest in again:
            store.blobs.discard(digest)
        raise RefusedError(
            f"{path} holds what was erased here as {erased[again[0]].path}",
            erased[again[0]].told,
            "take it out of the data, and `dvc add` what remains",
        )
