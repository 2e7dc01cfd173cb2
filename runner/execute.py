"""Execute: an environment and a command → outcome and outputs.

The job runs shut in: no network unless declared, not root, no capabilities, read-only root, a private
workspace. What it may write lies in the run's scratch folder and is gone afterwards; its declared outputs
are hashed once and kept.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from runner.errors import OutsideError, UsageError
from runner.layers import params as params_layer
from runner.logs import STDERR, STDOUT, Echo, LogWriter, Masker
from runner.outputs import Gathered, gather
from runner.state.digest import digest_file
from runner.state.paths import STDOUT as STDOUT_NAME
from runner.state.paths import covers
from runner.state.record import CheckResult, Outcome, Output, OutputProblem, StageOutcome
from runner.state.spec import Image, State
from runner.store.files import entries_below, give, is_within, remove_tree
from runner.store.runs import Run
from runner.store.store import Store
from runner.tools.attached import Watch
from runner.tools.container_request import ContainerRequest, Ended, Mount
from runner.tools.containers import LABEL_RUN, LABEL_STORE, Engine
from runner.tools.engine_errors import ExecutableMissingError
from runner.tools.interrupts import Interrupts

WORKSPACE = "/workspace"
WORK = "work"
"""The folder in a run's scratch that the job sees there."""

ENVIRONMENT = "/opt/replay/env"
HOME = "/home/replay"
USER = "replay"
HOSTNAME = "replay"
_ROOT_CALLER_UID = 1000
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LEAST_FREE_BYTES = 512 << 20
_LEAST_FREE_FILES = 10_000
_ENDINGS = {"interrupted": "interrupted", "time-limit": "time-limit", "disk-full": "disk-full"}

# Reads NAME, then the value with every byte as \0ooo, line by line; an empty line ends it. The `x` keeps
# trailing newlines from being stripped by the substitution.
# The shim's own variables have names that no job uses: `read` into one that the job declared would change it.
_SHIM = (
    'while IFS= read -r _replay_n && [ -n "$_replay_n" ]; do IFS= read -r _replay_v; '
    '_replay_v=$(printf %bx "$_replay_v"); export "$_replay_n=${_replay_v%x}"; done; '
    'exec "$@" </dev/null'
)


class Prepared(msgspec.Struct, frozen=True):
    """All that a state needs, at hand: the engine's image, folders and files to mount, the code's place.

    `mounts` are read-only; those below the workspace have their mount points made by `lay_out`.
    """

    image: str
    workspace: Path
    mounts: tuple[Mount, ...] = ()
    has_environment: bool = False


class Finished(msgspec.Struct, frozen=True):
    """The job's process has ended; its outputs are still in the workspace. Of a job of stages, they are what the
    stages handed on, and `problems` what they could not. `checks` are those evaluated so far."""

    outcome: Outcome
    stdout_masked: bool
    before: frozenset[str]
    checks: tuple[CheckResult, ...] = ()
    stages: tuple[StageOutcome, ...] = ()
    problems: tuple[OutputProblem, ...] = ()
    undeclared: tuple[str, ...] = ()


class Executed(msgspec.Struct, frozen=True):
    """What came of a run. Outputs of one that a boundary halted are `set_apart`."""

    outcome: Outcome
    outputs: tuple[Output, ...]
    problems: tuple[OutputProblem, ...]
    undeclared: tuple[str, ...]
    set_apart: tuple[Output, ...] = ()
    stages: tuple[StageOutcome, ...] = ()
    checks: tuple[CheckResult, ...] = ()


def execute(
    engine: Engine,
    store: Store,
    run: Run,
    state: State,
    prepared: Prepared,
    secrets: Mapping[str, bytes],
    interrupts: Interrupts,
    echo: Echo | None,
) -> Finished:
    """Run the job to its end. Raises `OutsideError` when the engine fails; a job that fails is an outcome."""
    owner = job_owner()
    lay_out(run.scratch, prepared, owner)
    before = files_in(prepared.workspace)
    request = container_request(store, run, state, prepared, secrets, owner)
    log = LogWriter(run.folder, secrets.values(), echo)
    try:
        outcome = run_to_end(engine, run, request, log, secrets, interrupts)
    finally:
        log.close()
    return Finished(outcome, log.masked(STDOUT), before)


def run_to_end(
    engine: Engine,
    run: Run,
    request: ContainerRequest,
    log: LogWriter,
    secrets: Mapping[str, bytes],
    interrupts: Interrupts,
) -> Outcome:
    limit = request.limits.disk
    try:
        ended = engine.run(request, log, interrupts, disk_watch(run, limit))
        refuse_gone(run)
        if ended.stopped is None and _is_over(run, limit):
            ended = msgspec.structs.replace(ended, stopped="disk-full")
    except ExecutableMissingError as error:
        outcome = _not_started(error, secrets)
        log.write(STDERR, f"{outcome.detail}\n".encode())
        return outcome
    return _outcome(ended)


