"""The door to git: which files a work tree holds, and where it stands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from runner.errors import OutsideError
from runner.state.paths import is_below
from runner.state.spec import CodeSeen

_OWN = ("state_specs/", ".replay/")
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_CREDENTIALS = re.compile(r"://[^/\s]*@")


def available() -> bool:
    return shutil.which("git") is not None


def is_work_tree(folder: Path) -> bool:
    """Whether `folder` lies in a git work tree and git is there to ask."""
    return available() and _prefix(folder) is not None


def files(folder: Path) -> list[str]:
    """Tracked and untracked files below `folder` that git does not ignore, those of repositories inside it
    included, as paths relative to `folder`. Files deleted from the work tree are still named."""
    found = []
    for name in _list(folder, "--cached", "--others", "--exclude-standard"):
        path = folder / name
        if not os.path.isdir(path) or path.is_symlink():
            found.append(name)
        elif (path / ".git").exists():
            found += [f"{name.rstrip('/')}/{inner}" for inner in files(path)]
    return found


def seen(folder: Path) -> CodeSeen:
    """Where the work tree stands: commit, branch, remote without credentials, files that differ from it; nothing
    where there is no git."""
    prefix = _prefix(folder) if available() else None
    if prefix is None:
        return CodeSeen()
    status = _run(folder, "status", "--porcelain=v2", "--branch", "-z", "--no-renames", "-uall", "--", ".").split("\0")
    head = dict(line.removeprefix("# branch.").split(" ", 1) for line in status if line.startswith("# branch."))
    remote = _ask(folder, "config", "--get", "remote.origin.url")
    return CodeSeen(
        commit=None if head.get("oid") == "(initial)" else head.get("oid"),
        branch=None if head.get("head") == "(detached)" else head.get("head"),
        remote=without_credentials(remote) if remote else None,
        dirty=_dirty(status, prefix),
        submodules={name: _ask(folder / name, "rev-parse", "HEAD") or "" for name in _submodules(folder)},
    )


def content(folder: Path, commit: str, path: str) -> bytes | None:
    """What a file below `folder` held in a commit; None when git does not have it, or it is no commit's whole name."""
    if not _COMMIT.fullmatch(commit):
        return None
    done = _git(folder, "cat-file", "blob", f"{commit}:./{path}")
    return done.stdout if done.returncode == 0 else None


def small_contents(folder: Path, places: Collection[tuple[str, str]], most: int) -> dict[tuple[str, str], bytes]:
    """What files below `folder` held in commits, asked all at once: of each commit and path that git has, unless it is
    larger than `most`."""
    asked = [place for place in sorted(places) if _COMMIT.fullmatch(place[0]) and "\n" not in place[1]]
    if not asked or not is_work_tree(folder):
        return {}
    names = "".join(f"{commit}:./{path}\n" for commit, path in asked)
    listed = _batch(folder, "--batch-check=%(objectname) %(objecttype) %(objectsize)", names)
    told = [line.split() for line in listed.decode(errors="replace").splitlines()]
    objects = {
        place: words[0]
        for place, words in zip(asked, told, strict=False)
        if len(words) == 3 and words[1] == "blob" and words[2].isdigit() and int(words[2]) <= most
    }
    found = dict(_blobs(_batch(folder, "--batch", "".join(f"{name}\n" for name in sorted(set(objects.values()))))))
    return {place: found[name] for place, name in objects.items() if name in found}


def _batch(folder: Path, how: str, names: str) -> bytes:
    # In a partial clone git would fetch what it lacks.
    settings = {"GIT_NO_LAZY_FETCH": "1"}
    return _git(folder, "cat-file", how, settings=settings, given=names.encode()).stdout if names else b""


def _blobs(batch: bytes) -> Iterator[tuple[str, bytes]]:
    """What `cat-file --batch` gave of blobs: a line with name, type and size, the bytes, a line end."""
    at = 0
    while (end := batch.find(b"\n", at)) >= 0:
        words = batch[at:end].decode(errors="replace").split()
        if len(words) != 3:  # "NAME missing"
            at = end + 1
            continue
        size = int(words[2])
        yield words[0], batch[end + 1 : end + 1 + size]
        at = end + size + 2


def first_parents(folder: Path, first: str, last: str) -> list[str]:
    """The commits after `first` up to `last`, each the first parent of the next; none when they do not start there, or
    the two are no commits' whole names."""
    if not _COMMIT.fullmatch(first) or not _COMMIT.fullmatch(last):
        return []
    listed = (_ask(folder, "rev-list", "--first-parent", "--reverse", f"{first}..{last}") or "").split()
    is_parent = listed and _ask(folder, "rev-parse", f"{listed[0]}^") == first
    return listed if is_parent else []


def subject(folder: Path, commit: str) -> str:
    return _ask(folder, "log", "-1", "--format=%s", commit) or ""


def identity(folder: Path) -> str | None:
    """Who commits here, as git is told; None where it is not."""
    if not available():
        return None
    name, address = (_ask(folder, "config", f"user.{key}") for key in ("name", "email"))
    return (f"{name} <{address}>" if address else name) if name else None


