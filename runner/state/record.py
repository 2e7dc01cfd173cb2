"""The record: what came of a run, bound to its spec by digest."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal

from runner.errors import Exit
from runner.state.spec import CheckAction, RunId, Sha256, Value

RECORD_VERSION: Final = 1

Ending = Literal[
    "exited", "time-limit", "out-of-memory", "disk-full", "interrupted", "not-started", "halted", "refused"
]
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


GOOD = frozenset({Verdict.IDENTICAL, Verdict.EQUIVALENT})
"""What a verdict must be for nothing to have moved. It may be asked for the verdict's text, too."""

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
    """How the job's process ended. `duration_s` is the container's life in seconds, that of all stages together.
    `halted` is a job that a boundary kept from starting, `refused` one that a release did; their exit code is 6."""

    ending: Ending
    exit_code: int
    duration_s: float
    detail: str = ""


class StageOutcome(Value, frozen=True):
    """How a stage ended. Stages after one that failed, or whose boundary was broken, were not run."""

    name: str
    ending: Ending
    exit_code: int
    duration_s: float


class CheckResult(Value, frozen=True):
    """What came of a check. An `error` is one that could not be evaluated, and counts as broken; one is `skipped` when
    the run ended before it. `escalated` says how the escalation command ended."""

    name: str
    on: str
    kind: str
    result: Literal["pass", "fail", "error", "skipped"]
    action: CheckAction
    stage: str | None = None
    detail: str = ""
    escalated: str = ""

    @property
    def broken(self) -> bool:
        return self.result in ("fail", "error")

    @property
    def halts(self) -> bool:
        return self.broken and self.action == "halt"


class ReplayResult(Value, frozen=True, kw_only=True):
    replay_of: RunId
    verdict: Verdict
    outputs: tuple[OutputVerdict, ...] = ()
    notes: tuple[str, ...] = ()


class Record(Value, frozen=True, kw_only=True):
    """`spec_sha256` is the digest of the spec file's bytes; `undeclared` names files the job also wrote.
    Outputs of a run that a boundary halted are in `set_apart`, never among `outputs`."""

    record: Literal[1] = RECORD_VERSION
    run_id: RunId
    spec_sha256: Sha256
    state_digest: Sha256
    started: str
    outcome: Outcome
    outputs: tuple[Output, ...] = ()
    problems: tuple[OutputProblem, ...] = ()
    undeclared: tuple[str, ...] = ()
    set_apart: tuple[Output, ...] = ()
    stages: tuple[StageOutcome, ...] = ()
    checks: tuple[CheckResult, ...] = ()
    replay: ReplayResult | None = None

    @property
    def ok(self) -> bool:
        """The job exited 0, every declared output was taken, and no boundary halted it."""
        ended_well = self.outcome.ending == "exited" and self.outcome.exit_code == 0
        return ended_well and not self.problems and not self.halted

    @property
    def halted(self) -> bool:
        """Whether a boundary was broken that halts."""
        return any(check.halts for check in self.checks)

    @property
    def every_output(self) -> tuple[Output, ...]:
        """Good ones, or those set apart."""
        return self.outputs + self.set_apart
