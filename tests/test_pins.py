"""What is lost, what is down to its last copy: a decision on values alone; and what is remembered of runs."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from runner.pins import Found, Wanted, judge
from runner.store.remembered import answers

PLACES = st.lists(st.sampled_from(["store", "engine", "remote", "registry", "index"]), unique=True).map(tuple)


def a_pin(digest: str = "sha256:1", **more: object) -> Wanted:
    return Wanted("image", "an image", digest, **more)  # type: ignore[arg-type]


@given(PLACES, PLACES, st.booleans())
def test_only_what_every_place_was_asked_for_is_lost_or_down_to_its_last_copy(
    places: tuple[str, ...], unasked: tuple[str, ...], erased: bool
) -> None:
    pin = a_pin()
    told = judge(1, {pin: ["a"]}, {pin: Found(places, unasked, erased)}, ())
    (found,) = told.pins
    if erased:
        assert (found.state, told.erased, told.lost, told.last_copy) == ("erased", 1, 0, 0)
    elif len(places) > 1:
        assert found.state == "safe"
    elif unasked:
        assert found.state == "unknown"
    else:
        assert found.state == ("last-copy" if places else "lost")


def test_a_pin_with_several_names_is_one_and_the_worst_come_first() -> None:
    here, there, lost = a_pin(), a_pin(names=("r/x@sha256:2",)), a_pin("sha256:9")
    users = {here: ["a"], there: ["b", "a"], lost: ["c"]}
    found = {here: Found(("store",)), there: Found(("store", "registry")), lost: Found()}
    told = judge(3, users, found, ())
    assert [(pin.digest, pin.state, pin.places, pin.runs) for pin in told.pins] == [
        ("sha256:9", "lost", (), ("c",)),
        ("sha256:1", "safe", ("registry", "store"), ("a", "b")),
    ]
    assert (told.lost, told.last_copy, told.unknown, told.runs) == (1, 0, 0, 3)


def test_an_answer_is_remembered_until_a_file_changes(tmp_path: Path) -> None:
    index, asked = tmp_path / "index.sqlite", []

    def find(run_id: str) -> bytes:
        asked.append(run_id)
        return b"same" if run_id != "c" else b"other"

    stamps = {"a": "1", "b": "1", "c": "1"}
    named, said = answers(index, "q 1", stamps, find)
    assert sorted(asked) == ["a", "b", "c"] and named["a"] == named["b"] and len(said) == 2
    again = answers(index, "q 1", stamps, find)
    assert again == (named, said) and len(asked) == 3
    assert answers(index, "q 1", stamps | {"b": "2"}, find)[0] == named and asked[3:] == ["b"]
    assert answers(index, "q 2", {"a": "1"}, find)[0] == {"a": named["a"]} and asked[4:] == ["a"]
    index.write_bytes(b"no database")
    assert answers(index, "q 1", stamps, find) == (named, said)
