"""What `verify` prints of a run that does not verify: what helps, and nothing that would hide what is wrong."""

from __future__ import annotations

import pytest

from runner.cli.signing import _verification_text
from runner.state.verification import Check, Verification


def fail(name: str, reason: str) -> Check:
    return Check(name, "fail", reason)


@pytest.mark.parametrize(
    ("failed", "told"),
    [
        ([fail("envelope", "unsigned"), fail("log-inclusion", "no-proof")], True),
        ([fail("envelope", "unsigned"), fail("log-inclusion", "no-proof"), fail("state", "wrong-state")], False),
        ([fail("envelope", "unsigned"), fail("outputs", "damaged-blob")], False),
        ([fail("release", "unsigned")], False),
    ],
)
def test_only_what_is_whole_is_said_to_be_signed_later(failed: list[Check], told: bool) -> None:
    text = _verification_text(Verification("train-20261121-aaaaaa", False, tuple(failed)), "pull it")
    assert ("`replay sign`" in text) is told
