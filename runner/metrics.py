"""Metrics: what two runs reached against labels, as far as the job declares which of its outputs says so.

Worse is what lies on the wrong side by more than the tolerance that the contract has for that output anyway.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from runner.compare import jsonread
from runner.compare.registry import rule_for
from runner.compare.tolerance import tolerances_of
from runner.diagnose import MetricFinding
from runner.diff import Side
from runner.errors import ReplayError
from runner.state.digest import Digest
from runner.store.store import Store
from runner.tables.malformed import MalformedError


def metric_findings(store: Store, a: Side, b: Side) -> Iterator[MetricFinding]:
    """Those that both runs have a finite number for. Which way is better is what `b` says, the newer."""
    for path, metrics in b.spec.contract.metrics.items():
        before, after = (_read(store, side, path) for side in (a, b))
        tolerances = tolerances_of(rule_for(path, b.spec.contract.outputs))
        for key, better in metrics.items():
            old, new = _at(before, key), _at(after, key)
            if old is not None and new is not None:
                wrong = new < old if better == "higher" else new > old
                worse = wrong and not tolerances.of(key).allows(old, new)
                yield MetricFinding(f"{key} in {path}", old, new, worse)


def _read(store: Store, side: Side, path: str) -> Any:
    digest = (side.outputs or {}).get(path)
    try:
        return jsonread.read(store.blobs.read(Digest(digest))) if digest else None
    except (MalformedError, ReplayError):
        return None


def _at(value: Any, key: str) -> float | None:
    """The number at a dotted key; a key that holds dots itself comes first."""
    if isinstance(value, dict):
        if key in value:
            return _at(value[key], "")
        first, _, rest = key.partition(".")
        return _at(value[first], rest) if rest and first in value else None
    if key or isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
