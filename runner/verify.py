"""Verify: gather the evidence of a run, in a workspace or in a bundle, and hold it against the keys that are trusted.

Needs no network, no engine and no private key, and changes nothing.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from runner.attest.checkpoint import checkpoint_in
from runner.attest.releases import ReleaseSeen
from runner.attest.statement import KINDS
from runner.attest.verify import BlobState, Evidence, LogSeen, verified, verify
from runner.collect import needed_blobs
from runner.errors import ReplayError, UsageError
from runner.packed import Packed
from runner.seal import PROOF, Judge, bundle_name
from runner.state.digest import Digest, digest_file
from runner.state.spec import StateSpec
from runner.state.verification import Verification
from runner.store.log import Log
from runner.store.runs import Run
from runner.store.store import Store
from runner.store.tombstones import Tombstones
from runner.workspace import Workspace

_THREADS = 8


def verify_run(
    workspace: Workspace, run: Run, judge: Judge, earlier: Mapping[str, bytes], release: str | None = None
) -> Verification:
    """With `release`, also that the run is the one that this release names."""
    store = workspace.store
    log = Log(store)
    checkpoint = log.checkpoint()
    evidence = Evidence(
        run_id=run.id,
        spec=run.copies("spec.yaml", "yaml"),
        record=run.copies("record.json", "record.json"),
        bundles={kind: run.copies(bundle_name(kind), bundle_name(kind)) for kind in KINDS},
        proof=run.copies(PROOF, PROOF),
        blobs=functools.partial(_blobs, store),
        inputs=functools.partial(_inputs, store),
        logs=lambda: _logs(run),
        log=LogSeen(checkpoint, log.nodes, log.holds) if checkpoint is not None else None,
        earlier=earlier,
        tombstones=Tombstones(store, workspace.specs).of,
        origin=log.origin,
        releases=_releases(workspace, run, release),
    )
    return _verification(evidence, judge)


def verify_packed(file: Path, judge: Judge, earlier: Mapping[str, bytes]) -> Verification:
    """Of a bundle that `replay bundle` made, perhaps elsewhere."""
    with Packed(file) as packed:
        members = packed.small

        def found(name: str) -> tuple[bytes, ...]:
            return (members[name],) if name in members else ()

        evidence = Evidence(
            run_id=packed.run_id,
            spec=found("spec.yaml"),
            record=found("record.json"),
            bundles={kind: found(bundle_name(kind)) for kind in KINDS},
            proof=found(PROOF),
            blobs=packed.blobs,
            inputs=packed.inputs,
            logs=packed.logs,
            earlier=earlier,
            tombstones=packed.tombstones,
            packed=packed.problem,
            releases=packed.releases(),
        )
        return _verification(evidence, judge)


def _releases(workspace: Workspace, run: Run, named: str | None) -> dict[str, ReleaseSeen]:
    """The release that is named, and the one that the run was bound to."""
    names = {named} if named else set()
    with contextlib.suppress(ReplayError):
        binding = run.spec().run.release
        names |= {binding.name} if binding else set()
    return {name: ReleaseSeen(name, workspace.releases.copies(name)) for name in sorted(names)}


def _verification(evidence: Evidence, judge: Judge) -> Verification:
    checks = verify(evidence, judge)
    return Verification(evidence.run_id, verified(checks), checks)


def read_checkpoints(files: Iterable[Path]) -> dict[str, bytes]:
    """Each by the name of its file, which may be a run's proof: the checkpoint is the last part of that."""
    try:
        return {str(file): checkpoint_in(file.read_bytes()) for file in files}
    except OSError as error:
        raise UsageError(f"cannot read the checkpoint {error.filename}", error.strerror or "") from None


def _logs(run: Run) -> dict[str, str]:
    return {path.name: digest_file(path) for path in sorted(run.folder.glob("*")) if path.is_file()}


def _inputs(store: Store, spec: StateSpec) -> Iterator[tuple[str, str]]:
    """What must be in the store for the state: not the layers of an image that a registry serves."""
    layers = set(spec.state.image.diff_ids)
    for digest in needed_blobs(store, [(spec, None)]):
        if digest not in layers or spec.observed.image.archived:
            yield digest, digest


def _blobs(store: Store, digests: Iterable[str]) -> dict[str, BlobState]:
    wanted = sorted(set(digests))
    with ThreadPoolExecutor(_THREADS) as pool:
        parts = pool.map(lambda part: [(one, _blob(store, one)) for one in part], _shared_out(wanted))
        return dict(pair for part in parts for pair in part)


def _shared_out(wanted: list[str]) -> list[list[str]]:
    """A part for each thread: to hand over a thousand small files one by one takes longer than to hash them."""
    return [wanted[start::_THREADS] for start in range(_THREADS)]


def _blob(store: Store, digest: str) -> BlobState:
    try:
        return "whole" if digest_file(store.blobs.path(Digest(digest))) == digest else "damaged"
    except FileNotFoundError:
        return "missing"
    except OSError:
        return "damaged"
