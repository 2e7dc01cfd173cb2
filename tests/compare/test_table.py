# ruff: noqa: E501 - tables of cases
from __future__ import annotations

import gzip
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.state.record import Verdict
from runner.state.spec import NumberTolerance
from runner.tables.duck import Database
from runner.tables.malformed import MalformedError

ROWS = [(n, n / 8, f"n{n}") for n in range(1000)]
SAME, DIFFERS = Verdict.EQUIVALENT, Verdict.DIVERGED


def csv_of(rows: list[tuple[Any, ...]], head: str = "id,price,name") -> str:
    return "".join(f"{line}\n" for line in [head, *(",".join(map(str, row)) for row in rows)])


def parquet(folder: Path, **columns: Any) -> bytes:
    frame = pandas.DataFrame(columns)
    with duckdb.connect() as connection:
        connection.register("frame", frame)
        connection.execute(f"COPY frame TO '{folder / 'table'}' (FORMAT parquet)")
    return (folder / "table").read_bytes()


TABLE = csv_of(ROWS)
CHANGED = csv_of([(n, 10.5 if n == 80 else price, "é" if n == 7 else name) for n, price, name in ROWS])


@pytest.mark.parametrize(
    ("original", "replayed", "options", "verdict", "detail"),
    [
        (
            TABLE,
            CHANGED,
            {"key": "id", "rtol": 1e-6},
            DIFFERS,
            "2 of 1,000 rows differ; price: 1 outside rtol 1e-06, atol 0, most at id=80: 10.0 → 10.5 (+5 %); "
            'name: 1 outside rtol 1e-06, atol 0, first at id=7: "n7" → "é"; rows by id',
        ),
        (
            TABLE,
            CHANGED,
            {"ignore": ("name",)},
            DIFFERS,
            "1 of 1,000 rows differs; price: 1 differs, most at row 81: 10.0 → 10.5 (+5 %); "
            "rows by order; ignored: name",
        ),
        (
            TABLE,
            CHANGED,
            {"ignore": ("name",), "tolerances": {"price": NumberTolerance(atol=1)}},
            SAME,
            "1 cell inside rtol 0, atol 0 (price: rtol 0, atol 1) (largest relative difference 0.05); "
            "rows by order; ignored: name",
        ),
        (
            TABLE,
            csv_of(ROWS[:0:-1]) + "1000,1,x\n",
            {"key": "id"},
            DIFFERS,
            "1 row only in the original, first id=0; 1 row only in the replay, first id=1000; rows by id",
        ),
        (TABLE, csv_of(ROWS[::-1]), {"key": "id"}, SAME, "row order; the same cells; allowed: rtol 0, atol 0; rows by id"),
        (TABLE, csv_of(ROWS[:-1]), {}, DIFFERS, "1,000 rows became 999; rows by order"),
        ("a,b\n1,2\n", "b,a\n2,1\n", {}, SAME, "column order; the same cells; allowed: rtol 0, atol 0; rows by order"),
        ("a,b\n1,2\n", "a;b\r\n1;2\r\n", {}, SAME, "the same cells; allowed: rtol 0, atol 0; rows by order"),
        ("a,b\n1,2\n", "b,c\n2,3\n", {}, DIFFERS, "column a only in the original; column c only in the replay; rows by order"),
        ("a,b\n1,2\n", "a\n1\n", {"ignore": ("b",)}, SAME, "the same cells; allowed: rtol 0, atol 0; rows by order; ignored: b"),
        ("a\n01\n", "a\n1\n", {}, DIFFERS, "1 of 1 row differs; a: 1 differs, most at row 1: 01 → 1; rows by order"),
        ("a\n01\n", "a\n1\n", {"rtol": 1e-9}, SAME, "1 cell inside rtol 1e-09, atol 0; rows by order"),
        ("a\n1.0\n", "a\n1\n", {}, DIFFERS, "1 of 1 row differs; a: 1 differs, most at row 1: 1.0 → 1; rows by order"),
        ("a\nnan\n", "a\nNaN\n", {"atol": 1}, SAME, "1 cell inside rtol 0, atol 1; rows by order"),
        ("a\ninf\n", "a\n+Infinity\n", {"atol": 1}, SAME, "1 cell inside rtol 0, atol 1; rows by order"),
        ("a\n1_000\n", "a\n1000\n", {"atol": 1}, DIFFERS, '1 of 1 row differs; a: 1 outside rtol 0, atol 1, first at row 1: "1_000" → 1000; rows by order'),
        ("a,b\n,1\n", 'a,b\n"",1\n', {}, DIFFERS, '1 of 1 row differs; a: 1 differs, first at row 1: null → ""; rows by order'),
        ("1,2\n3,4\n", "1,2\n3,5\n", {}, DIFFERS, "1 of 2 rows differs; 2: 1 differs, most at row 2: 4 → 5 (+25 %); rows by order"),
        (
            "a\n9007199254740993\n",
            "a\n9007199254740992\n",
            {"atol": 0.5},
            DIFFERS,
            "1 of 1 row differs; a: 1 outside rtol 0, atol 0.5, most at row 1: "
            "9007199254740993 → 9007199254740992; rows by order",
        ),
        ("a,b\n1,2\n1,3\n", "a,b\n1,2\n", {"key": "a"}, DIFFERS, "original: the key is not unique: 2 rows with a=1"),
        ("a,b\n1,2\n", "a,b\n,2\n,3\n", {"key": "a"}, DIFFERS, "replay: the key is not unique: 2 rows with a=null"),
        ("a\n1\n", "b\n1\n", {"key": "a"}, DIFFERS, "replay: there is no column a, which is a key"),
        (
            "a,b,v\n1,1,1\n1,2,2\n",
            "a,b,v\n1,2,2\n1,1,3\n",
            {"key": ("a", "b")},
            DIFFERS,
            "1 of 2 rows differs; v: 1 differs, most at a=1, b=1: 1 → 3 (+200 %); row order; rows by a, b",
        ),
        ('{"a": 1}\n', '{"a":1,"b":null}\n\n', {"ignore": ("b",)}, SAME, "the same cells; allowed: rtol 0, atol 0; rows by order; ignored: b"),
        ('{"a":1}\n{"a":2}\n', '{"a":1}\n{"a":"2"}\n', {"rtol": 1}, DIFFERS, '1 of 2 rows differs; a: 1 outside rtol 1, atol 0, first at row 2: 2 → "\\"2\\""; rows by order'.replace('\\"', '"')),
        ('{"a":1.0}\n', '{"a":1.1}\n', {"rtol": 0.5}, SAME, "1 cell inside rtol 0.5, atol 0 (largest relative difference 0.1); rows by order"),
        ('{"a":1}\n', "a\n1\n", {}, DIFFERS, "JSON lines became CSV"),
        (TABLE, gzip.compress(TABLE.encode()), {}, SAME, "the same cells; allowed: rtol 0, atol 0; rows by order"),
        (TABLE, "", {}, DIFFERS, "replay: an empty file"),
        (TABLE, TABLE + "1,2\n", {}, DIFFERS, "replay: not a table: CSV Error on Line: 1002"),
        (TABLE, TABLE.encode() + b"\xff,1,1\n", {}, DIFFERS, "replay: not a table: CSV Error on Line: 1002"),
        (TABLE, b"\xff,1,1\n", {}, DIFFERS, "replay: not a table: not UTF-8 at byte 0"),
        (TABLE, gzip.compress(TABLE.encode())[:-200], {}, DIFFERS, "replay: "),
        (TABLE, "x" * (3 << 20), {}, DIFFERS, "replay: its first line is longer than 2 MiB"),
        ('{"a":1}\n', '{"a":1}\n{"a":', {}, DIFFERS, "replay: not a table: Malformed JSON"),
        (b"PAR1" + b"x" * 100, b"PAR1" + b"y" * 100, {}, DIFFERS, "compared as bytes (original: not a table: "),
        (TABLE, b"PAR1" + b"x" * 100 + b"PAR1", {}, DIFFERS, "replay: not a table: "),
        ("a,b\n1,2\n", ",".join(f"c{n}" for n in range(30_000)), {}, DIFFERS, "compared as bytes (replay: 30,000 columns"),
    ],
)  # fmt: skip
def test_conclusions(
    compare, original: str | bytes, replayed: str | bytes, options: dict[str, Any], verdict: Verdict, detail: str
) -> None:
    found = compare(original, replayed, "table", **options)
    assert found.verdict is verdict
    assert found.detail.startswith(detail)
    assert found.detail == detail or verdict is DIFFERS
    assert found.detail.isprintable()


