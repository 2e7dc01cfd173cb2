"""YAML to plain values, by the rules of YAML 1.2's core schema and none of its surprises.

`no`, `on`, `1:30` and dates are strings, `012` is twelve. Values are built from the parser's events, since
PyYAML's own composer recurses without a bound: depth and what aliases expand to are counted here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, NoReturn

import yaml
from yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
)

from runner.state.plain import MAX_DEPTH, KeyPath, quoted

MAX_EXPANDED = 100_000
_MAX_DIGITS = 1000

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Line separators of YAML 1.1 that are none in 1.2 count as control characters too.
_CONTROL = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")

_CONSTANTS = {
    **dict.fromkeys(["", "~", "null", "Null", "NULL"]),
    **dict.fromkeys(["true", "True", "TRUE"], True),
    **dict.fromkeys(["false", "False", "FALSE"], False),
    **dict.fromkeys([sign + name for sign in ("", "+") for name in (".inf", ".Inf", ".INF")], float("inf")),
    **dict.fromkeys(["-.inf", "-.Inf", "-.INF"], float("-inf")),
    **dict.fromkeys([".nan", ".NaN", ".NAN"], float("nan")),
}
_NUMBER_STARTS = frozenset("+-.0123456789")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_OCTAL = re.compile(r"0o[0-7]+")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")


class YamlError(Exception):
    """`line` counts from 1."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}: {problem}")


def read_yaml(text: str) -> Any:
    """The value of the one document in `text`; None if there is no document. Raises `YamlError`."""
    control = _CONTROL.search(text)
    if control:
        line = text.count("\n", 0, control.start()) + 1
        raise YamlError(line, f"the character U+{ord(control[0]):04X}; write it as an escape in double quotes")
    events = yaml.parse(text, Loader=_LOADER)
    try:
        return _Builder(events).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, index = (mark.line + 1, mark.index) if mark else (1, 0)
        raise YamlError(line, _plainly(error, text[index : index + 1])) from None


def locate(text: str) -> dict[KeyPath, int]:
    """The line of every key and list item of a text that `read_yaml` accepts; nothing if it does not."""
    lines: dict[KeyPath, int] = {}
    try:
        top = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError:
        return lines
    if top is not None:
        _locate(top, (), lines)
    return lines


def _locate(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int]) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            lines[*path, key.value] = key.start_mark.line + 1
            _locate(value, (*path, key.value), lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _locate(item, (*path, index), lines)


def _plainly(error: yaml.MarkedYAMLError, found: str) -> str:
    """The parser's complaint in other words; `found` is the character that it stopped at."""
    problem = error.problem or "this is no YAML"
    if "cannot start any token" in problem:
        what = "a tab" if found == "\t" else quoted(found)
        return f"{what} cannot stand here; " + ("indent with spaces" if found == "\t" else "put the text in quotes")
    if problem == "mapping values are not allowed in this context":
        return "a `:` that starts no value here; put the text in quotes, or check the indentation"
    return f"{problem}, {error.context}" if error.context else problem


_Node = ScalarEvent | CollectionStartEvent


class _Open:
    """Stands for an anchored value that is still being read."""


class _Builder:
    def __init__(self, events: Iterator[Event]) -> None:
        self._events = events
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._count = 0
        self._expanded = 0

    def document(self) -> Any:
        value = None
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                value = self._value(next(self._events), 0)
                break
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                _refuse(event, "a second document starts; one file holds one")
        return value

    def _value(self, event: Event, depth: int) -> Any:
        self._count += 1
        if isinstance(event, AliasEvent):
            return self._alias(event)
        assert isinstance(event, _Node), "the parser's grammar"
        if event.tag is not None:
            _refuse(event, f"the tag {quoted(event.tag)}; only plain values are read")
        if event.anchor is None:
            return self._content(event, depth)
        return self._anchored(event, event.anchor, depth)

    def _content(self, event: _Node, depth: int) -> Any:
        if isinstance(event, ScalarEvent):
            return _scalar(event) if event.implicit[0] else event.value
        if depth >= MAX_DEPTH:
            _refuse(event, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, MappingStartEvent):
            return self._mapping(depth + 1)
        return self._sequence(depth + 1)

    def _anchored(self, event: _Node, name: str, depth: int) -> Any:
        before = self._count
        self._anchors[name] = (_Open, 0)
        value = self._content(event, depth)
        self._anchors[name] = (value, self._count - before + 1)
        return value

    def _alias(self, event: AliasEvent) -> Any:
        value, size = self._anchors.get(event.anchor or "", (None, 0))
        if size == 0:
            what = "holds itself" if value is _Open else "is not defined above"
            _refuse(event, f"the alias *{event.anchor} {what}")
        self._count += size - 1
        self._expanded += size
        if self._expanded > MAX_EXPANDED:
            _refuse(event, f"aliases expand to more than {MAX_EXPANDED:,} values")
        return value

    def _sequence(self, depth: int) -> list[Any]:
        found = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            found.append(self._value(event, depth))
        return found

    def _mapping(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        first: dict[str, Event] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            key = self._value(event, depth)
            if not isinstance(key, str):
                _refuse(event, f"the key {_shown_key(event)} is no string; put it in quotes")
            if key in found:
                _refuse(event, f"the key {quoted(key)} is given twice; it stands in line {_line(first[key])} already")
            first[key] = event
            found[key] = self._value(next(self._events), depth)
        return found


def _shown_key(event: Event) -> str:
    return event.value or "(nothing)" if isinstance(event, ScalarEvent) else "that starts here"


def _scalar(event: ScalarEvent) -> Any:
    """A plain scalar's value."""
    text: str = event.value
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[0] not in _NUMBER_STARTS:
        return text
    try:
        return _number(text)
    except ValueError:
        _refuse(event, "a number of too many digits")
    except OverflowError:
        _refuse(event, "a number beyond what a double holds")


def _number(text: str) -> int | float | str:
    if len(text) > _MAX_DIGITS and (_OCTAL.fullmatch(text) or _HEXADECIMAL.fullmatch(text)):
        raise ValueError("Python reads them, and cannot print them")
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        value = float(text)
        if math.isinf(value):
            raise OverflowError
        return value
    if _OCTAL.fullmatch(text):
        return int(text[2:], 8)
    return int(text[2:], 16) if _HEXADECIMAL.fullmatch(text) else text


def _refuse(event: Event, problem: str) -> NoReturn:
    raise YamlError(_line(event), problem)


def _line(event: Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1
