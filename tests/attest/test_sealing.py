"""Sealing: whole or not at all, again where it was cut off, by one key after another, by many at once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jsonschema_rs
import msgspec
import pytest

from runner.attest.checkpoint import load_checkpoint
from runner.attest.merkle import stored_position
from runner.errors import TamperedError
from runner.seal import Sealer, judge_of
from runner.state.schemas import schemas
from runner.store.log import Log
from runner.store.runs import ATTESTED, SIGNED
from runner.verify import read_checkpoints, verify_run
from tests.attest.made import Signed, new_signer, reasons

RUNS = [f"train-20261121-seal{number:02}" for number in range(12)]


def sealed_again(made: Signed, run_id: str) -> None:
    run = made.workspace.run(run_id)
    spec, record = run.spec_and_record()
    assert record
    made.sealer.seal(made.store, run, spec, made.read(run_id, "yaml"), record, made.read(run_id, "record.json"))


@pytest.mark.parametrize("written", range(4))
def test_a_seal_that_was_cut_off_counts_as_none_and_is_made_whole(tmp_path: Path, written: int) -> None:
    made = Signed(tmp_path)
    run = made.run(RUNS[0], replay=True)
    order = [*ATTESTED[1:], SIGNED]
    for name in order[written:]:
        made.write(RUNS[0], name, None)
    assert not run.is_signed()
    assert reasons(made.verify(RUNS[0]))["envelope"] == "unsigned"
    sealed_again(made, RUNS[0])
    assert run.is_signed() and made.verify(RUNS[0]).verified


def test_a_forgotten_run_leaves_nothing_that_was_signed(tmp_path: Path) -> None:
    made = Signed(tmp_path)
    made.run(RUNS[0])
    made.run(RUNS[1], replay=True).forget()
    assert [file.name for file in (tmp_path / "state_specs").iterdir() if RUNS[1] in file.name] == []
    assert made.verify(RUNS[0]).verified, "its entry in the log stays"


def test_many_may_seal_at_once(tmp_path: Path) -> None:
    made = Signed(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(made.run, RUNS))
    assert load_checkpoint(Log(made.store).checkpoint() or b"").checkpoint.size == len(RUNS)
    assert all(made.verify(run_id).verified for run_id in RUNS)


def test_a_new_key_goes_on_with_the_log_of_the_old_one(tmp_path: Path) -> None:
    made = Signed(tmp_path)
    old, new = made.signer, new_signer()
    made.run(RUNS[0])
    made.signer, made.sealer = new, Sealer(new, ())
    with pytest.raises(TamperedError, match="log"):
        made.run(RUNS[1])
    made.sealer = Sealer(new, (old.key,))
    made.run(RUNS[2])
    for run_id in (RUNS[0], RUNS[2]):
        assert verify_run(made.workspace, made.workspace.run(run_id), judge_of([old.key, new.key]), {}).verified
    assert not made.workspace.run(RUNS[1]).is_signed()


def test_a_proof_serves_as_an_earlier_checkpoint(tmp_path: Path) -> None:
    made = Signed(tmp_path)
    for run_id in RUNS[:3]:
        made.run(run_id)
    newest, checkpoint = made.files(RUNS[2], "tlog-proof")[0], Log(made.store).folder / "checkpoint"
    assert len(set(read_checkpoints([newest, checkpoint]).values())) == 1
    assert made.verify(RUNS[0], earlier=read_checkpoints([newest])).verified
    (older,) = read_checkpoints(made.files(RUNS[1], "tlog-proof")[:1]).values()
    checkpoint.write_bytes(older)
    assert made.verify(RUNS[0]).verified, "cut back behind the run"
    assert reasons(made.verify(RUNS[0], earlier=read_checkpoints([newest]))) == {"log-consistency": "log-truncated"}


def test_what_verify_prints_is_what_its_schema_says(tmp_path: Path) -> None:
    made = Signed(tmp_path)
    made.run(RUNS[0])
    validator = jsonschema_rs.Draft202012Validator(schemas()["verify"])
    validator.validate(json.loads(msgspec.json.encode(made.verify(RUNS[0]))))


def test_a_run_is_missed_where_the_log_should_have_it(tmp_path: Path) -> None:
    """Where its own entry was changed and nothing above it, the proofs of others tell, and so does its own."""
    made = Signed(tmp_path)
    for run_id in RUNS[:4]:
        made.run(run_id)
    file = Log(made.store).folder / "hashes"
    kept = file.read_bytes()
    for index, run_id in enumerate(RUNS[:4]):
        data = bytearray(kept)
        data[32 * stored_position(0, index)] ^= 1
        file.write_bytes(data)
        assert reasons(made.verify(run_id)) == {"log-consistency": "log-rewritten"}


def test_fsck_finds_every_change_of_the_log(tmp_path: Path) -> None:
    made = Signed(tmp_path)
    for run_id in RUNS[:5]:
        made.run(run_id)
    log = Log(made.store)
    assert log.damage() is None
    hashes, checkpoint = log.folder / "hashes", log.folder / "checkpoint"
    kept = {file: file.read_bytes() for file in (hashes, checkpoint)}
    for file in kept:
        for at in range(0, len(kept[file]), 16):
            data = bytearray(kept[file])
            data[at] ^= 1
            file.write_bytes(data)
            unsigned = file == checkpoint and at >= kept[file].index("—".encode())
            assert log.damage() or unsigned, at
            file.write_bytes(kept[file])
        for data in (b"", kept[file][:-1]):
            file.write_bytes(data)
            assert log.damage()
        file.unlink()
        assert log.damage()
        file.write_bytes(kept[file])