def test_parquet_has_types(compare, tmp_path: Path) -> None:
    original = parquet(tmp_path, n=[1, 2], x=[0.5, math.nan], s=["a", None])
    assert compare(original, parquet(tmp_path, n=[1.0, 2.0], x=[0.5, math.nan], s=["a", None]), "table", rtol=1).detail == (
        "column n BIGINT became DOUBLE; rows by order"
    )  # fmt: skip
    again = parquet(tmp_path, s=["a", None], n=[1, 2], x=[0.5, math.nan])
    assert compare(original, again, "table").verdict is SAME
    found = compare(original, parquet(tmp_path, n=[1, 3], x=[0.5, 1.0], s=["b", "c"]), "table", rtol=0.5)
    assert found.detail == (
        '2 of 2 rows differ; s: 2 outside rtol 0.5, atol 0, first at row 1: "a" → "b"; '
        "x: 1 outside rtol 0.5, atol 0, first at row 2: null → 1.0; "
        "1 cell inside rtol 0.5, atol 0 (largest relative difference 0.5); rows by order"
    )


def test_nan_of_parquet_is_itself_and_is_not_null(compare, tmp_path: Path) -> None:
    def written(query: str) -> bytes:
        with duckdb.connect() as connection:
            connection.execute(f"COPY ({query}) TO '{tmp_path / 'table'}' (FORMAT parquet)")
        return (tmp_path / "table").read_bytes()

    nan = written("SELECT 'nan'::DOUBLE AS x, 1 AS y")
    assert compare(nan, written("SELECT 1 AS y, 'nan'::DOUBLE AS x"), "table").verdict is SAME
    for other in ("NULL::DOUBLE", "1::DOUBLE", "'inf'::DOUBLE"):
        assert compare(nan, written(f"SELECT {other} AS x, 1 AS y"), "table", rtol=9, atol=9).verdict is DIFFERS


