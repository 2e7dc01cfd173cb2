"""What is suspected before anything was tried."""

from __future__ import annotations

import pytest

from runner.bisect.priors import complained_of, imported, package_weight


def test_what_a_source_imports() -> None:
    source = b"import numpy as np, a.b, c\nfrom sklearn.cluster import KMeans\n  import pandas; x\n# import no\n"
    assert imported(source) == {"numpy", "a", "c", "sklearn", "pandas"}


def test_what_a_traceback_or_a_warning_names() -> None:
    log = b"""Traceback (most recent call last):
  File "/work/train.py", line 3, in <module>
  File "/opt/replay/env/lib/python3.11/site-packages/pandas/core/frame.py", line 9, in f
/usr/lib/python3/dist-packages/yaml/__init__.py:1: DeprecationWarning
"""
    assert complained_of(log) == {"pandas", "yaml"}


@pytest.mark.parametrize(
    "heavier, lighter",
    [
        (("1.0.0", "2.0.0", False), ("1.0.0", "1.1.0", False)),
        (("1.0.0", "1.1.0", False), ("1.0.0", "1.0.1", False)),
        (("1.0.0", "1.0.1", True), ("1.0.0", "2.0.0", False)),
        ((None, "1.0", False), ("1.0.0", "1.1.0", False)),
    ],
)
def test_larger_jumps_and_what_is_imported_come_first(
    heavier: tuple[str | None, str, bool], lighter: tuple[str | None, str, bool]
) -> None:
    first, second = (package_weight(old, new, is_imported=own) for old, new, own in (heavier, lighter))
    assert first > second
