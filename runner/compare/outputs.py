"""Pair the outputs of two runs and conclude about each.

Equal bytes need no comparator. A rule belongs to a path or to a folder, whose files it covers; the
longest key wins, and outputs that no key covers are compared as bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from runner.compare.comparator import Comparison
from runner.compare.registry import COMPARATORS, check_rule
from runner.errors import OutsideError
from runner.state.digest import Digest
from runner.state.paths import covers
from runner.state.record import Output, OutputVerdict, Verdict
from runner.state.spec import OutputRule

Opener = Callable[[Digest], Path]


def compare_outputs(
    original: Mapping[str, Output],
    replayed: Mapping[str, Output],
    rules: Mapping[str, OutputRule],
    opener: Opener,
) -> tuple[OutputVerdict, ...]:
    """One verdict a path, sorted by path; `opener` gives the file of a digest, asked only if bytes differ.

    Raises `UsageError` for a rule that cannot be used, `OutsideError` when a file cannot be read, and
    what `opener` raises.
    """
    for path, rule in rules.items():
        check_rule(path, rule)
    verdicts = []
    for path in sorted(original.keys() | replayed.keys()):
        rule = _rule_of(path, rules)
        found = _compare(original.get(path), replayed.get(path), rule, opener)
        verdicts.append(OutputVerdict(path, found.verdict, rule.compare, found.detail))
    return tuple(verdicts)


def _rule_of(path: str, rules: Mapping[str, OutputRule]) -> OutputRule:
    keys = [key for key in rules if covers(key.rstrip("/"), path)]
    return rules[max(keys, key=len)] if keys else OutputRule()


def _compare(original: Output | None, replayed: Output | None, rule: OutputRule, opener: Opener) -> Comparison:
    if original is None:
        return Comparison(Verdict.DIVERGED, "not in the original")
    if replayed is None:
        return Comparison(Verdict.DIVERGED, "missing in the replay")
    content = _compare_content(original, replayed, rule, opener)
    if original.executable == replayed.executable:
        return content
    bit = "executable in the " + ("original only" if original.executable else "replay only")
    return Comparison(Verdict.DIVERGED, f"{bit}; {content.detail}" if content.detail else bit)


def _compare_content(original: Output, replayed: Output, rule: OutputRule, opener: Opener) -> Comparison:
    if original.sha256 == replayed.sha256:
        return Comparison(Verdict.IDENTICAL)
    try:
        files = opener(Digest(original.sha256)), opener(Digest(replayed.sha256))
        return COMPARATORS[rule.compare].compare(*files, rule)
    except OSError as error:
        raise OutsideError(
            f"output {original.path!r} cannot be compared",
            f"{error.filename or 'a file'} cannot be read: {error.strerror or error}",
            "mend access to the store, then replay again",
        ) from error
