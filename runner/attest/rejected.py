"""What the readers here raise: a reason code that stays the same, and words for people."""

from __future__ import annotations

from runner.errors import NewerFormatError, ReplayError


class Rejected(Exception):
    """Something is not what it must be. `reason` is one of the stable codes that `verify` reports."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")


def only(copies: tuple[bytes, ...], what: str) -> bytes:
    """The bytes on which all copies agree."""
    if not copies:
        raise Rejected("missing", f"there is no {what}")
    if any(copy != copies[0] for copy in copies):
        raise Rejected("copies-differ", f"state_specs/ and the store have different ones of the {what}")
    return copies[0]


def unreadable(error: ReplayError) -> Rejected:
    reason = "unknown-version" if isinstance(error, NewerFormatError) else "malformed"
    return Rejected(reason, error.why.split("\n")[0] or error.what)
