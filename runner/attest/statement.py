"""What is said of a run, as in-toto statements.

    provenance    SLSA provenance v1: of what state, under whose tool, these outputs came
    test-result   of a replay: which outputs came out the same
    verdict       of a replay: the verdict, and the tolerances under which it holds

The whole state and contract go into the provenance as they are, and every digest in the state is a resolved
dependency: what is added to a spec one day is in the statement without more. The same files give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from runner.attest.rejected import Rejected
from runner.state.digest import canonical, digest_bytes, is_digest, plain
from runner.state.record import GOOD, Record, ReplayResult, Verdict
from runner.state.spec import StateSpec

STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
VERDICT = "urn:replay-runner:verdict:v1"
BUILD_TYPE = "urn:replay-runner:run:v1"
BUILDER = "urn:replay-runner:replay"

KINDS = {"provenance": PROVENANCE, "test-result": TEST_RESULT, "verdict": VERDICT}
"""Predicate type of each kind of statement."""

_WORDS = {"command", "config", "env", "values"}
"""Keys below which people's own words stand: one that looks like a digest is none."""

_NOTHING = object()

Plain = dict[str, Any]


class RunFiles(msgspec.Struct, frozen=True):
    """A run's values, the bytes that they stand in, and the digests of its logs."""

    spec: StateSpec
    record: Record
    spec_bytes: bytes
    record_bytes: bytes
    logs: dict[str, str]


def statements(run: RunFiles) -> dict[str, bytes]:
    """The bytes of each statement that a run gets, by kind."""
    made = {"provenance": _provenance(run)}
    if run.record.replay:
        made |= {"test-result": _test_result(run.record.replay, run), "verdict": _verdict(run.record.replay, run)}
    return {kind: canonical(_statement(run, KINDS[kind], predicate)) for kind, predicate in made.items()}


def check_statement(kind: str, payload: bytes, run: RunFiles) -> None:
    """Raises `Rejected` unless the statement is of that kind and says of the run what its files say.

    Of an older tool's statement only what stands in it is compared, so that later ones may say more.
    """
    stated = _read(payload)
    if stated.get("_type") != STATEMENT:
        raise Rejected("unknown-statement", str(stated.get("_type"))[:100])
    if stated.get("predicateType") != KINDS[kind]:
        raise Rejected("unknown-predicate", str(stated.get("predicateType"))[:100])
    if canonical(stated) != payload:
        raise Rejected("re-serialised", "its bytes are not those that this content is written in")
    expected = _read(statements(run)[kind])
    if kind == "provenance":
        _check_build(stated, expected)
    if _by_name(stated.get("subject")) != _by_name(expected["subject"]):
        raise Rejected("wrong-subject", "it is not about the spec, the record and the outputs that are here")
    if problem := _contradiction(stated, expected, "statement"):
        raise Rejected("wrong-statement", f"{problem} is not what the spec and the record say")


def stated_digests(payload: bytes, *path: str) -> dict[str, str]:
    """The digests that a list in a statement gives, by name; of what is no such list, none."""
    listed = _at(_read(payload), *path)
    entries = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    return {str(one.get("name")): f"sha256:{_at(one, 'digest', 'sha256')}" for one in entries}


def predicate_type(payload: bytes) -> str | None:
    """Of a statement; None for what is none."""
    stated = _read(payload)
    found = stated.get("predicateType") if stated.get("_type") == STATEMENT else None
    return found if isinstance(found, str) else None


def _check_build(stated: Plain, expected: Plain) -> None:
    build_type = _at(stated, "predicate", "buildDefinition", "buildType")
    if build_type != BUILD_TYPE:
        raise Rejected("unknown-predicate", f"build type {str(build_type)[:100]}")
    invocation = ("predicate", "runDetails", "metadata", "invocationId")
    if _at(stated, *invocation) != _at(expected, *invocation):
        raise Rejected("wrong-run", f"it is about {str(_at(stated, *invocation))[:120]}")


def _read(payload: bytes) -> Plain:
    try:
        found = msgspec.json.decode(payload)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Rejected("malformed", str(error)) from None
    if not isinstance(found, dict):
        raise Rejected("malformed", "it is no JSON object")
    return found


