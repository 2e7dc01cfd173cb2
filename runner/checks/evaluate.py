"""One check against one file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from runner.checks.judge import metric_problems, read_document, refuse_large, schema_problems, table_problems
from runner.errors import UsageError
from runner.state.spec import Check

_MOST_TOLD = 5


class Found(msgspec.Struct, frozen=True):
    """`detail` says what is not met, or why nothing could be said."""

    result: Literal["pass", "fail", "error"]
    detail: str = ""


def evaluate(check: Check, file: Path) -> Found:
    """What `file` is to a check of kind `schema`, `table` or `metrics`. Never raises for what is in the file."""
    from runner.tables.malformed import MalformedError

    try:
        problems = list(_problems(check, file))
    except MalformedError as error:
        return Found("error", str(error))
    except OSError as error:
        return Found("error", error.strerror or "it cannot be read")
    except UsageError as error:
        return Found("error", f"{error.what}: {error.why}" if error.why else error.what)
    return told(problems)


def told(problems: Sequence[str]) -> Found:
    """What is not met, the first few of it."""
    if not problems:
        return Found("pass")
    more = f"; and {len(problems) - _MOST_TOLD} more" if len(problems) > _MOST_TOLD else ""
    return Found("fail", "; ".join(problems[:_MOST_TOLD]) + more)


def _problems(check: Check, file: Path) -> Iterable[str]:
    if check.table is not None:
        from runner.checks.count import count

        return table_problems(count(file, check.table), check.table)
    refuse_large(file.stat().st_size, check.on)
    document = read_document(file.read_bytes(), check.on)
    if check.schema is not None:
        return schema_problems(document, check.schema)
    return metric_problems(document, check.metrics or {})
