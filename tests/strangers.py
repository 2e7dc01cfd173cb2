"""Specs that somebody else made: a recorded run whose spec, digest and record agree again after a change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from runner.state.digest import digest_bytes
from runner.state.spec import StateSpec, state_digest
from runner.state.strict import dump_spec, load_spec

Change = Callable[[dict[str, Any]], Any]


def changed(spec: StateSpec, change: Change) -> StateSpec:
    """The spec with its plain form changed; its digest is that of the changed state."""
    tree = msgspec.to_builtins(spec)
    change(tree)
    found = msgspec.convert(tree, StateSpec)
    return msgspec.structs.replace(found, digest=state_digest(found.state))


def forge(root: Path, store: Path, run_id: str, change: Change) -> None:
    """Change the run's spec wherever it is kept; record and sums go along, signatures go."""
    spec = changed(load_spec((store / "runs" / run_id / "spec.yaml").read_bytes(), run_id), change)
    data = dump_spec(spec)
    for place in (store / "runs" / run_id / "spec.yaml", root / "state_specs" / f"{run_id}.yaml"):
        place.write_bytes(data)
    for place in (store / "runs" / run_id / "record.json", root / "state_specs" / f"{run_id}.record.json"):
        record = json.loads(place.read_bytes()) | {"spec_sha256": digest_bytes(data), "state_digest": spec.digest}
        place.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
    (store / "runs" / run_id / "sums").unlink(missing_ok=True)