def resolve(folder: Path, revision: str) -> str | None:
    """The commit that a revision names; None when git knows none."""
    return _ask(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")


def known_commits(folder: Path, commits: Collection[str]) -> set[str]:
    """Those of the commits that the repository has, asked all at once."""
    if not commits or not is_work_tree(folder):
        return set()
    asked = "".join(f"{commit}\n" for commit in sorted(commits))
    done = _batch(folder, "--batch-check=%(objectname) %(objecttype)", asked)
    lines = (line.split() for line in done.decode(errors="replace").splitlines())
    return {line[0] for line in lines if len(line) == 2 and line[1] == "commit"} & set(commits)


def clone_at(folder: Path, commit: str, target: Path) -> Path:
    """A clone that shares the objects of `folder`'s repository, at that commit; the folder's place in it."""
    prefix = _prefix(folder) or ""
    top = _ask(folder, "rev-parse", "--show-toplevel") or str(folder)
    _run(folder, "clone", "-q", "--shared", "--no-checkout", "--", top, str(target))
    if remote := _ask(folder, "config", "--get", "remote.origin.url"):
        _run(target, "config", "remote.origin.url", remote)
    _run(target, "checkout", "-q", "--detach", commit)
    return target / prefix if prefix else target


def check_out(folder: Path, commit: str, target: Path) -> None:
    """Write what `folder` held in a commit below `target`, with an index of its own: the work tree is not touched."""
    prefix = _prefix(folder) or ""
    with tempfile.TemporaryDirectory(prefix="replay-index-") as place:
        own = {"GIT_INDEX_FILE": f"{place}/index"}
        _run(folder, "read-tree", f"{commit}:{prefix}" if prefix else commit, settings=own)
        top = (_ask(folder, "rev-parse", "--show-toplevel") or "") if prefix else str(folder)
        _run(Path(top), "checkout-index", "--all", f"--prefix={target}/", settings=own)


def without_credentials(text: str) -> str:
    """The text with every address in it freed of user and password; a password may hold an `@`."""
    return _CREDENTIALS.sub("://", text)


def clone(url: str, revision: str | None, target: Path) -> str:
    """Clone `url` at `revision` into `target`; returns the commit."""
    url, credentials = _apart(url)
    _run(target.parent, "clone", "-q", "--recurse-submodules", "--", url, str(target), settings=credentials)
    if revision:
        _run(target, "checkout", "-q", "--recurse-submodules", revision, "--", settings=credentials)
    return _run(target, "rev-parse", "HEAD").strip()


def _apart(url: str) -> tuple[str, dict[str, str]]:
    """An address without its user and password, and how git learns them for that host alone: from variables, since
    arguments can be read by everybody on the machine and the clone keeps its address."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise OutsideError(f"git cannot clone {without_credentials(url)}", "it is no address") from None
    user, at, host = parts.netloc.rpartition("@")
    if not at or parts.scheme not in ("http", "https"):
        return url, {}
    name, _, password = user.partition(":")
    return parts._replace(netloc=host).geturl(), {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"credential.{parts.scheme}://{host}.helper",
        "GIT_CONFIG_VALUE_0": '!printf \'username=%s\\npassword=%s\\n\' "$REPLAY_GIT_USER" "$REPLAY_GIT_PASSWORD"; :',
        "REPLAY_GIT_USER": unquote(name),
        "REPLAY_GIT_PASSWORD": unquote(password),
    }


def _submodules(folder: Path) -> list[str]:
    if not (folder / ".gitmodules").is_file():
        return []
    listed = _ask(folder, "config", "--file", ".gitmodules", "--get-regexp", r"\.path$") or ""
    paths = [line.split(" ", 1)[1] for line in listed.splitlines() if " " in line]
    return [path for path in paths if is_below(path) and os.path.exists(folder / path / ".git")]


# Fields before the path in the entries of `git status --porcelain=v2`, by kind of entry.
_FIELDS = {"1": 8, "u": 10, "?": 1}


def _prefix(folder: Path) -> str | None:
    """Where in its work tree `folder` lies, as `a/b/`; None outside of one."""
    done = _git(folder, "rev-parse", "--is-inside-work-tree", "--show-prefix")
    inside, _, prefix = os.fsdecode(done.stdout).partition("\n")
    return prefix.removesuffix("\n") if done.returncode == 0 and inside == "true" else None


def _dirty(status: list[str], prefix: str) -> tuple[str, ...]:
    paths = (entry.split(" ", _FIELDS[entry[0]])[-1].removeprefix(prefix) for entry in status if entry[:1] in _FIELDS)
    return tuple(sorted(path for path in paths if not path.startswith(_OWN)))[:50]


def _list(folder: Path, *which: str) -> list[str]:
    listed = _run(folder, "ls-files", "-z", *which)
    names = sorted({name for name in listed.split("\0") if name})
    outside = next((name for name in names if not is_below(name.removesuffix("/"))), None)
    if outside:
        raise OutsideError(f"git names {outside!r} as a file of {folder}", "it lies elsewhere", "correct git's index")
    return names


def _ask(folder: Path, *arguments: str) -> str | None:
    """Standard output, stripped, or None when git says no."""
    done = _git(folder, *arguments)
    return os.fsdecode(done.stdout).strip() or None if done.returncode == 0 else None


def _run(folder: Path, *arguments: str, settings: Mapping[str, str] = {}) -> str:
    done = _git(folder, *arguments, settings=settings)
    if done.returncode != 0:
        why = os.fsdecode(done.stderr).strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise OutsideError(f"git {arguments[0]} failed in {folder}", without_credentials(why[0]))
    return os.fsdecode(done.stdout)


def _git(
    folder: Path, *arguments: str, settings: Mapping[str, str] = {}, given: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_DIR")}
    environment |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"} | dict(settings)
    return subprocess.run(
        ["git", "-c", "core.quotepath=off", "-c", "safe.directory=*", *arguments],
        cwd=folder,
        env=environment,
        input=given,
        capture_output=True,
        check=False,
    )
