"""`replay.yaml`: the jobs of a workspace, as people write them."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta

from runner.state.spec import Determinism, Network, OutputRule, Value

WORKFILE_VERSION: Final = 1

# `$` alone lets a line feed at the end pass.
JobName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.]*(-[A-Za-z0-9_.]+)*$(?!\n)",
        max_length=64,
        description="a name of at most 64 letters, digits, `_`, `.` and single `-`",
    ),
]
EnvName = Annotated[
    str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$(?!\n)", description="a name of letters, digits and `_`")
]


class JobLimits(Value, frozen=True):
    """Sizes as `2g`, `64m` or bytes; times as `1h`, `90s` or seconds."""

    memory: str | int | None = None
    cpus: float | None = None
    gpus: int | None = None
    shm: str | int | None = None
    disk: str | int | None = None
    processes: int | None = None
    time: str | float | None = None


class JobSource(Value, frozen=True):
    """Something outside that the job's results depend on. `secret` is the declared one to be shown to it."""

    uri: str
    secret: EnvName | None = None


class Job(Value, frozen=True, kw_only=True):
    """What can be run. A string command goes to `sh -c`, a list is executed as it is."""

    command: str | tuple[str, ...] | None = None
    stage: str | None = None
    image: str
    python: str | None = "python3"
    entrypoint: Literal["ignore", "keep"] = "ignore"
    dependencies: str | None = None
    system_packages: bool = False
    data: tuple[str, ...] = ()
    model: dict[str, str | None] | tuple[str, ...] = ()
    params: str | dict[str, Any] | None = None
    env: dict[EnvName, str | None] = {}
    secrets: dict[EnvName, str] = {}
    sources: tuple[JobSource | str, ...] = ()
    network: Network = "none"
    limits: JobLimits = JobLimits()
    determinism: Determinism = "same-host"
    labels: tuple[str, ...] = ()
    outputs: dict[str, OutputRule | str | None] | tuple[str, ...] = {}
    preprocessing: tuple[str, ...] = ()


class Workfile(Value, frozen=True, kw_only=True):
    version: Literal[1] = WORKFILE_VERSION
    jobs: dict[JobName, Job]
