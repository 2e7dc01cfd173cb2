"""Where a command works: the folder of `replay.yaml`, its store and its `state_specs/`."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from runner.errors import UsageError
from runner.state.job import Job, Workfile
from runner.store.runs import SPECS, Run, is_run_id, read_spec, resolve_run_id, run_ids
from runner.store.store import STORE_NAME, Store, find_store, open_damaged, open_store

WORKFILE = "replay.yaml"


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
        file = self.root / WORKFILE
        if not file.is_file():
            raise UsageError(
                f"there is no {WORKFILE} in {self.root} or above it",
                "it declares the jobs that can be run",
                "`replay init` writes one; `replay run --image … -- COMMAND` needs none",
            )
        from runner.state.strict import load_workfile

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

    def find_run(self, part: str) -> Run:
        """The run that `part` names: any unique part of a run-id, or the path of a spec."""
        path = Path(part)
        if part.endswith((".yaml", ".yml")) and os.path.isfile(path):
            spec, _ = read_spec(path)
            return Run(self.store, spec.run.id, path.absolute().parent, path.absolute())
        if is_run_id(part) and self.run(part).has_spec():
            return self.run(part)
        return self.run(resolve_run_id(part, self.run_ids()))

    def run_ids(self) -> list[str]:
        return run_ids(self.store, self.specs)


def open_damaged_workspace(start: Path, store: Path | None) -> Workspace:
    """As `open_workspace`, but a store whose `store.json` is lost will do."""
    start = start.absolute()
    root = next((folder for folder in (start, *start.parents) if (folder / WORKFILE).is_file()), start)
    return Workspace(root, open_damaged(store.absolute() if store else find_store(root)))


def open_workspace(start: Path, store: Path | None, *, create: bool = False) -> Workspace:
    """The workspace around `start`. With `create`, the store is made if there is none; so is the usual one of a
    clone that has only `state_specs/`, but none that was named, perhaps wrongly."""
    start = start.absolute()
    above = (folder for folder in (start, *start.parents) if (folder / WORKFILE).is_file())
    root = next(above, start)
    folder = store.absolute() if store else find_store(root)
    is_clone = folder == root / STORE_NAME and (root / SPECS).is_dir()
    return Workspace(root, open_store(folder, create=create or is_clone))