def collect(
    store: Store,
    run: Run,
    prepared: Prepared,
    finished: Finished,
    declared: Sequence[str],
    secrets: Collection[bytes],
) -> Executed:
    """Take the declared outputs, paths and perhaps `stdout`, into the store."""
    paths = [path for path in declared if path != STDOUT_NAME]
    gathered = gather(store, prepared.workspace, paths, secrets, mounted(prepared))
    if STDOUT_NAME in declared:
        gathered = gathered.joined(_stdout(store, run, finished.stdout_masked))
    refuse_gone(run)
    undeclared = sorted(masked(path, secrets) for path in undeclared_in(prepared.workspace, finished.before, declared))
    return Executed(finished.outcome, gathered.outputs, gathered.problems, tuple(undeclared[:100]))


def job_owner() -> tuple[int, int]:
    """Who the job runs as: the caller, or where that is root, an ordinary user."""
    uid, gid = os.getuid(), os.getgid()
    return (uid, gid) if uid else (_ROOT_CALLER_UID, _ROOT_CALLER_UID)


def lay_out(scratch: Path, prepared: Prepared, owner: tuple[int, int]) -> None:
    """Home, tmp and passwd beside the workspace; mount points inside it; all owned by the job's user."""
    for name in ("home", "tmp"):
        (scratch / name).mkdir(mode=0o700)
    (scratch / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\n"
        f"{USER}:x:{owner[0]}:{owner[1]}:{USER}:{HOME}:/bin/sh\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    )
    (scratch / "group").write_text(f"root:x:0:\n{USER}:x:{owner[1]}:\nnogroup:x:65534:\n")
    (scratch / "hosts").write_text(f"127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.0.1\t{HOSTNAME}\n")
    (scratch / "hostname").write_text(f"{HOSTNAME}\n")
    (scratch / "resolv.conf").touch()
    for mount in prepared.mounts:
        if mount.target.startswith(WORKSPACE + "/"):
            _mount_point(prepared.workspace, mount.target.removeprefix(WORKSPACE + "/"), mount.source)
    for folder in (prepared.workspace, scratch / "home", scratch / "tmp"):
        give(folder, owner)


def container_request(
    store: Store,
    run: Run,
    state: State,
    prepared: Prepared,
    secrets: Mapping[str, bytes],
    owner: tuple[int, int],
    scratch: Path | None = None,
    *,
    read_only: bool = False,
) -> ContainerRequest:
    """What the engine is asked for; a pure function of the state but for host paths and user ids. `scratch` is where
    `lay_out` was done, if not in the run's own; a workspace may be `read_only`."""
    scratch, entrypoint = scratch or run.scratch, state.image.config.entrypoint or ()
    own: tuple[Mount, ...] = (
        Mount(prepared.workspace, WORKSPACE, read_only=read_only),
        Mount(scratch / "home", HOME, read_only=False, scratch=True),
        Mount(scratch / "tmp", "/tmp", read_only=False, scratch=True),
        Mount(scratch / "passwd", "/etc/passwd"),
        Mount(scratch / "group", "/etc/group"),
    )
    if state.access.network == "none":
        # An engine's own tell of the machine: its names and addresses, its name server.
        own += tuple(Mount(scratch / name, f"/etc/{name}") for name in ("hosts", "hostname", "resolv.conf"))
    return ContainerRequest(
        image=prepared.image,
        command=("sh", "-c", _SHIM, "replay", *entrypoint, *state.command) if secrets else state.command,
        entrypoint=None if secrets else entrypoint,
        env=environment(state, prepared.has_environment),
        mounts=own + prepared.mounts,
        user=f"{owner[0]}:{owner[1]}",
        workdir=WORKSPACE,
        hostname=HOSTNAME,
        network="bridge" if state.access.network == "open" else "none",
        limits=state.access.limits,
        labels={LABEL_STORE: store.id, LABEL_RUN: run.id},
        stdin=shim_input(secrets) if secrets else None,
    )


def environment(state: State, has_environment: bool) -> dict[str, str]:
    """Fixed identity, then the virtual environment, then the state's variables, which win."""
    found = {"HOME": HOME, "USER": USER, "LOGNAME": USER, "TMPDIR": "/tmp"}
    if has_environment:
        found["VIRTUAL_ENV"] = ENVIRONMENT
        found["PATH"] = f"{ENVIRONMENT}/bin:{image_path(state.image)}"
    return found | {"PYTHONDONTWRITEBYTECODE": "1"} | params_layer.environment(state.params) | state.env


def image_path(image: Image) -> str:
    return image.config.env.get("PATH") or _DEFAULT_PATH


def shim_input(secrets: Mapping[str, bytes]) -> bytes:
    """What the entry shim reads: secrets reach the job through a pipe, never through a file or the engine's
    description of the container."""
    lines = [name + "\n" + "".join(map("\\0{:03o}".format, value)) + "\n" for name, value in secrets.items()]
    return "".join([*lines, "\n"]).encode()


def disk_watch(run: Run, limit: int | None) -> Watch:
    """Ends a job that fills the disk: `limit` bytes of its own, logs included, or what the machine needs to live."""

    def look() -> str | None:
        refuse_gone(run)
        if _is_nearly_full(os.statvfs(run.scratch)):
            return "disk-full"
        return "disk-full" if _is_over(run, limit) else None

    return look


def _is_over(run: Run, limit: int | None) -> bool:
    return limit is not None and _usage(run.scratch) + _usage(run.folder) > limit


def refuse_gone(run: Run) -> None:
    """Raises `OutsideError` where somebody removed what a job works in: what it wrote is not missing, it is lost."""
    for folder in (run.scratch / WORK, run.folder):
        if not folder.is_dir():
            raise OutsideError(
                "a folder of the running job is gone",
                f"somebody removed {folder}",
                "run the command again, and leave the store alone while a job runs",
            )


def refuse_full_disk(store: Store) -> None:
    """Raises `OutsideError` where `disk_watch` would end any job at once: that the disk is full is not its doing."""
    if _is_nearly_full(os.statvfs(store.scratch)):
        raise OutsideError(
            "the disk is too full to run a job",
            f"{store.folder} needs {_LEAST_FREE_BYTES >> 20} MiB and {_LEAST_FREE_FILES} files free",
            "free some space (`replay gc`), then run the command again",
        )


def _is_nearly_full(disk: os.statvfs_result) -> bool:
    """In bytes, or in files; a file system that does not count those says 0 of 0."""
    return disk.f_bavail * disk.f_frsize < _LEAST_FREE_BYTES or disk.f_favail < min(_LEAST_FREE_FILES, disk.f_files)


def clean_up(run: Run) -> None:
    remove_tree(run.scratch)


def _outcome(ended: Ended) -> Outcome:
    if ended.stopped:
        ending = _ENDINGS[ended.stopped]
        return Outcome(ending=ending, exit_code=ended.exit_code, duration_s=ended.duration_s)  # type: ignore[arg-type]
    ending = "out-of-memory" if ended.out_of_memory else "exited"
    return Outcome(ending=ending, exit_code=ended.exit_code, duration_s=ended.duration_s)  # type: ignore[arg-type]


def _not_started(error: ExecutableMissingError, secrets: Mapping[str, bytes]) -> Outcome:
    """The reason may be the job's own words: it can print what the engine's init process would."""
    hint = "; secrets enter through the image's `sh`" if secrets else ""
    detail = masked(f"{error.what}: {error.why}{hint}", secrets.values())
    return Outcome(ending="not-started", exit_code=127, duration_s=0.0, detail=detail)


def masked(text: str, secrets: Collection[bytes]) -> str:
    masker = Masker(secrets)
    return (masker.feed(os.fsencode(text)) + masker.flush()).decode(errors="replace")


def _stdout(store: Store, run: Run, is_masked: bool) -> Gathered:
    if is_masked:
        log = digest_file(run.folder / "stdout")
        detail = "a secret was printed; it is masked in the log"
        return Gathered((), (OutputProblem(STDOUT_NAME, "secret", detail, log),))
    digest, size = store.blobs.put_file(run.folder / "stdout")
    return Gathered((Output(path=STDOUT_NAME, sha256=digest, size=size),), ())


def mounted(prepared: Prepared) -> list[str]:
    """Paths in the workspace at which the job saw data or a model."""
    below = WORKSPACE + "/"
    return [mount.target.removeprefix(below) for mount in prepared.mounts if mount.target.startswith(below)]


def _mount_point(workspace: Path, path: str, source: Path) -> None:
    place = workspace / path
    if not is_within(workspace, place):
        raise UsageError(f"{path} cannot be mounted", "a link in the code leads out of the workspace there")
    if source.is_dir():
        place.mkdir(parents=True, exist_ok=True)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()


def _files_below(folder: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    for entry in entries_below(folder):
        if not entry.is_dir(follow_symlinks=False):
            yield os.path.relpath(entry.path, folder), entry


def files_in(workspace: Path) -> frozenset[str]:
    return frozenset(path for path, _ in _files_below(workspace))


def undeclared_in(workspace: Path, before: frozenset[str], declared: Sequence[str]) -> Iterator[str]:
    """Files that were written and are not declared."""
    for path, _ in _files_below(workspace):
        if path not in before and not any(covers(name, path) for name in declared):
            yield path


def _usage(folder: Path) -> int:
    """Bytes on disk, those of folders too; a file with several names counts once."""
    seen: dict[int, int] = {}
    for entry in entries_below(folder):
        with contextlib.suppress(OSError):
            status = entry.stat(follow_symlinks=False)
            seen[status.st_ino] = status.st_blocks * 512
    return sum(seen.values())
