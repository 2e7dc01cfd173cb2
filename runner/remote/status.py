"""Status: what a push and a pull would move."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from runner import needs
from runner.erased import erased_of
from runner.remote import goods
from runner.remote.push import weigh
from runner.state.digest import Digest
from runner.state.travel import Amount, RunPlace, Status, Where
from runner.tools.remote_fs import Remote
from runner.workspace import Workspace


def status(
    workspace: Workspace, remote: Remote, selected: Collection[str], listed: Mapping[str, set[Digest]]
) -> Status:
    """Raises `OutsideError` when the remote cannot be used."""
    known = [
        one for run_id in workspace.run_ids() if run_id in selected if (one := goods.of_run(workspace.run(run_id)))
    ]
    here = [one for one in known if one.run.is_in_store()]
    load = weigh(workspace, remote, here, listed)
    ids, there = {one.run.id for one in here}, listed.keys() & set(selected)
    unsent = sum(one.run.id not in listed for one in here)
    lacking = {digest for one in known if one.run.id in listed for digest in _lacking_here(workspace, one)}
    lacking -= erased_of(workspace.store, workspace.specs, lacking).keys()
    return Status(
        remote=remote.url,
        runs=tuple(
            RunPlace(run_id, _where(here=run_id in ids, there=run_id in there))
            for run_id in sorted(there.union(one.run.id for one in known))
        ),
        push=Amount(unsent, len(load.blobs), sum(load.blobs.values())),
        pull=Amount(len(there - ids), len(lacking)),
    )


def _where(*, here: bool, there: bool) -> Where:
    """A run of which git brought the spec and the record, and no more, is not here."""
    if here:
        return "both" if there else "here"
    return "remote" if there else "neither"


def _lacking_here(workspace: Workspace, one: goods.Goods) -> set[Digest]:
    store = workspace.store
    behind = {Digest(digest) for need in one.needs() for digest in needs.behind(store, one.spec, need)}
    return {digest for digest in behind if not store.blobs.has(digest)}
