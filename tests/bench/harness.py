"""Measuring and printing.

The two sides of a row are measured in turns, so that whatever else the machine does falls on both alike. A round
that is not counted warms both up. The ratio is the median of the rounds' ratios, not the ratio of the medians.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

QUICK = 7
SLOW = 3


class Side(NamedTuple):
    """What is timed, and what must be done before it each time, untimed."""

    act: Callable[[], object]
    prepare: Callable[[], object] = lambda: None


class Measured(NamedTuple):
    """`theirs` is absent where a figure stands for itself; `ratio` is what the aim is for."""

    ours: float
    theirs: float | None
    ratio: float
    unit: str = "s"
    rounds: tuple[tuple[float, float], ...] = ()


class Row(NamedTuple):
    """One row of the table. `measure` gives None, or the reason, where it cannot be measured here."""

    name: str
    what: str
    against: str
    aim: float | None
    measure: Callable[[], Measured | str]


def in_turns(ours: Side, theirs: Side, rounds: int) -> Measured:
    """Both sides, one after the other, `rounds` times, whoever was second being first the next time."""
    for side in (theirs, ours):
        timed(side)
    taken = [_round(ours, theirs, ours_first=bool(number % 2)) for number in range(rounds)]
    return summary(taken)


def summary(rounds: Sequence[tuple[float, float]]) -> Measured:
    """Rounds of ours and theirs."""
    return Measured(
        statistics.median(ours for ours, _ in rounds),
        statistics.median(theirs for _, theirs in rounds),
        statistics.median(ours / theirs for ours, theirs in rounds),
        rounds=tuple(rounds),
    )


def _round(ours: Side, theirs: Side, *, ours_first: bool) -> tuple[float, float]:
    if ours_first:
        return timed(ours), timed(theirs)
    other = timed(theirs)
    return timed(ours), other


def timed(side: Side) -> float:
    side.prepare()
    started = time.perf_counter()
    side.act()
    return time.perf_counter() - started


def command(
    arguments: Sequence[str], cwd: Path, accept: Sequence[int] = (0,), env: Mapping[str, str] | None = None
) -> Callable[[], None]:
    """Running a command to its end, its output read and dropped. One that fails ends the whole measurement."""

    def act() -> None:
        done = subprocess.run(arguments, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode not in accept:
            said = (done.stdout + done.stderr).decode(errors="replace")
            sys.exit(f"exit {done.returncode}: {' '.join(arguments)}\n{said}")

    return act


# --- the table ----------------------------------------------------------------------------------------------


def measure_all(rows: Sequence[Row], file: Path | None) -> None:
    """Measure each row and print it at once; afterwards write all of them to `file`."""
    about = machine()
    print("\n".join(f"{name:<9}{value}" for name, value in about.items()))
    print(f"\n{'what':<58}{'against':<46}{'':>9}{'against':>9}{'ratio':>8}{'aim':>7}", flush=True)
    found = []
    for row in rows:
        print(f"… {row.name}", file=sys.stderr, flush=True)
        started = time.perf_counter()
        measured = row.measure()
        print(_line(row, measured), flush=True)
        print(f"  {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        found.append(_plain(row, measured))
        if file:
            file.write_text(json.dumps({"machine": about, "rows": found}, indent=1) + "\n")


def _line(row: Row, measured: Measured | str) -> str:
    words = f"{row.what:<58}{row.against:<46}"
    if isinstance(measured, str):
        return words + measured
    theirs = "" if measured.theirs is None else _figure(measured.theirs, measured.unit)
    ratio = f"{measured.ratio:.2f}" if measured.theirs is not None else f"{measured.ratio:.3g}"
    aim = "" if row.aim is None else f"≤ {row.aim:g}"
    return f"{words}{_figure(measured.ours, measured.unit):>9}{theirs:>9}{ratio:>8}{aim:>7}  {_judged(row, measured)}"


def _judged(row: Row, measured: Measured) -> str:
    if row.aim is None:
        return ""
    return "ok" if measured.ratio <= row.aim else "MISSED"


def _figure(value: float, unit: str) -> str:
    return f"{value:.{3 if unit == 's' else 1}f} {unit}"


def _plain(row: Row, measured: Measured | str) -> dict[str, Any]:
    said = {"row": row.name, "what": row.what, "against": row.against, "aim": row.aim}
    if isinstance(measured, str):
        return said | {"absent": measured}
    return said | measured._asdict() | {"judged": _judged(row, measured)}


def machine() -> dict[str, str]:
    """What the figures were taken on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = ", ".join(f"{one:.2f}" for one in os.getloadavg())
    return {
        "machine": f"{_cpu()}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}",
        "engine": _said("docker", "version", "--format", "{{.Server.Version}} (client {{.Client.Version}})"),
        "versions": f"replay {_said('git', 'describe', '--always', '--dirty')}, Python {platform.python_version()}",
        "load": f"{load} before the first row",
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


def _said(*arguments: str) -> str:
    return subprocess.run(arguments, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
