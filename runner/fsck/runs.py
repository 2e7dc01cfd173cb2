"""Which of a run's files are right: a decision on their bytes alone.

A file's sum vouches for it; so does the record for the spec. Where nothing vouches, a copy is believed when it
can be read and agrees with itself, and two that disagree are both doubted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import msgspec

from runner.errors import ReplayError
from runner.fsck.facts import Hashed, RunFacts
from runner.state.digest import digest_bytes
from runner.state.health import FileKind, FileProblem, Finding, Need
from runner.state.record import Record
from runner.state.spec import StateSpec
from runner.state.strict import check_digest, dump_record, dump_spec, load_record, load_spec
from runner.store.runs import SPECS, SUMS, Sums, read_sums

_Parsed = TypeVar("_Parsed", StateSpec, Record)
_HINT = "restore it from git or from another copy of the store"
_DOUBTED = "it differs from the other copy, and nothing tells which of the two is right"


class JudgedRun(msgspec.Struct, frozen=True):
    """A run's spec and record as far as they are known, what is wrong with its files, and where the bytes of a good
    copy of each are: path to path."""

    run_id: str
    spec: StateSpec | None
    record: Record | None
    findings: tuple[Finding, ...]
    copies: dict[str, str]


class _Copies(msgspec.Struct, frozen=True):
    """The two copies of a spec or record, by path, and what is right."""

    kind: FileKind
    found: dict[str, bytes | None]
    good: bytes | None
    expected: frozenset[str]


def judge_run(facts: RunFacts) -> JudgedRun:
    sums = read_sums(facts.sums) if facts.sums is not None else None
    records = _records(facts, sums)
    record = _record_of(records.good, facts.run_id) if records.good is not None else None
    specs = _specs(facts, sums, record)
    spec = _spec_of(specs.good, facts.run_id) if specs.good is not None else None
    job = spec.run.job if spec else facts.run_id.rsplit("-", 2)[0]
    if facts.running:
        return JudgedRun(facts.run_id, spec, record, (), {})
    findings = [*_of_copies(facts, job, specs), *_of_copies(facts, job, records), *_of_logs(facts, job, sums)]
    if facts.in_store and records.good is not None and sums is None:
        problem: FileProblem = "missing" if facts.sums is None else "damaged"
        detail = "nothing tells whether the logs are whole" if facts.sums is None else "its own check says so"
        findings.append(_finding(facts, job, SUMS, "sums", problem, detail))
    copies = {**_sources(specs), **_sources(records)}
    return JudgedRun(facts.run_id, spec, record, tuple(findings), copies)


def _records(facts: RunFacts, sums: Sums | None) -> _Copies:
    place, reviewed = _paths(facts, "record.json", "record.json")
    found = {place: facts.record, reviewed: facts.reviewed_record}
    good = _right(found, sums, "record.json", functools.partial(_record_of, run_id=facts.run_id), dump_record)
    if good is None and facts.record and facts.reviewed_record:
        good = _fitting(found, facts)
    finished = sums is not None or any(data is not None for data in found.values())
    wanted = {place} if facts.in_store and finished else set()
    if facts.reviewed_spec is not None and finished:
        wanted.add(reviewed)
    return _Copies("record", found, good, frozenset(wanted))


def _fitting(found: Mapping[str, bytes | None], facts: RunFacts) -> bytes | None:
    """Of two records that both can be read, the one that a copy of the spec bears out."""
    specs = {digest_bytes(data) for data in (facts.spec, facts.reviewed_spec) if data is not None}
    read = {data: _record_of(data, facts.run_id) for data in found.values() if data is not None}
    fits = [data for data, record in read.items() if record and record.spec_sha256 in specs]
    return fits[0] if len(fits) == 1 else None


def _specs(facts: RunFacts, sums: Sums | None, record: Record | None) -> _Copies:
    place, reviewed = _paths(facts, "spec.yaml", "yaml")
    found = {place: facts.spec, reviewed: facts.reviewed_spec}
    if record:
        good = next((data for data in found.values() if data and digest_bytes(data) == record.spec_sha256), None)
    else:
        good = _right(found, sums, "spec.yaml", functools.partial(_spec_of, run_id=facts.run_id), dump_spec)
    exists = record is not None or (sums is not None and "spec.yaml" in sums) or facts.reviewed_spec is not None
    wanted = {place} if facts.in_store and exists else set()
    if facts.reviewed_record is not None:
        wanted.add(reviewed)
    return _Copies("spec", found, good, frozenset(wanted))


def _right(
    found: Mapping[str, bytes | None],
    sums: Sums | None,
    name: str,
    parse: Callable[[bytes], _Parsed | None],
    dump: Callable[[_Parsed], bytes],
) -> bytes | None:
    """What the sum vouches for. Without one, what can be read; of two that can, the one that is as it is written."""
    present = {data for data in found.values() if data is not None}
    if sums is not None and name in sums:
        return next((data for data in present if digest_bytes(data) == sums[name].sha256), None)
    read = {data: value for data in present if (value := parse(data)) is not None}
    believed = [data for data, value in read.items() if len(read) == 1 or dump(value) == data]
    return believed[0] if len(believed) == 1 else None


def _record_of(data: bytes, run_id: str) -> Record | None:
    try:
        record = load_record(data, run_id)
    except ReplayError:
        return None
    return record if record.run_id == run_id else None


def _spec_of(data: bytes, run_id: str) -> StateSpec | None:
    try:
        spec = load_spec(data, run_id)
        check_digest(spec, run_id)
    except ReplayError:
        return None
    return spec if spec.run.id == run_id else None


def _of_copies(facts: RunFacts, job: str, copies: _Copies) -> Iterator[Finding]:
    for path, data in copies.found.items():
        if data is None:
            if path in copies.expected:
                yield _finding(
                    facts, job, path, copies.kind, "missing", "its other copy, its sum or its record tells of it"
                )
        elif data != copies.good:
            others = [one for other, one in copies.found.items() if one is not None and other != path]
            doubted = copies.good is None and others and others[0] != data
            detail = _DOUBTED if doubted else "it is not what was written"
            cut = copies.good is not None and copies.good.startswith(data)
            yield _finding(facts, job, path, copies.kind, "truncated" if cut else "damaged", detail)


def _of_logs(facts: RunFacts, job: str, sums: Sums | None) -> Iterator[Finding]:
    for name, sum_ in (sums or {}).items():
        if name in ("spec.yaml", "record.json"):
            continue
        found = facts.files.get(name)
        if found is None and sum_.sha256 not in facts.erased:
            yield _finding(facts, job, name, "log", "missing", "its sum tells of it")
        elif found is not None and found.sha256 != sum_.sha256:
            yield _finding(
                facts, job, name, "log", problem_of(found, sum_.size), found.why or "it is not what was written"
            )


def problem_of(found: Hashed, size: int | None) -> FileProblem:
    """What to call a file whose digest is not what it must be."""
    if found.sha256 is None:
        return "unreadable"
    shorter = found.size == 0 if size is None else found.size < size
    return "truncated" if shorter else "damaged"


def _finding(facts: RunFacts, job: str, path: str, kind: FileKind, problem: FileProblem, detail: str) -> Finding:
    place = path if "/" in path else f"runs/{facts.run_id}/{path}"
    through = {"log": f"log {path}", "sums": "sums of its files"}.get(kind, kind)
    need = Need(run_id=facts.run_id, job=job, through=through)
    return Finding(path=place, kind=kind, problem=problem, detail=detail, needed_by=(need,), hint=_HINT)


def _sources(copies: _Copies) -> dict[str, str]:
    """For each copy that is not right, one that is."""
    good = next((path for path, data in copies.found.items() if data is not None and data == copies.good), None)
    return {path: good for path, data in copies.found.items() if good and data != copies.good}


def _paths(facts: RunFacts, in_store: str, ending: str) -> tuple[str, str]:
    return f"runs/{facts.run_id}/{in_store}", f"{SPECS}/{facts.run_id}.{ending}"
