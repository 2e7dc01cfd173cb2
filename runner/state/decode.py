"""From plain values and JSON to typed ones. The only place that asks msgspec for it.

At the first use of a type msgspec builds what it knows of it, and two threads that do so at once end the whole process
with a segmentation fault (seen with 0.22). So the first use of each type has a lock.
"""

from __future__ import annotations

import threading
from typing import Any, TypeVar

import msgspec

_T = TypeVar("_T")
_lock = threading.Lock()
_known: set[Any] = set()


def decode_json(data: bytes | bytearray | str, kind: type[_T]) -> _T:
    """What the JSON `data` holds. Raises what `MALFORMED` lists."""
    return msgspec.json.decode(data, type=_ready(kind))


def convert(value: Any, kind: type[_T]) -> _T:
    """The plain `value` as a `kind`. Raises `msgspec.ValidationError`."""
    return msgspec.convert(value, _ready(kind))


def _ready(kind: type[_T]) -> type[_T]:
    if kind not in _known:
        with _lock:
            msgspec.json.Decoder(kind)
            _known.add(kind)
    return kind
