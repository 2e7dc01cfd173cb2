"""The door to duckdb: tables of unknown origin, loaded into a database of their own, within bounds.

A file is CSV (separated by comma, tab, semicolon or bar), JSON lines (either may be gzipped) or Parquet, as
its content tells. Nothing but the named files is opened, no extension is installed or loaded, memory and
disk have a limit, and all that is written lies in one folder that is removed.

- CSV: every cell is text, a bare empty field is null and `""` an empty text. The first line names the
  columns, unless it holds numbers only: then columns are called 1, 2, ….
- JSON lines: every value is its JSON text; a key that is absent is null.
- Parquet: values have the types of the file.

`load_typed` gives the values of CSV and JSON lines the narrowest type that all of a column have, else text; what is
nested is its JSON text.

Columns are c0, c1, … in the database, so that no name of a stranger's gets into a statement.
"""

from __future__ import annotations

import csv
import errno
import gzip
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import msgspec

from runner.shown import shown
from runner.tables.malformed import MalformedError, TooLargeError

MAX_COLUMNS = 20_000
_MEMORY_MIB = 1024
_DISK_GIB = 32
_THREADS = 4
_FIRST_LINE = 2 << 20
_SHOWN = 200
_SNIFFED = 20_480
_DELIMITERS = ",\t;|"
_QUOTED = re.compile('"[^"]*"')
_NUMBER = re.compile(r"\s*[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|nan|inf|infinity)\s*", re.IGNORECASE)