def test_text_of_parquet_is_no_number(compare, tmp_path: Path) -> None:
    found = compare(parquet(tmp_path, s=["01"]), parquet(tmp_path, s=["1"]), "table", rtol=1)
    assert found.verdict is DIFFERS


@pytest.mark.parametrize("cut", [1, 9, 60, 300])
def test_a_damaged_parquet_is_a_finding(compare, tmp_path: Path, cut: int) -> None:
    whole = parquet(tmp_path, n=list(range(1000)), s=["x"] * 1000)
    for broken in (whole[:-cut], whole[: len(whole) // 2] + bytes(cut) + whole[len(whole) // 2 + cut :]):
        found = compare(whole, broken, "table")
        assert found.verdict is DIFFERS or found.detail.startswith("the same cells")
        assert str(tmp_path) not in found.detail


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_bytes_that_go_bad_in_a_parquet_are_never_an_error(compare, tmp_path_factory, data: st.DataObject) -> None:
    whole = parquet(tmp_path_factory.mktemp("p"), n=list(range(50)), s=[f"x{n}" for n in range(50)])
    place = data.draw(st.integers(4, len(whole) - 1))
    broken = bytearray(whole)
    broken[place] ^= data.draw(st.integers(1, 255))
    compare(whole, bytes(broken), "table")


@pytest.mark.parametrize("columns", [600, pytest.param(10_000, marks=pytest.mark.slow)])
def test_very_many_columns(compare, columns: int) -> None:
    head = ",".join(f"c{n}" for n in range(columns))
    one, two = ([str(n) for n in range(columns)] for _ in range(2))
    two[7], two[-1] = "x", "-1"
    found = compare(f"{head}\n{','.join(one)}\n", f"{head}\n{','.join(two)}\n", "table")
    assert found.detail.startswith(f'1 of 1 row differs; c7: 1 differs, first at row 1: 7 → "x"; c{columns - 1}: ')


def test_names_of_columns_do_no_harm(compare) -> None:
    head = '"a""; DROP TABLE original; --","\x1b[31m"\n'
    found = compare(head + "1,2\n", head + "1,3\n", "table")
    assert found.detail == "1 of 1 row differs; \\x1b[31m: 1 differs, most at row 1: 2 → 3 (+50 %); rows by order"


def test_nothing_but_the_two_files_is_opened_and_nothing_is_left(tmp_path: Path, monkeypatch) -> None:
    odd = tmp_path / "a*[b]?.csv"
    odd.write_text("a\n1\n")
    other = tmp_path / "other.csv"
    other.write_text("a\n2\n")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Database({"original": odd}) as database:
        assert database.load("original").rows == 1
        for statement in (
            f"SELECT * FROM read_csv('{other}')",
            f"COPY (SELECT 1) TO '{tmp_path}/out.csv'",
            f"ATTACH '{tmp_path}/x.db'",
            "INSTALL httpfs",
            "SET enable_external_access = true",
        ):
            with pytest.raises(MalformedError):
                database.rows(statement)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a*[b]?.csv", "other.csv"]


# --- properties -----------------------------------------------------------------------------------------

_CELLS = st.sampled_from(["1", "01", "1.5", "1.5000001", "nan", "", '""', "x", "-2", "1e3", "1000", "inf"])
_TABLES = st.lists(st.tuples(_CELLS, _CELLS), min_size=1, max_size=5)


@settings(deadline=None, max_examples=12)
@given(_TABLES, _TABLES, st.sampled_from([0.0, 1e-6, 0.5]), st.sampled_from([0.0, 0.1, 3.0]))
def test_symmetric_when_exact_and_monotone_in_the_tolerance(compare, a: Any, b: Any, rtol: float, atol: float) -> None:
    left, right = csv_of(a, "x,y"), csv_of(b, "x,y")
    assert compare(left, left, "table").verdict is Verdict.IDENTICAL
    assert compare(left, right, "table").verdict is compare(right, left, "table").verdict
    if compare(left, right, "table", rtol=rtol, atol=atol).verdict is not DIFFERS:
        assert compare(left, right, "table", rtol=rtol * 2, atol=atol + 1).verdict is not DIFFERS


@settings(deadline=None, max_examples=12)
@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.sampled_from([0.0, 0.5, 3.0])), min_size=1, max_size=6),
    st.sampled_from([{}, {"rtol": 1e-3}, {"atol": 0.01}]),
)
def test_agrees_with_pandas(
    compare, tmp_path_factory, rows: list[tuple[float, float]], options: dict[str, float]
) -> None:
    """Away from the very edge of the tolerance, where pandas has another formula; -0.0 is written in another way."""
    rows = [(x + 0.0, times) for x, times in rows]
    folder = tmp_path_factory.mktemp("p")
    bound = [options.get("rtol", 0.0) * abs(x) + options.get("atol", 0.0) for x, _ in rows]
    original = {"x": [x for x, _ in rows] + [math.nan]}
    replayed = {"x": [x + times * most for (x, times), most in zip(rows, bound, strict=True)] + [math.nan]}
    exact = {"check_exact": True} if not options else {"rtol": 0.0, "atol": 0.0} | options
    try:
        pandas.testing.assert_frame_equal(pandas.DataFrame(replayed), pandas.DataFrame(original), **exact)
        agreed = True
    except AssertionError:
        agreed = False
    found = compare(parquet(folder, **original), parquet(folder, **replayed), "table", **options)
    assert (found.verdict is not DIFFERS) == agreed
    lines = ["\n".join(json.dumps({"x": x}) for x in side["x"][:-1]) + "\n" for side in (original, replayed)]
    assert (compare(*lines, "table", **options).verdict is not DIFFERS) == agreed


