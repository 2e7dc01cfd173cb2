"""Tonight at a glance, as HTML that needs no script: how many of what, what moved, every run with its verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from runner.report.history import Column, History
from runner.report.html import Html, tag, text
from runner.report.words import GROUPS, as_recorded, day, headline, moment, moved_counts, subject, took, visible, why
from runner.shown import called, count
from runner.state.night import Moved, Night, NightRun, PinTrouble
from runner.state.record import GOOD

_CHART_HEIGHT, _BAR, _STEP = 48, 9, 12
_LONGEST = 240


def title(night: Night) -> str:
    return visible(f"{subject(night)}: {headline(night)}")


def glance(history: History) -> Html:
    night = history.tonight
    sections = [_group(kind, runs) for kind in GROUPS if (runs := [run for run in night.runs if run.moved == kind])]
    return text(
        _header(history),
        tag(
            "main",
            tag("div", _filter(), *sections, _pins(night.pins), id="tonight", class_="tonight", tabindex="-1"),
            id="main",
        ),
        _footer(night),
    )


def _header(history: History) -> Html:
    night = history.tonight
    counts = moved_counts(night)
    facts = [moment(night.started), took(night.started, night.ended), count(len(night.runs), "run")]
    facts += [f"on {night.on}"] if night.on != "local" else []
    facts += [as_recorded(night)]
    facts += [f"{count(len(history.gone), 'run')} of the night before no longer asked for"] if history.gone else []
    tiles = [
        tag("li", tag("a", tag("b", f"{counts[kind]:,}"), f" {kind.replace('-', ' ')}", href=f"#{kind}", class_=kind))
        for kind in GROUPS
        if counts[kind]
    ]
    return tag(
        "header",
        tag("p", visible(subject(night)), class_="suite"),
        tag("h1", _capital(headline(night))),
        tag("p", visible(" · ".join(fact for fact in facts if fact)), class_="facts"),
        tag("ul", *tiles, class_="tiles", aria_label="What became of the runs"),
        _chart(history.columns),
    )


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _filter() -> Html:
    """Of use to the script only, which shows it."""
    field = tag("input", type="search", id="filter", placeholder="run, job, label, verdict", autocomplete="off")
    label = tag("label", "Filter ", tag("kbd", "/"), for_="filter")
    return tag("div", label, field, tag("p", id="found", role="status"), class_="filter", hidden="", id="find")


def _chart(columns: Sequence[Column]) -> Html:
    """Runs in trouble, night by night; of a single night there is nothing to plot."""
    if len(columns) < 2:
        return Html()
    most = max(1, *(column.bad + column.not_run for column in columns))
    width = len(columns) * _STEP
    told = f"Runs in trouble over {len(columns)} nights: at most {most}, in the last night {columns[-1].bad}"
    picture = tag(
        "svg",
        *(_bar(column, number, most) for number, column in enumerate(columns)),
        width=str(width),
        viewBox=f"0 0 {width} {_CHART_HEIGHT + 2}",
        preserveAspectRatio="none",
        role="img",
        aria_label=told,
    )
    ends = text(tag("span", _day(columns[0])), tag("span", _day(columns[-1])))
    return tag("figure", tag("figcaption", "Runs in trouble, night by night"), picture, tag("p", ends), class_="nights")


def _day(column: Column) -> str:
    return visible(moment(column.started).partition(",")[0] or column.night)


def _bar(column: Column, number: int, most: int) -> Html:
    def rect(top: float, height: float, kind: str) -> Html:
        x, y = str(number * _STEP + 1), f"{top:.1f}".removesuffix(".0")
        return tag("rect", x=x, y=y, width=str(_BAR), height=f"{height:.1f}".removesuffix(".0"), class_=kind)

    bad = column.bad / most * _CHART_HEIGHT
    idle = column.not_run / most * _CHART_HEIGHT
    said = f"{_day(column)}: {column.bad} bad, {column.not_run} not run, of {column.runs}"
    bars = [rect(_CHART_HEIGHT, 2, "base")]
    bars += [rect(_CHART_HEIGHT - bad, bad, "bad")] if bad else []
    bars += [rect(_CHART_HEIGHT - bad - idle, idle, "idle")] if idle else []
    return tag("g", tag("title", said), *bars)


def _group(kind: Moved, runs: Sequence[NightRun]) -> Html:
    """Those that are as good as they were are folded up."""
    heading = tag("h2", GROUPS[kind], " ", tag("span", f"{len(runs):,}", class_="many"))
    rows = _table(GROUPS[kind], runs)
    if kind == "steady":
        return tag("section", tag("details", tag("summary", heading), rows), id=kind, class_=kind)
    return tag("section", heading, rows, id=kind, class_=kind)


def _table(caption: str, runs: Sequence[NightRun]) -> Html:
    heads = [("Run", "run"), ("Verdict", "verdict"), ("Since", "since"), ("History", "past")]
    head = tag("tr", *(tag("th", name, scope="col", class_=kind) for name, kind in heads))
    return tag(
        "table",
        tag("caption", caption),
        tag("thead", head),
        tag("tbody", *map(_row, runs)),
    )


def _row(run: NightRun) -> Html:
    name = visible(run.run_id)
    labels = [tag("span", visible(label), class_="label") for label in (run.job, *run.labels)]
    told = visible(why(run)[:_LONGEST])
    first = tag(
        "th",
        tag("a", name, href=f"#run/{name}"),
        *(one for label in labels for one in (" ", label)),
        tag("p", told, class_="why") if told else Html(),
        scope="row",
        class_="run",
    )
    return tag(
        "tr",
        first,
        tag("td", badge(run.verdict), *_before(run), class_="verdict"),
        tag("td", visible(day(run.since)), class_="since"),
        tag("td", class_="past"),
    )


def badge(verdict: str) -> Html:
    return tag("span", verdict.replace("-", " "), class_=f"badge {kind_of(verdict)}")


def kind_of(verdict: str) -> str:
    """Which of the three colours a verdict has."""
    return "idle" if verdict == "not-run" else "good" if verdict in GOOD else "bad"


def _before(run: NightRun) -> Iterator[Html]:
    if run.before and run.before != run.verdict:
        yield tag("span", f"was {run.before.replace('-', ' ')}", class_="before")


def _pins(pins: Sequence[PinTrouble]) -> Html:
    if not pins:
        return Html()
    heads = [tag("th", name, scope="col") for name in ("Pin", "Left in", "Needed by")]
    rows = [
        tag(
            "tr",
            tag(
                "th", visible(called(pin.kind, pin.name)), tag("p", visible(pin.digest[:19]), class_="why"), scope="row"
            ),
            tag("td", visible(", ".join(pin.places)) or badge("lost")),
            tag("td", visible(", ".join(pin.runs[:3])), _more(len(pin.runs) - 3)),
        )
        for pin in pins
    ]
    heading = tag("h2", "Down to the last copy, or lost ", tag("span", f"{len(pins):,}", class_="many"))
    body = (tag("thead", tag("tr", *heads)), tag("tbody", *rows))
    return tag("section", heading, tag("table", tag("caption", "Pins in danger"), *body), id="pins", class_="pins")


def _more(number: int) -> str:
    return f" and {number:,} more" if number > 0 else ""


def _footer(night: Night) -> Html:
    keys = text(
        tag("kbd", "/"),
        " filter  ",
        tag("kbd", "↑"),
        " ",
        tag("kbd", "↓"),
        " runs  ",
        tag("kbd", "Esc"),
        " back",
    )
    return tag("footer", tag("p", visible(night.night)), tag("p", keys, class_="keys", hidden=""))
