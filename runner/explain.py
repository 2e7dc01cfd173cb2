"""Explain: what lies between two runs, or between a run and the present, with its evidence from the store.

The difference and the diagnosis are pure; here they are given what they need: lists of files, sources of functions,
outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec

from runner.diagnose import Diagnosis, diagnose
from runner.diff import Change, Diff, Side, diff
from runner.errors import ReplayError
from runner.functions import function_changes
from runner.layers import code
from runner.present import NAME, look
from runner.state.digest import Digest
from runner.state.spec import StateSpec
from runner.workspace import Workspace

_MOST_READ = 100

Reader = Callable[[str], bytes | None]


class Explained(msgspec.Struct, frozen=True):
    diff: Diff
    diagnosis: Diagnosis


class _Looked(msgspec.Struct, frozen=True):
    side: Side
    read: Reader


def explain(workspace: Workspace, a: str, b: str) -> Explained:
    """`a` and `b` are parts of run-ids, paths of specs, or `.` for the present, once at most.

    Raises `UsageError` when one cannot be found, and `TamperedError` when one is not what was recorded.
    """
    if NAME in (a, b):
        then = _recorded(workspace, b if a == NAME else a)
        now = _present(workspace, then.side.spec)
        before, after = (now, then) if a == NAME else (then, now)
    else:
        before, after = _recorded(workspace, a), _recorded(workspace, b)
    found = diff(before.side, after.side)
    found = msgspec.structs.replace(found, changes=tuple(_with_functions(found.changes, before.read, after.read)))
    return Explained(found, diagnose(found))


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

    outputs = {output.path: str(output.sha256) for output in record.every_output} if record else None
    return _Looked(Side(spec, None if files is None else _by_path(files), outputs), read)


def _present(workspace: Workspace, then: StateSpec) -> _Looked:
    now = look(workspace, then)

    def read(path: str) -> bytes | None:
        try:
            return (workspace.root / path).read_bytes()
        except OSError:
            return None

    return _Looked(Side(now.spec, _by_path(now.code), unknown=now.unknown), read)


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
