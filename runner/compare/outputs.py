"""Pair the outputs of two runs and conclude about each.

Equal bytes need no comparator. A rule belongs to a path or to a folder, whose files it covers; the
longest key wins, and outputs that no key covers are compared as bytes. Where bytes are what counts and
they differ, the comparator that the output's name asks for says how.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from runner.compare import printed
from runner.compare.comparator import Comparison
from runner.compare.extras import missing, refuse_missing
from runner.compare.printed import Printed, Prober
from runner.compare.registry import COMPARATORS, by_suffix, check_installed, check_rule, comparator_of, rule_for
from runner.errors import OutsideError
from runner.state.digest import Digest
from runner.state.record import Output, OutputVerdict, Verdict
from runner.state.spec import OutputRule

Opener = Callable[[Digest], Path]

MAX_EXPLAINED = 64 << 20


def not_probed(path: str, digest: Digest, rule: OutputRule) -> Printed:  # noqa: ARG001
    """Where there is no environment to run a probe in."""
    return Printed(problem="was not run")


def compare_outputs(
    original: Mapping[str, Output],
    replayed: Mapping[str, Output],
    rules: Mapping[str, OutputRule],
    opener: Opener,
    prober: Prober = not_probed,
) -> tuple[OutputVerdict, ...]:
    """One verdict a path, sorted by path; `opener` gives the file of a digest, `prober` what its probe prints. They are
    asked only if bytes differ.

    Raises `UsageError` for a rule that cannot be used, `OutsideError` when a file cannot be read, and
    what `opener` raises.
    """
    for path, rule in rules.items():
        check_rule(path, rule)
    check_installed(original.keys() & replayed.keys(), rules)
    verdicts = []
    for path in sorted(original.keys() | replayed.keys()):
        rule = rule_for(path, rules)
        found = _compare(original.get(path), replayed.get(path), rule, opener, prober)
        verdicts.append(OutputVerdict(path, found.verdict, rule.compare, found.detail))
    return tuple(verdicts)


def differing_images(
    original: Mapping[str, Output], replayed: Mapping[str, Output], rules: Mapping[str, OutputRule]
) -> list[str]:
    """Paths of images, by rule or by name, that both have and whose bytes differ.

    Raises `UsageError` when there are some and what reads them is not installed.
    """
    both = sorted(path for path in original.keys() & replayed.keys() if original[path].sha256 != replayed[path].sha256)
    found = [path for path in both if "image" in (rule_for(path, rules).compare, by_suffix(path))]
    for path in found:
        refuse_missing(path, "image", COMPARATORS["image"].extra)
    return found


def _compare(
    original: Output | None, replayed: Output | None, rule: OutputRule, opener: Opener, prober: Prober
) -> Comparison:
    if original is None:
        return Comparison(Verdict.DIVERGED, "not in the original")
    if replayed is None:
        return Comparison(Verdict.DIVERGED, "missing in the replay")
    content = _compare_content(original, replayed, rule, opener, prober)
    if original.executable == replayed.executable:
        return content
    bit = "executable in the " + ("original only" if original.executable else "replay only")
    return Comparison(Verdict.DIVERGED, f"{bit}; {content.detail}" if content.detail else bit)


def _compare_content(
    original: Output, replayed: Output, rule: OutputRule, opener: Opener, prober: Prober
) -> Comparison:
    if original.sha256 == replayed.sha256:
        return Comparison(Verdict.IDENTICAL)
    try:
        files = opener(Digest(original.sha256)), opener(Digest(replayed.sha256))
        found = comparator_of(original.path, rule).compare(*files, rule)
        if rule.probe:
            before, after = (prober(one.path, Digest(one.sha256), rule) for one in (original, replayed))
            return printed.compare(before, after, rule, found)
        if found.verdict is Verdict.IDENTICAL:  # a comparator of somebody else's calls equal what it takes for equal
            return Comparison(Verdict.EQUIVALENT, found.detail or f"equal to `{rule.compare}`; the bytes differ")
        return _explained(original.path, *files, found) if rule.compare == "bytes" else found
    except OSError as error:
        raise OutsideError(
            f"output {original.path!r} cannot be compared",
            f"{error.filename or 'a file'} cannot be read: {error.strerror or error}",
            "mend access to the store, then replay again",
        ) from error


def _explained(path: str, original: Path, replayed: Path, by_bytes: Comparison) -> Comparison:
    """Bytes have decided; the detail is given by whom the name asks for, if that takes no more than moments."""
    name = by_suffix(path)
    comparator = COMPARATORS[name]
    large = max(original.stat().st_size, replayed.stat().st_size) > MAX_EXPLAINED
    if name in ("bytes", "text") or by_bytes.verdict is not Verdict.DIVERGED or large or missing(comparator.extra):
        return by_bytes
    found = comparator.compare(original, replayed, OutputRule(name))
    return Comparison(Verdict.DIVERGED, f"bytes differ; as {name}: {found.detail}")
