"""The one family of errors that a user sees: what failed, why, what to do next.

Anything else that escapes is an error of this tool's own (exit code 70).
"""

from __future__ import annotations

import errno
import os
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


LONGEST_LINE = 800

_FULL = "free some space (`replay gc`), then run the command again"
_SHUT = "get the right to use it, or name another store (--store); to look at runs, reading is enough"
_DISK_NEXT = {errno.ENOSPC: _FULL, errno.EDQUOT: _FULL} | dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), _SHUT)


class ReplayError(Exception):
    """A failure that the user can act on.

    `what` says in one line what failed, `why` gives the reason with file and line where there is one,
    `next` the command or edit that mends it. Where there are several reasons, `why` has a line for each. A line that
    something read made too long is cut in its middle.
    """

    code: Exit = Exit.USAGE

    def __init__(self, what: str, why: str = "", next: str = "") -> None:
        self.what = _cut(" ".join(what.splitlines()))
        self.why = "\n".join(map(_cut, why.split("\n")))
        self.next = _cut(" ".join(next.splitlines()))
        super().__init__(self.what)


def _cut(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE // 2]} … {line[-LONGEST_LINE // 2 :]}"


class ReplayWarning(UserWarning):
    """Something that the user must be told, and that stops nothing."""


class UsageError(ReplayError):
    """The command line or a file written by a person is wrong."""

    code = Exit.USAGE


class NewerFormatError(UsageError):
    """A file was written by a newer replay."""


class UnrebuildableError(ReplayError):
    """A pin cannot be had again."""

    code = Exit.UNREBUILDABLE


class TamperedError(ReplayError):
    """A spec, record or blob is not what was recorded."""

    code = Exit.TAMPERED


class LostError(TamperedError):
    """A blob that was recorded is no longer in the store: nothing says that anybody changed it."""


class RefusedError(ReplayError):
    """Policy forbids it."""

    code = Exit.REFUSED


class ConsentError(RefusedError):
    """Nobody allowed that a stranger's spec runs here; they still can."""


class OutsideError(ReplayError):
    """The engine, the network, the disk or another program failed."""

    code = Exit.OUTSIDE


class InterruptedRunError(ReplayError):
    """The user or the system asked us to stop."""

    code = Exit.INTERRUPTED


def disk_error(error: OSError, doing: str) -> OutsideError:
    """The user's view of an `OSError` met while `doing` something."""
    place = str(error.filename or "")
    if error.errno == errno.ENOENT and os.path.dirname(place):  # the file itself may be one for the time being
        next_step = f"see that there is a folder {os.path.dirname(place)}"
    else:
        next_step = _DISK_NEXT.get(error.errno or 0) or (f"look at {place}" if place else "")
    return OutsideError(f"cannot {doing}", error.strerror or str(error), next_step)
