"""The one line that is told of a program: the same however the engine passes on its two streams."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.tools.last_words import LastWords

PIECES = st.lists(
    st.tuples(st.sampled_from([1, 2]), st.sampled_from([b"a", b"\n", b" ", b"b\n", b"\xff"])), max_size=30
)


def line(*pieces: tuple[int, bytes]) -> str:
    words = LastWords()
    for stream, data in pieces:
        words.write(stream, data)
    return words.line()


@given(PIECES)
def test_the_order_of_the_streams_does_not_matter(pieces: list[tuple[int, bytes]]) -> None:
    assert (
        line(*pieces) == line(*sorted(pieces, key=lambda one: one[0])) == line(*sorted(pieces, key=lambda one: -one[0]))
    )


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([], ""),
        ([(1, b"3 rows\n\n  \n")], "3 rows"),
        ([(2, b"AssertionError: 3 rows\n"), (1, b"done\n")], "AssertionError: 3 rows"),
        ([(1, b"3 rows"), (2, b"\n \n")], "3 rows"),
        ([(1, b"one "), (2, b"other"), (1, b"line")], "other"),
        ([(1, b"x" * 9000 + b"\nend\n")], "end"),
    ],
)
def test_stderr_speaks_first(pieces: list[tuple[int, bytes]], expected: str) -> None:
    assert line(*pieces) == expected
