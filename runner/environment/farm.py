"""Environments: hard links to the files of trees, behind a virtual environment of the image's interpreter.

An environment is `<cache>/environments/<key>`, its key the digest of all that it is made of.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from runner.environment import seal
from runner.environment.byte_code import Compile
from runner.environment.files import Generated, write_file
from runner.environment.layout import FILE, PREFIX, SYMLINK, Entry, Interpreter, folders_of
from runner.environment.locks import building, locked
from runner.environment.project import Project, project_files
from runner.environment.seal import ROOT, Stamps
from runner.environment.tree import FORMAT, FindWheel, Tree, open_trees
from runner.errors import UsageError, disk_error
from runner.state.decode import decode_json
from runner.state.digest import Digest, canonical, digest_value, hex_of
from runner.state.plain import MALFORMED
from runner.state.spec import Value, Wheel

RECIPE = "recipe"
"""Beside an environment's files: what it was made of, so that `gc` can tell whether anybody needs it."""

MOST_KEPT = 12
"""Environments that stay beside each other. One that a run holds (`flock` of its folder, shared) stays in any case."""

_CANNOT_LINK = {errno.EMLINK, errno.EXDEV, errno.EPERM, errno.ENOTSUP}
_CHUNK = 1 << 20


class Environment(NamedTuple):
    """`path` is what gets mounted at `/opt/replay/env`; `made` says that it was not there before."""

    path: Path
    tree: Digest
    made: bool

    @property
    def folder(self) -> Path:
        """The sealed folder, for `check` and `seal.discard`."""
        return self.path.parent


class Recipe(Value, frozen=True):
    """All that an environment is made of."""

    interpreter: Interpreter
    wheels: tuple[Wheel, ...]
    system_packages: bool
    project: Project | None
    prefix: str = PREFIX
    format: int = FORMAT


def read_recipe(folder: Path) -> Recipe | None:
    """What the environment in the sealed folder was made of; None when that cannot be read."""
    try:
        return decode_json((folder / RECIPE).read_bytes(), Recipe)
    except (OSError, *MALFORMED):
        return None


def build_environment(
    cache: Path,
    interpreter: Interpreter,
    wheels: Sequence[Wheel],
    find_wheel: FindWheel,
    compile_trees: Compile,
    system_packages: bool,
    project: Project | None = None,
) -> Environment:
    """The environment of these wheels, made if it is not there; not checked for damage if it is.

    Raises `UsageError` when packages cannot live together, what `unpack` and the callables raise, and
    `OutsideError` when the disk fails.
    """
    _refuse_other_pythons(interpreter)
    recipe = Recipe(interpreter, tuple(sorted(wheels, key=lambda wheel: wheel.name)), system_packages, project)
    place = cache / "environments" / hex_of(digest_value(recipe))
    try:
        made = _finished(place) or _build(cache, recipe, place, find_wheel, compile_trees)
        _mark_used(place)
        return made
    except OSError as error:
        raise disk_error(error, f"make an environment in {cache}") from error


def _finished(place: Path) -> Environment | None:
    tree = seal.read_digest(place)
    return Environment(place / ROOT, tree, made=False) if tree and (place / ROOT).is_dir() else None


def _build(cache: Path, recipe: Recipe, place: Path, find_wheel: FindWheel, compile_trees: Compile) -> Environment:
    """One process makes an environment, others wait. What is deleted meanwhile is made once more."""
    _refuse_twice(recipe)
    try:
        return _build_once(cache, recipe, place, find_wheel, compile_trees)
    except FileNotFoundError:
        return _build_once(cache, recipe, place, find_wheel, compile_trees)


def _build_once(cache: Path, recipe: Recipe, place: Path, find_wheel: FindWheel, compile_trees: Compile) -> Environment:
    with building(cache), locked(cache, f"environment-{place.name}"):
        if finished := _finished(place):
            return finished
        seal.discard(place)
        trees = open_trees(cache, recipe.interpreter, recipe.wheels, find_wheel, compile_trees)
        with seal.staging(cache) as stage:
            new = stage / place.name
            tree = _assemble(new, recipe, trees)
            seal.publish(new, place)
        _drop_long_unused(cache, place)
        return Environment(place / ROOT, tree, made=True)


def _mark_used(place: Path) -> None:
    with suppress(OSError):  # a store that cannot be written to is never tidied either
        os.utime(place / RECIPE)


def _drop_long_unused(cache: Path, new: Path) -> None:
    """An environment costs its folders and lists, some 12 MB for fifty packages, and comes back from its trees in less
    than a second: beyond the last dozen, those that no run holds go."""
    others = [folder for folder in (cache / "environments").iterdir() if folder != new]
    for folder in sorted(others, key=_last_used, reverse=True)[MOST_KEPT - 1 :]:
        with suppress(FileNotFoundError), _opened(folder) as descriptor, suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            seal.discard(folder)


def _last_used(folder: Path) -> float:
    try:
        return (folder / RECIPE).stat().st_mtime
    except OSError:
        return 0.0


