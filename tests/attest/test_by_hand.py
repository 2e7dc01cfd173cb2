"""The page that tells how to verify without this tool does: its commands are run as they stand there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from runner.attest.verify import REASONS
from runner.packed import pack
from runner.state.digest import digest_bytes
from runner.state.spec import Binding, Check, ColumnRule, Policy, TableRule
from runner.store.log import Log
from tests.attest.made import Signed

PAGE = Path(__file__).parents[2] / "state_specs" / "VERIFY.md"
RUNS = [f"train-20261121-hand{number}" for number in range(5)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    made = Signed(tmp_path_factory.mktemp("by-hand"))
    for number, run_id in enumerate(RUNS):
        made.run(run_id, replay=number == 3)
    return made


def by_hand(made: Signed, run_id: str, cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    commands = "\n".join(re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))
    key = made.root / "key.pem"
    key.write_bytes(made.signer.key.pem)
    return subprocess.run(
        ["bash", "-c", commands],
        cwd=cwd or made.root,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "RUN": run_id, "KEY": str(key), "TMPDIR": str(made.root)} | more,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("run_id", RUNS)
def test_every_run_is_verified_by_hand(made: Signed, run_id: str) -> None:
    done = by_hand(made, run_id)
    assert done.returncode == 0 and f"verified {run_id}" in done.stdout, done


def test_so_is_one_that_was_bound_to_a_release_whatever_its_state_and_contract_are_called(tmp_path: Path) -> None:
    made, run_id = Signed(tmp_path), "train-20261121-bound1"
    binding = Binding(name="prod", sha256=digest_bytes(b"prod"), policy=Policy("warn"))
    looks_alike = {"job": "x", "state": {"a": {}, "state": {}}, 'q"}{,"state":{': "\\"}
    table = TableRule(columns={"job": "text", "state": ColumnRule(type="text")})
    check = Check(name="like it", on="t.csv", when="before", table=table)
    made.run(run_id, bind=lambda _: binding, params=looks_alike, checks=(check,))
    done = by_hand(made, run_id)
    assert done.returncode == 0 and f"verified {run_id}" in done.stdout, done


@pytest.mark.parametrize("run_id", [RUNS[1], RUNS[3]])
def test_so_is_a_bundle_on_another_machine(made: Signed, run_id: str, tmp_path: Path) -> None:
    file, there = tmp_path / "it.replay.tar", tmp_path / "there"
    pack(made.store, made.workspace.run(run_id), file)
    there.mkdir()
    done = by_hand(made, run_id, there, BUNDLE=str(file))
    assert done.returncode == 0 and f"verified {run_id}" in done.stdout, done
    again = tmp_path / "again"
    again.mkdir()
    file.write_bytes(file.read_bytes().replace(b"said\n", b"sait\n"))
    assert by_hand(made, run_id, again, BUNDLE=str(file)).returncode != 0


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("sigstore.json", b'"sig":"M', b'"sig":"N'),
        ("yaml", b"spec: 1", b"spec:  1"),
        ("record.json", b'"record": 1', b'"record":  1'),
        ("tlog-proof", b"index 2", b"index 1"),
        ("tlog-proof", b"\n3\n", b"\n4\n"),
        ("output", b"of", b"by"),
        ("log", b"said", b"sait"),
    ],
)
def test_what_was_changed_is_not(made: Signed, name: str, old: bytes, new: bytes) -> None:
    run_id = RUNS[2]
    record = made.workspace.run(run_id).record()
    assert record
    files = {
        "output": [made.store.blobs.path(record.outputs[0].sha256)],  # type: ignore[arg-type]
        "log": [made.store.runs / run_id / "stdout"],
    }
    file = files.get(name, made.files(run_id, name))[0]
    kept = file.read_bytes()
    assert old in kept
    file.chmod(0o644)
    try:
        file.write_bytes(kept.replace(old, new, 1))
        assert by_hand(made, run_id).returncode != 0
    finally:
        file.write_bytes(kept)


def test_the_page_says_where_the_checkpoint_is(made: Signed) -> None:
    assert (Log(made.store).folder / "checkpoint").relative_to(made.root).as_posix() in PAGE.read_text(encoding="utf-8")


def test_a_release_is_verified_by_hand_until_it_is_changed_or_revoked(made: Signed) -> None:
    made.release("prod", RUNS[1])
    made.release("other", RUNS[2])
    done = by_hand(made, RUNS[1], NAME="prod")
    assert done.returncode == 0 and "verified as prod" in done.stdout, done
    assert by_hand(made, RUNS[1], NAME="other").returncode != 0
    file = made.release_files("prod", "release.yaml")[0]
    kept = file.read_bytes()
    file.write_bytes(kept.replace(b"Ada", b"Eve"))
    assert by_hand(made, RUNS[1], NAME="prod").returncode != 0
    file.write_bytes(kept)
    made.revoke("prod")
    assert by_hand(made, RUNS[1], NAME="prod").returncode != 0


def test_the_page_explains_every_reason_code() -> None:
    told = PAGE.read_text(encoding="utf-8").split("## Reason codes")[1]
    assert set(re.findall(r"`([a-z-]+)`", told)) >= REASONS
