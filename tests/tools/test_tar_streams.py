"""Tar streams: what goes out is the same for the same content; what comes in stays in its folder."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.errors import OutsideError
from runner.tools import tar_streams


def packed(folder: Path, dress: tar_streams.Dress = tar_streams.for_layer) -> bytes:
    return b"".join(tar_streams.chunks(tar_streams.tree(folder, "0", dress)))


def unpacked(data: bytes, target: Path, size: int = 700) -> None:
    """Received in pieces that fit no block."""
    target.mkdir()
    pieces: Iterator[bytes] = (data[start : start + size] for start in range(0, len(data), size))
    tar_streams.unpack(pieces, target, lambda: None)


def hostile(*members: tuple[str, bytes, str]) -> bytes:
    """A tar of (name, type, link target) below a top folder `0`."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, link in (("0", tarfile.DIRTYPE, ""), *members):
            header = tarfile.TarInfo(name)
            header.type, header.linkname, header.mode = kind, link, 0o7777
            if kind == tarfile.REGTYPE:
                header.size = 4
            tar.addfile(header, io.BytesIO(b"evil"))
    return out.getvalue()


def test_equal_content_gives_equal_bytes_whatever_else_differs(tmp_path: Path) -> None:
    digests = set()
    for number in (1, 2):
        folder = tmp_path / str(number)
        (folder / "b" / "c").mkdir(parents=True, mode=0o700 + number)
        for name in ("b/x", "a", "b/c/é") if number == 1 else ("b/c/é", "a", "b/x"):
            (folder / name).write_text(name)
            os.utime(folder / name, (number, number))
            (folder / name).chmod(0o600 + number)
        (folder / "link").symlink_to("../nowhere")
        digests.add(hashlib.sha256(packed(folder)).hexdigest())
    assert len(digests) == 1
    (tmp_path / "2" / "a").chmod(0o755)
    assert hashlib.sha256(packed(tmp_path / "2")).hexdigest() not in digests


def test_a_folder_comes_back_as_it_was(tmp_path: Path) -> None:
    folder, deep = tmp_path / "here", "d" * 200
    (folder / deep / deep / "empty").mkdir(parents=True)
    strange = [os.fsdecode(b"not utf-8 \xff"), "new\nline", "-dash", "é"]
    for name in (*strange, f"{deep}/{deep}/f"):
        (folder / name).write_text(repr(name))
    (folder / "-dash").chmod(0o500)
    (folder / "link").symlink_to("/etc/passwd")
    with (folder / "holes").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(5 << 20)
        file.write(b"x")
    unpacked(packed(folder, tar_streams.for_owner(1, 2)), tmp_path / "there", 1 << 16)
    there = tmp_path / "there"
    for path in folder.rglob("*"):
        found = there / path.relative_to(folder)
        assert stat.S_IFMT(path.lstat().st_mode) == stat.S_IFMT(found.lstat().st_mode), path
        if path.is_symlink():
            assert path.readlink() == found.readlink()
        elif path.is_file():
            assert path.read_bytes() == found.read_bytes()
            assert (path.stat().st_mode, path.stat().st_mtime) == (found.stat().st_mode, found.stat().st_mtime)
    assert len(list(there.rglob("*"))) == len(list(folder.rglob("*")))
    assert (there / "holes").stat().st_blocks * 512 < 1 << 20, "holes stay holes"


@pytest.mark.parametrize(
    "members",
    [
        [("0/../../evil", tarfile.REGTYPE, "")],
        [("/evil", tarfile.REGTYPE, "")],
        [("0/out", tarfile.SYMTYPE, ".."), ("0/out/evil", tarfile.REGTYPE, "")],
        [("0/out", tarfile.SYMTYPE, "../evil"), ("0/out", tarfile.REGTYPE, "")],
        [("0/in", tarfile.LNKTYPE, "0/../../secret")],
        [("0/out", tarfile.SYMTYPE, ".."), ("0/in", tarfile.LNKTYPE, "0/out/secret")],
        [("0/twice", tarfile.REGTYPE, ""), ("0/twice", tarfile.REGTYPE, "")],
    ],
)
def test_nothing_gets_out_of_the_folder(tmp_path: Path, members: list[tuple[str, bytes, str]]) -> None:
    (tmp_path / "secret").write_text("kept")
    with pytest.raises(OutsideError):
        unpacked(hostile(*members), tmp_path / "there")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret", "there"]
    assert (tmp_path / "secret").read_text() == "kept"
    assert not (tmp_path / "there" / "in").exists()


def test_devices_come_out_as_pipes_and_modes_without_their_special_bits(tmp_path: Path) -> None:
    devices = [("0/dev", tarfile.CHRTYPE, ""), ("0/disk", tarfile.BLKTYPE, ""), ("0/pipe", tarfile.FIFOTYPE, "")]
    unpacked(hostile(*devices, ("0/file", tarfile.REGTYPE, "")), tmp_path / "there")
    for name in ("dev", "disk", "pipe"):
        assert stat.S_ISFIFO((tmp_path / "there" / name).lstat().st_mode)
    assert stat.S_IMODE((tmp_path / "there" / "file").stat().st_mode) == 0o777


def test_a_stream_that_breaks_off_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "f").write_bytes(os.urandom(5000))
    with pytest.raises(OutsideError):
        unpacked(packed(tmp_path / "here")[:3000], tmp_path / "there")


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("before")
    items = list(tar_streams.tree(tmp_path / "f", "0", tar_streams.for_layer))
    (tmp_path / "f").write_text("and after")
    with pytest.raises(OutsideError, match="changed"):
        list(tar_streams.chunks(items))
