"""Runs as files: what a part of a run-id means, and that spec and record belong together."""

from __future__ import annotations

import datetime
import fcntl
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import TamperedError, UsageError
from runner.state.digest import digest_bytes
from runner.state.record import Outcome, Record
from runner.state.spec import Access, Image, RunInfo, State, StateSpec, ToolInfo, state_digest
from runner.store.index import Row, rows
from runner.store.runs import Run, RunStatus, new_run_id, resolve_run_id, run_ids
from runner.store.store import Store, open_store
from tests.conftest import until

STATE = State(
    command=("true",),
    code="sha256:" + "c" * 64,
    image=Image("linux/amd64", ()),
    access=Access(network="none", determinism="off"),
)


def spec_of(run_id: str) -> StateSpec:
    run = RunInfo(id=run_id, job="j", created="2026-01-01T00:00:00Z", tool=ToolInfo("1"))
    return StateSpec(run=run, state=STATE, digest=state_digest(STATE))


def record_of(run_id: str, spec: bytes, exit_code: int = 0) -> Record:
    outcome = Outcome(ending="exited", exit_code=exit_code, duration_s=0.5)
    return Record(
        run_id=run_id,
        spec_sha256=digest_bytes(spec),
        state_digest=state_digest(STATE),
        started="2026-01-01T00:00:00Z",
        outcome=outcome,
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / ".replay", create=True)


def finished(store: Store, specs: Path | None, run_id: str = "j-1") -> Run:
    run = Run(store, run_id, specs)
    run.begin()
    run.write_record(record_of(run_id, run.write_spec(spec_of(run_id))))
    run.end()
    return run


# --- which run is meant ---------------------------------------------------------------------------------------

KNOWN = ["j-20260101-aaaaaa", "j-20260101-bbbbbb", "k-20260102-aaaaaa"]


@pytest.mark.parametrize("part", ["k-", "bbbb", "k-20260102-aaaaaa", "20260102"])
def test_any_unique_part_serves(part: str) -> None:
    assert resolve_run_id(part, KNOWN) == next(run_id for run_id in KNOWN if part in run_id)


