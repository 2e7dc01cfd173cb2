"""Select: which of the recorded runs belong to a suite.

A suite has a list of terms, and a run belongs to it if it fits any of them. A term is one or several words, and a run
fits it if it fits every word: `["label:prod job:train", "@*"]`.
"""

from __future__ import annotations

import datetime
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from runner.errors import UsageError
from runner.shown import few, gone_words
from runner.state.moment import moment_text, span_of

_AGE = re.compile(r"([<>])(\d+(?:\.\d+)?)([smhdw])")
_SHOWN = 8


class Released(msgspec.Struct, frozen=True):
    """The run that a release stands for, and whether the release was neither superseded nor revoked since."""

    run_id: str
    current: bool = True


Releases = Mapping[str, Released]


class Candidate(msgspec.Struct, frozen=True):
    """A recorded run that could be replayed; `last` is the last verdict that a night or a replay gave it. Of one that
    cannot be read, only the run-id and what that says are known: it fits whatever else is asked for, so as to be
    told of."""

    run_id: str
    job: str
    created: str
    state_digest: str
    labels: tuple[str, ...] = ()
    last: str = ""
    is_read: bool = True


def select(
    terms: Sequence[str], candidates: Iterable[Candidate], releases: Releases, now: datetime.datetime
) -> list[Candidate]:
    """Those that fit, in their order. Raises `UsageError` for a release that there is not."""
    alternatives = [[_Word(word, releases, now) for word in term.split()] for term in terms]
    return [one for one in candidates if any(all(word.fits(one) for word in words) for words in alternatives)]


def idle(
    terms: Sequence[str], candidates: Sequence[Candidate], releases: Releases, now: datetime.datetime
) -> list[str]:
    """The terms that no run fits, but for those that can wait. One that cannot be read fits no label that no other run
    has: that is likelier mistyped."""
    labels = {label for one in candidates for label in one.labels}

    def fitting(term: str) -> bool:
        known = labels.issuperset(word.partition(":")[2] for word in term.split() if word.startswith("label:"))
        return bool(select([term], candidates if known else [one for one in candidates if one.is_read], releases, now))

    return [term for term in terms if not _can_wait(term) and not fitting(term)]


def _can_wait(term: str) -> bool:
    """Whether a term that no run fits is none to tell of: a release may be made later, a run turn bad."""
    return any(word in ("@*", "release") or word.startswith("last:") for word in term.split())


def may_be_empty(terms: Iterable[str]) -> bool:
    """Whether it can be good news that no run fits: some terms look for what came out badly."""
    return any(word.startswith("last:") for term in terms for word in term.split())


def meant(term: str, candidates: Iterable[Candidate]) -> str:
    """What may have been meant by a term that no run fits: the nearest name, or the names that there are."""
    there: dict[str, set[str]] = {"job": set(), "label": set()}
    for one in candidates:
        there["job"].add(one.job)
        there["label"].update(one.labels)
    for word in term.split():
        kind, _, value = word.partition(":")
        if kind in there and value not in there[kind]:
            if near := difflib.get_close_matches(value, there[kind], n=1):
                return f"did you mean {kind}:{near[0]}?"
            names = [f"{kind}:{name}" for name in sorted(there[kind])]
            return f"there is {few(names, _SHOWN)}" if names else f"no {kind}"
    return "no run fits every word of it" if len(term.split()) > 1 else ""


def nothing_selected(suite: str, terms: Sequence[str], candidates: Sequence[Candidate], gone: int) -> UsageError:
    """A night that watched nothing would be quiet for ever. `gone` runs of the night before were removed."""
    lost = gone_words(gone) if gone else ""
    if not candidates:
        why = lost or "no run that could be replayed was recorded here"
        return UsageError(
            f"the suite {suite} has nothing to replay",
            why,
            "record something first: `replay run JOB`, or `replay pull`",
        )
    if not terms:
        return UsageError(
            f"the suite {suite} selects no run: its `select` is empty", lost, "leave `select` out for all"
        )
    told = [f"{term}: {said}" if len(terms) > 1 else said for term in terms if (said := meant(term, candidates))]
    return UsageError(
        f"the suite {suite} selects no run: nothing fits {', '.join(terms)}",
        "; ".join([*told, *([lost] if lost else [])]),
        "correct `select` in replay.yaml; `replay ls` shows jobs and labels",
    )


def names_releases(terms: Iterable[str]) -> bool:
    return any(word == "release" or word.startswith("@") for term in terms for word in term.split())


class _Word:
    def __init__(self, text: str, releases: Releases, now: datetime.datetime) -> None:
        self._kind, _, self._value = ("@", "", text[1:]) if text[0] == "@" else text.partition(":")
        self._bound: set[str] = set()
        if self._kind in ("@", "release"):
            self._bound = _bound(self._value or "*", releases)
        elif self._kind == "age":
            self._younger, self._edge = _edge(self._value, now)

    def fits(self, one: Candidate) -> bool:
        match self._kind:
            case "all":
                return True
            case "label":
                return self._value in one.labels or not one.is_read
            case "job":
                return self._value == one.job
            case "last":
                return self._value == one.last
            case "age":
                return (one.created >= self._edge) == self._younger or not one.is_read
            case _:
                return one.run_id in self._bound


def _bound(name: str, releases: Releases) -> set[str]:
    if name == "*":
        return {one.run_id for one in releases.values() if one.current}
    if name not in releases:
        known = ", ".join(f"@{one}" for one in sorted(releases)) or "none"
        raise UsageError(f"there is no release @{name}", f"known are: {known}", "correct `select` in replay.yaml")
    return {releases[name].run_id}


def _edge(value: str, now: datetime.datetime) -> tuple[bool, str]:
    """Whether younger runs are meant, and the moment, spelt as in specs."""
    found = _AGE.fullmatch(value)
    if found is None:
        raise UsageError(f"select: {value!r} is no age", next="like age:<30d or age:>12h")
    span = span_of(found[2], found[3])
    return found[1] == "<", moment_text(now - span)
