"""One verdict over several replays, per output: what they differ in among themselves is set against the original.

No job is run: outputs of runs that never were are put into a store.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.compare import compare_outputs, not_probed
from runner.layers.host import differences
from runner.replay import Original, Replayed, at_best, compare_with, diagnosis, overall
from runner.run import Session
from runner.state.digest import digest_bytes
from runner.state.record import (
    CheckResult,
    Ending,
    Outcome,
    Output,
    OutputProblem,
    OutputVerdict,
    Record,
    ReplayResult,
    Verdict,
    worst,
)
from runner.state.spec import (
    Access,
    Contract,
    HostSeen,
    Image,
    Observed,
    OutputRule,
    RunInfo,
    State,
    StateSpec,
    ToolInfo,
)
from runner.store.store import Store, open_store
from runner.tools.containers import Engine
from runner.tools.interrupts import Interrupts
from runner.workspace import Workspace

DIGEST = digest_bytes(b"")
RULES = {"m.json": OutputRule("json", atol=1.0), "raw": OutputRule()}
HERE = HostSeen(machine="x86_64", cpu="old", flags=("avx2", "avx512f"), cores=2, kernel="6.1", engine="Engine 20.10")
THERE = HostSeen(machine="x86_64", cpu="new", flags=("avx2", "sve"), cores=8, kernel="6.8", engine="podman 4.3.1")


def spec_of(number: int, host: HostSeen) -> StateSpec:
    state = State(
        command=("true",),
        code=DIGEST,
        image=Image("linux/amd64", ()),
        access=Access(network="none", determinism="off"),
    )
    run = RunInfo(id=f"j-20261120-aaaaa{number}", job="j", created="", tool=ToolInfo(version="1"))
    return StateSpec(run=run, state=state, observed=Observed(host=host), contract=Contract(RULES), digest=DIGEST)


def kept(store: Store, value: float, raw: str) -> tuple[Output, ...]:
    contents = {"m.json": json.dumps({"x": value}).encode(), "raw": raw.encode()}
    return tuple(Output(path, store.blobs.put_bytes(data), len(data)) for path, data in contents.items())


def record(number: int, outputs: tuple[Output, ...], result: ReplayResult | None = None) -> Record:
    return Record(
        run_id=f"j-20261120-aaaaa{number}",
        spec_sha256=DIGEST,
        state_digest=DIGEST,
        started="",
        outcome=Outcome(ending="exited", exit_code=0, duration_s=0),
        outputs=outputs,
        replay=result,
    )


class Replays:
    """An original that gave 10, and replays that gave `values`, in `m.json` with a tolerance of 1 either way; `raws` in
    a file that is compared as bytes. `host` is the replays'."""

    def __init__(self, folder: Path, values: list[float], raws: list[str] | None = None, host: HostSeen = HERE) -> None:
        store = open_store(folder / ".replay", create=True)
        self.session = Session(Workspace(folder, store), cast(Engine, None), cast(Interrupts, None), lambda _text: None)
        self.original = Original(spec_of(0, HERE), record(0, kept(store, 10, "a")))
        self.done = []
        for number, (value, raw) in enumerate(zip(values, raws or "a" * len(values), strict=True), 1):
            outputs = kept(store, value, raw)
            sides = [{one.path: one for one in taken} for taken in (self.original.record.outputs, outputs)]
            found = compare_outputs(*sides, RULES, store.blobs.verified)
            verdict = worst([one.verdict for one in found])
            result = ReplayResult(replay_of=self.original.spec.run.id, verdict=verdict, outputs=found)
            self.done.append(Replayed(spec_of(number, host), record(number, outputs, result)))

    def overall(self) -> ReplayResult:
        return overall(self.session, self.original, self.done)

    def output(self, path: str = "m.json") -> OutputVerdict:
        return next(one for one in self.overall().outputs if one.path == path)


@pytest.mark.parametrize(
    ("values", "verdict", "detail"),
    [
        ([10, 10], "identical", ""),
        ([10.5, 10, 9.5], "equivalent", "inside rtol 0, atol 1"),
        ([10.9, 9.1], "equivalent", "inside"),
        ([12, 12], "diverged", "10 became 12"),
        ([12, 12.5], "diverged", "10 became 12"),
        ([12, 14], "nondeterministic", "replays 1 and 2 disagree: "),
        ([12, 12, 14], "nondeterministic", "replays 1 and 3 disagree: "),
        ([12, 14], "nondeterministic", "; from the original: "),
        ([10, 12], "nondeterministic", "replays 1 and 2 disagree: "),
        ([10.5, 11.2], "nondeterministic", "only some of 2 replays differ beyond the tolerance; from the original: "),
        ([12], "diverged", "10 became 12"),
    ],
)
def test_among_themselves_against_the_original(tmp_path: Path, values: list[float], verdict: str, detail: str) -> None:
    replays = Replays(tmp_path, values)
    found = replays.output()
    assert str(found.verdict) == verdict and detail in found.detail, found
    assert str(replays.overall().verdict) == verdict
    said = {"nondeterministic": ("nondeterminism",), "diverged": ("unknown",)}.get(verdict, ())
    assert diagnosis(replays.original, replays.done, replays.overall()).kind == said


