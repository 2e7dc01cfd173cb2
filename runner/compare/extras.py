"""Optional dependencies: which comparators need which, and whether they are here. Nothing is imported to find out."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from runner.errors import UsageError

_MODULES: Mapping[str, tuple[str, ...]] = {
    "tables": ("duckdb",),
    "arrays": ("numpy",),
    "images": ("numpy", "PIL"),
}


def missing(extra: str | None) -> tuple[str, ...]:
    """The modules of `extra` that are not installed."""
    return tuple(module for module in _MODULES.get(extra or "", ()) if find_spec(module) is None)


def refuse_missing(path: str, comparator: str, extra: str | None) -> None:
    """Raises `UsageError` when the comparator of the output `path` lacks what it needs."""
    if lacking := missing(extra):
        raise UsageError(
            f"output {path!r}: the comparator `{comparator}` cannot work here",
            f"{' and '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not installed",
            f"pip install 'replay-runner[{extra}]'",
        )
