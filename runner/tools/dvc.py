"""The only door to DVC: find pins, compare the working copy with them, fetch what the cache lacks.

DVC is run as a program and never imported; `dvc_files`, `dvc_config` and `dvc_objects` read what it wrote.
Its exit status proves nothing: `dvc fetch` exits 0 with data missing, and hands out corrupted objects. So
presence is looked up after every fetch, and whoever uses an object verifies it with `hash_file`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from stat import S_ISDIR
from threading import Event
from typing import Protocol

from runner.errors import OutsideError, TamperedError, UnrebuildableError, UsageError
from runner.state.spec import DvcPin
from runner.tools.dvc_config import DvcConfig, cache_dir, config_text, load_config, remote_name, remote_url
from runner.tools.dvc_files import Tracked, find_pin, repo_of, tracked_paths
from runner.tools.dvc_objects import (
    Entry,
    Hashes,
    HashName,
    entries,
    hash_file,
    missing_objects,
    object_path,
    objects_folder,
    read_listing,
)
from runner.tools.git import without_credentials

__all__ = [
    "Difference",
    "Entry",
    "HashCache",
    "HashName",
    "Hashes",
    "Tracked",
    "cache_dir",
    "entries",
    "fetch",
    "find_pin",
    "hash_file",
    "list_remote",
    "missing_objects",
    "object_path",
    "objects_folder",
    "read_listing",
    "repo_of",
    "tracked_paths",
    "working_copy_differs",
]

_LOCKED = "Unable to acquire lock"
_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 5.0
# DVC names each object that it could not get, with the file system's reason for it.
_GONE = re.compile(r"failed to transfer .*(\[Errno 2\]|No such file|does not exist|Not Found)")
_NAMED = 3


# --- the working copy --------------------------------------------------------------------------------


class HashCache(Protocol):
    """Remembers hashes by path and stat, so that unchanged files cost one stat each.

    `get` answers only when size, inode, mtime and ctime are those given to `put`, and when these were then
    older than a tick of the file system's clock. `path` is absolute; `found` follows symbolic links.
    """

    def get(self, path: str, found: os.stat_result, hash_name: HashName) -> Hashes | None: ...

    def put(self, path: str, found: os.stat_result, hash_name: HashName, hashes: Hashes) -> None: ...


@dataclass(frozen=True, slots=True)
class Difference:
    """How a working copy differs from its pin: how many files do, and the first few, as `changed a.csv`."""

    count: int
    first: tuple[str, ...]

    def __str__(self) -> str:
        more = self.count - len(self.first)
        return ", ".join(self.first) + (f" and {more} more" if more else "")


def working_copy_differs(
    root: Path, tracked: Tracked, expected: Iterable[Entry], known: HashCache | None = None
) -> Difference | None:
    """How the working copy of a tracked path differs from its entries; `None`: in nothing, or it is absent.

    As in DVC, empty folders and links to folders do not count, and `.dvcignore` hides what it names.
    """
    live, wanted = root.absolute() / tracked.path, dict(expected)
    top = _stat(live)
    if top is None:
        return None
    if S_ISDIR(top.st_mode) == ("" in wanted):
        return Difference(1, (f"{tracked.path} became a {'folder' if '' in wanted else 'file'}",))
    found = {"": top} if "" in wanted else dict(_walk(str(live)))
    common = [name for name in found if name in wanted]
    md5s = {name: _hashes(str(live), name, found[name], tracked.pin.hash, known).md5 for name in common}
    return _difference(
        changed=[name for name in common if md5s[name] != wanted[name]],
        added=_not_ignored(tracked, live, sorted(found.keys() - wanted.keys())),
        removed=list(wanted.keys() - found.keys()),
    )


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise OutsideError(f"{path} cannot be read", error.strerror or str(error), f"ls -l {path}") from error


def _difference(**kinds: list[str]) -> Difference | None:
    lines = [f"{kind} {_shown(name)}" for kind, names in kinds.items() for name in sorted(names)]
    return Difference(len(lines), tuple(lines[:_NAMED])) if lines else None


def _shown(name: str) -> str:
    return (name if name.isprintable() else repr(name)) or "its content"


def _hashes(live: str, name: str, found: os.stat_result, hash_name: HashName, known: HashCache | None) -> Hashes:
    path = f"{live}/{name}" if name else live
    hashes = known.get(path, found, hash_name) if known is not None else None
    if hashes is None:
        hashes = hash_file(path, hash_name)
        if known is not None:
            known.put(path, found, hash_name, hashes)
    return hashes


def _walk(folder: str, prefix: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Each file below a folder with its stat; a link that leads nowhere is no file."""
    try:
        with os.scandir(folder) as found:
            for one in found:
                if one.is_dir(follow_symlinks=False):
                    yield from _walk(one.path, f"{prefix}{one.name}/")
                elif not one.is_dir() and (not one.is_symlink() or Path(one.path).exists()):
                    yield prefix + one.name, one.stat()
    except OSError as error:
        why = error.strerror or str(error)
        raise OutsideError(f"{folder} cannot be read", why, f"ls -lR {folder}") from error


