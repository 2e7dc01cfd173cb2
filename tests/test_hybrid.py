"""Hybrids, on values alone: what is carried from one state to another, and what only goes together."""

from __future__ import annotations

import itertools
import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.errors import UsageError
from runner.hybrid import Between, between, fits_any_python
from runner.layers.params import parse
from runner.state.digest import digest_bytes
from runner.state.spec import (
    Access,
    Dependencies,
    Image,
    ImageConfig,
    Limits,
    Params,
    RunInfo,
    Stage,
    State,
    StateSpec,
    ToolInfo,
    Wheel,
    state_digest,
)

SHA = digest_bytes(b"x")


def wheel(name: str, version: str, tag: str = "py3-none-any") -> Wheel:
    return Wheel(name, version, f"{name}-{version}-{tag}.whl", digest_bytes(f"{name} {version} {tag}".encode()))


def spec(**state: object) -> StateSpec:
    base = State(
        command=("run",), code=SHA, image=Image("linux/amd64", (SHA,)), access=Access(network="none", determinism="off")
    )
    made = msgspec.structs.replace(base, **state)
    run = RunInfo(id="t-20260101-abc", job="t", created="2026-01-01T00:00:00Z", tool=ToolInfo("0"))
    return StateSpec(run=run, state=made, digest=state_digest(made))


GOOD = spec(
    env={"A": "1", "GONE": "1"},
    params=Params({"net": {"depth": 1, "width": 1}, "rate": 1}),
    dependencies=Dependencies(python="3.11.2", locked=(wheel("one", "1"), wheel("out", "1"), wheel("two", "1"))),
    data={"d.csv": digest_bytes(b"1")},
    secrets=("KEY",),
)
BAD = spec(
    command=("run", "--new"),
    code=digest_bytes(b"y"),
    env={"A": "2", "NEW": "2"},
    params=Params({"net": {"depth": 2, "width": 1}, "rate": 2, "extra": []}),
    dependencies=Dependencies(python="3.11.2", locked=(wheel("in", "1"), wheel("one", "2"), wheel("two", "2"))),
    data={"d.csv": digest_bytes(b"2"), "e.csv": SHA},
    model={"m": SHA},
    secrets=(),
    access=Access(network="open", limits=Limits(memory=1 << 30), determinism="portable"),
)


def items(found: Between, *keys: str) -> set[int]:
    return {at for at, change in enumerate(found.changes) if f"{change.layer} {change.name}" in keys}


def test_every_change_is_carried_alone() -> None:
    """What one change takes from the bad state is exactly that one; all of them, in any order, make the bad state."""
    found = between(GOOD, BAD)
    assert not [together for together in found.together if len(together) > 1]
    for item, change in enumerate(found.changes):
        made = found.hybrid({item}).state
        (only,) = between(GOOD, msgspec.structs.replace(GOOD, state=made)).changes
        assert only == change


@given(st.sets(st.integers(0, len(between(GOOD, BAD).changes) - 1)))
def test_a_hybrid_has_the_taken_changes_and_no_others(taken: set[int]) -> None:
    found = between(GOOD, BAD)
    made = found.hybrid(taken)
    done = between(GOOD, msgspec.structs.replace(GOOD, state=made.state)).changes
    assert list(done) == [found.changes[item] for item in sorted(taken)]
    left = between(msgspec.structs.replace(GOOD, state=made.state), BAD).changes
    assert len(left) == len(found.changes) - len(taken)


def test_the_ends_are_the_states_themselves() -> None:
    found = between(GOOD, BAD)
    assert found.hybrid(()).state == GOOD.state
    assert state_digest(found.hybrid(range(len(found.changes))).state) == BAD.digest


