"""Release states: a state accepted as a baseline under a name, and what is said of it later; neither ever changes."""

from __future__ import annotations

from typing import Final, Literal

from runner.state.record import Output, OutputVerdict, Verdict
from runner.state.spec import Contract, Deviation, Policy, ReleaseName, RunId, Sha256, Value

RELEASE_VERSION: Final = 1
WITHDRAWAL_VERSION: Final = 1

WithdrawalKind = Literal["superseded", "revoked"]


class Acceptance(Value, frozen=True):
    """Who accepted it, when, in UTC, and why."""

    by: str
    at: str
    why: str


class Release(Value, frozen=True, kw_only=True):
    """A state with the outputs and the contract that were accepted with it.

    `spec_sha256` and `record_sha256` are of the run's files, `layers` has a digest of each part of state and contract.
    """

    release: Literal[1] = RELEASE_VERSION
    name: ReleaseName
    accepted: Acceptance
    policy: Policy
    run: RunId
    job: str
    state: Sha256
    spec_sha256: Sha256
    record_sha256: Sha256
    layers: dict[str, Sha256]
    outputs: tuple[Output, ...] = ()
    contract: Contract = Contract()


class Withdrawal(Value, frozen=True, kw_only=True):
    """That a release is no longer the one to be used. `sha256` is of its statement; of one that was superseded, `by`
    names the other and `by_sha256` is that one's."""

    withdrawal: Literal[1] = WITHDRAWAL_VERSION
    kind: WithdrawalKind
    name: ReleaseName
    sha256: Sha256
    said: Acceptance
    by: ReleaseName | None = None
    by_sha256: Sha256 | None = None

    def __post_init__(self) -> None:
        if (self.kind == "superseded") != (self.by is not None and self.by_sha256 is not None):
            raise ValueError("expected `by` and `by_sha256` where a release is superseded, and only there")


ReleaseStatus = Literal["current", "superseded", "revoked"]


class ReleaseListed(Value, frozen=True, kw_only=True):
    """A release in short. `signed` says that there is a signature; `doubt` is the reason, as `verify` gives it, for
    which it does not verify here."""

    name: ReleaseName
    status: ReleaseStatus
    signed: bool
    sha256: Sha256
    run_id: RunId
    state_digest: Sha256
    accepted: Acceptance
    policy: Policy
    superseded_by: ReleaseName | None = None
    doubt: str = ""


class ReleaseList(Value, frozen=True):
    """All of them, by name; of those that cannot be read, what is wrong."""

    releases: tuple[ReleaseListed, ...]
    unreadable: dict[str, str] = {}


class ReleaseShown(Value, frozen=True, kw_only=True):
    """A release as a whole, and what was said of it since; `doubt` as in the list."""

    status: ReleaseStatus
    signed: bool
    sha256: Sha256
    release: Release
    superseded: Withdrawal | None = None
    revoked: Withdrawal | None = None
    doubt: str = ""


class ReleaseWritten(Value, frozen=True, kw_only=True):
    """What `create`, `supersede` and `revoke` did: `written` is the file to be reviewed, `of_run` those of a
    released run that stood in the store alone until then."""

    written: str
    release: ReleaseListed
    of_run: tuple[str, ...] = ()


class Pin(Value, frozen=True):
    """Something that a state is rebuilt from: where it is, and whether it can be had without asking anybody."""

    layer: str
    name: str
    place: str
    here: bool


class ReleaseCheck(Value, frozen=True, kw_only=True):
    """A run, or the present (`.`), held against a release. `allowed` says whether its policy lets what deviates;
    `unknown` maps layers that only a run could tell to why. `unreadable` maps secrets and sources that cannot be
    read here to why. Those and `pins` are told of the present, `verdict` and `outputs` of a run."""

    name: ReleaseName
    sha256: Sha256
    status: ReleaseStatus
    against: str
    equal: bool
    allowed: bool
    deviations: tuple[Deviation, ...] = ()
    unlisted: int = 0
    unknown: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    pins: tuple[Pin, ...] = ()
    verdict: Verdict | None = None
    outputs: tuple[OutputVerdict, ...] = ()

    @property
    def lost(self) -> list[Pin]:
        return [pin for pin in self.pins if not pin.here]
