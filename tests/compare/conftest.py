"""Two files and a rule → a comparison, the way the tests of this folder ask for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.compare.comparator import Comparison
from runner.compare.registry import COMPARATORS, check_rule
from runner.state.spec import OutputRule

Compare = Callable[..., Comparison]


@pytest.fixture(scope="session")
def compare(tmp_path_factory: pytest.TempPathFactory) -> Compare:
    """`compare(original, replayed, "json", rtol=…)` of contents given as bytes or text."""
    folder = tmp_path_factory.mktemp("compare")
    original, replayed = folder / "original", folder / "replayed"

    def run(before: bytes | str, after: bytes | str, name: str, **options: Any) -> Comparison:
        rule = OutputRule(compare=name, **options)
        check_rule("out", rule)
        _write(original, before)
        _write(replayed, after)
        return COMPARATORS[name].compare(original, replayed, rule)

    return run


def _write(file: Path, content: bytes | str) -> None:
    file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
