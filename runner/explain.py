"""Explain: what lies between two runs, or between a run and the present, with its evidence from the store.

The difference and the diagnosis are pure; here they are given what they need: lists of files, sources of functions,
outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import msgspec

from runner.diagnose import Diagnosis, MetricFinding, diagnose
from runner.diff import LAYERS, STAGES, Change, Diff, Side, diff
from runner.errors import ReplayError
from runner.functions import function_changes
from runner.layers import code
from runner.moved import Moved, TablesOf, examine, kept_tables, live_tables
from runner.state.digest import Digest
from runner.state.paths import is_marked
from runner.state.record import Output, Verdict
from runner.state.spec import StateSpec
from runner.workspace import PRESENT, Workspace

_MOST_READ = 100
_LARGEST_COMPARED = 64 << 20

Reader = Callable[[str], bytes | None]


class Explained(msgspec.Struct, frozen=True):
    """The changes of `diff` include the breaks of schemas; `moved` tells columns, `metrics` those that are declared."""

    diff: Diff
    diagnosis: Diagnosis
    moved: Moved = Moved()
    metrics: tuple[MetricFinding, ...] = ()


class _Looked(msgspec.Struct, frozen=True):
    side: Side
    read: Reader
    tables: TablesOf
    outputs: dict[str, Output] = {}


def explain(workspace: Workspace, a: str, b: str) -> Explained:
    """`a` and `b` are parts of run-ids, paths of specs, or `.` for the present, once at most.

    Raises `UsageError` when one cannot be found, and `TamperedError` when one is not what was recorded.
    """
    if PRESENT in (a, b):
        then = _recorded(workspace, b if a == PRESENT else a)
        now = _present(workspace, then.side.spec)
        before, after = (now, then) if a == PRESENT else (then, now)
    else:
        before, after = _recorded(workspace, a), _recorded(workspace, b)
    found = diff(before.side, after.side)
    moved = examine(found.changes, before.tables, after.tables)
    metrics = _metrics(workspace, before.side, after.side)
    told = tuple(_with_functions(found.changes, before.read, after.read))
    preprocessing = _preprocessing(found, before.side.spec, after.side.spec)
    diagnosis = diagnose(msgspec.structs.replace(found, changes=told), moved.findings, metrics, preprocessing)
    changes = tuple(sorted((*told, *moved.changes), key=lambda change: LAYERS.index(change.layer)))
    outputs = tuple(_compared(workspace, change, before, after) for change in found.outputs)
    return Explained(msgspec.structs.replace(found, changes=changes, outputs=outputs), diagnosis, moved, metrics)


def _compared(workspace: Workspace, change: Change, before: _Looked, after: _Looked) -> Change:
    """An output of which both have one, told by the comparator that the first run declared for it. What is large, or
    cannot be compared here, differs in its bytes, which is known already."""
    one, other = before.outputs.get(change.name), after.outputs.get(change.name)
    if not one or not other or max(one.size, other.size) > _LARGEST_COMPARED:
        return change
    blobs, rules = workspace.store.blobs, before.side.spec.contract.outputs
    if not all(blobs.has(Digest(output.sha256)) for output in (one, other)):
        return change
    from runner.compare import compare_outputs

    try:
        (found,) = compare_outputs({one.path: one}, {other.path: other}, rules, blobs.verified)
    except ReplayError:
        return change
    words = f"{found.verdict}: " if found.verdict is Verdict.EQUIVALENT else ""
    return msgspec.structs.replace(change, detail=words + found.detail)


def _metrics(workspace: Workspace, before: Side, after: Side) -> tuple[MetricFinding, ...]:
    if not after.spec.contract.metrics:
        return ()
    from runner.metrics import metric_findings

    return tuple(metric_findings(workspace.store, before, after))


def _preprocessing(found: Diff, *specs: StateSpec) -> list[str]:
    """Changed code files and stages that one of the two marks as preprocessing."""
    marks = {mark for spec in specs for mark in spec.contract.preprocessing}
    names = [change.name for change in found.changes if change.layer == "code"]
    return [name for name in names if is_marked(name, marks) or name.removeprefix(STAGES) in marks]


def _recorded(workspace: Workspace, part: str) -> _Looked:
    spec, record = workspace.find_run(part).spec_and_record()
    files = _kept_files(workspace, spec)
    blobs = workspace.store.blobs

    def read(path: str) -> bytes | None:
        found = next((file for file in files or () if file.path == path), None)
        try:
            return blobs.read(Digest(found.sha256)) if found else None
        except ReplayError:
            return None

    outputs = {output.path: output for output in record.every_output} if record else {}
    digests = {path: str(output.sha256) for path, output in outputs.items()} if record else None
    tables = partial(kept_tables, workspace.store, spec.state.data, spec.observed.schema)
    return _Looked(Side(spec, None if files is None else _by_path(files), digests), read, tables, outputs)


def _present(workspace: Workspace, then: StateSpec) -> _Looked:
    from runner.present import look

    now = look(workspace, then)

    def read(path: str) -> bytes | None:
        try:
            return (workspace.root / path).read_bytes()
        except OSError:
            return None

    tables = partial(live_tables, workspace.store, workspace.root)
    return _Looked(Side(now.spec, _by_path(now.code), unknown=now.unknown), read, tables)


def _kept_files(workspace: Workspace, spec: StateSpec) -> tuple[code.CodeFile, ...] | None:
    digest = Digest(spec.state.code)
    return code.files_of(workspace.store, digest) if workspace.store.blobs.has(digest) else None


def _by_path(files: Iterable[code.CodeFile]) -> dict[str, str]:
    return {file.path: file.sha256 + ("" if file.kind == "file" else f" {file.kind}") for file in files}


def _with_functions(changes: Iterable[Change], read_a: Reader, read_b: Reader) -> Iterator[Change]:
    """Changed Python files told by the functions that changed in them; the first hundred, for the time it takes."""
    read = 0
    for change in changes:
        told = change.layer == "code" and change.name.endswith(".py") and None not in (change.a, change.b)
        if told and read < _MOST_READ:
            read += 1
            change = msgspec.structs.replace(change, detail=_functions(read_a(change.name), read_b(change.name)))
        yield change


def _functions(before: bytes | None, after: bytes | None) -> str:
    found = function_changes(before, after) if before is not None and after is not None else None
    return str(found) if found else ""