def _not_ignored(tracked: Tracked, live: Path, names: Sequence[str]) -> list[str]:
    """DVC itself is asked what its ignore files mean, and only about names that the pin does not have."""
    asked = {os.path.relpath(live / name, tracked.repo): name for name in names if "\n" not in name}
    if not asked:
        return list(names)
    done = _dvc(["check-ignore", "--stdin"], tracked.repo, questions="".join(f"{name}\n" for name in asked))
    ignored = {asked.get(line) for line in done.stdout.splitlines()}
    return [name for name in names if name not in ignored]


# --- fetching ----------------------------------------------------------------------------------------


def fetch(
    root: Path,
    wanted: Mapping[str, DvcPin],
    *,
    lock_wait_s: float = 60.0,
    on_wait: Callable[[str], None] = lambda _: None,
) -> None:
    """Bring the objects of pinned paths of the workspace into the DVC cache, whatever the workspace pins now.

    Waits up to `lock_wait_s` for another DVC command and says so through `on_wait`. Raises
    `UnrebuildableError` for what no remote has, `OutsideError` when DVC fails and `TamperedError` for other bytes than
    were asked for. Does not verify what was there, nor the files of a folder whose listing had to be fetched.
    """
    for repo, pins in _by_repo(root, wanted).items():
        _fetch_in(repo, root, pins, _Patience(lock_wait_s, on_wait))


def _by_repo(root: Path, wanted: Mapping[str, DvcPin]) -> dict[Path, dict[str, DvcPin]]:
    grouped: dict[Path, dict[str, DvcPin]] = {}
    for path, pin in wanted.items():
        repo = repo_of(root, path)
        if repo is None:
            why = f"there is no DVC repository at {root} or above; it was on {pin.remote or 'no remote'}"
            raise UnrebuildableError(f"{path} cannot be fetched", why, "replay in a clone that has .dvc/")
        grouped.setdefault(repo, {})[path] = pin
    return grouped


def _fetch_in(repo: Path, root: Path, wanted: Mapping[str, DvcPin], patience: _Patience) -> None:
    bound = {path: tracked for path, pin in wanted.items() if (tracked := _bound(root, path, pin))}
    lacking = _lacking(repo, wanted, bound)
    complaints: list[str] = []
    if free := {path: wanted[path] for path in lacking if path not in bound}:
        complaints += _fetch_by_pin(repo, free, patience)
    if targets := [bound[path].target for path in lacking if path in bound]:
        complaints += _run_unlocked(["fetch", "--", *targets], repo, patience)
    for path, objects in lacking.items():
        _drop_wrong(cache_dir(repo), path, wanted[path], objects)
    if still := _lacking(repo, wanted, bound):
        path, objects = min(still.items())
        raise _not_fetched(repo, path, wanted[path], len(objects), complaints)


def _drop_wrong(cache: Path, path: str, pin: DvcPin, fetched: Iterable[str]) -> None:
    """DVC keeps whatever a remote sends, and would never ask for it again."""
    for md5 in fetched:
        place = object_path(cache, pin.hash, md5)
        name = md5.removesuffix(".dir")
        if place.is_file() and hash_file(place, "md5" if name != md5 else pin.hash).md5 != name:
            place.unlink()
            raise TamperedError(
                f"the DVC remote holds other bytes than {path} was added with",
                f"what it sent for {md5} has another MD5, and was dropped",
                f"`dvc push` where {path} still is, then run the command again",
            )


def _bound(root: Path, path: str, pin: DvcPin) -> Tracked | None:
    """The tracked path, if it has this very pin and only its DVC file knows where the data comes from."""
    try:
        tracked = find_pin(root, path)
    except UsageError:
        return None
    same = (tracked.pin.md5, tracked.pin.hash, tracked.pin.inside) == (pin.md5, pin.hash, pin.inside)
    return tracked if tracked.bound and same else None


def _lacking(repo: Path, wanted: Mapping[str, DvcPin], bound: Mapping[str, Tracked]) -> dict[str, tuple[str, ...]]:
    cache, listings = cache_dir(repo), {path: tracked.listing for path, tracked in bound.items()}
    lacking = {path: missing_objects(cache, path, pin, listings.get(path)) for path, pin in wanted.items()}
    return {path: objects for path, objects in lacking.items() if objects}


def _not_fetched(
    repo: Path, path: str, pin: DvcPin, lost: int, complaints: Sequence[str]
) -> UnrebuildableError | OutsideError:
    what, command = f"DVC cannot fetch {path}", f"cd {repo} && dvc fetch -v {path}"
    if complaints and not _GONE.match(complaints[0]):
        return OutsideError(what, complaints[0], command)
    where = remote_url(load_config(repo)) or pin.remote
    why = f"{lost} of its objects ({pin.md5}) are neither in {cache_dir(repo)} nor on {where}"
    why += ", or it is in trouble: DVC does not say"
    return UnrebuildableError(what, why, f"dvc push, where {path} still is")


