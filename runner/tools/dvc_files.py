"""Which version of a data path DVC's own files pin: `.dvc` files, and `dvc.lock` with its `dvc.yaml`.

Read directly, because importing DVC costs half a second. Nothing here writes, and nothing runs DVC.
What DVC 2 wrote carries no `hash` and means `md5-dos2unix`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

import msgspec

from runner.errors import UsageError
from runner.state import paths
from runner.state.decode import convert
from runner.state.spec import DvcPin
from runner.state.strict import load_yaml
from runner.tools.dvc_config import is_url, load_config, remote_url
from runner.tools.dvc_objects import HashName, folder_md5

_PINNED = re.compile(r"[0-9a-f]{32}(\.dir)?")
_NEVER_SEARCHED = frozenset({".git", ".hg", ".dvc", ".replay"})


@dataclass(frozen=True, slots=True)
class Tracked:
    """A data path that DVC tracks.

    `source` is the file that says so, `target` what `dvc` is given in `repo`. `listing` is the folder's
    listing where DVC keeps it in `source` and not in the cache. `bound` says that only `source` tells
    where the data comes from: another DVC repository, or a version-aware remote.
    """

    path: str
    pin: DvcPin
    repo: Path
    source: Path
    target: str
    listing: bytes | None = None
    bound: bool = False


def find_pin(root: Path, path: str) -> Tracked:
    """The version that is pinned for `path`, a file or folder relative to the workspace `root`.

    Inside a tracked folder the pin is that folder's, named by `inside`; `entries` picks the part.
    """
    root, path = root.absolute(), _checked(path)
    repo = repo_of(root, path)
    if repo is None:
        why = f"there is no DVC repository at {root} or above"
        raise UsageError(f"{path} is not tracked by DVC", why, f"dvc init && dvc add {quote(path)}")
    return _tracked(root, path, repo, _only_claim(root, path, repo))


def tracked_paths(root: Path) -> set[str]:
    """Every path below the workspace `root` whose content DVC keeps."""
    root = root.absolute()
    repo = repo_of(root, "any")
    claims = _claims(repo, _everywhere(repo)) if repo else ()
    kept = (one.location for one in claims if one.out.cache)
    return {os.path.relpath(place, root) for place in kept if root in Path(place).parents}


def repo_of(root: Path, path: str) -> Path | None:
    """The DVC repository that `path` belongs to: the nearest folder above it that holds `.dvc/`."""
    above = (root.absolute() / path).parents
    return next((folder for folder in above if os.path.isdir(folder / ".dvc")), None)


def _checked(path: str) -> str:
    if is_url(path):
        raise UsageError(f"data path {path!r} is a URL", "data lies in the workspace", f"dvc import-url {quote(path)}")
    return paths.inside(path, "data path")


# --- what the files hold -----------------------------------------------------------------------------


class _CloudFile(msgspec.Struct):
    relpath: str
    md5: str


class _Out(msgspec.Struct, frozen=True):
    path: str
    md5: str | None = None
    hash: str | None = None
    size: int | None = None
    nfiles: int | None = None
    cache: bool = True
    push: bool = True
    remote: str | None = None
    cloud: dict[str, Any] | None = None
    files: tuple[_CloudFile, ...] | None = None


class _DvcFile(msgspec.Struct):
    outs: tuple[_Out, ...] | None = None
    deps: tuple[dict[str, Any], ...] | None = None
    wdir: str | None = None


class _LockedStage(msgspec.Struct):
    outs: tuple[_Out, ...] = ()


class _LockFile(msgspec.Struct):
    stages: dict[str, _LockedStage] = {}


class _Stage(msgspec.Struct):
    wdir: str | None = None
    outs: tuple[Any, ...] = ()
    metrics: tuple[Any, ...] = ()
    plots: tuple[Any, ...] = ()
    do: dict[str, Any] | None = None


class _Pipeline(msgspec.Struct):
    stages: dict[str, _Stage] = {}


class _Flags(msgspec.Struct):
    cache: bool = True
    push: bool = True
    remote: str | None = None


@dataclass(frozen=True, slots=True)
class _Claim:
    """One file or folder that DVC tracks; `location` is absolute."""

    out: _Out
    location: str
    source: Path
    target: str
    imported: bool = False


_Shape = TypeVar("_Shape")


def _load(file: Path, shape: type[_Shape]) -> _Shape:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read", error.strerror or str(error), f"chmod u+r {file}") from error
    return _shaped(file, load_yaml(data, str(file)), shape)


def _shaped(file: Path, value: Any, shape: type[_Shape]) -> _Shape:
    try:
        return convert(value, shape)
    except msgspec.ValidationError as error:
        raise UsageError(f"{file} is not as DVC writes it", str(error), f"git restore {file}") from error


# --- from a path to the one file that pins it --------------------------------------------------------


def _only_claim(root: Path, path: str, repo: Path) -> _Claim:
    location = str(root / path)
    found = _covering(_claims(repo, _nearby(repo, location)), root, location)
    found = found or _covering(_claims(repo, _everywhere(repo)), root, location)
    if not found:
        raise _untracked(root, path)
    if len(found) > 1:
        names = " and ".join(sorted(os.path.relpath(claim.source, root) for claim in found))
        raise UsageError(f"{path} is tracked more than once", f"by {names}", "remove all but one of them")
    return found[0]


def _covering(claims: Iterator[_Claim], root: Path, location: str) -> list[_Claim]:
    """The claims to `location` or to a folder between it and the workspace."""
    places = {location, *map(str, Path(location).parents)} - {str(root), *map(str, root.parents)}
    return [claim for claim in claims if claim.location in places]


def _nearby(repo: Path, location: str) -> Iterator[Path]:
    """Where DVC puts its files unless told otherwise: beside the data, or beside a folder above it."""
    place = Path(location)
    while place != repo:
        yield place.with_name(place.name + ".dvc")
        place = place.parent
        yield place / "dvc.lock"


def _everywhere(repo: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(repo):
        here = Path(folder)
        tracked = {name.removesuffix(".dvc") for name in files if name.endswith(".dvc")}
        names[:] = [name for name in names if _is_searched(here / name, tracked)]
        yield from (here / name for name in sorted(files) if name == "dvc.lock" or name.endswith(".dvc"))


def _is_searched(folder: Path, tracked: set[str]) -> bool:
    """A tracked folder holds no DVC files, and one with its own `.dvc` is another repository."""
    return folder.name not in _NEVER_SEARCHED | tracked and not (folder / ".dvc").is_dir()


def _claims(repo: Path, files: Iterator[Path]) -> Iterator[_Claim]:
    for file in files:
        if os.path.isfile(file):
            yield from _lock_claims(repo, file) if file.name == "dvc.lock" else _file_claims(repo, file)


def _file_claims(repo: Path, file: Path) -> Iterator[_Claim]:
    content, target = _load(file, _DvcFile), os.path.relpath(file, repo)
    imported = any("repo" in dep for dep in content.deps or ())
    for out in content.outs or ():
        if not is_url(out.path):
            yield _Claim(out, _place(file, content.wdir, out), file, target, imported)


def _lock_claims(repo: Path, file: Path) -> Iterator[_Claim]:
    """The outputs of the stages that `dvc.yaml` still has: the lock keeps those of removed stages."""
    pipeline = file.with_name("dvc.yaml")
    stages = _load(pipeline, _Pipeline).stages if pipeline.is_file() else {}
    for name, locked in _load(file, _LockFile).stages.items():
        stage = _definition(pipeline, stages, name)
        if stage is not None:
            target = f"{os.path.relpath(pipeline, repo)}:{name}"
            yield from (_stage_claim(file, stage, out, target) for out in locked.outs if not is_url(out.path))


def _stage_claim(file: Path, stage: _Stage, out: _Out, target: str) -> _Claim:
    return _Claim(_with_flags(file, stage, out), _place(file, stage.wdir, out), file, target)


def _definition(pipeline: Path, stages: Mapping[str, _Stage], name: str) -> _Stage | None:
    """A stage as written, or the template that it was made from: `template@key` (`foreach`, `matrix`)."""
    stage = stages.get(name) or stages.get(name.partition("@")[0])
    return _shaped(pipeline, stage.do, _Stage) if stage is not None and stage.do is not None else stage


def _with_flags(file: Path, stage: _Stage, out: _Out) -> _Out:
    """`dvc.lock` leaves out how `dvc.yaml` declares an output: `path`, or `path: {cache: false}`."""
    declared = (one for one in (*stage.outs, *stage.metrics, *stage.plots) if isinstance(one, dict))
    given = next((one[out.path] for one in declared if isinstance(one.get(out.path), dict)), dict[str, Any]())
    flags = _shaped(file.with_name("dvc.yaml"), given, _Flags)
    return msgspec.structs.replace(out, cache=flags.cache, push=flags.push, remote=flags.remote)


def _place(file: Path, wdir: str | None, out: _Out) -> str:
    return os.path.normpath(file.parent / (wdir or ".") / out.path)


def _untracked(root: Path, path: str) -> UsageError:
    what = f"{path} is not tracked by DVC"
    if os.path.isfile(root / f"{path}.dvc"):
        return UsageError(what, f"{path}.dvc tracks something else", f"correct `outs` in {path}.dvc")
    if not os.path.exists(root / path):
        return UsageError(what, "and there is no such file or folder", f"create it, then `dvc add {quote(path)}`")
    return UsageError(what, "no .dvc file and no stage in dvc.lock names it", f"dvc add {quote(path)}")


# --- from that file to the pin -----------------------------------------------------------------------


def _tracked(root: Path, path: str, repo: Path, claim: _Claim) -> Tracked:
    out = claim.out
    listing = _own_listing(out)
    inside = os.path.relpath(claim.location, root) if claim.location != str(root / path) else None
    pin = DvcPin(
        md5=_pinned_md5(root, claim, listing, inside),
        hash=_hash_name(root, claim),
        size=None if inside else out.size,
        nfiles=None if inside else out.nfiles,
        remote=remote_url(load_config(repo), out.remote or None) if out.push and not claim.imported else None,
        inside=inside,
    )
    target = os.path.relpath(root / path, repo) if inside else claim.target
    bound = claim.imported or out.cloud is not None or listing is not None
    return Tracked(path, pin, repo, claim.source, target, listing, bound)


def _pinned_md5(root: Path, claim: _Claim, listing: bytes | None, inside: str | None) -> str:
    source, place = os.path.relpath(claim.source, root), os.path.relpath(claim.location, root)
    md5 = folder_md5(listing) if listing else (claim.out.md5 or "").lower()
    if not claim.out.cache:
        why = f"{source} or its dvc.yaml says `cache: false`"
        raise UsageError(f"DVC keeps no copy of {place}", why, "take it out of `data`: it is code, kept by git")
    if not _PINNED.fullmatch(md5):
        raise UsageError(f"{source} pins no version of {place}", "it has no valid `md5`", _commit(claim))
    if inside and not md5.endswith(".dir"):
        raise UsageError(
            f"there is nothing inside {inside}", f"{source} tracks it as a file", f"dvc add {quote(place)}"
        )
    return md5


def _commit(claim: _Claim) -> str:
    if claim.source.name == "dvc.lock":
        return f"dvc repro {claim.target}"
    return f"dvc update {quote(claim.target)}" if claim.imported else f"dvc commit {quote(claim.target)}"


def _hash_name(root: Path, claim: _Claim) -> HashName:
    match claim.out.hash:
        case None:
            return "md5-dos2unix"
        case "md5":
            return "md5"
        case other:
            source = os.path.relpath(claim.source, root)
            raise UsageError(f"{source} uses the hash {other!r}", "only `md5` can be verified", _commit(claim))


def _own_listing(out: _Out) -> bytes | None:
    """The listing of a folder on a version-aware remote, as DVC would write it: its MD5 is the folder's."""
    if out.md5 or not out.files:
        return None
    files = sorted(out.files, key=lambda file: file.relpath)
    return json.dumps([{"md5": file.md5, "relpath": file.relpath} for file in files]).encode()
