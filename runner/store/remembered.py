"""Answers about runs that cost reading their files, remembered in the index until a file changes.

Deleting the index costs time only: whoever asks can always find the answer again.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path

from runner.state.digest import digest_bytes

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers_1 (
    question TEXT, run_id TEXT, stamp TEXT NOT NULL, answer TEXT NOT NULL, PRIMARY KEY (question, run_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS said_1 (answer TEXT PRIMARY KEY, bytes BLOB NOT NULL) WITHOUT ROWID;
"""


def answers(
    index: Path, question: str, stamps: Mapping[str, str], find: Callable[[str], bytes]
) -> tuple[dict[str, str], dict[str, bytes]]:
    """For each run the name of its answer, and the answers by name: runs that share one share its bytes. `stamps` says
    of each run what its files are like now; `find` is asked where that has changed. `question` has a version in it."""
    known = _read(index, question)
    named = {run_id: answer for run_id, (stamp, answer) in known[0].items() if stamps.get(run_id) == stamp}
    said = {answer: known[1][answer] for answer in set(named.values())}
    fresh = {run_id: find(run_id) for run_id in stamps if run_id not in named}
    if fresh:
        found: dict[str, str] = {run_id: digest_bytes(answer) for run_id, answer in fresh.items()}
        more = {found[run_id]: answer for run_id, answer in fresh.items()}
        _write(index, question, {run_id: (stamps[run_id], name) for run_id, name in found.items()}, more)
        named, said = named | found, said | more
    return named, said


def _read(index: Path, question: str) -> tuple[dict[str, tuple[str, str]], dict[str, bytes]]:
    """What is remembered; nothing where the index cannot be read."""
    if not index.exists():
        return {}, {}
    try:
        with contextlib.closing(_open(index)) as database:
            rows = database.execute("SELECT run_id, stamp, answer FROM answers_1 WHERE question = ?", (question,))
            named = {run_id: (stamp, answer) for run_id, stamp, answer in rows}
            said = dict(database.execute("SELECT answer, bytes FROM said_1"))
    except sqlite3.DatabaseError:
        return {}, {}
    whole = {answer for answer, data in said.items() if digest_bytes(data) == answer}
    return {run_id: one for run_id, one in named.items() if one[1] in whole}, said


def _write(index: Path, question: str, named: Mapping[str, tuple[str, str]], said: Mapping[str, bytes]) -> None:
    """Best effort: what is not written now is found again next time."""
    with contextlib.suppress(sqlite3.DatabaseError), contextlib.closing(_open(index)) as database, database:
        database.executescript(_SCHEMA)
        rows = [(question, run_id, stamp, answer) for run_id, (stamp, answer) in named.items()]
        database.executemany("INSERT OR REPLACE INTO answers_1 VALUES (?, ?, ?, ?)", rows)
        database.executemany("INSERT OR IGNORE INTO said_1 VALUES (?, ?)", said.items())


def _open(index: Path) -> sqlite3.Connection:
    return sqlite3.connect(index, timeout=10)
