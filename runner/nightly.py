"""Nightly: which runs → units → replayed, as many at once as asked for → what moved since the night before → the night.

    index, nights ─select, order→ units ⇄ workers → findings ─moves→ night ─causes, pins→ night

Workers are threads here or on other machines; what a unit came to counts once, however often it was tried. What is
kept in memory of each run is a line or two.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import msgspec

from runner.causes import bisected, can_be_bisected, outside, unlooked
from runner.erased import lost_states
from runner.errors import Exit, InterruptedRunError, OutsideError, ReplayError, ReplayWarning, disk_error
from runner.night.moves import Move, Past, Seen, step
from runner.night.order import units
from runner.night.schedule import PATIENCE_S, Schedule, Unit
from runner.night.select import (
    Candidate,
    Released,
    Releases,
    idle,
    may_be_empty,
    meant,
    names_releases,
    nothing_selected,
    select,
)
from runner.replaying import Finding, Told, own_trouble, replay_unit, trouble_of
from runner.run import Session
from runner.seal import Sealer
from runner.shown import few
from runner.state.job import LOCAL
from runner.state.moment import moment_text
from runner.state.night import MOST_LEFT_OUT, MOST_OUTPUTS, Night, NightRow, NightRun, PinTrouble, Trouble, Unlooked
from runner.state.record import EXIT_OF_VERDICT, GOOD, OutputVerdict, Verdict, worst
from runner.store.index import Row, is_recorded, rows
from runner.store.nights import NightKind, Nights
from runner.tools.containers import Engine
from runner.tools.escalation import escalate
from runner.tools.interrupts import Interrupts
from runner.trust import Consent
from runner.varied import Variation
from runner.workspace import Workspace

SUITE = "nightly"
_OUTCOMES = frozenset({"ok", "failed", "halted", "unreadable"})
_MOVES = ("regressed", "failing", "flaky", "not-run", "fixed", "new", "steady")

Tell = Callable[[NightRun], None]
At = Callable[[int, int, Sequence[str]], None]
"""How many runs are done, of how many, and a run of each unit that is being replayed."""
Again = Callable[[str, Trouble], None]
"""A run of a unit that is going to be tried again, and what it met."""
Pins = Callable[[list[str]], tuple[PinTrouble, ...] | None]
"""What these runs need that is in danger; None where that could not be looked at."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for: a suite of `replay.yaml`, and what the command line says instead of it. Without `workers`, as
    many replays at once as the place has room for."""

    suite: str = SUITE
    select: tuple[str, ...] = ("all",)
    on: str = LOCAL
    workers: int | None = None
    budget_s: float | None = None
    patience_s: float = PATIENCE_S
    bisect: bool = False
    against: str = ""
    setting: tuple[str, ...] = ()
    on_regression: tuple[str, ...] = ()

    @property
    def varies(self) -> bool:
        return bool(self.against or self.setting)

    @property
    def variation(self) -> Variation | None:
        return Variation(self.against, self.setting) if self.varies else None


class Kept(msgspec.Struct, frozen=True):
    """A night that is in the history, and what ended it before all was looked at, if anything did."""

    night: Night
    trouble: Trouble | None = None


class Workers(Protocol):
    """Where units are replayed."""

    def submit(self, run_ids: tuple[str, ...], /) -> Future[Told]: ...

    def stop(self) -> None:
        """End what is going on, and wait until it has."""


class Clock:
    """The time, and waiting."""

    def now(self) -> datetime.datetime:
        return datetime.datetime.now(datetime.UTC)

    def elapsed(self) -> float:
        return time.monotonic()

    def wait(self, flying: Iterable[Future[Told]], seconds: float | None) -> set[Future[Told]]:
        """Until something ends, or `seconds` have passed; what has ended."""
        if not flying:
            threading.Event().wait(seconds)
            return set()
        done, _ = concurrent.futures.wait(flying, seconds, return_when=concurrent.futures.FIRST_COMPLETED)
        return done


# --- workers here ---------------------------------------------------------------------------------------------


class Here:
    """Threads of this process. The engine is connected to when the first unit needs it, and again if that failed."""

    def __init__(
        self,
        workspace: Workspace,
        connect: Callable[[], Engine],
        sealer: Sealer | None,
        workers: int,
        variation: Variation | None = None,
        consent: Consent | None = None,
    ) -> None:
        self._workspace = workspace
        self._connect = connect
        self._sealer = sealer
        self._variation = variation
        self._consent = consent or Consent()
        self._pool = ThreadPoolExecutor(workers)
        self._engine: Engine | None = None
        self._lock = threading.Lock()
        self._interrupts: set[Interrupts] = set()
        self._stopping = False

    def submit(self, run_ids: tuple[str, ...], /) -> Future[Told]:
        return self._pool.submit(self._replay, run_ids)

    def stop(self) -> None:
        with self._lock:
            self._stopping = True
            for interrupts in self._interrupts:
                interrupts.request()
        self._pool.shutdown(cancel_futures=True)

    def _replay(self, run_ids: tuple[str, ...]) -> Told:
        interrupts = Interrupts()
        try:
            with self._lock:
                if self._stopping:
                    raise InterruptedRunError("interrupted")
                self._interrupts.add(interrupts)
                self._engine = self._engine or self._connect()
                engine = self._engine
            session = Session(self._workspace, engine, interrupts, _silent, None, self._sealer, apart=True)
            return replay_unit(session, run_ids, self._variation, consent=self._consent)
        except OutsideError as error:
            return Told(trouble=trouble_of(error))
        finally:
            with self._lock:
                self._interrupts.discard(interrupts)
            interrupts.close()


def _silent(_text: str) -> None:
    """What a replay says while it works is nothing for a night's page."""