_INTEGERS = {f"{sign}{size}" for sign in ("", "U") for size in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")}

Format = Literal["CSV", "JSON lines", "Parquet"]


# What a cell is: text that may be a number's, an integer, another number, or anything else.
Kind = Literal["written", "integer", "number", "other"]


class Column(msgspec.Struct, frozen=True):
    """`name` is the file's; `sql` is what statements call it; `type` is duckdb's word."""

    name: str
    sql: str
    type: str
    kind: Kind


class Table(msgspec.Struct, frozen=True):
    """`sql` is the table's name in the database; its `rowid` counts the file's rows from 0."""

    sql: str
    format: Format
    columns: tuple[Column, ...]
    rows: int


class _Reading(NamedTuple):
    """How a file is read: a table function's call, its parameters, and what the columns are called if that is told."""

    format: Format
    call: str
    parameters: list[Any]
    names: list[str] | None = None


class Database:
    """`with Database({"original": path, …}) as database: database.load("original", ignore)`.

    `in_memory` spares writing what fits into memory, and compressing it; what does not goes to disk all the same.
    """

    def __init__(self, files: Mapping[str, Path], *, in_memory: bool = False) -> None:
        self._files = files
        self._in_memory = in_memory
        self._folder = Path()

    def __enter__(self) -> Self:
        import duckdb

        self._folder = Path(tempfile.mkdtemp(prefix="replay-compare-"))
        try:
            # Links have names of ours: duckdb takes some characters of a path for a pattern.
            for name, path in self._files.items():
                (self._folder / name).symlink_to(path.resolve())
            self._error = duckdb.Error
            self._memory_error = duckdb.OutOfMemoryException
            self._connection = self._connect()
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._connection.close()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _connect(self) -> Any:
        import duckdb

        own = str(self._folder / "own")
        settings: dict[str, str | bool | int | float | list[str]] = {
            "allow_community_extensions": False,
            "allow_persistent_secrets": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "extension_directory": own,
            "home_directory": own,
            "max_temp_directory_size": f"{_DISK_GIB}GiB",
            "memory_limit": f"{_MEMORY_MIB}MiB",
            "secret_directory": own,
            "temp_directory": str(self._folder / "spilled"),
            "threads": _threads(),
        }
        place = ":memory:" if self._in_memory else str(self._folder / "tables.duckdb")
        connection = duckdb.connect(place, config=settings)
        names = [str(self._folder / name) for name in self._files]
        connection.execute("SET enable_progress_bar = false")
        connection.execute(f"SET allowed_paths = [{', '.join(_text(name) for name in names)}]")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        return connection

    def load(self, name: str, ignore: Sequence[str] = ()) -> Table:
        """Read a file into a table of its name, without some columns. Raises `MalformedError`, `OSError`."""
        reading = _reading(self._folder / name, self._files[name])
        seen = self._query(f"SELECT * FROM {reading.call} LIMIT 0", reading.parameters, described=True)
        if len(seen) > MAX_COLUMNS:
            raise TooLargeError(f"{len(seen):,} columns, more than the {MAX_COLUMNS:,} that are compared")
        names = reading.names or [column[0] for column in seen]
        columns = [
            Column(own, f"c{place}", str(column[1]), _kind(reading.format, str(column[1])))
            for place, (own, column) in enumerate(zip(names, seen, strict=True))
        ]
        kept = [column for column in columns if column.name not in ignore]
        if not kept:
            raise MalformedError("no column is left to compare")
        every = ", ".join(column.sql for column in columns)
        chosen = ", ".join(_cell(column) for column in kept)
        self._query(f"CREATE TABLE {name} AS SELECT {chosen} FROM {reading.call} AS t({every})", reading.parameters)
        rows = self.rows(f"SELECT count(*) FROM {name}")[0][0]
        return Table(name, reading.format, tuple(kept), rows)

    def load_typed(self, name: str) -> Table:
        """As `load`, with types found by looking: at the first rows, and only if others do not fit, at all of them."""
        for sampled in (_SNIFFED, -1):
            try:
                return self._load_typed(name, sampled)
            except TooLargeError:
                raise
            except MalformedError:
                self._query(f"DROP TABLE IF EXISTS {name}", [])
        return self.load(name)

    def _load_typed(self, name: str, sampled: int) -> Table:
        reading = _reading(self._folder / name, self._files[name], sampled)
        seen = self._query(f"SELECT * FROM {reading.call} LIMIT 0", reading.parameters, described=True)
        if len(seen) > MAX_COLUMNS:
            raise TooLargeError(f"{len(seen):,} columns, more than the {MAX_COLUMNS:,} that are looked at")
        names = reading.names or [column[0] for column in seen]
        every = ", ".join(f"c{place}" for place in range(len(names)))
        self._query(f"CREATE TABLE {name} AS SELECT * FROM {reading.call} AS t({every})", reading.parameters)
        described = self.rows(f"SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = '{name}'")
        types = dict(described)
        columns = tuple(
            Column(own, f"c{place}", types[f"c{place}"], _kind("Parquet", types[f"c{place}"]))
            for place, own in enumerate(names)
        )
        return Table(name, reading.format, columns, self.rows(f"SELECT count(*) FROM {name}")[0][0])

    def rows(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The answer of a statement about loaded tables. Raises `TooLargeError`, `OSError`."""
        return list(self._query(statement, parameters))

    def _query(self, statement: str, parameters: Sequence[Any], described: bool = False) -> list[Any]:
        try:
            answer = self._connection.execute(statement, parameters)
            return list(answer.description if described else answer.fetchall())
        except self._memory_error:
            raise TooLargeError(f"it needs more than {_MEMORY_MIB} MiB of memory or {_DISK_GIB} GiB of disk") from None
        except (self._error, ValueError) as error:  # the latter for text that is not UTF-8
            if "No space left" in str(error):
                raise OSError(errno.ENOSPC, "no space left", tempfile.gettempdir()) from None
            raise MalformedError(f"not a table: {self._reason(error)}") from None

    def _reason(self, error: Exception) -> str:
        """The first lines of duckdb's message, without its advice and our folder."""
        told = re.split(r"\n\s*\n|Possible (?:fixes|solutions)|LINE \d+:", str(error))[0]
        lines = [line.strip() for line in told.replace(f"{self._folder}/", "").splitlines()]
        return shown(re.sub(r"^[A-Z][\w ]* Error: ", "", " ".join(filter(None, lines))), _SHOWN)


def _kind(format: Format, type: str) -> Kind:
    if format != "Parquet":
        return "written"
    if type in _INTEGERS:
        return "integer"
    return "number" if type in ("FLOAT", "DOUBLE") or type.startswith("DECIMAL") else "other"


def _cell(column: Column) -> str:
    return f"CAST({column.sql} AS VARCHAR) AS {column.sql}" if column.kind == "written" else column.sql


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _reading(link: Path, file: Path, sampled: int | None = None) -> _Reading:
    """With `sampled`, types are looked for in that many rows, -1 for all; without it cells are text."""
    with file.open("rb") as opened:
        head = opened.read(8)
    if not head:
        raise MalformedError("an empty file")
    if head.startswith(b"PAR1"):
        return _Reading("Parquet", "read_parquet(?, hive_partitioning = false)", [str(link)])
    zipped = head.startswith(b"\x1f\x8b")
    line = _first_line(file, zipped)
    packing = "gzip" if zipped else "none"
    if line.lstrip().startswith("{"):
        depth, rows = (1, -1) if sampled is None else (2, sampled)
        call = (
            f"read_json(?, format = 'newline_delimited', maximum_depth = {depth}, sample_size = {rows},"
            " compression = ?, hive_partitioning = false)"
        )
        return _Reading("JSON lines", call, [str(link), packing])
    return _csv(link, line, packing, sampled)


def _csv(link: Path, line: str, packing: str, sampled: int | None) -> _Reading:
    delimiter = max(_DELIMITERS, key=_QUOTED.sub("", line).count)
    names = _fields(line, delimiter)
    if len(names) > MAX_COLUMNS:
        raise TooLargeError(f"{len(names):,} columns, more than the {MAX_COLUMNS:,} that are compared")
    headless = all(_NUMBER.fullmatch(name) for name in names)
    if headless:
        names = [str(number) for number in range(1, len(names) + 1)]
    if sampled is None:
        types = ", ".join(f"'c{place}': 'VARCHAR'" for place in range(len(names)))
        found = f"auto_detect = false, columns = {{{types}}}"
    else:
        found = f"sample_size = {sampled}, names = [{', '.join(_text(f'c{place}') for place in range(len(names)))}]"
    call = (
        f"read_csv(?, {found}, header = ?, delim = ?, quote = '\"', escape = '\"',"
        " allow_quoted_nulls = false, compression = ?, hive_partitioning = false)"
    )
    return _Reading("CSV", call, [str(link), not headless, delimiter, packing], names)


def _first_line(file: Path, zipped: bool) -> str:
    """The first record, which may go on over quoted line ends."""
    try:
        with gzip.open(file) if zipped else file.open("rb") as opened:
            head = opened.read(_FIRST_LINE)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise MalformedError("its gzip data is broken") from None
    end = _end_of_record(head)
    if end is None and len(head) == _FIRST_LINE:
        raise MalformedError(f"its first line is longer than {_FIRST_LINE >> 20} MiB")
    try:
        return head[:end].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MalformedError(f"not a table: not UTF-8 at byte {error.start}") from None


def _end_of_record(head: bytes) -> int | None:
    """Where the first line end outside quotes is."""
    quoted = False
    for match in re.finditer(rb'["\r\n]', head):
        if match[0] == b'"':
            quoted = not quoted
        elif not quoted:
            return match.start()
    return None


def _fields(line: str, delimiter: str) -> list[str]:
    before = csv.field_size_limit(_FIRST_LINE)
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True), [""])
    except csv.Error as error:
        raise MalformedError(f"not a table: line 1: {shown(str(error), _SHOWN)}") from None
    finally:
        csv.field_size_limit(before)


def _threads() -> int:
    return min(_THREADS, len(os.sched_getaffinity(0)))
