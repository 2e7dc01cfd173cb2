"""Runs: one folder each, `runs/<run-id>/`, holding its spec, record, logs, their sums, and a lock while it runs.

A run with a record is finished. One without is running when its lock is held, else it was interrupted.
Specs and records also stand in the workspace's `state_specs/`, to be reviewed and shared; there they are
found when the store has never seen the run.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

import msgspec

from runner.errors import RefusedError, TamperedError, UsageError
from runner.shown import few
from runner.state.checked import with_check, without_check
from runner.state.decode import decode_json
from runner.state.digest import canonical, digest_bytes, digest_file
from runner.state.record import Record
from runner.state.spec import StateSpec
from runner.store.files import FileLock, is_locked, remove_tree, write_atomic
from runner.store.store import Store

SPECS = "state_specs"
SUMS = "sums"
TRIAL, VARIED = "bisect", "nightly"
"""Labels of runs that nobody recorded: trials, and what a night varied."""
SIGNED = "sigstore.json"
ATTESTED = (SIGNED, "test-result.sigstore.json", "verdict.sigstore.json", "tlog-proof")
"""What may be signed of a run. The first is written last: a run that has it has them all."""
_REVIEWED = ("spec.yaml", "record.json", *ATTESTED)
"""What also stands in `state_specs/`, as `RUN.yaml`, `RUN.record.json` and so on."""

_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_RUN_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")


class RunStatus(StrEnum):
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FINISHED = "finished"


class Sum(msgspec.Struct, frozen=True, array_like=True):
    """What a file of a finished run is: by it, damage to a log or to one of two copies is told."""

    sha256: str
    size: int


Sums = dict[str, Sum]


def new_run_id(job: str, now: datetime.datetime) -> str:
    """Like `train-20261120-k3v9xq`; the date is UTC."""
    tail = "".join(secrets.choice(_ALPHABET) for _ in range(6))
    return f"{job}-{now:%Y%m%d}-{tail}"


def is_run_id(text: str) -> bool:
    """Whether a run could be called that."""
    return bool(_RUN_ID.fullmatch(text))


class Run:
    """One run as files. `specs` is the workspace's `state_specs` folder, or None outside a workspace;
    `spec_file` a spec that the user named by its path."""

    def __init__(self, store: Store, run_id: str, specs: Path | None, spec_file: Path | None = None) -> None:
        self.id = run_id
        self.folder = store.runs / run_id
        self.scratch = store.scratch / run_id
        self._tmp = store.tmp
        self._specs = specs
        self._spec_file = spec_file
        self._lock = FileLock(self.folder / "lock")
        self._held: list[FileLock] = []

    @property
    def specs(self) -> Path | None:
        """The folder of reviewed copies."""
        return self._specs

    # --- writing

    def begin(self) -> None:
        """Claim the run-id; held by a lock until `end` or the death of this process. Raises `RefusedError` for one that
        is none: a job's name comes from a spec, and a folder is called by it."""
        if not is_run_id(self.id):
            raise RefusedError(f"{self.id!r} is no run-id", "the spec gives its job a name that no job may have")
        self.folder.mkdir(parents=True)
        self._lock.acquire()

    def write_spec(self, spec: StateSpec) -> bytes:
        """Write the spec, once, before the job starts; returns its bytes."""
        from runner.state.strict import dump_spec

        data = dump_spec(spec)
        write_atomic(self.folder / "spec.yaml", data, through=self._tmp)
        if self._specs:
            self._specs.mkdir(exist_ok=True)
            write_atomic(self._specs / f"{self.id}.yaml", data, through=self._tmp)
        return data

    def write_record(self, record: Record) -> bytes:
        """Returns its bytes."""
        from runner.state.strict import dump_record

        data = dump_record(record)
        if self._specs:
            write_atomic(self._specs / f"{self.id}.record.json", data, through=self._tmp)
        self._write_own_record(data)
        return data

    def write_attested(self, name: str, data: bytes) -> None:
        """Keep one of `ATTESTED` beside each copy of the record."""
        if self._specs:
            write_atomic(self._specs / f"{self.id}.{name}", data, through=self._tmp)
        if self.folder.is_dir():
            write_atomic(self.folder / name, data, durable=not self._specs, through=self._tmp)

    def _write_own_record(self, data: bytes) -> None:
        self.write_sums({"record.json": Sum(digest_bytes(data), len(data))})
        write_atomic(self.folder / "record.json", data, through=self._tmp)

    def hold(self, folder: Path) -> bool:
        """Keep a folder from being dropped until `end`, or the death of this process; False when it is gone."""
        lock = FileLock(folder)
        try:
            lock.acquire_folder()
        except FileNotFoundError:
            return False
        self._held.append(lock)
        return lock.is_in_place()

    @contextmanager
    def being_replayed(self) -> Iterator[None]:
        """While this is held, the run is not forgotten, and so all that it needs is kept."""
        lock = FileLock(self.folder)
        with contextlib.suppress(FileNotFoundError):
            lock.acquire_folder()
        try:
            yield
        finally:
            lock.release()

    def is_being_replayed(self) -> bool:
        return FileLock(self.folder).is_folder_held()

    def write_sums(self, known: Sums) -> None:
        """Of the files in the folder as they are now, and of those that are `known` already."""
        names = {entry.name for entry in self.folder.iterdir() if entry.is_file() and entry.name[0] != "."}
        names -= {"lock", SUMS, *known}
        sums = {name: Sum(digest_file(self.folder / name), (self.folder / name).stat().st_size) for name in names}
        write_atomic(self.folder / SUMS, with_check(canonical(known | sums)), durable=False, through=self._tmp)

    def settle(self) -> None:
        """Finish what a killed command had begun: of the record's two copies one was written, when all else was."""
        reviewed = self._specs / f"{self.id}.record.json" if self._specs else None
        if reviewed and reviewed.is_file() and self.folder.is_dir() and not (self.folder / "record.json").exists():
            self._write_own_record(reviewed.read_bytes())

    def end(self) -> None:
        for lock in (*self._held, self._lock):
            lock.release()

    def own_files(self) -> dict[str, Path]:
        """What there is of a finished run by its name in the store: specs, record, logs, what was signed. The reviewed
        copy stands in where the store has none."""
        found = {} if self._specs is None else {name: self._reviewed(name) for name in _REVIEWED}
        found = {name: path for name, path in found.items() if path.is_file()}
        if self.folder.is_dir():
            entries = [entry for entry in self.folder.iterdir() if entry.name[0] != "." and entry.is_file()]
            found |= {entry.name: entry for entry in entries if entry.name != "lock"}
        return found

    def is_apart(self) -> bool:
        """Whether `state_specs/` has no copy of it: replays of nights and trials of bisects are in the store alone."""
        return self._specs is None or not self._reviewed("spec.yaml").is_file()

    def is_in_store(self) -> bool:
        """Whether more of it may be here than the copies in `state_specs/`, which git brings to a clone."""
        return self.folder.is_dir()

    def lacks(self, name: str) -> bool:
        """Whether the store, or `state_specs/` where it belongs there too, has no such file of the run."""
        reviewed = self._specs and name in _REVIEWED and not self._reviewed(name).is_file()
        return bool(reviewed) or not (self.folder / name).is_file()

    def take_in(self, files: Mapping[str, Path]) -> None:
        """Add files of the run that came from elsewhere, by hard link or copy; those that are here stay. The store's
        folder of a run that it never saw appears whole."""
        self.put_to_review(files)
        into = self.folder if self.folder.is_dir() else self._tmp / f"pulled-{self.id[:80]}-{secrets.token_hex(6)}"
        into.mkdir(parents=True, exist_ok=True)
        for name, source in files.items():
            if not (into / name).exists():
                write_atomic(into / name, source.read_bytes(), durable=False, through=self._tmp)
        if into != self.folder:
            into.rename(self.folder)

    def put_to_review(self, files: Mapping[str, Path]) -> list[Path]:
        """Copy into `state_specs/` what belongs there of the files and is not there yet; returns the copies."""
        if self._specs is None:
            return []
        self._specs.mkdir(exist_ok=True)
        lacking = [name for name in _REVIEWED if name in files and not self._reviewed(name).exists()]
        for name in lacking:
            write_atomic(self._reviewed(name), files[name].read_bytes(), through=self._tmp)
        return [self._reviewed(name) for name in lacking]

    def _reviewed(self, name: str) -> Path:
        assert self._specs
        return self._specs / f"{self.id}.{'yaml' if name == 'spec.yaml' else name}"

    def forget(self) -> None:
        """Remove spec, record and logs, the reviewed copies too."""
        remove_tree(self.folder, self._tmp)
        if self._specs:
            for name in (*ATTESTED, "record.json", "yaml"):
                (self._specs / f"{self.id}.{name}").unlink(missing_ok=True)

    # --- reading

    def status(self) -> RunStatus:
        if self._has_record():
            return RunStatus.FINISHED
        if is_locked(self.folder / "lock"):
            return RunStatus.RUNNING
        # It may have been finished, and its lock let go of, since it was asked for.
        return RunStatus.FINISHED if self._has_record() else RunStatus.INTERRUPTED

    def _has_record(self) -> bool:
        return self._find("record.json", f"{self.id}.record.json") is not None

    def is_signed(self) -> bool:
        """Whether it has a signature, good or not; `verify` tells."""
        return self._find(SIGNED, f"{self.id}.{SIGNED}") is not None

    def copies(self, in_store: str, in_specs: str) -> tuple[bytes, ...]:
        """The bytes of each copy of a file of the run, the reviewed one first."""
        places = [self._specs / f"{self.id}.{in_specs}"] if self._specs else []
        return tuple(place.read_bytes() for place in (*places, self.folder / in_store) if place.is_file())

    def sums(self) -> Sums:
        """Of its files, as they were when it was recorded; none where they are lost."""
        file = self.folder / SUMS
        return (read_sums(file.read_bytes()) if file.is_file() else None) or {}

    def is_gone(self) -> bool:
        """Whether somebody removed it meanwhile."""
        return not self.folder.exists() and not self.has_spec()

    def has_spec(self) -> bool:
        """Whether a spec was written before the run was cut off, if it was."""
        return self._find("spec.yaml", f"{self.id}.yaml") is not None

    def spec_stamp(self) -> str:
        """What the file system says of the spec's copies: it is another one when they were changed. Empty without any.
        Strings and os.stat, as this is asked of thousands of runs."""
        places = [f"{self.folder}/spec.yaml", *([f"{self._specs}/{self.id}.yaml"] if self._specs else [])]
        found = []
        for place in places:
            with contextlib.suppress(OSError):
                seen = os.stat(place)
                found.append(f"{seen.st_ino}.{seen.st_size}.{seen.st_mtime_ns}")
        return " ".join(found)

    def spec(self) -> StateSpec:
        """The spec, checked against the digest that it states."""
        return self._spec_and_bytes()[0]

    def record(self) -> Record | None:
        """The record, or None when the run was interrupted or is still going on."""
        from runner.state.strict import load_record

        path = self._find("record.json", f"{self.id}.record.json")
        if path is None:
            return None
        with self._unless_removed():
            self._refuse_changed("record.json", path)
            return load_record(path.read_bytes(), str(path))

    def spec_and_record(self) -> tuple[StateSpec, Record | None]:
        """Both, each checked against the other. Raises `TamperedError` when they do not belong together."""
        spec, data, path = self._spec_and_bytes()
        record = self.record()
        if record and digest_bytes(data) != record.spec_sha256:
            raise TamperedError(
                f"the spec of {self.id} is not the one that its record was made for",
                f"{path} was changed after the run",
                f"restore it (`git checkout -- {path.name}`), or copy {self.id}.yaml from another clone",
            )
        if record and record.state_digest != spec.digest:
            raise TamperedError(f"the record of {self.id} is for another state", f"it names {record.state_digest}")
        return spec, record

    def _spec_and_bytes(self) -> tuple[StateSpec, bytes, Path]:
        path = self._spec_file or self._find("spec.yaml", f"{self.id}.yaml")
        if path is None:
            raise UsageError(f"run {self.id} has no spec", "it was cut off before one was written")
        with self._unless_removed():
            self._refuse_changed("spec.yaml", path)
            spec, data = read_spec(path)
        return spec, data, path

    @contextmanager
    def _unless_removed(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise UsageError(f"{self.id} was removed meanwhile", "another command forgot it") from error

    def _refuse_changed(self, in_store: str, path: Path) -> None:
        """Nobody changes a spec or record, so the reviewed file and the store's must be the same, and as summed. Asked
        before either is read: what cannot be read any more was changed too."""
        kept, data = self.folder / in_store, path.read_bytes()
        if kept.is_file() and kept.read_bytes() != data:
            raise TamperedError(
                f"{path} is not what the store keeps of {self.id}",
                f"it differs from {kept}; one of the two was changed after the run",
                f"`replay fsck --repair` restores the one that was changed; `diff {kept} {path}` shows how they differ",
            )
        known = self.sums()
        if in_store in known and known[in_store].sha256 != digest_bytes(data):
            raise TamperedError(
                f"{path} is not what was written",
                f"its digest is not the one in {self.folder / SUMS}",
                "restore it from git or from a copy of the store; `replay fsck` tells what else is damaged",
            )

    def _find(self, in_store: str, in_specs: str) -> Path | None:
        """The reviewed file in `state_specs/` counts first: an edit there must not pass unseen."""
        places = [self.folder / in_store]
        if self._specs:
            places.insert(0, self._specs / in_specs)
        return next((place for place in places if place.is_file()), None)


def run_id_of(file_name: str) -> str | None:
    """The run of which a file in `state_specs/` is called so."""
    for ending in sorted((*ATTESTED, "record.json", "yaml"), key=len, reverse=True):
        if file_name.endswith(f".{ending}"):
            return file_name.removesuffix(f".{ending}")
    return None


def read_sums(kept: bytes) -> Sums | None:
    """None for what is not whole."""
    try:
        return decode_json(without_check(kept), Sums)
    except msgspec.DecodeError:
        return None


def read_spec(path: Path) -> tuple[StateSpec, bytes]:
    """A spec and its bytes, the stated digest checked. Raises `TamperedError` when it does not fit."""
    # YAML takes 20 ms of imports, and listing runs that are indexed reads none.
    from runner.state.strict import check_digest, load_spec

    data = path.read_bytes()
    spec = load_spec(data, str(path))
    check_digest(spec, str(path))
    return spec, data


def run_ids(store: Store | None, specs: Path | None) -> list[str]:
    """Every run-id known to the store or to `state_specs/`, sorted."""
    names = os.listdir(store.runs) if store else []
    if specs and specs.is_dir():
        names += [name.removesuffix(".yaml") for name in os.listdir(specs) if name.endswith(".yaml")]
    return sorted(filter(_RUN_ID.fullmatch, set(names)))


def resolve_run_id(part: str, known: list[str], recorded: Callable[[list[str]], list[str]] = lambda fits: fits) -> str:
    """The one run-id that `part` is a part of; of several, the only one of the job that is called so, and of these the
    only one that `recorded` leaves. Raises `UsageError` when none or several fit."""
    if part in known:
        return part
    fits = [run_id for run_id in known if part and part in run_id]
    if len(fits) > 1:
        fits = [run_id for run_id in fits if run_id.rsplit("-", 2)[0] == part] or fits
    if len(fits) > 1:
        fits = recorded(fits) or fits
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise UsageError(f"{part!r} fits several runs", few(fits, 5), "give more of the run-id")
    raise UsageError(f"no run is called {part!r}", f"{len(known)} runs are known here", "list them with `replay ls`")
