"""There: units of a night, and trials of a bisect, on the workers of a cluster.

    here: push the runs ──run-ids, remote──▶ worker: pull, replay, push ──findings──▶ here: pull the replays
    here: push the state ──spec, remote──▶ worker: fetch, run, push ──run-id──▶ here: pull the trial

A worker gets run-ids, each with the digests of the run that is meant, or a spec, and the remote, nothing more. It has
an engine and a store of its own: REPLAY_STORE there, or a folder in its user's cache. Whether a run may be replayed at
all was decided here.
"""

from __future__ import annotations

import datetime
import hashlib
import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import msgspec
import platformdirs

from runner import own
from runner.errors import (
    Exit,
    InterruptedRunError,
    OutsideError,
    RefusedError,
    ReplayError,
    TamperedError,
    UnrebuildableError,
    UsageError,
)
from runner.remote import goods
from runner.remote.layout import ALWAYS_INLINE
from runner.remote.listed import listed_runs
from runner.remote.pull import pull
from runner.remote.push import push, push_state
from runner.remote.select import remote_of
from runner.replay import at_best, original_of
from runner.replaying import Finding, Told, finding_of_error, replay_unit, trouble_of
from runner.run import Session
from runner.shown import called
from runner.state.decode import decode_json
from runner.state.night import Trouble
from runner.state.record import GOOD, Verdict, worst
from runner.state.spec import StateSpec
from runner.state.strict import dump_spec, load_spec
from runner.state.travel import Lacking
from runner.store.files import write_atomic
from runner.store.runs import Run, new_run_id
from runner.store.store import find_store, open_store
from runner.tools import cluster
from runner.tools.cluster import Cluster
from runner.tools.containers import connect
from runner.tools.interrupts import Interrupts
from runner.tools.remote_fs import Remote
from runner.trials import run_spec
from runner.trust import Consent, admit
from runner.workspace import Workspace

_REMOTE = "replay"
_ATTEMPTS = 4
_OTHER = "the remote holds another spec or record, or a worker ran another state"
_WHO = "find out who can write to the remote, and who reaches the scheduler"
_ERRORS = {
    kind.code: kind for kind in (UsageError, UnrebuildableError, TamperedError, RefusedError, InterruptedRunError)
}
_CONFIG = "[core]\n    remote = {name}\n    no_scm = true\n['remote \"{name}\"']\n    url = {url}\n"


# --- on the worker ------------------------------------------------------------------------------------------------


def replay_here(asked: Mapping[str, Sequence[str]], url: str) -> bytes:
    """Replay runs that the remote has, each the one with that `identity`, and push what came of it. A `Told` as JSON;
    it raises nothing of its own."""
    address, run_ids = cluster.own_address(), list(asked)
    try:
        workspace = worker_workspace(url)
        remote = remote_of(workspace)
        _pulled(workspace, remote, run_ids)
        refuse_others(workspace, asked)
        with closing(connect(store_id=workspace.store.id)) as engine, closing(Interrupts()) as interrupts:
            session = Session(workspace, engine, interrupts, _silent, apart=True)
            told = replay_unit(session, run_ids, consent=None)
        replays = sorted({one.replay for one in told.findings if one.replay})
        push(workspace, remote, [workspace.run(run_id) for run_id in replays], _silent)
    except OutsideError as error:
        told = Told(trouble=trouble_of(error))
    except ReplayError as error:
        told = Told(tuple(finding_of_error(run_id, error) for run_id in run_ids))
    return msgspec.json.encode(msgspec.structs.replace(told, worker=address))


class Tried(msgspec.Struct, frozen=True, omit_defaults=True):
    """The run of a trial, or why there is none."""

    run_id: str = ""
    trouble: Trouble | None = None
    worker: str = ""


def try_here(spec: bytes, url: str) -> bytes:
    """Run a state of which the remote has all that is lacking here, and push the run. It gets a run-id of its own: who
    sent it may have had it run by another worker that was lost since. A `Tried` as JSON."""
    address = cluster.own_address()
    given = load_spec(spec, "the spec of a trial")
    run_id = new_run_id(given.run.job, datetime.datetime.now(datetime.UTC))
    own_spec = msgspec.structs.replace(given, run=msgspec.structs.replace(given.run, id=run_id))
    try:
        workspace = worker_workspace(url)
        with closing(connect(store_id=workspace.store.id)) as engine, closing(Interrupts()) as interrupts:
            run_spec(Session(workspace, engine, interrupts, _silent, apart=True), own_spec)
        push(workspace, remote_of(workspace), [Run(workspace.store, run_id, None)], _silent)
        tried = Tried(run_id, worker=address)
    except ReplayError as error:
        tried = Tried(trouble=trouble_of(error), worker=address)
    return msgspec.json.encode(tried)


