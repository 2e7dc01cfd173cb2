"""What `push`, `pull` and `status` say of runs and the remote."""

from __future__ import annotations

from typing import Literal

from runner.state.spec import Value

Where = Literal["both", "here", "remote", "neither"]
"""Of `neither` only the reviewed spec and record are known, as git brings them."""


class Lacking(Value, frozen=True):
    """Something that a run needs and that could not be moved: `why` says where it was looked for."""

    kind: str
    name: str
    digest: str
    why: str
    runs: tuple[str, ...]


class Travel(Value, frozen=True, kw_only=True):
    """What was moved, and what was there already. `by_dvc` are data paths whose objects DVC's own part of the remote
    has, or gave; `skipped` are runs that were never finished."""

    remote: str
    runs: tuple[str, ...]
    moved_runs: tuple[str, ...]
    blobs: int
    bytes: int
    had: int = 0
    by_dvc: tuple[str, ...] = ()
    statements: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    lacking: tuple[Lacking, ...] = ()


class RunPlace(Value, frozen=True):
    run_id: str
    where: Where


class Status(Value, frozen=True, kw_only=True):
    """`push` and `pull` count the blobs that would be moved, as far as is known here: what a run needs that only the
    remote has is told by its spec, which is read when it is pulled."""

    remote: str
    runs: tuple[RunPlace, ...]
    push: Amount
    pull: Amount


class Amount(Value, frozen=True):
    runs: int
    blobs: int
    bytes: int = 0
