"""Comparing outputs, and a run with the present."""

from __future__ import annotations

import json
import random
import statistics
import sys

from tests.bench.harness import QUICK, SLOW, Measured, Row, Side, command, in_turns, timed
from tests.bench.laid_out import PLACE, ROOT, Workspace

ROWS_OF_TABLE = 1_000_000
FILES = 10_000

_COMPARE = """
import sys
from pathlib import Path
from runner.compare.registry import COMPARATORS
from runner.state.spec import OutputRule
name, key, *files = sys.argv[1:]
rule = OutputRule(name, rtol=1e-6, key=tuple(filter(None, [key])))
found = COMPARATORS[name].compare(*map(Path, files), rule)
assert found.verdict == "equivalent", found
"""
_PANDAS = """
import sys, pandas
a, b = (pandas.read_csv(file).set_index("id").sort_index() for file in sys.argv[1:])
pandas.testing.assert_frame_equal(b, a, rtol=1e-6, atol=0)
"""
_DUCKDB = """
import sys, duckdb
columns = [f"x{number}" for number in range(4)]
apart = " OR ".join(f"abs(b.{x} - a.{x}) > 1e-6 * abs(a.{x})" for x in columns)
a, b = (f"(SELECT * FROM read_csv('{file}'))" for file in sys.argv[1:])
pairs = f"{a} a FULL JOIN {b} b USING (id)"
[(found,)] = duckdb.sql(f"SELECT count(*) FROM {pairs} WHERE a.name IS DISTINCT FROM b.name OR {apart}").fetchall()
assert not found
"""
_JSON = """
import json, sys
a, b = (json.load(open(file)) for file in sys.argv[1:])
def walk(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(walk(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(walk, a, b))
    return a == b or isinstance(a, float) and abs(b - a) <= 1e-6 * abs(a)
assert walk(a, b)
"""


def table_by_order() -> Measured:
    return _in_turns("table", "", _PANDAS, "a.csv", "b.csv")


def table_by_key() -> Measured:
    return _in_turns("table", "id", _PANDAS, "a.csv", "shuffled.csv")


def table_against_duckdb() -> Measured:
    return _in_turns("table", "id", _DUCKDB, "a.csv", "shuffled.csv")


def large_json() -> Measured:
    return _in_turns("json", "", _JSON, "a.json", "b.json")


def _in_turns(comparator: str, key: str, theirs: str, *names: str) -> Measured:
    """Each side in a process of its own; the files are what the other file is within the tolerance."""
    place = PLACE / "compare"
    if not place.exists():
        _write_files()
    files = [str(place / name) for name in names]
    ours = [sys.executable, "-c", _COMPARE, comparator, key, *files]
    return in_turns(Side(command(ours, ROOT)), Side(command([sys.executable, "-c", theirs, *files], ROOT)), SLOW)


def _write_files() -> None:
    """Tables of 74 MB with six columns, JSON of 66 MB."""
    place = PLACE / "compare"
    place.mkdir(parents=True)
    chance = random.Random(0)
    rows = [[chance.gauss(0, 1) for _ in range(4)] for _ in range(ROWS_OF_TABLE)]
    order = list(range(ROWS_OF_TABLE))
    for name, factor in (("a", 1.0), ("b", 1 + 1e-9), ("shuffled", 1 + 1e-9)):
        if name == "shuffled":
            chance.shuffle(order)
        with (place / f"{name}.csv").open("w") as file:
            file.write("id,x0,x1,x2,x3,name\n")
            file.writelines(f"{n},{','.join(f'{x * factor:.12f}' for x in rows[n])},n{n % 997}\n" for n in order)
    for name, factor in (("a", 1.0), ("b", 1 + 1e-9)):
        folds = [{"id": n, "scores": [x * factor for x in row]} for n, row in enumerate(rows[:600_000])]
        (place / f"{name}.json").write_text(json.dumps({"folds": folds}))


def with_the_present() -> Measured:
    """Nothing was edited, and everything has been looked at once before."""
    workspace = Workspace("files", {"true": {"command": ["true"], "outputs": ["stdout"]}})
    if not (workspace.root / "lib" / "0").exists():
        for number in range(FILES):
            workspace.write(
                f"lib/{number % 100}/module{number}.py", f"def f{number}(x):\n    return x + {number}\n" * 40
            )
    workspace.commit()
    run_id = workspace.record("true")
    side = Side(command(workspace.replay("diff", run_id, "."), workspace.root))
    timed(side)
    seconds = statistics.median(timed(side) for _ in range(QUICK))
    return Measured(seconds, None, seconds)


_TABLES = "compare tables of 1,000,000 rows, by"
ROWS = (
    Row("compare-order", f"{_TABLES} order", "pandas read_csv, assert_frame_equal", None, table_by_order),
    Row("compare-key", f"{_TABLES} key", "pandas, sorted by the key", None, table_by_key),
    Row("compare-duckdb", f"{_TABLES} key", "one statement of duckdb", None, table_against_duckdb),
    Row("compare-json", "compare JSON of 66 MB", "json.load and a walk in Python", None, large_json),
    Row("present", "diff RUN . in a workspace of 10,000 files", "–", 1.0, with_the_present),
)
