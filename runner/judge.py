"""Judges: is a run good, bad, or can it not be told?

By default a run is good when its outputs are those of the good run, within the job's tolerances. What is neither good's
nor bad's counts as bad, and is noted: two changes may both move an output. A crash that the bad run did not have says
nothing.
"""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from runner.bisect.model import Outcome
from runner.compare import compare_outputs
from runner.errors import ReplayError, TamperedError, UsageError
from runner.shown import few
from runner.state.digest import Digest
from runner.state.paths import covers, is_below
from runner.state.record import GOOD, Output, Record
from runner.state.spec import OutputRule
from runner.store.blobs import copy_out
from runner.store.runs import Run
from runner.store.store import Store

_THRESHOLD = re.compile(r"\s*(>=|<=|==|!=|>|<)\s*(\S+)\s*")
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_MOST_READ = 1 << 20
_SHOWN = 60
_MOST_NAMED = 8
_PROGRAM_SKIPS = 125
_NOT_FOUND = 127


class Wanted(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the person wants it judged: by a command, a metric with its threshold, one output, or all outputs. `files`
    are those that the command names, by their digests: with another content it is another judge."""

    command: str | None = None
    metric: str | None = None
    good: str | None = None
    output: str | None = None
    files: Mapping[str, str] = {}


class Judged(msgspec.Struct, frozen=True):
    """`shown` is what a person should see of the run; `note` what the outcome does not say."""

    outcome: Outcome
    shown: str = ""
    note: str = ""


class Judge(Protocol):
    def __call__(self, run: Run, record: Record) -> Judged: ...


class Ends(msgspec.Struct, frozen=True):
    """The two recorded runs, and the rules by which outputs are compared."""

    store: Store
    good: Run
    good_record: Record
    bad: Run
    bad_record: Record
    rules: Mapping[str, OutputRule]


RunProgram = Callable[[str, Path, Mapping[str, str]], int]


def make_judge(wanted: Wanted, ends: Ends, run_program: RunProgram) -> Judge:
    """Raises `UsageError` for what cannot be meant."""
    if sum(one is not None for one in (wanted.command, wanted.metric, wanted.output)) > 1:
        raise UsageError("--judge, --metric and --output exclude each other", next="give one of them")
    if (wanted.metric is None) != (wanted.good is None):
        raise UsageError("--metric and --good go together", next="--metric metrics.json:accuracy --good '>= 0.9'")
    if wanted.command is not None:
        return _ByCommand(wanted.command, ends, run_program)
    if wanted.metric is not None and wanted.good is not None:
        return _ByMetric(wanted.metric, wanted.good, ends)
    return _ByOutputs(wanted.output, ends)


# --- by outputs -----------------------------------------------------------------------------------------------


class _ByOutputs:
    def __init__(self, only: str | None, ends: Ends) -> None:
        self._ends = ends
        self._only = only
        good, bad = self._outputs(ends.good_record), self._outputs(ends.bad_record)
        if only is not None and not good and not bad:
            raise UsageError(f"--output: neither run has {only}", next="`replay outputs RUN` lists what there is")
        self._teller = _teller(ends.store, good, bad)

    def __call__(self, run: Run, record: Record) -> Judged:
        good, bad = self._ends.good_record, self._ends.bad_record
        if not _ended_alike(record, good) and not _ended_alike(record, bad):
            return Judged(Outcome.UNRESOLVED, _ended(run, record))
        if not _ended_alike(record, good):
            alike = _last_words(run) == _last_words(self._ends.bad)
            return Judged(Outcome.BAD if alike else Outcome.UNRESOLVED, _ended(run, record))
        if self._same(good, record):
            return Judged(Outcome.GOOD, self._teller(self._outputs(record)) or _ended(run, record))
        shown = self._telling(self._outputs(record)) or _ended(run, record)
        if _ended_alike(bad, good) and self._same(bad, record):
            return Judged(Outcome.BAD, shown)
        return Judged(Outcome.BAD, shown, "neither good's nor bad's")

    def _telling(self, outputs: Mapping[str, Output]) -> str:
        """The value by which the two ends are told apart; where that is good's, the first one that is not."""
        good, shown = self._outputs(self._ends.good_record), self._teller(outputs)
        return shown if shown != self._teller(good) else _teller(self._ends.store, good, outputs)(outputs)

    def _same(self, one: Record, other: Record) -> bool:
        found = compare_outputs(
            self._outputs(one), self._outputs(other), self._ends.rules, self._ends.store.blobs.verified
        )
        problems = [sorted((p.path, p.problem, p.masked or "") for p in record.problems) for record in (one, other)]
        return all(verdict.verdict in GOOD for verdict in found) and problems[0] == problems[1]

    def _outputs(self, record: Record) -> dict[str, Output]:
        wanted = self._only
        return {one.path: one for one in record.outputs if wanted is None or covers(wanted.rstrip("/"), one.path)}


def _ended_alike(one: Record, other: Record) -> bool:
    a, b = one.outcome, other.outcome
    return (a.ending, a.exit_code) == (b.ending, b.exit_code)


def _ended(run: Run, record: Record) -> str:
    outcome = record.outcome
    how = f"exit {outcome.exit_code}" if outcome.ending == "exited" else outcome.ending
    words = _last_line(run) if not record.ok else ""
    return _cut(f"{how}: {words}" if words else how)


def _last_words(run: Run) -> str:
    """The kind of error that a job ended with: its last line on stderr, up to the first colon."""
    return _last_line(run).partition(":")[0].strip()


def _last_line(run: Run) -> str:
    try:
        with (run.folder / "stderr").open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _MOST_READ))
            lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    return lines[-1].strip() if lines else ""


