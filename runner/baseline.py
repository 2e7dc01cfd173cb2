"""The baseline of a boundary on drift: what a named run had at a path, as the profile that a contract pins."""

from __future__ import annotations

from runner.errors import UsageError
from runner.layers import schema
from runner.profile import values
from runner.profile.values import Profile
from runner.state.digest import Digest, digest_bytes
from runner.state.paths import covers
from runner.state.record import Record
from runner.state.spec import Baseline, StateSpec
from runner.workspace import Workspace


def baseline(workspace: Workspace, part: str, on: str, *, keep: bool) -> Baseline:
    """The table that the run had at the path `on`, its profile safe in the store if it is to be kept.

    Raises `UsageError` when there is no such run, or none that had a table there, and `TamperedError` when the run is
    not what was recorded.
    """
    run = workspace.find_run(part)
    spec, record = run.spec_and_record()
    found = _profile(workspace, spec, record, on)
    if isinstance(found, str):
        raise UsageError(
            f"{run.id} is no baseline for the drift of {on}", found, "name a run that had this table, or another check"
        )
    data = values.encode(found)
    return Baseline(run.id, workspace.store.blobs.put_bytes(data) if keep else digest_bytes(data))


def _profile(workspace: Workspace, spec: StateSpec, record: Record | None, on: str) -> Profile | str:
    store = workspace.store
    outputs = {output.path: output for output in record.outputs} if record else {}
    if on in outputs:
        return schema.look(store.blobs.verified(Digest(outputs[on].sha256)))
    for path, version in spec.state.data.items():
        if covers(path, on):
            held = store.blobs.has(Digest(version))
            digest = dict(schema.tables(store, path, Digest(version))).get(on) if held else None
            seen = spec.observed.schema.get(on)
            if digest or seen:
                return schema.profile_of(store, seen, digest or Digest(""))
    return "it has no table there"
