"""Cases of drift: what moved between two runs, and what the diagnosis has to say of it. Pure.

A case is recorded before and after something moved. What is expected, the kinds of drift and the layers that the
evidence names, stands beside what moved; the table of all of them is what these tests print with `-s`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from runner.diff import LAYERS

EXECUTION_STATE = "execution state drift"
NONDETERMINISM = "nondeterminism"
HOST = "host"


class Finding(NamedTuple):
    """Kinds as the diagnosis orders them, layers sorted."""

    kinds: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()

    def __str__(self) -> str:
        layers = f" ({', '.join(self.layers)})" if self.layers else ""
        return (" and ".join(self.kinds) or "nothing") + layers


class Conditions(NamedTuple):
    """Keys of a job, files of its workspace, and variables of who calls the command."""

    job: Mapping[str, Any] = {}
    files: Mapping[str, str] = {}
    caller: Mapping[str, str] = {}

    def moved(self, by: Conditions) -> Conditions:
        return Conditions({**self.job, **by.job}, {**self.files, **by.files}, {**self.caller, **by.caller})


class Case(NamedTuple):
    """`moved` is laid over `before`; every word of `told` stands in the evidence. `images` name fixtures: of the image
    before and after. `steady` says that the outputs stay the same."""

    name: str
    before: Conditions
    moved: Conditions
    expected: Finding
    told: tuple[str, ...] = ()
    images: tuple[str, str] = ("shell_image", "shell_image")
    steady: bool = False


class Row(NamedTuple):
    case: str
    expected: Finding
    found: Finding


def finding(diagnosis: Mapping[str, Any]) -> Finding:
    """What a diagnosis, as `--json` gives it, comes to. An evidence of a layer begins with the layer's name."""
    heads = (line.partition(":")[0].partition(",")[0] for line in diagnosis["evidence"])
    return Finding(tuple(diagnosis["kind"]), tuple(sorted({head for head in heads if head in LAYERS})))


def rendered(rows: Iterable[Row]) -> str:
    """The table, as Markdown has it."""
    lines = [("case", "expected", "found"), ("---", "---", "---")]
    lines += [(row.case, str(row.expected), _found(row)) for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _found(row: Row) -> str:
    return "as expected" if row.found == row.expected else str(row.found)
