"""The search itself: what was seen → what to try next, or what was found.

It keeps no state of its own: it is thought through anew from all that was seen, until something is not known yet, and
that is what is asked. So a search can be interrupted at any moment, resumed from its log, and run on any number of
workers, and answers that come in another order change nothing.

    guess   on several workers, betting on one cause: closed sets whose outcomes number the changes in binary
    chain   a good set below a bad one: prefixes of a linear extension between them narrow it to one change
    meet    with that change alone, is it bad already? If not, another must meet it: a chain above it
    prove   good with the cause is bad; bad without each part of it is good. Still bad: an independent second cause
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import msgspec

from runner.bisect import conflicts, guess, noise
from runner.bisect.model import Ask, Cause, Found, Items, Outcome, Problem, Seen, Tally
from runner.bisect.noise import Noise

GOOD, BAD, UNRESOLVED = Outcome.GOOD, Outcome.BAD, Outcome.UNRESOLVED
MOST_CAUSES = 8
_PATIENCE = 24
_MOST_PARTNERS = 3
_MANY = 3
"""Parts from which on chance is likelier than yet another one."""

_TURNS = 6
_SHYEST = 3
_BETS = 2
"""Workers from which on it pays to bet on one cause."""


def ask(problem: Problem, seen: Seen, workers: int = 1) -> Ask | Found:
    """What to try next, for so many workers, or what was found. The ends of the problem were tried before: `seen` has
    the empty set as good, and that of all changes as bad.

    What was recorded leads to one cause whose every part is shown to be needed, or is left aside."""
    try:
        found = _Search(problem, seen, workers).find()
    except _Needed as needed:
        return needed.ask
    if not problem.recorded or (found.proven and len(found.causes) == 1):
        return found
    return ask(msgspec.structs.replace(problem, recorded={}), seen, workers)


class _Needed(Exception):
    """Something is not known yet."""

    def __init__(self, ask: Ask) -> None:
        super().__init__()
        self.ask = ask


class _Link(msgspec.Struct, frozen=True):
    """The end of a chain: with `part` it turns bad, and `below` is all that came before."""

    part: Items
    below: Items


class _Search:
    def __init__(self, problem: Problem, seen: Seen, workers: int) -> None:
        self.problem = problem
        self.seen = seen
        self.workers = workers
        self.noise: Noise = noise.estimate(seen, problem.everything)
        self.causes: list[Cause] = []
        self.left: Mapping[int, float] = {}
        self.chains = 0
        self.hinges: dict[Items, tuple[Items, Items]] = {}
        trusted = problem.steady and self.noise.absent
        self.visited: dict[Items, Outcome] = dict(problem.recorded) if trusted else {}

    # --- what is known, and asking for it

    def outcome(self, trial: Items) -> Outcome | None:
        found = self.noise.outcome(self.seen.get(trial, Tally()))
        if found is not None:
            self.visited[trial] = found
        return found

    def need(self, trials: Iterable[Items], doing: str, *, shifting: bool = False) -> _Needed:
        wanted = tuple(dict.fromkeys(trials))[: self.workers]
        return _Needed(Ask(wanted, self.left, tuple(self.causes), doing, shifting))

    def test(self, trial: Items, beside: Iterable[Items] = (), doing: str = "prove") -> Outcome:
        """How the trial comes out. Those `beside` it are asked along where workers are free, as they will be needed."""
        found = self.outcome(trial)
        if found is None:
            raise self.need([trial, *(one for one in beside if self.outcome(one) is None)], doing)
        return found

    # --- all of it

    def find(self) -> Found:
        everything, nothing = self.problem.everything, frozenset[int]()
        if short := self.noise.short_of(self.seen, (nothing, everything)):
            raise self.need(short, "measure how often it fails by chance", shifting=True)
        self.add(self.cause(everything))
        while len(self.causes) < MOST_CAUSES:
            still_bad = self.prove()
            if still_bad is None:
                break
            self.add(self.cause(still_bad))
        if not self.problem.steady:
            self.repeat(self.proofs())
        proven = bool(self.causes) and all(cause.proven for cause in self.causes)
        return Found(tuple(self.causes), proven, self.probability())

    def add(self, new: Cause) -> None:
        """A cause that is part of what another comes down to shows that the other was not the smallest."""
        self.causes = [*(one for one in self.causes if not new.sufficient < one.sufficient), new]

    # --- one cause

    def cause(self, high: Items) -> Cause:
        """The smallest set that the search can find below `high`, which is bad."""
        bet = self.bet(high) if not self.causes and self.workers >= _BETS and self.noise.absent else None
        if bet is not None:
            part = frozenset({bet})
            if self.test(self.problem.closed(part), [self.without(high, part)], "prove a guess") is BAD:
                return self.described([part], frozenset())
        low, high = self.tightened(high, frozenset())
        parts: list[Items] = []
        companions: Items = frozenset()
        low_side: tuple[Outcome, ...] = (GOOD,)
        while low < high:
            link = self.chain(low, high, low_side, (BAD,))
            self.hinges[link.part] = (link.below, link.below | link.part)
            if parts and low_side != (GOOD,) and self.outcome(link.below) is UNRESOLVED:
                companions |= link.part
            else:
                parts.append(link.part)
            base = self.problem.closed(frozenset().union(companions, *parts))
            beside = [self.without(high, link.part)] if len(parts) == 1 and not self.causes else []
            outcome = self.test(base, beside, "is it enough?")
            if outcome is BAD:
                alone = self.one_enough(parts)
                return self.described([alone], frozenset()) if alone else self.described(parts, companions)
            if len(parts) == _MANY:
                self.repeat([link.below | link.part, *self.hinges[parts[0]]])
            low_side = (GOOD,) if outcome is GOOD else (GOOD, UNRESOLVED)
            low, high = self.tightened(link.below | link.part, base, outcome)
        return self.described(parts, companions)  # where outcomes lie: what the chain took for bad is not

    def one_enough(self, parts: Sequence[Items]) -> Items | None:
        """Where many seem to meet, one of them may be enough alone, and the others only undo together what each of them
        does to it: the chain turned on that. The first was tried alone already."""
        alone = {self.problem.closed(part): part for part in parts[1:]} if len(parts) >= _MANY else {}
        return next((part for trial, part in alone.items() if self.test(trial, alone, "is one enough?") is BAD), None)

    def described(self, parts: Sequence[Items], companions: Items) -> Cause:
        base = self.problem.closed(companions.union(*parts))
        return Cause(tuple(parts), base.difference(*parts), base)

    def tightened(self, high: Items, base: Items, outcome: Outcome = GOOD) -> tuple[Items, Items]:
        """The nearest good and bad sets seen, one in the other, between `base` and `high`."""
        between = {trial: found for trial, found in self.visited.items() if base <= trial <= high}
        low = base
        if outcome is GOOD:
            low = max((one for one, found in between.items() if found is GOOD), key=_size, default=base)
        bad = [one for one, found in between.items() if found is BAD and low < one]
        return low, min(bad, key=_size, default=high)

    def without(self, trial: Items, part: Items) -> Items:
        return trial - self.problem.dependents(part)

    # --- guess

    def bet(self, high: Items) -> int | None:
        """The one change that could have done it alone, if the outcomes of a few sets fit any."""
        candidates = guess.fitting(self.problem.order(high, 0), self.visited)
        for number in range(2 * len(candidates)):
            if len(candidates) < 2:
                break
            sets = guess.sets_of(self.problem, candidates, self.workers, number)
            self.left = self.weights(candidates)
            if unknown := [one for one in sets if self.outcome(one) is None]:
                raise self.need(unknown, "guess")
            outcomes = {one: self.outcome(one) for one in sets}
            fitting = guess.fitting(candidates, outcomes)
            if len(fitting) == len(candidates):
                return None
            candidates = fitting
        return candidates[0] if candidates else None

    # --- chain

    def chain(self, low: Items, high: Items, low_side: Collection[Outcome], high_side: Collection[Outcome]) -> _Link:
        """From a set whose outcome is of `low_side` to one above it of `high_side`: an adjacent pair of them. What lies
        between may be of neither side; after some patience with that, all of it is one part."""
        self.chains += 1
        if not self.noise.absent and BAD in high_side:
            return self.noisy_chain(low, high)
        stuck = 0
        while len(high - low) > 1 and stuck < min(_PATIENCE, 4 + len(high - low)):
            self.left = self.weights(high - low)
            prefixes = self.cut(low, high, 100 * self.chains + stuck)
            lowest, highest = self.narrowed(low, high, prefixes, low_side, high_side)
            stuck = stuck + 1 if (lowest, highest) == (low, high) else 0
            low, high = lowest, highest
        return _Link(high - low, low)

    def narrowed(
        self,
        low: Items,
        high: Items,
        prefixes: Sequence[Items],
        low_side: Collection[Outcome],
        high_side: Collection[Outcome],
    ) -> tuple[Items, Items]:
        """The nearest neighbours among the prefixes, each in the next, of which one is low and one high. Those that lie
        outside of such a pair no longer matter."""
        outcomes = {prefix: self.outcome(prefix) for prefix in prefixes}
        for prefix in reversed(prefixes):
            if outcomes[prefix] in high_side:
                high = prefix
        for prefix in prefixes:
            if outcomes[prefix] in low_side and prefix < high:
                low = prefix
        if unknown := [prefix for prefix in prefixes if outcomes[prefix] is None and low < prefix < high]:
            raise self.need(unknown, "narrow")
        return low, high

    def cut(self, low: Items, high: Items, number: int) -> list[Items]:
        """Prefixes to try between two sets: at equal shares of the weight in a fresh linear extension. Where trials
        could not be told, that extension and those shares which promise the most in spite of it."""
        unresolved = [trial for trial, outcome in self.visited.items() if outcome is UNRESOLVED]
        if not unresolved:
            return self.prefixes(low, self.problem.order(high - low, number), 0)
        resolved = [trial for trial, outcome in self.visited.items() if outcome in (GOOD, BAD)]
        suspects = conflicts.Suspects(self.problem.everything, resolved, unresolved)
        best: list[Items] = []
        most = -1.0
        for turn in range(_TURNS):
            order = self.problem.order(high - low, 100 * number + turn)
            for shy in range(-_SHYEST, _SHYEST + 1):
                found = self.prefixes(low, order, shy)
                promise = sum(
                    self.gain(one, low) * (1 - suspects.risk(one)) for one in found if one not in self.visited
                )
                if promise > most:
                    best, most = found, promise
        return best

    def gain(self, prefix: Items, low: Items) -> float:
        """How much the outcome would tell, in bits."""
        share = sum(self.left[item] for item in prefix - low)
        return -sum(part * math.log2(part) for part in (share, 1 - share) if part > 0)

    def prefixes(self, low: Items, order: Sequence[int], shy: int) -> list[Items]:
        """One for each worker; `shy` ones lie nearer the low end, or the high one if it is negative."""
        count = min(self.workers, len(order) - 1)
        shares = [(number + 1) / (count + 1) / 2 ** abs(shy) for number in range(count)]
        weights = [self.problem.weight(item) for item in order]
        places = noise.quantiles(weights, [1 - share for share in shares] if shy < 0 else shares)
        return [low | frozenset(order[:place]) for place in places]

    def noisy_chain(self, low: Items, high: Items) -> _Link:
        """As the chain, where outcomes lie at times."""
        for turn in range(min(_PATIENCE, 4 + len(high - low))):
            link = self.turning_point(low, high, 1000 * self.chains + turn)
            low, high = link.below, link.below | link.part
            if len(link.part) == 1:
                break
        return _Link(high - low, low)

    def turning_point(self, low: Items, high: Items, number: int) -> _Link:
        """Prefixes of one order, until one place of the turn is sure. Those that could not be told are no such place:
        what lies between the others is one part."""
        order = self.problem.order(high - low, number)
        prefixes = [low | frozenset(order[:length]) for length in range(len(order) + 1)]
        tallies = [self.seen.get(prefix, Tally()) for prefix in prefixes]
        prior = [self.problem.weight(item) for item in order]
        posterior = self.noise.turning_point(prior, tallies)
        usable = [not tally.unresolved for tally in tallies]
        usable[0] = usable[-1] = True
        places = [place for place, is_usable in enumerate(usable) if is_usable]
        first, last = max(itertools.pairwise(places), key=lambda stretch: sum(posterior[slice(*stretch)]))
        if sum(posterior[first:last]) < noise.SURE and len(places) > 2:
            self.left = dict(zip(order, posterior, strict=True))
            count = min(self.workers, len(order) - 1)
            shares = [(number + 1) / (count + 1) for number in range(count)]
            picks = noise.quantiles(posterior, shares, usable)
            raise self.need((prefixes[pick] for pick in picks), "narrow", shifting=True)
        return _Link(frozenset(order[first:last]), prefixes[first])

    def weights(self, items: Iterable[int]) -> dict[int, float]:
        found = {item: self.problem.weight(item) for item in items}
        total = sum(found.values())
        return {item: weight / total for item, weight in found.items()}

    # --- proof

    def prove(self) -> Items | None:
        """Take each part of each cause from the bad state, with one part of every other cause. None when all that is
        good; else a set that is still bad, so that there is another cause in it."""
        self.left = {}
        for number, cause in enumerate(self.causes):
            others = [other.parts[0] for other in self.causes if other is not cause]
            context = self.without(self.problem.everything, frozenset().union(*others))
            trials = [self.without(context, part) for part in cause.parts]
            for place, trial in enumerate(trials):
                outcome = self.test(trial, trials)
                if outcome is BAD:
                    self.look_twice(trial, cause, cause.parts[place])
                    return trial
                if outcome is UNRESOLVED:
                    trials[place] = self.with_partners(trial, cause.companions)
            proven = self.outcome(cause.sufficient) is BAD and all(self.outcome(trial) is GOOD for trial in trials)
            self.causes[number] = msgspec.structs.replace(cause, without=tuple(trials), proven=proven)
        return None

    def look_twice(self, trial: Items, cause: Cause, part: Items) -> None:
        """Before a second cause is believed in, what says so is run once more: had one of these come out by chance,
        it would have led here."""
        self.repeat([trial, *(self.hinges.get(part, ()) if len(cause.parts) > 1 else (cause.sufficient,))])

    def repeat(self, doubtful: Iterable[Items]) -> None:
        """Run each once more, if it was run once: as long as they agree with themselves, they are believed."""
        ends = (frozenset[int](), self.problem.everything)
        once = [one for one in doubtful if one not in ends and self.seen.get(one, Tally()).runs < 2]
        if self.noise.absent and once:
            raise self.need(once, "look twice", shifting=True)

    def with_partners(self, trial: Items, companions: Items) -> Items:
        """Without a part it cannot be told: something else must go with it, of which nothing is declared. The trial
        without that as well, as far as it can be found."""
        smaller = self.without(trial, companions)
        for _ in range(_MOST_PARTNERS):
            good = [one for one, outcome in self.visited.items() if one < smaller and outcome is GOOD]
            if self.test(smaller) is not UNRESOLVED or not good:
                break
            link = self.chain(max(good, key=_size), smaller, (GOOD,), (UNRESOLVED,))
            smaller = self.without(smaller, link.part)
        return smaller

    def probability(self) -> float:
        """That no trial of the proofs was believed in wrongly."""
        found = 1.0
        for trial in self.proofs():
            found *= self.noise.certainty(self.seen.get(trial, Tally()))
        return found

    def proofs(self) -> Iterator[Items]:
        for cause in self.causes:
            yield cause.sufficient
            yield from cause.without


def _size(items: Items) -> int:
    return len(items)