# --- what there is ----------------------------------------------------------------------------------------------


class Known(msgspec.Struct, frozen=True):
    """What is known before a night: the runs it could replay, what the nights before saw of them, when and how long
    each was replayed last, and which replay of it was the last good one. `gone` are runs of the night before that were
    removed since, or lack what was erased since."""

    candidates: tuple[Candidate, ...]
    pasts: Mapping[str, Past]
    last_replayed: Mapping[str, str]
    took_s: Mapping[str, float]
    last_good: Mapping[str, str]
    gone: tuple[str, ...] = ()


def _releases(workspace: Workspace, request: Request) -> dict[str, Released]:
    if not names_releases(request.select):
        return {}
    known = workspace.releases.all()
    return {one.release.name: Released(one.release.run, one.status == "current") for one in known}


def known(workspace: Workspace, nights: Nights, request: Request, releases: Releases) -> Known:
    listed = rows(workspace.store.folder / "index.sqlite", workspace.run_ids(), workspace.run)
    released = {one.run_id for one in releases.values()}
    listed = [row for row in _without_erased(workspace, listed) if _is_read(row) or _could_be(workspace, row, released)]
    originals = [row for row in listed if _is_original(row) or row.run_id in released]
    verdicts: dict[str, tuple[str, str]] = {}
    replayed: dict[str, str] = {}
    took: dict[str, float] = {row.run_id: row.duration_s or 0.0 for row in originals}
    pasts: dict[str, Past] = {}
    last_good: dict[str, str] = {}
    night_before, watched = nights.last(NightKind(request.suite, request.against, request.setting)), set[str]()

    def saw(run_id: str, when: str, verdict: str) -> None:
        verdicts[run_id] = max(verdicts.get(run_id, ("", "")), (when, verdict))
        if verdict != "not-run":
            replayed[run_id] = max(replayed.get(run_id, ""), when)

    for row in listed:
        if row.replay_of and row.verdict and not request.varies:
            saw(row.replay_of, row.created, row.verdict)
    for past in nights.rows():
        if (past.against, past.setting) != (request.against, " ".join(request.setting)):
            continue
        saw(past.run_id, past.started, past.verdict)
        took[past.run_id] = past.duration_s or took.get(past.run_id, 0.0)
        if past.verdict in GOOD and past.replay:
            last_good[past.run_id] = past.replay
        if past.suite == request.suite:
            watched |= {past.run_id} if past.night == night_before else set()
            pasts[past.run_id], _ = step(pasts.get(past.run_id, Past()), _seen(past))
    candidates = tuple(_candidate(row, verdicts.get(row.run_id, ("", ""))[1]) for row in originals)
    gone = watched.difference(row.run_id for row in listed)
    return Known(candidates, pasts, replayed, took, last_good, tuple(sorted(gone)))


