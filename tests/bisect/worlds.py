"""Worlds to search in: what is bad in them, what cannot be tried, how often a trial lies; a search to its end."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from runner.bisect import Ask, Found, Outcome, Problem, Tally, ask
from runner.bisect.model import Items

Judge = Callable[[Items], Outcome]
_HEAVY = 12.0


class World(NamedTuple):
    """`causes` are sets that must meet, each alone enough; `cures` undo a cause while a set has some of them but not
    all; `pairs` crash where only one of the two is there; `flake` is the chance that a trial comes out wrong."""

    problem: Problem
    causes: tuple[Items, ...]
    cures: tuple[Items, ...] = ()
    pairs: tuple[Items, ...] = ()
    flake: float = 0.0

    def truth(self, trial: Items) -> Outcome:
        assert self.problem.is_closed(trial), "a set that cannot be installed was tried"
        if any(len(pair & trial) == 1 for pair in self.pairs):
            return Outcome.UNRESOLVED
        cured = any(0 < len(cure & trial) < len(cure) for cure in self.cures)
        bad = not cured and any(cause <= trial for cause in self.causes)
        return Outcome.BAD if bad else Outcome.GOOD

    def judge(self, rng: random.Random) -> Judge:
        def judged(trial: Items) -> Outcome:
            outcome = self.truth(trial)
            if outcome is Outcome.UNRESOLVED or rng.random() >= self.flake:
                return outcome
            return Outcome.GOOD if outcome is Outcome.BAD else Outcome.BAD

        return judged


def world(
    size: int,
    rng: random.Random,
    *,
    causes: Sequence[int] = (1,),
    couplings: int = 0,
    pairs: int = 0,
    cures: int = 0,
    flake: float = 0.0,
    known: bool = False,
    misled: bool = False,
) -> World:
    """Random, with so many changes in each cause, declared couplings and undeclared pairs. Where the cause is `known`
    before, it and a tenth of the others weigh much; `misled` puts that weight on others only."""
    rank = rng.sample(range(size), size)
    needs: list[set[int]] = [set() for _ in range(size)]
    for _ in range(couplings):
        one, other = sorted(rng.sample(range(size), 2), key=rank.__getitem__)
        needs[other].add(one)
    items = rng.sample(range(size), sum(causes))
    chosen = []
    for count in causes:
        chosen.append(frozenset(items[:count]))
        items = items[count:]
    free = [item for item in range(size) if not any(item in cause for cause in chosen)]
    coupled = [frozenset(rng.sample(range(size), 2)) for _ in range(pairs)]
    problem = Problem(tuple(map(frozenset, needs)), seed=rng.randrange(1 << 30), steady=not flake)
    if known or misled:
        heavy = {*rng.sample(free, size // 10), *(chosen[0] if known else ())}
        weights = tuple(_HEAVY if item in heavy else 1.0 for item in range(size))
        problem = msgspec.structs.replace(problem, weights=weights)
    return World(
        problem,
        tuple(chosen),
        tuple(frozenset(rng.sample(free, 2)) for _ in range(cures)),
        tuple(coupled),
        flake,
    )


class Done(NamedTuple):
    """`found` is None where the search was given up."""

    found: Found | None
    trials: int
    rounds: int
    unresolved: int
    baselines: int


def search(problem: Problem, judge: Judge, workers: int = 1, *, looks: int = 3, most: int = 2000) -> Done:
    """Both ends `looks` times, then what the search asks, round by round."""
    ends = (frozenset[int](), problem.everything)
    seen: dict[Items, Tally] = {}
    trials = rounds = unresolved = baselines = 0

    def run(trial: Items) -> Outcome:
        outcome = judge(trial)
        seen[trial] = seen.get(trial, Tally()).add(outcome)
        return outcome

    for end in ends:
        for _ in range(looks):
            run(end)
    while trials <= most:
        wanted = ask(problem, seen, workers)
        if isinstance(wanted, Found):
            return Done(wanted, trials, rounds, unresolved, baselines)
        assert isinstance(wanted, Ask) and 0 < len(wanted.trials) <= workers
        for trial in wanted.trials:
            unresolved += run(trial) is Outcome.UNRESOLVED
            trials += trial not in ends
            baselines += trial in ends
        rounds += wanted.trials[0] not in ends
    return Done(None, trials, rounds, unresolved, baselines)


def is_right(world: World, found: Found | None) -> bool:
    """Whether exactly the true causes were named. What crashes when it is taken from a cause may stand with it."""
    if found is None or len(found.causes) != len(world.causes):
        return False
    named = [frozenset().union(*cause.parts) for cause in found.causes]
    return all(any(cause <= one <= _with_partners(world, cause) for one in named) for cause in world.causes)


def _with_partners(world: World, items: Items) -> Items:
    while more := [pair for pair in world.pairs if len(pair & items) == 1]:
        items = items.union(*more)
    return items
