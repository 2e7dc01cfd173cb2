"""Schedule: what a night does next. Time is given, so nothing here waits or looks at a clock.

Trouble of engine, network or disk is tried again after a while that grows. As long as only one run meets it, it is
that run's alone, and ends after some attempts. When several meet it one after the other, it is everybody's: one at a
time is tried until one succeeds, and when `patience` is over, all that is left ends with the trouble.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import msgspec

from runner.state.night import Trouble

DELAYS_S = (2.0, 10.0, 60.0)
PATIENCE_S = 600.0
_COMMON = 2


class Unit(msgspec.Struct, frozen=True):
    """Runs of one state, replayed at once; `expected_s` is what it took the last time, 0 if that is unknown."""

    runs: tuple[str, ...]
    expected_s: float = 0.0


class Ended(msgspec.Struct, frozen=True):
    """A unit that trouble kept from a verdict, however often it was tried."""

    unit: Unit
    attempts: int
    trouble: Trouble


class _Waiting(msgspec.Struct, eq=False):
    unit: Unit
    attempts: int = 0
    due: float = 0.0
    trouble: Trouble | None = None


class Schedule:
    """Units are started in the order given, as many at once as there are `workers`. What would not be done by the
    `deadline` is not started: `left_out`. What was started once is tried again even after it."""

    def __init__(
        self, units: Iterable[Unit], workers: int, deadline: float | None = None, patience: float = PATIENCE_S
    ) -> None:
        self._waiting = [_Waiting(unit) for unit in units]
        self._flying: dict[Unit, _Waiting] = {}
        self._workers = workers
        self._deadline = deadline
        self._patience = patience
        self._met: set[Unit] = set()
        self._trouble_since: float | None = None
        self.left_out: list[Unit] = []

    @property
    def done(self) -> bool:
        return not self._waiting and not self._flying

    def start(self, now: float) -> list[Unit]:
        """What is to be started now; it counts as started."""
        self._leave_out(now)
        free = (1 if self._is_common else self._workers) - len(self._flying)
        due = list(islice((one for one in self._waiting if one.due <= now), max(free, 0)))
        for one in due:
            self._waiting.remove(one)
            one.attempts += 1
            self._flying[one.unit] = one
        return [one.unit for one in due]

    def wake(self, now: float) -> float | None:
        """After how many seconds something can be started though nothing ends; None if there is no such moment."""
        if not self._waiting or len(self._flying) >= (1 if self._is_common else self._workers):
            return None
        return max(0.0, min(one.due for one in self._waiting) - now)

    def succeeded(self, unit: Unit) -> int:
        """It came to a verdict; how often it was tried."""
        if self._is_common:
            for one in self._waiting:
                one.due = 0.0
        self._met.clear()
        self._trouble_since = None
        return self._flying.pop(unit).attempts

    def troubled(self, unit: Unit, trouble: Trouble, now: float) -> list[Ended]:
        """It met trouble; which units end with that."""
        one = self._flying.pop(unit)
        one.trouble = trouble
        self._met.add(unit)
        if self._trouble_since is None:
            self._trouble_since = now
        if self._is_common and now - self._trouble_since >= self._patience:
            given_up = [one, *self._waiting]
            self._waiting = []
            return [Ended(each.unit, each.attempts, each.trouble or trouble) for each in given_up]
        if not self._is_common and one.attempts > len(DELAYS_S):
            return [Ended(unit, one.attempts, trouble)]
        one.due = now + DELAYS_S[min(one.attempts, len(DELAYS_S)) - 1]
        self._waiting.append(one)
        if self._is_common:
            for other in self._waiting:
                other.due = max(other.due, one.due)
        return []

    @property
    def _is_common(self) -> bool:
        return len(self._met) >= _COMMON

    def _leave_out(self, now: float) -> None:
        if self._deadline is None:
            return
        kept = [one for one in self._waiting if one.attempts or now + one.unit.expected_s < self._deadline]
        if len(kept) < len(self._waiting):
            fits = set(map(id, kept))
            self.left_out += [one.unit for one in self._waiting if id(one) not in fits]
            self._waiting = kept