def _without_erased(workspace: Workspace, listed: Sequence[Row]) -> list[Row]:
    """No night can replay what was erased, and none is to tell of it again and again."""
    of_each_state = {row.state_digest: workspace.run(row.run_id) for row in listed if _is_read(row)}
    lost = lost_states(workspace.store, workspace.specs, of_each_state)
    return [row for row in listed if row.state_digest not in lost]


def _is_read(row: Row) -> bool:
    return row.outcome != "unreadable"


def _could_be(workspace: Workspace, row: Row, released: Collection[str]) -> bool:
    """Whether a run that cannot be read was recorded by somebody, for all that is left of it to tell: replays of nights
    and trials are in the store alone, and of other replays the spec or the record may still say so."""
    run = workspace.run(row.run_id)
    if row.run_id in released or run.is_apart():
        return row.run_id in released
    with contextlib.suppress(ReplayError):
        if run.spec().run.replay_of:
            return False
    with contextlib.suppress(ReplayError):
        record = run.record()
        return record is None or record.replay is None
    return True


def _is_original(row: Row) -> bool:
    return is_recorded(row) and row.outcome in _OUTCOMES


def _candidate(row: Row, last: str) -> Candidate:
    job = row.job or row.run_id.rsplit("-", 2)[0]
    return Candidate(row.run_id, job, row.created, row.state_digest, row.labels, last, _is_read(row))


def _seen(row: NightRow) -> Seen:
    return Seen(row.night, row.verdict, row.replays, row.disagreed, row.ran, row.bad_outputs)


# --- the night --------------------------------------------------------------------------------------------------


def run_night(
    workspace: Workspace,
    nights: Nights,
    request: Request,
    workers: Workers,
    clock: Clock,
    tell: Tell,
    here: Callable[[], Session],
    pins_of: Pins = lambda _run_ids: (),
    at: At = lambda _done, _total, _flying: None,
    again: Again = lambda _run_id, _trouble: None,
    keep: Callable[[Night], None] | None = None,
) -> Kept:
    """Replay what the suite selects; what moved. `tell` is called for each run as soon as its verdict is known; `here`
    connects to the engine of this machine, for a bisect; `pins_of` looks at what runs need; `at` is told what is going
    on, `again` what is tried again. `keep` writes the night when all is replayed, and again with whatever is found
    then: from the first time on neither an interrupt nor an error loses it."""
    started = clock.now()
    night_id = nights.new_id(request.suite, started)
    releases = _releases(workspace, request)
    before = known(workspace, nights, request, releases)
    chosen = select(request.select, before.candidates, releases, started)
    if not chosen and not (before.candidates and may_be_empty(request.select)):
        raise nothing_selected(request.suite, request.select, before.candidates, len(before.gone))
    unmatched = idle(request.select, before.candidates, releases, started)
    _warn_of(unmatched, before.candidates)
    by_id = {one.run_id: one for one in chosen}
    runs: list[NightRun] = []

    def note(unit: Unit, told: Told, attempts: int) -> None:
        for finding in _complete(unit, told):
            past = before.pasts.get(finding.run_id, Past())
            run = _night_run(night_id, by_id[finding.run_id], finding, past, attempts, told.worker)
            if run.moved == "regressed":
                run = outside(workspace, run, before.last_good.get(run.run_id, run.run_id))
            runs.append(run)
            tell(run)

    ordered = units(chosen, before.last_replayed, lambda run_id: before.took_s.get(run_id, 0.0))
    deadline = None if request.budget_s is None else clock.elapsed() + request.budget_s
    schedule = Schedule(ordered, request.workers or 1, deadline, request.patience_s)
    is_stopped = False
    try:
        _go(schedule, workers, clock, note, lambda flying: at(len(runs), len(chosen), flying), again)
    except (KeyboardInterrupt, InterruptedRunError):
        is_stopped = len(runs) + sum(len(unit.runs) for unit in schedule.left_out) == len(chosen)
        if not is_stopped:
            raise InterruptedRunError("interrupted", "the night was ended before all was replayed") from None
    runs.sort(key=_reading_order)
    asking = [run for run in runs if request.bisect and run.moved == "regressed" and can_be_bisected(run)]
    causes: tuple[Unlooked, ...] = ("causes",) if asking else ()
    pins: tuple[Unlooked, ...] = () if request.varies else ("pins",)
    left_out = [run_id for unit in schedule.left_out for run_id in unit.runs]
    night = Night(
        night=night_id,
        suite=request.suite,
        started=moment_text(started),
        ended=moment_text(clock.now()),
        runs=tuple(unlooked(run) if run in asking else run for run in runs),
        counts=dict(sorted(Counter(run.verdict for run in runs).items())),
        on=request.on,
        against=request.against,
        setting=request.setting,
        left_out=len(left_out),
        left_out_runs=tuple(left_out[:MOST_LEFT_OUT]),
        as_recorded=sum(bool(run.replay) and not run.ran for run in runs) if request.setting else 0,
        unmatched=tuple(unmatched),
        gone=before.gone,
        not_looked_at=causes + pins,
    )

    def cause_of(run: NightRun) -> NightRun:
        left = None if deadline is None else max(0.0, deadline - clock.elapsed())
        return bisected(here, run, request.workers or 1, left)

    looks = _looks(night, asking, cause_of, lambda: pins_of([one.run_id for one in chosen]))
    ended = lambda night: msgspec.structs.replace(night, ended=moment_text(clock.now()))  # noqa: E731
    return _looked_at(night, map(ended, looks), keep or nights.write, is_stopped)


