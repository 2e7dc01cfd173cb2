"""Comparator `table`: cells, in rows paired by key or by order.

Columns are paired by name; one that is added, missing or of another type has diverged. Null equals null
and NaN equals NaN. Without a tolerance a cell of CSV or JSON lines is its text (`01` is not `1`, nor is
`1.0`); where a tolerance applies, two cells that are numbers are compared as numbers. Integers are
told apart exactly, other numbers in doubles; what is inside lists and structs has no tolerance.

Both files are loaded (see `duck`), then compared some columns at a time: memory has a bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from runner.compare import raw
from runner.compare.comparator import Comparator, Comparison
from runner.compare.malformed import as_bytes, either_malformed, loaded
from runner.compare.tolerance import Tolerance, change, tolerances_of
from runner.errors import UsageError
from runner.shown import count, few, shown
from runner.state.record import Verdict
from runner.state.spec import OutputRule
from runner.tables.duck import Column, Database, Table
from runner.tables.malformed import MalformedError, TooLargeError

_AT_ONCE = 64
_AT_ONCE_SIMPLY = 512
_EXAMPLES = 3
_NAME_SHOWN = 60
_VALUE_SHOWN = 60
_VALUE_READ = 200

_NUMBER = (
    r"'\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*"
    r"|\s*[-+]?([nN][aA][nN]|[iI][nN][fF]([iI][nN][iI][tT][yY])?)\s*'"
)
_INTEGER = r"'\s*[-+]?[0-9]{1,37}\s*'"


class _Pairing(msgspec.Struct, frozen=True):
    """Which rows belong together: `rows` pairs `a` and `b` in the FROM clause `clause`."""

    clause: str
    rows: int
    differences: tuple[str, ...] = ()
    is_reordered: bool = False


class _Found(NamedTuple):
    """What a column's pairs of cells come to. `worst` is its pair of rows."""

    column: Column
    tolerance: Tolerance
    outside: int
    inside: int
    largest: float
    worst: tuple[int, int]


class _KeyError(Exception):
    """Rows cannot be told apart by the key; the message says why."""


def compare(original: Path, replayed: Path, rule: OutputRule) -> Comparison:
    by_bytes = raw.compare(original, replayed, rule)
    if by_bytes.verdict is Verdict.IDENTICAL:
        return by_bytes
    try:
        with Database({"original": original, "replayed": replayed}) as database:
            before = loaded(lambda _: database.load("original", rule.ignore), original)
            after = loaded(lambda _: database.load("replayed", rule.ignore), replayed)
            if isinstance(before, MalformedError) or isinstance(after, MalformedError):
                return either_malformed(before, after, by_bytes)
            return _Comparing(database, before, after, rule).conclusion()
    except _KeyError as error:
        return Comparison(Verdict.DIVERGED, str(error))
    except TooLargeError as error:
        return as_bytes(str(error), by_bytes)


def check(path: str, rule: OutputRule) -> None:
    keys = rule.key_columns
    if not all(keys) or len(set(keys)) < len(keys):
        raise UsageError(
            f"output {path!r}: `key` is empty or names a column twice",
            "it is the column, or the list of columns, that no two rows have in common",
            "write it as in `key: id`, or leave it out to compare rows by their order",
        )
    for name in keys:
        if name in rule.ignore:
            raise UsageError(
                f"output {path!r}: column {name!r} is under `key` and under `ignore`",
                "rows are paired by what their key columns hold",
                "take it out of one of them",
            )


COMPARATOR = Comparator(compare, frozenset({"rtol", "atol", "tolerances", "ignore", "key"}), check, extra="tables")


