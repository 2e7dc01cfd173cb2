"""The published JSON Schemas of the files that people and other tools read: `python -m runner.state.schemas [DIR]`."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import msgspec

from runner.state.audit import Audit
from runner.state.bisected import Bisected, BisectLog
from runner.state.health import Health
from runner.state.job import Workfile
from runner.state.night import Night
from runner.state.pins import Pins
from runner.state.record import Record
from runner.state.release import Release, ReleaseCheck, ReleaseList, ReleaseShown, ReleaseWritten, Withdrawal
from runner.state.spec import StateSpec
from runner.state.travel import Status, Travel
from runner.state.verification import Verification

FILES = {
    "spec": "spec.schema.json",
    "workfile": "replay-yaml.schema.json",
    "record": "record.schema.json",
    "fsck": "fsck.schema.json",
    "verify": "verify.schema.json",
    "nightly": "nightly.schema.json",
    "travel": "travel.schema.json",
    "status": "status.schema.json",
    "pins": "pins.schema.json",
    "bisect": "bisect.schema.json",
    "bisect-log": "bisect-log.schema.json",
    "release": "release.schema.json",
    "withdrawal": "withdrawal.schema.json",
    "release-list": "release-list.schema.json",
    "release-show": "release-show.schema.json",
    "release-written": "release-written.schema.json",
    "release-check": "release-check.schema.json",
    "audit": "audit.schema.json",
}

Schema = dict[str, Any]


def schemas() -> dict[str, Schema]:
    """JSON Schema 2020-12, by name: of what people write, of what runs leave, and of what commands print with
    `--json`. The title says which."""
    return {
        "spec": _schema(StateSpec, "state spec", always=["spec"]),
        "workfile": _schema(Workfile, "replay.yaml"),
        "record": _schema(Record, "record", always=["record"]),
        "release": _schema(Release, "release", always=["release"]),
        "withdrawal": _schema(Withdrawal, "what is said of a release later", always=["withdrawal"]),
        "release-list": _schema(ReleaseList, "what replay release list --json prints"),
        "release-show": _schema(ReleaseShown, "what replay release show --json prints"),
        "release-written": _schema(ReleaseWritten, "what replay release create, supersede and revoke --json print"),
        "release-check": _schema(ReleaseCheck, "what replay release check --json prints"),
        "audit": _schema(Audit, "what replay audit --json prints"),
        "fsck": _schema(Health, "what replay fsck --json prints"),
        "verify": _schema(Verification, "what replay verify --json prints"),
        "travel": _schema(Travel, "what replay push --json and replay pull --json print"),
        "status": _schema(Status, "what replay status --json prints"),
        "pins": _schema(Pins, "what replay pins --json prints"),
        "nightly": _schema(Night, "what replay nightly --json prints"),
        "bisect": _schema(Bisected, "what replay bisect --json prints"),
        "bisect-log": _schema(BisectLog, "what replay bisect log --json prints"),
    }


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in schemas().items():
        (folder / FILES[name]).write_bytes(file_bytes(schema))


def file_bytes(schema: Schema) -> bytes:
    return msgspec.json.format(msgspec.json.encode(schema), indent=2) + b"\n"


def _schema(struct: type[msgspec.Struct], title: str, always: list[str] | None = None) -> Schema:
    found = _tidy(msgspec.json.schema(struct))
    own = found["$defs"][struct.__name__]
    own["required"] = (always or []) + own["required"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **found}


def _tidy(schema: Any) -> Any:
    """Without what follows from Python alone: indented docstrings, and null for keys that may be absent."""
    if isinstance(schema, list):
        return [_tidy(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    tidy = {key: _tidy(item) for key, item in schema.items()}
    if isinstance(tidy.get("description"), str):
        tidy["description"] = inspect.cleandoc(tidy["description"])
    return _without_null(tidy) if "default" in tidy and tidy["default"] is None else tidy


def _without_null(schema: Schema) -> Schema:
    choices = [choice for choice in schema["anyOf"] if choice != {"type": "null"}]
    rest = {key: item for key, item in schema.items() if key not in ("anyOf", "default")}
    return rest | (choices[0] if len(choices) == 1 else {"anyOf": choices})


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "state_specs"))
