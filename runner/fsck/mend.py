"""Getting again what can be had again. Nothing takes a damaged file's place before its digest was verified.

Caches are dropped: their next use makes them anew. A spec or record comes from its good copy. A blob comes from
the first place that has its very bytes; until then the damaged one lies in `tmp/`, for `gc` to remove, since what
keeps its name would keep the good one out.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from runner.capture import owned_paths
from runner.environment import seal
from runner.erased import erased_of
from runner.errors import OutsideError, ReplayError, TamperedError
from runner.fsck.judge import Damage, Use
from runner.layers import code, data, image, schema
from runner.remote import fetch
from runner.remote.select import default_remote
from runner.state.digest import Digest, hex_of
from runner.state.spec import StateSpec, Wheel
from runner.store.files import remove_tree, write_atomic
from runner.store.runs import SPECS, SUMS, read_sums
from runner.store.store import GITIGNORE, SET_APART, write_info
from runner.tools import git, pip
from runner.tools.containers import connect
from runner.tools.remote_fs import Remote
from runner.workspace import Workspace

Say = Callable[[str], None]
_CHUNK = 1 << 20
_MOST_FOR_GIT = 100


class Mender:
    """Mends one store, with everybody else kept out of it."""

    def __init__(self, workspace: Workspace, say: Say) -> None:
        self._workspace = workspace
        self._store = workspace.store
        self._say = say
        self._tried: set[str] = set()
        self._remote_trouble: OutsideError | None = None

    def mend(self, damage: Damage) -> str:
        """What was done. Raises `ReplayError` when nothing could be, with why."""
        finding = damage.finding
        path = self.place(finding.path)
        if finding.problem == "stray":
            return self._remove_stray(path, finding.detail)
        if finding.kind == "blob" and damage.digest:
            return self._blob(damage.digest, damage.uses)
        if finding.kind in ("spec", "record", "release"):
            return self._copy(damage, path)
        if finding.kind == "log":
            return self._log(path)
        if finding.kind == "sums":
            self._workspace.run(path.parent.name).write_sums({})
            return "made anew of the files as they are now"
        if finding.kind == "image":
            return self._archive(damage.spec)
        if finding.kind in ("tree", "environment", "view"):
            seal.discard(self._store.cache / Path(*Path(finding.path).parts[1:3]))
            return "dropped; its next use makes it anew"
        if finding.kind in ("probe", "version", "stat", "profile", "index", "lock", "locker"):
            return self._drop(path, finding.path)
        if finding.kind in ("store", "key", "other"):
            return self._anew(finding.path)
        raise _lost("nothing else holds these bytes")

    def place(self, path: str) -> Path:
        return (self._workspace.root if path.startswith(SPECS + "/") else self._store.folder) / path

    # --- small files

    def _copy(self, damage: Damage, path: Path) -> str:
        if damage.copy is None:
            raise _lost("there is no other copy that is known to be right")
        write_atomic(path, self.place(damage.copy).read_bytes())
        return f"from {damage.copy}"

    def _log(self, path: Path) -> str:
        """A stream that is also a declared output lies in the store twice."""
        sums = read_sums((path.parent / SUMS).read_bytes()) or {}
        blob = self._store.blobs.path(Digest(sums[path.name].sha256))
        if not blob.is_file():
            raise _lost("nothing else holds these bytes")
        data = self._store.blobs.read(Digest(sums[path.name].sha256))
        write_atomic(path, data)
        return "from the output that has the same bytes"

    def _drop(self, path: Path, name: str) -> str:
        if name.startswith("cache/locker/"):
            path = self._store.cache / "locker" / Path(name).parts[2]
        remove_tree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return "dropped; it is made anew when it is next needed"

    def _anew(self, name: str) -> str:
        path = self._store.folder / name
        if name == "store.json":
            write_info(path)
            return "made anew, with a new identity"
        if name == "key":
            path.unlink(missing_ok=True)
            self._store.fingerprint_key()
            return "made anew; fingerprints of earlier runs cannot be compared with later ones"
        write_atomic(path, GITIGNORE.encode())
        return "made anew"

    def _remove_stray(self, path: Path, why: str) -> str:
        if "left by" not in why:
            raise _lost("it may be somebody's")
        remove_tree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        return "removed"

    # --- images

    def _archive(self, spec: StateSpec | None) -> str:
        if spec is None:
            raise _lost("no run that is known needs it; `replay gc` removes it")
        where = f"image {image.archive_name(spec.state.image)}"
        self._once(where)
        image.archive_again(
            connect(), self._store, self._workspace.root, spec.state.image, spec.observed.image, self._say
        )
        return "archived again from the engine"

    # --- blobs

    def _blob(self, digest: Digest, uses: tuple[Use, ...]) -> str:
        aside = self._set_aside(digest)
        why = []
        for name, get in self._sources(digest, uses, aside):
            try:
                get()
            except (ReplayError, OSError) as error:
                said = error.why or error.what if isinstance(error, ReplayError) else error.strerror or str(error)
                why.append(f"{name}: {said}")
            if self._store.blobs.has(digest):
                aside.unlink(missing_ok=True)
                return f"from {name}"
        if not uses:
            return "moved away; no run needs it"
        raise _lost("; ".join(dict.fromkeys(why)) or "no other copy of these bytes is known")

    def _set_aside(self, digest: Digest) -> Path:
        aside = self._store.tmp / f"{SET_APART}{hex_of(digest)}"
        place = self._store.blobs.path(digest)
        if place.is_dir():
            remove_tree(place)
        elif place.exists():
            place.replace(aside)
        return aside

    def _sources(
        self, digest: Digest, uses: tuple[Use, ...], aside: Path
    ) -> Iterator[tuple[str, Callable[[], object]]]:
        """Where these bytes may be had again, what costs least first."""
        for path in self._views(digest):
            yield "a view in the cache", partial(self._take, digest, path)
        for live in sorted({use.path for use in uses if use.path}):
            yield f"the live file {live}", partial(self._take, digest, self._workspace.root / live)
        for run_id in sorted({use.need.run_id for use in uses if use.role == "output" and use.need.run_id}):
            yield f"the log of {run_id}", partial(self._take, digest, self._store.runs / run_id / "stdout")
        for use in _one_each(uses):
            commit = use.spec.observed.code.commit if use.spec else None
            if use.role == "code list" and use.spec:
                yield "the live code", partial(self._code_list, use.spec)
            if use.role in ("code", "params") and use.path and commit:
                yield f"git's {use.path} of {commit[:12]}", partial(self._from_git, digest, use.path, commit)
            if use.role in ("data", "model") and use.pin:
                yield "DVC", partial(self._from_dvc, use, aside)
            if use.role == "wheel" and use.wheel:
                yield "the package index", partial(self._from_index, digest, use.wheel)
            if use.role == "profile" and use.spec:
                yield "the data", partial(schema.make_again, self._store, use.spec, digest)
            if use.role == "image" and use.spec:
                yield "the engine", partial(self._archive, use.spec)
        if uses and self._remote:
            yield f"the remote {self._remote.url}", partial(self._from_remote, self._remote, digest)

    def _views(self, digest: Digest) -> Iterator[Path]:
        views = self._store.cache / "views"
        for folder in sorted(views.iterdir()) if views.is_dir() else ():
            try:
                entries = seal.read_manifest(folder)
            except (OSError, ValueError):
                continue
            yield from (folder / seal.ROOT / entry.path for entry in entries if entry.sha256 == digest)

    def _take(self, digest: Digest, source: Path) -> None:
        """Keep a file, or the target of a link, if its bytes are the wanted ones."""
        if source.is_symlink():
            self._keep(digest, os.fsencode(os.readlink(source)))
        if source.is_file() and not self._store.blobs.has(digest):
            with source.open("rb") as file:
                self._store.blobs.put_stream(iter(lambda: file.read(_CHUNK), b""), digest.__eq__)

    def _keep(self, digest: Digest, content: bytes) -> None:
        self._store.blobs.put_stream([content], digest.__eq__)

    def _code_list(self, spec: StateSpec) -> None:
        job = self._workspace.job(spec.run.job)
        files = code.observe(self._workspace.root, set(owned_paths(self._workspace, job)))
        self._keep(Digest(spec.state.code), code.listing(files))

    def _from_git(self, digest: Digest, path: str, commit: str) -> None:
        content = git.content(self._workspace.root, commit, path)
        if content is not None:
            self._keep(digest, content)

    def _from_dvc(self, use: Use, aside: Path) -> None:
        if use.spec is None:
            return
        path, version = _version_of(use)
        self._once(f"dvc {path} {version}")
        root = self._workspace.root
        try:
            data.fetch_again(self._store, root, path, version, use.pin)
        except TamperedError:
            if not (use.pin and data.drop_object(root, path, use.pin, aside)):
                raise
            data.fetch_again(self._store, root, path, version, use.pin)

    def _from_index(self, digest: Digest, wheel: Wheel) -> None:
        folder = self._store.tmp / f"fsck-{hex_of(digest)}"
        try:
            self._say(f"fsck: asking the package index for {wheel.wheel}")
            self._take(digest, pip.download(wheel.wheel, wheel.version, digest, folder))
        finally:
            remove_tree(folder)

    @functools.cached_property
    def _remote(self) -> Remote | None:
        """The one that runs are pushed to. Whatever is wrong with it, there is more to mend than what it has."""
        try:
            return default_remote(self._workspace)
        except ReplayError as error:
            self._say(f"fsck: {error.what}: {error.why}")
            return None

    def _from_remote(self, remote: Remote, digest: Digest) -> None:
        """One that does not answer is asked no more."""
        if self._remote_trouble:
            raise self._remote_trouble
        erased = erased_of(self._store, self._workspace.specs, [digest])
        try:
            fetched = fetch.blobs(self._store, remote, [digest], 1, erased)
        except OutsideError as error:
            self._remote_trouble = error
            raise
        if fetched.wrong:
            raise fetch.wrong(fetched.wrong)

    def _once(self, name: str) -> None:
        """One attempt gets all that there is of an image or a data version."""
        if name in self._tried:
            raise _lost("tried already")
        self._tried.add(name)


def _one_each(uses: tuple[Use, ...]) -> Iterator[Use]:
    """One use of each role and commit: ten thousand runs need the same code."""
    found: dict[tuple[str, str | None, str | None], Use] = {}
    for use in uses:
        commit = use.spec.observed.code.commit if use.spec else None
        found.setdefault((use.role, use.path, commit), use)
    yield from list(found.values())[:_MOST_FOR_GIT]


def _version_of(use: Use) -> tuple[str, Digest]:
    """The declared path that the use is of, or lies below, and its version."""
    assert use.spec and use.path
    for path, digest in (use.spec.state.data | use.spec.state.model).items():
        if use.path == path or use.path.startswith(f"{path}/"):
            return path, Digest(digest)
    raise _lost(f"{use.path} is no data of the run")


def _lost(why: str) -> ReplayError:
    return ReplayError("it cannot be had again", why)
