"""A run as its files, made of nothing, for tests that need no engine."""

from __future__ import annotations

from pathlib import Path

import msgspec

from runner.attest.statement import RunFiles
from runner.state.digest import digest_bytes
from runner.state.record import Outcome, Output, OutputVerdict, Record, ReplayResult, Verdict
from runner.state.spec import StateSpec
from runner.state.strict import dump_record, dump_spec, load_spec

EXAMPLE = Path(__file__).parents[2] / "state_specs" / "examples" / "python-job.yaml"


def run_files(run_id: str = "train-20261121-aaaaaa", *, replay: bool = False, outputs: int = 2) -> RunFiles:
    example: StateSpec = load_spec(EXAMPLE.read_bytes(), "example")
    spec = msgspec.structs.replace(example, run=msgspec.structs.replace(example.run, id=run_id))
    spec_bytes = dump_spec(spec)
    found = tuple(
        Output(f"out/{number}.json", digest_bytes(b"%d" % number), len(b"%d" % number)) for number in range(outputs)
    )
    verdicts = tuple(OutputVerdict(one.path, Verdict.IDENTICAL, "bytes") for one in found)
    record = Record(
        run_id=run_id,
        spec_sha256=digest_bytes(spec_bytes),
        state_digest=spec.digest,
        started="2026-11-21T09:00:00Z",
        outcome=Outcome(ending="exited", exit_code=0, duration_s=1.5),
        outputs=found,
        replay=ReplayResult(replay_of="train-20261120-zzzzzz", verdict=Verdict.IDENTICAL, outputs=verdicts)
        if replay
        else None,
    )
    logs = {"stdout": digest_bytes(b"out"), "stderr": digest_bytes(b""), "order": digest_bytes(b"1")}
    return RunFiles(spec, record, spec_bytes, dump_record(record), logs)
