"""What packages declare becomes an order in which their changes can be made."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.bisect.implications import PackageChange, PythonChange, Release, blocks, needs
from runner.bisect.model import Problem

SAME = PythonChange("3.11.2", "3.11.2")


def change(item: int, name: str, old: Release | None, new: Release | None) -> PackageChange:
    return PackageChange(item, name, old, new)


def test_a_new_version_that_rejects_the_old_of_another_needs_its_change() -> None:
    p = change(0, "p", Release("1"), Release("2", ("Q>=2",)))
    q = change(1, "q", Release("1"), Release("2"))
    assert set(needs([p, q], SAME)) == {(0, 1)}


def test_an_old_version_that_rejects_the_new_of_another_must_go_first() -> None:
    p = change(0, "p", Release("1", ("q<2",)), Release("2"))
    q = change(1, "q", Release("1"), Release("2"))
    assert set(needs([p, q], SAME)) == {(1, 0)}


def test_both_make_a_circle_and_so_one_block() -> None:
    p = change(0, "p", Release("1", ("q<2",)), Release("2", ("q>=2",)))
    q = change(1, "q", Release("1"), Release("2"))
    found = blocks(3, needs([p, q], SAME))
    assert found.members == (frozenset({0, 1}), frozenset({2}))
    assert found.needs == (frozenset(), frozenset())


def test_added_and_removed_packages_take_the_same_form() -> None:
    user = change(0, "user", Release("1", ("gone",)), Release("2", ("new-one",)))
    gone = change(1, "gone", Release("1"), None)
    added = change(2, "new-one", None, Release("1"))
    assert set(needs([user, gone, added], SAME)) == {(1, 0), (0, 2)}


def test_markers_extras_and_what_cannot_be_read_declare_nothing() -> None:
    clauses = ("q>=2; sys_platform == 'win32'", "q>=2; extra == 'x'", "q >= < 2", "q>=2; python_version < '3'")
    p = change(0, "p", Release("1"), Release("2", clauses))
    q = change(1, "q", Release("1"), Release("2"))
    assert set(needs([p, q], SAME)) == set()


def test_python_ties_packages_to_the_image() -> None:
    python = PythonChange("3.11.2", "3.13.5", item=2)
    p = change(0, "p", Release("1", (), "<3.12"), Release("2", ("q>=2; python_version >= '3.13'",), ">=3.9"))
    q = change(1, "q", Release("1"), Release("2", (), ">=3.12"))
    assert set(needs([p, q], python)) == {(2, 0), (0, 1), (1, 2)}


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=25))
def test_blocks_have_no_circle_and_keep_every_need(found: list[tuple[int, int]]) -> None:
    made = blocks(12, found)
    assert sorted(item for members in made.members for item in members) == list(range(12))
    problem = Problem(made.needs)
    block_of = {item: number for number, members in enumerate(made.members) for item in members}
    for one, other in found:
        assert block_of[other] in problem.closed([block_of[one]])
