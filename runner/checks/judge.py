"""Rules against values: thresholds, JSON Schemas, and what was counted in a table. Pure."""

from __future__ import annotations

import datetime
import operator
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any, Final

import msgspec

from runner.errors import UsageError
from runner.shown import few
from runner.state.spec import ColumnRule, TableRule
from runner.state.strict import load_json, load_toml, load_yaml

LIMIT: Final = 16 << 20
"""A document larger than this is not read."""

_MOST_NAMED = 5
_COMPARISONS = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_READERS = {".yaml": load_yaml, ".yml": load_yaml, ".toml": load_toml}


class Counted(msgspec.Struct, frozen=True):
    """How many values break one part of a column's rule, and the first row that does, from 1."""

    count: int
    row: int | None = None


class ColumnFacts(msgspec.Struct, frozen=True):
    """What was counted in one column: `distinct` among `values`, which are those that are not null."""

    values: int = 0
    distinct: int = 0
    mistyped: Counted = Counted(0)
    low: Counted = Counted(0)
    high: Counted = Counted(0)
    other: Counted = Counted(0)


class TableFacts(msgspec.Struct, frozen=True):
    """What was counted in a table; `repeated` rows have the values of an earlier one in the rule's `unique` columns."""

    rows: int
    names: tuple[str, ...]
    columns: Mapping[str, ColumnFacts]
    repeated: int = 0


def read_document(data: bytes, name: str) -> Any:
    """The value of a YAML or TOML file, as its name tells, else of JSON. Raises `UsageError`."""
    return _READERS.get(PurePath(name).suffix.lower(), load_json)(data, name, LIMIT)


# --- metrics -------------------------------------------------------------------------------------------------


def metric_problems(document: Any, thresholds: Mapping[str, str]) -> Iterator[str]:
    for name, threshold in sorted(thresholds.items()):
        value = value_at(document, name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield f"{name}: {'is not there' if value is None else 'is no number'}"
        elif not all(compare(value, limit) for compare, limit in _comparisons(threshold)):
            yield f"{name}: {value} is not {threshold.strip()}"


def value_at(document: Any, name: str) -> Any:
    """The value at a dotted key; numbers count the items of lists. A key that holds dots itself is taken whole."""
    if isinstance(document, dict) and name in document:
        return document[name]
    for place in (place for place, character in enumerate(name) if character == "."):
        found = _item(document, name[:place])
        if found is not None and (value := value_at(found, name[place + 1 :])) is not None:
            return value
    return _item(document, name)


def _item(document: Any, key: str) -> Any:
    if isinstance(document, dict):
        return document.get(key)
    if isinstance(document, list) and key.isdecimal() and int(key) < len(document):
        return document[int(key)]
    return None


def _comparisons(threshold: str) -> Iterator[tuple[Any, float]]:
    for part in threshold.split(","):
        sign = next(sign for sign in _COMPARISONS if part.strip().startswith(sign))
        yield _COMPARISONS[sign], float(part.strip().removeprefix(sign))


# --- JSON Schema ---------------------------------------------------------------------------------------------


def schema_problem(schema: dict[str, Any]) -> str | None:
    """Why it is no JSON Schema that stands alone."""
    try:
        _validator(schema)
    except ValueError as error:
        return str(error).splitlines()[0]
    return None


def schema_problems(document: Any, schema: dict[str, Any]) -> Iterator[str]:
    for error in _validator(schema).iter_errors(document):
        place = ".".join(map(str, error.instance_path))
        yield f"{place}: {error.message}" if place else str(error.message)


def _validator(schema: dict[str, Any]) -> Any:
    import jsonschema_rs

    return jsonschema_rs.validator_for(schema, retriever=_nothing_from_outside)


def _nothing_from_outside(uri: str) -> Any:
    raise ValueError(f"{uri} lies outside the schema")


# --- tables --------------------------------------------------------------------------------------------------


def column_rules(rule: TableRule) -> dict[str, ColumnRule]:
    return {name: ColumnRule(one) if isinstance(one, str) else one for name, one in rule.columns.items()}


def rule_problem(rule: TableRule) -> str | None:
    """Why a rule for a table can never be met or asked: its bounds do not fit its types."""
    if rule.rows.max is not None and rule.rows.min > rule.rows.max:
        return f"rows: expected min up to max, found {rule.rows.min} and {rule.rows.max}"
    for name, column in column_rules(rule).items():
        bounds = [bound for bound in (column.min, column.max) if bound is not None]
        timely = column.type in ("date", "datetime")
        if column.type in ("text", "boolean") and bounds:
            return f"columns.{name}: a {column.type} has no min or max; expected type integer, number, date or datetime"
        if any(isinstance(bound, str) is not timely or (timely and not _is_time(str(bound))) for bound in bounds):
            wanted = 'dates like "2026-01-31"' if timely else "numbers"
            return f"columns.{name}: expected min and max to be {wanted}"
        if len(bounds) == 2 and _bound(bounds[0]) > _bound(bounds[1]):
            return f"columns.{name}: expected min up to max, found {bounds[0]} and {bounds[1]}"
    return None


def table_problems(facts: TableFacts, rule: TableRule) -> Iterator[str]:
    rules = column_rules(rule)
    if facts.rows < rule.rows.min:
        yield f"{facts.rows} rows, fewer than {rule.rows.min}"
    if rule.rows.max is not None and facts.rows > rule.rows.max:
        yield f"{facts.rows} rows, more than {rule.rows.max}"
    if missing := [name for name in (*rules, *rule.unique) if name not in facts.names]:
        yield f"no column {few(missing, _MOST_NAMED)}"
    if not rule.others and (more := [name for name in facts.names if name not in rules]):
        yield f"undeclared column {few(more, _MOST_NAMED)}"
    for name, column in rules.items():
        if name in facts.columns:
            yield from (f"{name}: {told}" for told in _column_problems(facts.columns[name], facts.rows, column))
    if facts.repeated:
        yield f"{facts.repeated} rows repeat {few(rule.unique, _MOST_NAMED)}"


def _column_problems(facts: ColumnFacts, rows: int, rule: ColumnRule) -> Iterator[str]:
    nulls = rows - facts.values
    if nulls > rule.nulls * rows:
        yield f"{nulls} of {rows} values are null, more than a share of {rule.nulls:g}"
    if facts.mistyped.count:
        yield _counted(facts.mistyped, f"no {rule.type}")
    if facts.low.count:
        yield _counted(facts.low, f"below {rule.min}")
    if facts.high.count:
        yield _counted(facts.high, f"above {rule.max}")
    if facts.other.count:
        yield _counted(facts.other, f"none of {few(rule.values, _MOST_NAMED)}")
    if rule.unique and facts.distinct < facts.values:
        yield f"{facts.values - facts.distinct} values are repeated"


def _counted(found: Counted, what: str) -> str:
    first = f" (first in row {found.row})" if found.row is not None else ""
    return f"{found.count} {'value is' if found.count == 1 else 'values are'} {what}{first}"


def _is_time(text: str) -> bool:
    try:
        datetime.datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _bound(value: float | str) -> Any:
    return datetime.datetime.fromisoformat(value).replace(tzinfo=None) if isinstance(value, str) else value


def refuse_large(size: int, name: str) -> None:
    if size > LIMIT:
        raise UsageError(f"{name} is larger than {LIMIT >> 20} MiB")
