from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from runner.shown import shown

_ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=[]), max_size=60)


@settings(deadline=None)
@given(_ANY_TEXT | st.binary(max_size=60), st.integers(1, 40))
def test_is_printable_bounded_and_encodable(value: str | bytes, limit: int) -> None:
    text = shown(value, limit)
    assert text.isprintable()
    assert len(text) <= limit
    text.encode("utf-8")


def test_leaves_plain_text_alone() -> None:
    assert shown("plain — ünïcode 日本", 40) == "plain — ünïcode 日本"
    assert shown("日本".encode(), 2) == "日本"


def test_says_that_it_cut() -> None:
    assert shown("abcdef", 4) == "abc…"
    assert shown("a\x00", 4) == "a\\x…"


def test_shows_bytes_that_are_no_text() -> None:
    assert shown(b"a\xff\x80", 20) == "a\\xff\\x80"
