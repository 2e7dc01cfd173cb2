"""`replay.yaml`: the jobs of a workspace, as people write them."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta

from runner.errors import UsageError
from runner.state.paths import is_text
from runner.state.spec import Better, CheckAction, Determinism, Network, OutputRule, TableRule, Threshold, Value

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
_VERDICTS = "identical|equivalent|diverged|nondeterministic|failed|unrebuildable|refused|tampered|not-run"
_WORD = rf"(all|release|@\S+|label:\S+|job:\S+|age:[<>]\d+(\.\d+)?[smhdw]|last:({_VERDICTS}))"
SelectTerm = Annotated[
    str,
    Meta(
        pattern=rf"^ *{_WORD}( +{_WORD})* *$(?!\n)",
        description="words like `label:prod`, `job:train`, `@NAME`, `@*`, `age:<30d`, `last:diverged` or `all`",
    ),
]
Place = Annotated[str, Meta(pattern=r"^(local|dask://[^\s/]+:\d+)$(?!\n)", description="`local` or `dask://HOST:PORT`")]
LOCAL = "local"
"""The `Place` that is this machine."""
Span = Annotated[
    str,
    Meta(pattern=r"^\d+(\.\d+)?[smhd]?$(?!\n)", description="a time like 90s, 30m, 2h, or a number of seconds"),
]
LATEST: Final = "dependencies=latest"
Setting = Annotated[
    str,
    Meta(
        pattern=r"^(dependencies=latest|image=\S+|env\.[A-Za-z_][A-Za-z0-9_]*=.*)$(?!\n)",
        description="`dependencies=latest`, `image=REFERENCE` or `env.NAME=VALUE`",
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


class JobCheck(Value, frozen=True, kw_only=True):
    """A boundary on an input, an output or `stdout`. A string command goes to `sh -c`; a string schema is a file;
    `drift` names a run."""

    name: str | None = None
    on: str
    schema: str | dict[str, Any] | None = None
    table: TableRule | None = None
    metrics: dict[str, Threshold] | None = None
    drift: str | None = None
    command: str | tuple[str, ...] | None = None
    action: CheckAction = "halt"
    escalate: tuple[str, ...] = ()


class JobStage(Value, frozen=True, kw_only=True):
    """A step of a job: it finds `deps` only, and hands `outs` on."""

    name: JobName
    command: str | tuple[str, ...]
    deps: tuple[str, ...] = ()
    outs: tuple[str, ...] = ()
    checks: tuple[JobCheck, ...] = ()


class Job(Value, frozen=True, kw_only=True):
    """What can be run. A string command goes to `sh -c`, a list is executed as it is."""

    command: str | tuple[str, ...] | None = None
    stage: str | None = None
    stages: Literal["dvc.yaml"] | tuple[JobStage | str, ...] = ()
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
    metrics: dict[str, dict[str, Better]] = {}
    preprocessing: tuple[str, ...] = ()
    checks: tuple[JobCheck, ...] = ()


def words_of(command: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """What is executed: a string goes to `sh -c`, a list is taken as it is; nothing for an empty one. Raises
    `UsageError` for what no program can be given."""
    if isinstance(command, str):
        words: tuple[str, ...] = ("sh", "-c", command) if command.strip() else ()
    else:
        words = command if command and command[0] else ()
    if any("\0" in word or not is_text(word) for word in words):
        raise UsageError("the command holds a NUL byte or is not UTF-8", next="write it in plain text")
    return words


class Suite(Value, frozen=True, kw_only=True):
    """What `replay nightly` replays: runs that fit any term of `select`; of a term with several words, every one.
    `against` and `set` vary what is run; `patience` is how long engine, network or disk may fail all runs."""

    select: tuple[SelectTerm, ...] = ("all",)
    on: Place = LOCAL
    jobs: Annotated[int, Meta(ge=1, le=1024, description="a number from 1 to 1024")] | None = None
    budget: Span | float | None = None
    patience: Span | float | None = None
    bisect: bool = False
    against: Literal["."] | None = None
    set: tuple[Setting, ...] = ()
    on_regression: tuple[str, ...] = ()


class Workfile(Value, frozen=True, kw_only=True):
    version: Literal[1] = WORKFILE_VERSION
    jobs: dict[JobName, Job]
    suites: dict[JobName, Suite] = {}
