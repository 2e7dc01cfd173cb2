"""Comparators of an installed distribution, which is made here: its files in a folder on `sys.path`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.compare import check_rule
from runner.compare.registry import comparator_of
from runner.errors import OutsideError, UsageError
from runner.state.record import Verdict
from runner.state.spec import OutputRule

MODULE = """
from runner.compare import Comparator, Comparison
from runner.state.record import Verdict

def compare(original, replayed, rule):
    same = original.read_text().lower() == replayed.read_text().lower()
    return Comparison(Verdict.EQUIVALENT if same else Verdict.DIVERGED, "ignored: case\\n")

def broken(original, replayed, rule):
    raise ZeroDivisionError("oh\\n")

CASELESS = Comparator(compare, frozenset({"ignore"}))
BROKEN = Comparator(broken)
NONE = compare
"""
POINTS = """[replay.comparators]
caseless = dummy_comparators:CASELESS
broken = dummy_comparators:BROKEN
none = dummy_comparators:NONE
lost = dummy_comparators:LOST
json = dummy_comparators:BROKEN
"""


def install(folder: Path, name: str, points: str) -> None:
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "site"
    install(folder, "dummy-comparators", POINTS)
    (folder / "dummy_comparators.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("dummy_comparators", None)


def test_it_is_found_by_name_and_compares(compare_files) -> None:
    check_rule("a", OutputRule("caseless", ignore=("x",)))
    found = compare_files("Ab", "aB", OutputRule("caseless"))
    assert (found.verdict, found.detail) == (Verdict.EQUIVALENT, "ignored: case\\n")
    assert compare_files("a", "b", OutputRule("caseless")).verdict is Verdict.DIVERGED


@pytest.fixture
def compare_files(tmp_path: Path):
    def run(before: str, after: str, rule: OutputRule):
        (tmp_path / "before").write_text(before)
        (tmp_path / "after").write_text(after)
        return comparator_of("a", rule).compare(tmp_path / "before", tmp_path / "after", rule)

    return run


def test_what_is_built_in_is_not_replaced(compare_files) -> None:
    assert compare_files("[1]", "[ 1]", OutputRule("json")).verdict is Verdict.EQUIVALENT


def test_its_options_are_its_own() -> None:
    with pytest.raises(UsageError, match="the comparator `caseless` takes no `rtol`"):
        check_rule("a", OutputRule("caseless", rtol=1.0))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("none", "dummy_comparators:NONE is no runner.compare.Comparator"),
        ("lost", "AttributeError: module 'dummy_comparators' has no attribute 'LOST'"),
    ],
)
def test_one_that_cannot_be_used_is_named_before_anything_runs(name: str, why: str) -> None:
    with pytest.raises(UsageError) as error:
        check_rule("a", OutputRule(name))
    assert error.value.what == f"output 'a': the comparator '{name}' of dummy-comparators cannot be used"
    assert error.value.why == why


def test_what_it_raises_is_an_error_that_names_it(compare_files) -> None:
    with pytest.raises(OutsideError) as error:
        compare_files("a", "b", OutputRule("broken"))
    assert error.value.what == "the comparator 'broken' of dummy-comparators failed"
    assert error.value.why == "ZeroDivisionError: oh\\n"


def test_two_of_one_name_are_refused(installed: Path) -> None:
    install(installed, "other", "[replay.comparators]\ncaseless = other:X\n")
    with pytest.raises(UsageError) as error:
        check_rule("a", OutputRule("caseless"))
    assert error.value.why == "installed by dummy-comparators and other"
