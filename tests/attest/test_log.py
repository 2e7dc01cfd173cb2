"""The log: it grows by little, keeps what it said, and no other past can be given to it."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import warnings
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.attest import merkle
from runner.attest.checkpoint import Checkpoint, SignedCheckpoint, dump_checkpoint, load_checkpoint, sign_hint
from runner.errors import ReplayWarning, TamperedError
from runner.store.log import Log
from runner.store.store import open_store
from tests.attest.made import Signed, new_signer, reasons
from tests.attest.test_merkle import tree_hash

SIGNER = new_signer()
RUNS = [f"train-20261121-run{number:03}" for number in range(6)]


def sign(checkpoint: Checkpoint) -> SignedCheckpoint:
    return SignedCheckpoint(checkpoint, sign_hint(SIGNER.key.id), SIGNER.sign(checkpoint.text))


def judge(signed: SignedCheckpoint) -> str | None:
    return None if SIGNER.key.verifies(signed.checkpoint.text, signed.signature) else "bad-signature"


def new_log(folder: Path) -> Log:
    return Log(open_store(folder / ".replay", create=True))


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(leaves=st.lists(st.binary(max_size=3), min_size=1, max_size=24))
def test_a_log_is_the_tree_of_its_entries(tmp_path: Path, leaves: list[bytes]) -> None:
    log = new_log(tmp_path / os.urandom(6).hex())
    for number, data in enumerate(leaves):
        proof = log.append(merkle.leaf_hash(data), sign, judge)
        assert proof.index == number and proof.includes(merkle.leaf_hash(data))
        assert proof.signed.checkpoint.root == tree_hash(leaves[: number + 1])
    assert load_checkpoint(log.checkpoint() or b"").checkpoint.size == len(leaves)


def grown(log: Log, leaves: int) -> None:
    """A log of so many entries, written at once as appending one by one would have."""
    hashes, root = tree(hashlib.sha256(b"%d" % number).digest() for number in range(leaves))
    (log.folder / "hashes").write_bytes(hashes)
    (log.folder / "checkpoint").write_bytes(dump_checkpoint(sign(Checkpoint("replay/x", leaves, root))))


def tree(leaves: Iterable[bytes]) -> tuple[bytes, bytes]:
    """All hashes of a tree, and its root."""
    hashes: list[bytes] = []

    def node(level: int, index: int) -> bytes:
        return hashes[merkle.stored_position(level, index)]

    size = 0
    for size, leaf in enumerate(leaves, 1):
        hashes += merkle.completed(size - 1, leaf, node)
    return b"".join(hashes), merkle.root(size, node)


def touched(log: Log, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many times an append reads or writes hashes."""
    counts = [0]
    for name in ("pread", "pwrite"):
        own = getattr(os, name)

        def counted(*arguments: object, own=own) -> object:
            counts[0] += 1
            return own(*arguments)

        monkeypatch.setattr(os, name, counted)
    log.append(merkle.leaf_hash(b"new"), sign, judge)
    monkeypatch.undo()
    return counts[0]


def test_an_append_touches_a_logarithm_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, size in enumerate((10, 1000, 30_000)):
        log = new_log(tmp_path / str(number))
        grown(log, size)
        assert touched(log, monkeypatch) <= 5 * size.bit_length()


@pytest.mark.slow
def test_appending_to_a_million_entries_takes_milliseconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = new_log(tmp_path)
    grown(log, 1_000_000)
    assert touched(log, monkeypatch) <= 5 * 20
    took = []
    for number in range(50):
        before = time.perf_counter()
        log.append(merkle.leaf_hash(b"%d" % number), sign, judge)
        took.append(time.perf_counter() - before)
    assert sorted(took)[25] < 1


