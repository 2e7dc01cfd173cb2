"""Blobs: whole or not there, never trusted by name."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import LostError, OutsideError, TamperedError
from runner.state.digest import Digest
from runner.store.blobs import Blobs
from tests.conftest import flip_bit


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs", tmp_path / "tmp")


def digest_of(data: bytes) -> Digest:
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


@given(data=st.binary(max_size=64), cut=st.integers(1, 8))
def test_every_way_in_gives_the_same_name_and_bytes(
    data: bytes, cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("blobs")
    for number, way in enumerate(("bytes", "stream", "file", "adopt", "link")):
        blobs = Blobs(folder / str(number), folder / "tmp")
        source = folder / f"source-{number}"
        source.write_bytes(data)
        if way == "bytes":
            assert blobs.put_bytes(data) == digest_of(data)
        elif way == "stream":
            assert blobs.put_stream(data[i : i + cut] for i in range(0, len(data), cut)) == (digest_of(data), len(data))
        elif way == "link":
            blobs.link(source, digest_of(data))
        else:
            assert (blobs.put_file if way == "file" else blobs.adopt)(source) == (digest_of(data), len(data))
        assert blobs.read(digest_of(data)) == data and list(blobs.all()) == [digest_of(data)]
    assert not list((folder / "tmp").iterdir())


def test_damage_is_found_by_whoever_reads(blobs: Blobs) -> None:
    digest = blobs.put_bytes(b"content")
    flip_bit(blobs.path(digest))
    for read in (blobs.read, blobs.verified):
        with pytest.raises(TamperedError, match="damaged") as raised:
            read(digest)
        assert digest in raised.value.what and str(blobs.path(digest)) in raised.value.why and raised.value.next
    blobs.discard(digest)
    for read in (blobs.read, blobs.verified):
        with pytest.raises(TamperedError, match="missing"):
            read(digest)


def test_a_stream_that_breaks_leaves_nothing(blobs: Blobs, tmp_path: Path) -> None:
    def broken():  # type: ignore[no-untyped-def]
        yield b"half"
        raise RuntimeError("cut")

    with pytest.raises(RuntimeError):
        blobs.put_stream(broken())
    assert blobs.put_stream([b"not wanted"], lambda _: False)[0] == digest_of(b"not wanted")
    assert not list(blobs.all()) and not list((tmp_path / "tmp").iterdir())


def test_keeping_twice_keeps_one(blobs: Blobs) -> None:
    digest = blobs.put_bytes(b"x")
    inode = blobs.path(digest).stat().st_ino
    blobs.put_bytes(b"x")
    assert blobs.path(digest).stat().st_ino == inode
    assert blobs.discard(digest) == 1 and blobs.discard(digest) == 0


def test_many_writers_of_one_blob(blobs: Blobs, tmp_path: Path) -> None:
    data = os.urandom(1 << 16)
    threads = [threading.Thread(target=blobs.put_stream, args=([data],)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert blobs.read(digest_of(data)) == data and not list((tmp_path / "tmp").iterdir())


def test_a_disk_that_fails_is_told(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "blobs").write_text("a file where the folder belongs")
    with pytest.raises(OutsideError, match="cannot write to"):
        Blobs(tmp_path / "blobs", tmp_path / "tmp").put_bytes(b"x")


def test_what_is_not_there_is_said_with_what_brings_it(blobs: Blobs) -> None:
    with pytest.raises(LostError) as lost:
        blobs.read(digest_of(b"never put"))
    assert "fsck" in lost.value.next and "`replay pull`" in lost.value.next
