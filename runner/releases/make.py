"""Make a release of a run, supersede it, revoke it: each a statement, signed where there is a key, never changed."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from pathlib import Path

import msgspec

from runner.attest.releases import release_leaf, release_payload, withdrawal_leaf, withdrawal_payload
from runner.errors import UsageError
from runner.seal import PROOF, Sealer
from runner.state.digest import digest_bytes
from runner.state.moment import now_text
from runner.state.release import Acceptance, Release, Withdrawal, WithdrawalKind
from runner.state.spec import Policy, layer_digests
from runner.state.strict import dump_release, dump_withdrawal
from runner.store.releases import Known, Releases, is_release_name
from runner.store.runs import SIGNED
from runner.tools import git
from runner.workspace import RELEASED, Workspace


class Said(msgspec.Struct, frozen=True):
    """Who says it, and why."""

    by: str
    why: str

    def now(self) -> Acceptance:
        return Acceptance(self.by, now_text(), self.why)


def said(workspace: Workspace, by: str | None, why: str) -> Said:
    """By whoever commits here, if nobody is named. Raises `UsageError` when no reason is given."""
    if not why.strip():
        raise UsageError("--reason is empty", "whoever reviews it must be able to understand it", "give the reason")
    return Said(by or git.identity(workspace.root) or getpass.getuser(), why)


class Written(msgspec.Struct, frozen=True):
    """Files to be reviewed: the statement, and those of a run that stood in the store alone."""

    statement: Path
    of_run: tuple[Path, ...] = ()


def create(workspace: Workspace, name: str, part: str, said: Said, policy: Policy, sealer: Sealer | None) -> Written:
    """Accept a run's state, outputs and contract under a name. The run is put into `state_specs/` if it is not there:
    whoever gets the release through git must get the run that it names.

    Raises `UsageError` for a name that is taken, and for a run whose outputs nobody could accept.
    """
    if not is_release_name(name):
        raise UsageError(f"{name!r} is no name for a release", "at most 64 letters, digits, `_`, `.` and `-`")
    run = workspace.find_run(part)
    spec, record = run.spec_and_record()
    if record is None or not record.ok:
        ended = record.outcome.ending if record else str(run.status())
        raise UsageError(
            f"{run.id} cannot be released", f"it did not end well: {ended}", "release a run that has all its outputs"
        )
    release = Release(
        name=name,
        accepted=said.now(),
        policy=policy,
        run=run.id,
        job=spec.run.job,
        state=spec.digest,
        spec_sha256=record.spec_sha256,
        record_sha256=digest_bytes(run.copies("record.json", "record.json")[0]),
        layers=dict(layer_digests(spec.state, spec.contract)),
        outputs=record.outputs,
        contract=spec.contract,
    )
    data = dump_release(release)
    with workspace.releases.changing():
        if name in workspace.releases.names():
            raise UsageError(
                f"there is a release {name!r} already",
                "a release is never changed",
                f"take another name, then `replay release supersede {name} --by OTHER`",
            )
        signed = _signed(workspace, sealer, release_payload(release, data), release_leaf(data))
        copied = workspace.run(run.id).put_to_review(run.own_files())
        return Written(workspace.releases.write(name, "release", data, signed), tuple(copied))


def withdraw(
    workspace: Workspace, kind: WithdrawalKind, name: str, said: Said, by: str | None, sealer: Sealer | None
) -> Written:
    """Say that a release was superseded by another, or revoked.

    Raises `UsageError` when that was said already, and for another that cannot take its place.
    """
    with workspace.releases.changing():
        known = workspace.releases.find(name)
        before = known.revoked if kind == "revoked" else known.superseded
        if before:
            raise UsageError(f"{RELEASED}{name} was {kind} already", f"by {before.said.by}, {before.said.at}")
        other = workspace.releases.find(by) if by else None
        if other:
            _refuse_successor(workspace, name, other)
        statement = Withdrawal(
            kind=kind,
            name=name,
            sha256=known.sha256,
            said=said.now(),
            by=other.release.name if other else None,
            by_sha256=other.sha256 if other else None,
        )
        data = dump_withdrawal(statement)
        leaf = withdrawal_leaf(kind, known.sha256)
        signed = _signed(workspace, sealer, withdrawal_payload(statement, data), leaf)
        return Written(workspace.releases.write(name, kind, data, signed))


def _refuse_successor(workspace: Workspace, name: str, other: Known) -> None:
    """Raises `UsageError` for one that was revoked, and for one that leads back to the release itself."""
    if other.release.name == name:
        raise UsageError(f"{RELEASED}{name} cannot be superseded by itself")
    taken = f"{RELEASED}{name} cannot be superseded by {RELEASED}{other.release.name}"
    if other.revoked:
        said = other.revoked.said
        raise UsageError(taken, f"that was revoked by {said.by} on {said.at}: {said.why}", "name one that is current")
    successors = list(_successors(workspace.releases, other))
    if name in successors:
        way = ", then by ".join(RELEASED + one for one in successors[: successors.index(name) + 1])
        raise UsageError(taken, f"that was superseded by {way}: neither would be current", "name one that is current")


def _successors(releases: Releases, known: Known) -> Iterator[str]:
    """The releases that took its place, one after the other, as far as they are here."""
    there, told = set(releases.names()), set[str]()
    while known.superseded and (name := known.superseded.by) and name not in told:
        told.add(name)
        yield name
        if name not in there:
            return
        known = releases.find(name)


def _signed(workspace: Workspace, sealer: Sealer | None, payload: bytes, leaf: bytes) -> dict[str, bytes]:
    """What is kept beside a statement, by ending; nothing where nobody signs."""
    if sealer is None:
        return {}
    return {PROOF: sealer.logged(workspace.store, leaf), SIGNED: sealer.bundle(payload)}
