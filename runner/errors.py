"""The one family of errors that a user sees: what failed, why, what to do next.

Anything else that escapes is an error of this tool's own (exit code 70).
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every command."""

    OK = 0
    DIFFERENT = 1
    USAGE = 2
    UNREBUILDABLE = 3
    JOB_FAILED = 4
    TAMPERED = 5
    REFUSED = 6
    OUTSIDE = 7
    INTERNAL = 70
    INTERRUPTED = 130


class ReplayError(Exception):
    """A failure that the user can act on.

    `what` says in one line what failed, `why` gives the reason with file and line where there is one,
    `next` the command or edit that mends it.
    """

    code: Exit = Exit.USAGE

    def __init__(self, what: str, why: str = "", next: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.next = next


class UsageError(ReplayError):
    """The command line or a file written by a person is wrong."""

    code = Exit.USAGE


class UnrebuildableError(ReplayError):
    """A pin cannot be had again."""

    code = Exit.UNREBUILDABLE


class TamperedError(ReplayError):
    """A spec, record or blob is not what was recorded."""

    code = Exit.TAMPERED


class RefusedError(ReplayError):
    """Policy forbids it."""

    code = Exit.REFUSED


class OutsideError(ReplayError):
    """The engine, the network, the disk or another program failed."""

    code = Exit.OUTSIDE


class InterruptedRunError(ReplayError):
    """The user or the system asked us to stop."""

    code = Exit.INTERRUPTED
