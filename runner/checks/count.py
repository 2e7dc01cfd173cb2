"""What a rule asks of a table, counted in one pass by duckdb, within the bounds of its door."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runner.checks.judge import ColumnFacts, Counted, TableFacts, column_rules
from runner.state.spec import ColumnRule, TableRule
from runner.tables.duck import Column, Database, Table

_FACTS = ("mistyped", "low", "high", "other")
_INTEGER = r"\s*[-+]?\d+\s*"
_DATE = r"\d{4}-\d\d-\d\d"
_PARQUET_TYPES = {
    "boolean": ("BOOLEAN",),
    "text": ("VARCHAR", "ENUM", "UUID"),
    "date": ("DATE",),
    "datetime": ("TIMESTAMP",),
}


def count(path: Path, rule: TableRule) -> TableFacts:
    """Raises `MalformedError` for what is no table, `OSError`."""
    rules = column_rules(rule)
    with Database({"checked": path}) as database:
        table = database.load("checked")
        columns = {column.name: column for column in table.columns}
        asked = [name for name in rules if name in columns]
        facts = {name: _column_facts(database, table, columns[name], rules[name]) for name in asked}
        key = [columns[name].sql for name in rule.unique if name in columns]
        repeated = _repeated(database, key, table.rows) if len(key) == len(rule.unique) and key else 0
        return TableFacts(table.rows, tuple(columns), facts, repeated)


def _column_facts(database: Database, table: Table, column: Column, rule: ColumnRule) -> ColumnFacts:
    broken = _conditions(table, column, rule)
    chosen = [f"count({column.sql})", f"count(DISTINCT {column.sql})"] if rule.unique else [f"count({column.sql})", "0"]
    parameters: list[Any] = []
    for condition, values in broken:
        # A condition that is null says nothing: a null is counted as one, and as nothing else.
        chosen += [f"count(*) FILTER ({condition})", f"min(rowid) FILTER ({condition})"]
        parameters += [*values, *values]
    (row,) = database.rows(f"SELECT {', '.join(chosen)} FROM {table.sql}", parameters)
    pairs = zip(row[2::2], row[3::2], strict=True)
    counted = [Counted(number, None if first is None else first + 1) for number, first in pairs]
    return ColumnFacts(row[0], row[1], **dict(zip(_FACTS, counted, strict=True)))


def _conditions(table: Table, column: Column, rule: ColumnRule) -> list[tuple[str, Sequence[Any]]]:
    """That a value is of another type, too low, too high, or none of those listed."""
    text, number = _text(table, column), f"TRY_CAST({column.sql} AS DOUBLE)"
    is_time = isinstance(rule.min, str) or isinstance(rule.max, str)
    value, bound = (f"TRY_CAST({text} AS TIMESTAMP)", "CAST(? AS TIMESTAMP)") if is_time else (number, "?")
    none: tuple[str, Sequence[Any]] = ("false", ())
    listed = ", ".join("?" * len(rule.values))
    return [
        (f"{column.sql} IS NOT NULL AND NOT ({_is_type(table, column, text, rule)})", ()),
        none if rule.min is None else (f"{value} < {bound}", (rule.min,)),
        none if rule.max is None else (f"{value} > {bound}", (rule.max,)),
        (f"{text} NOT IN ({listed})", rule.values) if rule.values else none,
    ]


def _is_type(table: Table, column: Column, text: str, rule: ColumnRule) -> str:
    if rule.type is None:
        return "true"
    if table.format == "Parquet":
        return "true" if _is_parquet_type(column, rule.type) else "false"
    is_text = f"starts_with(ltrim({column.sql}), '\"')" if table.format == "JSON lines" else "true"
    return {
        "integer": f"regexp_full_match({column.sql}, '{_INTEGER}')",
        "number": f"TRY_CAST({column.sql} AS DOUBLE) IS NOT NULL",
        "boolean": f"lower({column.sql}) IN ('true', 'false')",
        "text": is_text,
        "date": f"regexp_full_match({text}, '{_DATE}') AND TRY_CAST({text} AS DATE) IS NOT NULL",
        "datetime": f"regexp_matches({text}, '^{_DATE}') AND TRY_CAST({text} AS TIMESTAMP) IS NOT NULL",
    }[rule.type]


def _is_parquet_type(column: Column, wanted: str) -> bool:
    if wanted in ("integer", "number"):
        integer = column.kind == "integer" or column.type in ("HUGEINT", "UHUGEINT")
        return integer or (wanted == "number" and column.kind == "number")
    return column.type.startswith(_PARQUET_TYPES[wanted])


def _text(table: Table, column: Column) -> str:
    """A value as people write it: JSON's strings without their quotes."""
    if table.format == "JSON lines":
        return f"json_extract_string({column.sql}, '$')"
    return f"CAST({column.sql} AS VARCHAR)"


def _repeated(database: Database, key: Sequence[str], rows: int) -> int:
    (row,) = database.rows(f"SELECT count(*) FROM (SELECT DISTINCT {', '.join(key)} FROM checked)")
    return rows - int(row[0])