def _fetch_by_pin(repo: Path, wanted: Mapping[str, DvcPin], patience: _Patience) -> list[str]:
    """Fetch by content, from a throw-away repository with the same cache and remotes.

    The workspace may pin another version by now, and its lock is left to other DVC commands.
    """
    config = _with_recorded(load_config(repo), wanted)
    with tempfile.TemporaryDirectory(prefix="replay-", dir=_writable(repo / ".dvc" / "tmp")) as folder:
        scratch = Path(folder)
        remotes = {path: _remote_for(config, path, pin) for path, pin in wanted.items()}
        (scratch / ".dvc").mkdir()
        (scratch / ".dvc" / "config").write_text(_scratch_config(repo, config))
        pins = enumerate(wanted.items())
        targets = [_write_pin(scratch, str(n), path, pin, remotes[path]) for n, (path, pin) in pins]
        return _run_unlocked(["fetch", "--", *targets], scratch, patience, {"DVC_SITE_CACHE_DIR": folder})


def _writable(folder: Path) -> Path | None:
    """`folder`, made if need be, or `None` for the system's own: a repository can be read-only."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def _with_recorded(config: DvcConfig, wanted: Mapping[str, DvcPin]) -> DvcConfig:
    """Without a default remote, the recorded URLs serve as they are, with the credentials of the surroundings."""
    if remote_name(config) is not None:
        return config
    urls = {pin.remote for pin in wanted.values() if pin.remote}
    recorded = {f"replay-{n}": {"url": url} for n, url in enumerate(sorted(urls))}
    return replace(config, remotes={**config.remotes, **recorded})


def _remote_for(config: DvcConfig, path: str, pin: DvcPin) -> str:
    """The remote with the recorded URL, or today's default."""
    named = (name for name in config.remotes if pin.remote and remote_url(config, name) == pin.remote)
    found = next(named, None) or remote_name(config)
    if found is None:
        why = "its objects are not all in the DVC cache, and no remote is configured"
        raise UnrebuildableError(f"DVC cannot fetch {path}", why, "dvc remote add -d NAME URL")
    return found


def _scratch_config(repo: Path, config: DvcConfig) -> str:
    sections: dict[str, Mapping[str, str]] = {
        "core": {"no_scm": "true"},
        "cache": {**config.cache, "dir": str(cache_dir(repo))},
    }
    return config_text(sections | {f'remote "{name}"': options for name, options in config.remotes.items()})


def _write_pin(scratch: Path, name: str, path: str, pin: DvcPin, remote: str) -> str:
    """Write `name.dvc`, as JSON, which is YAML; gives what to fetch of it."""
    out = {"path": name, "md5": pin.md5, "remote": remote}
    if pin.hash == "md5":
        out["hash"] = "md5"
    (scratch / f"{name}.dvc").write_text(json.dumps({"outs": [out]}))
    return f"{name}.dvc" if pin.inside is None else f"{name}/{os.path.relpath(path, pin.inside)}"


# --- running it --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Patience:
    wait_s: float
    on_wait: Callable[[str], None]


def _run_unlocked(
    arguments: Sequence[str], folder: Path, patience: _Patience, settings: Mapping[str, str] = {}
) -> list[str]:
    """Run DVC, again and again while another command holds its lock; gives its complaint, if it has one."""
    wait_s, deadline = _FIRST_WAIT_S, time.monotonic() + patience.wait_s
    done = _dvc(arguments, folder, settings)
    while done.returncode and _LOCKED in done.stderr:
        if time.monotonic() + wait_s > deadline:
            why = f"another DVC command holds {folder / '.dvc' / 'tmp' / 'lock'}"
            raise OutsideError("DVC is busy", why, "wait for that command to end, or end it")
        patience.on_wait(f"waiting for another DVC command in {folder}")
        Event().wait(wait_s)
        wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        done = _dvc(arguments, folder, settings)
    return [_complaint(done.stderr)] if done.returncode else []


def _complaint(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return without_credentials((errors or lines[-1:] or ["it gave no reason"])[0])


def list_remote(root: Path, name: str, patience_s: float) -> subprocess.CompletedProcess[str]:
    """Ask for what the remote holds at its top. Raises `subprocess.TimeoutExpired`."""
    return _dvc(["ls-url", f"remote://{name}"], root, patience_s=patience_s)


def _dvc(
    arguments: Sequence[str],
    folder: Path,
    settings: Mapping[str, str] = {},
    questions: str = "",
    patience_s: float | None = None,
) -> subprocess.CompletedProcess[str]:
    # -P: a module in the workspace must not stand in for one of DVC's. DVC_DAEMON: leave no process behind.
    return subprocess.run(
        [sys.executable, "-P", "-m", "dvc", *arguments],
        cwd=folder,
        env={**os.environ, "DVC_NO_ANALYTICS": "1", "DVC_DAEMON": "1", **settings},
        input=questions,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        timeout=patience_s,
    )
