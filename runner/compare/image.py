"""Comparator `image`: size, mode and pixels, of every frame.

A pixel's difference is that of the channel that differs most, on a scale of 0 to 255; channels of 16 bits are
scaled to it, of integers and floats of 32 bits taken as they are. A palette counts as the colours that it
stands for. Encoding, compression and metadata do not count.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from runner.compare import raw
from runner.compare.comparator import Comparator, Comparison
from runner.compare.malformed import as_bytes, either_malformed, loaded, told_of
from runner.compare.tolerance import plain_number
from runner.errors import UsageError
from runner.shown import count, shown
from runner.state.record import Verdict
from runner.state.spec import OutputRule
from runner.tables.malformed import MalformedError, TooLargeError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 50_000_000
_MAX_FRAMES = 10_000
_SHOWN = 100
_ROWS = 256
# The others of Pillow's formats are rare, or open more than the file: EPS starts a program.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_SCALE = {"1": 255.0, "I;16": 255 / 65535, "I;16B": 255 / 65535, "I;16L": 255 / 65535, "I;16N": 255 / 65535}


class _Looks(NamedTuple):
    """What an image says of itself, before any pixel is unpacked."""

    size: tuple[int, int]
    mode: str
    frames: int

    def __str__(self) -> str:
        frames = f", {self.frames} frames" if self.frames > 1 else ""
        return f"{self.size[0]}×{self.size[1]} {self.mode}{frames}"


class _Seen(msgspec.Struct):
    """What pairs of pixels come to."""

    pixels: int = 0
    differing: int = 0
    beyond: int = 0
    largest: float = 0.0
    total: float = 0.0
    frame: int = 0
    place: tuple[int, int] = (0, 0)


def compare(original: Path, replayed: Path, rule: OutputRule) -> Comparison:
    by_bytes = raw.compare(original, replayed, rule)
    if by_bytes.verdict is Verdict.IDENTICAL:
        return by_bytes
    before, after = loaded(_looks, original), loaded(_looks, replayed)
    if isinstance(before, MalformedError) or isinstance(after, MalformedError):
        return either_malformed(before, after, by_bytes)
    if before != after:
        return Comparison(Verdict.DIVERGED, f"{before} became {after}")
    try:
        return _conclude(before, _look(original, replayed, rule.atol), rule)
    except TooLargeError as error:
        return as_bytes(str(error), by_bytes)
    except MalformedError as error:
        return Comparison(Verdict.DIVERGED, str(error))


def check(path: str, rule: OutputRule) -> None:
    if not 0 <= rule.share <= 1:
        raise UsageError(
            f"output {path!r}: `share: {rule.share}` is no part of the pixels",
            "it is a number from 0, none, to 1, all",
            "correct `share` of this output, as in `share: 0.01`",
        )


COMPARATOR = Comparator(compare, frozenset({"atol", "share"}), check, extra="images")


def difference_picture(original: Path, replayed: Path, target: Path) -> None:
    """Write a PNG to `target`: the original in grey, the redder the more a pixel differs, blue what is in one only.

    Of several frames the first is taken. Raises `UsageError` when one of the two is no image that is read.
    """
    import numpy
    from PIL import Image

    try:
        planes = [_first_frame("original", original), _first_frame("replay", replayed)]
    except MalformedError as error:
        raise UsageError(
            "no picture of the difference can be made", str(error), "compare these files as bytes"
        ) from None
    height, width = (max(plane.shape[axis] for plane in planes) for axis in (0, 1))
    picture = numpy.zeros((height, width, 3), numpy.uint8)
    picture[...] = (0, 0, 255)
    height, width = (min(plane.shape[axis] for plane in planes) for axis in (0, 1))
    for top in range(0, height, _ROWS):
        a, b = (plane[top : min(top + _ROWS, height), :width].astype(numpy.int16) for plane in planes)
        grey, apart = a[..., :3].mean(axis=2) / 2, abs(b - a).max(axis=2)
        strength = numpy.where(apart > 0, 128 + apart / 2, 0)
        rows = [numpy.maximum(grey, strength), *[numpy.where(apart > 0, 0, grey)] * 2]
        picture[top : top + _ROWS, :width][: len(a)] = numpy.stack(rows, axis=2).astype(numpy.uint8)
    _write(Image.fromarray(picture), target)


def _write(picture: Image, target: Path) -> None:
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            picture.save(file, "PNG")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _first_frame(side: str, path: Path) -> Any:
    import numpy

    with told_of(side), _opened(path) as image:
        return numpy.asarray(image.convert("RGBA"))


def _looks(path: Path) -> _Looks:
    with _opened(path) as image:
        return _Looks(image.size, image.mode, getattr(image, "n_frames", 1))


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """The image, of a size that may be unpacked. What is wrong with it raises `MalformedError`."""
    from PIL import Image, UnidentifiedImageError

    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(file, formats=_FORMATS) as image:
                _refuse_large(image)
                yield image
        except UnidentifiedImageError:
            raise MalformedError("not an image that is read here") from None
        except Image.DecompressionBombError:
            raise TooLargeError(f"more than the {MAX_PIXELS:,} pixels that are compared") from None
        # Decoders say in many ways that a file is broken.
        except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError) as error:
            raise MalformedError(f"not an image: {shown(str(error), _SHOWN)}") from None


def _refuse_large(image: Image) -> None:
    pixels = image.size[0] * image.size[1]
    if pixels > MAX_PIXELS:
        raise TooLargeError(f"{pixels:,} pixels, more than the {MAX_PIXELS:,} that are compared")


def _frames(side: str, path: Path) -> Iterator[Any]:
    """The pixels of each frame, channels last."""
    import numpy
    from PIL import ImageSequence

    with told_of(side), _opened(path) as image:
        for number, frame in enumerate(ImageSequence.Iterator(image)):
            if number == _MAX_FRAMES:
                raise TooLargeError(f"more than the {_MAX_FRAMES:,} frames that are compared")
            _refuse_large(frame)
            plain = frame.convert("RGBA") if frame.mode in ("P", "PA") else frame
            pixels = numpy.asarray(plain)
            yield pixels if pixels.ndim == 3 else pixels[..., numpy.newaxis]


def _look(original: Path, replayed: Path, atol: float) -> _Seen:
    import numpy

    mode = _looks(original).mode
    seen = _Seen()
    pairs = zip_longest(_frames("original", original), _frames("replay", replayed))
    for number, (a, b) in enumerate(pairs):
        if a is None or b is None or a.shape != b.shape:
            raise MalformedError(f"frame {number} has another size, or is in one only")
        for top in range(0, a.shape[0], _ROWS):
            x, y = (one[top : top + _ROWS].astype(numpy.float64) for one in (a, b))
            apart = numpy.where(x == y, 0.0, abs(y - x)) * _SCALE.get(mode, 1.0)
            apart = numpy.where(numpy.isnan(apart), numpy.where(numpy.isnan(x) & numpy.isnan(y), 0, numpy.inf), apart)
            _add(seen, number, top, apart.max(axis=2), atol)
    return seen


def _add(seen: _Seen, frame: int, top: int, apart: Any, atol: float) -> None:
    largest = float(apart.max(initial=0.0))
    if largest > seen.largest:
        row, column = divmod(int(apart.argmax()), apart.shape[1])
        seen.largest, seen.frame, seen.place = largest, frame, (column, top + row)
    seen.pixels += apart.size
    seen.differing += int((apart > 0).sum())
    seen.beyond += int((apart > atol).sum())
    seen.total += float(apart.sum())


def _conclude(looks: _Looks, seen: _Seen, rule: OutputRule) -> Comparison:
    allowed = f"atol {plain_number(rule.atol)} of 255, share {plain_number(rule.share)}"
    if not seen.differing:
        return Comparison(Verdict.EQUIVALENT, f"{looks}; the same pixels; allowed: {allowed}")
    is_within = seen.beyond <= rule.share * seen.pixels
    frame = f" of frame {seen.frame}" if looks.frames > 1 else ""
    detail = (
        f"{looks}; {seen.differing:,} of {count(seen.pixels, 'pixel')} differ,"
        f" most by {seen.largest:.3g} at {list(seen.place)}{frame}, mean {seen.total / seen.pixels:.3g};"
        f" {seen.beyond:,} ({100 * seen.beyond / seen.pixels:.3g} %) beyond {allowed}"
    )
    return Comparison(Verdict.EQUIVALENT if is_within else Verdict.DIVERGED, detail)
