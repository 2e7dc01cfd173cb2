"""The comparators by the name that `compare:` gives, and the check of a rule before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from msgspec.structs import fields

from runner.compare import jsonlike, raw, text
from runner.compare.comparator import Comparator
from runner.compare.tolerance import Tolerance, check_tolerance
from runner.errors import UsageError
from runner.state.spec import OutputRule

COMPARATORS: Mapping[str, Comparator] = {
    "bytes": raw.COMPARATOR,
    "json": jsonlike.COMPARATOR,
    "text": text.COMPARATOR,
}


def check_rule(path: str, rule: OutputRule) -> None:
    """Raises `UsageError` when the output `path` names an unknown comparator or options it cannot use."""
    if rule.compare not in COMPARATORS:
        raise _unknown(path, rule.compare)
    comparator = COMPARATORS[rule.compare]
    for option in _given(rule):
        if option not in comparator.options:
            raise _not_taken(path, rule.compare, option)
    check_tolerance(path, Tolerance(rule.rtol, rule.atol))
    comparator.check(path, rule)


def _given(rule: OutputRule) -> list[str]:
    """The options that the rule sets to anything but their default."""
    default = OutputRule(compare=rule.compare)
    names = [field.name for field in fields(OutputRule)]
    return [name for name in names if getattr(rule, name) != getattr(default, name)]


def _unknown(path: str, name: str) -> UsageError:
    known = sorted(COMPARATORS)
    likely = get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    return UsageError(
        f"output {path!r}: no comparator is called {name!r}",
        f"known are {', '.join(known)}",
        f"write `compare: {likely[0]}`" if likely else "name one of these under `compare`",
    )


def _not_taken(path: str, name: str, option: str) -> UsageError:
    takers = [other for other, comparator in sorted(COMPARATORS.items()) if option in comparator.options]
    alternative = f", or write `compare: {takers[0]}`" if takers else ""
    return UsageError(
        f"output {path!r}: the comparator `{name}` takes no `{option}`",
        f"it takes {', '.join(sorted(COMPARATORS[name].options)) or 'no options'}",
        f"remove `{option}` from this output{alternative}",
    )
