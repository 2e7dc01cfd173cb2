"""Delta debugging (Zeller's ddmin) as it is published, to have something to compare the search with.

It knows nothing of what packages declare: sets that cannot be installed are tried, and are unresolved. Asked round by
round, so that workers can be counted: the subsets of one granularity are tried side by side, then the complements.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

from runner.bisect import Outcome
from runner.bisect.model import Items

Judge = Callable[[Items], Outcome]


class Minimised(NamedTuple):
    cause: Items
    trials: int
    rounds: int
    unresolved: int


class _Counted:
    def __init__(self, judge: Judge, workers: int) -> None:
        self._judge = judge
        self._workers = workers
        self._known: dict[Items, Outcome] = {}
        self.rounds = 0

    def first_bad(self, sets: list[Items]) -> Items | None:
        """Tried in batches of as many as there are workers, until one is bad."""
        for start in range(0, len(sets), self._workers):
            batch = sets[start : start + self._workers]
            self.rounds += any(one not in self._known for one in batch)
            for one in batch:
                if one not in self._known:
                    self._known[one] = self._judge(one)
            if bad := next((one for one in batch if self._known[one] is Outcome.BAD), None):
                return bad
        return None

    @property
    def trials(self) -> int:
        return len(self._known)

    @property
    def unresolved(self) -> int:
        return sum(outcome is Outcome.UNRESOLVED for outcome in self._known.values())


def ddmin(size: int, judge: Judge, workers: int = 1) -> Minimised:
    """A 1-minimal bad set below all changes, which are bad. Its proof adds a trial for the removal of each part."""
    counted = _Counted(judge, workers)
    current, parts = list(range(size)), 2
    while len(current) > 1:
        cuts = [len(current) * number // parts for number in range(parts + 1)]
        subsets = [frozenset(current[a:b]) for a, b in itertools.pairwise(cuts)]
        whole = frozenset(current)
        if smaller := counted.first_bad(subsets):
            current, parts = sorted(smaller), 2
        elif parts > 2 and (smaller := counted.first_bad([whole - subset for subset in subsets])):
            current, parts = sorted(smaller), max(parts - 1, 2)
        elif parts < len(current):
            parts = min(len(current), 2 * parts)
        else:
            break
    everything, cause = frozenset(range(size)), frozenset(current)
    counted.first_bad([cause])
    for item in current:
        counted.first_bad([everything - {item}])
    return Minimised(cause, counted.trials, counted.rounds, counted.unresolved)
