"""Bisecting: the changes between two runs, tried on the engine as the search asks, until the cause is proven.

    between two runs → changes, what must go with what → search ⇄ trials → cause

A trial is an ordinary run of a hybrid state, labelled `bisect` and kept in the store alone: it can be shown, compared
and replayed like any other. All that a bisect knows is its log, a line for each trial; whatever ends it, the next
command goes on from there.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import msgspec

from runner.bisect import Ask, Found, Outcome, Tally, ask
from runner.bisect.model import Items
from runner.drill import Drill, drill_of
from runner.errors import InterruptedRunError, UnrebuildableError, UsageError
from runner.history import Turn, turn
from runner.judge import Ends, Judge, Judged, RunProgram, Wanted, make_judge
from runner.run import Session, sweep
from runner.state.digest import digest_value, hex_of
from runner.state.spec import HostSeen, Wheel
from runner.store.bisects import BisectFolder, Line
from runner.store.runs import Run
from runner.suspects import Setup, finished, set_up
from runner.tools.interrupts import Interrupts
from runner.trials import run_trial
from runner.workspace import Workspace

LOOKS = 3
"""How often each end is looked at, the recorded run included, before anything is tried."""


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is asked for; `seconds` and `trials` are a budget. `releases`: an index may be asked for those of a package
    that is a cause."""

    good: str
    bad: str
    judge: Wanted = Wanted()
    workers: int = 1
    seconds: float | None = None
    trials: int | None = None
    history: bool = True
    releases: bool = False


class Drilled(msgspec.Struct, frozen=True):
    """What of a cause's parts was found to be it; `found` is absent when that was cut off."""

    drill: Drill
    found: Found | None
    trials: int


class Result(msgspec.Struct, frozen=True):
    """Where a bisect stands. `found` is absent when it was cut off, or when an end does not reproduce, which
    `unreproduced` says. `asked` is what comes next, of the search or of a drill; `passed` counts the recorded runs
    between those that were asked about."""

    id: str
    setup: Setup
    lines: tuple[Line, ...]
    seen: Mapping[Items, Tally]
    found: Found | None = None
    passed: int = 0
    asked: Ask | None = None
    asked_of: Drill | None = None
    drilled: tuple[Drilled, ...] = ()
    unreproduced: str = ""
    then: HostSeen = HostSeen()
    now: HostSeen = HostSeen()

    @property
    def everything(self) -> Items:
        return self.setup.problem.everything

    def is_end(self, line: Line) -> bool:
        return not line.drill and (not line.items or len(line.items) == len(self.everything))

    @property
    def trials(self) -> list[Line]:
        """Without the looks at the ends, and without those of drills, which are counted there."""
        return [line for line in self.lines if not line.drill and not self.is_end(line)]

    @property
    def rounds(self) -> int:
        return len({line.round for line in self.trials})


# --- the search on the engine ---------------------------------------------------------------------------------