# --- what to show of outputs --------------------------------------------------------------------------------


def _teller(
    store: Store, good: Mapping[str, Output], bad: Mapping[str, Output]
) -> Callable[[Mapping[str, Output]], str]:
    """Shows the first value in which the two ends differ: a JSON value, or else a line of text."""
    for path in sorted(good.keys() & bad.keys()):
        before, after = (_text(store, one[path]) for one in (good, bad))
        if before is None or after is None or before == after:
            continue
        values = _flat(before), _flat(after)
        for key in values[0]:
            if values[0][key] != values[1].get(key):
                return lambda outputs, path=path, key=key: _value(store, outputs, path, key)  # type: ignore[misc]
        lines = before.splitlines(), after.splitlines()
        differing = [at for at in range(min(map(len, lines))) if lines[0][at] != lines[1][at]]
        return lambda outputs, path=path, at=(differing or [0])[0]: _line(store, outputs, path, at)  # type: ignore[misc]
    moved = [path for path in sorted(good.keys() & bad.keys()) if good[path].sha256 != bad[path].sha256]
    return lambda outputs: _digest(outputs, moved or sorted(outputs))


def _digest(outputs: Mapping[str, Output], paths: Sequence[str]) -> str:
    return next((f"{path} {outputs[path].sha256[7:15]}" for path in paths if path in outputs), "")


def _value(store: Store, outputs: Mapping[str, Output], path: str, key: str) -> str:
    text = _text(store, outputs[path]) if path in outputs else None
    found = _flat(text).get(key) if text is not None else None
    return _cut(f"{path} {key} {found}") if found is not None else f"{path} has no {key}"


def _line(store: Store, outputs: Mapping[str, Output], path: str, at: int) -> str:
    text = _text(store, outputs[path]) if path in outputs else None
    lines = text.splitlines() if text is not None else []
    return _cut(f"{path} {lines[at].strip()}" if at < len(lines) else f"{path} has {len(lines)} lines")


def _text(store: Store, output: Output) -> str | None:
    if output.size > _MOST_READ:
        return None
    try:
        return store.blobs.read(Digest(output.sha256)).decode()
    except (UnicodeDecodeError, ReplayError):
        return None


def _flat(text: str | None) -> dict[str, str]:
    try:
        found = msgspec.json.decode(text or "")
    except (msgspec.DecodeError, RecursionError):
        return {}
    return dict(_items(found, "")) if isinstance(found, (dict, list)) else {}


def _items(value: Any, name: str) -> Iterator[tuple[str, str]]:
    listed = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in listed:
        yield from _items(inner, f"{name}.{key}" if name else str(key))
    if not isinstance(value, (dict, list)) or not value:
        yield name, msgspec.json.encode(value).decode()


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


# --- by a metric ------------------------------------------------------------------------------------------------


