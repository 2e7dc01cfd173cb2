"""Layer `dependencies`: the packages that the job's Python can import.

Observed as a lock made inside the image (or the hashed file that the user keeps) with the exact wheels in
the store; an sdist or a requirement from git or a folder is built once, in the image, and its wheel is
what is pinned. A lock is reused for the same requirements and image. Restored as an environment made of
those wheels; no index and no network take part.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from runner.environment.byte_code import COMPILE_ENV, compile_command
from runner.environment.farm import Environment, build_environment
from runner.environment.layout import Interpreter
from runner.environment.project import Project, read_project
from runner.errors import OutsideError, TamperedError, UnrebuildableError, UsageError
from runner.layers import code as code_layer
from runner.state.checked import checked_if_marked, with_check
from runner.state.decode import convert, decode_json
from runner.state.digest import Digest, digest_bytes, digest_value, hex_of
from runner.state.job import Job
from runner.state.paths import inside
from runner.state.plain import MALFORMED
from runner.state.spec import Dependencies, DependenciesSeen, StateSpec, Wheel
from runner.store.files import give, is_within, remove_tree, write_atomic
from runner.store.store import Store
from runner.tools.container_request import ContainerRequest, Mount
from runner.tools.containers import Engine
from runner.tools.interrupts import Interrupts
from runner.tools.last_words import LastWords
from runner.tools.probe import Probed

if TYPE_CHECKING:
    from runner.tools import pip
    from runner.tools.requirements import Requirements

PYPROJECT = "pyproject.toml"
DEFAULT_PYTHON = "python3"
Say = Callable[[str], None]


class Lock(msgspec.Struct, frozen=True):
    """What a set of requirements came to in one image."""

    wheels: tuple[Wheel, ...]
    vcs: dict[str, str] = {}


class Locker(msgspec.Struct, frozen=True):
    """Where and how locking happens."""

    engine: Engine
    image_id: str
    image_digest: str
    probed: Probed
    owner: tuple[int, int]
    interrupts: Interrupts
    say: Say
    as_of: str | None = None


# --- observe ---------------------------------------------------------------------------------------------


def observe(
    store: Store,
    root: Path,
    job: Job,
    probed: Probed | None,
    locker: Locker | None,
    relock: bool,
    standing: StateSpec | None = None,
) -> tuple[Dependencies, DependenciesSeen]:
    """The pinned packages, locking them first where no lock is known for these requirements and image. Before that,
    the lock of `standing` stands, a run that this one is held to."""
    packages = probed.packages if probed else {}
    if job.dependencies is None:
        if probed is None and job.python not in (None, DEFAULT_PYTHON):
            raise UsageError(f"python: the image has no {job.python}", next="choose another image, or drop `python`")
        python = probed.interpreter.version if probed else None
        return Dependencies(python=python), DependenciesSeen(image_packages=packages)
    if probed is None or locker is None:
        raise UsageError(
            f"dependencies: the image has no {job.python or 'python'}",
            f"{job.dependencies} needs one to be installed for",
            "choose an image with Python, set `python:` to its name there, or drop `dependencies`",
        )
    wanted = read_requirements(root, job.dependencies)
    lock = None if relock else known_lock(store, root, job, wanted, locker.image_digest, standing)
    lock = lock or make_lock(store, root, wanted, locker)
    state = _state(job, probed, lock, wanted)
    seen = DependenciesSeen(
        source=job.dependencies,
        requested=() if wanted.hashed else wanted.shown(),
        image_packages=packages if job.system_packages else {},
        vcs=lock.vcs,
    )
    return state, seen


def at_hand(
    store: Store,
    root: Path,
    job: Job,
    probed: Probed | None,
    image_digest: str,
    standing: StateSpec | None = None,
) -> Dependencies | None:
    """What `observe` would pin, if that takes no locking; None otherwise."""
    if job.dependencies is None or probed is None:
        return Dependencies(python=probed.interpreter.version if probed else None)
    wanted = read_requirements(root, job.dependencies)
    lock = known_lock(store, root, job, wanted, image_digest, standing)
    return _state(job, probed, lock, wanted) if lock else None


def _state(job: Job, probed: Probed, lock: Lock, wanted: Requirements) -> Dependencies:
    return Dependencies(
        python=probed.interpreter.version,
        interpreter=_other_python(job),
        locked=lock.wheels,
        system_packages=job.system_packages,
        project=wanted.project,
    )


def _other_python(job: Job) -> str | None:
    return job.python if job.python != DEFAULT_PYTHON else None


def read_requirements(root: Path, declared: str) -> Requirements:
    """From a requirements file, or from a `pyproject.toml`, perhaps with extras: `pyproject.toml[ml]`."""
    from runner.tools import requirements

    path, _, extras = declared.partition("[")
    path = inside(path, "dependencies")
    if Path(path).name != PYPROJECT:
        return requirements.read(root, path)
    return _from_pyproject(root / path, path, [e.strip() for e in extras.removesuffix("]").split(",") if e.strip()])


def owned_files(root: Path, declared: str) -> set[str]:
    """The requirement files, for which the lock stands. A `pyproject.toml` is code as well."""
    from runner.tools import requirements

    path = inside(declared.partition("[")[0], "dependencies")
    return set() if Path(path).name == PYPROJECT else requirements.files(root, path)


class _Table(msgspec.Struct, frozen=True, rename="kebab"):
    """What is read of `[project]` for its dependencies."""

    dynamic: tuple[str, ...] = ()
    dependencies: tuple[str, ...] = ()
    optional_dependencies: dict[str, tuple[str, ...]] = {}


class _Document(msgspec.Struct):
    project: _Table = _Table()


def _from_pyproject(file: Path, path: str, extras: Sequence[str]) -> Requirements:
    import tomllib

    from runner.tools.requirements import Line, Requirements

    try:
        project = convert(tomllib.loads(file.read_text(encoding="utf-8")), _Document).project
    except FileNotFoundError:
        raise UsageError(f"dependencies: there is no {path}", next="create it, or correct replay.yaml") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"dependencies: {path} cannot be read", str(error), f"correct {path}") from error
    if "dependencies" in project.dynamic:
        raise UsageError(
            f"dependencies: {path} computes its dependencies",
            "`dynamic` names `dependencies`, so the file does not say what they are",
            "list them in a requirements.in and name that in replay.yaml, with `-e .` for the project itself",
        )
    optional = project.optional_dependencies
    unknown = [extra for extra in extras if extra not in optional]
    if unknown:
        raise UsageError(f"dependencies: {path} has no extra {unknown[0]!r}", f"it has {', '.join(optional) or 'none'}")
    texts = [*project.dependencies, *(text for extra in extras for text in optional[extra])]
    return Requirements(tuple(Line(text=" ".join(text.split())) for text in texts), project=path == PYPROJECT)


def find_lock(store: Store, root: Path, wanted: Requirements, image_digest: str) -> Lock | None:
    """The lock made before for these requirements and this image, if all of its wheels are at hand."""
    try:
        lock = read_lock(_lock_path(store, root, wanted, image_digest).read_bytes())
    except (FileNotFoundError, *MALFORMED):
        return None
    return lock if all(store.blobs.has(Digest(wheel.sha256)) for wheel in lock.wheels) else None


def known_lock(
    store: Store, root: Path, job: Job, wanted: Requirements, image_digest: str, standing: StateSpec | None
) -> Lock | None:
    """The lock made here before, else that of `standing`, if it was made of these requirements for this image and all
    of its wheels are at hand. A folder's or git's requirement may be another by now, and is never taken as made."""
    found = find_lock(store, root, wanted, image_digest)
    if found or standing is None:
        return found
    locked, seen = standing.state.dependencies, standing.observed.dependencies
    is_made_of_these = seen.requested == wanted.shown() and not any(line.source for line in wanted.lines)
    is_for_this = digest_value(standing.state.image) == image_digest and locked.interpreter == _other_python(job)
    if wanted.hashed or not (is_made_of_these and is_for_this) or missing_wheels(store, locked):
        return None
    return Lock(locked.locked or ())


def read_lock(kept: bytes) -> Lock:
    """Raises `msgspec.DecodeError` for what is not whole."""
    return decode_json(checked_if_marked(kept), Lock)


def make_lock(store: Store, root: Path, wanted: Requirements, locker: Locker) -> Lock:
    """Resolve and fetch now, inside the image; needs the index unless nothing is asked for."""
    lock = resolve(store, root, wanted, locker)
    path = _lock_path(store, root, wanted, locker.image_digest)
    write_atomic(path, with_check(msgspec.json.encode(lock)), through=store.tmp)
    return lock


def resolve(store: Store, root: Path, wanted: Requirements, locker: Locker) -> Lock:
    """As `make_lock`, but no later run is to use it."""
    if not wanted.lines:
        return Lock(())
    locker.say("dependencies: " + ("fetching the wheels" if wanted.hashed else "locking inside the image"))
    folder = store.tmp / f"lock-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        return _make_lock(store, root, wanted, locker, folder)
    finally:
        remove_tree(folder)


def _make_lock(store: Store, root: Path, wanted: Requirements, locker: Locker, folder: Path) -> Lock:
    from runner.tools import pip

    place = _workplace(store, folder)
    text, vcs = _stage_sources(root, wanted, place.inside)
    for sub in (place.inside, place.outside, folder / "tmp", place.cache):
        give(sub, locker.owner)
    container = pip.PipContainer(
        engine=locker.engine,
        image=locker.image_id,
        python=locker.probed.interpreter.executable,
        user=f"{locker.owner[0]}:{locker.owner[1]}",
        settings=pip.caller_settings(),
        interrupts=locker.interrupts,
    )
    lock = text if wanted.hashed else pip.compile_lock(container, place, text, locker.as_of)
    locker.say("dependencies: getting the wheels")
    wheels = [keep_wheel(store, file) for file in pip.make_wheels(container, place, lock)]
    return Lock(tuple(sorted(wheels, key=lambda wheel: wheel.name)), vcs)


def _workplace(store: Store, folder: Path) -> pip.Workplace:
    from runner.tools import pip

    place = pip.Workplace(folder, pip.ensure_locker(store.cache), store.cache / "pip")
    for sub in (place.inside, place.outside / "wheels", folder / "tmp", place.cache):
        sub.mkdir(parents=True, exist_ok=True)
    return place


def _stage_sources(root: Path, wanted: Requirements, inside_folder: Path) -> tuple[str, dict[str, str]]:
    """The requirement text with every git or folder requirement pointing at a copy inside the container."""
    from runner.tools import git
    from runner.tools.requirements import GitSource

    texts, vcs = [], {}
    constraints = [line.text for line in wanted.lines if line.constraint]
    if constraints:
        (inside_folder / "constraints.txt").write_text("\n".join(constraints) + "\n")
        texts.append("-c constraints.txt")
    for number, line in enumerate(wanted.lines):
        if line.constraint:
            continue
        if line.source is None:
            texts.append(line.text)
            continue
        target = inside_folder / "sources" / str(number)
        target.parent.mkdir(parents=True, exist_ok=True)
        subfolder = ""
        if isinstance(line.source, GitSource):
            commit = git.clone(line.source.url, line.source.revision, target)
            url = git.without_credentials(line.source.url)
            vcs[line.prefix.partition(" @")[0].partition("[")[0] or url] = f"{url}@{commit}"
            subfolder = f"/{line.source.subfolder}" if line.source.subfolder else ""
        else:
            shutil.copytree(root / line.source.path, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        texts.append(f"{line.prefix}file:///replay/in/sources/{number}{subfolder}{line.suffix}")
    return "\n".join(texts) + "\n", vcs


def wheels_at_hand(store: Store) -> Iterator[Wheel]:
    """Those that any lock of this store names, and that it still has."""
    seen: set[str] = set()
    for file in sorted(store.locks.glob("*.json")):
        try:
            wheels = read_lock(file.read_bytes()).wheels
        except (OSError, msgspec.DecodeError):
            continue  # as if it were not there: `fsck` tells of it
        for wheel in wheels:
            if wheel.sha256 not in seen and store.blobs.has(Digest(wheel.sha256)):
                seen.add(wheel.sha256)
                yield wheel


def keep_wheel(store: Store, file: Path) -> Wheel:
    """Take a wheel's file over into the store. Raises `UsageError` for a name that no wheel may have."""
    from packaging.utils import canonicalize_name, parse_wheel_filename

    try:
        name, version, _, _ = parse_wheel_filename(file.name)
    except ValueError as error:
        why = "its build gave it a name that no wheel may have"
        raise UsageError(f"{file.name} cannot be locked", why, "require another version of it") from error
    digest, _ = store.blobs.adopt(file)
    return Wheel(name=canonicalize_name(name), version=str(version), wheel=file.name, sha256=digest)


