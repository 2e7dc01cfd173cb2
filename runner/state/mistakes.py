"""Why a value does not fit its schema, in words: every mistake, each with what was expected and what was found.

Imported only when something is wrong: building a validator costs more than reading most files.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any

import jsonschema_rs

from runner.state.plain import Problem, quoted
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
    """What is wrong with a plain value by the schema of this name."""
    schema = schemas()[name]
    errors = jsonschema_rs.Draft202012Validator(schema).iter_errors(value)
    return list(dict.fromkeys(problem for error in errors for problem in _problems(error, schema)))


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
        names = _at(schema, error.schema_path[:-1])
        yield Problem((*path, kind.error.instance), f"expected {names['description']} as the key")
    else:
        yield Problem(path, _unfit(error, schema))


def _no_alternative(error: Any, schema: Schema) -> Iterator[Problem]:
    """The mistakes within the alternative that has the right type; if none has, what all of them are."""
    alternatives = error.kind.context
    near = [some for some in alternatives if not any(_is_wrong_type(one, error) for one in some)]
    if near:
        yield from (problem for one in near[0] for problem in _problems(one, schema))
    else:
        types = [name for some in alternatives for one in some if one.kind.name == "type" for name in one.kind.types]
        yield Problem(tuple(error.instance_path), _expected_type(types, error))


def _is_wrong_type(one: Any, error: Any) -> bool:
    """Where words are to be chosen from, a mapping or list is of the wrong type too."""
    wrong = one.kind.name == "type" or (one.kind.name == "enum" and isinstance(one.instance, dict | list))
    return wrong and bool(one.instance_path == error.instance_path)


def _unfit(error: Any, schema: Schema) -> str:
    """A value of the wrong type, outside a choice, or of the wrong form."""
    kind = error.kind
    if kind.name == "type":
        return _expected_type(kind.types, error)
    if kind.name == "enum":
        near = _near(error.instance, kind.options) if isinstance(error.instance, str) else ""
        return _expected(_listed(map(_shown, kind.options)), error) + near
    return _expected(_at(schema, error.schema_path[:-1]).get("description", error.message), error)


def _expected(expected: str, error: Any) -> str:
    return f"expected {expected}, found {_found(error.instance, error)}"


def _expected_type(types: Iterable[str], error: Any) -> str:
    """With what would mend it, where that is plain: quotes for a string, no key for nothing."""
    names = list(dict.fromkeys(types))
    text = _expected(_listed(_TYPES[name] for name in names), error)
    if error.instance is None:
        return f"{text}; give it a value or leave the key out"
    only_text = set(names) <= {"string", "null"} and isinstance(error.instance, bool | int | float)
    return f"{text}; put it in quotes" if only_text else text


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


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


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