class _ByMetric:
    def __init__(self, metric: str, good: str, ends: Ends) -> None:
        self._path, colon, self._key = metric.rpartition(":")
        if not colon or not self._path or not self._key:
            raise UsageError(f"--metric: {metric!r} names no value", next="FILE:KEY, like metrics.json:scores.accuracy")
        found = _THRESHOLD.fullmatch(good)
        try:
            self._compare, self._threshold = _OPERATORS[found[1]], float(found[2])  # type: ignore[index]
        except (TypeError, ValueError):
            raise UsageError(f"--good: {good!r} is no threshold", next="write it like '>= 0.9'") from None
        self._ends = ends
        self._refuse_unless_there()

    def _refuse_unless_there(self) -> None:
        """A number that neither end has can tell nothing."""
        sides = [self._values(record) for record in (self._ends.good_record, self._ends.bad_record)]
        if any(_number(side.get(self._key)) is not None for side in sides if side is not None):
            return
        if all(side is None for side in sides):
            records = (self._ends.good_record, self._ends.bad_record)
            there = few(sorted({one.path for record in records for one in record.outputs}), _MOST_NAMED)
            raise UsageError(
                f"--metric: neither run has the output {self._path}",
                f"they have {there}" if there else "they have no outputs",
                "`replay outputs RUN` lists what there is",
            )
        keys = {key for side in sides for key, value in (side or {}).items() if _number(value) is not None}
        numbers = few(sorted(keys), _MOST_NAMED)
        raise UsageError(
            f"--metric: {self._path} has no number {self._key} in either run",
            f"it has {numbers}" if numbers else "it is no JSON, or has no number",
            "FILE:KEY with one of these; of nested ones the dotted key" if numbers else "judge by --output or --judge",
        )

    def _values(self, record: Record) -> Mapping[str, str] | None:
        """Those of the file; None where a run does not have it."""
        output = next((one for one in record.outputs if one.path == self._path), None)
        return _flat(_text(self._ends.store, output)) if output else None

    def __call__(self, run: Run, record: Record) -> Judged:
        found = (self._values(record) or {}).get(self._key)
        value = _number(found)
        if value is None:
            alike = not record.ok and _ended_alike(record, self._ends.bad_record)
            alike = alike and _last_words(run) == _last_words(self._ends.bad)
            shown = f"{self._path} has no number {self._key}" if record.ok else _ended(run, record)
            return Judged(Outcome.BAD if alike else Outcome.UNRESOLVED, shown)
        good = self._compare(value, self._threshold)
        return Judged(Outcome.GOOD if good else Outcome.BAD, _cut(f"{self._path} {self._key} {found}"))


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


# --- by a command ----------------------------------------------------------------------------------------------


class _ByCommand:
    """As `git bisect run` has it: 0 is good, 1 to 124 bad, 125 cannot be told, 126 and above stop."""

    def __init__(self, command: str, ends: Ends, run_program: RunProgram) -> None:
        self._command = command
        self._ends = ends
        self._run_program = run_program
        sides = ({one.path: one for one in record.outputs} for record in (ends.good_record, ends.bad_record))
        self._teller = _teller(ends.store, *sides)

    def __call__(self, run: Run, record: Record) -> Judged:
        import tempfile

        with tempfile.TemporaryDirectory(prefix="replay-judge-") as folder:
            for output in record.outputs:
                if not is_below(output.path):
                    raise TamperedError(f"the record of {run.id} is none", f"its output {output.path!r} leads outside")
                place = Path(folder) / output.path
                place.parent.mkdir(parents=True, exist_ok=True)
                copy_out(self._ends.store.blobs.verified(Digest(output.sha256)), place, 0o644)
            facts = {"REPLAY_RUN": run.id, "REPLAY_EXIT_CODE": str(record.outcome.exit_code)}
            code = self._run_program(self._command, Path(folder), facts)
        if code < 0 or code > _PROGRAM_SKIPS:
            hint = (
                "; it runs among the outputs, so name a file of yours by its whole path" if code == _NOT_FOUND else ""
            )
            raise UsageError(
                f"the judge stopped the bisect with exit status {code}",
                f"{self._command} looked at {run.id}{hint}",
                "0 is good, 1 to 124 bad, 125 cannot be told; mend it and ask again: what was tried is used",
            )
        outcome = Outcome.GOOD if code == 0 else Outcome.UNRESOLVED if code == _PROGRAM_SKIPS else Outcome.BAD
        value = self._teller({one.path: one for one in record.outputs}) if record.ok else _ended(run, record)
        return Judged(outcome, f"judge said {code}" + (f"; {value}" if value else ""))
