"""What `replay verify` says of a run: each check, and whether none failed."""

from __future__ import annotations

from typing import Literal

from runner.state.spec import Value

Result = Literal["pass", "fail", "skipped"]


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
