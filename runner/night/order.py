"""Order: what a night replays first. What failed before, then what has not been replayed for longest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from runner.night.schedule import Unit
from runner.night.select import Candidate
from runner.state.record import GOOD


def units(
    candidates: Iterable[Candidate], last_replayed: Mapping[str, str], expected_s: Callable[[str], float]
) -> list[Unit]:
    """Runs of one state are one unit, as urgent as the most urgent of them; one whose state cannot be read is its own.
    `last_replayed` maps runs to moments."""
    by_state: dict[str, list[Candidate]] = {}
    for one in candidates:
        by_state.setdefault(one.state_digest or one.run_id, []).append(one)

    def urgency(members: list[Candidate]) -> tuple[bool, str, str]:
        return min((not one.last or one.last in GOOD, last_replayed.get(one.run_id, ""), one.run_id) for one in members)

    ordered = sorted(by_state.values(), key=urgency)
    return [
        Unit(tuple(sorted(one.run_id for one in members)), max(expected_s(one.run_id) for one in members))
        for members in ordered
    ]
