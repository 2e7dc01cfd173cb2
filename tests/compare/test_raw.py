from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.compare.mismatch import first_mismatch
from runner.shown import shown
from runner.state.record import Verdict


@pytest.mark.parametrize(
    ("original", "replayed", "detail"),
    [
        (b"", b"x", '0 bytes became 1, first difference at byte 0, line 1: original "", replay "x"'),
        (b"abc", b"abd", '3 bytes in both, first difference at byte 2, line 1: original "abc", replay "abd"'),
        (
            b"a\nb\nc\n",
            b"a\nb\nd\n",
            '6 bytes in both, first difference at byte 4, line 3: original "c\\n", replay "d\\n"',
        ),
        (
            b"a\n",
            b"a\r\n",
            '2 bytes became 3, first difference at byte 1, line 1: original "a\\n", replay "a\\r\\n"',
        ),
        (
            b"a\nb\n",
            b"a\n",
            '4 bytes became 2, first difference at byte 2, line 2: original "b\\n", replay ""',
        ),
        (
            "é".encode(),
            "è".encode(),
            '2 bytes in both, first difference at byte 1, line 1: original "é", replay "è"',
        ),
        (b"\x89PNG\0a", b"\x89PNG\0b", "6 bytes in both, first difference at byte 5"),
        (b"text", b"te\0t", "4 bytes in both, first difference at byte 2"),
        (b"\xff\xfe1", b"\xff\xfe2", "3 bytes in both, first difference at byte 2"),
    ],
)
def test_names_the_first_difference(compare, original: bytes, replayed: bytes, detail: str) -> None:
    found = compare(original, replayed, "bytes")
    assert (found.verdict, found.detail) == (Verdict.DIVERGED, detail)


def test_escapes_what_a_terminal_would_obey(compare) -> None:
    found = compare("plain", "\x1b[2J\x07\x9b31m\u202eevil\u2028\\", "bytes")
    assert found.detail.endswith('replay "\\x1b[2J\\x07\\x9b31m\\u202eevil\\u2028\\\\"')
    assert found.detail.isprintable()


@pytest.mark.parametrize("character", ["x", "é", "日", "😀", "\x1b"])
def test_shows_the_neighbourhood_in_a_long_line(compare, character: str) -> None:
    around = character * 5000
    found = compare(f"{around}left{around}", f"{around}right{around}", "bytes")
    original, replayed = found.detail.split('"')[1::2]
    assert len(original) == len(replayed) == 120
    once = shown(character, 10)
    assert original.startswith(f"…{once}{once}")
    assert f"{once}left{once}" in original
    assert f"{once}right{once}" in replayed


def test_an_excerpt_does_not_end_with_the_chunk() -> None:
    found = first_mismatch([b"ax", b"left"], [b"ay", b"right"])
    assert found is not None
    assert (found.original, found.replayed) == (b"axleft", b"ayright")


def test_finds_a_difference_past_the_first_chunk(compare) -> None:
    same = b"0123456789abcde\n" * (3 << 16)
    found = compare(same + b"x tail\n", same + b"y tail\n", "bytes")
    assert f"byte {len(same)}, line {(3 << 16) + 1}: " in found.detail
    assert found.detail.endswith('original "x tail\\n", replay "y tail\\n"')


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_a_file_is_identical_to_itself(compare, content: bytes) -> None:
    assert compare(content, content, "bytes").verdict is Verdict.IDENTICAL


@settings(deadline=None)
@given(st.binary(max_size=20), st.binary(max_size=20))
def test_is_symmetric(compare, a: bytes, b: bytes) -> None:
    there, back = compare(a, b, "bytes"), compare(b, a, "bytes")
    assert there.verdict is back.verdict
    assert (there.verdict is Verdict.IDENTICAL) == (a == b)


_SIMILAR = st.lists(st.sampled_from([b"a", b"b", b"\n", b"aa\naa", b""]), max_size=12)


@settings(deadline=None)
@given(_SIMILAR, _SIMILAR)
def test_the_mismatch_does_not_depend_on_the_chunks(a: list[bytes], b: list[bytes]) -> None:
    left, right = b"".join(a), b"".join(b)
    found = first_mismatch(a, b)
    if left == right:
        assert found is None
        return
    assert found is not None
    common = next((i for i, (x, y) in enumerate(zip(left, right, strict=False)) if x != y), None)
    offset = min(len(left), len(right)) if common is None else common
    assert found.offset == offset
    assert found.line == left.count(b"\n", 0, offset) + 1
