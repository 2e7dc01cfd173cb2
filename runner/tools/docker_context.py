"""Which engine the docker client's contexts name."""

from __future__ import annotations

import json
import os
from pathlib import Path

from runner.errors import UsageError


def context_host() -> str | None:
    """The endpoint of the docker client's context in force, or None for the default one."""
    config_folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    name = os.environ.get("DOCKER_CONTEXT") or _current_context(config_folder)
    if not name or name == "default":
        return None
    for meta in (config_folder / "contexts" / "meta").glob("*/meta.json"):
        try:
            described = json.loads(meta.read_bytes())
            if described["Name"] == name:
                return str(described["Endpoints"]["docker"]["Host"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    raise UsageError(f"docker context {name!r} does not exist", f"none in {config_folder}", "see `docker context ls`")


def _current_context(config_folder: Path) -> str | None:
    try:
        described = json.loads((config_folder / "config.json").read_bytes())
        return str(described.get("currentContext") or "") or None
    except (OSError, ValueError, AttributeError):
        return None
