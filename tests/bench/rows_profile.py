"""Profiling a table."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from tests.bench.harness import QUICK, Measured, Row, Side, command, in_turns
from tests.bench.laid_out import PLACE, ROOT

ROWS_EACH = 300_000

_PROFILE = """
import sys
from pathlib import Path
from runner.profile.make import profile_of
profile_of(Path(sys.argv[1]))
"""
_SUMMARIZE = """
import os, sys, duckdb
database = duckdb.connect(config={"threads": min(4, len(os.sched_getaffinity(0))), "memory_limit": "1GiB"})
database.execute("SET enable_progress_bar = false")
database.execute("SUMMARIZE SELECT * FROM read_csv(?)", [sys.argv[1]]).fetchall()
"""


def profiling() -> Measured:
    table = _table(PLACE / "profiled.csv")
    ours, theirs = (command([sys.executable, "-c", code, str(table)], ROOT) for code in (_PROFILE, _SUMMARIZE))
    return in_turns(Side(ours), Side(theirs), QUICK)


def _table(file: Path) -> Path:
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        chance = random.Random(0)
        with file.open("w") as out:
            out.write("id,amount,score,age,plan,name,day,active\n")
            for number in range(ROWS_EACH):
                plan, name = chance.choice(["free", "plus", "pro"]), f"name {chance.randrange(100_000)}"
                day, active = f"2024-{chance.randrange(1, 13):02}-{chance.randrange(1, 28):02}", chance.random() < 0.5
                score = "" if chance.random() < 0.1 else f"{chance.gauss(0, 1):.6f}"
                out.write(f"{number},{chance.expovariate(1):.4f},{score},{chance.randrange(100)},")
                out.write(f"{plan},{name},{day},{str(active).lower()}\n")
    return file


ROWS = (
    Row("profile", f"profile of a CSV of {ROWS_EACH:,} rows and 8 columns", "duckdb's SUMMARIZE of it", 1.5, profiling),
)
