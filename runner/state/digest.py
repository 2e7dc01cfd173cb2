"""Digests, and the one byte form that they are taken of.

A digest is written `sha256:` and 64 lower-case hex digits. The digest of a value is the SHA-256 of its
canonical JSON: keys sorted by code point, no white space, UTF-8, absent keys left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NewType

import msgspec

Digest = NewType("Digest", str)

DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"
_IS_DIGEST = re.compile(DIGEST_PATTERN)
_CHUNK = 1 << 20


def is_digest(text: str) -> bool:
    return _IS_DIGEST.match(text) is not None


def digest_of_hex(hex_digits: str) -> Digest:
    return Digest("sha256:" + hex_digits)


def hex_of(digest: Digest) -> str:
    return digest.removeprefix("sha256:")


def digest_bytes(data: bytes) -> Digest:
    return digest_of_hex(hashlib.sha256(data).hexdigest())


def digest_chunks(chunks: Iterable[bytes]) -> Digest:
    hasher = hashlib.sha256()
    for chunk in chunks:
        hasher.update(chunk)
    return digest_of_hex(hasher.hexdigest())


def digest_file(path: Path) -> Digest:
    """The digest of a file's bytes, read in bounded memory. Raises `OSError`."""
    with path.open("rb", buffering=0) as file:
        return digest_of_hex(hashlib.file_digest(file, "sha256").hexdigest())


def canonical(value: Any) -> bytes:
    """The canonical JSON of a struct, mapping, list or scalar."""
    return msgspec.json.encode(msgspec.to_builtins(value), order="deterministic")


def digest_value(value: Any) -> Digest:
    return digest_bytes(canonical(value))