def _at(value: Any, *path: str) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _contradiction(stated: Any, expected: Any, where: str) -> str | None:
    """The place of something stated that the files do not say."""
    if stated == expected:
        return None
    if isinstance(stated, dict) and isinstance(expected, dict):
        found = (_contradiction(item, expected.get(key, _NOTHING), f"{where}.{key}") for key, item in stated.items())
        return next((problem for problem in found if problem), None)
    if isinstance(stated, list) and isinstance(expected, list):
        return None if all(item in expected for item in stated) else where
    return where


def _by_name(subjects: Any) -> dict[str, Any] | None:
    """None for what is no list of subjects, each with a name of its own."""
    if not isinstance(subjects, list) or not all(isinstance(one, dict) for one in subjects):
        return None
    found = {str(one.get("name")): one for one in subjects}
    return found if len(found) == len(subjects) else None


# --- making them ---------------------------------------------------------------------------------------------


def _statement(run: RunFiles, predicate_type: str, predicate: Plain) -> Plain:
    subjects = [_file(f"{run.record.run_id}.yaml", run.spec_bytes)]
    subjects += [_file(f"{run.record.run_id}.record.json", run.record_bytes)]
    subjects += [_named(output.path, output.sha256) for output in run.record.outputs]
    return {"_type": STATEMENT, "subject": subjects, "predicateType": predicate_type, "predicate": predicate}


def _provenance(run: RunFiles) -> Plain:
    spec, record = run.spec, run.record
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "job": spec.run.job,
                "state": plain(spec.state),
                "contract": plain(spec.contract),
                **({"release": plain(spec.run.release)} if spec.run.release else {}),
            },
            "internalParameters": {"stateDigest": record.state_digest},
            "resolvedDependencies": list(_dependencies(spec)),
        },
        "runDetails": {
            "builder": {"id": BUILDER, "version": {"replay": spec.run.tool.version}},
            "metadata": {"invocationId": record.run_id, "startedOn": record.started},
            "byproducts": [_named(name, digest) for name, digest in sorted(run.logs.items())],
        },
    }


def _dependencies(spec: StateSpec) -> Iterator[Plain]:
    observed = plain(spec.observed)
    for path, digest in _digests(plain(spec.state), ()):
        seen = observed.get(path[0]) if path[0] in ("code", "image") else None
        yield _named("/".join(path), digest) | ({"annotations": seen} if seen else {})


def _digests(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every digest in a plain value, with the way to it; a file's is called by the file's name."""
    if isinstance(value, dict):
        file = value.get("wheel") or value.get("file")
        for key, item in value.items():
            if key == "sha256" and file:
                folder = path[:-1] if path[-1].isdecimal() else path
                yield (*folder, str(file)), item
            elif key not in _WORDS:
                yield from _digests(item, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _digests(item, (*path, str(number)))
    elif isinstance(value, str) and is_digest(value):
        yield path, value


def _test_result(replay: ReplayResult, run: RunFiles) -> Plain:
    passed = [one.path for one in replay.outputs if _is_good(one.verdict)]
    failed = [one.path for one in replay.outputs if not _is_good(one.verdict)]
    return {
        "result": "PASSED" if _is_good(replay.verdict) else "FAILED",
        "configuration": [_file(f"{run.record.run_id}.yaml", run.spec_bytes)],
        "passedTests": passed,
        "failedTests": failed,
    }


def _verdict(replay: ReplayResult, run: RunFiles) -> Plain:
    return {**plain(replay), "stateDigest": run.record.state_digest, "tolerances": plain(run.spec.contract)}


def _is_good(verdict: Verdict) -> bool:
    return verdict in GOOD


def _file(name: str, data: bytes) -> Plain:
    return _named(name, digest_bytes(data))


def _named(name: str, digest: str) -> Plain:
    return {"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}


def leaf_data(record_bytes: bytes) -> bytes:
    """What the log holds of a run: its record's digest."""
    return digest_bytes(record_bytes).encode()


def log_digests(sums: Mapping[str, str]) -> dict[str, str]:
    """Of the digests of a run's files, those of what the job printed."""
    return {name: digest for name, digest in sums.items() if name not in ("spec.yaml", "record.json")}