def test_the_image_goes_with_its_python_and_what_is_bound_to_it() -> None:
    bound = "cp311-cp311-linux_x86_64", "cp313-cp313-linux_x86_64"
    good = spec(dependencies=Dependencies(python="3.11.2", locked=(wheel("free", "1"), wheel("tied", "1", bound[0]))))
    bad = spec(
        image=Image("linux/amd64", (SHA, SHA), ImageConfig(env={"X": "1"}, user="u")),
        dependencies=Dependencies(python="3.13.5", locked=(wheel("free", "2"), wheel("tied", "1", bound[1]))),
    )
    found = between(good, bad)
    image = items(found, "image image", "image config.env.X", "image config.user", "dependencies python")
    tied = items(found, "dependencies tied", "dependencies python")
    assert {frozenset(image), frozenset(tied)} <= set(found.together)
    taken = image | tied
    made = found.hybrid(taken).state
    assert made.image == bad.state.image and made.dependencies.python == "3.13.5"
    assert [one.version for one in made.dependencies.locked or ()] == ["1", "1"]


def test_what_is_run_is_one_thing() -> None:
    """A command on one side and stages on the other, or several stages that changed."""
    stages = tuple(Stage(name=name, command=("run", name)) for name in ("a", "b"))
    for good, bad in ((spec(), spec(command=(), stages=stages)), (spec(command=(), stages=stages[:1]), spec())):
        found = between(good, bad)
        assert frozenset(range(len(found.changes))) in found.together
        made = found.hybrid(range(len(found.changes))).state
        assert (made.command, made.stages) == (bad.state.command, bad.state.stages)


@pytest.mark.parametrize(
    "name, fits",
    [
        ("a-1-py3-none-any.whl", True),
        ("a-1-2-py2.py3-none-manylinux_2_17_x86_64.whl", True),
        ("a-1-cp38-abi3-manylinux_2_17_x86_64.whl", True),
        ("a-1-cp311-cp311-manylinux_2_17_x86_64.whl", False),
        ("a-1-cp311-none-any.whl", False),
    ],
)
def test_what_fits_any_python(name: str, fits: bool) -> None:
    assert fits_any_python(name) is fits


def test_params_that_cannot_be_parted_are_one() -> None:
    pairs: list[tuple[Params | None, Params | None]] = [
        (None, Params({"a": 1, "b": 2})),
        (Params({"a": 1, "b": 1}, "p.toml", SHA), Params({"a": 2, "b": 2}, "p.toml", digest_bytes(b"y"))),
        (Params({"a": 1}, "p.json", SHA), Params({"a": 2}, "q.json", SHA)),
        (Params({"a": 1}), Params({"a": {"x": 1, "y": 2}})),
    ]
    for good, bad in pairs:
        found = between(spec(params=good), spec(params=bad))
        joined = set(itertools.chain.from_iterable(found.together))
        assert joined == set(range(len(found.changes))), (good, bad)
        assert any(len(one) == len(found.changes) for one in found.together)


@pytest.mark.parametrize("file", [None, "p.yaml", "p.toml"])
@pytest.mark.parametrize(
    "old, new", [({"a": 1, "b": 2}, {"a": 1.0, "b": 3}), ({"a": 1, "b": 0}, {"a": True, "b": 0.0})]
)
def test_a_value_that_changed_its_type_only_is_carried_alone(
    old: dict[str, object], new: dict[str, object], file: str | None
) -> None:
    """In Python the two are equal: what is taken beside it does not bring it along."""
    if file:
        sign = " = " if file == "p.toml" else ": "
        written = ["".join(f"{key}{sign}{json.dumps(side[key])}\n" for key in side) for side in (old, new)]
        found = texts(file, (written[0], written[1]))
    else:
        found = between(spec(params=Params(old)), spec(params=Params(new)))
    assert [change.name for change in found.changes] == ["a", "b"]
    for item, change in enumerate(found.changes):
        made = found.hybrid({item}).state
        assert between(found.good, msgspec.structs.replace(found.good, state=made)).changes == (change,)


TOML = (
    "# by hand\nsince = 2026-01-02  # a date\nrate = 1_000\n\n[net]\ndepth = 3\nlayers = {a = 1, b = 2}\n",
    "# by hand\nsince = 2026-02-03  # a date\nrate = 2_000\nnew = 0x10\n\n[net]\ndepth = 9\nlayers = {a = 8, b = 9}\n",
)
YAML = (
    "# by hand\nrate: 1e-5\non: yes\nnet:\n  depth: 3   # deep\n  width: 012\nold: [a, b]\n",
    "# by hand\nrate: 1e-3\non: yes\nnet:\n  depth: 9   # deep\n  width: 013\nmore: {x: 1}\n",
)


