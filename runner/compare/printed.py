"""What a model's probe printed for the original and for the replay, which stands for the comparison of the two.

The probe is run by whoever asks for the comparison, inside the recorded environment. JSON is compared by its values,
anything else as text.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from runner.compare import jsonlike, jsonread, text
from runner.compare.comparator import Comparison
from runner.compare.malformed import loaded
from runner.errors import UsageError
from runner.state.digest import Digest
from runner.state.record import Verdict
from runner.state.spec import OutputRule
from runner.tables.malformed import MalformedError

TOLERANT = ("rtol", "atol", "tolerances", "ignore")


class Printed(msgspec.Struct, frozen=True):
    """What a probe printed on stdout; `problem` says why it tells nothing."""

    stdout: bytes = b""
    problem: str = ""


Prober = Callable[[str, Digest, OutputRule], Printed]


def check(path: str, rule: OutputRule) -> None:
    """Raises `UsageError` for a probe that is no command, and for tolerances without one."""
    words = (rule.probe,) if isinstance(rule.probe, str) else rule.probe
    if rule.probe and any(not word.strip() or "\0" in word for word in words):
        raise UsageError(
            f"output {path!r}: `probe` holds an empty word or a NUL byte",
            "it is a command, run in the recorded environment",
            'write it as in `probe: [python, probe.py, "{}"]`',
        )
    given = [name for name in TOLERANT if getattr(rule, name)]
    if given and not rule.probe:
        raise UsageError(
            f"output {path!r}: `{given[0]}` is for what a probe prints, and there is none",
            "a model's bytes have no tolerance",
            f"add a `probe`, or remove `{given[0]}`",
        )
    jsonlike.JSON.check(path, _as_json(rule))


def compare(before: Printed, after: Printed, rule: OutputRule, by_bytes: Comparison) -> Comparison:
    """`by_bytes` holds where the probe tells nothing."""
    for side, one in (("original", before), ("replay", after)):
        if one.problem:
            return Comparison(by_bytes.verdict, f"the probe {one.problem} for the {side}; {by_bytes.detail}")
    found = _compare(before, after, rule)
    if found.verdict is Verdict.IDENTICAL:
        return Comparison(Verdict.EQUIVALENT, "by the probe: it prints the same for both; the bytes differ")
    return Comparison(found.verdict, f"by the probe: {found.detail}")


def _compare(before: Printed, after: Printed, rule: OutputRule) -> Comparison:
    with _file(before.stdout) as a, _file(after.stdout) as b:
        if isinstance(loaded(jsonread.load, a), MalformedError):
            found = text.compare(a, b, OutputRule("text"))
            return msgspec.structs.replace(found, detail=f"as text, which has no tolerance: {found.detail}")
        return jsonlike.JSON.compare(a, b, _as_json(rule))


def _as_json(rule: OutputRule) -> OutputRule:
    return OutputRule("json", **{name: getattr(rule, name) for name in TOLERANT})


@contextmanager
def _file(content: bytes) -> Iterator[Path]:
    """A file in memory, which nobody else sees and nothing leaves behind."""
    with os.fdopen(os.memfd_create("printed"), "wb") as file:
        file.write(content)
        file.flush()
        yield Path(f"/proc/self/fd/{file.fileno()}")
