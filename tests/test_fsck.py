"""The decisions of `fsck`, on values alone: which copy of a spec or record is right, and what is said of the others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.fsck import facts as fsck_facts
from runner.fsck.facts import Hashed, Hasher, RunFacts, look, read
from runner.fsck.runs import judge_run
from runner.state.checked import with_check, without_check
from runner.state.digest import canonical, digest_bytes
from runner.state.record import Outcome, Record
from runner.state.strict import dump_record, dump_spec, load_spec
from runner.store.blobs import Blobs
from runner.store.runs import Run, Sum
from runner.store.store import FingerprintKey, open_damaged, open_store, read_info
from runner.workspace import Workspace
from tests.conftest import flip_bit
from tests.store.test_runs import record_of, spec_of

EXAMPLES = Path(__file__).parent.parent / "state_specs" / "examples"
SPEC = load_spec(sorted(EXAMPLES.glob("*.yaml"))[0].read_bytes(), "example")
SPEC_BYTES = dump_spec(SPEC)
RECORD = Record(
    run_id=SPEC.run.id,
    spec_sha256=digest_bytes(SPEC_BYTES),
    state_digest=SPEC.digest,
    started="2026-11-20T10:00:00Z",
    outcome=Outcome(ending="exited", exit_code=0, duration_s=1.5),
)
RECORD_BYTES = dump_record(RECORD)
LOG = Hashed(digest_bytes(b"said"), 4)
SUMS = {
    "spec.yaml": Sum(digest_bytes(SPEC_BYTES), len(SPEC_BYTES)),
    "record.json": Sum(digest_bytes(RECORD_BYTES), len(RECORD_BYTES)),
    "stdout": Sum(str(LOG.sha256), 4),
}
WHOLE = {
    "spec": SPEC_BYTES,
    "record": RECORD_BYTES,
    "sums": with_check(canonical(SUMS)),
    "reviewed_spec": SPEC_BYTES,
    "reviewed_record": RECORD_BYTES,
}
PLACES = {
    "spec": f"runs/{SPEC.run.id}/spec.yaml",
    "record": f"runs/{SPEC.run.id}/record.json",
    "sums": f"runs/{SPEC.run.id}/sums",
    "reviewed_spec": f"state_specs/{SPEC.run.id}.yaml",
    "reviewed_record": f"state_specs/{SPEC.run.id}.record.json",
}
TWINS = {"spec": "reviewed_spec", "record": "reviewed_record", "reviewed_spec": "spec", "reviewed_record": "record"}


def facts(files: dict[str, Hashed] | None = None, **changed: bytes | None) -> RunFacts:
    given = {"stdout": LOG} if files is None else files
    return RunFacts(run_id=SPEC.run.id, in_store=True, running=False, files=given, **(WHOLE | changed))


def problems(found: RunFacts) -> dict[str, str]:
    return {finding.path: finding.problem for finding in judge_run(found).findings}


def flipped(data: bytes, at: int) -> bytes:
    return data[: at // 8] + bytes([data[at // 8] ^ 1 << at % 8]) + data[at // 8 + 1 :]


def test_a_whole_run_has_no_problem() -> None:
    judged = judge_run(facts())
    assert judged.findings == () and judged.spec == SPEC and judged.record == RECORD and judged.copies == {}


@given(st.sampled_from(sorted(PLACES)), st.integers(0, 10**9))
def test_any_bit_of_any_copy_is_told_and_the_other_copy_is_right(name: str, bit: int) -> None:
    data = WHOLE[name]
    judged = judge_run(facts(**{name: flipped(data, bit % (8 * len(data)))}))
    assert [(one.path, one.problem) for one in judged.findings] == [(PLACES[name], "damaged")]
    assert judged.spec == SPEC and judged.record == RECORD
    assert judged.copies == ({PLACES[name]: PLACES[TWINS[name]]} if name in TWINS else {})


@given(st.sampled_from(sorted(PLACES)), st.floats(0, 0.999))
def test_a_copy_cut_anywhere_is_told(name: str, part: float) -> None:
    data = WHOLE[name]
    wanted = {"truncated"} if name in TWINS else {"damaged"}
    assert problems(facts(**{name: data[: int(part * len(data))]})) == {PLACES[name]: wanted.pop()}


@pytest.mark.parametrize("name", PLACES)
def test_a_lost_copy_is_missing(name: str) -> None:
    assert problems(facts(**{name: None})) == {PLACES[name]: "missing"}


def test_without_sums_the_record_vouches_for_the_spec_and_two_records_are_doubted() -> None:
    old = {"sums": None}
    sums = {PLACES["sums"]: "missing"}
    edited = SPEC_BYTES.replace(b"created: '2", b"created: '3", 1)
    assert edited != SPEC_BYTES
    assert problems(facts(**old, spec=edited)) == sums | {PLACES["spec"]: "damaged"}
    other = RECORD_BYTES.replace(b'"duration_s": 1.5', b'"duration_s": 1.7')
    assert other != RECORD_BYTES
    doubted = problems(facts(**old, record=other))
    assert doubted.keys() >= {PLACES["record"], PLACES["reviewed_record"]}
    broken = RECORD_BYTES.replace(b'"run_id"', b'"run_ie"')
    judged = judge_run(facts(**old, record=broken))
    assert judged.record == RECORD and judged.copies == {PLACES["record"]: PLACES["reviewed_record"]}


def test_a_clone_that_has_only_reviewed_copies_misses_nothing() -> None:
    clone = RunFacts(
        run_id=SPEC.run.id, in_store=False, running=False, spec=None, record=None, sums=None, files={},
        reviewed_spec=SPEC_BYTES, reviewed_record=RECORD_BYTES,
    )  # fmt: skip
    assert problems(clone) == {} and judge_run(clone).record == RECORD


def test_a_run_that_was_cut_off_misses_nothing() -> None:
    assert problems(facts({}, record=None, reviewed_record=None, sums=None)) == {}


@pytest.mark.parametrize("at", ["spec.yaml", "record.json", "sums", "j-1.yaml", "j-1.record.json"])
@pytest.mark.parametrize("doing", ["finish", "forget"])
def test_a_run_that_is_finished_or_forgotten_meanwhile_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, doing: str, at: str
) -> None:
    workspace = Workspace(tmp_path, open_store(tmp_path / ".replay", create=True))
    (tmp_path / "state_specs").mkdir()
    run = Run(workspace.store, "j-1", workspace.specs)
    run.begin()
    record = record_of("j-1", run.write_spec(spec_of("j-1")))
    (run.folder / "stdout").touch()
    if doing == "forget":
        run.write_record(record)
        run.end()
    read = fsck_facts.read

    def meanwhile(path: Path) -> bytes | None:
        found = read(path)
        if path.name == at and run.folder.exists() and not (finished := (run.folder / "record.json").exists()):
            run.write_record(record)
            run.end()
        elif path.name == at and run.folder.exists() and doing == "forget" and finished:
            run.forget()
        return found

    monkeypatch.setattr(fsck_facts, "read", meanwhile)
    (seen,) = look(workspace, Hasher(), lambda text: None, alone=False).runs
    assert judge_run(seen).findings == ()


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"1")
    names = ("pipe", "device", "folder", "file/below", "nothing", "file")
    assert [read(tmp_path / name) for name in names] == [None] * 5 + [b"1"]


def test_logs_are_held_against_their_sums() -> None:
    log = f"runs/{SPEC.run.id}/stdout"
    assert problems(facts({})) == {log: "missing"}
    assert problems(facts({"stdout": Hashed(digest_bytes(b"saie"), 4)})) == {log: "damaged"}
    assert problems(facts({"stdout": Hashed(digest_bytes(b"sa"), 2)})) == {log: "truncated"}
    assert problems(facts({"stdout": Hashed(None, 0, "Input/output error")})) == {log: "unreadable"}


# --- files that check themselves -------------------------------------------------------------------------------


@given(st.binary(max_size=200), st.integers(0, 10**9))
def test_a_check_tells_every_bit_and_every_cut(data: bytes, where: int) -> None:
    kept = with_check(data)
    assert without_check(kept) == data
    for broken in (flipped(kept, where % (8 * len(kept))), kept[: where % len(kept)]):
        with pytest.raises(ValueError):
            without_check(broken)


def test_a_stores_identity_and_key_tell_damage(tmp_path: Path) -> None:
    folder = tmp_path / ".replay"
    store = open_store(folder, create=True)
    marker, secret = (folder / "store.json").read_bytes(), store.fingerprint_key()
    info = read_info(marker)
    assert info and info.whole and len(secret) == 32
    start = marker.index(info.id.encode())
    for bit in range(8 * start, 8 * (start + len(info.id))):
        assert read_info(flipped(marker, bit)) is None
    key = (folder / "key").read_bytes()
    assert not any(FingerprintKey(flipped(key, bit)).whole for bit in range(8 * len(key)))
    assert FingerprintKey(key).secret == secret and FingerprintKey(secret).whole, "a key of an older version"
    (folder / "store.json").write_bytes(b"{")
    assert open_damaged(folder).folder == folder


# --- keeping again ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["bytes", "adopt", "stream", "file"])
def test_keeping_again_mends_a_damaged_blob(tmp_path: Path, way: str) -> None:
    blobs, data = Blobs(tmp_path / "blobs", tmp_path / "tmp"), b"content " * 100
    digest = blobs.put_bytes(data)
    flip_bit(blobs.path(digest))
    source = tmp_path / "source"
    source.write_bytes(data)
    if way == "bytes":
        blobs.put_bytes(data)
    elif way == "stream":
        blobs.put_stream([data])
    else:
        (blobs.adopt if way == "adopt" else blobs.put_file)(source)
    assert blobs.read(digest) == data


def test_a_large_blob_is_mended_where_its_size_tells(tmp_path: Path) -> None:
    blobs, data = Blobs(tmp_path / "blobs", tmp_path / "tmp"), b"x" * (1 << 20)
    digest = blobs.put_bytes(data)
    for keep in ("adopt", "link"):
        blobs.path(digest).unlink()
        blobs.path(digest).write_bytes(data[:-1])
        source = tmp_path / keep
        source.write_bytes(data)
        blobs.adopt(source) if keep == "adopt" else blobs.link(str(source), digest)
        assert blobs.verified(digest)
