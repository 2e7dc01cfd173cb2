"""The layer `schema`: profiled once per content, a folder's tables by name; what cannot be profiled says why."""

from __future__ import annotations

import errno
from pathlib import Path

import msgspec
import pytest

from runner.diff import Change
from runner.layers import data, schema
from runner.layers.data import DataFile
from runner.moved import examine, kept_tables, live_tables
from runner.profile import make
from runner.profile.values import Profile
from runner.state.digest import Digest
from runner.state.spec import SchemaSeen
from runner.store.store import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / ".replay", create=True)


def quiet(_: str) -> None:
    pass


def folder(store: Store, **files: str) -> Digest:
    """A version of a data folder."""
    names = {name.replace("_", "."): content.encode() for name, content in files.items()}
    kept = tuple(DataFile(name, store.blobs.put_bytes(content), len(content)) for name, content in names.items())
    return store.blobs.put_bytes(data._MARK + msgspec.json.encode(kept) + b"}")


def table(first: int) -> str:
    return "n\n" + "".join(f"{number}\n" for number in range(first, first + 200))


def test_once_per_content(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    digest = store.blobs.put_bytes(b"a,b\n1,2\n")
    first = schema.observe(store, {"x.csv": digest}, said.append)
    assert (first["x.csv"].columns, first["x.csv"].rows) == (2, 1) and said == ["schema: profiling x.csv"]
    monkeypatch.setattr(make, "profile_of", None)
    assert schema.observe(store, {"y.csv": digest}, said.append) == {"y.csv": first["x.csv"]} and len(said) == 1


@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_a_damaged_answer_is_made_anew(store: Store, harm: str) -> None:
    digest = store.blobs.put_bytes(b"a,b\n1,2\n")
    first = schema.observe(store, {"x.csv": digest}, quiet)["x.csv"]
    answer = store.cache / "profiles" / schema.answer_name(digest)
    if harm == "cut":
        answer.write_bytes(answer.read_bytes()[:-3])
    else:
        store.blobs.path(Digest(first.profile or "")).unlink()
    assert schema.observe(store, {"x.csv": digest}, quiet)["x.csv"] == first
    assert schema.read_answer(answer.read_bytes()) == first and store.blobs.has(Digest(first.profile or ""))


def test_only_tables_and_not_too_many(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "MOST_FILES", 2)
    version = folder(store, c_csv="a\n1\n", a_TSV="a\n1\n", b_jsonl='{"a": 1}\n', d_txt="a\n")
    found = schema.observe(store, {"d": version, "plain.txt": store.blobs.put_bytes(b"a\n")}, quiet)
    assert list(found) == ["d/a.TSV", "d/b.jsonl", "d/c.csv"]
    assert found["d/c.csv"].profile is None and "first" in found["d/c.csv"].unknown


def test_without_duckdb_it_is_unknown_and_not_remembered(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = store.blobs.put_bytes(b"a,b\n1,2\n")
    with monkeypatch.context() as patch:
        patch.setattr(schema, "find_spec", lambda name: None)
        found = schema.observe(store, {"x.csv": digest}, quiet)
    assert found == {"x.csv": SchemaSeen(unknown=schema.NOT_INSTALLED)} and "pip install" in schema.NOT_INSTALLED
    assert schema.observe(store, {"x.csv": digest}, quiet)["x.csv"].rows == 1


def test_a_full_disk_is_not_remembered(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: Path) -> Profile:
        raise OSError(errno.ENOSPC, "no space left")

    digest = store.blobs.put_bytes(b"a,b\n1,2\n")
    with monkeypatch.context() as patch:
        patch.setattr(make, "profile_of", full)
        assert schema.observe(store, {"x.csv": digest}, quiet)["x.csv"].unknown == "no space left"
    assert schema.observe(store, {"x.csv": digest}, quiet)["x.csv"].rows == 1


def test_a_broken_file_is_remembered_as_such(store: Store) -> None:
    digest = store.blobs.put_bytes(b"")
    found = schema.observe(store, {"x.parquet": digest}, quiet)["x.parquet"]
    assert found.unknown == "an empty file"
    assert schema.read_answer((store.cache / "profiles" / schema.answer_name(digest)).read_bytes()) == found


def test_a_folder_is_told_by_its_files(store: Store, tmp_path: Path) -> None:
    a = folder(store, same_csv=table(0), moved_csv=table(0), broken_csv=table(0), gone_csv=table(0))
    b = folder(store, same_csv=table(0), moved_csv=table(150), broken_csv="n\n" + "x\n" * 200, new_csv=table(0))
    found = examine(
        [Change("data", "d", a, b), Change("env", "A", "1", "2")],
        lambda path: kept_tables(store, {"d": a}, {}, path),
        lambda path: kept_tables(store, {"d": b}, {}, path),
    )
    assert [change.name for change in found.changes] == ["d/broken.csv:n"]
    assert [(file, one.column) for file, one in found.columns] == [("d/moved.csv", "n")]
    (finding,) = found.findings
    assert finding.schema == ("broken.csv: n: BIGINT → VARCHAR",) and not finding.unexamined
    assert [line.split(" moved")[0] for line in finding.moved] == ["moved.csv: n", "new.csv added", "gone.csv removed"]

    live = tmp_path / "d"
    live.mkdir()
    (live / "same.csv").write_text(table(0))
    (live / "moved.csv").write_text(table(150))
    tables = live_tables(store, tmp_path, "d")
    kept = kept_tables(store, {"d": b}, {}, "d")
    assert {name: tables[name].digest == kept[name].digest for name in tables} == {
        "d/same.csv": True,
        "d/moved.csv": True,
    }


def test_what_is_no_table_was_not_examined(store: Store) -> None:
    a, b = (store.blobs.put_bytes(content) for content in (b"1", b"2"))
    found = examine(
        [Change("data", "x.bin", a, b)],
        lambda path: kept_tables(store, {"x.bin": a}, {}, path),
        lambda path: kept_tables(store, {"x.bin": b}, {}, path),
    )
    assert "only bytes" in found.findings[0].unexamined


def test_what_was_observed_tells_after_the_data_is_lost(store: Store) -> None:
    versions = [store.blobs.put_bytes(table(first).encode()) for first in (0, 150)]
    seen = [schema.observe(store, {"x.csv": version}, quiet) for version in versions]
    for version in versions:
        store.blobs.path(version).unlink()
    found = examine(
        [Change("data", "x.csv", *versions)],
        lambda path: kept_tables(store, {path: versions[0]}, seen[0], path),
        lambda path: kept_tables(store, {path: versions[1]}, seen[1], path),
    )
    assert [one.column for _, one in found.columns] == ["n"]
