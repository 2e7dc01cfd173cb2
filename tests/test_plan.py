"""The planner: what to do for each layer, decided from what is at hand alone."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.layers.image import ImageSource
from runner.rebuild import AtHand, DataPlace, Plan, Step, plan
from runner.state.digest import Digest
from runner.state.spec import Access, Dependencies, Image, Observed, State, Wheel

CODE = Digest("sha256:" + "c" * 64)
WHEEL = Wheel(name="alpha", version="1.0", wheel="alpha-1.0-py3-none-any.whl", sha256="sha256:" + "a" * 64)
STATE = State(
    command=("true",),
    code=CODE,
    image=Image("linux/amd64", ()),
    access=Access(network="none", determinism="off"),
)
ENGINE = ImageSource("engine", "sha256:1")
PLACES = {
    "engine": ENGINE,
    "registry": ImageSource("registry", "r.example/x@sha256:1"),
    "archive": ImageSource("archive", "a.json"),
    "recipe": ImageSource("recipe", "images/x"),
}


def made(locked: tuple[Wheel, ...] | None = None, **at_hand: Any) -> Plan:
    state = msgspec.structs.replace(STATE, dependencies=Dependencies(python="3.11.2", locked=locked))
    return plan(state, Observed(), AtHand(**({"image": (ENGINE,), "code_files": 3} | at_hand)))


def step(found: Plan, layer: str) -> Step:
    (one,) = (one for one in found.steps if one.layer == layer)
    return one


def test_all_at_hand() -> None:
    found = made((WHEEL,), data={"d": DataPlace.VIEW}, model={"m": DataPlace.STORE})
    assert found.possible
    assert [one.layer for one in found.steps] == ["image", "dependencies", "code", "data", "model"]
    assert step(found, "code").action == "copy 3 files into a workspace of its own"
    assert step(found, "dependencies").action == "link 1 wheel into an environment (Python 3.11.2)"
    assert step(found, "data").action == "d: mount the view"
    assert step(found, "model").action == "m: make a view from the store and mount it"


@pytest.mark.parametrize(
    ("kind", "words"),
    [("engine", "own copy"), ("registry", "pull r.example"), ("archive", "load"), ("recipe", "build")],
)
def test_the_first_place_of_an_image_counts_and_the_others_are_named(kind: str, words: str) -> None:
    others = [place for name, place in PLACES.items() if name != kind]
    alone, first = (made(image=places) for places in ((PLACES[kind],), (PLACES[kind], *others)))
    assert words in step(alone, "image").action and "else" not in step(alone, "image").action
    assert words in step(first, "image").action
    assert all(f"the {place.kind}" in step(first, "image").action for place in others)


def test_no_packages_were_locked() -> None:
    assert step(made(None, wheels_missing=()), "dependencies").action == "use what the image holds"


@pytest.mark.parametrize(
    ("lost", "layer", "named"),
    [
        ({"image": ()}, "image", "registry"),
        ({"wheels_missing": (WHEEL,)}, "dependencies", WHEEL.wheel),
        ({"code_missing": 2}, "code", "2 blobs"),
        ({"data": {"d": DataPlace.GONE}}, "data", "d: the store does not hold it"),
        ({"data": {"d": DataPlace.ERASED}}, "data", "d: it was erased on purpose"),
        ({"model": {"m": DataPlace.GONE}}, "model", "m: the store does not hold it"),
    ],
)
def test_what_is_gone_makes_it_impossible_and_is_named(lost: dict[str, Any], layer: str, named: str) -> None:
    found = made((WHEEL,), **lost)
    assert not found.possible
    assert [one.layer for one in found.steps if not one.possible] == [layer]
    assert named in step(found, layer).action


def test_what_only_dvc_may_have_is_not_given_up() -> None:
    found = made(data={"d": DataPlace.DVC})
    assert found.possible and "through DVC" in step(found, "data").action


@given(
    st.lists(st.sampled_from(list(PLACES.values())), unique=True),
    st.lists(st.just(WHEEL), max_size=1),
    st.dictionaries(st.sampled_from("abcd"), st.sampled_from(DataPlace)),
    st.integers(0, 3),
)
def test_a_plan_is_possible_just_when_nothing_is_gone(
    image: list[ImageSource], wheels: list[Wheel], data: dict[str, DataPlace], code: int
) -> None:
    found = made((WHEEL,), image=tuple(image), wheels_missing=tuple(wheels), data=data, code_missing=code)
    gone = not image or wheels or code or {DataPlace.GONE, DataPlace.ERASED} & set(data.values())
    assert found.possible is not bool(gone)
    assert [one.action[0] for one in found.steps if one.layer == "data"] == sorted(data)
