"""The one way in and out of YAML, JSON and TOML: strict about every key and type, and clear about every mistake.

A file that says a newer version is told so before anything else is looked at. What is read fast is checked by
msgspec; only when that fails are all mistakes listed, with their lines.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from runner.errors import NewerFormatError, TamperedError, UsageError
from runner.state.decode import convert
from runner.state.job import WORKFILE_VERSION, Workfile
from runner.state.plain import (
    KeyPath,
    Problem,
    check_plain,
    has_needless_null,
    plain_problems,
    problems_error,
    quoted,
    to_plain,
)
from runner.state.record import RECORD_VERSION, Record
from runner.state.release import RELEASE_VERSION, WITHDRAWAL_VERSION, Release, Withdrawal
from runner.state.spec import SPEC_VERSION, StateSpec, state_digest
from runner.state.yaml_reader import YamlError, locate, read_yaml

__all__ = [
    "check_digest",
    "check_plain",
    "dump_record",
    "dump_release",
    "dump_spec",
    "dump_withdrawal",
    "load_json",
    "load_record",
    "load_release",
    "load_spec",
    "load_toml",
    "load_withdrawal",
    "load_workfile",
    "load_yaml",
]

MIB: Final = 1 << 20
SPEC_LIMIT: Final = 4 * MIB
WORKFILE_LIMIT: Final = 1 * MIB
RECORD_LIMIT: Final = 16 * MIB
RELEASE_LIMIT: Final = 16 * MIB
PARAMS_LIMIT: Final = 16 * MIB

_T = TypeVar("_T", bound=msgspec.Struct)


class _Form(NamedTuple):
    """What a file holds: its name among the schemas, and the key that gives its version."""

    schema: str
    version_key: str
    version: int
    states_version: bool


_SPEC = _Form("spec", "spec", SPEC_VERSION, True)
_WORKFILE = _Form("workfile", "version", WORKFILE_VERSION, False)
_RECORD = _Form("record", "record", RECORD_VERSION, True)
_RELEASE = _Form("release", "release", RELEASE_VERSION, True)
_WITHDRAWAL = _Form("withdrawal", "withdrawal", WITHDRAWAL_VERSION, True)


# --- files of our own ----------------------------------------------------------------------------------------


def load_spec(data: bytes, source: str) -> StateSpec:
    """Raises `UsageError` naming `source`, line and key. Whether the digest fits is for `check_digest`."""
    return _typed(StateSpec, _SPEC, load_yaml(data, source, SPEC_LIMIT), data, source)


def dump_spec(spec: StateSpec) -> bytes:
    """YAML, the same bytes for equal specs. Raises `UsageError` for what could not be read back."""
    return _dump_yaml({"spec": spec.spec, **to_plain(spec)}, f"the spec of {spec.run.id}", SPEC_LIMIT)


def load_release(data: bytes, source: str) -> Release:
    """Raises `UsageError` naming `source`, line and key."""
    return _typed(Release, _RELEASE, load_yaml(data, source, RELEASE_LIMIT), data, source)


def dump_release(release: Release) -> bytes:
    """YAML, the same bytes for equal releases."""
    tree = {"release": release.release, **to_plain(release)}
    return _dump_yaml(tree, f"the release {release.name}", RELEASE_LIMIT)


def load_withdrawal(data: bytes, source: str) -> Withdrawal:
    """Raises `UsageError` naming `source`, line and key."""
    return _typed(Withdrawal, _WITHDRAWAL, load_yaml(data, source, SPEC_LIMIT), data, source)


def dump_withdrawal(said: Withdrawal) -> bytes:
    """YAML, the same bytes for equal statements."""
    tree = {"withdrawal": said.withdrawal, **to_plain(said)}
    return _dump_yaml(tree, f"what is said of the release {said.name}", SPEC_LIMIT)


def _dump_yaml(tree: dict[str, Any], source: str, limit: int) -> bytes:
    from runner.state.yaml_writer import write_yaml

    check_plain(tree, source)
    data = write_yaml(tree)
    _check_size(data, source, limit)
    return data


def check_digest(spec: StateSpec, source: str) -> None:
    """Raises `TamperedError` unless the digest that the spec states is that of its state."""
    found = state_digest(spec.state)
    if found != spec.digest:
        raise TamperedError(
            f"{source} was changed after it was written",
            f"its state has the digest {found}, it states {spec.digest}",
            "restore the file from git or from another copy",
        )


def load_workfile(data: bytes, source: str) -> Workfile:
    """`replay.yaml`. Raises `UsageError` naming `source`, line and key."""
    return _typed(Workfile, _WORKFILE, load_yaml(data, source, WORKFILE_LIMIT), data, source)


def load_record(data: bytes, source: str) -> Record:
    """Raises `UsageError` naming `source`, line and key."""
    return _typed(Record, _RECORD, load_json(data, source, RECORD_LIMIT), data, source)


def dump_record(record: Record) -> bytes:
    """JSON with sorted keys, indented by two. Raises `UsageError` for what could not be read back."""
    source = f"the record of {record.run_id}"
    tree = {"record": record.record, **to_plain(record)}
    check_plain(tree, source)
    data = msgspec.json.format(msgspec.json.encode(tree, order="deterministic"), indent=2) + b"\n"
    _check_size(data, source, RECORD_LIMIT)
    return data


# --- files of any shape --------------------------------------------------------------------------------------


def load_yaml(data: bytes, source: str, limit: int = PARAMS_LIMIT) -> Any:
    """The plain value of one YAML 1.2 document; None if the file holds none. NaN and infinity may be in it."""
    text = _text(data, source, limit)
    try:
        return read_yaml(text)
    except YamlError as error:
        raise UsageError(f"cannot read {source}", str(error), f"correct {source}") from None


def load_json(data: bytes, source: str, limit: int = PARAMS_LIMIT) -> Any:
    """The plain value of a JSON text, checked by `check_plain`; a key given twice is refused."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError(_given_twice([key for key, _ in pairs], text))
        return found

    text = _text(data, source, limit)
    return _parsed(lambda: json.loads(text, object_pairs_hook=unique, parse_constant=_no_json), source)


