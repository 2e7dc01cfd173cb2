"""An audit as one page of Markdown, for somebody who has never used this tool. Pure.

What people and jobs wrote is escaped: nothing in it becomes a heading, a link, a mention or markup.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence

from runner.diff import flatten
from runner.shown import count, shown
from runner.state.audit import Audit, AuditedRun
from runner.state.digest import plain
from runner.state.record import GOOD, Verdict
from runner.state.release import Acceptance
from runner.state.spec import Check, OutputRule
from runner.state.verification import UNTRUSTED, failed_for, only_lacks

_LONGEST = 2000
_LONGEST_CELL = 200
_MOST_NAMED = 12
_MOST_RUNS = 100
_TOWARDS = {Verdict.IDENTICAL: "to", Verdict.EQUIVALENT: "to", Verdict.DIVERGED: "from"}
_MARKUP = re.compile(r"[\\`*_\[\]|~$^]|^[#+=-]|^\d+(?=[.)])", re.MULTILINE)
"""What marks up text anywhere, and what begins a heading, a list or a rule."""

_ENTITIES = re.compile(r"[&<>@]|:(?=//)|(?<=www)\.|(?<=mailto):", re.IGNORECASE)
"""Markup of HTML, and what Markdown's dialects turn into links and mentions."""


def page(found: Audit) -> str:
    return "\n".join(_lines(found)) + "\n"


def text(value: str, limit: int = _LONGEST) -> str:
    """A stranger's words as Markdown that shows them and does nothing else."""
    escaped = _MARKUP.sub(_escaped, shown(value, limit).replace("\\\\", "\\"))
    return _ENTITIES.sub(lambda found: f"&#{ord(found[0])};", escaped)


def _escaped(found: re.Match[str]) -> str:
    return f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}"


def _lines(found: Audit) -> Iterator[str]:
    release, name = found.release, found.release.name
    yield f"# Release {text('@' + name)}"
    yield ""
    yield f"{_status(found)} It names what job {text(release.job)} ran as `{release.run}`, and what came of it."
    yield ""
    yield from _table(
        ("", ""),
        [
            ("state", f"`{release.state}`"),
            ("release", f"`{found.sha256}`"),
            ("accepted by", text(release.accepted.by)),
            ("on", text(release.accepted.at)),
            ("because", text(release.accepted.why)),
            ("runs that deviate", "are refused" if release.policy.deviation == "refuse" else "are warned of"),
            ("but may do so in", ", ".join(release.policy.may_move) or "nothing"),
        ],
    )
    yield from _proof(found)
    yield from _conditions(found)
    yield from _accepted(found)
    yield from _withdrawn(found)
    yield from _runs(found)
    yield from _refused(found)
    yield from _checking(found)


def _status(found: Audit) -> str:
    signed = _signature(found)
    return {
        "current": f"It is current, and {signed}.",
        "superseded": f"It was superseded; it is {signed}.",
        "revoked": f"**It was revoked and must not be used.** It is {signed}.",
    }[found.status]


def _signature(found: Audit) -> str:
    """Never just `signed` of a statement whose signature proves nothing."""
    if not found.signed:
        return "NOT signed"
    failed = next((check.reason for check in found.checks if check.name == "release" and check.result == "fail"), "")
    if failed == UNTRUSTED:
        return "signed by a key that is **not trusted** here"
    return f"**NOT what was signed** ({failed})" if failed else "signed"


def _proof(found: Audit) -> Iterator[str]:
    yield from ("", "## Is it what was signed?", "")
    failed = [check for check in found.checks if check.result == "fail"]
    reasons = failed_for(found.checks)
    if found.verified:
        yield "Yes: no check failed."
    elif reasons == {"revoked"}:
        yield "Yes. **It was revoked since: that is the one check that failed.**"
    elif reasons == {UNTRUSTED}:
        yield "**Nobody here says whose key signed it: a key has to be trusted, or named with `replay verify --key`.**"
    elif only_lacks(found.checks):
        yield f"**Not all of it is here: {count(len(failed), 'check')} failed for that alone.**"
    else:
        yield f"**No: {count(len(failed), 'check')} failed.**"
    yield ""
    rows = [(check.name, check.result, check.reason, text(check.detail, _LONGEST_CELL)) for check in found.checks]
    yield from _table(("check", "result", "reason", ""), rows)


def _conditions(found: Audit) -> Iterator[str]:
    yield from ("", "## Which conditions produced the result", "")
    rows = [(one.layer, f"`{one.digest}`", _some(one.told)) for one in found.conditions]
    yield from _table(("layer", "digest", "was"), rows)