def _looked_at(night: Night, looks: Iterable[Night], keep: Callable[[Night], None], is_stopped: bool) -> Kept:
    """The last of what `looks` find that could be had, kept as it comes."""
    is_kept = False
    try:
        keep(night)
        is_kept = True
        if is_stopped:
            raise KeyboardInterrupt
        for night in looks:
            keep(night)
    except (KeyboardInterrupt, InterruptedRunError):
        return Kept(night, Trouble(Exit.INTERRUPTED, "interrupted", "the night is kept as it was by then", ""))
    except Exception as error:
        if not is_kept:
            raise
        if isinstance(error, OSError):
            error = disk_error(error, "look at the night to its end")
        return Kept(night, trouble_of(error) if isinstance(error, ReplayError) else own_trouble(error))
    return Kept(night)


def _looks(
    night: Night,
    asking: Sequence[NightRun],
    cause_of: Callable[[NightRun], NightRun],
    pins: Callable[[], tuple[PinTrouble, ...] | None],
) -> Iterator[Night]:
    """The night with each cause in turn, then with its pins."""
    for run in asking:
        found = cause_of(run)
        runs = tuple(found if one.run_id == run.run_id else one for one in night.runs)
        missing = night.not_looked_at if run is not asking[-1] else _without(night, "causes")
        night = msgspec.structs.replace(night, runs=runs, not_looked_at=missing)
        yield night
    if "pins" in night.not_looked_at and (troubles := pins()) is not None:
        yield msgspec.structs.replace(night, pins=troubles, not_looked_at=_without(night, "pins"))


def _without(night: Night, looked: Unlooked) -> tuple[Unlooked, ...]:
    return tuple(one for one in night.not_looked_at if one != looked)


def _warn_of(unmatched: Iterable[str], candidates: Sequence[Candidate]) -> None:
    no_run = "no run" if all(one.is_read for one in candidates) else "no run that can be read"
    for term in unmatched:
        said = meant(term, candidates)
        warnings.warn(f"select: {no_run} fits {term}" + (f": {said}" if said else ""), ReplayWarning, stacklevel=3)


def _go(
    schedule: Schedule,
    workers: Workers,
    clock: Clock,
    note: Callable[[Unit, Told, int], None],
    at: Callable[[Sequence[str]], None],
    again: Again,
) -> None:
    """Until every unit has ended, one way or another, or an interrupt ends it."""
    flying: dict[Future[Told], Unit] = {}
    try:
        while not schedule.done:
            now = clock.elapsed()
            for unit in schedule.start(now):
                flying[workers.submit(unit.runs)] = unit
            if schedule.done:
                break
            at([unit.runs[0] for unit in flying.values()])
            for future in clock.wait(flying, schedule.wake(now)):
                unit, told = flying.pop(future), _told(future)
                if told.trouble is None:
                    note(unit, told, schedule.succeeded(unit))
                    continue
                given_up = schedule.troubled(unit, told.trouble, clock.elapsed())
                if not given_up:
                    again(unit.runs[0], told.trouble)
                for ended in given_up:
                    note(ended.unit, Told(trouble=ended.trouble, worker=told.worker), ended.attempts)
    finally:
        workers.stop()


