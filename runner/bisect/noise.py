"""Outcomes that come by chance: how often, what a trial's runs say together, where a chain turns.

As long as no trial came out in two ways, one run decides, and the job is taken to be deterministic. After that each
run is evidence: with `false_bad` the chance that a good state comes out bad, and `false_good` the other way round.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

import msgspec

from runner.bisect.model import Items, Outcome, Seen, Tally

ALPHA = 0.01
"""The chance of a wrong answer that is borne, all told."""

SURE = 1 - ALPHA
_ODDS = math.log((1 - ALPHA / 20) / (ALPHA / 20))
"""A search believes some ten trials, which share it: those of the proof, and those that led there. Twice as strict, as
the rates are estimates themselves."""

_ENDS = 10
_OFTEN = 4
_MOST = 0.45


class Noise(msgspec.Struct, frozen=True):
    """Both zero: no trial came out in two ways."""

    false_bad: float = 0.0
    false_good: float = 0.0

    @property
    def absent(self) -> bool:
        return not self.false_bad

    def outcome(self, tally: Tally) -> Outcome | None:
        """What the runs of a trial say together; None when that is not sure yet. Sequential: Wald's test."""
        if tally.unresolved and not tally.good and not tally.bad:
            return Outcome.UNRESOLVED
        if self.absent:
            return Outcome.GOOD if tally.good else Outcome.BAD if tally.bad else None
        odds = self._odds(tally)
        return None if abs(odds) < _ODDS else Outcome.GOOD if odds > 0 else Outcome.BAD

    def certainty(self, tally: Tally) -> float:
        """The chance that what the runs say together is so."""
        return 1.0 if self.absent else 1 / (1 + math.exp(-abs(self._odds(tally))))

    def turning_point(self, prior: Sequence[float], tallies: Sequence[Tally]) -> list[float]:
        """For each change of a chain, the chance that it is the one with which the prefixes turn bad; `tallies` are
        those of the prefixes, from the empty one on."""
        logs = [math.log(weight) for weight in prior]
        if_good = [self._log_likelihood(tally, bad=False) for tally in tallies]
        if_bad = [self._log_likelihood(tally, bad=True) for tally in tallies]
        good_before = list(itertools.accumulate(if_good))
        bad_from = list(itertools.accumulate(reversed(if_bad)))[::-1]
        found = [logs[place] + good_before[place] + bad_from[place + 1] for place in range(len(prior))]
        top = max(found)
        masses = [math.exp(one - top) for one in found]
        total = sum(masses)
        return [mass / total for mass in masses]

    def short_of(self, seen: Seen, ends: Iterable[Items]) -> list[Items]:
        """Ends that must be run more often, to know how much is chance."""
        if self.absent:
            return []
        return [end for end in ends if seen.get(end, Tally()).runs < _ENDS]

    def _odds(self, tally: Tally) -> float:
        """The logarithm of how much more likely the runs are if it is good."""
        return self._log_likelihood(tally, bad=False) - self._log_likelihood(tally, bad=True)

    def _log_likelihood(self, tally: Tally, *, bad: bool) -> float:
        as_bad = 1 - self.false_good if bad else self.false_bad
        return tally.bad * math.log(as_bad) + tally.good * math.log(1 - as_bad)


def estimate(seen: Seen, everything: Items) -> Noise:
    """From the ends, whose truth is known, and from trials that were run often enough to take the majority for it. None
    at all while every trial agrees with itself."""
    good, bad = (seen.get(end, Tally()) for end in (frozenset[int](), everything))
    mixed = any(tally.good and tally.bad for tally in seen.values())
    if not (mixed or good.bad or bad.good):
        return Noise()
    false_bad, false_good = [(good.bad, good.good + good.bad)], [(bad.good, bad.good + bad.bad)]
    for trial, tally in seen.items():
        if trial and trial != everything and tally.good + tally.bad >= _OFTEN:
            kind, lies = (false_bad, tally.bad) if tally.good >= tally.bad else (false_good, tally.good)
            kind.append((lies, tally.good + tally.bad))
    all_lies, all_runs = map(sum, zip(*false_bad, *false_good, strict=True))
    return Noise(*(_rate(kind, all_lies, all_runs) for kind in (false_bad, false_good)))


def _rate(kind: Sequence[tuple[int, int]], all_lies: int, all_runs: int) -> float:
    """Of one kind, leaning on both; a little above what was seen, as too low a rate makes for false certainty."""
    lies, runs = map(sum, zip(*kind, strict=True))
    return min(_MOST, (lies + all_lies / 2 + 1.5) / (runs + all_runs / 2 + 4))


def quantiles(weights: Sequence[float], shares: Sequence[float], usable: Sequence[bool] | None = None) -> list[int]:
    """The lengths of the prefixes that come nearest to these shares of the whole weight: each another one, neither
    empty nor all."""
    sums = list(itertools.accumulate(weights, initial=0.0))
    total, free = sums[-1], [at for at in range(1, len(weights)) if usable is None or usable[at]]
    found: list[int] = []
    for share in shares:
        if free:
            best = min(free, key=lambda at: abs(sums[at] - share * total))
            free.remove(best)
            found.append(best)
    return sorted(found)
