"""What `replay pins` says: where each thing that kept runs need can still be had."""

from __future__ import annotations

from typing import Literal

from runner.state.spec import Value

PinState = Literal["safe", "last-copy", "lost", "unknown", "erased"]
"""`safe` is in two places or more, `last-copy` in one, `lost` in none. `unknown` was found in one place or none, and
not every other could be asked. `erased` lacks something on purpose, as a tombstone that is believed here tells."""

PinKind = Literal["code", "params", "image", "wheel", "data", "model", "profile", "output"]


class Pin(Value, frozen=True):
    """`places` are those that have it: `store`, `engine`, `git`, `dvc-cache`, `dvc-remote`, `remote`, `registry`,
    `index`."""

    kind: PinKind
    name: str
    digest: str
    state: PinState
    places: tuple[str, ...]
    runs: tuple[str, ...]


class Unasked(Value, frozen=True):
    """A place that could not be asked, and why."""

    place: str
    why: str


class Pins(Value, frozen=True, kw_only=True):
    """`runs` counts those that were looked at; `last_copy`, `lost`, `unknown` and `erased` count pins."""

    runs: int
    pins: tuple[Pin, ...]
    last_copy: int
    lost: int
    unknown: int
    erased: int = 0
    unasked: tuple[Unasked, ...] = ()
