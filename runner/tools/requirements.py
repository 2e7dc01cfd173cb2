"""Requirement files as text: includes followed, source requirements told apart, credentials dropped.

Only what locking must know is read here; pip itself reads the rest.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from runner.errors import UsageError
from runner.tools.git import without_credentials

_INCLUDE = re.compile(r"^(?:-r|--requirement|-c|--constraint)[ =]\s*(?P<file>\S+)$")
_EDITABLE = re.compile(r"^(?:-e|--editable)[ =]\s*")
_VCS = re.compile(r"^(?:(?P<name>[A-Za-z0-9._-]+)\s*(?P<extras>\[[^\]]*\])?\s*@\s*)?git\+(?P<url>[^\s;#]+)")
_NAMED_FOLDER = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)\s*(?P<extras>\[[^\]]*\])?\s*@\s*(?:file:)?(?P<path>\.{1,2}/\S*)"
)
_FOLDER = re.compile(r"^(?P<path>\.{0,2}/\S*?|\.)(?P<extras>\[[^\[\]]*\])?(?=\s|;|$)")
_EGG = re.compile(r"[#&]egg=(?P<name>[A-Za-z0-9._-]+)")
_SUBFOLDER = re.compile(r"[#&]subdirectory=(?P<path>[^&\s]+)")
_COMMENT = re.compile(r"(^| )#.*$")
_MAX_INCLUDES = 50
_MAX_BYTES = 4 << 20


class GitSource(msgspec.Struct, frozen=True):
    """A requirement from a git repository; `revision` is what the person wrote, perhaps a branch."""

    url: str
    revision: str | None = None
    subfolder: str | None = None


class FolderSource(msgspec.Struct, frozen=True):
    """A requirement from a folder of the workspace, relative to it."""

    path: str


class Line(msgspec.Struct, frozen=True):
    """One requirement or option, or a constraint. `prefix` and `suffix` surround the place of a source's location."""

    text: str
    source: GitSource | FolderSource | None = None
    prefix: str = ""
    suffix: str = ""
    constraint: bool = False


class Requirements(msgspec.Struct, frozen=True):
    """`project` says that the workspace itself is asked for (`-e .`), which is no package to install."""

    lines: tuple[Line, ...]
    project: bool = False

    @property
    def hashed(self) -> bool:
        """Whether every requirement is pinned with hashes, so that the file is its own lock."""
        wanted = [line.text for line in self.lines if not line.constraint and not line.text.startswith("-")]
        return bool(wanted) and all("--hash=" in text and "==" in text for text in wanted)

    def shown(self) -> tuple[str, ...]:
        """The requirements for a spec: no hashes, no credentials."""
        texts = (f"{'-c ' * line.constraint}{line.text.split(' --hash=')[0].strip()}" for line in self.lines)
        return tuple(without_credentials(text) for text in texts)


def read(root: Path, path: str) -> Requirements:
    """The requirements in a file and all that it includes. Raises `UsageError` naming file and line."""
    lines = tuple(_lines(root, root / path, [], []))
    return Requirements(tuple(line for line in lines if line.text != "."), any(line.text == "." for line in lines))


def files(root: Path, path: str) -> set[str]:
    """The file and all that it includes, those inside the workspace, relative to it."""
    found, waiting = set[Path](), [root / path]
    while waiting:
        file = Path(os.path.normpath(waiting.pop()))
        if file not in found:
            found.add(file)
            includes = (_INCLUDE.match(text) for _, text in _logical_lines(root, file))
            waiting += [file.parent / include["file"] for include in includes if include]
    return {str(file.relative_to(root)) for file in found if root in file.parents}


