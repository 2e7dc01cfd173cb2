"""Logs: secrets masked however a stream is cut, both streams kept and told again in their order."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.layers.access import telling
from runner.logs import MASK, STDERR, STDOUT, LogWriter, Masker, read_log

# Few letters, so that values overlap, repeat, and begin one another; none of them occurs in the mask.
TEXT = st.lists(st.sampled_from([b"a", b"b", b"ab", b"aba", b"\n", b"\xff"]), max_size=40).map(b"".join)
VALUES = st.lists(
    st.lists(st.sampled_from([b"a", b"b", b"\xff", b"\n"]), min_size=4, max_size=9).map(b"".join),
    min_size=1,
    max_size=4,
)


def masked(values: list[bytes], *pieces: bytes) -> bytes:
    masker = Masker(values)
    return b"".join([*map(masker.feed, pieces), masker.flush()])


def cut(text: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[a:b] for a, b in itertools.pairwise(ends)]


@given(VALUES, TEXT, st.lists(st.integers(0, 200), max_size=12))
def test_masking_does_not_depend_on_how_the_stream_is_cut(values: list[bytes], text: bytes, places: list[int]) -> None:
    assert masked(values, *cut(text, places)) == masked(values, text)


@given(VALUES, TEXT, st.lists(st.integers(0, 200), max_size=12))
def test_no_byte_of_a_value_is_seen_and_every_other_byte_is(
    values: list[bytes], text: bytes, places: list[int]
) -> None:
    found = masked(values, *cut(text, places))
    secret = [False] * len(text)
    for value in telling(values):
        for start in range(len(text)):
            if text.startswith(value, start):
                secret[start : start + len(value)] = [True] * len(value)
    assert found.replace(MASK, b"") == bytes(byte for byte, hidden in zip(text, secret, strict=True) if not hidden)


@given(VALUES, TEXT)
def test_only_what_may_yet_become_a_value_is_held_back(values: list[bytes], text: bytes) -> None:
    masker = Masker(values)
    for byte in text:
        masker.feed(bytes([byte]))
        assert len(masker._held) < max(map(len, telling(values)))
    harmless = Masker(values)
    assert harmless.feed(b"xyz\n"[:3]) == b"xyz"


@pytest.mark.parametrize(
    ("values", "pieces", "seen"),
    [
        ([b"hunter2!"], [b"key=hun", b"ter2! ok"], b"key=*** ok"),
        ([b"abcd", b"abcdefgh"], [b"abcd", b"efgh."], b"***."),
        ([b"abcdef", b"defghi"], [b"abcdef", b"ghi."], b"***."),
        ([b"hunter2\n"], [b"hunter2 "], b"*** "),
        ([b"first-line\nsecond-line"], [b"second-", b"line first-line"], b"*** ***"),
        ([b"abc"], [b"abc"], b"abc"),
        ([], [b"anything"], b"anything"),
    ],
)
def test_masking(values: list[bytes], pieces: list[bytes], seen: bytes) -> None:
    assert masked(values, *pieces) == seen


@given(st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(max_size=30)), max_size=20))
def test_a_log_is_told_again_as_it_came(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[int, bytes]]
) -> None:
    folder = tmp_path_factory.mktemp("log")
    echoed: list[tuple[int, bytes]] = []
    writer = LogWriter(folder, [], lambda stream, data: echoed.append((stream, data)))
    for stream, data in pieces:
        writer.write(stream, data)
    writer.close()
    wanted = [piece for piece in pieces if piece[1]]
    assert list(read_log(folder)) == wanted
    assert echoed == wanted


def test_a_log_that_was_cut_off_is_given_as_far_as_it_goes(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, [], None)
    writer.write(STDOUT, b"one")
    writer.write(STDERR, b"two")
    writer.close()
    order = tmp_path / "order"
    order.write_bytes(order.read_bytes()[:-3])
    with (tmp_path / "stdout").open("ab") as file:
        file.write(b"three")
    found = list(read_log(tmp_path))
    assert b"".join(data for stream, data in found if stream == STDOUT) == b"onethree"
    assert b"".join(data for stream, data in found if stream == STDERR) == b"two"
    order.write_bytes(b"\xff\xfe garbage\n1.0 o -5\n")
    assert b"".join(data for stream, data in read_log(tmp_path) if stream == STDOUT) == b"onethree"
    order.unlink()
    assert [data for _, data in read_log(tmp_path)] == [b"onethree", b"two"]


def test_what_is_left_of_a_log_is_given(tmp_path: Path) -> None:
    """One of the streams may have been erased."""
    writer = LogWriter(tmp_path, [], None)
    for stream, data in ((STDOUT, b"one"), (STDERR, b"two"), (STDOUT, b"three")):
        writer.write(stream, data)
    writer.close()
    (tmp_path / "stderr").rename(tmp_path / "elsewhere")
    assert list(read_log(tmp_path)) == [(STDOUT, b"one"), (STDOUT, b"three")]
    (tmp_path / "stdout").unlink()
    assert list(read_log(tmp_path)) == []
    (tmp_path / "elsewhere").rename(tmp_path / "stderr")
    assert list(read_log(tmp_path)) == [(STDERR, b"two")]


def test_masking_says_in_which_stream_a_secret_was(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, [b"hunter2!"], None)
    for piece in (b"hun", b"ter2", b"!"):
        writer.write(STDERR, piece)
    writer.write(STDOUT, b"hunter2")
    writer.write(3, b"no such stream")
    writer.close()
    assert (tmp_path / "stderr").read_bytes() == MASK
    assert (tmp_path / "stdout").read_bytes() == b"hunter2"
    assert writer.masked(STDERR)
    assert not writer.masked(STDOUT)


def test_what_was_written_is_there_before_the_log_is_closed(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, [], None)
    writer.write(STDOUT, b"one")
    writer.write(STDERR, b"two")
    assert list(read_log(tmp_path)) == [(STDOUT, b"one"), (STDERR, b"two")]
    writer.close()
