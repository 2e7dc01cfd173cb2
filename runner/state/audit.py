"""What `replay audit` says of a release: what it names, what has run under it since, and what of that was proven."""

from __future__ import annotations

from typing import Literal

from runner.state.record import Verdict
from runner.state.release import Release, ReleaseStatus, Withdrawal
from runner.state.spec import Deviation, RunId, Sha256, Value
from runner.state.verification import Check

Tie = Literal["bound", "replay", "replay of a bound run", "refused"]


class Condition(Value, frozen=True):
    """One part of what produced the result: its digest, and the names that it went by."""

    layer: str
    digest: Sha256
    told: tuple[str, ...] = ()


class AuditedRun(Value, frozen=True, kw_only=True):
    """A run that was tied to the release. `verdict` is about its outputs, against those of `against`; absent where
    nothing could be compared, and then `detail` says why."""

    run_id: RunId
    tie: Tie
    started: str
    state_digest: Sha256
    signed: bool
    against: str = ""
    verdict: Verdict | None = None
    detail: str = ""
    deviations: tuple[Deviation, ...] = ()
    unlisted: int = 0


class Audit(Value, frozen=True, kw_only=True):
    """`checks` are those of `replay verify @NAME`, `verified` whether none failed."""

    release: Release
    sha256: Sha256
    status: ReleaseStatus
    signed: bool
    verified: bool
    checks: tuple[Check, ...]
    conditions: tuple[Condition, ...]
    runs: tuple[AuditedRun, ...] = ()
    refused: tuple[AuditedRun, ...] = ()
    unreadable: tuple[str, ...] = ()
    withdrawals: tuple[Withdrawal, ...] = ()
