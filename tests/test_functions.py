"""Functions of a Python file that changed: by name, and by meaning, not by spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.functions import MODULE_LEVEL, function_changes

BEFORE = b'''
"""What this is."""
import math

LIMIT = 3

def normalise(x):
    """Scale."""
    return x / LIMIT

class Model:
    depth = 2

    def fit(self, x):
        def inner(y):
            return y + 1
        return inner(x)

    async def predict(self, x):
        return x
'''


def changed(before: bytes, after: bytes) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    found = function_changes(before, after)
    assert found is not None
    return found.changed, found.added, found.removed


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        (b"x / LIMIT", b"x * LIMIT", "normalise"),
        (b"y + 1", b"y + 2", "Model.fit"),
        (b"async def predict(self, x)", b"async def predict(self, x, z=1)", "Model.predict"),
        (b"depth = 2", b"depth = 3", "Model"),
        (b"class Model:", b"class Model(Base):", "Model"),
        (b"LIMIT = 3", b"LIMIT = 4", MODULE_LEVEL),
        (b"    def fit", b"    @cached\n    def fit", "Model.fit"),
    ],
)
def test_a_change_is_named_by_what_it_is_in(old: bytes, new: bytes, name: str) -> None:
    assert changed(BEFORE, BEFORE.replace(old, new)) == ((name,), (), ())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"x / LIMIT", b"(x)  /  LIMIT  # scaled"),
        (b'"""Scale."""', b'"""Scale by the limit."""'),
        (b'"""What this is."""', b'"""What that is."""'),
        (b"    async def", b"\n\n\n    async def"),
    ],
)
def test_comments_layout_and_docstrings_change_nothing(old: bytes, new: bytes) -> None:
    assert old in BEFORE
    assert changed(BEFORE, BEFORE.replace(old, new)) == ((), (), ())


def test_added_and_removed_functions_are_told_apart() -> None:
    after = BEFORE.replace(b"def normalise", b"def standardise")
    assert changed(BEFORE, after) == ((), ("standardise",), ("normalise",))
    assert str(function_changes(BEFORE, after)) == "standardise added; normalise removed"


def test_a_function_that_is_defined_twice_counts_whole() -> None:
    twice = b"def f(): return 1\ndef f(): return 2\n"
    assert changed(twice, twice.replace(b"return 1", b"return 3")) == (("f",), (), ())


def test_many_names_are_cut_short() -> None:
    many = "".join(f"def f{n}(): pass\n" for n in range(9)).encode()
    assert str(function_changes(b"", many)) == "f0, f1, f2, f3, f4 and 4 more added"


@pytest.mark.parametrize("source", [b"def f(:", b"\0", b"\xff\xfe", b"(" * 10_000, b"x = 1\n" * 300_000])
def test_what_cannot_be_read_is_unknown(source: bytes) -> None:
    assert function_changes(BEFORE, source) is None
    assert function_changes(source, BEFORE) is None


@given(st.text(max_size=200))
def test_no_text_breaks_it_and_nothing_differs_from_itself(text: str) -> None:
    source = text.encode(errors="surrogatepass")
    found = function_changes(source, source)
    assert found is None or (found.changed, found.added, found.removed) == ((), (), ())
