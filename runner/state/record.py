"""The record: what came of a run, bound to its spec by digest."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal

from runner.errors import Exit
from runner.state.spec import RunId, Sha256, Value

RECORD_VERSION: Final = 1

Ending = Literal["exited", "time-limit", "out-of-memory", "disk-full", "interrupted", "not-started"]
Problem = Literal["missing", "outside", "special", "secret", "unreadable"]


class Verdict(StrEnum):
    """What a comparison concludes. Order of definition is order of severity."""

    IDENTICAL = "identical"
    EQUIVALENT = "equivalent"
    DIVERGED = "diverged"
    NONDETERMINISTIC = "nondeterministic"
    FAILED = "failed"
    UNREBUILDABLE = "unrebuildable"
    REFUSED = "refused"
    TAMPERED = "tampered"


EXIT_OF_VERDICT = {
    Verdict.IDENTICAL: Exit.OK,
    Verdict.EQUIVALENT: Exit.OK,
    Verdict.DIVERGED: Exit.DIFFERENT,
    Verdict.NONDETERMINISTIC: Exit.DIFFERENT,
    Verdict.FAILED: Exit.JOB_FAILED,
    Verdict.UNREBUILDABLE: Exit.UNREBUILDABLE,
    Verdict.REFUSED: Exit.REFUSED,
    Verdict.TAMPERED: Exit.TAMPERED,
}


def worst(verdicts: list[Verdict]) -> Verdict:
    """The overall verdict of several; of none, `identical`."""
    order = list(Verdict)
    return max(verdicts, key=order.index, default=Verdict.IDENTICAL)


class Output(Value, frozen=True):
    """One file of a declared output. `path` is relative to the workspace, or `stdout`."""

    path: str
    sha256: Sha256
    size: int
    executable: bool = False


class OutputProblem(Value, frozen=True):
    """A declared output that could not be taken, and why. `masked` is the digest of one that was set apart, each
    secret in it replaced by the mask, so that it can be compared all the same."""

    path: str
    problem: Problem
    detail: str = ""
    masked: Sha256 | None = None

    @property
    def tells_all(self) -> bool:
        """Whether two that are equal stand for equal outputs: nothing of them was left unseen."""
        return self.masked is not None or self.problem in ("missing", "outside", "special")


class OutputVerdict(Value, frozen=True):
    """`detail` says what differs, or what was tolerated or ignored."""

    path: str
    verdict: Verdict
    comparator: str
    detail: str = ""


class Outcome(Value, frozen=True, kw_only=True):
    """How the job's process ended. `duration_s` is the container's life in seconds."""

    ending: Ending
    exit_code: int
    duration_s: float
    detail: str = ""


class ReplayResult(Value, frozen=True, kw_only=True):
    replay_of: RunId
    verdict: Verdict
    outputs: tuple[OutputVerdict, ...] = ()
    notes: tuple[str, ...] = ()


class Record(Value, frozen=True, kw_only=True):
    """`spec_sha256` is the digest of the spec file's bytes; `undeclared` names files the job also wrote."""

    record: Literal[1] = RECORD_VERSION
    run_id: RunId
    spec_sha256: Sha256
    state_digest: Sha256
    started: str
    outcome: Outcome
    outputs: tuple[Output, ...] = ()
    problems: tuple[OutputProblem, ...] = ()
    undeclared: tuple[str, ...] = ()
    replay: ReplayResult | None = None

    @property
    def ok(self) -> bool:
        """The job exited 0 and every declared output was taken."""
        return self.outcome.ending == "exited" and self.outcome.exit_code == 0 and not self.problems