def _lines(root: Path, file: Path, including: Sequence[Path], read_before: list[Path]) -> list[Line]:
    """`read_before` grows with each file read, as files that include others twice would never come to an end."""
    file = Path(os.path.normpath(file))
    if file in including:
        raise UsageError(f"{_name(root, file)} includes itself", " → ".join(_name(root, f) for f in including))
    if len(read_before) > _MAX_INCLUDES:
        raise UsageError(
            f"{_name(root, including[0])} includes more than {_MAX_INCLUDES} files", next="put them together"
        )
    read_before.append(file)
    found: list[Line] = []
    for number, text in _logical_lines(root, file):
        include = _INCLUDE.match(text)
        if include:
            included = _lines(root, file.parent / include["file"], [*including, file], read_before)
            found += _constraints(included) if text.startswith(("-c", "--constraint")) else included
        else:
            found.append(_line(root, file, number, text))
    return found


def _constraints(lines: Iterable[Line]) -> list[Line]:
    return [msgspec.structs.replace(line, constraint=True) for line in lines]


def _logical_lines(root: Path, file: Path) -> list[tuple[int, str]]:
    found, pending, first = [], "", 1
    for number, raw in enumerate([*_text(root, file).splitlines(), ""], 1):
        first = number if not pending else first
        if raw.endswith("\\"):
            pending += raw[:-1] + " "
            continue
        logical = " ".join((pending + raw).split())
        logical = logical if "#egg" in raw else _COMMENT.sub("", logical)
        pending = ""
        if logical:
            found.append((first, logical))
    return found


def _text(root: Path, file: Path) -> str:
    name = _name(root, file)
    try:
        if file.exists() and not (file.is_file() and file.stat().st_size <= _MAX_BYTES):
            raise UsageError(f"dependencies: cannot read {name}", f"it is no file of at most {_MAX_BYTES >> 20} MiB")
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"dependencies: there is no {name}", next="create it, or correct replay.yaml") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"dependencies: cannot read {name}", str(error)) from error
    if "\0" in text:
        raise UsageError(f"dependencies: cannot read {name}", "it holds a NUL byte", "write it in plain text")
    return text


def _line(root: Path, file: Path, number: int, text: str) -> Line:
    wanted = _EDITABLE.sub("", text)
    vcs = _VCS.match(wanted)
    if vcs:
        return _git_line(wanted, vcs)
    folder = _NAMED_FOLDER.match(wanted) or _FOLDER.match(wanted)
    if folder:
        return _folder_line(root, file, number, wanted, folder)
    if _EDITABLE.match(text):
        shown = without_credentials(text)
        raise UsageError(f"{_name(root, file)} line {number}: cannot read {shown!r}", "an editable must name a folder")
    return Line(text=text)


def _git_line(text: str, match: re.Match[str]) -> Line:
    url, at, revision = match["url"].rpartition("@")
    if not at or "/" not in url.partition("://")[2]:
        url, revision = match["url"], ""
    egg, subfolder = _EGG.search(text), _SUBFOLDER.search(text)
    name = match["name"] or (egg["name"] if egg else "")
    suffix = text[text.index(";") :] if ";" in text else ""
    source = GitSource(url, revision or None, subfolder["path"] if subfolder else None)
    prefix = f"{name}{match['extras'] or ''} @ " if name else ""
    return Line(text, source, prefix, f" {suffix}" if suffix else "")


def _folder_line(root: Path, file: Path, number: int, text: str, match: re.Match[str]) -> Line:
    folder, top = Path(os.path.realpath(file.parent / match["path"])), Path(os.path.realpath(root))
    if folder == top:
        return Line(text=".")
    if top not in folder.parents:
        raise UsageError(
            f"{_name(root, file)} line {number}: {match['path']} lies outside the workspace",
            "the state could not hold it",
            "move it into the workspace, or require it by version",
        )
    if not os.path.isdir(folder):
        raise UsageError(f"{_name(root, file)} line {number}: there is no folder {match['path']}")
    named = match.groupdict().get("name")
    prefix = f"{named}{match['extras'] or ''} @ " if named else ""
    suffix = text[text.index(";") :] if ";" in text else ""
    source = FolderSource(str(folder.relative_to(top)))
    return Line(text, source, prefix, f" {suffix}" if suffix else "")


def _name(root: Path, file: Path) -> str:
    try:
        return str(file.relative_to(root))
    except ValueError:
        return str(file)
