"""A night: what the replays of a suite came to. Written when they have ended, and again with what is found then."""

from __future__ import annotations

from typing import Literal

from runner.state.record import OutputVerdict, Verdict
from runner.state.spec import Value

NightVerdict = Literal[
    "identical",
    "equivalent",
    "diverged",
    "nondeterministic",
    "failed",
    "unrebuildable",
    "refused",
    "tampered",
    "not-run",
]
"""A replay's verdict, or `not-run`: trouble of engine, network or disk kept it from having one, or what else says
nothing of the run. What the budget had no time for has no verdict."""

Moved = Literal["regressed", "failing", "flaky", "fixed", "new", "steady", "not-run"]
"""What became of a run since the night before. `new` was never replayed before and is good; a run that is seen for
the first time and is bad has `regressed`. `steady` is as good as it was."""


class Rate(Value, frozen=True):
    """How often replays of one state disagreed with the original, of how many; `low` and `high` are the ends of the
    95 % Wilson interval, in 0..1."""

    disagreed: int
    of: int
    low: float
    high: float


class Moving(Value, frozen=True):
    """A change between the recorded state and the one that ran, as `replay diff` names it. Empty: absent there.
    `inside` names what of a cause it is, where that was taken apart: files, or the first bad commit or release."""

    layer: str
    name: str
    a: str = ""
    b: str = ""
    inside: str = ""


class Trouble(Value, frozen=True):
    """An error in the words that its command would have ended with. `code` is the exit code."""

    code: int
    what: str
    why: str
    next: str


class BadOutput(Value, frozen=True):
    """An output that is not as it was recorded. `sha256` is that of what the replay wrote; empty: it wrote none."""

    path: str
    verdict: Verdict
    sha256: str = ""


MOST_OUTPUTS = 100
"""Of one run, so many are told and kept."""


Unlooked = Literal["causes", "pins"]
"""What follows the replays of a night, if asked for: why runs got worse, and whether all can be had that they need."""

MOST_LEFT_OUT = 10_000
"""Of one night, so many runs that were left out are named."""


class Artifact(Value, frozen=True):
    """A file in the night's folder that shows how an output differs, or a log. `side` says whose it is."""

    file: str
    output: str
    kind: Literal["image", "text", "log"]
    side: Literal["original", "replay", "difference"]


class NightRun(Value, frozen=True, kw_only=True):
    """One run of the suite. `since` is the night from which on it has had this verdict without a break, and no output
    got worse; `replay` is the run that gave the verdict, which runs of one state share; `command` gives the verdict
    again by hand. Of tonight's `replays`, so many `disagreed`; `ran` is the digest of the state that ran, where a
    variation changed it. `bad_outputs` are by path; absent where the verdict is good, or nothing was compared. `cause`
    is a suspicion unless it is `proven`."""

    run_id: str
    job: str
    verdict: NightVerdict
    moved: Moved
    since: str
    state_digest: str
    before: NightVerdict | None = None
    labels: tuple[str, ...] = ()
    replay: str = ""
    started: str = ""
    duration_s: float = 0.0
    attempts: int = 1
    worker: str = ""
    outputs: tuple[OutputVerdict, ...] = ()
    changes: tuple[Moving, ...] = ()
    kind: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    cause: tuple[Moving, ...] = ()
    proven: bool = False
    flaky: Rate | None = None
    error: Trouble | None = None
    artifacts: tuple[Artifact, ...] = ()
    command: str = ""
    replays: int = 0
    disagreed: int = 0
    ran: str = ""
    bad_outputs: tuple[BadOutput, ...] | None = None


class PinTrouble(Value, frozen=True):
    """A pin that is down to its last copy (`places` has one) or lost (none), and the runs that need it."""

    kind: str
    name: str
    digest: str
    places: tuple[str, ...]
    runs: tuple[str, ...]


class Night(Value, frozen=True, kw_only=True):
    """`runs` are sorted by what a reader must see first. Times are UTC, ISO 8601. `against` and `setting` name the
    variation, if the recorded states did not run as they are; `as_recorded` counts runs that what was set changes
    nothing of. `left_out` counts what the budget had no time for, `left_out_runs` are the first 10,000 of these.
    `unmatched` are terms of the suite that no run fits, and that wait for none; `gone` are the runs of the night before
    that were removed since, or lack what was erased since. `not_looked_at` is what an interrupt or an error left out
    after the replays, or did not come to an end with."""

    night: str
    suite: str
    started: str
    ended: str
    runs: tuple[NightRun, ...]
    counts: dict[str, int]
    on: str = "local"
    against: str = ""
    setting: tuple[str, ...] = ()
    left_out: int = 0
    left_out_runs: tuple[str, ...] = ()
    as_recorded: int = 0
    pins: tuple[PinTrouble, ...] = ()
    unmatched: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    not_looked_at: tuple[Unlooked, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether every run was looked at and none is gone, what was set was tried with any, and nothing that they need
        is lost, for all that was looked at, which was all."""
        tried = not self.as_recorded or self.as_recorded < len(self.runs)
        looked = not self.left_out and not self.not_looked_at
        return tried and looked and not self.gone and all(pin.places for pin in self.pins)


class NightRow(Value, frozen=True, kw_only=True):
    """One run in one night: a line of the table that all nights make up."""

    night: str
    suite: str
    started: str
    against: str
    setting: str
    on: str
    run_id: str
    job: str
    verdict: NightVerdict
    moved: Moved
    since: str
    before: str
    state_digest: str
    ran: str
    replay: str
    replays: int
    disagreed: int
    duration_s: float
    attempts: int
    worker: str
    cause: str
    error: str
    bad_outputs: tuple[BadOutput, ...] | None = None
