from __future__ import annotations

import tracemalloc
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.compare.normalise import HOLD, NORMALISERS, Normaliser
from runner.compare.text import COMPARATOR
from runner.state.record import Verdict
from runner.state.spec import OutputRule


@pytest.mark.parametrize(
    ("name", "original", "replayed"),
    [
        ("line-ends", "a\nb\n", "a\r\nb\r\n"),
        ("line-ends", "a\nb\n", "a\nb"),
        ("trailing-space", "a\nb\n", "a \t\nb\n"),
        ("trailing-space", "a", "a  "),
        ("timestamps", "at 2026-11-20T09:08:07Z", "at 2026-12-01T10:11:12.123456+01:00"),
        ("timestamps", "2026-11-20 09:08:07,123 INFO", "2026-12-01 10:11:12,456 INFO"),
        ("timestamps", "made 2026-11-20.", "made 2026-12-01."),
        ("timestamps", "2026/11/20 09:08:07 x", "2026/12/01 10:11:12 x"),
        ("timestamps", "20261120T090807Z", "20261201T101112Z"),
        ("timestamps", "[20/Nov/2026:09:08:07 +0000]", "[01/Dec/2026:10:11:12 +0100]"),
        ("timestamps", "Nov 20 09:08:07 host", "Dec  1 10:11:12 host"),
        ("timestamps", "Fri Nov 20 09:08:07 2026", "Tue Dec  1 10:11:12 2026"),
        ("timestamps", "Fri Nov 20 09:08:07 UTC 2026", "Tue Dec  1 10:11:12 UTC 2026"),
        ("timestamps", "Fri, 20 Nov 2026 09:08:07 GMT", "Tue, 01 Dec 2026 10:11:12 GMT"),
        ("timestamps", "09:08:07 start", "10:11:12 start"),
        ("paths", "saved to /tmp/a1/m.pkl", "saved to /home/u/b2/m.pkl"),
        ("paths", 'File "/usr/lib/x.py", line 3', 'File "/opt/x.py", line 3'),
        ("paths", "at:/a/b:12", "at:/c/d:12"),
        ("addresses", "<A object at 0x7f0011223344>", "<A object at 0x55dd00ffee00>"),
        ("durations", "took 3.2s", "took 11.04 s"),
        ("durations", "took 1m 2s.", "took 12 ms."),
        ("durations", "in 5 minutes", "in 61.5 seconds"),
        ("durations", "1.2e-05s", "3 µs"),
        ("durations", "0:00:12.345678", "1 day, 2:03:04"),
    ],
)
def test_a_normaliser_makes_equal_and_is_named(compare, name: str, original: str, replayed: str) -> None:
    found = compare(original, replayed, "text", normalise=(name,))
    assert (found.verdict, found.detail) == (Verdict.EQUIVALENT, f"equal after {name} (allowed: {name})")
    assert compare(original, replayed, "text").verdict is Verdict.DIVERGED


@pytest.mark.parametrize(
    ("original", "replayed"),
    [
        ("loss 0.12", "loss 0.13"),
        ("epoch 3/10", "epoch 4/10"),
        ("3 / 4", "3 / 5"),
        ("a/b", "a/c"),
        ("https://host/a", "https://host/b"),
        ("colour 0xff", "colour 0xfe"),
        ("10m parameters", "12m parameters"),
        ("id 1234-56-78", "id 1234-56-79"),
        ("x2026-11-20", "x2026-11-21"),
        ("</div>", "</span>"),
        ("line 12 of /a.py:3", "line 12 of /a.py:4"),
        ("a\n\n", "a\n"),
        (" a", "a"),
    ],
)
def test_results_are_not_taken_for_noise(compare, original: str, replayed: str) -> None:
    assert compare(original, replayed, "text", normalise=NORMALISERS).verdict is Verdict.DIVERGED


def test_only_the_normalisers_that_mattered_are_named_as_such(compare) -> None:
    found = compare(
        "/tmp/a same 09:08:07\nsame /tmp/x\n",
        "/tmp/a same 10:11:12\nsame /tmp/x\r\n",
        "text",
        normalise=("timestamps", "paths", "line-ends", "addresses"),
    )
    assert found.detail == ("equal after line-ends, timestamps (allowed: addresses, line-ends, paths, timestamps)")


def test_names_the_first_line_that_differs_and_how_many_do(compare) -> None:
    found = compare("a\nb\nc\nd\n", "a\nB\nc\nD\nE\n", "text")
    assert found.verdict is Verdict.DIVERGED
    assert found.detail == '3 lines differ; line 2: original "b\\n", replay "B\\n"'


def test_shows_what_still_differs_after_normalising(compare) -> None:
    found = compare("09:08:07 loss 1\n", "10:11:12 loss 2\n", "text", normalise=("timestamps",))
    assert found.detail == (
        '1 line differs after timestamps; line 1: original "<timestamps> loss 1\\n", replay "<timestamps> loss 2\\n"'
    )


@pytest.mark.parametrize("before", ["", "a\n"])
def test_spaces_after_the_last_line_are_trailing_space(compare, before: str) -> None:
    found = compare(before, before + "  ", "text", normalise=("line-ends", "trailing-space"))
    assert found.detail.startswith("equal after trailing-space (")


@pytest.mark.parametrize("before", ["", "a\n"])
def test_an_empty_line_more_is_a_difference(compare, before: str) -> None:
    found = compare(before, before + "\n", "text", normalise=NORMALISERS)
    assert found.detail.startswith("1 line differs")