def load_toml(data: bytes, source: str, limit: int = PARAMS_LIMIT) -> Any:
    """The plain value of a TOML text, checked by `check_plain`; dates and times become ISO 8601 strings."""
    import tomllib

    text = _text(data, source, limit)
    return _parsed(lambda: msgspec.to_builtins(tomllib.loads(text)), source)


def _parsed(parse: Callable[[], Any], source: str) -> Any:
    try:
        value = parse()
    except ValueError as error:
        long = "int_max_str_digits" in str(error)
        why = "it holds a number of too many digits" if long else str(error)
        raise UsageError(f"cannot read {source}", why, f"correct {source}") from None
    except RecursionError:
        raise UsageError(f"cannot read {source}", "it is nested too deeply", f"correct {source}") from None
    check_plain(value, source)
    return value


def _given_twice(keys: list[str], text: str) -> str:
    key = next(key for key, times in Counter(keys).items() if times > 1)
    spelt = json.dumps(key, ensure_ascii=False)
    lines = [str(number) for number, line in enumerate(text.split("\n"), 1) if spelt in line]
    return f"the key {quoted(key)} is given twice in one object; it stands in lines {', '.join(lines)}"


def _no_json(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _text(data: bytes, source: str, limit: int) -> str:
    _check_size(data, source, limit)
    if data.startswith(b"\xef\xbb\xbf"):
        raise UsageError(f"cannot read {source}", "line 1: it starts with a byte order mark", "save it without one")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        why = f"line {line}: the byte 0x{data[error.start]:02x} is not UTF-8"
        raise UsageError(f"cannot read {source}", why, "save it as UTF-8") from None


def _check_size(data: bytes, source: str, limit: int) -> None:
    if len(data) > limit:
        why = f"{len(data):,} bytes; at most {limit // MIB} MiB are read"
        raise UsageError(f"{source} is too large", why, "move what is large into a data file")


# --- from plain values to ours -------------------------------------------------------------------------------


def _typed(shape: type[_T], form: _Form, tree: Any, data: bytes, source: str) -> _T:
    _check_version(form, tree, source)
    problems = plain_problems(tree)
    if problems:
        raise _error(problems, data, source)
    try:
        value = convert(tree, shape)
    except msgspec.ValidationError as error:
        raise _mistaken(form, tree, data, source, str(error)) from None
    if has_needless_null(value, tree) or (form.states_version and form.version_key not in tree):
        raise _mistaken(form, tree, data, source, "")
    return value


def _check_version(form: _Form, tree: Any, source: str) -> None:
    if not isinstance(tree, dict):
        what = "is empty" if tree is None else "holds no mapping"
        raise UsageError(
            f"{source} {what}", f"expected `{form.version_key}: {form.version}` and more keys", f"correct {source}"
        )
    version = tree.get(form.version_key)
    if type(version) is int and version > form.version:
        raise NewerFormatError(
            f"{source} was written by a newer replay",
            f"it says `{form.version_key}: {version}`; this replay reads {form.version}",
            "upgrade replay",
        )


def _mistaken(form: _Form, tree: Any, data: bytes, source: str, reason: str) -> UsageError:
    """All mistakes by the schema; if it finds none, the one that msgspec found."""
    from runner.state.mistakes import mistakes

    found = mistakes(form.schema, tree)
    return _error(found, data, source) if found else problems_error(source, [reason])


def _error(problems: list[Problem], data: bytes, source: str) -> UsageError:
    """In the order of the file; without lines where they cannot be told."""
    lines = locate(data.decode())
    found = sorted(((_line(one.path, lines), one) for one in problems), key=lambda pair: (pair[0], str(pair[1])))
    return problems_error(source, [f"line {line}: {one}" if lines else str(one) for line, one in found])


def _line(path: KeyPath, lines: dict[KeyPath, int]) -> int:
    """Of the key itself, or of the nearest that holds it."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 0)
