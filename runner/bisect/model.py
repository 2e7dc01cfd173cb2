"""The values of a search: what can be changed, what was seen, what is asked next, what was found.

A *trial* is the set of changes that it takes from the bad state; the rest is as in the good one. The empty set
is the good state, all of them the bad one. Only *closed* sets are ever tried: with a change come all that it needs.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import cached_property

import msgspec

Items = frozenset[int]


class Outcome(StrEnum):
    """`unresolved`: it could not be told, as with a crash that the bad run did not have. That is never bad."""

    GOOD = "good"
    BAD = "bad"
    UNRESOLVED = "unresolved"


class Tally(msgspec.Struct, frozen=True):
    """How often a trial came out so."""

    good: int = 0
    bad: int = 0
    unresolved: int = 0

    def add(self, outcome: Outcome) -> Tally:
        return msgspec.structs.replace(self, **{outcome.value: getattr(self, outcome.value) + 1})

    @property
    def runs(self) -> int:
        return self.good + self.bad + self.unresolved


Seen = Mapping[Items, Tally]


class Problem(msgspec.Struct, frozen=True, dict=True):
    """Changes 0 … n-1: `needs` names for each those that must come with it, in a graph without cycles; `weights` says
    how likely each is to be the cause, as far as is known before; `seed` makes a search repeat. `steady`: equal states
    are taken to come out alike, so that one run of a trial is proof enough until two disagree. `recorded` are closed
    sets of which somebody said how they come out: they narrow a search, and no proof rests on them."""

    needs: tuple[Items, ...]
    weights: tuple[float, ...] = ()
    seed: int = 0
    steady: bool = True
    recorded: Mapping[Items, Outcome] = {}

    @property
    def size(self) -> int:
        return len(self.needs)

    @property
    def everything(self) -> Items:
        return frozenset(range(self.size))

    @cached_property
    def _below(self) -> tuple[Items, ...]:
        """Each with all that it needs, directly or not."""
        found: dict[int, Items] = {}
        for item in topological(self.needs, range(self.size)):
            found[item] = frozenset({item}).union(*(found[need] for need in self.needs[item]))
        return tuple(found[item] for item in range(self.size))

    @cached_property
    def _above(self) -> tuple[Items, ...]:
        """Each with all that need it."""
        found: list[set[int]] = [set() for _ in self.needs]
        for item, below in enumerate(self._below):
            for need in below:
                found[need].add(item)
        return tuple(map(frozenset, found))

    def closed(self, items: Iterable[int]) -> Items:
        """With all that they need."""
        return frozenset().union(*(self._below[item] for item in items))

    def dependents(self, items: Iterable[int]) -> Items:
        """With all that need them: what must go if they go."""
        return frozenset().union(*(self._above[item] for item in items))

    def is_closed(self, items: Items) -> bool:
        return all(self.needs[item] <= items for item in items)

    def weight(self, item: int) -> float:
        return self.weights[item] if self.weights else 1.0

    def order(self, items: Items, number: int) -> list[int]:
        """A linear extension of them, shuffled anew for each `number`: on a closed set, every prefix is closed."""
        shuffled = sorted(items)
        random.Random(f"{self.seed} {number}").shuffle(shuffled)
        return topological(self.needs, shuffled)


def topological(needs: tuple[Items, ...], items: Iterable[int]) -> list[int]:
    """The items, each after those of them that it needs, else in their order. Raises `ValueError` for a circle."""
    place = {item: number for number, item in enumerate(items)}
    waiting = {item: sum(need in place for need in needs[item]) for item in place}
    dependents: dict[int, list[int]] = {item: [] for item in place}
    for item in place:
        for need in needs[item]:
            if need in place:
                dependents[need].append(item)
    ready = [(place[item], item) for item, count in waiting.items() if not count]
    heapq.heapify(ready)
    found = []
    while ready:
        _, item = heapq.heappop(ready)
        found.append(item)
        for dependent in dependents[item]:
            waiting[dependent] -= 1
            if not waiting[dependent]:
                heapq.heappush(ready, (place[dependent], dependent))
    if len(found) != len(place):
        raise ValueError("the changes need each other in a circle")
    return found


class Ask(msgspec.Struct, frozen=True):
    """Trials to be run once each, at the same time if there is a worker for each. What was asked before and is not any
    more no longer matters, unless the trials are `shifting`: then each run is of use, whatever is asked next.

    `left` are the changes still suspected, by how likely they are; `causes` those found so far.
    """

    trials: tuple[Items, ...]
    left: Mapping[int, float]
    causes: tuple[Cause, ...] = ()
    doing: str = ""
    shifting: bool = False


class Cause(msgspec.Struct, frozen=True):
    """Changes that must meet to make it bad.

    `parts` are sets of changes, a set of several being one that cannot be taken apart. `companions` had to come along.
    The proof: the trial of these alone, `sufficient`, is bad; all changes but a part and what needs it, `without` for
    each part, is good. Where there are independent causes, one part of each of them is left out too.
    """

    parts: tuple[Items, ...]
    companions: Items
    sufficient: Items
    without: tuple[Items, ...] = ()
    proven: bool = False


class Found(msgspec.Struct, frozen=True):
    """The causes, each independent of the others. `proven` says that all trials of the proof came out as they must;
    `probability` that the answer is right, 1 where no trial ever came out in two ways."""

    causes: tuple[Cause, ...]
    proven: bool
    probability: float = 1.0
