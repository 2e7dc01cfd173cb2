"""The comparators by the name that `compare:` gives, and the check of a rule before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

import msgspec
from msgspec.structs import fields

from runner.compare import array, extras, image, jsonlike, model, raw, table, text
from runner.compare.comparator import Comparator
from runner.compare.others import other_comparator
from runner.compare.tolerance import check_tolerances
from runner.errors import UsageError
from runner.state.paths import covers
from runner.state.spec import OutputRule

AUTO = "auto"
COMPARATORS: Mapping[str, Comparator] = {
    "array": array.COMPARATOR,
    "bytes": raw.COMPARATOR,
    "image": image.COMPARATOR,
    "json": jsonlike.JSON,
    "model": model.COMPARATOR,
    "table": table.COMPARATOR,
    "text": text.COMPARATOR,
    "toml": jsonlike.TOML,
    "yaml": jsonlike.YAML,
}
SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "array": (".npy", ".npz", ".safetensors"),
    "image": (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"),
    "json": (".geojson", ".ipynb", ".json"),
    "model": (".ckpt", ".joblib", ".onnx", ".pickle", ".pkl", ".pt", ".pth"),
    "table": (
        *(".csv", ".jsonl", ".ndjson", ".parquet", ".tsv"),
        *(".csv.gz", ".jsonl.gz", ".ndjson.gz", ".tsv.gz"),
    ),
    "text": (".log", ".md", ".txt"),
    "toml": (".toml",),
    "yaml": (".yaml", ".yml"),
}
_STDOUT = "stdout"


def by_suffix(path: str) -> str:
    """The comparator that an output's name asks for; `bytes` if it asks for none."""
    if path == _STDOUT:
        return "text"
    lower = path.lower()
    return next((name for name, suffixes in SUFFIXES.items() if lower.endswith(suffixes)), "bytes")


def rule_for(path: str, rules: Mapping[str, OutputRule]) -> OutputRule:
    """The rule of an output: that of the longest key that covers it, `auto` made plain."""
    keys = [key for key in rules if covers(key.rstrip("/"), path)]
    rule = rules[max(keys, key=len)] if keys else OutputRule()
    return _plain(path, rule) if rule.compare == AUTO else rule


def comparator_of(path: str, rule: OutputRule) -> Comparator:
    """The comparator that the rule names. Raises `UsageError` if there is none."""
    comparator = COMPARATORS.get(rule.compare) or other_comparator(path, rule.compare)
    if comparator is None:
        raise _unknown(path, rule.compare)
    return comparator


def check_rule(path: str, rule: OutputRule) -> None:
    """Raises `UsageError` when the output `path` names an unknown comparator or options it cannot use."""
    if rule.compare == AUTO:
        _refuse_options(path, rule, _AUTO_OPTIONS)
        check_tolerances(path, rule)
        rule = _plain(path, rule)
    comparator = comparator_of(path, rule)
    _refuse_options(path, rule, comparator.options)
    check_tolerances(path, rule)
    comparator.check(path, rule)


def check_installed(paths: Iterable[str], rules: Mapping[str, OutputRule]) -> None:
    """Raises `UsageError` when the comparator of one of these outputs lacks what it needs to work."""
    for path in paths:
        rule = rule_for(path, rules)
        extras.refuse_missing(path, rule.compare, comparator_of(path, rule).extra)


_AUTO_OPTIONS = frozenset(field.name for field in fields(OutputRule)) - {"compare", "probe"}


def _plain(path: str, rule: OutputRule) -> OutputRule:
    """The rule without `auto`, and without the options that are for other kinds of output than this one."""
    name = by_suffix(path)
    # A model takes a tolerance beside a probe only, and a probe is for a model that is called one.
    taken = {} if name == "model" else {option: getattr(rule, option) for option in COMPARATORS[name].options}
    return msgspec.structs.replace(OutputRule(name), **taken)


def _refuse_options(path: str, rule: OutputRule, options: frozenset[str]) -> None:
    for option in _given(rule):
        if option not in options:
            raise _not_taken(path, rule.compare, option, options)


def _given(rule: OutputRule) -> list[str]:
    """The options that the rule sets to anything but their default."""
    default = OutputRule(compare=rule.compare)
    names = [field.name for field in fields(OutputRule)]
    return [name for name in names if getattr(rule, name) != getattr(default, name)]


def _unknown(path: str, name: str) -> UsageError:
    known = sorted({*COMPARATORS, AUTO})
    likely = get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    return UsageError(
        f"output {path!r}: no comparator is called {name!r}",
        f"known are {', '.join(known)}, and no installed distribution brings one of this name",
        f"write `compare: {likely[0]}`" if likely else "name one of these under `compare`",
    )


def _not_taken(path: str, name: str, option: str, options: frozenset[str]) -> UsageError:
    takers = [other for other, comparator in COMPARATORS.items() if option in comparator.options]
    likely = next((other for other in (by_suffix(path), *takers) if other in takers), "")
    alternative = f", or write `compare: {likely}`" if likely else ""
    return UsageError(
        f"output {path!r}: the comparator `{name}` takes no `{option}`",
        f"it takes {', '.join(sorted(options)) or 'no options'}",
        f"remove `{option}` from this output{alternative}",
    )
