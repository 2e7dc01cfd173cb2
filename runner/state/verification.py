"""What `replay verify` says of a run: each check, and whether none failed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from runner.state.spec import Value

Result = Literal["pass", "fail", "skipped"]
NOT_HERE = frozenset({"missing-blob", "missing-log"})
"""Reasons that say nothing of what was recorded, only that it is not here."""
UNTRUSTED = "untrusted-key"
"""The reason where what is signed is whole, and only nobody here has said whose key it is."""


class Check(Value, frozen=True):
    """One step. `reason` is a code that stays the same, `ok` when it passed."""

    name: str
    result: Result
    reason: str
    detail: str = ""


class Verification(Value, frozen=True):
    """The checks in their order."""

    run_id: str
    verified: bool
    checks: tuple[Check, ...]


def failed_for(checks: Iterable[Check]) -> frozenset[str]:
    """The reasons of what failed."""
    return frozenset(check.reason for check in checks if check.result == "fail")


def only_lacks(checks: Iterable[Check]) -> bool:
    """Whether nothing failed but that files are not here."""
    reasons = failed_for(checks)
    return bool(reasons) and reasons <= NOT_HERE
