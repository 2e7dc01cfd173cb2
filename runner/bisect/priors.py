"""What is suspected before anything was tried: it orders the trials and decides nothing.

What the job imports itself is likelier than what comes along with it; a large jump of a version likelier than a small
one; what people set for the job likelier than a package.
"""

from __future__ import annotations

import re

_IMPORT = re.compile(rb"^[ \t]*(?:import|from)[ \t]+([A-Za-z_]\w*(?:[ \t]*,[ \t]*[A-Za-z_]\w*)*)", re.MULTILINE)
SET_BY_PEOPLE = 4.0
_IMPORTED = 6.0
_MAJOR, _MINOR, _PATCH = 2.0, 1.5, 1.0


def imported(source: bytes) -> set[str]:
    """The top-level modules that a Python source names."""
    return {name.strip() for found in _IMPORT.findall(source) for name in found.decode().split(",")}


def package_weight(old: str | None, new: str | None, *, is_imported: bool) -> float:
    return _jump(old, new) * (_IMPORTED if is_imported else 1.0)


def _jump(old: str | None, new: str | None) -> float:
    if old is None or new is None:
        return _MAJOR
    before, after = old.split("."), new.split(".")
    if before[:1] != after[:1]:
        return _MAJOR
    return _MINOR if before[:2] != after[:2] else _PATCH
