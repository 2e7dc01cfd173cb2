"""A night as GitHub's runner reads it: annotations, and Markdown for the step's summary.

Every sign of a stranger's text that Markdown, HTML or the runner could take for something else is written as an entity
or an escape, and stands in `code`, where names and addresses are no links.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from runner.report.words import (
    GROUPS,
    as_recorded,
    headline,
    left_out,
    moment,
    not_looked_at,
    subject,
    visible,
    why,
)
from runner.shown import called, count, few, gone_words, needed_by
from runner.state.night import Moved, Night, NightRun

MOST_ANNOTATIONS = 10
"""Of one kind; GitHub shows no more of a step."""
MOST_ROWS = 100
_LEVELS: dict[Moved, str] = {"regressed": "error", "flaky": "warning", "failing": "warning", "not-run": "warning"}


def workflow_commands(night: Night) -> str:
    """A line each: errors of what has regressed, warnings of what else is in trouble."""
    errors = [_of_run(run) for run in night.runs if _LEVELS.get(run.moved) == "error"]
    warnings = [_of_run(run) for run in night.runs if _LEVELS.get(run.moved) == "warning"]
    for pin in night.pins:
        left = f"left in {', '.join(pin.places)} only" if pin.places else "lost"
        warnings.append(_command("warning", called(pin.kind, pin.name), f"{left}; {needed_by(pin.runs)}"))
    missing = filter(None, (left_out(night), not_looked_at(night)))
    warnings += [_command("warning", night.suite, told) for told in missing]
    return "".join(_at_most(errors, "error") + _at_most(warnings, "warning"))


def _of_run(run: NightRun) -> str:
    told = f"{run.verdict}. {why(run)}".removesuffix(". ")
    return _command(_LEVELS[run.moved], f"{run.run_id}: {run.moved}", f"{told}\nagain: {run.command}")


def _at_most(lines: Sequence[str], level: str) -> list[str]:
    if len(lines) <= MOST_ANNOTATIONS:
        return list(lines)
    shown = MOST_ANNOTATIONS - 1
    return [*lines[:shown], _command(level, "replay", f"and {len(lines) - shown} more, see the summary")]


def _command(level: str, title: str, message: str) -> str:
    named = _escaped(title).replace(":", "%3A").replace(",", "%2C")
    return f"::{level} title={named}::{_escaped(message)}\n"


def _escaped(text: str) -> str:
    return visible(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def summary(night: Night) -> str:
    """What moved, in tables."""
    lines = [f"## {_text(subject(night))}: {headline(night)}", ""]
    lines += [f"{_text(moment(night.started))} · {count(len(night.runs), 'run')}", ""]
    lines += [as_recorded(night), ""] if night.as_recorded else []
    lines += [f"{gone_words(len(night.gone))}: {_text(few(night.gone, 3))}", ""] if night.gone else []
    for kind, title in GROUPS.items():
        runs = [run for run in night.runs if run.moved == kind]
        if runs and kind != "steady":
            lines += [f"### {title} ({len(runs):,})", "", *_table(runs), ""]
    if night.pins:
        lines += [f"### Down to the last copy, or lost ({len(night.pins):,})", ""]
        lines += [
            f"- {_text(called(pin.kind, pin.name))}: {_text(', '.join(pin.places) or 'lost')}" for pin in night.pins
        ]
    return "\n".join(lines) + "\n"


def _table(runs: Sequence[NightRun]) -> Iterator[str]:
    yield "| run | verdict | since | |"
    yield "|---|---|---|---|"
    for run in runs[:MOST_ROWS]:
        cells = (_text(run.run_id), run.verdict, _text(run.since), _text(why(run)))
        yield f"| {' | '.join(cells)} |"
    if len(runs) > MOST_ROWS:
        yield f"| and {len(runs) - MOST_ROWS:,} more | | | |"


def _text(text: str, longest: int = 400) -> str:
    shown = " ".join(visible(text)[:longest].split())
    return f"<code>{''.join(map(_entity, shown))}</code>" if shown else ""


def _entity(character: str) -> str:
    return character if character.isalnum() or character == " " else f"&#{ord(character)};"