class Bisect:
    """One bisect: its folder in the store, and the way from what is known to what comes next."""

    def __init__(self, workspace: Workspace, request: Request, run_program: RunProgram) -> None:
        self.workspace = workspace
        self.request = request
        good, bad = workspace.find_run(request.good), workspace.find_run(request.bad)
        self.judge = self.judge_of(good, bad, run_program)
        self.turn = Turn(good, bad)
        if request.history:
            self.turn = turn(workspace, good, bad, self.judge)
            if self.turn.between:
                self.judge = self.judge_of(self.turn.good, self.turn.bad, run_program)
        self.setup = set_up(workspace, self.turn.good, self.turn.bad)
        key = [self.setup.good.id, self.setup.bad.id, request.judge]
        self.folder = BisectFolder(workspace.store, hex_of(digest_value(key))[:8])
        self.lines: list[Line] = self.folder.lines()
        self.drills: dict[tuple[str, str], Drill | None] = {}
        self.round = max((line.round for line in self.lines), default=0)

    def judge_of(self, good: Run, bad: Run, run_program: RunProgram) -> Judge:
        (good_spec, good_record), (bad_spec, bad_record) = finished(good), finished(bad)
        rules = {**bad_spec.contract.outputs, **good_spec.contract.outputs}
        ends = Ends(self.workspace.store, good, good_record, bad, bad_record, rules)
        return make_judge(self.request.judge, ends, run_program)

    # --- what is known

    def seen(self, drill: str = "") -> dict[Items, Tally]:
        found: dict[Items, Tally] = {}
        for line in self.lines:
            if line.drill != drill:
                continue
            items = frozenset(line.items)
            found[items] = found.get(items, Tally()).add(Outcome(line.outcome))
        return found

    def result(self) -> Result:
        """Where it stands, without running anything."""
        seen = self.seen()
        made = Result(self.folder.id, self.setup, tuple(self.lines), seen, passed=self.turn.between)
        if why := self.unreproduced(seen):
            then, now = self.hosts(why)
            return msgspec.structs.replace(made, unreproduced=why, then=then, now=now)
        asked = self.next(seen)
        if isinstance(asked, Ask):
            return msgspec.structs.replace(made, asked=asked)
        made = msgspec.structs.replace(made, found=asked)
        return self.drilled(made, asked) if asked.proven else made

    def drilled(self, made: Result, found: Found) -> Result:
        """As far as the causes have been taken apart further."""
        done: list[Drilled] = []
        for drill in self.drills_of(found):
            inner = ask(drill.problem, self.drill_seen(drill), self.request.workers)
            trials = sum(line.drill == drill.key for line in self.lines)
            if isinstance(inner, Ask):
                done.append(Drilled(drill, None, trials))
                return msgspec.structs.replace(made, drilled=tuple(done), asked=inner, asked_of=drill)
            done.append(Drilled(drill, inner, trials))
        return msgspec.structs.replace(made, drilled=tuple(done))

    def drills_of(self, found: Found) -> list[Drill]:
        """Into each part of a lone cause; beside independent ones the bad state stays bad."""
        if len(found.causes) != 1:
            return []
        for part in found.causes[0].parts:
            for change in self.setup.changes_of(part):
                if len(part) == 1 and (change.layer, change.name) not in self.drills:
                    self.drills[change.layer, change.name] = drill_of(
                        self.workspace, self.setup.between, change, self.releases
                    )
        parts = [self.setup.changes_of(part) for part in found.causes[0].parts]
        known = [self.drills.get((change.layer, change.name)) for changes in parts for change in changes]
        return [drill for drill in known if drill]

    def releases(self, wheel: Wheel) -> list[str]:
        """Those of an index that has this very wheel: a package of that name elsewhere may be another. Asked once."""
        known = self.folder.releases()
        if wheel.name not in known and self.request.releases:
            from runner.tools import pip

            with tempfile.TemporaryDirectory(prefix="replay-release-") as folder:
                pip.download(wheel.wheel, wheel.version, wheel.sha256, Path(folder))
            known |= {wheel.name: pip.releases(wheel.name)}
            self.folder.write_releases(known)
        return known.get(wheel.name, [])

    def drill_seen(self, drill: Drill) -> dict[Items, Tally]:
        """With the ends, which the proof has shown: bad, and bad without the change."""
        whole = frozenset(range(len(drill.names)))
        return {frozenset(): Tally(good=1), whole: Tally(bad=1)} | self.seen(drill.key)

    def unreproduced(self, seen: Mapping[Items, Tally]) -> str:
        """Which end does not come out as it was recorded: `bad`, `good` or none."""
        good, bad = (seen.get(end, Tally()) for end in self.ends)
        if bad.runs >= LOOKS and bad.bad < 2:
            return "bad"
        return "good" if good.runs >= LOOKS and good.good < 2 else ""

    def hosts(self, which: str) -> tuple[HostSeen, HostSeen]:
        """The machine of a recorded end, and that of its last rerun."""
        end = self.ends[which == "bad"]
        recorded = self.setup.between.bad if which == "bad" else self.setup.between.good
        last = [line.run_id for line in self.lines if frozenset(line.items) == end][-1]
        rerun = Run(self.workspace.store, last, None)
        return recorded.observed.host, rerun.spec().observed.host if rerun.has_spec() else recorded.observed.host

    @property
    def ends(self) -> tuple[Items, Items]:
        return frozenset(), self.setup.problem.everything

    def next(self, seen: Mapping[Items, Tally]) -> Ask | Found:
        """First the ends, the bad one before the good: if it does not reproduce, nothing else is of use."""
        workers = self.request.workers
        for end in reversed(self.ends):
            missing = LOOKS - seen.get(end, Tally()).runs
            if missing > 0:
                return Ask((end,) * min(missing, workers), {}, doing="look at the ends", shifting=True)
        return ask(self.setup.problem, seen, workers)

    # --- doing it

    def begin(self) -> None:
        """Judge the recorded runs: they are the first look at the ends."""
        kept = msgspec.structs.replace(
            self.request, good=self.setup.good.id, bad=self.setup.bad.id, history=False, seconds=None, trials=None
        )
        self.folder.write_request(msgspec.to_builtins(kept))
        if self.lines:
            return
        self.folder.begin()
        for run, items, wanted in (
            (self.setup.good, self.ends[0], Outcome.GOOD),
            (self.setup.bad, self.ends[1], Outcome.BAD),
        ):
            spec, record = finished(run)
            judged = self.judge(run, record)
            if judged.outcome is not wanted:
                raise UsageError(
                    f"{run.id} was called {wanted}, and the judge finds it {judged.outcome}",
                    judged.shown,
                    "swap the two runs, or judge by something in which they differ",
                )
            self.note(
                Line(0, tuple(sorted(items)), run.id, spec.digest, judged.outcome, judged.shown, doing="recorded")
            )

    def note(self, line: Line) -> None:
        self.folder.append(line)
        self.lines.append(line)

    def go(self, session: Session, tell: Callable[[Result], None], executor: Executor | None = None) -> Result:
        """Run what the search asks until it is done or the budget is spent.

        Raises `InterruptedRunError` and what rebuilding an end raises; what was learnt until then is kept.
        """
        deadline = time.monotonic() + self.request.seconds if self.request.seconds is not None else None
        flying: dict[Future[Line | None], tuple[Items, Interrupts]] = {}
        pool = executor or ThreadPoolExecutor(self.request.workers)
        sweep(session)
        try:
            while True:
                result = self.result()
                tell(result)
                if result.asked is None or self.is_spent(result, deadline):
                    return result
                self.cancel(flying, result.asked)
                self.launch(session, pool, flying, result)
                done, _ = wait(flying, return_when=FIRST_COMPLETED)
                for future in done:
                    _, interrupts = flying.pop(future)
                    interrupts.close()
                    if (line := future.result()) is not None:
                        self.note(line)
        except KeyboardInterrupt:
            raise InterruptedRunError(
                "interrupted", f"{len(self.lines)} trials are kept", "`replay bisect resume` goes on"
            ) from None
        finally:
            self.stop(flying)
            if executor is None:
                pool.shutdown()

    def is_spent(self, result: Result, deadline: float | None) -> bool:
        most = self.request.trials
        return (most is not None and len(result.trials) >= most) or (
            deadline is not None and time.monotonic() >= deadline
        )

    def launch(
        self, session: Session, pool: Executor, flying: dict[Any, tuple[Items, Interrupts]], result: Result
    ) -> None:
        asked, drill = result.asked, result.asked_of
        assert asked
        waiting = [items for items, _ in flying.values()]
        if not flying:
            self.round += 1
        for trial in asked.trials:
            if trial in waiting:
                waiting.remove(trial)
            elif len(flying) < self.request.workers:
                interrupts = Interrupts()
                own = msgspec.structs.replace(session, interrupts=interrupts, echo=None)
                future = pool.submit(self.try_out, own, drill, trial, asked.doing, self.round)
                flying[future] = (trial, interrupts)

    @staticmethod
    def cancel(flying: Mapping[Any, tuple[Items, Interrupts]], asked: Ask) -> None:
        """What is asked no more no longer matters."""
        for trial, interrupts in flying.values():
            if not asked.shifting and trial not in asked.trials:
                interrupts.request()

    @staticmethod
    def stop(flying: Mapping[Any, tuple[Items, Interrupts]]) -> None:
        for _, interrupts in flying.values():
            interrupts.request()
        wait(flying)

    def try_out(self, session: Session, drill: Drill | None, trial: Items, doing: str, number: int) -> Line | None:
        """One trial; None when it was cancelled."""
        started = time.monotonic()
        is_end = drill is None and trial in self.ends
        run_id = state = ""
        used = None if is_end else {line.run_id for line in self.lines}
        try:
            done = run_trial(session, self.setup, drill, trial, used)
        except InterruptedRunError:
            return None
        except (UnrebuildableError, UsageError) as error:
            if is_end:
                raise
            judged = Judged(Outcome.UNRESOLVED, error.what)
        else:
            judged = self.judge(done.run, done.record)
            run_id, state = done.run.id, done.record.state_digest
        return Line(
            round=number,
            items=tuple(sorted(trial)),
            run_id=run_id,
            state=state,
            outcome=judged.outcome,
            shown=judged.shown,
            note=judged.note,
            doing=doing,
            seconds=round(time.monotonic() - started, 3),
            drill=drill.key if drill else "",
        )
