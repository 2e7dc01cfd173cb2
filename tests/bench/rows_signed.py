"""What signing, logging and verifying add."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

from runner.attest.merkle import leaf_hash
from tests.attest.made import Signed
from tests.attest.test_log import grown, judge, new_log, sign
from tests.bench.harness import QUICK, SLOW, Measured, Row, Side, command, in_turns
from tests.bench.laid_out import PLACE, ROOT, Workspace

OUTPUTS, SIZE = 1000, 1 << 19
ENTRIES = 1_000_000
APPENDS = 200


def signing() -> Measured:
    """A run of one second with a key, and the same without."""
    workspace = Workspace("second", {"second": {"command": ["sleep", "1"], "outputs": ["stdout"]}})
    workspace.commit()
    workspace.record("second")
    keys = PLACE / "second-keys"
    shutil.rmtree(keys, ignore_errors=True)
    with_key = os.environ | {"REPLAY_KEYS": str(keys)}
    without = os.environ | {"REPLAY_KEYS": str(PLACE / "no-keys")}
    command([sys.executable, "-m", "runner", "keys", "init", "--plain"], workspace.root, env=with_key)()
    run = workspace.replay("run", "-q", "second")
    return in_turns(
        Side(command(run, workspace.root, env=with_key)), Side(command(run, workspace.root, env=without)), QUICK
    )


def verifying() -> Measured:
    """A run with 1,000 outputs of 512 KiB, verified, and its outputs hashed."""
    folder = PLACE / "thousand"
    shutil.rmtree(folder, ignore_errors=True)
    made = Signed(folder)
    run_id = made.run("train-20261121-bench1", outputs={f"{n}.bin": os.urandom(SIZE) for n in range(OUTPUTS)}).id
    key = folder / "key.pem"
    key.write_bytes(made.signer.key.pem)
    ours = [sys.executable, "-m", "runner", "verify", run_id, "--key", str(key)]
    theirs = "find .replay/blobs -type f -print0 | xargs -0 openssl dgst -sha256"
    here = os.environ | {"PYTHONPATH": str(ROOT)}
    return in_turns(Side(command(ours, folder, env=here)), Side(command(["sh", "-c", theirs], folder)), SLOW)


def appending() -> Measured:
    """To a log of a million entries, and to one of a thousand; a logarithm is twice the other."""
    times = [_append(PLACE / "logs" / str(size), size) for size in (ENTRIES, 1000)]
    return Measured(times[0], times[1], times[0] / times[1])


def _append(folder: Path, size: int) -> float:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log = new_log(folder)
    grown(log, size)
    started = time.perf_counter()
    for number in range(APPENDS):
        log.append(leaf_hash(b"%d" % number), sign, judge)
    return (time.perf_counter() - started) / APPENDS


ROWS = (
    Row("sign", "a warm run of 1 s, signed and logged", "the same, unsigned", 1.05, signing),
    Row("verify", "verifying a run with 1,000 outputs, 512 MiB", "openssl dgst -sha256 of them", 1.3, verifying),
    Row("log", "adding a record to a log of 1,000,000", "to a log of 1,000", 2.0, appending),
)
