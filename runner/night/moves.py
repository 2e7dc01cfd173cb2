"""Moves: what became of a run since the night before. A fold over the nights of one suite, one verdict a night.

The original counts as good, since replays are compared with it. A night in which a run was not replayed tells nothing
of it and changes nothing.

A run that is as bad as it was has regressed all the same where one of its outputs got worse: it was good, or was not
missing yet.

A run is *flaky* from when replays of one state disagreed: within a night, or because it turned bad, good and bad
again. It is no longer once it came out alike so often that as flaky a run would do so in less than 5 % of cases.
"""

from __future__ import annotations

import math

import msgspec

from runner.state.night import MOST_OUTPUTS, BadOutput, Moved, NightVerdict, Rate
from runner.state.record import GOOD, Verdict

_SEVERITY: list[str] = [verdict for verdict in Verdict if verdict not in GOOD]
_TURNS = 3
_CHANCE = 0.05
_Z = 1.959964


class Seen(msgspec.Struct, frozen=True):
    """What one night saw of a run: its verdict, and how many of how many replays disagreed with the original; of none,
    where it came to none. `state` is the digest of what ran; `outputs` are the bad ones, where that is known."""

    night: str
    verdict: NightVerdict
    replays: int = 1
    disagreed: int = 0
    state: str = ""
    outputs: tuple[BadOutput, ...] | None = None


class Past(msgspec.Struct, frozen=True):
    """All that counts of the nights so far. `turns` and what follows are of the state that ran last; `alike` counts the
    replays since the last turn."""

    verdict: NightVerdict | None = None
    since: str = ""
    not_run_since: str = ""
    flaky_since: str = ""
    state: str = ""
    bad: bool = False
    turns: int = 0
    mixed: bool = False
    disagreed: int = 0
    of: int = 0
    alike: int = 0
    outputs: tuple[BadOutput, ...] | None = None

    @property
    def unsteady(self) -> bool:
        return self.mixed or self.turns >= _TURNS


class Move(msgspec.Struct, frozen=True):
    """`worse` are outputs of a run that was bad already; `other` are as bad as before, but for other bytes."""

    moved: Moved
    since: str
    before: NightVerdict | None = None
    flaky: Rate | None = None
    worse: tuple[str, ...] = ()
    other: tuple[str, ...] = ()


def step(past: Past, seen: Seen) -> tuple[Past, Move]:
    """One night more."""
    if seen.verdict == "not-run":
        since = past.not_run_since or seen.night
        return msgspec.structs.replace(past, not_run_since=since), Move("not-run", since, past.verdict)
    counted = _settled(_counted(past, seen)) if seen.replays else past
    worse = _worse(past.outputs or (), seen.outputs or ()) if _are_both_known(past, seen) else ()
    since = past.since if past.verdict == seen.verdict and not worse else seen.night
    flaky = counted.unsteady and seen.replays > 0
    flaky_since = (past.flaky_since or seen.night) if flaky else ""
    now = msgspec.structs.replace(
        counted,
        verdict=seen.verdict,
        since=since,
        not_run_since="",
        flaky_since=flaky_since,
        outputs=seen.outputs,
    )
    if flaky:
        return now, Move("flaky", flaky_since, past.verdict, wilson(now.disagreed, now.of))
    moved = "regressed" if worse else _moved(past.verdict, seen.verdict)
    other = _other(past.outputs or (), seen.outputs or ()) if moved == "failing" else ()
    return now, Move(moved, since, past.verdict, worse=worse, other=other)


def _moved(before: NightVerdict | None, now: NightVerdict) -> Moved:
    if now in GOOD:
        return "new" if before is None else "steady" if before in GOOD else "fixed"
    was_as_bad = before in _SEVERITY and _SEVERITY.index(before) >= _SEVERITY.index(now)
    return "failing" if was_as_bad else "regressed"


def _are_both_known(past: Past, seen: Seen) -> bool:
    """Nights of earlier versions do not say which outputs were bad."""
    return past.outputs is not None and seen.outputs is not None


def _worse(before: tuple[BadOutput, ...], now: tuple[BadOutput, ...]) -> tuple[str, ...]:
    """Those that were good, or not as bad. Where as many were bad as are kept, what is not among them is unknown."""
    then = {one.path: _badness(one) for one in before}
    unlisted = len(Verdict) if len(before) == MOST_OUTPUTS else -1
    return tuple(one.path for one in now if _badness(one) > then.get(one.path, unlisted))


def _badness(one: BadOutput) -> int:
    """One that is missing is as bad as a failed one."""
    order = list(Verdict)
    return max(order.index(one.verdict), 0 if one.sha256 else order.index(Verdict.FAILED))


def _other(before: tuple[BadOutput, ...], now: tuple[BadOutput, ...]) -> tuple[str, ...]:
    """What was written both times, differently."""
    then = {one.path: one.sha256 for one in before if one.sha256}
    return tuple(one.path for one in now if one.sha256 and then.get(one.path, one.sha256) != one.sha256)


def _counted(past: Past, seen: Seen) -> Past:
    """The replays of a night, beside those of the same state before."""
    same = past if past.state == seen.state else Past(state=seen.state)
    bad = seen.verdict not in GOOD
    mixed = seen.verdict == "nondeterministic" or 0 < seen.disagreed < seen.replays
    turned = bad != same.bad
    return msgspec.structs.replace(
        past,
        state=seen.state,
        bad=bad,
        turns=same.turns + turned,
        mixed=same.mixed or mixed,
        disagreed=same.disagreed + seen.disagreed,
        of=same.of + seen.replays,
        alike=0 if mixed else seen.replays + (0 if turned else same.alike),
    )


def _settled(past: Past) -> Past:
    """One that came out alike for so long that it cannot be called flaky any more starts anew."""
    before = past.of - past.alike
    if not past.unsteady or before == 0:
        return past
    disagreed = past.disagreed - (past.alike if past.bad else 0)
    share = disagreed / before if past.bad else 1 - disagreed / before
    if share**past.alike >= _CHANCE:
        return past
    left = past.alike if past.bad else 0
    return msgspec.structs.replace(past, turns=int(past.bad), mixed=False, disagreed=left, of=past.alike)


def wilson(disagreed: int, of: int) -> Rate:
    """The share of `disagreed`, with the 95 % interval of Wilson."""
    share, spread = disagreed / of, _Z * _Z / of
    middle = (share + spread / 2) / (1 + spread)
    half = _Z * math.sqrt(share * (1 - share) / of + spread / of / 4) / (1 + spread)
    return Rate(disagreed, of, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)))
