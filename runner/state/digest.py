"""Digests, and the one byte form that they are taken of.

A digest is written `sha256:` and 64 lower-case hex digits. The digest of a value is the SHA-256 of its
canonical JSON: keys sorted by code point, no white space, UTF-8, absent keys left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, NewType

import msgspec

Digest = NewType("Digest", str)

DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"
_IS_DIGEST = re.compile(DIGEST_PATTERN)
_ARE_DIGESTS = re.compile(r"(?:sha256:[0-9a-f]{64}+\n)*+")
_CHUNK = 1 << 20


def is_digest(text: str) -> bool:
    return _IS_DIGEST.fullmatch(text) is not None


def are_digests(texts: Sequence[str]) -> bool:
    """`is_digest` of all of them, in half the time: there may be a hundred thousand."""
    lines = "\n".join((*texts, ""))
    return lines.count("\n") == len(texts) and _ARE_DIGESTS.fullmatch(lines) is not None


def digest_of_hex(hex_digits: str) -> Digest:
    return Digest("sha256:" + hex_digits)


def hex_of(digest: Digest) -> str:
    return digest.removeprefix("sha256:")


def digest_bytes(data: bytes) -> Digest:
    return digest_of_hex(hashlib.sha256(data).hexdigest())


def digest_file(path: Path) -> Digest:
    """The digest of a file's bytes, read in bounded memory. Raises `OSError`."""
    with path.open("rb", buffering=0) as file:
        return digest_of_hex(hashlib.file_digest(file, "sha256").hexdigest())


def plain(value: Any) -> Any:
    """Structs as mappings in field order, without the fields that equal their default; the rest as it is.

    msgspec's own `omit_defaults` compares by identity, so that equal values could give other bytes.
    """
    if isinstance(value, msgspec.Struct):
        return _plain_struct(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, StrEnum) else value


def canonical(value: Any) -> bytes:
    """The canonical JSON of a struct, mapping, list or scalar."""
    return msgspec.json.encode(plain(value), order="deterministic")


def digest_value(value: Any) -> Digest:
    return digest_bytes(canonical(value))


def _plain_struct(value: msgspec.Struct) -> Any:
    fields = ((name, getattr(value, field), default) for field, name, default in _fields(type(value)))
    if value.__struct_config__.array_like:
        return [plain(item) for _, item, _ in fields]
    return {name: plain(item) for name, item, default in fields if item != default}


@cache
def _fields(kind: type[msgspec.Struct]) -> tuple[tuple[str, str, Any], ...]:
    """Name in Python, name in files, and default of each field; no default is `msgspec.NODEFAULT`."""
    found = msgspec.structs.fields(kind)
    return tuple(
        (
            field.name,
            field.encode_name,
            field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory(),
        )
        for field in found
    )