def worker_workspace(url: str) -> Workspace:
    """A folder beside the worker's store, of which DVC's default remote is that one."""
    folder = find_store(Path(platformdirs.user_cache_dir("replay")) / "worker")
    root = folder.with_name(f"{folder.name}-of-{hashlib.sha256(url.encode()).hexdigest()[:12]}")
    config = root / ".dvc" / "config"
    if not config.exists():
        config.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(config, _CONFIG.format(name=_REMOTE, url=url).encode())
    return Workspace(root, open_store(folder, create=True))


def _pulled(workspace: Workspace, remote: Remote, run_ids: Sequence[str]) -> None:
    """Raises `OutsideError` for a run that the remote does not have: it was pushed, so the remote is in trouble."""
    listed = listed_runs(remote, run_ids)
    if lost := [run_id for run_id in run_ids if run_id not in listed]:
        raise OutsideError(f"the remote {remote.url} does not have {lost[0]}", "it was pushed there", "look at it")
    pull(workspace, remote, listed, _silent)


def identity(run: Run) -> tuple[str, ...]:
    """Which run it is, whatever it is called: the digests of its spec and of its record."""
    found = goods.of_run(run)
    files = found.manifest.files if found else {}
    return tuple(str(files[name].sha256) for name in sorted(ALWAYS_INLINE & files.keys()))


def refuse_others(workspace: Workspace, asked: Mapping[str, Sequence[str]]) -> None:
    """Consent was given to what the sender has: raises `TamperedError` where the remote has something else."""
    for run_id, known in asked.items():
        if not known or identity(workspace.run(run_id)) != tuple(known):
            raise TamperedError(f"{run_id} is not the run that was asked for", _OTHER, _WHO)


def _silent(_text: str) -> None:
    """What is said while it works is nothing for a night's page."""


# --- here ---------------------------------------------------------------------------------------------------------


