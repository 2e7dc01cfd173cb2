"""What an engine answers, read strictly: whatever else comes is the engine's mistake, and told as one."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from runner.errors import OutsideError
from runner.state.decode import convert
from runner.state.plain import MALFORMED
from runner.state.spec import Sha256

_Shape = TypeVar("_Shape")


class Config(msgspec.Struct, frozen=True, rename="pascal"):
    env: tuple[str, ...] | None = None
    user: str | None = None
    working_dir: str | None = None
    entrypoint: tuple[str, ...] | None = None


class RootFs(msgspec.Struct, frozen=True, rename="pascal"):
    layers: tuple[Sha256, ...] | None = None


class Inspected(msgspec.Struct, frozen=True, rename="pascal"):
    """An image as `inspect` tells it, as far as it is read."""

    id: str
    os: str
    architecture: str
    variant: str | None = None
    config: Config | None = None
    root_fs: RootFs | None = msgspec.field(default=None, name="RootFS")
    repo_digests: tuple[str, ...] | None = None
    repo_tags: tuple[str, ...] | None = None


class Listed(msgspec.Struct, frozen=True, rename="pascal"):
    """A container or image in a list."""

    id: str
    labels: dict[str, str] | None = None


def error_in(line: Any) -> str | None:
    """What a line of progress says has failed."""
    return str(line["error"]) if isinstance(line, dict) and "error" in line else None


def read(answer: Any, shape: type[_Shape]) -> _Shape:
    """Raises `OutsideError`."""
    try:
        return convert(answer, shape)
    except msgspec.ValidationError as error:
        raise _unreadable(error) from None


def read_json(line: str) -> Any:
    """Raises `OutsideError`."""
    try:
        return msgspec.json.decode(line)
    except MALFORMED as error:
        raise _unreadable(error) from None


def _unreadable(error: Exception) -> OutsideError:
    return OutsideError(
        "the engine's answer cannot be read", str(error), "is it an engine that serves Docker's API? `replay doctor`"
    )
