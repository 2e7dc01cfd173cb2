"""A night as JUnit XML: a test case a run, those included that the night had no time for.

A bad verdict is a failure, new or not. A run that trouble of engine, network or disk kept from a verdict is an error,
one that the night had no time for is skipped.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from xml.etree import ElementTree

from runner.report.words import cause_or_suspects, is_bad, moving, not_looked_at, variation, visible, why
from runner.shown import count
from runner.state.night import Night, NightRun

_NO_ZONE = "%Y-%m-%dT%H:%M:%S"


def junit(night: Night) -> bytes:
    """The same night gives the same bytes."""
    suites = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(suites, "testsuite")
    told = (
        ("night", night.night),
        ("on", night.on),
        ("variation", variation(night)),
        ("not-looked-at", not_looked_at(night)),
    )
    _properties(suite, told)
    for run in night.runs:
        _case(suite, night, run)
    for name in _left_out(night):
        case = ElementTree.SubElement(suite, "testcase", {"classname": visible(night.suite), "name": visible(name)})
        ElementTree.SubElement(case, "skipped", {"message": "not looked at for want of time"})
    counts = {
        "name": visible(night.suite),
        "tests": str(len(suite.findall("testcase"))),
        "failures": _count(suite, "failure"),
        "errors": _count(suite, "error"),
        "time": f"{sum(run.duration_s for run in night.runs):.3f}",
    }
    suites.attrib.update(counts)
    suite.attrib.update(counts | {"skipped": _count(suite, "skipped"), "timestamp": _timestamp(night.started)})
    ElementTree.indent(suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(suites, "unicode")}\n'.encode()


def _case(suite: ElementTree.Element, night: Night, run: NightRun) -> None:
    told = {"classname": f"{night.suite}.{run.job}", "name": run.run_id, "time": f"{run.duration_s:.3f}"}
    case = ElementTree.SubElement(suite, "testcase", {name: visible(value) for name, value in told.items()})
    _properties(
        case,
        (
            ("run-id", run.run_id),
            ("state-digest", run.state_digest),
            ("verdict", run.verdict),
            ("moved", run.moved),
            ("since", run.since),
            ("replay", run.replay),
            ("command", run.command),
        ),
    )
    if is_bad(run.verdict):
        _add(case, "failure", run)
    elif run.verdict == "not-run":
        _add(case, "error" if run.error else "skipped", run)


def _left_out(night: Night) -> Iterable[str]:
    """Runs that the night had no time for; one line for those that it does not name."""
    yield from night.left_out_runs
    if unnamed := night.left_out - len(night.left_out_runs):
        yield f"{count(unnamed, 'run')} more" if night.left_out_runs else count(unnamed, "run")


def _add(case: ElementTree.Element, kind: str, run: NightRun) -> None:
    message = visible(why(run) or run.verdict)
    if kind == "skipped":
        ElementTree.SubElement(case, kind, {"message": message})
        return
    found = ElementTree.SubElement(case, kind, {"message": f"{run.verdict}: {message}", "type": run.verdict})
    found.text = visible("\n".join(_lines(run)))


def _lines(run: NightRun) -> Iterable[str]:
    yield f"{run.verdict}, {run.moved}, since {run.since}"
    if run.error:
        yield from filter(None, (run.error.what, run.error.why, f"next: {run.error.next}" if run.error.next else ""))
    for cause in run.cause:
        yield f"{cause_or_suspects(run)}: {cause.layer} {moving(cause)}"
    for output in run.outputs:
        yield f"{output.path}: {output.verdict} {output.detail}".rstrip()
    yield from run.evidence
    yield f"again: {run.command or f'replay {run.run_id}'}"


def _properties(parent: ElementTree.Element, pairs: Iterable[tuple[str, str]]) -> None:
    properties = ElementTree.SubElement(parent, "properties")
    for name, value in pairs:
        if value:
            ElementTree.SubElement(properties, "property", {"name": name, "value": visible(value)})


def _count(suite: ElementTree.Element, kind: str) -> str:
    return str(len(suite.findall(f"testcase/{kind}")))


def _timestamp(moment: str) -> str:
    """As JUnit has it: without a zone, in UTC."""
    try:
        return datetime.datetime.fromisoformat(moment).strftime(_NO_ZONE)
    except ValueError:
        return "1970-01-01T00:00:00"
