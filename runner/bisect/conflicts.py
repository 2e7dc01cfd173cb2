"""Conflicts that nothing declares: which trials will not run, learnt from those that did not.

Two changes may have to move together without saying so. A trial that ran shows that no two changes that it keeps apart
are such a pair; one that did not keeps at least one such pair apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from runner.bisect.model import Items

_MOST = 0.95


class Suspects:
    """Pairs that no resolved trial keeps apart; each unresolved trial accuses, in equal shares, those that it does."""

    def __init__(self, everything: Items, resolved: Sequence[Items], unresolved: Sequence[Items]) -> None:
        together: defaultdict[tuple[bool, ...], int] = defaultdict(int)
        for item in everything:
            together[tuple(item in trial for trial in resolved)] |= 1 << item
        self._classes = [items for items in together.values() if items & (items - 1)]
        accusers = ((trial, self._apart(trial, trial)) for trial in map(_bits, unresolved))
        self._accusers = [(trial, pairs) for trial, pairs in accusers if pairs]

    def risk(self, trial: Items) -> float:
        """The chance that a trial keeps such a pair apart, as far as it can be told."""
        bits = _bits(trial)
        return min(_MOST, sum(self._apart(bits, accuser) / pairs for accuser, pairs in self._accusers))

    def _apart(self, one: int, other: int) -> int:
        """Suspects that both keep apart."""
        found = 0
        for items in self._classes:
            first, second, both = items & one, items & other, (items & one & other).bit_count()
            only_first, only_second = first.bit_count() - both, second.bit_count() - both
            found += both * (items.bit_count() - both - only_first - only_second) + only_first * only_second
        return found


def _bits(items: Items) -> int:
    return sum(1 << item for item in items)
