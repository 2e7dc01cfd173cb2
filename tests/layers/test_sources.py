"""Declared sources: what can be asked, what is refused, what their answers come to."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.diff import access_changes
from runner.errors import UsageError
from runner.layers import sources
from runner.state.job import Job, JobSource
from runner.state.spec import AccessSeen, SecretSeen, SourceSeen
from runner.tools import reach
from tests.answering import Answering, answering
from tests.conftest import ROOT


@pytest.fixture
def server() -> Iterator[Answering]:
    with answering() as made:
        yield made


def seen(root: Path, uri: str, secret: str | None = None, **secrets: bytes) -> SourceSeen:
    (found,) = sources.observe(root, [JobSource(uri, secret)], secrets)
    return found


def job(*declared: Any, **secrets: str) -> Job:
    return msgspec.convert({"image": "x", "sources": declared, "secrets": secrets}, Job)


# --- what can be declared ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri",
    [
        "data/feed.csv",
        "~/feed",
        "/mnt/feed",
        "file:///mnt/feed",
        "http://host/x",
        "https://reader@host:8443/x",
        "postgres://reader@db/sales",
        "db.example.org:5433",
        "[::1]:5432",
        "tcp://db:99",
        "dvc:prod",
    ],
)
def test_what_can_be_asked(uri: str) -> None:
    assert sources.declared(job(uri)) == (JobSource(uri),)
    assert sources.of_seen([SourceSeen(uri, True)]) == (JobSource(uri),)


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ("", "empty"),
        ("a\x1bb", "cannot be printed"),
        ("s3://bucket/key", "dvc:REMOTE"),
        ("gs://bucket/key", "dvc:REMOTE"),
        ("http:///x", "nothing that can be asked"),
        ("http://u:pass-word@host/x", "a password"),
        ("postgres://u:pass-word@host/x", "a password"),
        ("https://host/x?token=pass-word", "a query"),
        ("http://[u:pass-word@host", "no URI"),
        ("tcp://host:notaport", "a port"),
        ("file://host/pass", "no file of this machine"),
        ({"uri": "http://host/x", "secret": "S"}, "does not declare"),
        ({"uri": "db:5432", "secret": "S"}, "takes no secret"),
    ],
)
def test_what_is_refused_shows_no_password(declared: Any, words: str) -> None:
    with pytest.raises(UsageError) as error:
        sources.declared(job(declared))
    told = f"{error.value.what} {error.value.why} {error.value.next}"
    assert words in told and "pass-word" not in told


def test_one_is_declared_once() -> None:
    with pytest.raises(UsageError, match="twice"):
        sources.declared(job("a", {"uri": "a"}))


def test_a_uri_that_holds_a_secret_is_refused_without_showing_it() -> None:
    with pytest.raises(UsageError) as error:
        sources.refuse_telling([JobSource("a"), JobSource("http://host/s3cr3t-x")], {"S": b"s3cr3t-x"})
    assert "number 2" in error.value.what and "s3cr3t" not in error.value.what + error.value.why + error.value.next


# --- what is answered ----------------------------------------------------------------------------------------


def test_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "feed").write_text("x")
    me = reach.caller()
    assert seen(tmp_path, "feed") == SourceSeen("feed", True, me, "a file that can be read")
    assert seen(tmp_path, f"file://{tmp_path}").reachable
    assert seen(tmp_path, "gone") == SourceSeen("gone", False, me, "No such file or directory")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "feed").write_text("x")
    (tmp_path / "feed").chmod(0)
    assert seen(tmp_path, "feed").status == "Permission denied"


def test_a_named_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert seen(tmp_path, "pipe").reachable


@pytest.mark.parametrize(
    ("status", "reachable", "words"),
    [
        (200, True, "200 OK"),
        (204, True, "204 No Content"),
        (401, False, "401 Unauthorized"),
        (403, False, "403 Forbidden"),
        (404, False, "404 Not Found"),
        (503, False, "503 Service Unavailable"),
        (599, False, "599"),
        (0, False, "it ends the connection without an answer"),
    ],
)
def test_what_a_web_server_says(server: Answering, tmp_path: Path, status: int, reachable: bool, words: str) -> None:
    server.status = status
    assert seen(tmp_path, server.url) == SourceSeen(server.url, reachable, "anonymous", words)


def test_a_server_that_knows_no_head(server: Answering, tmp_path: Path) -> None:
    server.get_only = True
    assert seen(tmp_path, server.url).reachable
    assert [method for method, _ in server.asked] == ["HEAD", "GET"]


def test_a_secret_is_shown_as_token_or_password(server: Answering, tmp_path: Path) -> None:
    server.token = "Bearer s3cr3t-x"
    found = seen(tmp_path, server.url, "S", S=b"s3cr3t-x\n")
    assert found == SourceSeen(server.url, True, "secret S", "200 OK", "S")
    assert seen(tmp_path, server.url, "S", S=b"other") == SourceSeen(
        server.url, False, "secret S", "401 Unauthorized", "S"
    )
    server.token = "Basic " + base64.b64encode(b"reader:s3cr3t-x").decode()
    uri = server.url.replace("//", "//reader@")
    assert seen(tmp_path, uri, "S", S=b"s3cr3t-x") == SourceSeen(uri, True, "reader, secret S", "200 OK", "S")


def test_without_its_secret_a_source_is_not_asked(server: Answering, tmp_path: Path) -> None:
    found = seen(tmp_path, server.url, "S")
    assert not found.reachable and found.status == "secret S cannot be read" and server.asked == []


def test_a_login_stays_on_its_server(server: Answering, tmp_path: Path) -> None:
    with answering() as other:
        server.redirect = other.url + "2"
        assert seen(tmp_path, server.url, "S", S=b"s3cr3t-x").reachable
        assert [shown for _, shown in other.asked] == [None]
        server.redirect = server.url + "2"
        assert seen(tmp_path, server.url, "S", S=b"s3cr3t-x").reachable
    assert {shown for _, shown in server.asked} == {"Bearer s3cr3t-x"}


def test_ports(server: Answering, tmp_path: Path) -> None:
    assert seen(tmp_path, f"postgres://reader@127.0.0.1:{server.port}/x").identity == "reader"
    assert seen(tmp_path, f"127.0.0.1:{server.port}").reachable
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert seen(tmp_path, f"127.0.0.1:{bound.getsockname()[1]}").status == "Connection refused"


def test_all_are_asked_at_once_and_none_for_long(
    server: Answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "PATIENCE_S", 1)
    server.status = -1
    asked = [JobSource(f"{server.url}/{number}") for number in range(20)]
    started = time.monotonic()
    found = sources.observe(tmp_path, asked, {})
    assert {one.status for one in found} == {"no answer within 1 s"} and time.monotonic() - started < 15


def test_a_job_without_sources_pays_nothing(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from runner.layers import sources; sources.observe(pathlib.Path('.'), (), {});"
        "print([name for name in ('runner.tools.reach', 'urllib.request', 'ssl') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert sources.observe(tmp_path, (), {}) == () and done.stdout == "[]\n"


def test_what_hangs_where_nothing_can_end_it_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering() as held:
        askings = [reach.Asking(lambda: reach.Answer(bool(held._ended.wait(120)), "late"), 0.1)]
        assert reach.ask_all(askings) == [reach.Answer(False, "no answer within 0.1 s")]


# --- what moved ----------------------------------------------------------------------------------------------

texts = st.text(max_size=5)
seen_sources = st.lists(
    st.builds(SourceSeen, texts, st.booleans(), texts, texts), max_size=4, unique_by=lambda one: one.uri
).map(tuple)
seen_secrets = st.dictionaries(texts, st.builds(SecretSeen, texts, texts, st.none() | texts), max_size=3)


@given(st.builds(AccessSeen, seen_secrets, seen_sources), st.builds(AccessSeen, seen_secrets, seen_sources))
def test_access_moves_both_ways_or_not_at_all(a: AccessSeen, b: AccessSeen) -> None:
    assert not list(access_changes(a, a))
    there, back = list(access_changes(a, b)), list(access_changes(b, a))
    assert {(one.name, one.a, one.b) for one in there} == {(one.name, one.b, one.a) for one in back}
    assert {one.layer for one in there} <= {"access"}


def test_only_readable_or_not_is_drift_not_as_whom() -> None:
    mine, yours = SourceSeen("f", True, "me", "200 OK"), SourceSeen("f", True, "you", "200 OK")
    refused, closed = SourceSeen("f", False, "me", "403 Forbidden"), SourceSeen("f", False, "me", "closed")
    assert not list(access_changes(AccessSeen(sources=(mine,)), AccessSeen(sources=(yours,))))
    assert not list(access_changes(AccessSeen(sources=(refused,)), AccessSeen(sources=(closed,))))
    assert not list(access_changes(AccessSeen(sources=(mine,)), AccessSeen()))
    (change,) = access_changes(AccessSeen(sources=(mine,)), AccessSeen(sources=(refused,)))
    assert (change.a, change.b) == ("readable as me", "not readable as me: 403 Forbidden")


@pytest.mark.parametrize(
    ("a", "b", "moved"),
    [
        (SecretSeen("env:A", "1", "k"), SecretSeen("env:B", "1", "k"), False),
        (SecretSeen("env:A", "1", "k"), SecretSeen("env:A", "2", "k"), True),
        (SecretSeen("env:A", "1", "k"), SecretSeen("env:A", "2", "other"), False),
        (SecretSeen("env:A", "1"), SecretSeen("env:A", "2"), False),
    ],
)
def test_fingerprints_are_compared_under_one_key(a: SecretSeen, b: SecretSeen, moved: bool) -> None:
    changes = list(access_changes(AccessSeen({"S": a}), AccessSeen({"S": b})))
    assert [one.detail for one in changes] == (["the credential changed"] if moved else [])