def _accepted(found: Audit) -> Iterator[str]:
    contract = found.release.contract
    yield from ("", "## What was accepted", "")
    rows = [(text(one.path), str(one.size), f"`{one.sha256}`") for one in found.release.outputs]
    yield from _table(("output", "bytes", "digest"), rows) if rows else ["No outputs."]
    yield from ("", "Tolerances, by output:", "")
    rules = [(text(path), _rule(rule)) for path, rule in contract.outputs.items()]
    yield from _table(("output", "may differ"), rules) if rules else ["None."]
    yield from ("", "Boundaries:", "")
    checks = [
        (text(one.name), one.kind, text(one.on), _some(bounds(one)), one.when, one.action) for one in contract.checks
    ]
    yield from _table(("boundary", "kind", "of", "must be", "job", "if broken"), checks) if checks else ["None."]


def bounds(check: Check) -> list[str]:
    """What a boundary asks for, a line each: `accuracy >= 0.9`, `columns.age.nulls 0.05`."""
    asked = plain(getattr(check, check.kind))
    if check.command:
        return [shlex.join(check.command)]
    if check.metrics:
        return [f"{key} {threshold}" for key, threshold in asked.items()]
    return [f"{key} {value}" for key, value in flatten(asked).items()]


def _rule(rule: OutputRule) -> str:
    return _some([f"{key} {value}" for key, value in plain(rule).items()]) or "the same bytes"


def _withdrawn(found: Audit) -> Iterator[str]:
    yield from ("", "## What was said of it since", "")
    if not found.withdrawals:
        yield "Nothing."
    for one in found.withdrawals:
        by = f" by {text('@' + one.by)}" if one.by else ""
        yield f"- {one.kind}{by}: {_said(one.said)}"


def _runs(found: Audit) -> Iterator[str]:
    yield from ("", "## What has run under it since", "")
    good = sum(one.verdict in GOOD for one in found.runs)
    bad = sum(one.verdict is not None and one.verdict not in GOOD for one in found.runs)
    yield f"{count(len(found.runs), 'run')}: {good} agreed, {bad} did not, {len(found.runs) - good - bad} untold."
    if found.runs:
        yield ""
        rows = [
            (f"`{one.run_id}`", one.tie, text(one.started), _signed(one), _verdict(one), _deviating(one))
            for one in found.runs[-_MOST_RUNS:]
        ]
        yield from _table(("run", "tie", "started", "signed", "outputs", "deviates in"), rows)
        yield from _left(found.runs)
    if found.unreadable:
        yield ""
        yield f"Cannot be read: {_some(found.unreadable)}"


def _refused(found: Audit) -> Iterator[str]:
    yield from ("", "## What was refused", "")
    if not found.refused:
        yield "Nothing."
        return
    rows = [
        (f"`{one.run_id}`", text(one.started), _signed(one), text(one.detail, _LONGEST_CELL), _changes(one))
        for one in found.refused[-_MOST_RUNS:]
    ]
    yield from _table(("run", "when", "signed", "why", "what deviated"), rows)
    yield from _left(found.refused)


def _checking(found: Audit) -> Iterator[str]:
    name = found.release.name
    yield from ("", "## How to check this", "")
    yield "In a clone of the workspace, with the public key of whoever signed, had by another way:"
    yield from ("", "```sh")
    yield f"replay verify @{name} --key KEY           # the run, its state and outputs, the release, its revocation"
    yield "replay verify RUN --key KEY               # a run above: its record, its tie to the release, its verdict"
    yield f"replay release check {name} RUN           # its state and outputs against those that were accepted"
    yield f"replay @{name}                            # run it again, and compare"
    yield from ("```", "")
    yield "`state_specs/VERIFY.md` in replay's repository does the first with `openssl`, `jq` and `sha256sum` alone."


def _said(said: Acceptance) -> str:
    return f"{text(said.by)}, {text(said.at)}: {text(said.why)}"


def _signed(one: AuditedRun) -> str:
    return "yes" if one.signed else "no"


def _verdict(one: AuditedRun) -> str:
    if one.verdict is None:
        return text(one.detail, _LONGEST_CELL)
    return f"{one.verdict} {_TOWARDS.get(one.verdict, 'against')} {text(one.against)}"


def _deviating(one: AuditedRun) -> str:
    return ", ".join(dict.fromkeys(each.layer for each in one.deviations)) or "nothing"


def _changes(one: AuditedRun) -> str:
    told = [f"{each.layer} {each.name}: {each.a or '—'} → {each.b or '—'}" for each in one.deviations]
    return _some(told, one.unlisted)


def _some(words: Sequence[str], unlisted: int = 0) -> str:
    left = len(words[_MOST_NAMED:]) + unlisted
    told = [text(word, _LONGEST_CELL) for word in words[:_MOST_NAMED]]
    return "<br>".join([*told, *([f"and {left} more"] if left else [])])


def _left(runs: Sequence[AuditedRun]) -> Iterator[str]:
    if len(runs) > _MOST_RUNS:
        yield from ("", f"and {len(runs) - _MOST_RUNS} earlier ones: `replay audit --json` has them.")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(row)} |"
