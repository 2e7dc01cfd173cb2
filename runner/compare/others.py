"""Comparators of other distributions: entry points of the group `replay.comparators`.

An entry point names a `Comparator`. It is looked up only for a name that is not built in, and its code is
a stranger to this tool: whatever it raises becomes an error that names its distribution.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from runner.compare.comparator import Comparator, Comparison
from runner.errors import OutsideError, ReplayError, UsageError
from runner.shown import shown
from runner.state.spec import OutputRule

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "replay.comparators"
_DETAIL_SHOWN = 1000
_REASON_SHOWN = 200


def other_comparator(path: str, name: str) -> Comparator | None:
    """The installed comparator of that name; None if there is none. Raises `UsageError` if it cannot be used."""
    from importlib.metadata import entry_points

    points = list(entry_points(group=GROUP, name=name))
    if not points:
        return None
    if len({point.value for point in points}) > 1:
        raise UsageError(
            f"output {path!r}: more than one comparator is called {name!r}",
            f"installed by {' and '.join(sorted(_distribution(point) for point in points))}",
            "uninstall all but one of them",
        )
    return _guarded(name, _distribution(points[0]), _load(path, points[0]))


def _load(path: str, point: EntryPoint) -> Comparator:
    try:
        found = point.load()
    except Exception as error:  # importing it runs any code
        raise _unusable(path, point, _reason(error)) from error
    if not isinstance(found, Comparator):
        raise _unusable(path, point, f"{point.value} is no runner.compare.Comparator")
    return found


def _guarded(name: str, distribution: str, comparator: Comparator) -> Comparator:
    def compare(original: Path, replayed: Path, rule: OutputRule) -> Comparison:
        try:
            found = comparator.compare(original, replayed, rule)
            return Comparison(found.verdict, shown(found.detail, _DETAIL_SHOWN))
        except (OSError, ReplayError):
            raise
        except Exception as error:
            raise OutsideError(
                f"the comparator {name!r} of {distribution} failed",
                _reason(error),
                f"mend {distribution}, or give this output another comparator",
            ) from error

    return msgspec.structs.replace(comparator, compare=compare)


def _unusable(path: str, point: EntryPoint, reason: str) -> UsageError:
    distribution = _distribution(point)
    return UsageError(
        f"output {path!r}: the comparator {point.name!r} of {distribution} cannot be used",
        reason,
        f"mend or reinstall {distribution}, or name another comparator",
    )


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value


def _reason(error: Exception) -> str:
    return shown(f"{type(error).__name__}: {error}", _REASON_SHOWN)
