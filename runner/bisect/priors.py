"""What is suspected before anything was tried: it orders the trials and decides nothing.

What the job imports itself, or names when it complains, is likelier than what comes along with it; a large jump of a
version likelier than a small one; what people set for the job likelier than a package; data that a diagnosis points at
likelier than other data.
"""

from __future__ import annotations

import re

_IMPORT = re.compile(rb"^[ \t]*(?:from[ \t]+([A-Za-z_]\w*)|import[ \t]+([^\n#;]+))", re.MULTILINE)
_NAME = re.compile(rb"[ \t]*([A-Za-z_]\w*)")
_IN_TRACE = re.compile(rb"(?:site|dist)-packages/([A-Za-z_]\w*)")
SET_BY_PEOPLE = 4.0
POINTED_AT = 8.0
_IMPORTED = 6.0
_MAJOR, _MINOR, _PATCH = 2.0, 1.5, 1.0


def imported(source: bytes) -> set[str]:
    """The top-level modules that a Python source names."""
    listed = (part for one, several in _IMPORT.findall(source) for part in (one, *several.split(b",")))
    return {found[1].decode() for part in listed if (found := _NAME.match(part))}


def complained_of(log: bytes) -> set[str]:
    """The top-level modules of packages whose files a log names, as tracebacks and warnings do."""
    return {name.decode() for name in _IN_TRACE.findall(log)}


def package_weight(old: str | None, new: str | None, *, is_imported: bool) -> float:
    return _jump(old, new) * (_IMPORTED if is_imported else 1.0)


def _jump(old: str | None, new: str | None) -> float:
    if old is None or new is None:
        return _MAJOR
    before, after = old.split("."), new.split(".")
    if before[:1] != after[:1]:
        return _MAJOR
    return _MINOR if before[:2] != after[:2] else _PATCH
