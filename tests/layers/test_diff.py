"""`replay diff` as a function of two states: whatever differs is named, what is equal is not. Pure."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.diff import LAYERS, Change, contract_changes, flatten, state_changes
from runner.state.digest import digest_bytes
from runner.state.spec import (
    Access,
    Check,
    Contract,
    Dependencies,
    Image,
    ImageConfig,
    Limits,
    Observed,
    OutputRule,
    Params,
    RowsRule,
    State,
    TableRule,
    Wheel,
    state_digest,
)

A, B, C = (str(digest_bytes(text)) for text in (b"a", b"b", b"c"))

digests = st.sampled_from([A, B, C])
names = st.sampled_from(["a", "b", "a.b", "ü", "-x"])
keys = names | st.just("")
texts = st.sampled_from(["", "a", "b", "a b", " "])
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.5, 1.0, -0.0]) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=2),
    max_leaves=5,
)
mappings = st.dictionaries(keys, plain, max_size=3)
params = st.builds(Params, values=mappings) | st.builds(
    Params, values=mappings, file=st.sampled_from(["p.yaml", "q.json"]), sha256=digests
)
wheels = st.lists(
    st.builds(
        Wheel,
        name=st.sampled_from(["alpha", "beta"]),
        version=st.sampled_from(["1", "2"]),
        wheel=st.sampled_from(["x.whl", "y.whl"]),
        sha256=digests,
    ),
    max_size=2,
    unique_by=lambda one: one.name,
).map(lambda found: tuple(sorted(found, key=lambda one: one.name)))
states = st.builds(
    State,
    command=st.lists(texts, min_size=1, max_size=3).map(tuple),
    code=st.just(A),
    params=st.none() | params,
    image=st.builds(
        Image,
        platform=st.sampled_from(["linux/amd64", "linux/arm64"]),
        diff_ids=st.lists(digests, max_size=2).map(tuple),
        config=st.builds(
            ImageConfig,
            env=st.dictionaries(names, texts, max_size=2),
            user=st.none() | texts,
            workdir=st.none() | texts,
            entrypoint=st.none() | st.lists(texts, max_size=2).map(tuple),
        ),
    ),
    dependencies=st.builds(
        Dependencies,
        python=st.none() | st.sampled_from(["3.11.2", "3.13.1"]),
        interpreter=st.none() | st.just("python3.11"),
        locked=st.none() | wheels,
        system_packages=st.booleans(),
        project=st.booleans(),
    ),
    env=st.dictionaries(names, texts, max_size=2),
    secrets=st.sets(names, max_size=2).map(lambda found: tuple(sorted(found))),
    data=st.dictionaries(names, digests, max_size=2),
    model=st.dictionaries(names, digests, max_size=2),
    access=st.builds(
        Access,
        network=st.sampled_from(["none", "open"]),
        limits=st.builds(Limits, memory=st.none() | st.integers(1, 2), cpus=st.none() | st.sampled_from([0.5, 1.0])),
        determinism=st.sampled_from(["off", "same-host"]),
    ),
)
BASE = State(
    command=("true",),
    code=A,
    image=Image(platform="linux/amd64", diff_ids=(A,)),
    access=Access(network="none", determinism="off"),
)


def changes(a: State, b: State) -> list[Change]:
    return list(state_changes(a, b, {}, {}, Observed(), Observed()))


@st.composite
def _neighbours(draw: Any) -> tuple[State, State]:
    """Two states that differ in at most one field, where a lost difference cannot hide behind another."""
    state, other = draw(states), draw(states)
    field = draw(st.sampled_from(State.__struct_fields__))
    return state, msgspec.structs.replace(state, **{field: getattr(other, field)})


@settings(max_examples=150, deadline=None)
@given(_neighbours())
def test_whatever_the_digest_tells_apart_is_named_and_nothing_else(pair: tuple[State, State]) -> None:
    found = changes(*pair)
    assert bool(found) == (state_digest(pair[0]) != state_digest(pair[1]))
    assert all(change.layer in LAYERS and change.name and change.a != change.b for change in found), found


@settings(max_examples=50, deadline=None)
@given(states, states)
def test_a_diff_is_ordered_by_layer_and_the_mirror_of_its_reverse(a: State, b: State) -> None:
    there, back = changes(a, b), changes(b, a)
    order = [LAYERS.index(change.layer) for change in there]
    assert order == sorted(order)
    assert [(c.layer, c.name, c.b, c.a) for c in there] == [(c.layer, c.name, c.a, c.b) for c in back]
    assert len({(c.layer, c.name) for c in there}) == len(there)


def test_code_files_are_named_with_kind_and_content() -> None:
    other = msgspec.structs.replace(BASE, code=B)
    before, after = {"a": A, "b": A, "gone": A}, {"a": B, "b": f"{A} executable", "new": C}
    found = list(state_changes(BASE, other, before, after, Observed(), Observed()))
    assert [(c.name, c.a is None, c.b is None) for c in found] == [
        ("a", False, False),
        ("b", False, False),
        ("gone", False, True),
        ("new", True, False),
    ]
    assert found[1].b and found[1].b.endswith(" executable")
    assert [c.name for c in state_changes(BASE, other, None, after, Observed(), Observed())] == ["files"]


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (("2.0", "x-2.whl", B), ("1.0", "2.0")),
        (("1.0", "y.whl", B), ("x.whl", "y.whl")),
        (("1.0", "x.whl", B), (f"1.0 {A[:19]}", f"1.0 {B[:19]}")),
    ],
)
def test_packages_by_version_before_hashes(after: tuple[str, str, str], expected: tuple[str, str]) -> None:
    def with_wheel(*words: str) -> State:
        return msgspec.structs.replace(BASE, dependencies=Dependencies(locked=(Wheel("alpha", *words),)))

    (found,) = changes(with_wheel("1.0", "x.whl", A), with_wheel(*after))
    assert (found.layer, found.name, found.a, found.b) == ("dependencies", "alpha", *expected)


def test_params_are_flattened_to_dotted_keys() -> None:
    assert flatten({"a": {"b": {"c": 1}}, "d": [1, {"e": 2}], "f": {}}) == {"a.b.c": "1", "d": '[1,{"e":2}]', "f": "{}"}
    assert flatten({"a.b": 1, "a": {"b": 2, "": 3}}) == {'"a.b"': "1", "a.b": "2", 'a.""': "3"}


rules = st.builds(
    OutputRule,
    compare=st.sampled_from(["json", "text"]),
    rtol=st.sampled_from([0.0, 0.1]),
    ignore=st.lists(names, max_size=1).map(tuple),
)
checks = st.builds(
    Check,
    name=names,
    on=st.sampled_from(["a.csv", "b.csv"]),
    when=st.sampled_from(["before", "after"]),
    table=st.builds(TableRule, rows=st.builds(RowsRule, max=st.none() | st.integers(0, 1))),
)
contracts = st.builds(
    Contract,
    outputs=st.dictionaries(names, rules, max_size=2),
    metrics=st.dictionaries(names, st.dictionaries(names, st.just("higher"), min_size=1, max_size=2), max_size=2),
    preprocessing=st.lists(names, max_size=2).map(tuple),
    checks=st.lists(checks, max_size=2, unique_by=lambda check: check.name).map(
        lambda found: tuple(sorted(found, key=lambda check: check.name))
    ),
)


@given(contracts, contracts)
def test_whatever_is_declared_otherwise_is_named_and_nothing_else(a: Contract, b: Contract) -> None:
    found = list(contract_changes(a, b))
    assert bool(found) == (a != b) and not list(contract_changes(a, a))
    assert all(change.layer == "contract" and change.a != change.b for change in found), found
    assert len({change.name for change in found}) == len(found)


def test_a_setting_that_was_moved_is_named_and_what_is_new_is_called_so() -> None:
    few = Check(name="few", on="in.csv", when="before", table=TableRule(rows=RowsRule(min=5)))
    before = Contract(outputs={"m.json": OutputRule(compare="json")})
    after = Contract(outputs={"m.json": OutputRule(compare="json", rtol=0.1)}, checks=(few,))
    assert [(change.name, change.a, change.b) for change in contract_changes(before, after)] == [
        ("outputs.m.json.rtol", "0.0", "0.1"),
        ("checks.few", None, "declared"),
    ]
