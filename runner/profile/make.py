"""Make a profile of one file. The file is read once; what follows are scans of single columns in duckdb's own storage,
in bounded memory. No aggregate is used whose answer depends on the order in which threads come."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from runner.profile.values import STEPS, ColumnProfile, Kind, Profile
from runner.tables.duck import Column, Database, Table

SAMPLED = 100_000
_CELLS = 20_000_000
_LEAST_SAMPLED = 2_000
_AT_ONCE = 64
_LISTED = {"text": 100, "boolean": 2, "number": 20}
_ESTIMATE = 1.5
_MOST_FREQUENT = 20
_RANKED_COLUMNS = 50
_FEW_ROWS = 4_000
_LONGEST = 100
_INTEGERS = {f"{sign}{size}" for sign in ("", "U") for size in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")}
_POINTS = [step / STEPS for step in range(STEPS + 1)]


def profile_of(file: Path) -> Profile:
    """Raises `MalformedError` for what is no table or too large, `OSError`."""
    with Database({"data": file}, in_memory=True) as database:
        table = database.load_typed("data")
        return _Looking(database, table).profile()


class _Looking:
    def __init__(self, database: Database, table: Table) -> None:
        self._database = database
        self._table = table
        self._columns = [(column, kind_of(column.type)) for column in table.columns]
        self._wanted = max(_LEAST_SAMPLED, min(SAMPLED, _CELLS // len(table.columns)))

    def profile(self) -> Profile:
        rows = self._table.rows
        self._sampled = self._sample()
        found = [self._facts(some) for some in _some(self._columns)]
        columns = [column for some in found for column in some]
        columns = self._with_categories(columns)
        columns = self._with_uniqueness(columns)
        return Profile(
            format=self._table.format,
            rows=rows,
            sampled=self._sampled,
            columns=tuple(_named(columns)),
        )

    def _sample(self) -> int:
        """Rows by a hash of their place, so that no period of the file is met."""
        if self._table.rows <= self._wanted:
            self._database.rows("CREATE VIEW sample AS SELECT * FROM data")
            return self._table.rows
        bound = (self._wanted << 64) // self._table.rows
        self._database.rows(f"CREATE TABLE sample AS SELECT * FROM data WHERE hash(rowid) < {bound}::UBIGINT")
        count: int = self._database.rows("SELECT count(*) FROM sample")[0][0]
        return count

    def _facts(self, some: Sequence[tuple[Column, Kind]]) -> list[ColumnProfile]:
        counted = self._row(some, "data", _counts)
        sketched = self._sketches(some)
        return [
            _column(column, kind, self._table.rows, counts, sketch)
            for (column, kind), counts, sketch in zip(some, counted, sketched, strict=True)
        ]

    def _sketches(self, some: Sequence[tuple[Column, Kind]]) -> list[tuple[Any, ...]]:
        """Quantiles, and of how many values; of few rows they are taken here, which is faster for wide tables."""
        if self._sampled > _FEW_ROWS:
            return self._row(some, "sample", _sketch)
        asked = ", ".join(_value(column, kind) or "NULL" for column, kind in some)
        rows = self._database.rows(f"SELECT {asked} FROM sample")
        return [_sketch_of(values) for values in zip(*rows, strict=True)] if rows else [((), 0)] * len(some)

    def _row(self, some: Sequence[tuple[Column, Kind]], table: str, asked: Any) -> list[tuple[Any, ...]]:
        """The answers of one scan, as many for each column as `asked` has questions."""
        questions = [question for column, kind in some for question in asked(column, kind)]
        width = len(questions) // len(some)
        row = self._database.rows(f"SELECT {', '.join(questions)} FROM {table}")[0]
        return [row[place : place + width] for place in range(0, len(row), width)]

    def _with_categories(self, columns: Sequence[ColumnProfile]) -> list[ColumnProfile]:
        found = list(columns)
        few = [place for place, one in enumerate(columns) if _may_be_listed(one)]
        for some in _some(few):
            asked = ", ".join(f"histogram({_word(*self._columns[place])})" for place in some)
            for place, counts in zip(some, self._database.rows(f"SELECT {asked} FROM data")[0], strict=True):
                found[place] = _listed(found[place], counts or {})
        many = [place for place, one in enumerate(found) if one.kind == "text" and not one.complete]
        for place in many[:_RANKED_COLUMNS]:
            word = _word(*self._columns[place])
            frequent = self._database.rows(
                f"SELECT {word} AS word, count(*) AS times FROM sample WHERE {self._columns[place][0].sql} IS NOT NULL"
                f" GROUP BY word HAVING times > 1 ORDER BY times DESC, word LIMIT {_MOST_FREQUENT}"
            )
            found[place] = msgspec.structs.replace(found[place], categories=tuple(frequent))
        return found

    def _with_uniqueness(self, columns: Sequence[ColumnProfile]) -> list[ColumnProfile]:
        """Looked at one by one where the estimate allows it, since it takes memory or disk for every value."""
        found = list(columns)
        for place, one in enumerate(columns):
            values = self._table.rows - one.nulls
            integer = one.type in _INTEGERS
            if not (integer or one.kind == "text") or values < 2 or one.nulls:
                continue
            unique = False
            if one.distinct * _ESTIMATE >= values and (not integer or _range(one) >= values):
                sql = self._columns[place][0].sql
                unique = self._database.rows(f"SELECT count(DISTINCT {sql}) FROM data")[0][0] == values
            found[place] = msgspec.structs.replace(one, unique=unique)
        return found


def kind_of(type: str) -> Kind:
    if type == "BOOLEAN":
        return "boolean"
    if type in _INTEGERS or type in ("FLOAT", "DOUBLE") or type.startswith("DECIMAL"):
        return "number"
    if type == "DATE" or type.startswith("TIMESTAMP"):
        return "time"
    return "text" if type in ("VARCHAR", "JSON", "UUID") else "other"


def _counts(column: Column, kind: Kind) -> Iterator[str]:
    """Values, NaN, infinite, distinct, lowest, highest."""
    name, floating = column.sql, column.type in ("FLOAT", "DOUBLE")
    yield f"count({name})"
    yield f"count_if(isnan({name}))" if floating else "0"
    yield f"count_if(isinf({name}))" if floating or kind == "time" else "0"
    yield f"approx_count_distinct({name})" if kind != "other" else "0"
    for end in ("min", "max"):
        finite = f" FILTER (isfinite({name}))" if floating or kind == "time" else ""
        yield f"left(CAST({end}({name}){finite} AS VARCHAR), {_LONGEST})" if kind != "other" else "NULL"


def _sketch(column: Column, kind: Kind) -> Iterator[str]:
    """Quantiles of what can be ordered, and of how many values they are."""
    value = _value(column, kind)
    if value is None:
        yield from ("NULL", "0")
        return
    finite = f"FILTER (isfinite({value}))"
    yield f"quantile_disc({value}, {_POINTS}) {finite}"
    yield f"count({value}) {finite}"


def _value(column: Column, kind: Kind) -> str | None:
    """What is ordered of a column, as a double."""
    name = column.sql
    return {
        "number": f"CAST({name} AS DOUBLE)",
        "time": f"CASE WHEN isfinite({name}) THEN epoch({name}) END",
        "text": f"CAST(length(CAST({name} AS VARCHAR)) AS DOUBLE)",
    }.get(kind)


def _sketch_of(values: Iterable[float | None]) -> tuple[tuple[float, ...], int]:
    """As `_sketch` has it of duckdb."""
    finite = sorted(value for value in values if value is not None and math.isfinite(value))
    places = (max(0, -(-step * len(finite) // STEPS) - 1) for step in range(STEPS + 1))
    return tuple(finite[place] for place in places) if finite else (), len(finite)


def _column(column: Column, kind: Kind, rows: int, counts: tuple[Any, ...], sketch: tuple[Any, ...]) -> ColumnProfile:
    values, nan, infinite, distinct, low, high = counts
    return ColumnProfile(
        name=column.name,
        type=column.type,
        kind=kind,
        nulls=rows - values + nan,
        infinite=infinite,
        distinct=min(distinct, values),
        low=low,
        high=high,
        quantiles=tuple(value + 0.0 for value in sketch[0] or ()),
        counted=sketch[1],
    )


def _may_be_listed(column: ColumnProfile) -> bool:
    return column.distinct <= _ESTIMATE * _LISTED.get(column.kind, -1)


def _word(column: Column, kind: Kind) -> str:
    """A value as text; of a long one its beginning and its MD5."""
    text = f"CAST({column.sql} AS VARCHAR)"
    if kind != "text":
        return text
    cut = f"left({text}, {_LONGEST - 40}) || '… ' || md5({text})"
    return f"CASE WHEN length({text}) > {_LONGEST} THEN {cut} ELSE {text} END"


def _listed(column: ColumnProfile, counts: dict[str, int]) -> ColumnProfile:
    if len(counts) > _LISTED[column.kind]:
        return column
    ranked = tuple(sorted(counts.items(), key=lambda one: (-one[1], one[0])))
    return msgspec.structs.replace(column, categories=ranked, complete=True, distinct=len(ranked))


def _range(column: ColumnProfile) -> int:
    return int(column.high or 0) - int(column.low or 0) + 1


def _named(columns: Iterable[ColumnProfile]) -> Iterator[ColumnProfile]:
    """A name that comes again is numbered."""
    seen: Counter[str] = Counter()
    for column in columns:
        seen[column.name] += 1
        again = seen[column.name]
        yield msgspec.structs.replace(column, name=f"{column.name} #{again}") if again > 1 else column


def _some(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), _AT_ONCE):
        yield values[start : start + _AT_ONCE]
