"""The page: one HTML file that needs no server and asks for nothing.

What must be seen first is there without JavaScript; the script draws the plots and opens single runs, from data that
stands in the page as JSON. What the browser may run is pinned by hash, so that nothing a job wrote can be run.
"""

from __future__ import annotations

import base64
import hashlib
import json
import string
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import msgspec

from runner.report.artifacts import Attachments, Reader, attach
from runner.report.glance import glance, title
from runner.report.history import History
from runner.report.html import text
from runner.report.words import ABSENT, all_visible, day
from runner.state.digest import plain
from runner.state.night import NightRun

INDEX = "index.html"


class Page(msgspec.Struct, frozen=True):
    """`beside` has what belongs next to the page, by path."""

    html: bytes
    beside: dict[str, bytes] = {}


def page(history: History, read: Reader, *, one_file: bool) -> Page:
    """The page of the last night and what came before. The same nights give the same bytes."""
    attached = attach(history.tonight.runs, read, one_file=one_file)
    style, script = _source("page.css"), _source("page.js")
    told = string.Template(_source("page.html")).substitute(
        policy=_policy(style, script, one_file=one_file),
        title=text(title(history.tonight)),
        style=style,
        glance=glance(history),
        data=_json(_data(history, attached)),
        script=script,
    )
    return Page(told.encode(), attached.beside)


def _data(history: History, attached: Attachments) -> dict[str, Any]:
    """What the script is given. Files of the night are called by their number."""
    numbers = {file: str(number) for number, file in enumerate(attached.shown)}
    return {
        "nights": [day(column.night) for column in history.columns],
        "runs": [_run(run, history, numbers) for run in history.tonight.runs],
        "files": {numbers[file]: told for file, told in attached.shown.items()},
    }


def _run(run: NightRun, history: History, numbers: Mapping[str, str]) -> dict[str, Any]:
    past = history.runs[run.run_id]
    nights = len(history.columns)
    told = plain(run)
    told.pop("bad_outputs", None)  # of use to the next night alone
    for artifact in told.get("artifacts", ()):
        artifact["file"] = numbers[artifact["file"]]
    command = run.command or f"replay {run.run_id}"
    outputs = {path: letters.ljust(nights, ABSENT) for path, letters in past.outputs.items()}
    told |= {"since": day(run.since), "command": command}
    return {**told, "past": past.verdicts, "seconds": past.seconds, "pasts": outputs}


def _json(value: Any) -> str:
    """JSON that ends no script element and opens no comment."""
    told = json.dumps(all_visible(value), ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return told.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _policy(style: str, script: str, *, one_file: bool) -> str:
    """Nothing but this style and this script; no markup made of text; images from the page itself or beside it."""
    # Not every browser takes `'self'` for the folder of a page that was opened from a disk.
    images = "data:" if one_file else "'self' file:"
    rules = {
        "default-src": "'none'",
        "script-src": _pinned(script),
        "style-src": _pinned(style),
        "img-src": images,
        "base-uri": "'none'",
        "form-action": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _pinned(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def _source(name: str) -> str:
    return files("runner.report").joinpath(name).read_text(encoding="utf-8")
