"""Bind: hold what is about to run against a release, before it starts, and say what deviates."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import get_args

import msgspec

from runner.attest.rejected import Rejected
from runner.attest.releases import ReleaseSeen, deviating_layers
from runner.diff import flatten, state_changes
from runner.errors import RefusedError, ReplayWarning, TamperedError
from runner.layers import code
from runner.run import Bind
from runner.seal import Judge
from runner.shown import few
from runner.state.digest import Digest, plain
from runner.state.release import Release, WithdrawalKind
from runner.state.spec import Binding, Contract, Deviation, OnDeviation, Policy, StateSpec, layer_digests
from runner.state.verification import UNTRUSTED
from runner.store.releases import Known
from runner.workspace import RELEASED, Workspace

_MOST_LISTED = 50
_MOST_WARNED = 5


def binder(workspace: Workspace, name: str, policy: OnDeviation | None, judge: Judge) -> Bind:
    """What holds a spec against a release. `policy` replaces what the release says of deviations; what may move stays.

    Raises `UsageError` when there is no such release, `TamperedError` when it is not what was signed, `RefusedError`
    when the key that signed it is not trusted.
    """
    known = workspace.releases.find(name.removeprefix(RELEASED))
    refuse_unbelieved(workspace, known, judge)
    own = known.release.policy
    applied = msgspec.structs.replace(own, deviation=policy) if policy else own
    then = workspace.find_run(RELEASED + known.release.name).spec()
    return partial(bound, workspace, known, then, applied)


def refuse_unbelieved(workspace: Workspace, known: Known, judge: Judge) -> None:
    """A release that nobody signed passes, with a warning: its signature may have been taken away."""
    name = known.release.name
    try:
        ReleaseSeen(name, workspace.releases.copies(name)).check_release(judge)
    except Rejected as error:
        if error.reason == "unsigned":
            warnings.warn(f"{RELEASED}{name} is not signed: whoever can write here can change it", ReplayWarning, 3)
            return
        what, why = f"{RELEASED}{name} cannot be believed", f"{error.reason}: {error.detail}"
        if error.reason == UNTRUSTED:
            raise RefusedError(what, why, "`replay keys trust` the key, if its id is what its owner says") from None
        raise TamperedError(what, why, "restore the release's files from git") from None


def doubt(workspace: Workspace, known: Known, judge: Judge) -> str:
    """Why what was signed of a release does not verify, as a reason code; empty where it does, and where nobody signed.
    What a key that is not trusted has signed can still be found not to be what the files say."""
    seen = ReleaseSeen(known.release.name, workspace.releases.copies(known.release.name))
    problem = _problem(seen, judge)
    return (_problem(seen, _believing) or problem) if problem == UNTRUSTED else problem


def _problem(seen: ReleaseSeen, judge: Judge) -> str:
    checks = [partial(seen.check_release, judge)]
    for kind in get_args(WithdrawalKind):
        if said := seen.withdrawal(kind):
            checks.append(partial(seen.check_withdrawal, kind, *said, judge))
    for check in checks:
        try:
            check()
        except Rejected as error:
            if error.reason != "unsigned":
                return error.reason
    return ""


def _believing(_hint: bytes, _message: bytes, _signature: bytes) -> None:
    return None


def bound(workspace: Workspace, known: Known, then: StateSpec, policy: Policy, now: StateSpec) -> Binding:
    """The binding of a run that is about to start. Its `refused` says whether it may."""
    found = list(deviations(known.release, Recorded.of(workspace, then), Recorded.of(workspace, now)))
    listed = some_of_each(found)
    _warn(known, policy, found)
    return Binding(
        name=known.release.name,
        sha256=known.sha256,
        policy=policy,
        deviations=listed,
        unlisted=len(found) - len(listed),
        refused="revoked" if known.revoked else "" if is_allowed(policy, found) else "deviates",
    )


def _warn(known: Known, policy: Policy, found: list[Deviation]) -> None:
    name = RELEASED + known.release.name
    if known.superseded:
        warnings.warn(f"{name} was superseded by {RELEASED}{known.superseded.by}", ReplayWarning, stacklevel=3)
    beyond = [one for one in found if one.layer not in policy.may_move]
    if beyond and policy.deviation == "warn":
        told = few([f"{one.layer} {one.name}" for one in beyond], _MOST_WARNED)
        warnings.warn(f"the run deviates from {name}: {told}", ReplayWarning, stacklevel=3)


def is_allowed(policy: Policy, found: Iterable[Deviation]) -> bool:
    """Whether a run that deviates so may start."""
    return policy.deviation == "warn" or all(one.layer in policy.may_move for one in found)


def some_of_each(found: list[Deviation]) -> tuple[Deviation, ...]:
    """The first of each layer, as many as a spec has room for."""
    layers = dict.fromkeys(one.layer for one in found)
    return tuple(
        one for layer in layers for one in itertools.islice((one for one in found if one.layer == layer), _MOST_LISTED)
    )


class Recorded(msgspec.Struct, frozen=True):
    """A spec with the digests of its code files, where the store has them."""

    spec: StateSpec
    code: Mapping[str, str] | None

    @classmethod
    def of(cls, workspace: Workspace, spec: StateSpec) -> Recorded:
        digest = Digest(spec.state.code)
        there = workspace.store.blobs.has(digest)
        return cls(spec, by_path(code.files_of(workspace.store, digest)) if there else None)


def by_path(files: Iterable[code.CodeFile]) -> dict[str, str]:
    """The digest of each code file, and its kind if it is not plain."""
    return {file.path: file.sha256 + ("" if file.kind == "file" else f" {file.kind}") for file in files}


def deviations(release: Release, was: Recorded, is_now: Recorded) -> Iterator[Deviation]:
    """What differs from the release, in each layer whose digest does."""
    then, now = was.spec, is_now.spec
    layers = deviating_layers(release, now)
    changes = state_changes(then.state, now.state, was.code, is_now.code, then.observed, now.observed)
    found = [Deviation(change.layer, change.name, change.a, change.b) for change in changes]  # type: ignore[arg-type]
    found += contract_changes(then.contract, now.contract)
    yield from (one for one in found if one.layer in layers)
    digests = layer_digests(now.state, now.contract)
    for layer in sorted(layers - {one.layer for one in found}):
        yield Deviation(layer, layer, release.layers.get(layer), digests.get(layer))  # type: ignore[arg-type]


def contract_changes(a: Contract, b: Contract) -> list[Deviation]:
    """What differs in outputs, tolerances, boundaries and metrics, by dotted key."""
    before, after = _told(a), _told(b)
    differing = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    # A rule that says nothing is told only where no key in it tells more.
    telling = [name for name in differing if not any(other.startswith(f"{name}.") for other in differing)]
    return [Deviation("contract", name, before.get(name), after.get(name)) for name in telling]


def _told(contract: Contract) -> dict[str, str]:
    told = plain(contract)
    return flatten(told | {"checks": {check["name"]: check for check in told.get("checks", ())}})
