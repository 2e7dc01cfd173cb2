"""Where a command works: the folder of `replay.yaml`, its store and its `state_specs/`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec

from runner.errors import ReplayWarning, TamperedError, UsageError
from runner.state.digest import digest_bytes
from runner.state.job import Job, Workfile
from runner.state.spec import StateSpec
from runner.store.releases import Known, Releases
from runner.store.runs import SPECS, Run, is_run_id, read_spec, resolve_run_id, run_ids
from runner.store.store import STORE_NAME, Store, find_store, open_damaged, open_store

WORKFILE = "replay.yaml"
RELEASED = "@"
"""What a release's name begins with where a run-id could stand."""
PRESENT = "."
"""What is here now, where a run-id could stand."""


class Workspace(msgspec.Struct, frozen=True):
    """`root` is the folder of `replay.yaml`, or where the command was called if there is none upwards."""

    root: Path
    store: Store

    @property
    def specs(self) -> Path | None:
        """`state_specs/` beside `replay.yaml`, or an existing one; None in a folder that is no workspace."""
        folder = self.root / SPECS
        return folder if folder.is_dir() or (self.root / WORKFILE).is_file() else None

    def workfile(self) -> Workfile:
        from runner.state.strict import load_workfile

        file = workfile_of(self.root)
        return load_workfile(file.read_bytes(), str(file))

    def job(self, name: str) -> Job:
        jobs = self.workfile().jobs
        if name not in jobs:
            import difflib

            near = difflib.get_close_matches(name, jobs, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(sorted(jobs)) or 'no job'}"
            raise UsageError(f"{WORKFILE} has no job {name!r}", hint)
        return jobs[name]

    def run(self, run_id: str) -> Run:
        return Run(self.store, run_id, self.specs)

    def find_run(self, part: str, *, strictly: bool = False) -> Run:
        """The run that `part` names: any unique part of a run-id, the path of a spec, or `@NAME` of a release. Where a
        part fits one recorded run, and replays and trials besides, it means that one, unless `strictly`."""
        path = Path(part)
        if part.startswith(RELEASED):
            return self._released_run(part.removeprefix(RELEASED))
        if part.endswith((".yaml", ".yml")) and os.path.isfile(path):
            spec, _ = read_spec(path)
            return Run(self.store, spec.run.id, path.absolute().parent, path.absolute())
        if is_run_id(part) and self.run(part).has_spec():
            return self.run(part)
        known = self.run_ids()
        recorded = partial(self._recorded, known)
        return self.run(resolve_run_id(part, known) if strictly else resolve_run_id(part, known, recorded))

    def _recorded(self, known: Sequence[str], run_ids: Sequence[str]) -> list[str]:
        """Those of some of the `known` runs that somebody recorded."""
        from runner.store.index import is_recorded, rows

        wanted = set(run_ids)
        listed = rows(self.store.folder / "index.sqlite", known, self.run)
        return [row.run_id for row in listed if row.run_id in wanted and is_recorded(row)]

    def run_ids(self) -> list[str]:
        return run_ids(self.store, self.specs)

    @property
    def releases(self) -> Releases:
        return Releases(self.store, self.specs)

    def releases_of(self, run_id: str) -> list[Known]:
        """Those that name this run."""
        return [known for known in self.releases.all() if known.release.run == run_id]

    def warn_if_bound_to_revoked(self, spec: StateSpec) -> None:
        """A replay stays bound to the release of its original, and is not held to it again."""
        binding = spec.run.release
        if binding and binding.name in self.releases.names():
            warn_if_revoked(self.releases.find(binding.name))

    def _released_run(self, name: str) -> Run:
        """Raises `TamperedError` when the run is not the one that was released; warns of a release that was revoked, or
        that is not what a trusted key signed."""
        known = self.releases.find(name)
        warn_if_revoked(known)
        self._warn_if_doubtful(known)
        run = self.run(known.release.run)
        specs = run.copies("spec.yaml", "yaml")
        if not specs:
            raise UsageError(
                f"the run of {RELEASED}{name} is not here",
                f"{run.id} is in neither the store nor state_specs/",
                "get its files in state_specs/ from git",
            )
        if digest_bytes(specs[0]) != known.release.spec_sha256:
            raise TamperedError(
                f"the spec of {run.id} is not the one that was released as {RELEASED}{name}",
                "it was changed since, or the run-id was used again",
                f"restore it (`git checkout -- {run.id}.yaml`), or copy it from another clone",
            )
        return run

    def _warn_if_doubtful(self, known: Known) -> None:
        """Whoever says `@NAME` means what was accepted. That nobody signed it is told where releases are shown."""
        if not known.signed:
            return
        from runner.attest.rejected import Rejected
        from runner.attest.releases import ReleaseSeen
        from runner.keys import keyring
        from runner.seal import judge_of

        name = known.release.name
        try:
            ReleaseSeen(name, self.releases.copies(name)).check_release(judge_of(keyring().trusted()))
        except Rejected as error:
            text = f"{RELEASED}{name} does not verify ({error.reason}): `replay verify {RELEASED}{name}` tells more"
            warnings.warn(text, ReplayWarning, stacklevel=2)


def warn_if_revoked(known: Known) -> None:
    if said := known.revoked:
        text = f"{RELEASED}{known.release.name} was revoked by {said.said.by} on {said.said.at}: {said.said.why}"
        warnings.warn(text, ReplayWarning, stacklevel=2)


def open_damaged_workspace(start: Path, store: Path | None) -> Workspace:
    """As `open_workspace`, but a store whose `store.json` is lost will do."""
    start = start.absolute()
    root = next((folder for folder in (start, *start.parents) if (folder / WORKFILE).is_file()), start)
    return Workspace(root, open_damaged(store.absolute() if store else find_store(root)))


def workfile_of(root: Path) -> Path:
    """Raises `UsageError` where it has none."""
    file = root / WORKFILE
    if not file.is_file():
        raise UsageError(
            f"there is no {WORKFILE} in {root} or above it",
            "it declares the jobs that can be run",
            "`replay init` writes one; `replay run --image … -- COMMAND` needs none",
        )
    return file


def root_of(start: Path) -> Path:
    """The folder around `start` that has a `replay.yaml`, else `start` itself."""
    above = (folder for folder in (start, *start.parents) if (folder / WORKFILE).is_file())
    return next(above, start)


def open_workspace(start: Path, store: Path | None, *, create: bool = False) -> Workspace:
    """The workspace around `start`. With `create`, the store is made if there is none; so is the usual one of a
    clone that has only `state_specs/`, but none that was named, perhaps wrongly."""
    root = root_of(start.absolute())
    folder = store.absolute() if store else find_store(root)
    is_clone = folder == root / STORE_NAME and (root / SPECS).is_dir()
    return Workspace(root, open_store(folder, create=create or is_clone))
