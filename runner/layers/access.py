"""Layer `access`: what the job may reach: network, limits, secrets. Declared sources are in `sources`.

A secret is a reference, `env:NAME` or `file:PATH`. Its value is read just before the start and lives in
this process's memory only; what is recorded is where it came from and a keyed fingerprint.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TypeVar

from runner.errors import UsageError
from runner.state.job import JobLimits
from runner.state.spec import Limits, SecretSeen

_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?$", re.IGNORECASE)
_TIME = re.compile(r"^(\d+(?:\.\d+)?)\s*([smhd]?)$", re.IGNORECASE)
_SIZE_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_TIME_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_MINIMUM_MEMORY = 6 << 20
SHORTEST_MASKED = 4
_SHORTEST_LINE = 8
_Number = TypeVar("_Number", int, float)


def limits(declared: JobLimits) -> Limits:
    """Sizes in bytes, times in seconds. Raises `UsageError` for what cannot be read or is too small."""
    found = Limits(
        memory=_size("memory", declared.memory),
        cpus=_positive("cpus", declared.cpus),
        gpus=_positive("gpus", declared.gpus) or None,
        shm=_size("shm", declared.shm),
        disk=_size("disk", declared.disk),
        processes=_positive("processes", declared.processes),
        time=_time("time", declared.time),
    )
    if found.memory is not None and found.memory < _MINIMUM_MEMORY:
        raise UsageError("limits.memory is too small", f"{found.memory} bytes; engines need at least 6m")
    return found


def read_secrets(references: Mapping[str, str], root: Path, caller: Mapping[str, str]) -> dict[str, bytes]:
    """The values now. Raises `UsageError` naming the secret that cannot be had."""
    return {name: _read(name, reference, root, caller) for name, reference in sorted(references.items())}


def telling(values: Collection[bytes]) -> tuple[bytes, ...]:
    """What must not be seen of secrets: each value, with and without white space around it, and each longer
    line of those that have several."""
    lines = {line.strip() for value in values for line in value.splitlines() if len(line.strip()) >= _SHORTEST_LINE}
    whole = {text for value in values for text in (value, value.strip()) if len(text) >= SHORTEST_MASKED}
    return tuple(sorted(whole | lines, key=lambda text: (-len(text), text)))


def seen(references: Mapping[str, str], values: Mapping[str, bytes], key: bytes) -> dict[str, SecretSeen]:
    return {
        name: SecretSeen(source=references[name], fingerprint=fingerprint(value, key), key=key_name(key))
        for name, value in values.items()
    }


def fingerprint(value: bytes, key: bytes) -> str:
    """Equal for equal values in one store; says nothing to whoever lacks the store's key."""
    return "hmac-sha256:" + hmac.new(key, value, hashlib.sha256).hexdigest()[:32]


def key_name(key: bytes) -> str:
    """Tells keys apart and says nothing of them."""
    return hmac.new(key, b"replay: the name of this key", hashlib.sha256).hexdigest()[:16]


def _read(name: str, reference: str, root: Path, caller: Mapping[str, str]) -> bytes:
    kind, _, where = reference.partition(":")
    if kind == "env" and where:
        if where not in caller:
            raise UsageError(
                f"secret {name}: the variable {where} is not set", next=f"`export {where}=…` and run again"
            )
        value = caller[where].encode(errors="surrogateescape")
    elif kind == "file" and where:
        value = _read_file(name, root, where)
    else:
        raise UsageError(f"secret {name} is no reference to a value", next="write `env:NAME` or `file:PATH`")
    if not value or b"\0" in value:
        raise UsageError(f"secret {name} is empty or holds a NUL byte", f"read from {reference}")
    return value


def _read_file(name: str, root: Path, where: str) -> bytes:
    try:
        return (root / Path(where).expanduser()).read_bytes().removesuffix(b"\n")
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"secret {name}: cannot read {where}", why, "correct the path in replay.yaml") from error


def _size(name: str, value: str | int | None) -> int | None:
    if value is None or isinstance(value, int):
        return _positive(name, value)
    match = _SIZE.match(value.strip())
    if not match:
        raise UsageError(f"limits.{name}: {value!r} is no size", next="write bytes, or like 512m or 2g")
    size = float(match[1]) * _SIZE_UNITS[match[2].lower()]
    if size >= 1 << 63:
        raise UsageError(f"limits.{name}: {value!r} is more than any machine has", next="write less, or leave it out")
    return _positive(name, int(size))


def _time(name: str, value: str | float | None) -> float | None:
    if value is None or not isinstance(value, str):
        return _positive(name, value)
    match = _TIME.match(value.strip())
    if not match:
        raise UsageError(f"limits.{name}: {value!r} is no time", next="write seconds, or like 90s, 30m or 1h")
    seconds = float(match[1]) * _TIME_UNITS[match[2].lower()]
    if seconds >= 1 << 63:
        raise UsageError(f"limits.{name}: {value!r} is more than any machine has", next="write less, or leave it out")
    return _positive(name, seconds)


def _positive(name: str, value: _Number | None) -> _Number | None:
    if value is not None and (value < 0 or (value == 0 and name != "gpus")):
        raise UsageError(f"limits.{name}: {value} is not above zero", next="give more, or leave the limit out")
    return value
