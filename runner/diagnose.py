"""Diagnosis: what kind of drift it is, which layers say so, and what follows from it. Pure.

The kinds are those of the design, and no more is said than was seen: what was not examined is called unknown.

    execution state drift   pipeline, runtime, schema or access differ
    data drift              only values of the data differ, its schema is equal
    model drift             a declared metric worsens on newer data of equal schema and profile
    nondeterminism          replays of one state disagree among themselves
    host                    replays of one state agree here, and the original was made on another host
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum

import msgspec

from runner.diff import Change, Diff
from runner.shown import few
from runner.state.record import GOOD, OutputVerdict, Verdict

_NAMED = 3
_SHOWN = 60


class Kind(StrEnum):
    EXECUTION_STATE = "execution state drift"
    DATA = "data drift"
    MODEL = "model drift"
    NONDETERMINISM = "nondeterminism"
    HOST = "host"
    UNKNOWN = "unknown"


NEXT = {
    Kind.EXECUTION_STATE: "restore what moved (a replay of the older run does), or accept it by recording a new run",
    Kind.DATA: "look at the columns that moved: if the move is real, retrain or adjust; if not, mend the source",
    Kind.MODEL: "the inputs look as they did and the metric is worse: retrain, or look at the labels",
    Kind.NONDETERMINISM: "fix the seed and the thread count, or declare a tolerance for what may vary",
    Kind.HOST: "replay on the original's host, or record with `determinism: portable`",
}
_LOOK_OUTSIDE = "what is not recorded cannot be compared: look at what the job reads beyond its declaration"

_RENEW = "bring access back (the source, the right to read it, the credential), then replay again"

# The most telling first: what breaks a result directly, before what may have been upgraded in passing.
_EXECUTION_LAYERS = ("schema", "access", "params", "code", "env", "dependencies", "image", "model")


class DataFinding(msgspec.Struct, frozen=True):
    """How the content of one data path moved: breaks of its schema, columns whose values moved; `unexamined` says why
    nothing is known about it."""

    path: str
    schema: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()
    unexamined: str = ""


class MetricFinding(msgspec.Struct, frozen=True):
    """A declared metric against labels, in both runs."""

    name: str
    a: float
    b: float
    worse: bool


class Diagnosis(msgspec.Struct, frozen=True):
    """`next` says what follows from each kind."""

    kind: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    next: tuple[str, ...] = ()


def diagnose(
    found: Diff,
    data: Sequence[DataFinding] = (),
    metrics: Sequence[MetricFinding] = (),
    preprocessing: Sequence[str] = (),
) -> Diagnosis:
    """What kind of drift lies between two states. `preprocessing` are code files marked as such."""
    said: list[tuple[Kind, str]] = [
        (Kind.EXECUTION_STATE, line) for line in _execution_state(found.changes, data, preprocessing)
    ]
    said += _data(found.changes, data, metrics)
    if found.equal and found.outputs:
        said += _same_state(found)
    said += [(Kind.UNKNOWN, f"{layer}: {why}") for layer, why in sorted(found.unknown.items())]
    diagnosis = _diagnosis(said)
    if any(change.layer == "access" for change in found.changes):
        return msgspec.structs.replace(diagnosis, next=(*diagnosis.next, _RENEW))
    return diagnosis


def diagnose_replays(
    outputs: Iterable[OutputVerdict],
    verdict: Verdict,
    replays: int,
    host: Sequence[str],
    access: Sequence[Change] = (),
) -> Diagnosis:
    """Why replays of one state are not what the original was. `host` are fields in which the machines differ, `access`
    is what the job had and has no longer."""
    differing = [one.path for one in outputs if one.verdict not in GOOD]
    if verdict is Verdict.NONDETERMINISTIC:
        return _diagnosis([(Kind.NONDETERMINISM, f"replays of the one state disagree on {few(differing, _NAMED)}")])
    if verdict not in (Verdict.DIVERGED, Verdict.FAILED):
        return Diagnosis()
    said = [(Kind.EXECUTION_STATE, line) for line in _layer("access", access)]
    agree = f"{replays} replays agree" if replays > 1 else "one replay was made"
    if host:
        said.append((Kind.HOST, f"{agree}; the original was made on a host that differs in {few(host, _NAMED)}"))
    if said:
        found = _diagnosis(said)
        renew = {NEXT[Kind.EXECUTION_STATE]: _RENEW}
        return msgspec.structs.replace(found, next=tuple(renew.get(line, line) for line in found.next))
    where = f"on {few(differing, _NAMED)}" if differing else "on how the job ended"
    found = _diagnosis([(Kind.UNKNOWN, f"{agree} {where}, on a host like the original's, from the same state")])
    return msgspec.structs.replace(found, next=(_LOOK_OUTSIDE,))


def _execution_state(
    changes: Sequence[Change], data: Sequence[DataFinding], preprocessing: Sequence[str]
) -> Iterator[str]:
    by_layer = {layer: [one for one in changes if one.layer == layer] for layer in _EXECUTION_LAYERS}
    for layer in _EXECUTION_LAYERS:
        if layer == "schema":
            yield from (_schema(finding) for finding in data if finding.schema)
            continue
        if layer == "code":
            own = [one for one in by_layer[layer] if one.name in preprocessing]
            yield from _layer("code, preprocessing", own)
            by_layer[layer] = [one for one in by_layer[layer] if one not in own]
        yield from _layer(layer, by_layer[layer])


def _schema(finding: DataFinding) -> str:
    moved = f"; besides, {few(finding.moved, _NAMED)}" if finding.moved else ""
    return f"schema: {finding.path}: {few(finding.schema, _NAMED)}{moved}"


def _layer(name: str, changes: Sequence[Change]) -> Iterator[str]:
    """One line; of access one for each, since each is looked after by somebody else."""
    if name == "access":
        yield from (f"access: {_told(one)}" for one in changes)
    elif changes:
        yield f"{name}: {few([_told(one) for one in changes], _NAMED)}"


def _told(change: Change) -> str:
    if change.detail:
        return f"{change.name} ({change.detail})"
    if change.a is not None and change.b is not None and max(len(change.a), len(change.b)) <= _SHOWN:
        return f"{change.name} {change.a} → {change.b}"
    return change.name + (" added" if change.a is None else " removed" if change.b is None else "")


def _data(
    changes: Sequence[Change], data: Sequence[DataFinding], metrics: Sequence[MetricFinding]
) -> Iterator[tuple[Kind, str]]:
    findings = {finding.path: finding for finding in data}
    names = [change.name for change in changes if change.layer == "data"]
    moved = [findings.get(name, DataFinding(name, unexamined="what moved in it was not examined")) for name in names]
    steady = [one for one in moved if not (one.schema or one.moved or one.unexamined)]
    worse = [metric for metric in metrics if metric.worse]
    if worse and steady and len(steady) == len(changes):
        yield from ((Kind.MODEL, f"{metric.name}: {metric.a:g} → {metric.b:g}") for metric in worse)
        return
    for one in moved:
        if one.unexamined:
            yield Kind.UNKNOWN, f"data: {one.path}: {one.unexamined}"
        elif one.moved and not one.schema:
            yield Kind.DATA, f"data: {one.path}: {few(one.moved, _NAMED)}"
        elif one in steady:
            yield Kind.DATA, f"data: {one.path}: values differ; schema and distributions are equal"


def _same_state(found: Diff) -> Iterator[tuple[Kind, str]]:
    names = few([change.name for change in found.outputs], _NAMED)
    if found.host:
        fields = few([change.name for change in found.host], _NAMED)
        yield Kind.HOST, f"the same state gave other bytes in {names}; the hosts differ in {fields}"
    else:
        yield Kind.NONDETERMINISM, f"the same state gave other bytes in {names}, on hosts that look alike"


def _diagnosis(said: Sequence[tuple[Kind, str]]) -> Diagnosis:
    kinds = [kind for kind in Kind if any(kind is one for one, _ in said)]
    return Diagnosis(
        kind=tuple(str(kind) for kind in kinds),
        evidence=tuple(line for kind in kinds for one, line in said if one is kind),
        next=tuple(NEXT[kind] for kind in kinds if kind in NEXT),
    )
