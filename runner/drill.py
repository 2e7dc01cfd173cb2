"""Drill: a change that was found to be a cause, taken apart further.

The code goes commit by commit, in first-parent order, where git has both commits and they hold what was recorded; else
file by file. A data folder goes file by file, a package release by release. Everything else stays as in the bad state.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from packaging.version import Version

from runner.bisect import Cause, Found, Problem
from runner.bisect.model import Items
from runner.capture import owned_paths
from runner.diff import Change
from runner.errors import ReplayError, TamperedError, UsageError
from runner.hybrid import Between, Hybrid, fits_python, for_python, is_package, platforms
from runner.layers import code, data, dependencies
from runner.stages import job_of_stage
from runner.state.digest import Digest, digest_bytes
from runner.state.paths import listing_problem
from runner.state.spec import Wheel
from runner.tools import git
from runner.workspace import Workspace

HELD = "releases that the store holds"

Replaced = Callable[[Hybrid, Items], Hybrid]
Releases = Callable[[Wheel, Sequence[str]], tuple[Sequence[str], bool]]
"""All releases of a package, where an index may be asked and has that very wheel; else those given, which the store
has. And whether it was an index that said so."""


class Drill(msgspec.Struct, frozen=True):
    """The parts of one change. `replaced` gives a bad state with only some of them; an ordered drill has a first bad
    one. `among` says where the parts come from, if there may be more elsewhere; `by` how it was taken apart, if there
    is another way."""

    change: Change
    names: tuple[str, ...]
    ordered: bool
    replaced: Replaced
    among: str = ""
    by: str = ""

    @property
    def key(self) -> str:
        """What lines of a log name it by: their numbers are those of its parts, and of no others'."""
        return " ".join(filter(None, (self.change.layer, self.change.name, self.among, self.by)))

    @property
    def problem(self) -> Problem:
        needs = [
            frozenset({item - 1}) if self.ordered and item else frozenset[int]() for item in range(len(self.names))
        ]
        return Problem(tuple(needs))

    @property
    def known(self) -> Found | None:
        """The only part is the change itself, and is proven with it."""
        if len(self.names) > 1:
            return None
        part = frozenset({0})
        return Found((Cause((part,), frozenset(), part, (frozenset(),), proven=True),), proven=True)


def drill_of(workspace: Workspace, between: Between, change: Change, releases: Releases) -> Drill | None:
    """How to take that change apart; None where it has no parts."""
    try:
        if is_package(change):
            return _by_release(workspace, between, change, releases)
        if (change.layer, change.name) == ("code", "files"):
            return _by_commit(workspace, between, change) or _by_code_file(workspace, between, change)
        if change.layer in ("data", "model"):
            return _by_data_file(workspace, between, change)
    except TamperedError:  # a listing that is lost; what was found stands
        return None
    return None


# --- code -----------------------------------------------------------------------------------------------------


def _by_commit(workspace: Workspace, between: Between, change: Change) -> Drill | None:
    first, last = between.good.observed.code.commit, between.bad.observed.code.commit
    if not first or not last or not git.is_work_tree(workspace.root):
        return None
    commits = git.first_parents(workspace.root, first, last)
    if len(commits) < 2:
        return None
    try:
        ends = [code_at(workspace, commit, between.bad.run.job) for commit in (first, last)]
    except ReplayError:
        return None
    if ends != [between.good.state.code, between.bad.state.code]:
        return None  # files that no commit held were part of a run

    def replaced(bad: Hybrid, taken: Items) -> Hybrid:
        commit = commits[max(taken)] if taken else first
        digest = code_at(workspace, commit, between.bad.run.job)
        return msgspec.structs.replace(bad, state=msgspec.structs.replace(bad.state, code=digest))

    names = tuple(f"{commit[:12]} {git.subject(workspace.root, commit)}" for commit in commits)
    return Drill(change, names, True, replaced, by="by commit")


def code_at(workspace: Workspace, commit: str, job: str) -> Digest:
    """The digest of the code as that commit has it, its files in the store. Raises `ReplayError` where it has none."""
    with tempfile.TemporaryDirectory(prefix="replay-commit-") as folder:
        place = Workspace(Path(folder).resolve(), workspace.store)
        git.check_out(workspace.root, commit, place.root)
        owned: set[str] = set()
        if (place.root / code.WORKFILE).is_file():
            jobs = place.workfile().jobs
            if job in jobs:
                owned = set(owned_paths(place, job_of_stage(place.root, jobs[job])))
        return code.keep(workspace.store, place.root, code.observe(place.root, owned))