def _told(future: Future[Told]) -> Told:
    """What is lost with its worker is trouble as well."""
    try:
        return future.result()
    except InterruptedRunError:
        raise
    except (Exception, concurrent.futures.CancelledError) as error:  # noqa: BLE001 - a cluster raises what it likes
        why = str(error) or type(error).__name__
        return Told(trouble=Trouble(Exit.OUTSIDE, "the worker was lost", why, "look at the cluster"))


def _complete(unit: Unit, told: Told) -> list[Finding]:
    """A finding for each run of the unit, exactly one."""
    found = {finding.run_id: finding for finding in told.findings}
    return [found.get(run_id, Finding(run_id=run_id, verdict="not-run", error=told.trouble)) for run_id in unit.runs]


def _night_run(night: str, one: Candidate, found: Finding, past: Past, attempts: int, worker: str) -> NightRun:
    seen = Seen(night, found.verdict, found.replays, found.disagreed, found.ran, found.bad_outputs)
    _, move = step(past, seen)
    return NightRun(
        run_id=one.run_id,
        job=one.job,
        verdict=found.verdict,
        moved=move.moved,
        since=move.since,
        state_digest=one.state_digest,
        before=move.before,
        labels=one.labels,
        replay=found.replay,
        started=found.started,
        duration_s=found.duration_s,
        attempts=attempts,
        worker=worker,
        outputs=_worst_first(found, move.worse),
        changes=found.changes,
        kind=found.kind,
        evidence=(*found.evidence, *_since_last_night(move)),
        flaky=move.flaky,
        error=found.error,
        command=f"replay diff {one.run_id} {found.replay}" if found.ran and found.replay else f"replay {one.run_id}",
        replays=found.replays,
        disagreed=found.disagreed,
        ran=found.ran,
        bad_outputs=found.bad_outputs,
    )


def _worst_first(found: Finding, worse: Sequence[str]) -> tuple[OutputVerdict, ...]:
    """What got worse tonight before what was so already."""
    order = list(Verdict)
    ranked = sorted(found.outputs, key=lambda one: (one.path not in worse, -order.index(one.verdict), one.path))
    return tuple(ranked[:MOST_OUTPUTS])


def _since_last_night(move: Move) -> Iterable[str]:
    """What became of the outputs of a run that was bad already."""
    if move.worse:
        yield f"worse than last night: {few(move.worse, 3)}"
    if move.other:
        differs = "differs" if len(move.other) == 1 else "differ"
        yield f"{few(move.other, 3)} {differs} from last night's, too"


def _reading_order(run: NightRun) -> tuple[int, int, str]:
    verdicts = [*map(str, Verdict), "not-run"]
    return _MOVES.index(run.moved), -verdicts.index(run.verdict), run.run_id


# --- what follows from it -----------------------------------------------------------------------------------------


def is_news(night: Night, run: NightRun) -> bool:
    """Whether somebody must look at it: it got worse tonight."""
    newly_flaky = run.moved == "flaky" and run.since == night.night and run.verdict not in GOOD
    return run.moved == "regressed" or newly_flaky


def call_out(workspace: Workspace, request: Request, night: Night) -> str:
    """Run the suite's command where something got worse, the night on its stdin; how it ended, if it was run."""
    if not request.on_regression or not any(is_news(night, run) for run in night.runs):
        return ""
    return escalate(request.on_regression, msgspec.json.encode(night), workspace.root)


def exit_of(night: Night) -> Exit:
    """That of the worst of what got worse; else 7 where a run ended as `not-run`."""
    news = [Verdict(run.verdict) for run in night.runs if is_news(night, run)]
    if news:
        return EXIT_OF_VERDICT[worst(news)]
    if any(run.error and run.error.code == Exit.INTERNAL for run in night.runs):
        return Exit.INTERNAL
    return Exit.OUTSIDE if any(run.moved == "not-run" for run in night.runs) else Exit.OK
