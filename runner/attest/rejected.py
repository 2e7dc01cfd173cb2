"""What the readers here raise: a reason code that stays the same, and words for people."""

from __future__ import annotations


class Rejected(Exception):
    """Something is not what it must be. `reason` is one of the stable codes that `verify` reports."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")
