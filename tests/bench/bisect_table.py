"""python -m tests.bench.bisect_table [SEEDS]: what a bisect costs in simulated worlds, beside ddmin; no engine."""

from __future__ import annotations

import math
import random
import statistics
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from runner.bisect import Outcome
from runner.bisect.model import Items
from tests.bench.ddmin import ddmin
from tests.bisect.worlds import World, is_right, search, world


class Case(NamedTuple):
    what: str
    size: int
    kind: dict[str, Any] = {}
    workers: int = 1


MEET2, MEET3, TWO = {"causes": (2,)}, {"causes": (3,)}, {"causes": (1, 1)}
CASES = [
    *(Case(f"{size} changes, one cause", size) for size in (8, 45, 200)),
    *(Case(f"{size}, one, declared couplings", size, {"couplings": size}) for size in (8, 45, 200)),
    *(Case(f"{size}, two that must meet", size, MEET2) for size in (8, 45, 200)),
    *(Case(f"{size}, three that must meet", size, MEET3) for size in (8, 45, 200)),
    *(Case(f"{size}, two independent", size, TWO) for size in (8, 45, 200)),
    Case("45, one, not monotone", 45, {"cures": 1}),
    Case("45, one, an undeclared coupling", 45, {"pairs": 1}),
    Case("45, one, three undeclared couplings", 45, {"pairs": 3}),
    Case("200, one, flakes 5 %", 200, {"flake": 0.05}),
    Case("200, one, flakes 20 %", 200, {"flake": 0.2}),
    *(Case(f"200, one cause, {k} workers", 200, {}, k) for k in (2, 4, 8)),
    *(Case(f"200, two that must meet, {k} workers", 200, MEET2, k) for k in (2, 4, 8)),
]


class Figures(NamedTuple):
    """Of one way to search: trials, rounds, unresolved trials, how often it was right."""

    trials: Sequence[int]
    rounds: Sequence[int]
    unresolved: Sequence[int]
    right: float
    wrong_though_proven: int = 0

    def cells(self) -> str:
        ordered = sorted(self.trials)
        tail = ordered[min(len(ordered) - 1, math.ceil(0.95 * len(ordered)) - 1)]
        trials = f"{statistics.mean(ordered):.1f}/{tail}"
        rounds, unresolved = statistics.mean(self.rounds), statistics.mean(self.unresolved)
        return f"{trials:>13}{rounds:>8.1f}{unresolved:>8.1f}{self.right:>7.2f}"


def measured(case: Case, seeds: int) -> tuple[Figures, Figures]:
    ours, theirs = [], []
    for seed in range(seeds):
        rng = random.Random(seed)
        made = world(case.size, rng, **case.kind)
        done = search(made.problem, made.judge(rng), case.workers)
        right = is_right(made, done.found)
        ours.append((done.trials, done.rounds, done.unresolved, right, bool(done.found and done.found.proven)))
        other = ddmin(case.size, _without_metadata(made, random.Random(seed)), case.workers)
        theirs.append((other.trials, other.rounds, other.unresolved, other.cause in made.causes))
    return _figures(ours), _figures(theirs)


def _without_metadata(made: World, rng: random.Random) -> Any:
    """What is judged of a set that cannot be installed: nothing."""
    judge = made.judge(rng)

    def judged(trial: Items) -> Outcome:
        return judge(trial) if made.problem.is_closed(trial) else Outcome.UNRESOLVED

    return judged


def _figures(rows: Sequence[tuple[Any, ...]]) -> Figures:
    trials, rounds, unresolved, right, *proven = zip(*rows, strict=True)
    wrong = (
        sum(is_proven and not is_right for is_proven, is_right in zip(proven[0], right, strict=True)) if proven else 0
    )
    return Figures(trials, rounds, unresolved, sum(right) / len(rows), wrong)


def print_table(seeds: int = 20) -> None:
    head = f"{'rounds':>8}{'unres.':>8}{'right':>7}"
    print(f"\n{seeds} simulated worlds a row; trials (mean/95th percentile) include proofs; ddmin finds one cause")
    print(f"{'':<40}{'bisect':>13}{head}{'ddmin':>13}{head}")
    for case in CASES:
        ours, theirs = measured(case, seeds)
        print(f"{case.what:<40}{ours.cells()}{theirs.cells()}", flush=True)


if __name__ == "__main__":
    print_table(*map(int, sys.argv[1:2]))
