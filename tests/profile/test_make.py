"""Profiles of files: what is exact is right, the same rows give the same bytes, and what strangers wrote ends well."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.profile import make
from runner.profile.make import SAMPLED, profile_of
from runner.profile.values import ColumnProfile, Profile, decode, encode
from runner.tables import duck
from runner.tables.malformed import MalformedError

Write = Callable[[str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def act(content: str | bytes) -> Path:
        file = tmp_path / "data [1]*.x"
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    return act


def columns(profile: Profile) -> dict[str, ColumnProfile]:
    return {one.name: one for one in profile.columns}


MIXED = """id,x,when,flag,word,empty
1,0.5,2024-01-01,true,a,
2,nan,2024-01-03,false,b,
3,inf,,true,a,
4,-2,2024-01-02,true,,
"""


def test_every_kind_of_column(write: Write) -> None:
    made = profile_of(write(MIXED))
    found = columns(made)
    assert (made.format, made.rows, made.sampled) == ("CSV", 4, 4)
    kinds = {name: (one.type, one.kind, one.nulls) for name, one in found.items()}
    assert kinds == {
        "id": ("BIGINT", "number", 0),
        "x": ("DOUBLE", "number", 1),
        "when": ("DATE", "time", 1),
        "flag": ("BOOLEAN", "boolean", 0),
        "word": ("VARCHAR", "text", 1),
        "empty": ("VARCHAR", "text", 4),
    }
    assert found["id"].unique and (found["id"].low, found["id"].high) == ("1", "4")
    assert (found["x"].infinite, found["x"].low, found["x"].high, found["x"].counted) == (1, "-2.0", "0.5", 2)
    assert (found["when"].low, found["when"].high) == ("2024-01-01", "2024-01-03")
    assert found["word"].categories == (("a", 2), ("b", 1)) and found["word"].complete
    assert found["flag"].categories == (("true", 3), ("false", 1))
    assert found["x"].quantiles[0] == -2 and found["x"].quantiles[-1] == 0.5
    assert decode(encode(made)) == made


def test_formats_agree(write: Write, tmp_path: Path) -> None:
    lines = "".join(f'{{"a": {n}, "b": "w{n % 3}", "c": [1, {{"d": null}}]}}\n' for n in range(50))
    table = "a\tb\n" + "".join(f"{n}\tw{n % 3}\n" for n in range(50))
    from_json, from_tsv = (columns(profile_of(write(text))) for text in (lines, table))
    packed = columns(profile_of(write(gzip.compress(table.encode()))))
    assert from_tsv == packed and from_json["a"] == from_tsv["a"] and from_json["b"] == from_tsv["b"]
    assert from_json["c"].kind in ("other", "text")


def test_types_that_only_parquet_has(tmp_path: Path) -> None:
    import duckdb

    file = tmp_path / "x.parquet"
    chosen = (
        "1::TINYINT AS i, 1.5::DECIMAL(9, 2) AS d, 'x'::BLOB AS b, [1, 2] AS l, {'a': 1} AS s, TIME '12:00' AS t,"
        " TIMESTAMPTZ '2024-01-01 00:00:00+00' AS z, uuid() AS u, MAP {'k': 1} AS m, INTERVAL 1 DAY AS v,"
        " 170141183460469231731687303715884105727::HUGEINT AS h, 'infinity'::DATE AS e, NULL AS n"
    )
    duckdb.sql(f"SELECT {chosen} FROM range(3)").write_parquet(str(file))
    found = columns(profile_of(file))
    assert [found[name].kind for name in "idbl"] == ["number", "number", "other", "other"]
    assert found["z"].kind == "time" and found["z"].quantiles[0] == 1704067200
    assert found["e"].infinite == 3 and found["n"].nulls == 3 and found["u"].unique


def test_types_that_show_late_and_types_that_mix(write: Write) -> None:
    rows = 30_000
    late = "a,b\n" + "1,2\n" * rows + "1.5,x\n"
    found = columns(profile_of(write(late)))
    assert found["a"].type == "DOUBLE" and found["b"].type == "VARCHAR"
    assert found["b"].categories == (("2", rows), ("x", 1))


def test_sketches_of_few_rows_are_those_of_many(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(1)
    for rows in (1, 2, 127, 128, 129, 1000):
        lines = (f"{chance.gauss(0, 1)},{chance.randrange(9)},{'w' * chance.randrange(5)}" for _ in range(rows))
        file = write("x,n,w\n" + "\n".join(lines) + "\n")
        few = profile_of(file)
        with monkeypatch.context() as patch:
            patch.setattr(make, "_FEW_ROWS", 0)
            assert encode(profile_of(file)) == encode(few)


def test_odd_headers(write: Write) -> None:
    assert [one.name for one in profile_of(write("a,a,,b c\n1,2,3,x\n")).columns] == ["a", "a #2", "", "b c"]
    assert [one.name for one in profile_of(write("1,2\n3,4\n")).columns] == ["1", "2"]
    only = profile_of(write("a,b\n"))
    assert only.rows == 0 and [one.quantiles for one in only.columns] == [(), ()]


def test_very_many_columns(write: Write) -> None:
    many = 2000
    line = ",".join(str(n) for n in range(many))
    header = ",".join(f"c{n}" for n in range(many))
    assert len(profile_of(write(f"{header}\n{line}\n{line}\n")).columns) == many


@pytest.mark.parametrize(
    "content",
    [b"", b'a,b\n"1,2\n', b"PAR1 no parquet", b"\x1f\x8bbroken", b"a,b\n\xff\xfe,1\n", b'{"a": 1}\n{"a": \n'],
    ids=["empty", "quote", "parquet", "gzip", "utf-8", "json"],
)
def test_broken_files_are_said_to_be(write: Write, content: bytes) -> None:
    with pytest.raises(MalformedError) as raised:
        profile_of(write(content))
    assert str(raised.value).isprintable() and "\n" not in str(raised.value)


def test_the_same_bytes_whatever_the_threads(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(0)
    rows = (f"{n},{chance.gauss(0, 1)},{chance.randrange(5000)},w{chance.randrange(300)}" for n in range(2 * SAMPLED))
    file = write("id,x,n,w\n" + "\n".join(rows) + "\n")
    made = set()
    for threads in (1, 2, 4, 4):
        monkeypatch.setattr(duck, "_threads", lambda count=threads: count)
        made.add(encode(profile_of(file)))
    assert len(made) == 1
    kept = decode(made.pop())
    assert abs(kept.sampled - SAMPLED) < 0.02 * SAMPLED and kept.rows == 2 * SAMPLED
    assert columns(kept)["id"].unique and columns(kept)["n"].unique is False
    assert abs(columns(kept)["x"].quantiles[64]) < 0.02