def test_what_a_killed_append_left_is_written_over(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    for number in range(5):
        log.append(merkle.leaf_hash(b"%d" % number), sign, judge)
    with (log.folder / "hashes").open("ab") as hashes:
        hashes.write(b"x" * 50)
    proof = log.append(merkle.leaf_hash(b"5"), sign, judge)
    assert proof.signed.checkpoint.root == tree_hash([b"%d" % number for number in range(6)])


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_nothing_is_added_to_a_log_that_was_changed(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    for number in range(5):
        log.append(merkle.leaf_hash(b"%d" % number), sign, judge)
    hashes, checkpoint = (log.folder / "hashes").read_bytes(), (log.folder / "checkpoint").read_bytes()
    last = merkle.stored_position(2, 0) * 32
    other = Checkpoint("replay/x", 5, b"\0" * 32)
    foreign = new_signer()
    forged = SignedCheckpoint(load_checkpoint(checkpoint).checkpoint, b"abcd", foreign.sign(b"x"))
    for damaged in (
        {"hashes": b""},
        {"hashes": hashes[:-1]},
        {"hashes": flip(hashes, last)},
        {"checkpoint": b""},
        {"checkpoint": flip(checkpoint, 3)},
        {"checkpoint": checkpoint.replace(b"\n5\n", b"\n4\n")},
        {"checkpoint": dump_checkpoint(sign(other))},
        {"checkpoint": dump_checkpoint(forged)},
    ):
        for name, content in ({"hashes": hashes, "checkpoint": checkpoint} | damaged).items():
            (log.folder / name).write_bytes(content)
        with pytest.raises(TamperedError):
            log.append(merkle.leaf_hash(b"5"), sign, judge)
        assert (log.folder / "checkpoint").read_bytes() == damaged.get("checkpoint", checkpoint)


def test_a_log_that_is_gone_is_told_and_its_hashes_are_not_written_over(tmp_path: Path) -> None:
    made = Signed(tmp_path)
    folder, proof = Log(made.store).folder, made.store.runs / "train-20261121-pulled" / "tlog-proof"
    proof.parent.mkdir()
    proof.write_bytes(b"c2sp.org/tlog-proof@v1\nindex 0\n\nreplay/another\n1\n")
    with warnings.catch_warnings(action="error"):
        for run_id in RUNS[:2]:
            made.run(run_id)
    hashes = (folder / "hashes").read_bytes()
    (folder / "checkpoint").unlink()
    with pytest.raises(TamperedError, match="not what was written"):
        made.run(RUNS[2])
    assert (folder / "hashes").read_bytes() == hashes
    shutil.rmtree(folder)
    with pytest.warns(ReplayWarning, match="is gone, and another was begun"):
        made.run(RUNS[3])
    assert load_checkpoint((folder / "checkpoint").read_bytes()).checkpoint.size == 1


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Signed, list[bytes]]:
    """Six signed runs, and the log's checkpoint after each."""
    made = Signed(tmp_path_factory.mktemp("logged"))
    checkpoints = []
    for run_id in RUNS:
        made.run(run_id)
        checkpoints.append(Log(made.store).checkpoint() or b"")
    return made, checkpoints


def rewritten(made: Signed, runs: list[bytes]) -> None:
    """Another past of the log, signed by the same key: what only its owner could do."""
    folder = Log(made.store).folder
    origin = load_checkpoint((folder / "checkpoint").read_bytes()).checkpoint.origin
    hashes, root = tree(map(merkle.leaf_hash, runs))
    checkpoint = Checkpoint(origin, len(runs), root)
    signed = SignedCheckpoint(checkpoint, sign_hint(made.signer.key.id), made.signer.sign(checkpoint.text))
    (folder / "hashes").write_bytes(hashes)
    (folder / "checkpoint").write_bytes(dump_checkpoint(signed))


def test_every_earlier_checkpoint_bears_a_log_out(logged: tuple[Signed, list[bytes]]) -> None:
    made, checkpoints = logged
    for run_id in RUNS:
        found = made.verify(run_id, earlier=dict(zip(RUNS, checkpoints, strict=True)))
        assert found.verified, reasons(found)


@pytest.mark.parametrize("at", range(1, 6))
def test_another_past_is_told_by_any_earlier_checkpoint(logged: tuple[Signed, list[bytes]], at: int) -> None:
    """Even one that the owner of the key made up, as long as somebody kept a checkpoint from after what is denied."""
    made, checkpoints = logged
    folder = Log(made.store).folder
    kept = {name: (folder / name).read_bytes() for name in ("hashes", "checkpoint")}
    records = [made.read(run_id, "record.json") for run_id in RUNS]
    entries = [b"sha256:" + hashlib.sha256(data).hexdigest().encode() for data in records]
    earlier = {"published": checkpoints[at]}
    changed = [*entries[:at], b"another", *entries[at + 1 :]]
    try:
        rewritten(made, entries)
        assert made.verify(RUNS[0], earlier=earlier).verified, "the same past, written again"
        for past in (changed, [*entries[:at], *entries[at + 1 :]], changed[: at + 1], entries[:at], [b"0", *entries]):
            rewritten(made, past)
            found = reasons(made.verify(RUNS[0], earlier=earlier))
            size = len(past)
            expected = "truncated" if size < at + 1 else "forked" if size == at + 1 else "rewritten"
            assert found == {"log-consistency": f"log-{expected}"}, past
    finally:
        for name, content in kept.items():
            (folder / name).write_bytes(content)
