"""The command `erase`, as far as it only says what it would do."""

from __future__ import annotations

import json

import pytest

from runner.cli.main import run
from tests.attest.made import Signed

RUN = "train-20261121-erased"


@pytest.fixture
def made(signed: Signed, monkeypatch: pytest.MonkeyPatch) -> Signed:
    """A workspace of somebody who has no signing key."""
    signed.run(RUN)
    monkeypatch.chdir(signed.root)
    monkeypatch.delenv("REPLAY_STORE", raising=False)
    monkeypatch.delenv("REPLAY_SIGN_COMMAND", raising=False)
    return signed


def test_what_would_be_erased_is_said_without_a_reason_or_a_key(
    made: Signed, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["erase", RUN, "out.txt", "--dry-run", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [one["path"] for one in said["erased"]] == ["out.txt"] and said["removed"] == []
    assert made.verify(RUN).verified and made.store.blobs.has(said["erased"][0]["sha256"])


@pytest.mark.parametrize(("words", "said"), [([], "why is it erased?"), (["--reason", "asked"], "no signing key")])
def test_nothing_is_erased_without_both(
    made: Signed, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["erase", RUN, "out.txt", *words, "--json"]) == 2
    assert said in json.loads(capsys.readouterr().out)["error"]["what"]
    assert made.verify(RUN).verified
