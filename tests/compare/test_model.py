from __future__ import annotations

import collections
import io
import os
import pickle
import pickletools
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.compare.pickles import globals_of
from runner.state.record import Verdict


class Hostile:
    """A pickle of it leaves a file behind when it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._path),)


def zipped(time: int = 1980, kind: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name.replace("__", "/").replace("_", "."), (time, 1, 1, 0, 0, 0)), content)
    return file.getvalue()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_globals_are_read_and_never_called(compare, tmp_path: Path, protocol: int) -> None:
    tame = pickle.dumps([collections.OrderedDict(), numpy.arange(3)], protocol)
    hostile = pickle.dumps([collections.OrderedDict(), numpy.arange(3), Hostile(tmp_path / "called")], protocol)
    found = compare(tame, hostile, "model")
    assert found.verdict is Verdict.DIVERGED
    assert found.detail.endswith("; globals called only in the replay: posix.mkdir")
    assert compare(hostile, tame, "model").detail.endswith("; globals called only in the original: posix.mkdir")
    assert not (tmp_path / "called").exists()


def test_what_differs_in_a_pickle_of_the_same_globals(compare) -> None:
    one, two = (pickle.dumps(collections.OrderedDict(a=value)) for value in (1, 2))
    assert compare(one, two, "model").detail.endswith("; the pickles call the same 1 global")
    assert compare(zlib.compress(one), zlib.compress(two), "model").detail.endswith("the same 1 global")
    assert compare(one, one[:-1], "model").detail.endswith(f"; read as pickles up to byte {len(one) - 1}")
    assert compare(b"\x08\x01onnx", b"\x08\x02onnx", "model").detail.startswith("6 bytes in both, first difference at")
    assert compare(one, one, "model").verdict is Verdict.IDENTICAL


def test_members_of_archives_are_looked_into(compare, tmp_path: Path) -> None:
    tame, hostile = pickle.dumps([1]), pickle.dumps(Hostile(tmp_path / "called"))
    original = zipped(m__data_pkl=tame, m__data__0=b"0", m__old=b"")
    found = compare(original, zipped(m__data_pkl=hostile, m__data__0=b"1", m__new=b""), "model")
    assert found.verdict is Verdict.DIVERGED
    assert found.detail == (
        "2 of 3 members changed: m/data.pkl, m/data/0; only in the original: m/old; only in the replay: m/new; "
        "globals called only in the replay: posix.mkdir"
    )
    again = zipped(1999, zipfile.ZIP_DEFLATED, m__data_pkl=tame, m__data__0=b"0", m__old=b"")
    found = compare(original, again, "model")
    assert (found.verdict, found.detail) == (Verdict.EQUIVALENT, "ignored: the zip around 3 equal members")
    found = compare(original, original[:-9], "model")
    assert found.verdict is Verdict.DIVERGED
    assert "replay: not a zip that is read here" in found.detail


def test_a_long_string_is_skipped_and_one_that_has_no_end_is_told(compare) -> None:
    large = pickle.dumps([b"x" * (8 << 20), "y" * 5000, collections.OrderedDict()])
    assert globals_of(io.BytesIO(large)).names == {"collections.OrderedDict"}
    lying = b"\x80\x04\x8e" + (1 << 62).to_bytes(8, "little") + b"x"
    assert compare(large, lying, "model").detail.endswith("globals called only in the original: collections.OrderedDict; read as pickles up to byte 11")  # fmt: skip  # noqa: E501


def test_a_bomb_of_zlib_is_read_in_little_memory(compare) -> None:
    zeros = zlib.compressobj()
    bomb = b"".join(zeros.compress(bytes(1 << 20)) for _ in range(64)) + zeros.flush()
    assert compare(pickle.dumps([1]), bomb, "model").verdict is Verdict.DIVERGED


_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@settings(deadline=None)
@given(_PLAIN, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_opcodes_are_read_to_the_last_byte(value: Any, protocol: int) -> None:
    found = globals_of(io.BytesIO(pickle.dumps([value, collections.OrderedDict()], protocol)))
    assert found.until is None
    assert "collections.OrderedDict" in found.names


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_are_read_without_an_error(compare, content: bytes) -> None:
    opcodes = bytes(ord(opcode.code) for opcode in pickletools.opcodes)
    for junk in (content, b"\x80\x04" + content, bytes(opcodes[byte % len(opcodes)] for byte in content)):
        globals_of(io.BytesIO(junk))
        compare(b"PK\x03\x04", b"PK\x03\x04" + junk, "model")
