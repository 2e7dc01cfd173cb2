"""What a page shows of the files in a night's folder: logs, texts, images. A file is shown as what its first bytes say
that it is, and named by its content, so that no name and no suffix of a stranger's decides what a browser takes it for.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from runner.report.words import visible
from runner.shown import count
from runner.state.night import Artifact, NightRun

Reader = Callable[[str], bytes | None]
"""The bytes of a file of the night's folder, if it is there."""

FOLDER = "artifacts"
LONGEST_TEXT = 64 << 10
LARGEST_FILE = 24 << 20
_HEAD = LONGEST_TEXT * 3 // 4

_IMAGES = {
    b"\x89PNG\r\n\x1a\n": ("png", "image/png"),
    b"\xff\xd8\xff": ("jpg", "image/jpeg"),
    b"GIF8": ("gif", "image/gif"),
}


class Attachments(msgspec.Struct, frozen=True):
    """`shown` maps a file of the night to what the page is told of it; `beside` has what is written next to the
    page, by path. Nothing is beside a page that is one file."""

    shown: dict[str, dict[str, Any]] = {}
    beside: dict[str, bytes] = {}


def attach(runs: tuple[NightRun, ...], read: Reader, *, one_file: bool) -> Attachments:
    """What the runs' artifacts come to. One file takes in so many bytes of them, those of the first runs first."""
    found = Attachments({}, {})
    room = LARGEST_FILE
    for artifact in (one for run in runs for one in run.artifacts):
        if artifact.file in found.shown:
            continue
        told, beside = _shown(artifact, read(artifact.file), one_file=one_file)
        size = sum(len(value) for value in told.values() if isinstance(value, str))
        if size > room:
            told, beside = {"missing": "there was no room for it in one file"}, {}
        else:
            room -= size
        found.shown[artifact.file] = told
        found.beside.update(beside)
    return found


def _shown(artifact: Artifact, data: bytes | None, *, one_file: bool) -> tuple[dict[str, Any], Mapping[str, bytes]]:
    if data is None:
        return {"missing": "it is no longer in the store"}, {}
    if artifact.kind != "image":
        return _text(data, one_file=one_file)
    known = next((kind for magic, kind in _IMAGES.items() if data.startswith(magic)), None)
    if known is None:
        return {"missing": "it is no image that can be shown"}, {}
    suffix, media = known
    if one_file:
        return {"src": f"data:{media};base64,{base64.b64encode(data).decode()}"}, {}
    path = _path(data, suffix)
    return {"src": path}, {path: data}


def _text(data: bytes, *, one_file: bool) -> tuple[dict[str, Any], Mapping[str, bytes]]:
    """The beginning and the end of it; beside the page the whole."""
    if len(data) <= LONGEST_TEXT:
        return {"text": _decoded(data)}, {}
    tail = LONGEST_TEXT - _HEAD
    left_out = count(len(data) - LONGEST_TEXT, "byte")
    text = f"{_decoded(data[:_HEAD])}\n… {left_out} left out …\n{_decoded(data[-tail:])}"
    if one_file:
        return {"text": text, "cut": left_out}, {}
    path = _path(data, "txt")
    return {"text": text, "cut": left_out, "whole": path}, {path: data}


def _decoded(data: bytes) -> str:
    return visible(data.decode(errors="backslashreplace"))


def _path(data: bytes, suffix: str) -> str:
    return f"{FOLDER}/{hashlib.sha256(data).hexdigest()[:32]}.{suffix}"
