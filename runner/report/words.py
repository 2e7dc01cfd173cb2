"""How the report speaks of verdicts and of what became of runs, and how text of strangers is made visible."""

from __future__ import annotations

import datetime
import re
import shlex
from collections import Counter
from collections.abc import Mapping
from typing import Any

from runner.shown import count
from runner.state.job import LATEST
from runner.state.night import Moved, Moving, Night, NightRun, NightVerdict
from runner.state.record import GOOD

GROUPS: dict[Moved, str] = {
    "regressed": "New regressions",
    "flaky": "Flaky",
    "failing": "Still failing",
    "not-run": "Not run",
    "fixed": "Fixed",
    "new": "Never seen before",
    "steady": "As good as before",
}
"""In the order in which they are read."""
TROUBLE: tuple[Moved, ...] = ("regressed", "flaky", "failing", "not-run")

LETTERS: dict[str, str] = {
    "identical": "i",
    "equivalent": "e",
    "diverged": "d",
    "nondeterministic": "n",
    "failed": "f",
    "unrebuildable": "u",
    "refused": "r",
    "tampered": "t",
    "not-run": "-",
}
ABSENT = "."

_DAY = re.compile(r"(?<!\d)(\d{4})-?(\d\d)-?(\d\d)(?!\d)")
_UNUSUAL = re.compile(r"[^\t\n\x20-\x7e]")


def visible(text: str) -> str:
    """The text with all that is not printable written as an escape, but for tabs and line ends: what turns writing
    round, moves a cursor or cannot be seen shows itself."""
    return _UNUSUAL.sub(_escaped, text.replace("\r\n", "\n"))


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def all_visible(value: Any) -> Any:
    """A plain value with every text in it made visible, keys too."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {visible(key): all_visible(item) for key, item in value.items()}
    return [all_visible(item) for item in value] if isinstance(value, list | tuple) else value


def is_bad(verdict: NightVerdict) -> bool:
    """A verdict, and no good one: what could not be run has none."""
    return verdict not in GOOD and verdict != "not-run"


def why(run: NightRun) -> str:
    """The most telling thing known of why a run is not as it was, in a line; of one that is, no more than
    that its original failed, too."""
    return " ".join(_why(run).splitlines())


def _why(run: NightRun) -> str:
    if run.error:
        return run.error.what
    if run.cause:
        named = ", ".join(moving(one) for one in run.cause)
        return f"{cause_or_suspects(run)}: {named}"
    if run.verdict in GOOD:
        return "; ".join(run.evidence)
    if run.flaky:
        return f"{rate(run)} disagreed"
    differing = [one for one in run.outputs if one.verdict not in GOOD]
    if differing:
        first = f"{differing[0].path}: {differing[0].detail or differing[0].verdict}"
        return first + (f" (and {count(len(differing) - 1, 'output')} more)" if len(differing) > 1 else "")
    return "; ".join(run.evidence)


def moving(one: Moving) -> str:
    """A change in a line, with what of it is the cause where that is known."""
    return f"{one.name} {one.a or 'absent'} → {one.b or 'absent'}" + (f" ({one.inside})" if one.inside else "")


def cause_or_suspects(run: NightRun) -> str:
    """What the changes in `run.cause` are to be called."""
    return "cause" if run.proven else "suspects"


def rate(run: NightRun) -> str:
    """How often replays disagreed, with the interval that the true rate lies in."""
    if run.flaky is None:
        return ""
    found = run.flaky
    return f"{found.disagreed} of {count(found.of, 'replay')} ({found.low:.0%} to {found.high:.0%})"


def moved_counts(night: Night) -> Counter[Moved]:
    return Counter(run.moved for run in night.runs)


def variation(night: Night) -> str:
    """As the command line has it; empty where recorded states ran as they are."""
    against = ["--against", night.against] if night.against else []
    return shlex.join([*against, *(word for setting in night.setting for word in ("--set", setting))])


def subject(night: Night) -> str:
    """What the night tells of: its suite, and how that was varied."""
    return " ".join(filter(None, (night.suite, variation(night))))


def headline(night: Night) -> str:
    """The night in a line: its trouble first, and only that; what it did not look at is told in any case."""
    return "; ".join(filter(None, (_headline(night), left_out(night), not_looked_at(night))))


def left_out(night: Night) -> str:
    return f"{night.left_out:,} not looked at for want of time" if night.left_out else ""


def not_looked_at(night: Night) -> str:
    return f"{' and '.join(night.not_looked_at)} were not looked at" if night.not_looked_at else ""


def last_copies(night: Night) -> str:
    """How many pins are down to their last copy."""
    last = sum(bool(pin.places) for pin in night.pins)
    are, their, copies = ("is", "its", "copy") if last == 1 else ("are", "their", "copies")
    return f"{count(last, 'pin')} {are} down to {their} last {copies} (`replay pins`)" if last else ""


def as_recorded(night: Night) -> str:
    """Of how many runs what was set changed nothing."""
    if not night.as_recorded:
        return ""
    are, their, them = ("is", "its", "it") if night.as_recorded == 1 else ("are", "their", "them")
    only_latest = night.setting == (LATEST,)
    why_so = f"nothing newer fits {their} requirements" if only_latest else f"what was set changes nothing of {them}"
    return f"{night.as_recorded:,} of {count(len(night.runs), 'run')} {are} as recorded: {why_so}"


def _headline(night: Night) -> str:
    moved, total = moved_counts(night), len(night.runs)
    if not total:
        return "no runs"
    for kinds in (TROUBLE, ("fixed", "new")):
        told = [f"{moved[kind]:,} {kind.replace('-', ' ')}" for kind in kinds if moved.get(kind)]
        if told:
            return ", ".join(told)
    good = f"{count(total, 'run')} as good as before"
    return f"a quiet night: {good}" if night.is_whole else good


def moment(text: str) -> str:
    """`2026-11-21T03:00:00Z` as `21 Nov 2026, 03:00 UTC`; what is no time stays as it is."""
    try:
        at = datetime.datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{at.day} {at:%b %Y}, {at:%H:%M} UTC"


def day(night: str) -> str:
    """The day that a night's id names, or the id."""
    found = _DAY.search(night)
    return moment(f"{found[1]}-{found[2]}-{found[3]}").partition(",")[0] if found else night


def took(started: str, ended: str) -> str:
    """How long it was between two moments."""
    try:
        whole = datetime.datetime.fromisoformat(ended) - datetime.datetime.fromisoformat(started)
    except ValueError:
        return ""
    return lasted(whole.total_seconds())


def lasted(seconds: float) -> str:
    """`3.2 s`, `12 min`, `1 h 4 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
