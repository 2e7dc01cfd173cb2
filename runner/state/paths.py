"""Paths that people and specs give: relative to the workspace, inside it, and nameable everywhere."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from runner.errors import UsageError

STDOUT = "stdout"
_LONGEST, _LONGEST_NAME = 1000, 255
_NO_NAMES = frozenset({"", ".", ".."})
_MISLEADING = tuple(f"/{name}{end}" for name in sorted(_NO_NAMES) for end in ("/", "\0"))


def inside(path: str, what: str) -> str:
    """The normalised form of a workspace-relative path. Raises `UsageError` naming `what` otherwise."""
    pure = PurePosixPath(path)
    problem = _problem(path, pure)
    if problem:
        raise UsageError(
            f"{what}: {path!r} {problem}",
            "paths are relative to the folder of replay.yaml and stay inside it",
        )
    return str(pure)


def _problem(path: str, pure: PurePosixPath) -> str | None:
    if not path.strip():
        return "is empty"
    if pure.is_absolute():
        return "is absolute"
    if ".." in pure.parts:
        return "climbs out with `..`"
    if str(pure) == ".":
        return "is the workspace itself"
    if any(unicodedata.category(character) == "Cc" for character in path):
        return "holds a control character"
    if not is_text(path):
        return "is not UTF-8"
    if len(path) > _LONGEST or any(len(part.encode()) > _LONGEST_NAME for part in pure.parts):
        return "is longer than file systems take"
    if ":" in path:
        return "holds a colon, which engines read as a separator"
    return None


def is_below(path: str) -> bool:
    """Whether a path that was recorded lies below its folder, spelt in the one way that such paths have."""
    return "\0" not in path and _NO_NAMES.isdisjoint(path.split("/"))


def listing_problem(listed: Collection[str]) -> str | None:
    """Why files of these paths cannot be laid out below one folder, one after the other: a path leads outside, or
    one stands where another does, as a file or as the folder of one."""
    if not _all_below(listed):
        return f"{next(path for path in listed if not is_below(path))!r} does not lie inside the folder"
    files = set(listed)
    folders = {path.rpartition("/")[0] for path in files} - {""}
    folders |= {above for folder in folders for above in _above(folder)}
    if files & folders:
        return f"{min(files & folders)!r} is listed as a file and as a folder"
    return "a path is listed twice" if len(files) < len(listed) else None


def _all_below(paths: Collection[str]) -> bool:
    """`is_below` of all of them, in a tenth of the time: there may be a hundred thousand."""
    if not paths:
        return True
    text = "".join(("\0/", "\0/".join(paths), "\0"))
    return text.count("\0") == len(paths) + 1 and not any(part in text for part in _MISLEADING)


def _above(folder: str) -> Iterator[str]:
    while folder := folder.rpartition("/")[0]:
        yield folder


def is_text(value: str) -> bool:
    """Whether it has a UTF-8 form; what the system gave in other bytes has none."""
    return value.isascii() or not any(0xD800 <= ord(character) <= 0xDFFF for character in value)


def is_marked(path: str, marks: Collection[str]) -> bool:
    """Whether a mark is the path, a folder above it or a glob of it; `*` stands for any characters, `/` too."""
    return any(covers(mark.rstrip("/"), path) or fnmatchcase(path, mark) for mark in marks)


def covers(folder: str, path: str) -> bool:
    """Whether `path` is `folder` or lies below it."""
    return path == folder or path.startswith(folder + "/")
