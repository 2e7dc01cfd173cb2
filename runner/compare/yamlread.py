"""YAML of unknown origin, read within bounds: one document of plain values, as `replay.yaml` itself is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runner.shown import shown
from runner.state.yaml_reader import YamlError, read_yaml
from runner.tables.malformed import MalformedError

_SHOWN = 160


def load(path: Path) -> Any:
    """The value of a YAML file. Raises `MalformedError`, `OSError`."""
    try:
        return read_yaml(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise MalformedError(f"not UTF-8 at byte {error.start}") from None
    except YamlError as error:
        raise MalformedError(f"not YAML that is read here: {shown(str(error), _SHOWN)}") from None
