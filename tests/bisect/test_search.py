"""The search, in worlds whose causes are known: what it finds, what it costs, and what holds in any world."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.bisect import Ask, Found, Outcome, Problem, Tally, ask
from runner.bisect.model import Items
from runner.bisect.noise import ALPHA
from tests.bisect.worlds import World, is_right, search, world

GOOD, BAD, UNRESOLVED = Outcome.GOOD, Outcome.BAD, Outcome.UNRESOLVED


def alone(size: int, *causes: set[int], needs: dict[int, set[int]] | None = None) -> World:
    listed = tuple(frozenset((needs or {}).get(item, ())) for item in range(size))
    return World(Problem(listed), tuple(map(frozenset, causes)))


def found_in(one: World, workers: int = 1) -> Found:
    done = search(one.problem, one.judge(random.Random(0)), workers)
    assert done.found is not None
    return done.found


def parts(found: Found) -> list[list[list[int]]]:
    return sorted(sorted(sorted(part) for part in cause.parts) for cause in found.causes)


def test_one_change_is_proven_without_a_chain() -> None:
    found = found_in(alone(1, {0}))
    assert parts(found) == [[[0]]] and found.proven


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_one_cause_two_that_must_meet_and_two_independent_are_told_apart(workers: int) -> None:
    assert parts(found_in(alone(20, {7}), workers)) == [[[7]]]
    assert parts(found_in(alone(20, {7, 13}), workers)) == [[[7], [13]]]
    assert parts(found_in(alone(20, {7}, {13}), workers)) == [[[7]], [[13]]]
    assert parts(found_in(alone(20, {7, 3}, {13}), workers)) == [[[3], [7]], [[13]]]


def test_what_had_to_come_along_is_a_companion() -> None:
    (cause,) = found_in(alone(9, {4}, needs={4: {2}, 2: {8}, 5: {4}})).causes
    assert cause.parts == (frozenset({4}),)
    assert cause.companions == frozenset({2, 8}) and cause.sufficient == frozenset({2, 4, 8})
    assert cause.without == (frozenset(range(9)) - {4, 5},)


def test_an_undeclared_companion_is_found_out() -> None:
    one = alone(12, {4})._replace(pairs=(frozenset({4, 9}),))
    (cause,) = found_in(one).causes
    assert frozenset({4, 9}) in (cause.sufficient, *cause.parts)
    assert cause.proven


def test_changes_that_cannot_be_taken_apart_are_one_part() -> None:
    one = alone(3, {0, 1, 2})._replace(pairs=(frozenset({0, 1}), frozenset({1, 2})))
    (cause,) = found_in(one).causes
    assert cause.parts == (frozenset({0, 1, 2}),) and cause.proven


def test_a_trial_that_lied_once_is_found_out_before_a_second_cause_is_believed_in() -> None:
    one, lies = alone(10, {3}), [frozenset(range(10)) - {3}]

    def judge(trial: Items) -> Outcome:
        if trial in lies:
            lies.remove(trial)
            return BAD
        return one.truth(trial)

    done = search(one.problem, judge)
    assert done.found and parts(done.found) == [[[3]]] and done.found.probability > 0.98


def test_where_chance_may_play_no_proof_rests_on_one_run() -> None:
    """In a job that is not taken to be deterministic each trial of the proof is looked at again before it counts."""
    one = alone(20, {7, 13})
    shaky = msgspec.structs.replace(one.problem, steady=False)
    runs: Counter[Items] = Counter()

    def judge(trial: Items) -> Outcome:
        runs[trial] += 1
        return one.truth(trial)

    done = search(shaky, judge)
    assert done.found and parts(done.found) == [[[7], [13]]]
    (cause,) = done.found.causes
    assert all(runs[trial] >= 2 for trial in (cause.sufficient, *cause.without))
    assert done.trials == search(one.problem, one.truth).trials + 3


@settings(deadline=None, max_examples=100)
@given(st.integers(2, 40), st.integers(0, 1 << 30), st.sampled_from([1, 4]))
def test_what_is_expected_changes_the_cost_and_never_the_answer(size: int, seed: int, workers: int) -> None:
    rng = random.Random(seed)
    one = world(size, rng, causes=rng.choice([(1,), (2,)]), couplings=size // 3)
    weights = tuple(rng.choice([0.1, 1.0, 4.0, 12.0, 100.0]) for _ in range(size))
    weighed = one._replace(problem=msgspec.structs.replace(one.problem, weights=weights))
    (cause,) = found_in(weighed, workers).causes
    assert one.problem.closed(frozenset().union(*cause.parts)) == one.problem.closed(one.causes[0])


def test_what_is_expected_saves_trials() -> None:
    def mean(**kind: Any) -> float:
        taken = []
        for seed in range(40):
            one = world(200, random.Random(seed), **kind)
            done = search(one.problem, one.judge(random.Random(0)))
            assert is_right(one, done.found)
            taken.append(done.trials)
        return sum(taken) / len(taken)

    assert mean(known=True) < mean() - 1
    assert mean(misled=True) < mean() + 3


def test_what_no_longer_matters_is_not_asked_for_any_more() -> None:
    problem = Problem((frozenset(),) * 100)
    seen = {frozenset(): Tally(good=3), problem.everything: Tally(bad=3)}
    first = ask(problem, seen, 4)
    assert isinstance(first, Ask) and len(first.trials) == 4
    # A bet on one cause fails: all four are good, and so is what they leave.
    for trial in first.trials:
        seen[trial] = Tally(good=1)
    while isinstance(asked := ask(problem, seen, 4), Ask) and asked.doing != "narrow":
        seen |= dict.fromkeys(asked.trials, Tally(good=1))
    assert isinstance(asked, Ask)
    small, *_, large = sorted(asked.trials, key=len)
    after_bad = ask(problem, seen | {small: Tally(bad=1)}, 4)
    assert isinstance(after_bad, Ask) and large not in after_bad.trials


# --- in any world ---------------------------------------------------------------------------------------------


@st.composite
def worlds(draw: st.DrawFn) -> World:
    size = draw(st.integers(2, 30))
    sizes = draw(st.sampled_from([(1,), (2,), (1, 1)]))
    rng = random.Random(draw(st.integers(0, 1 << 30)))
    couplings = draw(st.integers(0, size)) if size > 2 else 0
    return world(size, rng, causes=sizes if sum(sizes) <= size else (1,), couplings=couplings)


@settings(deadline=None, max_examples=150)
@given(worlds(), st.sampled_from([1, 2, 3, 8]))
def test_a_monotone_deterministic_world_is_always_read_right(one: World, workers: int) -> None:
    """`World.truth` checks that only closed sets are tried."""
    done = search(one.problem, one.judge(random.Random(0)), workers)
    assert done.found is not None and done.found.proven and done.found.probability == 1.0
    named = {frozenset().union(*cause.parts) for cause in done.found.causes}
    # With couplings, a cause that needs another is never met without it.
    minimal = {one.problem.closed(cause) for cause in one.causes}
    assert {one.problem.closed(items) for items in named} <= minimal
    assert any(one.problem.closed(items) == min(minimal, key=len) for items in named) or len(named) == len(minimal)
    assert done.unresolved == 0


@settings(deadline=None, max_examples=100)
@given(st.integers(2, 12), st.integers(0, 1 << 30), st.sampled_from([1, 3]))
def test_every_claim_of_a_proof_is_true_in_any_world(size: int, seed: int, workers: int) -> None:
    """Outcomes without any pattern: what is said to be bad was bad, and without each part it was good."""
    outcomes: dict[Items, Outcome] = {frozenset(): GOOD, frozenset(range(size)): BAD}

    def judge(trial: Items) -> Outcome:
        kinds = (GOOD, GOOD, BAD, BAD, UNRESOLVED)
        return outcomes.setdefault(trial, random.Random(f"{seed} {sorted(trial)}").choice(kinds))

    problem = Problem((frozenset(),) * size, seed=seed)
    done = search(problem, judge, workers)
    assert done.found is not None
    for cause in done.found.causes:
        assert outcomes[cause.sufficient] is BAD
        assert frozenset().union(cause.companions, *cause.parts) == cause.sufficient
        if cause.proven:
            assert len(cause.without) == len(cause.parts)
            for part, trial in zip(cause.parts, cause.without, strict=True):
                assert outcomes[trial] is GOOD and not part & trial


@settings(deadline=None, max_examples=100)
@given(worlds(), st.integers(0, 1 << 30), st.sampled_from([1, 3]), st.booleans())
def test_what_was_recorded_between_narrows_and_proves_nothing(one: World, seed: int, workers: int, lies: bool) -> None:
    """Be it true or not: all that is claimed was tried, and what is proven is right."""
    rng = random.Random(seed)
    everything = one.problem.everything
    sets = [one.problem.closed(rng.sample(sorted(everything), rng.randrange(1, len(everything)))) for _ in range(6)]
    recorded = {trial: rng.choice([GOOD, BAD]) if lies else one.truth(trial) for trial in sets if trial != everything}
    runs: Counter[Items] = Counter()

    def judge(trial: Items) -> Outcome:
        runs[trial] += 1
        return one.truth(trial)

    done = search(msgspec.structs.replace(one.problem, recorded=recorded), judge, workers)
    assert done.found
    for cause in done.found.causes:
        assert not cause.proven or all(runs[trial] for trial in (cause.sufficient, *cause.without))
    named = {one.problem.closed(frozenset().union(*cause.parts)) for cause in done.found.causes}
    assert done.found.proven and named <= {one.problem.closed(cause) for cause in one.causes}


def test_what_was_recorded_between_saves_trials() -> None:
    one = alone(40, {17})
    recorded = {frozenset(range(17)): GOOD, frozenset(range(18)): BAD}
    for workers in (1, 4):
        done = search(msgspec.structs.replace(one.problem, recorded=recorded), one.truth, workers)
        assert done.found and parts(done.found) == [[[17]]] and done.trials == 2


@settings(deadline=None, max_examples=40)
@given(worlds(), st.integers(0, 1 << 30))
def test_a_search_that_is_cut_off_goes_on_from_what_was_seen(one: World, seed: int) -> None:
    """Nothing is kept but outcomes, and their order does not count."""
    whole = search(one.problem, one.judge(random.Random(0)))
    known = {frozenset(): Tally(good=3), one.problem.everything: Tally(bad=3)}
    for _ in range(whole.trials):
        asked = ask(one.problem, dict(random.Random(seed).sample(sorted(known.items(), key=str), len(known))))
        assert isinstance(asked, Ask)
        known |= {trial: known.get(trial, Tally()).add(one.truth(trial)) for trial in asked.trials}
    assert ask(one.problem, known) == whole.found


@pytest.mark.parametrize("size, trials", [(8, 5), (45, 8), (200, 10)])
def test_one_cause_costs_what_the_bound_and_the_proof_do(size: int, trials: int) -> None:
    taken = []
    for seed in range(30):
        one = world(size, random.Random(seed))
        done = search(one.problem, one.judge(random.Random(0)))
        assert is_right(one, done.found)
        taken.append(done.trials)
    assert max(taken) <= trials


@pytest.mark.parametrize("workers, rounds", [(1, 10), (2, 5), (4, 3), (8, 2)])
def test_workers_save_rounds(workers: int, rounds: int) -> None:
    for seed in range(10):
        one = world(200, random.Random(seed))
        done = search(one.problem, one.judge(random.Random(0)), workers)
        assert is_right(one, done.found) and done.rounds <= rounds


@pytest.mark.parametrize("kind", [{"pairs": 2}, {"cures": 1}, {"pairs": 1, "causes": (2,)}], ids=str)
def test_lies_among_trials_that_cannot_be_told_come_to_an_end(kind: dict[str, Any]) -> None:
    for seed in range(40):
        rng = random.Random(seed)
        one = world(14, rng, flake=0.1, **kind)
        done = search(one.problem, one.judge(rng))
        assert done.found is not None
        for cause in done.found.causes if done.found.proven else ():
            assert frozenset().union(cause.companions, *cause.parts) == cause.sufficient


@pytest.mark.slow
@pytest.mark.parametrize("flake", [0.0, 0.02, 0.05, 0.1, 0.2, 0.3])
@pytest.mark.parametrize("kind", [{}, {"causes": (2,)}, {"causes": (1, 1)}, {"couplings": 40}, {"cures": 1}], ids=str)
def test_proven_is_right_in_a_thousand_worlds(kind: dict[str, Any], flake: float) -> None:
    wrong = 0
    for seed in range(1000):
        rng = random.Random(seed)
        one = world(45, rng, flake=flake, **kind)
        done = search(one.problem, one.judge(rng))
        wrong += bool(done.found and done.found.proven and not is_right(one, done.found))
    assert wrong <= (ALPHA * 1000 if flake else 0)
