"""Exported: a run written as a folder that others can read without this tool."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from runner import crate
from runner.confined import refuse_unconfined
from runner.erased import erased_of
from runner.errors import ReplayError, UsageError, disk_error
from runner.layers import code, data
from runner.layers.code import CodeFile
from runner.state.digest import Digest
from runner.state.paths import is_below
from runner.state.record import Record
from runner.state.spec import StateSpec
from runner.store.blobs import copy_out
from runner.store.files import remove_tree, write_atomic
from runner.store.runs import ATTESTED, SIGNED, Run
from runner.store.store import Store

_MODE = 0o644
_WHAT = {
    "yaml": "the state spec: every condition of the run, written before it started",
    "record.json": "the record: what came of the run, bound to the spec by digest",
    SIGNED: "SLSA provenance of the run as a signed in-toto statement",
    "tlog-proof": "that the record is in the log of whoever signed",
    "stdout": "what the job printed on stdout",
    "stderr": "what the job printed on stderr",
}


def write_crate(store: Store, run: Run, target: Path, *, with_data: bool) -> int:
    """Write the run as a Process Run Crate; how many files of it were copied. Of data, only the digests are told unless
    asked for. What was written is removed when it cannot be finished."""
    spec, record = run.spec_and_record()
    if record is None:
        raise UsageError(f"{run.id} has no record, so there is nothing to export", f"it is {run.status()}")
    refuse_unconfined(spec)
    try:
        target.mkdir(parents=True, exist_ok=True)
        if any(target.iterdir()):
            raise UsageError(f"{target} is not empty", next="name a folder that is not there yet")
        try:
            return _write(store, run, spec, record, target, with_data=with_data)
        except BaseException:
            remove_tree(target)
            raise
    except OSError as error:
        raise disk_error(error, f"write {target}") from error


def _write(store: Store, run: Run, spec: StateSpec, record: Record, target: Path, *, with_data: bool) -> int:
    files = dict(_run_files(run, target))
    _write_code(store, spec, target / crate.CODE)
    if spec.state.params and spec.state.params.file and spec.state.params.sha256:
        _copy(store, spec.state.params.sha256, target / crate.PARAMS / spec.state.params.file)
    paths = spec.state.data | spec.state.model if with_data else {}
    for path, digest in paths.items():
        _write_data(store, Digest(digest), target / crate.DATA / path)
    told = erased_of(store, run.specs, (Digest(output.sha256) for output in record.every_output))
    erased = {one.path: told[Digest(one.sha256)].told for one in record.every_output if one.sha256 in told}
    for output in record.every_output:
        if not is_below(output.path):
            raise UsageError(f"{run.id} cannot be exported", f"its output {output.path!r} leads out of the folder")
        if output.path not in erased:
            _copy(store, output.sha256, target / crate.OUTPUTS / output.path)
    included = crate.Included(files, frozenset(paths), erased, _key(run))
    write_atomic(target / crate.METADATA, crate.metadata(spec, record, included))
    return sum(len(names) for _, _, names in os.walk(target))


def _run_files(run: Run, target: Path) -> Iterator[tuple[str, str]]:
    in_store = {"yaml": "spec.yaml"}
    for ending in ("yaml", "record.json", *ATTESTED):
        if copies := run.copies(in_store.get(ending, ending), ending):
            name = f"{run.id}.{ending}"
            write_atomic(target / name, copies[0])
            yield name, _WHAT.get(ending, "what the replay said of the outputs, as a signed in-toto statement")
    for name in ("stdout", "stderr"):
        if (log := run.folder / name).is_file():
            place = target / crate.LOGS / name
            place.parent.mkdir(exist_ok=True)
            copy_out(log, place, _MODE)
            yield f"{crate.LOGS}/{name}", _WHAT[name]


def _write_code(store: Store, spec: StateSpec, target: Path) -> None:
    target.mkdir()
    files = code.files_of(store, Digest(spec.state.code))
    code.restore(store, tuple(_followed(store, files)), target)


def _followed(store: Store, files: Sequence[CodeFile]) -> Iterator[CodeFile]:
    """Links that stay inside stay links; what others lead to was never part of the run."""
    for file in files:
        if file.kind == "link":
            to = os.fsdecode(store.blobs.read(Digest(file.sha256)))
            pure = os.path.normpath(os.path.join(os.path.dirname(file.path), to))
            if os.path.isabs(to) or pure.split("/")[0] == "..":
                continue
        yield file


def _write_data(store: Store, digest: Digest, target: Path) -> None:
    listed = data.files_of(store, digest) if store.blobs.has(digest) else None
    for path, one in [(file.path, file.sha256) for file in listed] if listed is not None else [("", digest)]:
        if path and not is_below(path):
            raise UsageError(f"blob {digest} is no listing of data files", f"{path!r} leads out of the folder")
        _copy(store, one, target / path if path else target)


def _copy(store: Store, digest: str, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    copy_out(store.blobs.verified(Digest(digest)), place, _MODE)


def _key(run: Run) -> str | None:
    """The id of the key that signed, as the signature says; `verify` tells whether it is true."""
    from runner.attest.bundle import load_bundle
    from runner.attest.rejected import Rejected

    copies = run.copies(SIGNED, SIGNED)
    try:
        return load_bundle(copies[0]).envelope.signatures[0].keyid if copies else None
    except (Rejected, ReplayError):
        return None