@pytest.mark.parametrize(("part", "why"), [("aaaaaa", "several"), ("zz", "no run"), ("", "no run"), ("*", "no run")])
def test_no_other_part_does(part: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as raised:
        resolve_run_id(part, KNOWN)
    assert raised.value.why and raised.value.next


@pytest.mark.parametrize("other", ["poison-20260101-aaaapy", "py-big-20260101-aaaaaa", "happy-20260101-aaaaaa"])
def test_of_several_that_of_the_job_called_so_is_meant(other: str) -> None:
    known = ["py-20260102-bbbbbb", other]
    assert resolve_run_id("py", known) == "py-20260102-bbbbbb"
    with pytest.raises(UsageError, match="several"):
        resolve_run_id("py", [*known, "py-20260102-cccccc"])
    assert resolve_run_id("py", [*known, "py-20260102-cccccc"], lambda fits: fits[:1]) == "py-20260102-bbbbbb"


def test_of_several_the_only_recorded_one_is_meant() -> None:
    first, second, _ = KNOWN
    assert resolve_run_id("2026", KNOWN, lambda fits: [second]) == second
    assert resolve_run_id(first, KNOWN, lambda fits: [second]) == first, "a full id means itself"
    with pytest.raises(UsageError, match="several") as raised:
        resolve_run_id("2026", KNOWN, lambda fits: [first, second])
    assert raised.value.why == f"{first}, {second}"
    with pytest.raises(UsageError, match="several"):
        resolve_run_id("j-", KNOWN, lambda fits: [])


@given(st.sets(st.from_regex(r"[a-z]{1,3}-[a-z0-9]{1,4}", fullmatch=True), min_size=1), st.data())
def test_a_whole_run_id_always_means_itself(known: set[str], data: st.DataObject) -> None:
    run_id = data.draw(st.sampled_from(sorted(known)))
    assert resolve_run_id(run_id, sorted(known)) == run_id, "even where it is a part of others"


def test_new_run_ids_are_dated_and_differ() -> None:
    now = datetime.datetime(2026, 11, 20, 23, 59, tzinfo=datetime.UTC)
    made = {new_run_id("train", now) for _ in range(50)}
    assert len(made) == 50 and all(re.fullmatch(r"train-20261120-[a-z2-9]{6}", one) for one in made)


# --- spec and record ------------------------------------------------------------------------------------------


def test_both_copies_are_written_and_either_serves(store: Store, tmp_path: Path) -> None:
    specs = tmp_path / "state_specs"
    run = finished(store, specs)
    assert (specs / "j-1.yaml").read_bytes() == (run.folder / "spec.yaml").read_bytes()
    assert run_ids(store, specs) == run_ids(store, None) == ["j-1"]
    for place in (specs / "j-1.yaml", run.folder / "record.json"):
        place.unlink()
        spec, record = run.spec_and_record()
        assert spec == spec_of("j-1") and record is not None
    run.forget()
    assert not list(specs.iterdir()) and not run.folder.exists()


@pytest.mark.parametrize("name", ["spec", "record"])
def test_two_copies_that_differ_are_told(store: Store, tmp_path: Path, name: str) -> None:
    run = finished(store, tmp_path / "state_specs")
    reviewed = tmp_path / "state_specs" / {"spec": "j-1.yaml", "record": "j-1.record.json"}[name]
    reviewed.write_bytes(reviewed.read_bytes() + b"\n")
    with pytest.raises(TamperedError, match="not what the store keeps") as raised:
        run.spec_and_record()
    assert str(reviewed) in raised.value.what and str(run.folder) in raised.value.why


def test_a_record_of_another_spec_is_told(store: Store) -> None:
    run = finished(store, None)
    (run.folder / "spec.yaml").write_bytes((run.folder / "spec.yaml").read_bytes() + b"\n")
    with pytest.raises(TamperedError, match="is not what was written"):
        run.spec_and_record()
    (run.folder / "sums").unlink()
    with pytest.raises(TamperedError, match="not the one that its record was made for"):
        run.spec_and_record()


def test_a_spec_named_by_its_path_is_the_one_that_is_read(store: Store, tmp_path: Path) -> None:
    finished(store, None)
    other = msgspec.structs.replace(spec_of("j-1"), contract=spec_of("j-1").contract)
    copied = tmp_path / "copied.yaml"
    copied.write_bytes((store.runs / "j-1" / "spec.yaml").read_bytes())
    assert Run(store, "j-1", tmp_path, copied).spec_and_record()[0] == other
    copied.write_bytes(copied.read_bytes() + b"\n")
    with pytest.raises(TamperedError, match=re.escape(str(copied))):
        Run(store, "j-1", tmp_path, copied).spec_and_record()


def test_status(store: Store) -> None:
    run = Run(store, "j-1", None)
    run.begin()
    assert run.status() is RunStatus.RUNNING and not run.has_spec()
    spec = run.write_spec(spec_of("j-1"))
    run.end()
    assert run.status() is RunStatus.INTERRUPTED and run.has_spec() and run.record() is None
    run.write_record(record_of("j-1", spec))
    assert run.status() is RunStatus.FINISHED


# --- the index ------------------------------------------------------------------------------------------------


def listed(store: Store, tmp_path: Path) -> list[Row]:
    return rows(tmp_path / "index.sqlite", run_ids(store, None), lambda run_id: Run(store, run_id, None))


def test_the_index_is_made_from_files_and_from_nothing_else(store: Store, tmp_path: Path) -> None:
    for number in range(3):
        finished(store, None, f"j-{number}")
    first = listed(store, tmp_path)
    assert [(row.run_id, row.outcome, row.exit_code) for row in first] == [(f"j-{n}", "ok", 0) for n in range(3)]
    opened: list[str] = []
    again = rows(tmp_path / "index.sqlite", run_ids(store, None), lambda run_id: opened.append(run_id))  # type: ignore
    assert again == first and not opened, "what is indexed is not read again"
    for damage in (b"", b"no database", None):
        place = tmp_path / "index.sqlite"
        place.unlink() if damage is None else place.write_bytes(damage)
        assert listed(store, tmp_path) == first
    Run(store, "j-1", None).forget()
    assert [row.run_id for row in listed(store, tmp_path)] == ["j-0", "j-2"]


def test_what_may_change_is_not_indexed(store: Store, tmp_path: Path) -> None:
    run = Run(store, "j-1", None)
    run.begin()
    assert [row.outcome for row in listed(store, tmp_path)] == ["running"]
    spec = run.write_spec(spec_of("j-1"))
    assert [row.outcome for row in listed(store, tmp_path)] == ["running"]
    run.end()
    assert [row.outcome for row in listed(store, tmp_path)] == ["interrupted"]
    (run.folder / "record.json").write_text("{")
    assert [row.outcome for row in listed(store, tmp_path)] == ["unreadable"]
    (run.folder / "record.json").unlink()
    run.write_record(record_of("j-1", spec, exit_code=3))
    assert [(row.outcome, row.exit_code) for row in listed(store, tmp_path)] == [("failed", 3)]


def test_a_held_folder_is_locked_until_the_run_ends(store: Store, tmp_path: Path) -> None:
    run, folder = Run(store, "j-20260101-aaaaaa", None), tmp_path / "environment"
    assert not run.hold(folder), "it was dropped before it could be held"
    folder.mkdir()
    assert run.hold(folder)
    with folder_opened(folder) as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        run.end()
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_folder_that_lost_its_name_while_it_was_waited_for_is_not_held(store: Store, tmp_path: Path) -> None:
    run, folder = Run(store, "j-20260101-aaaaaa", None), tmp_path / "environment"
    folder.mkdir()
    with folder_opened(folder) as other, ThreadPoolExecutor(1) as pool:
        fcntl.flock(other, fcntl.LOCK_EX)
        held = pool.submit(run.hold, folder)
        until(lambda: "->" in waiting(other), "somebody waiting for the lock")
        folder.rename(tmp_path / "gone")
        fcntl.flock(other, fcntl.LOCK_UN)
        assert not held.result()
    run.end()


def waiting(descriptor: int) -> str:
    """The lines of /proc/locks about a file; `->` marks who waits."""
    inode = f":{os.fstat(descriptor).st_ino} "
    return "".join(line for line in Path("/proc/locks").read_text().splitlines() if inode in line)


@contextmanager
def folder_opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def test_a_run_that_is_removed_while_it_is_looked_at(store: Store, tmp_path: Path) -> None:
    """It is told or left out; nothing else is made of it."""
    run = finished(store, tmp_path / "specs")
    found = run._find

    def removed_meanwhile(in_store: str, in_specs: str) -> Path | None:
        path = found(in_store, in_specs)
        finished_run.forget()
        return path

    finished_run = Run(store, run.id, tmp_path / "specs")
    run._find = removed_meanwhile  # type: ignore[method-assign]
    with pytest.raises(UsageError, match="was removed meanwhile"):
        run.spec_and_record()
    with pytest.raises(UsageError, match="has no spec"):
        run.spec()
    assert rows(store.folder / "index.sqlite", [run.id], lambda name: Run(store, name, None)) == []


def test_a_run_that_is_finished_while_it_is_looked_at_was_not_interrupted(store: Store) -> None:
    run = Run(store, "j-1", None)
    run.begin()
    spec = run.write_spec(spec_of("j-1"))
    looking = Run(store, "j-1", None)
    find = looking._find

    def finished_meanwhile(in_store: str, in_specs: str) -> Path | None:
        path = find(in_store, in_specs)
        if not (run.folder / "record.json").exists():
            run.write_record(record_of("j-1", spec))
            run.end()
        return path

    looking._find = finished_meanwhile  # type: ignore[method-assign]
    assert looking.status() is RunStatus.FINISHED
