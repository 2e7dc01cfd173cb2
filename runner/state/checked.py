"""Small files that say of themselves whether they are whole: their last line is the digest of what stands before it.

Where the store keeps an answer under the name of its question, nothing else would tell that a bit of it flipped.
"""

from __future__ import annotations

import msgspec

from runner.state.digest import digest_bytes

_START = b"\n# sha256:"
_LENGTH = len(_START) + 64 + 1


def with_check(data: bytes) -> bytes:
    return data + b"\n# " + digest_bytes(data).encode() + b"\n"


def without_check(data: bytes) -> bytes:
    """What `with_check` was given. Raises `msgspec.DecodeError` when it is not that, or carries no check."""
    content = data[:-_LENGTH]
    if with_check(content) != data:
        raise msgspec.DecodeError("its last line is not the digest of the lines before")
    return content


def checked_if_marked(data: bytes) -> bytes:
    """As `without_check`, but text that never carried a check is given as it is: older files are not to be lost."""
    if _START in data:
        return without_check(data)
    if not data.isascii():
        raise msgspec.DecodeError("it is not the text that was written")
    return data