def _assemble(new: Path, recipe: Recipe, trees: Sequence[Tree]) -> Digest:
    """Make the environment in the folder `new`, which is not there yet, and seal it."""
    generated = _generated(recipe)
    parts = {owner: [file.entry for file in files] for owner, files in generated.items()}
    plan = merge({**parts, **{tree.wheel.name: tree.entries for tree in trees}})
    new.mkdir()
    (new / RECIPE).write_bytes(canonical(recipe))
    _make_folders(new / ROOT, plan)
    for file in chain.from_iterable(generated.values()):
        file.write(new / ROOT)
    linked = {tree.folder: _link_tree(tree, new / ROOT, plan) for tree in trees}
    sealed = seal.seal(new, (planned.entry for planned in plan.values()))
    for folder, paths in linked.items():
        _restamp(folder, {path: sealed.stamps[path] for path in paths})
    return sealed.digest


# --- what goes in ---------------------------------------------------------------------------------------


class Planned(NamedTuple):
    entry: Entry
    owner: str


def merge(parts: Mapping[str, Iterable[Entry]]) -> dict[str, Planned]:
    """All files of all parts by path, each with the first part that brings it. Raises `UsageError` for two
    parts that disagree on a path."""
    plan: dict[str, Planned] = {}
    for owner, entries in parts.items():
        # Source before byte code: it is the source that a person knows.
        for entry in sorted(entries, key=lambda entry: entry.path.endswith(".pyc")):
            first = plan.setdefault(entry.path, Planned(entry, owner))
            if first.entry != entry:
                raise _collision(entry.path, first.owner, owner)
    for path in sorted(folders_of(plan) & plan.keys()):
        inside = next(planned for name, planned in plan.items() if name.startswith(f"{path}/"))
        raise _collision(path, plan[path].owner, inside.owner)
    return plan


def _collision(path: str, one: str, other: str) -> UsageError:
    return UsageError(
        f"{one} and {other} cannot be installed together",
        f"both bring {path}, with different content",
        "require only one of them, or versions of them that do not collide",
    )


def _refuse_other_pythons(interpreter: Interpreter) -> None:
    if not interpreter.cache_tag.startswith("cpython-"):
        raise UsageError(
            f"{interpreter.executable} in the image is not CPython",
            f"its cache tag is {interpreter.cache_tag}; where it looks for packages is not known here",
            "use an image with CPython, or a job without `dependencies`",
        )


def _refuse_twice(recipe: Recipe) -> None:
    names = Counter(wheel.name for wheel in recipe.wheels)
    if recipe.project:
        names[recipe.project.name] += 1
    for name, count in names.items():
        if count > 1:
            raise UsageError(
                f"{name} would be installed {count} times",
                "a package can be there once, as a locked wheel or as the workspace's own",
                f"drop {name} from the requirements, and lock again with --relock",
            )


def _generated(recipe: Recipe) -> dict[str, list[Generated]]:
    """Files that no wheel brings, by owner."""
    files = {"the environment itself": _virtual_environment(recipe.interpreter, recipe.system_packages)}
    if recipe.project:
        files[f"{recipe.project.name} (the workspace's own)"] = project_files(recipe.project, recipe.interpreter)
    return files


def _virtual_environment(interpreter: Interpreter, system_packages: bool) -> list[Generated]:
    settings = (
        f"home = {PurePosixPath(interpreter.executable).parent}\n"
        f"include-system-site-packages = {str(system_packages).lower()}\n"
        f"version = {interpreter.version}\n"
    )
    names = ("python", "python3", f"python{interpreter.series}")
    return [
        Generated("pyvenv.cfg", FILE, settings.encode()),
        Generated("lib64", SYMLINK, b"lib"),
        *(Generated(f"bin/{name}", SYMLINK, interpreter.executable.encode()) for name in names),
    ]


# --- how it gets there ----------------------------------------------------------------------------------


def _make_folders(root: Path, paths: Iterable[str]) -> None:
    for folder in ("", *sorted(folders_of(paths))):
        place = root / folder
        place.mkdir()
        place.chmod(0o755)


def _link_tree(tree: Tree, root: Path, plan: Mapping[str, Planned]) -> list[str]:
    """Put a tree's own files below `root`; return the paths of those that share the tree's inodes."""
    with _opened(tree.folder / ROOT) as source, _opened(root) as target:
        own = (entry for entry in tree.entries if plan[entry.path].owner == tree.wheel.name)
        return [entry.path for entry in own if _link(entry.path, source, target) or _copy(entry, tree, root)]


def _link(path: str, source: int, target: int) -> bool:
    """False where the file system cannot link: too many links, another device, or links forbidden."""
    try:
        os.link(path, path, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except OSError as error:
        if error.errno in _CANNOT_LINK:
            return False
        raise
    return True


def _copy(entry: Entry, tree: Tree, root: Path) -> bool:
    with (tree.folder / ROOT / entry.path).open("rb") as file:
        write_file(root, entry.path, iter(lambda: file.read(_CHUNK), b""), entry.mode)
    return False


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _restamp(folder: Path, stamps: Stamps) -> None:
    """Linking changed the ctime of a tree's files; without this the next check would hash them all."""
    seal.write_stamps(folder, {**seal.read_stamps(folder), **stamps})