def test_each_output_has_a_verdict_of_its_own(tmp_path: Path) -> None:
    replays = Replays(tmp_path, [10.5, 9.5], ["b", "c"])
    assert [str(replays.output(path).verdict) for path in ("m.json", "raw")] == ["equivalent", "nondeterministic"]
    assert replays.overall().verdict is Verdict.NONDETERMINISTIC


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(st.sampled_from([10, 10.5, 9.1, 11.2, 12, 12.5, 14]), min_size=1, max_size=4))
def test_replays_inside_the_tolerance_never_fail_together(tmp_path: Path, values: list[float]) -> None:
    """And the order in which they were made never decides whether they are good."""
    found = {Replays(tmp_path, order).output().verdict for order in (values, values[::-1])}
    is_good = all(abs(value - 10) <= 1 for value in values)
    assert (found <= {Verdict.IDENTICAL, Verdict.EQUIVALENT}) == is_good
    if len(values) > 1 and any(abs(value - 10) <= 1 for value in values) and not is_good:
        assert found == {Verdict.NONDETERMINISTIC}


def of(**given: object) -> Record:
    """A record, but for what is given as that of `record`."""
    return msgspec.structs.replace(record(1, ()), **given)


def ended(exit_code: int, ending: Ending = "exited") -> Outcome:
    return Outcome(ending=ending, exit_code=exit_code, duration_s=1)


def taken(path: str, content: bytes, executable: bool = False) -> Output:
    return Output(path, digest_bytes(content), len(content), executable)


HALTS, WARNS = (
    CheckResult(name="c", on="raw", kind="table", result="fail", action=action) for action in ("halt", "warn")
)
RAW, OTHER, JSON, SPACED = taken("raw", b"a"), taken("raw", b"b"), taken("m.json", b'{"x": 1}'), taken("m.json", b"{}")
RECORDS = [
    of(),
    of(outputs=(RAW,)),
    of(outputs=(OTHER,)),
    of(outputs=(taken("raw", b"a", True),)),
    of(set_apart=(RAW,), checks=(HALTS,), outcome=ended(6, "halted")),
    of(outputs=(RAW,), checks=(HALTS,)),
    of(outputs=(RAW,), checks=(WARNS,)),
    of(outputs=(RAW,), outcome=ended(1)),
    of(outputs=(RAW,), outcome=ended(0, "time-limit")),
    of(outputs=(RAW, JSON)),
    of(outputs=(RAW, SPACED)),
    of(outputs=(JSON,), problems=(OutputProblem("raw", "missing"),)),
    of(outputs=(JSON,), problems=(OutputProblem("raw", "unreadable"),)),
    of(outputs=(JSON,), problems=(OutputProblem("raw", "secret", masked=DIGEST),)),
]


@pytest.mark.parametrize("after", range(len(RECORDS)))
@pytest.mark.parametrize("before", range(len(RECORDS)))
def test_no_comparison_is_better_than_digests_allow(tmp_path: Path, before: int, after: int) -> None:
    """And none is worse, but where a tolerance decides."""
    session = Replays(tmp_path, []).session
    for content in (b"a", b"b", b'{"x": 1}', b"{}"):
        session.workspace.store.blobs.put_bytes(content)
    original = Original(spec_of(0, HERE), RECORDS[before])
    best = at_best(original, RECORDS[after])
    found = compare_with(session, original, original.spec.observed, RECORDS[after], not_probed).verdict
    tolerable = {JSON, SPACED} <= {*RECORDS[before].outputs, *RECORDS[after].outputs}
    assert found is best or (tolerable and worst([best, found]) is found), (best, found)


def test_a_host_that_differs_is_named_with_how(tmp_path: Path) -> None:
    assert differences(HERE, HERE) == []
    told = differences(HERE, THERE)
    assert told == [
        "cpu (old → new)",
        "flags (without avx512f, with sve)",
        "cores (2 → 8)",
        "kernel (6.1 → 6.8)",
        "engine (Engine 20.10 → podman 4.3.1)",
    ]
    assert differences(HostSeen(), HostSeen(cpu="new"))[0] == "cpu (unknown → new)"
    replays = Replays(tmp_path, [12, 12], host=THERE)
    found = diagnosis(replays.original, replays.done, replays.overall())
    assert found.kind == ("host",) and "cpu (old → new)" in found.evidence[0]
