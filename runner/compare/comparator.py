"""The interface of a comparator, built in or of another distribution.

A comparator gets two readable files and the output's rule. What it finds wrong in a file is part of its
conclusion; the only exception it may raise is `OSError`, when a file cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from runner.state.record import Verdict
from runner.state.spec import OutputRule

Conclusion = Literal[Verdict.IDENTICAL, Verdict.EQUIVALENT, Verdict.DIVERGED]


class Comparison(msgspec.Struct, frozen=True):
    """`detail` is one line: what differs, or what was tolerated and the tolerance; safe for a terminal."""

    verdict: Conclusion
    detail: str = ""


def _accept(path: str, rule: OutputRule) -> None:
    """Every value of the options is fine."""


class Comparator(msgspec.Struct, frozen=True):
    """`compare(original, replayed, rule)` compares two files. What they hold is told by their content: the
    names of the files say nothing.

    `options` are the keys of `OutputRule`, besides `compare`, that it takes. `check(path, rule)` raises
    `UsageError` for values of them that it cannot use; `path` is the output's, for the message.
    `extra` is what has to be installed beside this tool for it.
    """

    compare: Callable[[Path, Path, OutputRule], Comparison]
    options: frozenset[str] = frozenset()
    check: Callable[[str, OutputRule], None] = _accept
    extra: Literal["tables", "arrays", "images"] | None = None
