"""Rot watch: what the runs of a night need that is lost, or down to its last copy, before a replay misses it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runner.errors import ReplayError
from runner.pins import look
from runner.remote.select import default_remote
from runner.state.night import PinTrouble
from runner.workspace import Workspace

PATIENCE_S = 30.0


def troubles(workspace: Workspace, run_ids: Sequence[str], say: Callable[[str], None]) -> tuple[PinTrouble, ...] | None:
    """Nothing is downloaded, and a place that cannot be asked is no trouble. Without a remote everything has one copy
    only, which is no news: then only what is lost is told. None, and why is said, where nothing could be looked at."""
    try:
        has_remote = default_remote(workspace) is not None
        found = look(workspace, run_ids, offline=False, patience_s=PATIENCE_S)
    except ReplayError as error:
        say(f"pins were not looked at: {error.what}")
        return None
    told = {"lost", "last-copy"} if has_remote else {"lost"}
    return tuple(
        PinTrouble(pin.kind, pin.name, pin.digest, pin.places, pin.runs) for pin in found.pins if pin.state in told
    )