class _Comparing:
    def __init__(self, database: Database, original: Table, replayed: Table, rule: OutputRule) -> None:
        self._database = database
        self._original = original
        self._replayed = replayed
        self._ignore = rule.ignore
        self._tolerances = tolerances_of(rule)
        self._after = {column.name: column for column in replayed.columns}
        self._before = {column.name: column for column in original.columns}
        self._key = self._key_columns(rule.key_columns)

    def conclusion(self) -> Comparison:
        if self._original.format != self._replayed.format:
            return Comparison(Verdict.DIVERGED, f"{self._original.format} became {self._replayed.format}")
        pairing = self._by_key() if self._key else self._by_order()
        common = [column for column in self._original.columns if self._is_common(column)]
        changed = [column for some in _some(common, _AT_ONCE_SIMPLY) for column in self._changed(pairing, some)]
        found = [one for some in _some(changed) for one in self._look(pairing, some)]
        differences = [*self._cells(pairing, found), *pairing.differences, *_columns(self._before, self._after)]
        inside, about = self._inside(pairing, found), self._about()
        if differences:
            return Comparison(Verdict.DIVERGED, "; ".join([*differences, *inside, *about]))
        same = [] if any(one.inside for one in found) else ["the same cells", f"allowed: {self._tolerances}"]
        return Comparison(Verdict.EQUIVALENT, "; ".join([*inside, *same, *about]))

    def _is_common(self, column: Column) -> bool:
        return column.name in self._after and self._after[column.name].type == column.type

    # --- which rows belong together

    def _key_columns(self, names: Sequence[str]) -> list[Column]:
        for side, columns in (("original", self._before), ("replay", self._after)):
            for name in names:
                if name not in columns:
                    raise _KeyError(f"{side}: there is no column {_name(name)}, which is a key")
        return [self._before[name] for name in names]

    def _by_order(self) -> _Pairing:
        """Positions pair the rows; those that one table has in excess are dropped."""
        before, after = self._original.rows, self._replayed.rows
        clause, common = f"{self._original.sql} a POSITIONAL JOIN {self._replayed.sql} b", min(before, after)
        if before == after:
            return _Pairing(clause, common)
        longer = self._original if before > after else self._replayed
        self._database.rows(f"DELETE FROM {longer.sql} WHERE rowid >= {common}")
        return _Pairing(clause, common, (f"{count(before, 'row')} became {after:,}",))

    def _by_key(self) -> _Pairing:
        self._refuse_repeated("original", self._original, [column.sql for column in self._key])
        self._refuse_repeated("replay", self._replayed, [self._after[column.name].sql for column in self._key])
        if changed := [column for column in self._key if not self._is_common(column)]:
            raise _KeyError(_retyped(changed[0], self._after[changed[0].name]))
        if self._is_aligned():
            return self._by_order()
        self._database.rows(
            f"CREATE TABLE pairs AS SELECT a.rowid AS ra, b.rowid AS rb"
            f" FROM {self._original.sql} a FULL JOIN {self._replayed.sql} b ON {self._same_key()}"
        )
        both, lost, new, first_lost, first_new = self._database.rows(
            "SELECT count(*) FILTER (ra IS NOT NULL AND rb IS NOT NULL), count(*) FILTER (rb IS NULL),"
            " count(*) FILTER (ra IS NULL), min(ra) FILTER (rb IS NULL), min(rb) FILTER (ra IS NULL) FROM pairs"
        )[0]
        differences = []
        if lost:
            differences.append(f"{count(lost, 'row')} only in the original, first {self._row_of_original(first_lost)}")
        if new:
            differences.append(f"{count(new, 'row')} only in the replay, first {self._row_of_replay(first_new)}")
        clause = f"pairs JOIN {self._original.sql} a ON a.rowid = ra JOIN {self._replayed.sql} b ON b.rowid = rb"
        return _Pairing(clause, both, tuple(differences), is_reordered=True)

    def _refuse_repeated(self, side: str, table: Table, key: Sequence[str]) -> None:
        found = self._database.rows(
            f"SELECT min(rowid) AS r, count(*) FROM {table.sql} GROUP BY {', '.join(key)}"
            " HAVING count(*) > 1 ORDER BY r LIMIT 1"
        )
        if found:
            row, times = found[0]
            shown_row = self._row_of_original(row) if side == "original" else self._row_of_replay(row)
            raise _KeyError(f"{side}: the key is not unique: {count(times, 'row')} with {shown_row}")

    def _is_aligned(self) -> bool:
        if self._original.rows != self._replayed.rows:
            return False
        found = self._database.rows(
            f"SELECT count(*) FROM {self._original.sql} a POSITIONAL JOIN {self._replayed.sql} b"
            f" WHERE NOT ({self._same_key()})"
        )
        return not found[0][0]

    def _same_key(self) -> str:
        pairs = [(column.sql, self._after[column.name].sql) for column in self._key]
        return " AND ".join(f"a.{before} IS NOT DISTINCT FROM b.{after}" for before, after in pairs)

    # --- looking at cells

    def _changed(self, pairing: _Pairing, columns: Sequence[Column]) -> list[Column]:
        """The columns that are not the same everywhere, which is quickly told."""
        answers = ", ".join(f"bool_or({self._differs(column)})" for column in columns)
        row = self._database.rows(f"SELECT {answers} FROM {pairing.clause}")[0]
        return [column for column, changed in zip(columns, row, strict=True) if changed]

    def _look(self, pairing: _Pairing, columns: Sequence[Column]) -> list[_Found]:
        answers = ", ".join(_aggregates(place) for place in range(len(columns)))
        row = self._database.rows(f"SELECT {answers} FROM ({self._states(pairing, columns)})")[0]
        found = []
        for place, column in enumerate(columns):
            outside, inside, largest, worst = row[4 * place : 4 * place + 4]
            pair = (-worst["a"], worst["b"]) if worst else (0, 0)
            found.append(_Found(column, self._tolerances.of(column.name), outside, inside, largest or 0.0, pair))
        return found

    def _states(self, pairing: _Pairing, columns: Sequence[Column]) -> str:
        """Of each pair of rows and column: s, whether it differs, 1 inside and 2 outside the tolerance; m, how
        far outside; q, the relative difference inside. Each step uses what the one below has worked out."""
        cells = ", ".join(self._cell(place, column) for place, column in enumerate(columns))
        apart = ", ".join(
            f"d{place}, x{place}, y{place}, coalesce(e{place}, abs(y{place} - x{place})) AS p{place}"
            for place in range(len(columns))
        )
        states = ", ".join(self._state(place, column) for place, column in enumerate(columns))
        return (
            f"SELECT ra, rb, {states} FROM (SELECT ra, rb, {apart} FROM"
            f" (SELECT a.rowid AS ra, b.rowid AS rb, {cells} FROM {pairing.clause}))"
        )

    def _differs(self, column: Column) -> str:
        return f"a.{column.sql} IS DISTINCT FROM b.{self._after[column.name].sql}"

    def _cell(self, place: int, column: Column) -> str:
        """d, whether two cells differ; then x and y, the numbers that they are, and e, how far integers are apart."""
        a, b, differs = f"a.{column.sql}", f"b.{self._after[column.name].sql}", self._differs(column)
        return (
            f"{differs} AS d{place}, CASE WHEN {differs} THEN {_number(a, column)} END AS x{place},"
            f" CASE WHEN {differs} THEN {_number(b, column)} END AS y{place},"
            f" CASE WHEN {differs} THEN {_exactly_apart(a, b, column)} END AS e{place}"
        )

    def _state(self, place: int, column: Column) -> str:
        tolerance = self._tolerances.of(column.name)
        x, y, apart = f"x{place}", f"y{place}", f"p{place}"
        finite = f"isfinite({x}) AND isfinite({y})"
        state, excess = "2", apart
        if tolerance != Tolerance():
            bound = f"({tolerance.atol!r}::DOUBLE + {tolerance.rtol!r}::DOUBLE * abs({x}))"
            same = f"{apart} = 0 OR (NOT isfinite({x}) AND {x} = {y})"
            state = f"CASE WHEN {same} OR ({finite} AND {apart} <= {bound}) THEN 1 ELSE 2 END"
            excess = f"{apart} / {bound}"
        return (
            f"CASE WHEN d{place} THEN {state} ELSE 0 END AS s{place},"
            f" CASE WHEN {finite} THEN {excess} ELSE 'inf'::DOUBLE END AS m{place},"
            f" CASE WHEN {finite} AND {x} <> 0 THEN {apart} / abs({x}) END AS q{place}"
        )

    # --- saying what was found

    def _cells(self, pairing: _Pairing, found: Sequence[_Found]) -> list[str]:
        differing = sorted((one for one in found if one.outside), key=lambda one: -one.outside)
        if not differing:
            return []
        rows = self._differing_rows(pairing, [one.column for one in differing])
        verb = "differs" if rows == 1 else "differ"
        more = len(differing) - _EXAMPLES
        return [
            f"{rows:,} of {count(pairing.rows, 'row')} {verb}",
            *(self._worst(one) for one in differing[:_EXAMPLES]),
            *([f"{count(more, 'more column')} with differences"] if more > 0 else []),
        ]

    def _differing_rows(self, pairing: _Pairing, columns: Sequence[Column]) -> int:
        if len(columns) <= _AT_ONCE:
            return int(self._database.rows(f"SELECT count(*) FROM ({self._outside(pairing, columns)})")[0][0])
        self._database.rows("CREATE TABLE differing (r BIGINT)")
        for some in _some(columns):
            self._database.rows(f"INSERT INTO differing {self._outside(pairing, some)}")
        return int(self._database.rows("SELECT count(DISTINCT r) FROM differing")[0][0])

    def _outside(self, pairing: _Pairing, columns: Sequence[Column]) -> str:
        """The rows in which one of the columns differs too much."""
        outside = " OR ".join(f"s{place} = 2" for place in range(len(columns)))
        return f"SELECT ra FROM ({self._states(pairing, columns)}) WHERE {outside}"

    def _worst(self, found: _Found) -> str:
        column, (row, other) = found.column, found.worst
        a, b = f"a.{column.sql}", f"b.{self._after[column.name].sql}"
        before, after, x, y = self._database.rows(
            f"SELECT left({a}::VARCHAR, {_VALUE_READ}), left({b}::VARCHAR, {_VALUE_READ}),"
            f" {_number(a, column)}, {_number(b, column)}"
            f" FROM {self._original.sql} a, {self._replayed.sql} b WHERE a.rowid = {row} AND b.rowid = {other}"
        )[0]
        exact = found.tolerance == Tolerance()
        verb = "differs" if found.outside == 1 else "differ"
        counted = f"{found.outside:,} {verb}" if exact else f"{found.outside:,} outside {found.tolerance}"
        place = f"{'first' if x is None or y is None else 'most'} at {self._row_of_original(row)}"
        values = f"{_value(before, x)} → {_value(after, y)}{change(x, y)}"
        return f"{_name(column.name)}: {counted}, {place}: {values}"

    def _row_of_original(self, row: int) -> str:
        return self._row(self._original, self._key, row)

    def _row_of_replay(self, row: int) -> str:
        return self._row(self._replayed, [self._after[column.name] for column in self._key], row)

    def _row(self, table: Table, key: Sequence[Column], row: int) -> str:
        if not key:
            return f"row {row + 1:,}"
        cells = ", ".join(f"left({column.sql}::VARCHAR, {_VALUE_READ})" for column in key)
        values = self._database.rows(f"SELECT {cells} FROM {table.sql} WHERE rowid = {row}")[0]
        return ", ".join(
            f"{_name(column.name)}={'null' if value is None else shown(value, _VALUE_SHOWN)}"
            for column, value in zip(key, values, strict=True)
        )

    def _inside(self, pairing: _Pairing, found: Sequence[_Found]) -> list[str]:
        """What differs and may."""
        notes = []
        if inside := sum(one.inside for one in found):
            largest = max(one.largest for one in found)
            relative = f" (largest relative difference {largest:.3g})" if largest else ""
            notes.append(f"{count(inside, 'cell')} inside {self._tolerances}{relative}")
        if pairing.is_reordered and not pairing.differences:
            notes.append("row order")
        if [name for name in self._before if name in self._after] != [n for n in self._after if n in self._before]:
            notes.append("column order")
        return notes

    def _about(self) -> list[str]:
        """How it was looked at."""
        by = ", ".join(_name(column.name) for column in self._key) or "order"
        ignored = [f"ignored: {', '.join(_name(name) for name in self._ignore)}"] if self._ignore else []
        return [f"rows by {by}", *ignored]


