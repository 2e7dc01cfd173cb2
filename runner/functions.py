"""Which functions of a Python file changed between two versions of it. Pure; nothing is imported or run.

A function is compared by its syntax tree, so comments, formatting and docstrings do not count. What stands outside of
functions and classes is `module level`; what stands in a class and in no method counts as the class.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator

import msgspec

from runner.shown import few

MODULE_LEVEL = "module level"
_MOST_BYTES = 1 << 20
_NAMED = 5


class FunctionChanges(msgspec.Struct, frozen=True):
    """Qualified names, sorted: `Model.fit`."""

    changed: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]

    def __str__(self) -> str:
        kinds = (("changed", self.changed), ("added", self.added), ("removed", self.removed))
        return "; ".join(f"{few(names, _NAMED)} {kind}" for kind, names in kinds if names) or "no function changed"


def function_changes(before: bytes, after: bytes) -> FunctionChanges | None:
    """What changed from `before` to `after`; None where one of them is not Python that can be read."""
    try:
        old, new = _functions(before), _functions(after)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return FunctionChanges(
        changed=tuple(sorted(name for name in old.keys() & new.keys() if old[name] != new[name])),
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
    )


def _functions(source: bytes) -> dict[str, str]:
    if len(source) > _MOST_BYTES:
        raise ValueError("too long to be read")
    found: defaultdict[str, str] = defaultdict(str)
    for name, node in _named(ast.parse(source).body, ""):
        found[name or MODULE_LEVEL] += ast.dump(node)
    return dict(found)


def _named(body: Iterable[ast.stmt], owner: str) -> Iterator[tuple[str, ast.AST]]:
    """Every statement with the name of what it belongs to; functions inside functions are part of these."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = _without_docstring(node.body)
            yield owner + node.name, node
        elif isinstance(node, ast.ClassDef):
            members, node.body = _without_docstring(node.body), []
            yield owner + node.name, node
            yield from ((name or owner + node.name, member) for name, member in _named(members, f"{owner}{node.name}."))
        elif not _is_text(node):
            yield owner.removesuffix("."), node


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    return body[1:] if body and _is_text(body[0]) else body


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