def _by_code_file(workspace: Workspace, between: Between, change: Change) -> Drill | None:
    store = workspace.store
    sides = [
        {file.path: file for file in code.files_of(store, Digest(one.state.code))}
        for one in (between.good, between.bad)
    ]

    def replaced(bad: Hybrid, files: Sequence[code.CodeFile]) -> Hybrid:
        content = code.listing(tuple(files))
        state = msgspec.structs.replace(bad.state, code=digest_bytes(content))
        return msgspec.structs.replace(bad, state=state, files=(*bad.files, content))

    return _by_file(change, sides, replaced)


# --- data -----------------------------------------------------------------------------------------------------


def _by_data_file(workspace: Workspace, between: Between, change: Change) -> Drill | None:
    layer, path, store = change.layer, change.name, workspace.store
    digests = [getattr(one.state, layer).get(path) for one in (between.good, between.bad)]
    if None in digests or not all(store.blobs.has(Digest(one)) for one in digests):
        return None
    listed = [data.files_of(store, Digest(one)) for one in digests]
    if None in listed:
        return None
    sides = [{file.path: file for file in files or ()} for files in listed]

    def replaced(bad: Hybrid, files: Sequence[data.DataFile]) -> Hybrid:
        content = data.listing(files)
        versions = getattr(bad.state, layer) | {path: digest_bytes(content)}
        state = msgspec.structs.replace(bad.state, **{layer: versions})
        return msgspec.structs.replace(bad, state=state, files=(*bad.files, content))

    return _by_file(change, sides, replaced)


# --- packages -------------------------------------------------------------------------------------------------


def _by_release(workspace: Workspace, between: Between, change: Change, releases: Releases) -> Drill | None:
    """Those after the good one up to the bad one; pre-releases are left out. Of an index, where it may be asked; else
    those of which the store has a wheel."""
    old, new = ({one.name: one for one in side.state.dependencies.locked or ()} for side in (between.good, between.bad))
    if change.name not in old or change.name not in new:
        return None
    wheel, python = new[change.name], between.bad.state.dependencies.python or ""
    first, last = Version(old[change.name].version), Version(wheel.version)
    held = {
        str(Version(one.version)): one
        for one in dependencies.wheels_at_hand(workspace.store)
        if one.name == change.name and fits_python(one.wheel, python) and platforms(one.wheel) & platforms(wheel.wheel)
    }
    listed, by_index = releases(wheel, list(held))
    found = sorted({*map(Version, listed), last})
    names = tuple(str(one) for one in found if first < one <= last and (one == last or not one.is_prerelease))
    if not names or not (by_index or names[1:]):
        return None
    ends = {-1: for_python(old[change.name], python, between.for_other), len(names) - 1: wheel}

    def replaced(bad: Hybrid, taken: Items) -> Hybrid:
        at = max(taken, default=-1)
        release = ends.get(at) or held.get(names[at]) or _fetched(workspace, change.name, names[at], wheel)
        wheels = (release if one.name == change.name else one for one in bad.state.dependencies.locked or ())
        locked = msgspec.structs.replace(bad.state.dependencies, locked=tuple(wheels))
        return msgspec.structs.replace(bad, state=msgspec.structs.replace(bad.state, dependencies=locked))

    return Drill(change, names, True, replaced, "" if by_index else HELD)


def _fetched(workspace: Workspace, name: str, version: str, like: Wheel) -> Wheel:
    from runner.tools import pip

    with tempfile.TemporaryDirectory(prefix="replay-release-", dir=workspace.store.tmp) as folder:
        return dependencies.keep_wheel(workspace.store, pip.download_release(name, version, like.wheel, Path(folder)))


# --- files ----------------------------------------------------------------------------------------------------


def _by_file(
    change: Change, sides: Sequence[Mapping[str, Any]], replaced_by: Callable[[Hybrid, Sequence[Any]], Hybrid]
) -> Drill:
    good, bad = sides
    names = [path for path in sorted(good.keys() | bad.keys()) if good.get(path) != bad.get(path)]

    def replaced(state: Hybrid, taken: Items) -> Hybrid:
        new = {names[item] for item in taken}
        chosen = {path: (bad if path in new or path not in names else good).get(path) for path in {**good, **bad}}
        files = [file for _, file in sorted(chosen.items()) if file is not None]
        if problem := listing_problem([file.path for file in files]):
            raise UsageError("these files cannot stand beside each other", problem)
        return replaced_by(state, files)

    return Drill(change, tuple(names), False, replaced)