def _lock_path(store: Store, root: Path, wanted: Requirements, image_digest: str) -> Path:
    from runner.tools.requirements import FolderSource

    folders = [_folder_digest(root, line.source.path) for line in wanted.lines if isinstance(line.source, FolderSource)]
    key = digest_value([wanted.lines, folders, image_digest])
    return store.locks / f"{hex_of(key)}.json"


def _folder_digest(root: Path, path: str) -> str:
    return digest_bytes(code_layer.listing(code_layer.observe(root / path, ())))


# --- restore ---------------------------------------------------------------------------------------------


def missing_wheels(store: Store, dependencies: Dependencies) -> list[Wheel]:
    return [wheel for wheel in dependencies.locked or () if not store.blobs.has(Digest(wheel.sha256))]


def restore(
    engine: Engine,
    store: Store,
    image_id: str,
    interpreter: Interpreter,
    dependencies: Dependencies,
    project: Project | None,
    interrupts: Interrupts,
) -> Environment | None:
    """The environment, made or found; None when the job uses what the image holds."""
    if dependencies.locked is None:
        return None
    if dependencies.python != interpreter.version:
        raise UnrebuildableError(
            f"the image's Python is {interpreter.version}, the state was locked for {dependencies.python}"
        )
    lost = missing_wheels(store, dependencies)
    if lost:
        raise UnrebuildableError(
            f"the wheel {lost[0].wheel} cannot be had again" + (f", and {len(lost) - 1} more" if len(lost) > 1 else ""),
            f"the store has no blob {lost[0].sha256}; a replay asks no index",
            "`replay fsck --repair` gets back what an index still has; or record a new run with `replay run --relock`",
        )

    def compile_trees(trees: Sequence[Path]) -> None:
        _compile(engine, image_id, interpreter, trees, interrupts)

    return build_environment(
        store.cache,
        interpreter,
        dependencies.locked,
        store.blobs.verified,
        compile_trees,
        system_packages=dependencies.system_packages,
        project=project,
    )


def project_of(dependencies: Dependencies, workspace: Path) -> Project | None:
    """The workspace's own package, when the state says that it is importable."""
    file = workspace / PYPROJECT
    if not dependencies.project or not file.is_file():
        return None
    if not is_within(workspace, file):
        raise TamperedError(f"{PYPROJECT} leads out of the workspace", "it is a link in the recorded code")
    return read_project(file.read_bytes(), has_src=(workspace / "src").is_dir())


def _compile(
    engine: Engine, image_id: str, interpreter: Interpreter, trees: Sequence[Path], interrupts: Interrupts
) -> None:
    """Byte code by the image's own interpreter, so that it fits and comes out the same every time."""
    said = LastWords()
    request = ContainerRequest(
        image=image_id,
        command=tuple(compile_command(interpreter, [f"/replay/trees/{tree.name}" for tree in trees])),
        env=COMPILE_ENV,
        mounts=(Mount(trees[0].parent, "/replay/trees", read_only=False),),
        user=f"{os.getuid()}:{os.getgid()}",
        workdir="/",
    )
    ended = engine.run(request, said, interrupts)
    if ended.exit_code != 0:
        raise OutsideError("cannot compile the packages' byte code", said.line() or f"exit status {ended.exit_code}")
