"""What `replay fsck` says of a store: which files are not what they must be, and what rests on each."""

from __future__ import annotations

from typing import Literal

from runner.state.spec import Value

FileKind = Literal[
    "blob", "spec", "record", "log", "sums", "image", "lock", "tree", "environment", "view", "probe", "version",
    "stat", "profile", "locker", "index", "key", "store", "signed-log", "release", "other",
]  # fmt: skip
FileProblem = Literal["damaged", "truncated", "missing", "unreadable", "stray"]
Mending = Literal["open", "repaired", "lost"]


class Need(Value, frozen=True, kw_only=True):
    """What rests on a file: a run, or a lock of later runs; `through` says as what, as `wheel of alpha 1.0`."""

    through: str
    run_id: str | None = None
    job: str | None = None
    lock: str | None = None


class Finding(Value, frozen=True, kw_only=True):
    """One file that is not what it must be. `path` is relative to the store, or to the workspace for the reviewed
    copies in `state_specs/`. `repair` says what was done, or why nothing could be; `hint` what helps."""

    path: str
    kind: FileKind
    problem: FileProblem
    detail: str = ""
    needed_by: tuple[Need, ...] = ()
    mended: Mending = "open"
    repair: str = ""
    hint: str = ""

    @property
    def counts(self) -> bool:
        """Whether the store is not whole because of it; strays only take space."""
        return self.problem != "stray" and self.mended != "repaired"


class Health(Value, frozen=True, kw_only=True):
    """The whole check. `unchecked` names what holds nothing to check it by, `unneeded` counts blobs that no run
    needs."""

    store: str
    whole: bool
    files: int
    bytes: int
    findings: tuple[Finding, ...]
    unchecked: tuple[str, ...]
    unneeded: int
