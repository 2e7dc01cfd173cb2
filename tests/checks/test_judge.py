"""Rules against values, with no engine."""

from __future__ import annotations

import csv
import operator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.checks import evaluate, schema_problem
from runner.checks.judge import metric_problems, value_at
from runner.state.spec import Check, ColumnRule, RowsRule, TableRule

numbers = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))
signs = {">=": operator.ge, "<=": operator.le, "==": operator.eq, "!=": operator.ne, ">": operator.gt, "<": operator.lt}
cells = st.one_of(st.none(), st.integers(-50, 50))


def found(path: Path, rule: TableRule) -> tuple[str, str]:
    told = evaluate(Check(name="c", on=path.name, when="after", table=rule), path)
    return told.result, told.detail


@given(numbers, st.sampled_from(sorted(signs)), numbers)
def test_a_threshold_means_what_it_says(value: float, sign: str, limit: float) -> None:
    met = not list(metric_problems({"a": value}, {"a": f"{sign} {limit:.3f}"}))
    assert met is signs[sign](value, limit)


@given(numbers, numbers, numbers)
def test_several_thresholds_must_all_be_met(value: float, low: float, high: float) -> None:
    met = not list(metric_problems({"a": value}, {"a": f">= {low:.3f}, < {high:.3f}"}))
    assert met is (low <= value < high)


names = st.text("abc", min_size=1, max_size=3)
documents = st.recursive(
    st.integers(), lambda inner: st.dictionaries(names, inner, max_size=3) | st.lists(inner, max_size=3), max_leaves=9
)


@given(documents)
def test_every_value_is_found_by_its_dotted_key(document: object) -> None:
    def leaves(value: object, key: str) -> dict[str, object]:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
        if items is None:
            return {key: value}
        return {
            name: leaf
            for part, one in items
            for name, leaf in leaves(one, f"{key}.{part}" if key else str(part)).items()
        }

    for name, leaf in leaves(document, "").items():
        if name:
            assert value_at(document, name) == leaf


@pytest.mark.parametrize("document", [{}, {"a": "1"}, {"a": True}, {"a": None}, {"a": {}}, [], 3, None])
def test_what_is_no_number_meets_no_threshold(document: object) -> None:
    assert list(metric_problems(document, {"a": "!= 5"}))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=20), st.integers(-50, 50), st.floats(0, 1))
def test_a_table_is_counted_like_by_hand(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int | None, int | None]], low: int, share: float
) -> None:
    path = tmp_path_factory.mktemp("t") / "t.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("a", "b"), *(tuple("" if cell is None else cell for cell in row) for row in rows)])
    column = [row[0] for row in rows]
    values = [cell for cell in column if cell is not None]
    expected = {
        ColumnRule("integer", min=low): not any(cell < low for cell in values),
        ColumnRule(nulls=share): column.count(None) <= share * len(column),
        ColumnRule(unique=True): len(set(values)) == len(values),
        ColumnRule(values=tuple(map(str, range(low, 51)))): not any(cell < low for cell in values),
    }
    for rule, met in expected.items():
        result, detail = found(path, TableRule(columns={"a": rule}))
        assert (result == "pass") is met, (rule, detail)
    assert (found(path, TableRule(unique=("a", "b")))[0] == "pass") is (len(set(rows)) == len(rows))
    assert found(path, TableRule(rows=RowsRule(len(rows), len(rows))))[0] == "pass"
    assert found(path, TableRule(rows=RowsRule(len(rows) + 1)))[0] == "fail"


CSV = "i,n,b,t,d,s\n1,1.5,true,x,2026-01-31,2026-01-31 10:00:00\n1.5,x,yes,,2026-02-31,noon\n"
LINES = (
    '{"i": 1, "n": 1.5, "b": true, "t": "x", "d": "2026-01-31", "s": "2026-01-31T10:00:00"}\n'
    '{"i": 1.5, "n": "x", "b": "yes", "t": null, "d": "2026-02-31", "s": "noon"}\n'
)
TYPES = {"i": "integer", "n": "number", "b": "boolean", "d": "date", "s": "datetime"}


@pytest.mark.parametrize(("name", "content"), [("t.csv", CSV), ("t.jsonl", LINES)])
def test_every_type_is_told_from_others(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    for column, kind in TYPES.items():
        told = found(path, TableRule(columns={column: kind}))  # type: ignore[dict-item]
        assert told == ("fail", f"{column}: 1 value is no {kind} (first in row 2)")
        path.write_text("".join(content.splitlines(keepends=True)[:-1]))
        assert found(path, TableRule(columns={column: kind}))[0] == "pass"  # type: ignore[dict-item]
        path.write_text(content)
    assert found(path, TableRule(columns={"t": "text"}))[0] == "pass"
    late = TableRule(columns={"d": ColumnRule("date", max="2026-01-01")})
    assert "1 value is above 2026-01-01" in found(path, late)[1]


def test_types_of_parquet_are_those_of_the_file(tmp_path: Path) -> None:
    import duckdb

    path = tmp_path / "t.parquet"
    duckdb.sql("SELECT 1 AS i, 1.5::DOUBLE AS n, true AS b, 'x' AS t, DATE '2026-01-31' AS d").write_parquet(str(path))
    right = {"i": "integer", "n": "number", "b": "boolean", "t": "text", "d": "date"}
    assert found(path, TableRule(columns=right)) == ("pass", "")  # type: ignore[arg-type]
    for column in right:
        wrong = "boolean" if column != "b" else "text"
        assert found(path, TableRule(columns={column: wrong}))[0] == "fail"  # type: ignore[dict-item]


def test_columns_that_are_missing_or_undeclared_are_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\nx,y\n")
    assert found(path, TableRule(columns={"a": "text", "z": "text"}))[1] == "no column z"
    assert found(path, TableRule(columns={"a": "text"}, others=False))[1] == "undeclared column b"


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", b"a,b\n1,2,3\n", b"\xff\xfe\x00"])
def test_what_is_no_table_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    result, detail = found(path, TableRule(rows=RowsRule(1)))
    assert result == "error" and detail and str(tmp_path) not in detail


def test_a_schema_reaches_nothing_outside() -> None:
    assert schema_problem({"$ref": "file:///etc/passwd"})
    assert schema_problem({"type": "object", "$defs": {"a": {}}, "$ref": "#/$defs/a"}) is None
