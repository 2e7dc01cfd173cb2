"""python -m tests.bench [--json FILE] [ROW...]: measure these rows, or all but the peers'; `peers` names those."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.bench import (
    bisect_table,
    harness,
    peers,
    rows_bisect,
    rows_cli,
    rows_compare,
    rows_data,
    rows_disk,
    rows_environment,
    rows_memory,
    rows_night,
    rows_outputs,
    rows_page,
    rows_profile,
    rows_releases,
    rows_run,
    rows_signed,
    rows_travel,
)

OWN = (
    *rows_run.ROWS,
    *rows_environment.ROWS,
    *rows_data.ROWS,
    *rows_outputs.ROWS,
    *rows_profile.ROWS,
    *rows_cli.ROWS,
    *rows_compare.ROWS,
    *rows_signed.ROWS,
    *rows_releases.ROWS,
    *rows_disk.ROWS,
    *rows_memory.ROWS,
    *rows_night.ROWS,
    *rows_page.ROWS,
    *rows_bisect.ROWS,
    *rows_travel.ROWS,
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=" ".join(row.name for row in (*OWN, *peers.ROWS)))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    given = parser.parse_args()
    harness.measure_all(_chosen(parser, given.rows), given.json)
    if not given.rows:
        bisect_table.print_table()
        bisect_table.print_claim()


def _chosen(parser: argparse.ArgumentParser, names: list[str]) -> list[harness.Row]:
    if not names:
        return list(OWN)
    known = {row.name: [row] for row in (*OWN, *peers.ROWS)} | {"peers": list(peers.ROWS)}
    if unknown := [name for name in names if name not in known]:
        parser.error(f"there is no row {unknown[0]}; there are: {' '.join(known)}")
    return [row for name in names for row in known[name]]


if __name__ == "__main__":
    main()