@settings(deadline=None, max_examples=12)
@given(st.data(), st.sampled_from([{}, {"rtol": 1e-3}, {"atol": 0.01}]))
def test_agrees_with_pandas_about_rows_by_key(
    compare, tmp_path_factory, data: st.DataObject, options: dict[str, float]
) -> None:
    """Columns of several types, rows in another order, some cells changed, a row perhaps gone. pandas is given the rows
    sorted, and is exact about what is no float, as nothing else has a tolerance between 0 and 1."""
    folder = tmp_path_factory.mktemp("p")
    size = data.draw(st.integers(1, 5))
    before = pandas.DataFrame(
        {
            "id": range(size),
            "x": [data.draw(st.sampled_from([0.5, -3.0, 1e4])) for _ in range(size)],
            "n": [data.draw(st.integers(-5, 5)) for _ in range(size)],
            "s": [data.draw(st.sampled_from(["a", "b", None])) for _ in range(size)],
        }
    )
    after = before.copy()
    row = data.draw(st.integers(0, size - 1))
    for column, values in (("x", [1.0, 1.0001, 1.5]), ("n", [0, 1]), ("s", ["a", None])):
        if data.draw(st.booleans()):
            changed = data.draw(st.sampled_from(values))
            after.loc[row, column] = after.loc[row, column] * changed if column == "x" else changed
    after = after.iloc[data.draw(st.permutations(range(size - data.draw(st.integers(0, 1)) or 1)))]
    exact = {"check_exact": True} if not options else {"rtol": 0.0, "atol": 0.0} | options
    try:
        ordered = after.sort_values("id").reset_index(drop=True)
        pandas.testing.assert_frame_equal(ordered, before, **exact)
        agreed = True
    except AssertionError:
        agreed = False
    files = (parquet(folder, **{name: one[name] for name in one}) for one in (before, after))
    assert (compare(*files, "table", key=("id",), **options).verdict is not DIFFERS) == agreed


