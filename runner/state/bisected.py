"""What `replay bisect` says: the causes and their proof, or where it stands; and its log."""

from __future__ import annotations

from typing import Literal

from runner.state.spec import Value

Came = Literal["good", "bad", "unresolved"]


class Moved(Value, frozen=True):
    """A change; `good` or `bad` is absent where the thing itself is."""

    layer: str
    name: str
    good: str | None = None
    bad: str | None = None


class Proof(Value, frozen=True):
    """A state that the proof rests on, in words; how its last run came out, and how often it was run."""

    state: str
    outcome: Came
    run_id: str
    runs: int
    shown: str = ""


class Suspected(Value, frozen=True):
    """Where it was cut off: changes that go together, and how likely they are to be in the cause."""

    changes: tuple[Moved, ...]
    probability: float


class Inside(Value, frozen=True):
    """A change that is a cause, taken apart: commits, releases, files. `parts` are those of each cause found in it; of
    an ordered one the last named is the first bad one."""

    layer: str
    name: str
    ordered: bool
    parts: tuple[tuple[str, ...], ...]
    proven: bool
    trials: int


class HostChange(Value, frozen=True):
    name: str
    then: str
    now: str


class Bisected(Value, frozen=True, kw_only=True):
    """`cause` is the first one found, `independent` are the others. `companions` had to come along with it, `blocks`
    could not be taken apart. `trials` leaves out the looks at the two ends. `probability` is that of the answer being
    right where trials disagreed; `alpha` the chance of a wrong proof that is borne: 0 where the job is taken to be
    deterministic. `unreproduced` names the end that did not come out as recorded; `host` is what differs then.
    `checks_left_out` names the boundaries that the two ends do not declare alike: no trial is run under them."""

    bisect: str
    good: str
    bad: str
    changes: int
    cause: tuple[Moved, ...]
    proven: bool
    trials: int
    rounds: int
    unresolved: int
    independent: tuple[tuple[Moved, ...], ...]
    companions: tuple[Moved, ...]
    blocks: tuple[tuple[Moved, ...], ...]
    proof: tuple[Proof, ...] = ()
    drill: tuple[Inside, ...] = ()
    probability: float | None = None
    alpha: float | None = None
    suspects: tuple[Suspected, ...] = ()
    unreproduced: Literal["good", "bad"] | None = None
    host: tuple[HostChange, ...] = ()
    checks_left_out: tuple[str, ...] = ()


class Tried(Value, frozen=True):
    """One trial, in the order in which they ended, `what` in words. `items` are the changes that it had from the bad
    run; of a drill, `parts` are the parts of the one change that it had. `run_id` and the state's digest, `state`, are
    absent where it could not be built."""

    number: int
    round: int
    what: str
    outcome: Came
    doing: str
    seconds: float
    items: tuple[Moved, ...] = ()
    parts: tuple[str, ...] = ()
    run_id: str | None = None
    state: str | None = None
    shown: str = ""
    note: str = ""
    drill: str = ""


class BisectLog(Value, frozen=True):
    bisect: str
    good: str
    bad: str
    lines: tuple[Tried, ...]
