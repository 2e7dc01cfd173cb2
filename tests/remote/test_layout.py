"""What lies in a remote was written by others: it is believed where its digest and its shape hold, and else refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import ReplayError, TamperedError
from runner.remote import layout
from runner.remote.layout import Manifest, RunFile, Shared
from runner.state.digest import digest_bytes

RUN = "train-20261120-k3v9xq"


def a_file(content: bytes) -> RunFile:
    return RunFile(digest_bytes(content), len(content), content)


def written(**changes: Any) -> bytes:
    value = json.loads(layout.encoded(Manifest(RUN, {"spec.yaml": a_file(b"spec")}))) | changes
    return json.dumps(value).encode()


@given(st.dictionaries(st.from_regex(r"[a-z][a-z.]{0,8}", fullmatch=True), st.binary(max_size=99), max_size=5))
def test_a_manifest_is_read_as_it_was_written(files: dict[str, bytes]) -> None:
    manifest = layout.manifest_of(RUN, {name: a_file(content) for name, content in files.items() if name != "lock"})
    data = layout.encoded(manifest)
    assert layout.read_manifest(data, RUN, digest_bytes(data)) == manifest


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "a/b", ".hidden", "", "lock", "a\nb", "..", "a" * 200, "-rf", "a\x00b"]
)
def test_a_file_that_leads_elsewhere_is_refused(name: str) -> None:
    data = written(files={name: {"sha256": digest_bytes(b"x"), "size": 1, "content": "eA=="}})
    with pytest.raises(TamperedError):
        layout.read_manifest(data, RUN, digest_bytes(data))


@pytest.mark.parametrize("path", ["../evil", "/etc/passwd", "a/../../b", ".git/hooks/pre-commit", "", "a//b", "a\x00"])
def test_a_statement_that_leads_elsewhere_is_refused(path: str) -> None:
    data = layout.encoded(Shared(path, b"x"))
    with pytest.raises(TamperedError):
        layout.read_shared(data, digest_bytes(data))


@pytest.mark.parametrize(
    "name", ["../../x", "..", "a", f"{RUN}/abc", f"{RUN}/../x", f" {RUN}/{'0' * 64}", f"/{'0' * 64}"]
)
def test_a_name_that_no_push_gave_is_refused(name: str) -> None:
    with pytest.raises(TamperedError, match="which no push wrote"):
        layout.runs_listed([f"{RUN}/{'0' * 64}", name])
    with pytest.raises(TamperedError):
        layout.shared_listed([name])


@given(st.binary(max_size=200), st.integers(0, 10_000))
def test_bytes_that_others_wrote_end_in_words(noise: bytes, at: int) -> None:
    whole = written()
    for data in (noise, whole[: at % len(whole)], whole[: at % len(whole)] + noise + whole[at % len(whole) :]):
        for digest in (digest_bytes(data), digest_bytes(whole)):
            try:
                assert layout.read_manifest(data, RUN, digest).run_id == RUN
            except ReplayError as error:
                assert error.why


def test_content_that_is_not_its_digest_and_the_manifest_of_another_run_are_refused() -> None:
    lying = written(files={"spec.yaml": {"sha256": digest_bytes(b"spec"), "size": 4, "content": "eHh4eA=="}})
    with pytest.raises(TamperedError, match="is not what was pushed"):
        layout.read_manifest(lying, RUN, digest_bytes(lying))
    other = written(run_id="other-20261120-k3v9xq")
    with pytest.raises(TamperedError, match="is not what was pushed"):
        layout.read_manifest(other, RUN, digest_bytes(other))


def test_what_was_added_later_is_put_together_and_a_contradiction_refused() -> None:
    first = Manifest(RUN, {"spec.yaml": a_file(b"spec"), "sums": a_file(b"1")})
    signed = Manifest(RUN, {"spec.yaml": a_file(b"spec"), "sums": a_file(b"2"), "sigstore.json": a_file(b"s")})
    merged = layout.merged([signed, first])
    assert merged == signed.files and layout.covers(merged, first.files) and not layout.covers(first.files, merged)
    with pytest.raises(TamperedError, match="two different files"):
        layout.merged([first, Manifest(RUN, {"spec.yaml": a_file(b"another")})])
