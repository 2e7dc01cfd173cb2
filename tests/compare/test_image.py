# ruff: noqa: E501 - tables of cases
from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from runner.compare.image import difference_picture
from runner.errors import UsageError
from runner.state.record import Verdict

SAME, DIFFERS = Verdict.EQUIVALENT, Verdict.DIVERGED


def picture(pixels: Any, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, kind, **options)
    return file.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says to be large."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


A = numpy.random.default_rng(0).integers(0, 200, (300, 20, 3), dtype="u1")
B = A.copy()
B[299, 4, 1] += 8
B[3, 7] += 40
DEEP = A[..., 0].astype("u2") * 200
DEEPER = DEEP.copy()
DEEPER[0, 0] += 257
FRAMES = [Image.fromarray(A[..., channel].copy()) for channel in range(3)]
TOLD = "20×300 RGB; 2 of 6,000 pixels differ, most by 40 at [7, 3], mean 0.008;"


@pytest.mark.parametrize(
    ("original", "replayed", "options", "verdict", "detail"),
    [
        (picture(A), picture(B), {}, DIFFERS, f"{TOLD} 2 (0.0333 %) beyond atol 0 of 255, share 0"),
        (picture(A), picture(B), {"atol": 8}, DIFFERS, f"{TOLD} 1 (0.0167 %) beyond atol 8 of 255, share 0"),
        (picture(A), picture(B), {"atol": 40}, SAME, f"{TOLD} 0 (0 %) beyond atol 40 of 255, share 0"),
        (picture(A), picture(B), {"atol": 8, "share": 0.001}, SAME, f"{TOLD} 1 (0.0167 %) beyond atol 8 of 255, share 0.001"),
        (picture(A), picture(A, compress_level=0), {}, SAME, "20×300 RGB; the same pixels; allowed: atol 0 of 255, share 0"),
        (picture(A), picture(A, "BMP"), {}, SAME, "20×300 RGB; the same pixels; allowed: atol 0 of 255, share 0"),
        (picture(A), picture(A[:-1]), {"share": 1}, DIFFERS, "20×300 RGB became 20×299 RGB"),
        (picture(A), picture(A[..., 0].copy()), {"share": 1}, DIFFERS, "20×300 RGB became 20×300 L"),
        (picture(DEEP), picture(DEEPER), {}, DIFFERS, "20×300 I;16; 1 of 6,000 pixels differ, most by 1 at [0, 0]"),
        (picture(DEEP), picture(DEEPER), {"atol": 1.01}, SAME, "20×300 I;16; 1 of 6,000 pixels differ, most by 1 at [0, 0]"),
        (
            picture(FRAMES[0], "TIFF", save_all=True, append_images=FRAMES[1:]),
            picture(FRAMES[0], "TIFF", save_all=True, append_images=[FRAMES[1], FRAMES[0]]),
            {},
            DIFFERS,
            "20×300 L, 3 frames; ",
        ),
        (
            picture(FRAMES[0], "TIFF", save_all=True, append_images=FRAMES[1:]),
            picture(FRAMES[0], "TIFF"),
            {},
            DIFFERS,
            "20×300 L, 3 frames became 20×300 L",
        ),
        (picture(A), picture(A)[:-400], {}, DIFFERS, "replay: not an image: "),
        (picture(A), b"x", {}, DIFFERS, "replay: not an image that is read here"),
        (b"y", b"x", {}, DIFFERS, "compared as bytes (original: not an image that is read here; replay: "),
        (picture(A), b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", {}, DIFFERS, "replay: not an image that is"),
        (picture(A), bomb(10_000, 10_000), {}, DIFFERS, "compared as bytes (replay: 100,000,000 pixels, more than"),
        (picture(A), bomb(60_000, 60_000), {}, DIFFERS, "compared as bytes (replay: more than the 50,000,000 pixels"),
    ],
)  # fmt: skip
def test_conclusions(
    compare, original: bytes, replayed: bytes, options: dict[str, Any], verdict: Verdict, detail: str
) -> None:
    found = compare(original, replayed, "image", **options)
    assert found.verdict is verdict
    assert found.detail.startswith(detail)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 255), st.integers(0, 255), st.floats(0, 255), st.sampled_from([0.0, 0.1, 0.5]))
def test_reflexive_symmetric_and_monotone(compare, a: int, b: int, atol: float, share: float) -> None:
    left = numpy.zeros((2, 5), "u1")
    right = left.copy()
    right[0, 0], right[1, 1] = a, b
    one, two = picture(left), picture(right)
    found = compare(one, two, "image", atol=atol, share=share).verdict
    assert compare(one, one, "image", atol=atol).verdict is Verdict.IDENTICAL
    assert found is compare(two, one, "image", atol=atol, share=share).verdict
    assert (found is not DIFFERS) == (sum(value > atol for value in (a, b)) / 10 <= share)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_bytes_that_go_bad_are_never_an_error(compare, data: st.DataObject) -> None:
    kinds = {kind: picture(A[:9], kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")}
    whole = kinds[data.draw(st.sampled_from(sorted(kinds)))]
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    compare(whole, bytes(broken), "image")


def test_the_picture_shows_where_images_differ(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(picture(A))
    (tmp_path / "b").write_bytes(picture(B[:, :15].copy()))
    difference_picture(tmp_path / "a", tmp_path / "b", tmp_path / "difference.png")
    shown = numpy.asarray(Image.open(tmp_path / "difference.png"))
    assert shown.shape == (300, 20, 3)
    assert (shown[:, 15:] == (0, 0, 255)).all()
    red = (shown[:, :15, 0] > 120) & (shown[:, :15, 1] == 0)
    assert [list(place) for place in numpy.argwhere(red)] == [[3, 7], [299, 4]]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a", "b", "difference.png"]


def test_no_picture_of_what_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(picture(A))
    (tmp_path / "b").write_bytes(b"x")
    with pytest.raises(UsageError) as error:
        difference_picture(tmp_path / "a", tmp_path / "b", tmp_path / "difference.png")
    assert error.value.why == "replay: not an image that is read here"
    assert not (tmp_path / "difference.png").exists()