def _some(columns: Sequence[Column], size: int = _AT_ONCE) -> Iterator[Sequence[Column]]:
    return (columns[start : start + size] for start in range(0, len(columns), size))


def _aggregates(place: int) -> str:
    """Four answers a column; of equal excess the first row is the worst."""
    return (
        f"count(*) FILTER (s{place} = 2), count(*) FILTER (s{place} = 1), max(q{place}) FILTER (s{place} = 1),"
        f" max({{'m': m{place}, 'a': -ra, 'b': rb}}) FILTER (s{place} = 2)"
    )


def _number(cell: str, column: Column) -> str:
    if column.kind == "written":
        return f"CASE WHEN regexp_full_match({cell}, {_NUMBER}) THEN TRY_CAST({cell} AS DOUBLE) END"
    return "NULL::DOUBLE" if column.kind == "other" else f"{cell}::DOUBLE"


def _exactly_apart(a: str, b: str, column: Column) -> str:
    """|b - a| of two integers, worked out in integers; null for other numbers."""
    exact = f"abs(TRY_CAST({b} AS HUGEINT) - TRY_CAST({a} AS HUGEINT))::DOUBLE"
    if column.kind == "integer":
        return exact
    if column.kind == "written":
        return f"CASE WHEN regexp_full_match({a}, {_INTEGER}) AND regexp_full_match({b}, {_INTEGER}) THEN {exact} END"
    return "NULL::DOUBLE"


def _columns(before: dict[str, Column], after: dict[str, Column]) -> list[str]:
    found = []
    for names, where in (
        ([name for name in before if name not in after], "only in the original"),
        ([name for name in after if name not in before], "only in the replay"),
    ):
        if names:
            found.append(f"{'column' if len(names) == 1 else 'columns'} {_listed(names)} {where}")
    common = [name for name in before if name in after]
    retyped = [_retyped(before[name], after[name]) for name in common if before[name].type != after[name].type]
    more = len(retyped) - _EXAMPLES
    return [*found, *retyped[:_EXAMPLES], *([f"{count(more, 'more column')} of another type"] if more > 0 else [])]


def _retyped(before: Column, after: Column) -> str:
    return f"column {_name(before.name)} {shown(before.type, _NAME_SHOWN)} became {shown(after.type, _NAME_SHOWN)}"


def _listed(names: Sequence[str]) -> str:
    return few([_name(name) for name in names], _EXAMPLES)


def _name(name: str) -> str:
    return shown(name, _NAME_SHOWN)


def _value(value: str | None, number: float | None) -> str:
    if value is None:
        return "null"
    text = shown(value, _VALUE_SHOWN)
    return text if number is not None else f'"{text}"'
