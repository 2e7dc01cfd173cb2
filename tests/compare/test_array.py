# ruff: noqa: E501 - tables of cases
from __future__ import annotations

import io
import json
import struct
import zipfile
from typing import Any

import numpy
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import save as safetensors

from runner.state.record import Verdict
from runner.state.spec import NumberTolerance

SAME, DIFFERS = Verdict.EQUIVALENT, Verdict.DIVERGED
EXACT = "allowed: rtol 0, atol 0"


def npy(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    numpy.save(file, array, **options)
    return file.getvalue()


def npz(compressed: bool = False, **named: Any) -> bytes:
    file = io.BytesIO()
    (numpy.savez_compressed if compressed else numpy.savez)(file, **named)
    return file.getvalue()


def tensors(header: Any, content: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def header_of(text: str, content: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + content


A = numpy.arange(12.0).reshape(3, 4)
B = A.copy()
B[1, 2] = 7
RECORDS = numpy.array([(1.0, b"a"), (2.0, b"b")], dtype=[("x", "f8"), ("s", "S3")])
OTHER = numpy.array([(1.0, b"a"), (2.5, b"c")], dtype=[("x", "f8"), ("s", "S3")])
BF16 = {"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
TOLD = "1 of 12 elements differs, most at [1, 2]: 6.0 → 7.0 (+16.7 %)"


@pytest.mark.parametrize(
    ("original", "replayed", "options", "verdict", "detail"),
    [
        (npy(A), npy(B), {}, DIFFERS, TOLD),
        (npy(A), npy(B), {"rtol": 1}, SAME, "1 element inside rtol 1, atol 0 (largest relative difference 0.167)"),
        (npy(A), npy(numpy.asfortranarray(B)), {}, DIFFERS, TOLD),
        (npy(A), npy(numpy.asfortranarray(A)), {}, SAME, f"the same elements; {EXACT}"),
        (npy(A), npy(A.astype(">f8")), {}, SAME, f"the same elements; {EXACT}"),
        (npy(A), npy(A.astype("f4")), {"rtol": 1}, DIFFERS, "float64 became float32"),
        (npy(A), npy(A.T), {"rtol": 1}, DIFFERS, "shape [3, 4] became [4, 3]"),
        (npy(numpy.array(1.0)), npy(numpy.array(2.0)), {}, DIFFERS, "1 of 1 element differs, most at []: 1.0 → 2.0 (+100 %)"),
        (npy(A), npz(a=A), {}, DIFFERS, "npy became npz"),
        (npz(a=A, b=B), npz(True, a=A, b=B), {}, SAME, f"the same elements; {EXACT}"),
        (npz(a=A, b=B), npz(a=B, c=B), {}, DIFFERS, f"a: {TOLD}; only in the original: b; only in the replay: c"),
        (
            npz(a=A, b=B),
            npz(a=B, b=A),
            {"tolerances": {"a": NumberTolerance(rtol=1)}, "ignore": ("b",)},
            SAME,
            "1 element inside rtol 0, atol 0 (a: rtol 1, atol 0) (largest relative difference 0.167); ignored: b",
        ),
        (npy(RECORDS), npy(OTHER), {"ignore": ("s",)}, DIFFERS, "x: 1 of 2 elements differs, most at [1]: 2.0 → 2.5 (+25 %); ignored: s"),
        (npy(RECORDS), npy(OTHER), {"tolerances": {"x": NumberTolerance(1)}}, DIFFERS, "s: 1 of 2 elements differs, most at [1]: b'b' → b'c'; 1 element inside"),
        (npy(numpy.array([True])), npy(numpy.array([False])), {"atol": 5}, DIFFERS, "1 of 1 element outside rtol 0, atol 5, most at [0]: True → False"),
        (npy(numpy.array([2**53 + 1])), npy(numpy.array([2**53])), {}, DIFFERS, "1 of 1 element differs"),
        (safetensors({"w": A}), safetensors({"w": B}), {}, DIFFERS, f"w: {TOLD}"),
        (safetensors({"w": A}), safetensors({"w": A}, {"a": "b"}), {}, SAME, f"the same elements; {EXACT}; ignored: metadata, which differs"),
        (tensors(BF16, b"\x80\x3f\x80\x3f"), tensors(BF16, b"\x80\x3f\x90\x3f"), {}, DIFFERS, "w: 1 of 2 elements differs, most at [1]: 1.0 → 1.125 (+12.5 %)"),
        (npy(A), npy(A)[:-3], {}, DIFFERS, "replay: [3, 4] takes 96 bytes, and there are 93"),
        (npy(A), npy(A) + b"1", {}, DIFFERS, "replay: [3, 4] takes 96 bytes, and there are 97"),
        (npy(A), npy(numpy.array([{}], dtype=object), allow_pickle=True), {}, DIFFERS, "replay: it holds Python objects, which are not unpickled"),
        (npy(A), b"\x93NUMPY\x02\x00\xff\xff\xff\xff", {}, DIFFERS, "replay: not an npy"),
        (npy(A), header_of("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,)}"), {}, DIFFERS, "replay: [1000000000000000] takes"),
        (npy(A), header_of("{'descr': '<f8', 'fortran_order': False, 'shape': (4000000000000000000, 0, 4000000000)}"), {}, DIFFERS, "replay: not an npy"),
        (npy(A), header_of("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1)}", b"x" * 8), {}, DIFFERS, "replay: not an npy"),
        (npy(A), header_of("(" * 5000), {}, DIFFERS, "replay: not an npy"),
        (npy(A), header_of("-" * 9000 + "1"), {}, DIFFERS, "replay: not an npy"),
        (npy(A), header_of("__import__('os').abort()"), {}, DIFFERS, "replay: not an npy"),
        (npy(A), header_of("{'descr': [], 'fortran_order': False, 'shape': (1,)}"), {}, DIFFERS, ""),
        (npz(a=A), npz(a=A)[:-30], {}, DIFFERS, "replay: not a zip that is read here"),
        (npz(a=A), npz(a=A)[:200] + b"xxx" + npz(a=A)[203:], {}, DIFFERS, "replay: a: not a zip that is read here: Bad CRC-32"),
        (tensors(BF16, b"1234"), tensors(b"{}" * 3), {}, DIFFERS, "replay: not JSON"),
        (tensors(BF16, b"1234"), tensors(BF16, b"123"), {}, DIFFERS, "replay: w: its header cannot be read, or it ends"),
        (tensors(BF16, b"1234"), tensors({"w": {"dtype": "BF16", "shape": [9], "data_offsets": [0, 4]}}, b"1234"), {}, DIFFERS, "replay: w: [9] takes 18 bytes, and there are 4"),
        (tensors(BF16, b"1234"), tensors({"w": {"dtype": "X", "shape": [2], "data_offsets": [0, 4]}}, b"1234"), {}, DIFFERS, "replay: w: the type X is not known"),
        (tensors(BF16, b"1234"), tensors({"w": 1}), {}, DIFFERS, "replay: w: its header cannot be read"),
        (tensors(BF16, b"1234"), struct.pack("<Q", 1 << 62) + b"{}", {}, DIFFERS, "replay: neither npy, npz nor safetensors"),
        (b"", b"x", {}, DIFFERS, "compared as bytes (original: neither npy, npz nor safetensors; replay: neither"),
    ],
)  # fmt: skip
def test_conclusions(
    compare, original: bytes, replayed: bytes, options: dict[str, Any], verdict: Verdict, detail: str
) -> None:
    found = compare(original, replayed, "array", **options)
    assert found.verdict is verdict
    assert found.detail.startswith(detail)
    assert found.detail == detail or verdict is DIFFERS
    assert found.detail.isprintable()


def test_times_are_compared_and_the_one_that_is_none_is_itself(compare) -> None:
    times = numpy.array(["NaT", "2020-01-01"], "M8[D]")
    assert compare(npy(times), npy(times.astype(">M8[D]")), "array").verdict is SAME
    assert compare(npy(times), npy(times[::-1]), "array").detail.startswith("2 of 2 elements differ, most at [0]: None")


def test_members_that_lie_one_on_the_other_are_refused(compare) -> None:
    """A zip bomb that shares one member among many."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a0.npy", bytes(1 << 20))
        for number in range(1, 2000):
            twin = zipfile.ZipInfo(f"a{number}.npy")
            first = archive.filelist[0]
            for name in ("compress_type", "CRC", "compress_size", "file_size", "header_offset"):
                setattr(twin, name, getattr(first, name))
            archive.filelist.append(twin)
    found = compare(npz(a=A), file.getvalue(), "array")
    assert found.verdict is DIFFERS
    assert found.detail == "replay: its members lie one on the other"


def test_a_zip_of_more_entries_than_are_kept_is_compared_as_bytes(compare) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", npy(A))
        archive.comment = b"x"
    whole = bytearray(file.getvalue())
    struct.pack_into("<L", whole, len(whole) - 23 + 12, 1 << 30)
    found = compare(npz(a=A), bytes(whole), "array")
    assert found.detail.startswith("compared as bytes (replay: its directory has 1,073,741,824 bytes")


def test_chunks_are_joined(compare) -> None:
    original = numpy.zeros(1_000_003)
    replayed = original.copy()
    replayed[[5, 600_000, 1_000_002]] = [1, 3, 2]
    found = compare(npy(original), npy(replayed), "array")
    assert found.detail == "3 of 1,000,003 elements differ, most at [600000]: 0.0 → 3.0"


# --- properties -----------------------------------------------------------------------------------------

_TYPES = st.sampled_from(["f8", "f4", "f2", "i8", "u1", "c16", "?"])
_BOUNDS = st.sampled_from([0.0, 1e-9, 1e-3, 0.5, 2.0])


@st.composite
def _pairs(draw: st.DrawFn) -> tuple[Any, Any]:
    shape, kind = draw(arrays.array_shapes(max_dims=3, max_side=3)), draw(_TYPES)
    elements = {"min_value": -100, "max_value": 100} if kind in ("i8",) else None
    original = draw(arrays.arrays(kind, shape, elements=elements))
    replayed = draw(st.just(original) | arrays.arrays(kind, shape, elements=elements))
    with numpy.errstate(all="ignore"):
        near = (
            (original * (1 + draw(st.sampled_from([0, 1e-9, 1e-3, 0.5])))).astype(kind) if kind[0] in "fc" else original
        )
    return original, draw(st.sampled_from([replayed, near]))


@settings(deadline=None)
@example((numpy.array([1.7e308]), numpy.array([numpy.inf])), 2.0, 0.0)
@given(_pairs(), _BOUNDS, _BOUNDS)
def test_agrees_with_numpy(compare, pair: tuple[Any, Any], rtol: float, atol: float) -> None:
    original, replayed = pair
    with numpy.errstate(all="ignore"):
        try:
            numpy.testing.assert_allclose(replayed, original, rtol=rtol, atol=atol)
            agreed = True
        except AssertionError:
            agreed = False
    if original.dtype.kind == "b":
        agreed = bool((original == replayed).all())
    for save in (npy, lambda array: npz(True, a=array)):
        assert (compare(save(original), save(replayed), "array", rtol=rtol, atol=atol).verdict is not DIFFERS) == agreed


@settings(deadline=None)
@given(_pairs(), _BOUNDS, _BOUNDS)
def test_reflexive_symmetric_when_exact_and_monotone(compare, pair: tuple[Any, Any], rtol: float, atol: float) -> None:
    a, b = (npy(array) for array in pair)
    assert compare(a, a, "array").verdict is Verdict.IDENTICAL
    assert (compare(a, b, "array").verdict is DIFFERS) == (compare(b, a, "array").verdict is DIFFERS)
    if compare(a, b, "array", rtol=rtol, atol=atol).verdict is not DIFFERS:
        assert compare(a, b, "array", rtol=rtol * 2, atol=atol + 1).verdict is not DIFFERS


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_bytes_that_go_bad_are_never_an_error(compare, data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from([npy(A), npz(a=A, b=B), npz(True, a=A), safetensors({"w": A}), npy(RECORDS)]))
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        broken[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    compare(whole, bytes(broken), "array")


def test_members_that_lie_before_the_file_are_malformed(compare) -> None:
    whole = npz(True, a=A)
    broken = bytearray(whole)
    broken[whole.rfind(b"PK\5\6") + 17] = 1
    assert "lie outside" in compare(whole, bytes(broken), "array").detail
