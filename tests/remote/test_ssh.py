"""A remote over SSH: a server that went away is told, and used again once it is back."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.errors import OutsideError
from runner.state.digest import digest_bytes
from runner.tools.dvc_config import DvcConfig
from runner.tools.remote_fs import NotThere, Remote, open_remote
from tests.remote.ssh import Ssh, served


def remote_at(ssh: Ssh, folder: Path) -> Remote:
    options = {"url": f"ssh://127.0.0.1{folder}"} | ssh.options
    return open_remote(DvcConfig(core={"remote": "share"}, remotes={"share": options}))


def test_what_is_sent_is_there_whole_and_by_its_name(tmp_path: Path) -> None:
    with served(tmp_path / "server") as ssh:
        remote = remote_at(ssh, tmp_path / "remote")
        assert (remote.listing("replay"), remote.sizes(["replay/a/b"])) == ({}, {})
        with pytest.raises(NotThere):
            next(remote.chunks("replay/a/b"))
        for name, size in (("a/empty", 0), ("a/small", 10), ("b/large", 20 << 20)):
            data = bytes(range(256)) * (size // 256 + 1)
            (tmp_path / "source").write_bytes(data[:size])
            assert remote.send(f"replay/{name}", tmp_path / "source", digest_bytes(data[:size]))
            assert not remote.send(f"replay/{name}-not", tmp_path / "source", digest_bytes(b"other"))
            assert b"".join(remote.chunks(f"replay/{name}")) == data[:size]
        there = {"a/empty": 0, "a/small": 10, "b/large": 20 << 20}
        assert remote.listing("replay") == there
        assert remote.sizes([f"replay/{name}" for name in there]) == {f"replay/{name}": n for name, n in there.items()}


def test_a_server_that_is_back_is_used_again(tmp_path: Path) -> None:
    with served(tmp_path / "server") as ssh:
        remote = remote_at(ssh, tmp_path / "remote")
        remote.send_bytes("replay/a/b", b"1")
        ssh.stop()
        for _ in range(2):
            with pytest.raises(OutsideError, match="cannot list the remote share at ssh://"):
                remote.listing("replay")
        ssh.start()
        assert remote.listing("replay") == {"a/b": 1}
        remote.send_bytes("replay/a/c", b"2")
        assert b"".join(remote.chunks("replay/a/c")) == b"2"
