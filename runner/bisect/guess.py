"""A bet on one cause: closed sets whose outcomes number the changes in binary, so that k workers tell 2^k apart."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from runner.bisect.model import Items, Outcome, Problem


def sets_of(problem: Problem, candidates: Sequence[int], workers: int, number: int) -> list[Items]:
    """At most `workers` closed sets that tell the candidates apart as well as may be.

    Each candidate gets a number whose bits say in which sets it is. A set is closed if what a change needs has every
    bit that the change has; so those that others need choose first, and the more need them, the more bits they take.
    """
    bits = min(workers, math.ceil(math.log2(len(candidates))))
    taken: Counter[int] = Counter()
    numbers: dict[int, int] = {}
    wanted = frozenset(candidates)
    place = {item: index for index, item in enumerate(problem.order(wanted, 1 + number))}
    above = {item: problem.dependents((item,)) & wanted for item in candidates}
    for item in sorted(candidates, key=lambda item: (-len(above[item]), place[item])):
        allowed = (1 << bits) - 1
        for need in problem.closed((item,)) & numbers.keys():
            allowed &= numbers[need]
        wished = min(bits, max(bits // 2, math.ceil(math.log2(len(above[item]) + 1))))
        numbers[item] = min(
            (code for code in range(1 << bits) if code & allowed == code),
            key=lambda code: (taken[code], abs(code.bit_count() - wished)),
        )
        taken[numbers[item]] += 1
    sets = [problem.closed(item for item, code in numbers.items() if code >> bit & 1) for bit in range(bits)]
    return [one for one in dict.fromkeys(sets) if one and one != problem.everything]


def fitting(candidates: Sequence[int], outcomes: Mapping[Items, Outcome | None]) -> list[int]:
    """Those of which each alone would explain what came out."""
    return [
        item
        for item in candidates
        if all(
            (item in trial) == (outcome is Outcome.BAD)
            for trial, outcome in outcomes.items()
            if outcome is not Outcome.UNRESOLVED
        )
    ]
