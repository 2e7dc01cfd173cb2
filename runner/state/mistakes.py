"""Why a value does not fit its schema, in words: every mistake, each with what was expected and what was found.

Imported only when something is wrong: building a validator costs more than reading most files.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any

import jsonschema_rs

from runner.state.plain import Path, Problem, quoted
from runner.state.schemas import Schema, schemas

_TYPES = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "an integer",
    "null": "null",
    "number": "a number",
    "object": "a mapping",
    "string": "a string",
}


def mistakes(name: str, value: Any) -> list[Problem]:
    """What is wrong with a plain value by the schema of this name, in the order of the file."""
    schema = schemas()[name]
    errors = jsonschema_rs.Draft202012Validator(schema).iter_errors(value)
    return [problem for error in errors for problem in _problems(error, schema)]


def _problems(error: Any, schema: Schema) -> Iterator[Problem]:
    path, kind = tuple(error.instance_path), error.kind
    if kind.name == "anyOf":
        yield from _no_alternative(error, schema)
    elif kind.name == "additionalProperties":
        known = _at(schema, error.schema_path[:-1])["properties"]
        yield from (Problem((*path, key), _unknown(key, known, error.instance)) for key in kind.unexpected)
    elif kind.name == "required":
        yield Problem(path, f"the key `{kind.property}` is missing")
    elif kind.name == "propertyNames":
        yield from _bad_names(path, error, schema)
    else:
        yield Problem(path, _unfit(error, schema))


def _no_alternative(error: Any, schema: Schema) -> Iterator[Problem]:
    """The mistakes within the alternative that has the right type; if none has, what all of them are."""
    alternatives = error.kind.context
    near = [some for some in alternatives if not any(_is_wrong_type(one, error) for one in some)]
    if near:
        yield from (problem for one in near[0] for problem in _problems(one, schema))
    else:
        types = [name for some in alternatives for one in some for name in _types(one)]
        yield Problem(tuple(error.instance_path), _expected(_names(types), error.instance, "string" in types, error))


def _is_wrong_type(one: Any, error: Any) -> bool:
    return one.kind.name == "type" and bool(one.instance_path == error.instance_path)


def _types(error: Any) -> Iterator[str]:
    if error.kind.name == "type":
        yield from error.kind.types


def _unfit(error: Any, schema: Schema) -> str:
    """A value of the wrong type, outside a choice, or of the wrong form."""
    kind = error.kind
    if kind.name == "type":
        return _expected(_names(kind.types), error.instance, "string" in kind.types, error)
    if kind.name == "enum":
        near = _near(error.instance, kind.options) if isinstance(error.instance, str) else ""
        return _expected(" or ".join(map(_shown, kind.options)), error.instance, False, error) + near
    about = _at(schema, error.schema_path[:-1])
    return _expected(about.get("description", error.message), error.instance, False, error)


def _bad_names(path: Path, error: Any, schema: Schema) -> Iterator[Problem]:
    place = error.schema_path
    names = _at(schema, place[: place.index("propertyNames", 0) + 1])
    fits = jsonschema_rs.Draft202012Validator(names).is_valid
    expected = names["description"]
    yield from (Problem((*path, key), f"expected {expected} as the key") for key in error.instance if not fits(key))


def _expected(expected: str, found: Any, takes_text: bool, error: Any) -> str:
    text = f"expected {expected}, found {_found(found, error)}"
    if found is None:
        return f"{text}; give it a value or leave the key out"
    quotable = takes_text and isinstance(found, bool | int | float)
    return f"{text}; put it in quotes" if quotable else text


def _found(value: Any, error: Any) -> str:
    """The value, or only its type where it may be long or a secret."""
    if value is None:
        return "nothing"
    if isinstance(value, dict | list) or "secrets" in error.instance_path:
        return _TYPES[_type_of(value)]
    return _shown(value)


def _type_of(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
    return names[type(value)]


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return quoted(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _names(types: Iterable[str]) -> str:
    names = [_TYPES[name] for name in dict.fromkeys(types)]
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _unknown(key: str, known: Iterable[str], siblings: Iterable[str]) -> str:
    absent = [name for name in known if name not in siblings]
    return "unknown key" + (_near(key, absent) or f"; known are {', '.join(sorted(known))}")


def _near(word: str, words: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, [one for one in words if isinstance(one, str)], n=1)
    return f"; did you mean `{found[0]}`?" if found else ""


def _at(schema: Schema, path: Iterable[str | int]) -> Schema:
    found: Any = schema
    for key in path:
        found = found[key]
    return found  # type: ignore[no-any-return]
