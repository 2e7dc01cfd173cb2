"""Stores that have nights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from runner.state.digest import plain
from runner.state.night import Night
from runner.store.store import open_store


def keep(root: Path, nights: Iterable[Night], files: Mapping[str, bytes] = {}) -> None:
    """Write nights into the store of a workspace, as `replay nightly` does."""
    folder = open_store(root / ".replay", create=True).folder / "nights"
    for night in nights:
        place = folder / night.night
        place.mkdir(parents=True, exist_ok=True)
        (place / "night.json").write_bytes(msgspec.json.encode(plain(night)))
        for name, data in files.items():
            (place / name).write_bytes(data)
