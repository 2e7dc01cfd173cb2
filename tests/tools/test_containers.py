"""The door to the engine: which engine is meant, how its streams are read, what a container is asked to be."""

from __future__ import annotations

import itertools
import json
import socket
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import OutsideError, UsageError
from runner.state.spec import Limits
from runner.tools.attached import Attached
from runner.tools.container_request import DEFAULT_PROCESSES, ContainerRequest, Mount, container_config
from runner.tools.containers import connect, refusal_in
from runner.tools.docker_context import context_host


@pytest.fixture
def docker_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A docker client's settings that name no engine yet."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path


def context(folder: Path, name: str, host: str) -> None:
    meta = folder / "contexts" / "meta" / name.ljust(64, "0")
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": host}}}))


# --- which engine --------------------------------------------------------------------------------------------


def test_the_engine_is_the_one_that_the_docker_client_would_use(
    docker_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert context_host() is None
    context(docker_config, "one", "unix:///one.sock")
    context(docker_config, "two", "tcp://127.0.0.1:2")
    assert context_host() is None, "a context counts when it is chosen"
    (docker_config / "config.json").write_text('{"currentContext": "one"}')
    assert context_host() == "unix:///one.sock"
    monkeypatch.setenv("DOCKER_CONTEXT", "two")
    assert context_host() == "tcp://127.0.0.1:2"
    with pytest.raises(OutsideError, match=r"tcp://127\.0\.0\.1:2"):
        connect()
    monkeypatch.setenv("DOCKER_HOST", "unix:///of-docker-host.sock")
    with pytest.raises(OutsideError, match="unix:///of-docker-host"):
        connect()
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    assert context_host() is None


def test_a_context_that_is_not_there(docker_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "gone")
    with pytest.raises(UsageError, match="'gone' does not exist"):
        connect()


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', '{"currentContext": null}', '{"currentContext": ""}', "\x00"])
def test_settings_that_cannot_be_read_name_no_engine(docker_config: Path, text: str) -> None:
    (docker_config / "config.json").write_text(text)
    context(docker_config, "broken", "x")
    for meta in docker_config.glob("contexts/meta/*/meta.json"):
        meta.write_text(text)
    assert context_host() is None


@pytest.mark.parametrize(
    "host",
    ["nonsense", "foo://x", "tcp://256.0.0.1:1", "ssh://nobody@127.0.0.1:1", "://", "http+docker://x"],
)
def test_an_engine_that_cannot_be_is_an_error_for_people(
    docker_config: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    with pytest.raises(OutsideError) as caught:
        connect()
    assert host in caught.value.what
    assert caught.value.next


# --- its streams ---------------------------------------------------------------------------------------------


class FakeClient:
    """Only what `Attached` asks of the SDK."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def attach_socket(self, _container: str, params: dict[str, Any]) -> socket.socket:
        return self._end


def frame(kind: int, data: bytes) -> bytes:
    return struct.pack(">BxxxL", kind, len(data)) + data


@given(
    st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=50)), max_size=12),
    st.lists(st.integers(0, 700), max_size=8),
    st.integers(0, 12),
)
def test_frames_come_out_as_they_went_in(frames: list[tuple[int, bytes]], cuts: list[int], lost: int) -> None:
    """However the connection cuts them up; a frame that never came whole is not given."""
    wire = b"".join(frame(kind, data) for kind, data in frames)
    whole = wire + frame(1, b"never whole")[:lost]
    here, there = socket.socketpair()
    attached = Attached(FakeClient(here), "c", False)  # type: ignore[arg-type]
    found: list[tuple[int, bytes]] = []
    ends = sorted({0, len(whole), *(cut % (len(whole) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(ends):
        there.sendall(whole[start:end])
        found += attached.read() or []
    there.close()
    assert attached.read() is None
    attached.close()
    assert found == frames


def test_what_is_sent_to_a_container_that_has_gone_is_no_error() -> None:
    here, there = socket.socketpair()
    attached = Attached(FakeClient(here), "c", True)  # type: ignore[arg-type]
    there.close()
    attached.send(b"x" * 1_000_000)
    attached.close()


_FATAL = b"[FATAL tini (7)] exec sh failed: No such file or directory\n"
_CATATONIT = b"ERROR (catatonit:2): failed to exec pid1: No such file or directory\n"
_CLOSED = b"Error: write unixpacket @->/proc/self/fd/13/attach: write: broken pipe\n"


@pytest.mark.parametrize(
    ("said", "refusal"),
    [
        (_FATAL, "No such file or directory"),
        (_CATATONIT, "No such file or directory"),
        (_CATATONIT + _CLOSED, "No such file or directory"),
        (_CLOSED, "broken pipe"),
        (_CLOSED.rstrip(), "broken pipe"),
        (b"", None),
        (b"a job's own words\n", None),
        (b"a job's own words\n" + _CLOSED, None),
        (_FATAL + b"and more\n", None),
    ],
)
def test_why_a_program_was_not_started_is_read_from_what_the_engine_says(said: bytes, refusal: str | None) -> None:
    assert refusal_in(said) == refusal


# --- what is asked for ---------------------------------------------------------------------------------------


def asked(**changes: Any) -> dict[str, Any]:
    from docker import APIClient

    client = APIClient(base_url="unix:///nowhere.sock", version="1.41")
    request = ContainerRequest(image="i", command=("c",), user="1:1", workdir="/workspace", **changes)
    return container_config(client, request)


def test_a_container_is_shut_in_unless_more_is_asked_for() -> None:
    host = asked()["HostConfig"]
    assert (host["CapDrop"], host["SecurityOpt"], host["ReadonlyRootfs"]) == (["ALL"], ["no-new-privileges"], True)
    assert (host["NetworkMode"], host["Init"], host["LogConfig"]["Type"]) == ("none", True, "none")
    assert host["PidsLimit"] == DEFAULT_PROCESSES
    assert "Memory" not in host
    assert asked(network="bridge")["HostConfig"]["NetworkMode"] == "bridge"
    assert asked()["Entrypoint"] == [""], "the image's own is set aside"


def test_limits_and_mounts_are_asked_for_as_they_are() -> None:
    limits = Limits(memory=1 << 30, cpus=1.5, gpus=2, shm=1 << 20, processes=7)
    mounts = (Mount(Path("/a: b,c"), "/workspace/d"), Mount(Path("/w"), "/workspace", read_only=False))
    host = asked(limits=limits, mounts=mounts)["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["ShmSize"]) == (1 << 30, 1 << 30, 1 << 20)
    assert (host["NanoCpus"], host["PidsLimit"]) == (1_500_000_000, 7)
    assert host["DeviceRequests"] == [{"Driver": "", "Count": 2, "Capabilities": [["gpu"]]}]
    assert host["Mounts"] == [
        {"Type": "bind", "Source": "/a: b,c", "Target": "/workspace/d", "ReadOnly": True},
        {"Type": "bind", "Source": "/w", "Target": "/workspace", "ReadOnly": False},
    ]