def test_bytes_that_are_no_text_are_compared_and_escaped(compare) -> None:
    found = compare(b"\xff\x1b[0m\n", b"\xfe\x1b[0m\n", "text")
    assert found.detail.endswith(r'original "\xff\x1b[0m\n", replay "\xfe\x1b[0m\n"')


def test_excerpts_are_bounded(compare) -> None:
    found = compare("x" * 5000 + "1" + "x" * 5000, "x" * 5000 + "2" + "x" * 5000, "text")
    assert [len(side) for side in found.detail.split('"')[1::2]] == [120, 120]
    assert "x1x" in found.detail
    assert "x2x" in found.detail


_LINES = st.lists(
    st.sampled_from(
        (
            *(b"a", b" ", b"\n", b"\r\n", b"\xff"),
            *(b"/tmp/x", b"/var/y", b"0x7f00112233", b"0x55dd00ff", b"09:08:07", b"3s", b"4 ms"),
        )
    ),
    max_size=30,
).map(b"".join)
_NAMES = st.lists(st.sampled_from(NORMALISERS), unique=True).map(tuple)


@settings(deadline=None)
@given(_LINES | st.binary(max_size=200), _NAMES)
def test_a_file_is_identical_to_itself(compare, content: bytes, names: tuple[str, ...]) -> None:
    assert compare(content, content, "text", normalise=names).verdict is Verdict.IDENTICAL


@settings(deadline=None)
@given(_LINES, _LINES, _NAMES, _NAMES)
def test_more_normalisers_never_tell_more_apart(
    compare, a: bytes, b: bytes, few: tuple[str, ...], more: tuple[str, ...]
) -> None:
    """Of those that do not compete for the same text."""
    few = tuple(set(few) - {"timestamps", "durations"})
    if compare(a, b, "text", normalise=few).verdict is Verdict.EQUIVALENT:
        everything = tuple({*few, *more} - {"timestamps", "durations"})
        assert compare(a, b, "text", normalise=everything).verdict is Verdict.EQUIVALENT


_TOKENS = st.sampled_from(
    (
        *(b"a", b" ", b"  \t", b"2026-11-20 09:08:07Z", b"0x7f0011223344", b"12 ms", b"1h 2m 3s", b"x" * 3000),
        *(b"/tmp/" + b"p" * 40, b"/var/" + b"q/" * 1500, b"/", b"0:01:02.5", b" /usr/lib "),
    )
)


def _in_pieces(pieces: list[bytes], names: tuple[str, ...]) -> tuple[bytes, dict[str, bytes]]:
    normaliser = Normaliser(names)
    return b"".join(normaliser.run(pieces)), normaliser.taken()


@settings(deadline=None, max_examples=60)
@given(st.lists(_TOKENS, min_size=15, max_size=40), st.lists(st.integers(0, 60_000), max_size=6), _NAMES)
def test_the_borders_of_pieces_do_not_show(tokens: list[bytes], cuts: list[int], names: tuple[str, ...]) -> None:
    line = b"".join(tokens) * 2 + b"end\r\n"
    borders = [0, *sorted(min(cut, len(line) - 1) for cut in cuts), len(line)]
    pieces = [line[a:b] for a, b in pairwise(borders)]
    assert _in_pieces(pieces, names) == _in_pieces([line], names)


@pytest.mark.parametrize("at", range(80))
def test_no_border_splits_a_match_or_hides_what_stands_before_it(at: int) -> None:
    marks = b"word/usr/lib a2026-11-20 2026-11-20 09:08:07Z 0x7f0011223344 x0x7f0011223344 12 ms /tmp/p"
    line = marks + b" " + b"y" * 2 * HOLD
    assert _in_pieces([line[: at + HOLD], line[at + HOLD :]], NORMALISERS) == _in_pieces([line], NORMALISERS)


def test_a_match_across_the_first_piece_that_differs_is_seen_whole(compare) -> None:
    before = "x" * ((1 << 18) - 6) + " /tmp/"
    found = compare(before + "aaa\n", before + "bbb\n", "text", normalise=("paths",))
    assert found.verdict is Verdict.EQUIVALENT


def test_long_lines_that_shift_are_equal_after_normalising(compare) -> None:
    body = b" /tmp/abc word 0x7f0011223344" * 40_000
    found = compare(b"3 ms" + body + b"\n", b"12345.678 seconds" + body + b"\n", "text", normalise=("durations",))
    assert found.verdict is Verdict.EQUIVALENT


def test_lines_after_a_long_one_keep_their_number(compare) -> None:
    long = b"x" * 900_000
    found = compare(b"1" + long + b"1\nsame\nc\n", b"2" + long + b"2\nsame\nd\n", "text")
    assert found.detail.startswith("2 lines differ; line 1: ")
    found = compare(long + b"\nsame\nc\n", long + b"\nsame\nd\n", "text")
    assert found.detail.startswith("1 line differs; line 3: ")


def test_a_line_without_end_is_streamed(tmp_path: Path) -> None:
    original, replayed = tmp_path / "a", tmp_path / "b"
    for file, mark in ((original, b"1"), (replayed, b"2")):
        with file.open("wb") as opened:
            opened.truncate(150_000_000)
            opened.seek(0, 2)
            opened.write(mark)
            opened.truncate(300_000_000)
    tracemalloc.start()
    try:
        found = COMPARATOR.compare(original, replayed, OutputRule("text", normalise=("line-ends",)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.detail.startswith("1 line differs after line-ends; line 1: ")
    assert r"\x001\x00" in found.detail
    assert peak < 8 << 20