def texts(name: str, pair: tuple[str, str]) -> Between:
    contents = (pair[0].encode(), pair[1].encode())
    sides = [spec(params=Params(parse(one, name), name, digest_bytes(one))) for one in contents]
    return between(sides[0], sides[1], contents)


@pytest.mark.parametrize("name, pair, apart", [("p.toml", TOML, 6), ("p.yaml", YAML, 5)])
def test_a_params_file_in_between_keeps_the_text_around_what_was_taken(
    name: str, pair: tuple[str, str], apart: int
) -> None:
    """Each key is a change of its own, and every combination is the good text with exactly those values."""
    found = texts(name, pair)
    assert found.params
    blocks = {frozenset(one) for one in found.together if len(one) > 1}
    assert len(found.changes) - sum(len(one) - 1 for one in blocks) == apart
    for item in range(len(found.changes)):
        taken = next((one for one in blocks if item in one), {item})
        made = found.hybrid(taken)
        (content,) = made.files
        assert made.state.params and made.state.params.values == parse(content, name)
        left = between(found.good, msgspec.structs.replace(found.good, state=made.state)).changes
        assert list(left) == [found.changes[one] for one in sorted(taken)]
        assert content.startswith(b"# by hand\n")
    rate = found.hybrid(items(found, "params rate")).files[0].decode()
    lines = [line for line in rate.splitlines() if line not in pair[0].splitlines()]
    assert lines == [line for line in pair[1].splitlines() if line.startswith("rate")]


def test_keys_that_share_one_edit_go_together_and_what_was_moved_is_written_anew() -> None:
    found = texts("p.toml", ('a = "x y"\n', 'a = "z w"\nb = """\n1\n2"""\n'))
    assert found.params and not [one for one in found.together if len(one) > 1]
    moved = texts("p.yaml", ("a: 1\nb: 2\nc: 3\n", "c: 4\na: 5\nb: 2\n"))
    assert moved.params is None and not [one for one in moved.together if len(one) > 1]
    assert len(moved.hybrid(items(moved, "params a")).files) == 1


FLAT = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 9), min_size=1)


@settings(deadline=None)
@given(FLAT, FLAT, st.sampled_from(["p.yaml", "p.toml", "p.json"]), st.data())
def test_any_two_params_files_are_parted_or_not_but_never_mixed_up(
    old: dict[str, int], new: dict[str, int], name: str, data: st.DataObject
) -> None:
    sign = " = " if name == "p.toml" else ": "
    written = [
        json.dumps(side, indent=1) if name == "p.json" else "".join(f"{key}{sign}{side[key]}\n" for key in side)
        for side in (old, new)
    ]
    found = texts(name, (written[0], written[1]))
    if not found.changes:
        return
    blocks = [one for one in found.together if len(one) > 1]
    wanted = data.draw(st.sets(st.integers(0, len(found.changes) - 1)))
    taken = wanted.union(*(block for block in blocks if block & wanted))
    try:
        made = found.hybrid(taken).state.params
    except UsageError:
        return
    names = {found.changes[item].name for item in taken}
    sides = ((key, (new if key in names else old).get(key)) for key in {**old, **new})
    assert made and made.values == {key: value for key, value in sides if value is not None}


def test_a_params_file_in_between_is_written_anew() -> None:
    good = Params({"a": {"x": 1e-05, "y": "no"}, "b": 1}, "p.yaml", SHA)
    bad = Params({"a": {"x": 2, "y": "no"}, "b": 2}, "p.yaml", digest_bytes(b"y"))
    found = between(spec(params=good), spec(params=bad))
    made = found.hybrid(items(found, "params b"))
    (content,) = made.files
    assert made.state.params == Params({"a": {"x": 1e-05, "y": "no"}, "b": 2}, "p.yaml", digest_bytes(content))
    assert parse(content, "p.yaml") == made.state.params.values