@settings(deadline=None, max_examples=12)
@given(_TABLES)
def test_a_table_is_itself_however_it_is_packed(compare, rows: Any) -> None:
    text = csv_of(rows, "x,y")
    for other in (gzip.compress(text.encode()), text.replace("\n", "\r\n")):
        assert compare(text, other, "table").verdict is SAME


# --- memory ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_gzip_bomb_is_read_in_bounded_memory(tmp_path: Path) -> None:
    """A megabyte that holds a gigabyte of equal rows."""
    small, bomb = tmp_path / "small.csv", tmp_path / "bomb.csv.gz"
    small.write_text("x\n1\n")
    block = (b"x" * 1023 + b"\n") * 1024
    with gzip.open(bomb, "wb", compresslevel=9) as file:
        for _ in range(1024):
            file.write(block)
    assert bomb.stat().st_size < 3 << 20
    detail, kibibytes = compared_apart(small, bomb, "")
    assert "column" in detail and kibibytes < 1536 << 10


@pytest.mark.slow
@pytest.mark.parametrize("key", ["", "id"])
def test_a_large_table_is_compared_in_bounded_memory(tmp_path: Path, key: str) -> None:
    """Two files of some 330 MB, in the other order where there is a key."""
    rows, files = 6_000_000, (tmp_path / "a.csv", tmp_path / "b.csv")
    with duckdb.connect() as connection:
        for file, order in zip(files, ("id", "hash(id)" if key else "id"), strict=True):
            connection.execute(
                f"COPY (SELECT range AS id, sqrt(range) + {0 if file == files[0] else 1e-9} AS x, md5(range::VARCHAR)"
                f" AS name FROM range({rows}) ORDER BY {order}) TO '{file}' (FORMAT csv, HEADER)"
            )
    assert files[0].stat().st_size > 300_000_000
    detail, kibibytes = compared_apart(*files, key)
    assert "inside rtol 0.001, atol 1e-06" in detail
    assert kibibytes < 1536 << 10


def compared_apart(original: Path, replayed: Path, key: str) -> tuple[str, int]:
    """The detail, and the peak memory of a process that does nothing else. (`getrusage` would count its parent's.)"""
    script = (
        "import sys; from pathlib import Path; from runner.compare.table import compare;"
        "from runner.state.spec import OutputRule;"
        "rule = OutputRule('table', rtol=1e-3, atol=1e-6, key=tuple(filter(None, sys.argv[3:])));"
        "found = compare(Path(sys.argv[1]), Path(sys.argv[2]), rule);"
        "print(found.detail); print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(original), str(replayed), key], capture_output=True, text=True, check=True
    )
    detail, kibibytes = done.stdout.splitlines()
    return detail, int(kibibytes)
