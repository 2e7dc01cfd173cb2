"""Runs as Process Run Crates: accepted by the validator of RO-Crates, and whole."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runner.errors import ReplayError, TamperedError, UsageError
from runner.exported import write_crate
from runner.layers import code, data
from runner.layers.code import CodeFile
from runner.layers.data import DataFile
from runner.state.digest import digest_bytes
from runner.state.record import Outcome
from runner.state.spec import DataSeen, StateSpec, Wheel, state_digest
from runner.state.strict import dump_record, dump_spec
from runner.store.runs import Run
from tests.attest.made import Signed, record_for
from tests.crates import issues

RUN = "train-20261121-export"
FOLDER = {"a.txt": b"a\n", "deep/b ö.csv": b"x,y\n1,2\n"}
LINKS = {"in.txt": "train.py", "out.txt": "/etc/passwd", "up.txt": "../../../etc/passwd"}


def run_of(made: Signed, *, replay: bool = False, failed: bool = False) -> Run:
    """A run with all that a crate can tell of: packages, data, links in the code, odd names."""
    spec = _spec(made)
    run = made.workspace.run(RUN)
    run.begin()
    spec_bytes = run.write_spec(spec)
    (run.folder / "stdout").write_bytes(b"said\n")
    (run.folder / "stderr").write_bytes(b"")
    outputs = {"out dir/ä ö.csv": b"1,2\n", "model": b"\0", "stdout": b"said\n"}
    for content in outputs.values():
        made.store.blobs.put_bytes(content)
    record = record_for(spec, spec_bytes, outputs, replay=replay)
    if failed:
        ended = Outcome(ending="exited", exit_code=9, duration_s=1.0, detail="it failed")
        record = msgspec.structs.replace(record, outcome=ended)
    record_bytes = run.write_record(record)
    assert record_bytes == dump_record(record) and spec_bytes == dump_spec(spec)
    made.sealer.seal(made.store, run, spec, spec_bytes, record, record_bytes)
    run.end()
    return run


def _spec(made: Signed) -> StateSpec:
    put, spec = made.store.blobs.put_bytes, made._spec(RUN)
    links = tuple(CodeFile(name, "link", put(to.encode())) for name, to in LINKS.items())
    listing = put(code.listing((*links, CodeFile("train.py", "executable", put(b"#!/bin/sh\n")))))
    files = tuple(DataFile(path, put(content), len(content)) for path, content in FOLDER.items())
    wheels = (Wheel("numpy", "1.26.4", "numpy-1.26.4-py3-none-any.whl", digest_bytes(b"w")),)
    state = msgspec.structs.replace(
        spec.state,
        code=listing,
        data={"d.csv": put(b"a\n1\n"), "images": put(data.listing(files))},
        dependencies=msgspec.structs.replace(spec.state.dependencies, locked=wheels),
    )
    seen = {"d.csv": DataSeen(size=4), "images": DataSeen(size=10, nfiles=2)}
    observed = msgspec.structs.replace(spec.observed, data=seen)
    return msgspec.structs.replace(spec, state=state, observed=observed, digest=state_digest(state))


def entities(crate: Path) -> dict[str, Any]:
    found = json.loads((crate / "ro-crate-metadata.json").read_bytes())
    return {one["@id"]: one for one in found["@graph"]}


@pytest.mark.parametrize("with_data", [False, True])
def test_the_validator_of_ro_crates_accepts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_data: bool
) -> None:
    made = Signed(tmp_path / "w")
    write_crate(
        made.store, run_of(made, replay=with_data, failed=not with_data), tmp_path / "crate", with_data=with_data
    )
    assert issues(tmp_path / "crate", monkeypatch) == []


def test_the_validator_does_find_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Signed(tmp_path / "w")
    write_crate(made.store, run_of(made), tmp_path / "crate", with_data=False)
    file = tmp_path / "crate" / "ro-crate-metadata.json"
    tree = json.loads(file.read_bytes())
    for entity in tree["@graph"]:
        entity.pop("instrument", None)
    file.write_text(json.dumps(tree))
    (tmp_path / "crate" / "outputs" / "model").unlink()
    found = " ".join(issues(tmp_path / "crate", monkeypatch))
    assert "instrument" in found and "outputs/model" in found


def test_it_says_what_ran_and_what_came_of_it(tmp_path: Path) -> None:
    made = Signed(tmp_path / "w")
    run, crate = run_of(made, replay=True), tmp_path / "crate"
    count = write_crate(made.store, run, crate, with_data=False)
    found = entities(crate)
    files = {path.relative_to(crate).as_posix() for path in crate.rglob("*") if path.is_file() or path.is_symlink()}
    assert count == len(files)
    action = found["#run"]
    assert action["@type"] == "CreateAction" and action["actionStatus"].endswith("CompletedActionStatus")
    assert "identical to train-20261120-zzzzzz" in action["description"]
    assert found["#job"]["version"] == run.spec().digest
    assert found["pkg:pypi/numpy@1.26.4"]["softwareVersion"] == "1.26.4"
    assert found["#env/MODE"]["value"] == run.spec().state.env["MODE"]
    assert found["#signer"]["identifier"] == made.signer.key.id
    assert {one["@id"] for one in action["result"]} == {
        "outputs/model",
        "outputs/out%20dir/%C3%A4%20%C3%B6.csv",
        "outputs/stdout",
    }
    digest = digest_bytes(b"1,2\n").removeprefix("sha256:")
    assert found["outputs/out%20dir/%C3%A4%20%C3%B6.csv"]["sha256"] == digest
    assert (crate / "outputs/out dir/ä ö.csv").read_bytes() == b"1,2\n"
    assert found["#data/d.csv"]["identifier"] == digest_bytes(b"a\n1\n") and not (crate / "data").exists()
    for name in ("yaml", "record.json", "sigstore.json", "tlog-proof", "verdict.sigstore.json"):
        assert (crate / f"{RUN}.{name}").read_bytes() == made.read(RUN, name)
        assert found[f"{RUN}.{name}"]["@type"] == "File"
    assert os.access(crate / "code/train.py", os.X_OK)
    assert (crate / "code/in.txt").is_symlink() and not {"code/out.txt", "code/up.txt"} & files


def test_with_data_it_holds_the_data(tmp_path: Path) -> None:
    made = Signed(tmp_path / "w")
    write_crate(made.store, run_of(made), tmp_path / "crate", with_data=True)
    assert (tmp_path / "crate/data/d.csv").read_bytes() == b"a\n1\n"
    assert (tmp_path / "crate/data/images/deep/b ö.csv").read_bytes() == FOLDER["deep/b ö.csv"]
    assert entities(tmp_path / "crate")["data/images/"]["@type"] == "Dataset"


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    made = Signed(tmp_path / "w")
    run = run_of(made)
    for name in ("one", "two"):
        write_crate(made.store, run, tmp_path / name, with_data=True)
    listed = [
        sorted(path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*")) for name in ("one", "two")
    ]
    assert listed[0] == listed[1]
    assert all((tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()
               for path in listed[0] if (tmp_path / "one" / path).is_file())  # fmt: skip


def test_what_is_there_is_left_and_half_a_crate_is_not(tmp_path: Path) -> None:
    made = Signed(tmp_path / "w")
    run, crate = run_of(made), tmp_path / "crate"
    crate.mkdir()
    (crate / "mine").touch()
    with pytest.raises(UsageError, match="is not empty"):
        write_crate(made.store, run, crate, with_data=False)
    assert [one.name for one in crate.iterdir()] == ["mine"]
    made.store.blobs.path(digest_bytes(b"\0")).write_bytes(b"1")
    with pytest.raises(TamperedError):
        write_crate(made.store, run, tmp_path / "other", with_data=False)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("path", ["../out", "/tmp/out", "a/../../b"])
def test_a_record_leads_nothing_out_of_the_crate(tmp_path: Path, path: str) -> None:
    made = Signed(tmp_path / "w")
    run = run_of(made)
    record = run.record()
    assert record
    output = msgspec.structs.replace(record.outputs[0], path=path)
    data = dump_record(msgspec.structs.replace(record, outputs=(output,)))
    for file in made.files(RUN, "record.json"):
        file.write_bytes(data)
    (made.store.runs / RUN / "sums").unlink()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ReplayError, match="cannot be exported"):
        write_crate(made.store, run, tmp_path / "crate", with_data=False)
    assert sorted(tmp_path.rglob("*")) == before
