"""Which runs a remote has, and the manifests that make each of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from runner.remote import layout
from runner.remote.layout import Manifest
from runner.state.digest import Digest
from runner.tools.remote_fs import Remote
from runner.tools.threads import in_threads

_FEW = 16


def listed_runs(remote: Remote, run_ids: Collection[str] | None = None) -> dict[str, set[Digest]]:
    """The runs that the remote has, each with the digests of its manifests; of a few `run_ids`, only those are looked
    for."""
    if run_ids is None or len(run_ids) > _FEW:
        return layout.runs_listed(remote.listing(layout.RUNS))
    names = in_threads(lambda run_id: _of_run(remote, run_id), run_ids, remote.jobs)
    return layout.runs_listed(name for found in names for name in found)


def _of_run(remote: Remote, run_id: str) -> list[str]:
    return [f"{run_id}/{name}" for name in remote.listing(f"{layout.RUNS}/{run_id}")]


def read_manifests(remote: Remote, run_id: str, digests: Iterable[Digest]) -> list[Manifest]:
    names = {digest: layout.run_name(run_id, digest) for digest in sorted(digests)}
    return [layout.read_manifest(b"".join(remote.chunks(name)), run_id, digest) for digest, name in names.items()]