class There:
    """Units and trials sent to a cluster, as many at once as it has room for."""

    def __init__(
        self, workspace: Workspace, address: str, workers: int | None = None, consent: Consent | None = None
    ) -> None:
        self._workspace = workspace
        self._consent = consent or Consent()
        self._remote = remote_of(workspace)
        self._apart = Workspace(workspace.store.folder, workspace.store)
        self._cluster = Cluster(address)
        self.count = workers or max(1, self._cluster.slots())
        self._pool = ThreadPoolExecutor(self.count)
        self._pushing = threading.Lock()
        self._stopped = threading.Event()

    def submit(self, run_ids: tuple[str, ...], /) -> Future[Told]:
        return self._pool.submit(self._replayed, run_ids)

    def try_out(self, spec: StateSpec) -> Future[str]:
        """Run the state of a trial; who may be asked for that was decided by the caller."""
        return self._pool.submit(self._tried, spec)

    def stop(self) -> None:
        """What workers are at ends there, and counts no more."""
        self._stopped.set()
        self._cluster.close()
        self._pool.shutdown(cancel_futures=True)

    def _replayed(self, run_ids: tuple[str, ...]) -> Told:
        if self._stopped.is_set():
            raise InterruptedRunError("interrupted")
        try:
            refused, sent = self._sent(run_ids)
            if not sent:
                return Told(tuple(refused))
            asked = {run_id: identity(self._workspace.run(run_id)) for run_id in sent}
            told = decode_json(self._cluster.call(replay_here, asked, self._remote.url), Told)
            if told.trouble:
                self._cluster.spare(told.worker)
                return told
            _pulled(self._apart, self._remote, sorted({one.replay for one in told.findings if one.replay}))
            for one in told.findings:
                refuse_unless_of(self._workspace, one, sent)
            return msgspec.structs.replace(told, findings=(*refused, *told.findings))
        except OutsideError as error:
            return Told(trouble=trouble_of(error))
        except ReplayError as error:
            return Told(tuple(finding_of_error(run_id, error) for run_id in run_ids))

    def _tried(self, spec: StateSpec) -> str:
        """Where a worker, its engine or the remote is in trouble, another one is asked."""
        trouble = Trouble(OutsideError.code, "no worker ran the trial", "", "look at the cluster")
        for _ in range(_ATTEMPTS):
            if self._stopped.is_set():
                raise InterruptedRunError("interrupted")
            tried = self._asked(spec)
            if tried.trouble is None:
                return tried.run_id
            trouble = tried.trouble
            if kind := _ERRORS.get(Exit(trouble.code)):
                raise kind(trouble.what, trouble.why, trouble.next)
            if tried.worker:
                self._cluster.spare(tried.worker)
        raise OutsideError(trouble.what, trouble.why, trouble.next)

    def _asked(self, spec: StateSpec) -> Tried:
        try:
            with self._pushing:
                push_state(self._workspace, self._remote, Run(self._workspace.store, spec.run.id, None), spec)
            tried = decode_json(self._cluster.call(try_here, dump_spec(spec), self._remote.url), Tried)
            if tried.run_id:
                _pulled(self._apart, self._remote, [tried.run_id])
                _take_as_own(Run(self._workspace.store, tried.run_id, None), spec)
        except OutsideError as error:
            return Tried(trouble=trouble_of(error))
        except ReplayError:
            raise
        except (Exception, CancelledError) as error:  # noqa: BLE001 - a cluster raises what it likes
            why = str(error) or type(error).__name__
            return Tried(trouble=Trouble(OutsideError.code, "the worker was lost", why, "look at the cluster"))
        return tried

    def _sent(self, run_ids: Sequence[str]) -> tuple[list[Finding], list[str]]:
        """Push them; those that have a verdict without being replayed, and those that can be."""
        refused: dict[str, Finding] = {}
        for run_id in run_ids:
            run = self._workspace.run(run_id)
            try:
                original = original_of(run)
                admit(self._workspace, run, original.spec, original.record, self._consent)
            except OutsideError:
                raise
            except ReplayError as error:
                refused[run_id] = finding_of_error(run_id, error)
        runs = [self._workspace.run(run_id) for run_id in run_ids if run_id not in refused]
        if runs:
            with self._pushing:
                lacking = push(self._workspace, self._remote, runs, _silent).lacking
            refused |= {run_id: _lost(run_id, one) for one in lacking for run_id in one.runs}
        return list(refused.values()), [run_id for run_id in run_ids if run_id not in refused]


def refuse_unless_of(workspace: Workspace, found: Finding, sent: Collection[str]) -> None:
    """A finding is of a run that was sent, what it names as its replay ran the state of that run, and it calls that no
    better than it can be. Raises `TamperedError`."""
    if found.run_id not in sent:
        raise TamperedError(f"{found.run_id} is no replay of what was sent", _OTHER, _WHO)
    if not found.replay or found.verdict == "not-run":
        if found.verdict in GOOD:
            raise TamperedError(f"no replay shows that {found.run_id} is {found.verdict}", _OTHER, _WHO)
        return
    original = original_of(workspace.run(found.run_id))
    spec, record = Run(workspace.store, found.replay, None).spec_and_record()
    if record is None or spec.digest != original.spec.digest or spec.run.replay_of not in sent:
        raise TamperedError(f"{found.replay} is no replay of what was sent", _OTHER, _WHO)
    best = at_best(original, record)
    if found.verdict != worst([best, Verdict(found.verdict)]):
        why = f"{best} at best, by the digests of its outputs and by how the job ended"
        raise TamperedError(f"{found.replay} was called {found.verdict} to {found.run_id}, and is not", why, _WHO)


def _take_as_own(run: Run, sent: StateSpec) -> None:
    """The user's own it is if it is what was sent, but for its run-id and the machine. Raises `TamperedError`."""
    came, record = run.spec_and_record()
    observed = msgspec.structs.replace(came.observed, host=sent.observed.host)
    if record is None or dump_spec(msgspec.structs.replace(came, run=sent.run, observed=observed)) != dump_spec(sent):
        raise TamperedError(f"{run.id} is not the trial that was asked for", _OTHER, _WHO)
    own.remember(record.spec_sha256)


def _lost(run_id: str, one: Lacking) -> Finding:
    trouble = Trouble(3, f"{called(one.kind, one.name)} cannot be had again", one.why, "`replay fsck --repair`")
    return Finding(run_id=run_id, verdict="unrebuildable", error=trouble)
