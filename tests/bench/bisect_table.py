"""python -m tests.bench.bisect_table [SEEDS [SEEDS]]: a bisect in simulated worlds, without an engine: what it costs,
beside ddmin, and how often what it proves is wrong."""

from __future__ import annotations

import math
import random
import statistics
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from runner.bisect import Outcome
from runner.bisect.model import Items
from runner.bisect.noise import ALPHA
from tests.bench.ddmin import ddmin
from tests.bisect.worlds import World, is_right, search, world


class Case(NamedTuple):
    what: str
    size: int
    kind: dict[str, Any] = {}
    workers: int = 1


MEET2, MEET3, TWO = {"causes": (2,)}, {"causes": (3,)}, {"causes": (1, 1)}
SIZES, WORKERS = (8, 45, 200), (1, 2, 4, 8)
CASES = [
    *(Case(f"{size} changes, one cause", size) for size in SIZES),
    *(Case(f"{size}, one, declared couplings", size, {"couplings": size}) for size in SIZES),
    *(Case(f"{size}, one, an undeclared coupling", size, {"pairs": 1}) for size in SIZES),
    *(Case(f"{size}, one, three undeclared couplings", size, {"pairs": 3}) for size in SIZES[1:]),
    *(Case(f"{size}, one, not monotone", size, {"cures": 1}) for size in SIZES),
    *(Case(f"{size}, two that must meet", size, MEET2) for size in SIZES),
    *(Case(f"{size}, three that must meet", size, MEET3) for size in SIZES),
    *(Case(f"{size}, two independent", size, TWO) for size in SIZES),
    *(Case(f"{size}, one, flakes {flake:.0%}", size, {"flake": flake}) for size in SIZES for flake in (0.05, 0.2)),
    *(Case(f"200, one cause, k = {k}", 200, {}, k) for k in WORKERS),
    *(Case(f"200, two that must meet, k = {k}", 200, MEET2, k) for k in WORKERS),
    *(Case(f"200, one, flakes 5%, k = {k}", 200, {"flake": 0.05}, k) for k in WORKERS),
    *(Case(f"200, one, expected before, k = {k}", 200, {"known": True}, k) for k in WORKERS),
    Case("200, one, another expected before", 200, {"misled": True}),
]
FLAKES = (0.0, 0.05, 0.2)
CLAIMS: dict[str, dict[str, Any]] = {
    "one cause": {},
    "one, declared couplings": {"couplings": 45},
    "one, an undeclared coupling": {"pairs": 1},
    "one, not monotone": {"cures": 1},
    "two that must meet": MEET2,
    "two independent": TWO,
}


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


def print_claim(seeds: int = 1000, size: int = 45) -> None:
    """How often what was called proven was wrong."""
    print(f"\n{seeds} worlds of {size} changes a figure: proven, and wrong (at most {ALPHA:.0%} are borne)")
    print(f"{'':<40}" + "".join(f"flakes {flake:.0%}".rjust(16) for flake in FLAKES))
    for what, kind in CLAIMS.items():
        print(f"{what:<40}", end="")
        for flake in FLAKES:
            proven, wrong = claimed(size, kind | {"flake": flake}, seeds)
            print(f"{wrong} of {proven}".rjust(16), end="", flush=True)
        print()


def claimed(size: int, kind: dict[str, Any], seeds: int) -> tuple[int, int]:
    """How many answers were called proven, and how many of them are wrong."""
    proven = wrong = 0
    for seed in range(seeds):
        rng = random.Random(seed)
        made = world(size, rng, **kind)
        found = search(made.problem, made.judge(rng)).found
        if found and found.proven:
            proven += 1
            wrong += not is_right(made, found)
    return proven, wrong


if __name__ == "__main__":
    print_table(*map(int, sys.argv[1:2]))
    print_claim(*map(int, sys.argv[2:3]))
