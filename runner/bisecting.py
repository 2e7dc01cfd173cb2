"""Bisecting: the changes between two runs, tried on the engine as the search asks, until the cause is proven.

    between two runs → changes, what must go with what → search ⇄ trials → cause

A trial is an ordinary run of a hybrid state, labelled `bisect` and kept in the store alone: it can be shown, compared
and replayed like any other. All that a bisect knows is its log, a line for each trial; whatever ends it, the next
command goes on from there.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import msgspec

from runner.bisect import Ask, Found, Outcome, Problem, Tally, ask
from runner.bisect.model import Items
from runner.bisect.noise import ALPHA
from runner.diff import Change
from runner.drill import HELD, Drill, Releases, drill_of
from runner.erased import keep_erased
from runner.errors import InterruptedRunError, UnrebuildableError, UsageError
from runner.history import past
from runner.judge import Ends, Judge, Judged, RunProgram, Wanted, make_judge
from runner.run import Session, sweep
from runner.shown import few
from runner.state.decode import convert
from runner.state.digest import digest_value, hex_of
from runner.state.job import LOCAL, Place
from runner.state.record import Record
from runner.state.spec import HostSeen, Wheel
from runner.store.bisects import RECORDED, BisectFolder, Line
from runner.store.runs import Run
from runner.suspects import Setup, finished, set_up
from runner.tools.interrupts import Interrupts
from runner.trials import Elsewhere, run_trial
from runner.workspace import Workspace

LOOKS = 3
"""How often each end is looked at, the recorded run included, before anything is tried."""

_NAMED = 8
_SWAP = "swap the two runs, or judge by something in which they differ"
_OF_BOTH = "judge by something that can be told of both runs"
_MEND = "swap the two runs, or mend the judge: it runs among the outputs, so it names a file of yours by its whole path"


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is asked for; `seconds` and `trials` are the budget of one command. `releases`: an index may be asked for
    those of a package that is a cause. `on`: where trials run, by its address if it is not here."""

    good: str
    bad: str
    judge: Wanted = Wanted()
    workers: int = 1
    seconds: float | None = None
    trials: int | None = None
    history: bool = True
    releases: bool = False
    on: Place = LOCAL


class Drilled(msgspec.Struct, frozen=True):
    """What of a cause's parts was found to be it; `found` is absent when that was cut off."""

    drill: Drill
    found: Found | None
    trials: int

    @property
    def parts(self) -> tuple[tuple[str, ...], ...]:
        """The commits, releases or files of each cause found in it."""
        causes = self.found.causes if self.found else ()
        return tuple(tuple(self.drill.names[one] for part in cause.parts for one in sorted(part)) for cause in causes)

    @property
    def named(self) -> str:
        """All of these in a line; empty where none was found."""
        names = [name for names in self.parts for name in names]
        which = "first bad" if self.drill.ordered else "of it"
        return f"{which}: {few(names, _NAMED)}" if names else ""


class Result(msgspec.Struct, frozen=True):
    """Where a bisect stands. `found` is absent when it was cut off, or when an end does not reproduce, which
    `unreproduced` says. `asked` is what comes next, of the search or of a drill; `steady` says that the job is taken to
    be deterministic. `divisible` are those of independent causes that could be taken apart, each by itself."""

    id: str
    setup: Setup
    lines: tuple[Line, ...]
    seen: Mapping[Items, Tally]
    found: Found | None = None
    steady: bool = True
    asked: Ask | None = None
    asked_of: Drill | None = None
    drilled: tuple[Drilled, ...] = ()
    divisible: tuple[Change, ...] = ()
    unreproduced: str = ""
    judge: Wanted = Wanted()
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
        return [line for line in self.lines if not line.drill and not line.history and not self.is_end(line)]

    @property
    def history(self) -> list[Line]:
        return [line for line in self.lines if line.history]

    @property
    def rounds(self) -> int:
        return len({line.round for line in self.trials})

    @property
    def alpha(self) -> float:
        """The chance of a wrong proof that is borne: none as long as a job that is taken to be deterministic was so."""
        mixed = any(tally.good and tally.bad for tally in self.seen.values())
        return 0.0 if self.steady and not mixed else ALPHA


# --- the search on the engine ---------------------------------------------------------------------------------


class Bisect:
    """One bisect: its folder in the store, and the way from what is known to what comes next."""

    def __init__(
        self,
        workspace: Workspace,
        request: Request,
        run_program: RunProgram,
        bring: Callable[[Sequence[Run]], None] = lambda _runs: None,
    ) -> None:
        """`bring` gets what the store lacks of the two runs, if it can be had."""
        self.workspace = workspace
        self.request = request
        good, bad = workspace.find_run(request.good), workspace.find_run(request.bad)
        bring((good, bad))
        self.judge = self.judge_of(good, bad, run_program)
        self.setup = set_up(workspace, good, bad)
        # Under other checks the same trials come out otherwise: what was found with all of GOOD's is not taken.
        # Under another numbering the lines of a log tell of other trials.
        asked = [self.setup.good.id, self.setup.bad.id, request.judge]
        key = [*asked, *self.setup.checks_left_out, self.setup.numbering]
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
            if line.drill != drill or line.history:
                continue
            items = frozenset(line.items)
            found[items] = found.get(items, Tally()).add(Outcome(line.outcome))
        return found

    def recorded(self) -> dict[Items, Outcome]:
        """How the runs of the history came out, as far as those of one state agree."""
        found: dict[Items, set[Outcome]] = {}
        for line in self.lines:
            if line.history:
                found.setdefault(frozenset(line.items), set()).add(Outcome(line.outcome))
        return {items: outcome for items, (outcome, *others) in found.items() if not others}

    def result(self) -> Result:
        """Where it stands, without running anything."""
        seen = self.seen()
        made = Result(
            self.folder.id, self.setup, tuple(self.lines), seen, steady=self.is_steady, judge=self.request.judge
        )
        if why := self.unreproduced(seen):
            then, now = self.hosts(why)
            return msgspec.structs.replace(made, unreproduced=why, then=then, now=now)
        asked = self.next(seen)
        if isinstance(asked, Ask):
            return msgspec.structs.replace(made, asked=asked)
        made = msgspec.structs.replace(made, found=asked)
        made = msgspec.structs.replace(made, divisible=self.divisible(asked))
        return self.drilled(made, asked) if asked.proven else made

    def drilled(self, made: Result, found: Found) -> Result:
        """As far as the causes have been taken apart further."""
        done: list[Drilled] = []
        for drill in self.drills_of(found):
            inner = drill.known or ask(self.steadied(drill.problem), self.drill_seen(drill), self.request.workers)
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
                    self.drills[change.layer, change.name] = self.drill(change, self.releases)
        parts = [self.setup.changes_of(part) for part in found.causes[0].parts]
        known = [self.drills.get((change.layer, change.name)) for changes in parts for change in changes]
        return [drill for drill in known if drill]

    def divisible(self, found: Found) -> tuple[Change, ...]:
        """Beside each other they are not taken apart; no index is asked for what is not."""
        if len(found.causes) == 1:
            return ()
        parts = [part for cause in found.causes for part in cause.parts]
        changes = [change for part in parts for change in self.setup.changes_of(part) if len(part) == 1]
        held = (self.drill(change, lambda _wheel, held: (held, False)) for change in changes)
        return tuple(change for change, drill in zip(changes, held, strict=True) if drill and len(drill.names) > 1)

    def drill(self, change: Change, releases: Releases) -> Drill | None:
        return drill_of(self.workspace, self.setup.between, change, releases)

    def releases(self, wheel: Wheel, held: Sequence[str]) -> tuple[Sequence[str], bool]:
        """Those of an index that has this very wheel: a package of that name elsewhere may be another. Else those that
        the store holds. Asked once, as the trials are told apart by what was answered."""
        known, here = self.folder.releases(), f"{wheel.name} ({HELD})"
        if wheel.name not in known and self.request.releases:
            from runner.tools import pip

            with tempfile.TemporaryDirectory(prefix="replay-release-") as folder:
                pip.download(wheel.wheel, wheel.version, wheel.sha256, Path(folder))
            known |= {wheel.name: pip.releases(wheel.name)}
            self.folder.write_releases(known)
        if wheel.name in known:
            return known[wheel.name], True
        if here not in known:
            known |= {here: list(held)}
            self.folder.write_releases(known)
        return known[here], False

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
        problem = msgspec.structs.replace(self.steadied(self.setup.problem), recorded=self.recorded())
        return ask(problem, seen, workers)

    def steadied(self, problem: Problem) -> Problem:
        return msgspec.structs.replace(problem, steady=self.is_steady)

    @property
    def is_steady(self) -> bool:
        """The job is taken to be deterministic: it is declared so, and each look at an end gave the same bytes."""
        ends = (self.setup.between.good, self.setup.between.bad)
        declared = all(end.state.access.determinism != "off" for end in ends)
        return declared and not any(line.differs for line in self.lines)

    # --- doing it

    def begin(self) -> None:
        """Judge the recorded runs: they are the first look at the ends, and at what lies between. Of what cannot be
        asked nothing is kept, so that it is no bisect to show or resume, and is refused again when asked again."""
        looks = [self.looked_back(end) for end in self.ends if not self.has_recorded(end)]
        if self.lines:
            self.stay_with_what_was_found()
        self.employ(self.request.workers)
        for line in looks:
            self.note(line)
        if looks and self.request.history:
            for one in past(self.workspace, self.setup, self.judge):
                self.note(_recorded(one.run, one.state, one.items, one.judged, history=True))

    def has_recorded(self, end: Items) -> bool:
        return any(line.doing == RECORDED and not line.history and frozenset(line.items) == end for line in self.lines)

    def looked_back(self, end: Items) -> Line:
        """An end as it was recorded. Raises `UsageError` where it is not what it was called."""
        run, wanted = (self.setup.bad, Outcome.BAD) if end else (self.setup.good, Outcome.GOOD)
        spec, record = finished(run)
        judged = self.judge(run, record)
        if judged.outcome is not wanted:
            swap = _MEND if self.request.judge.command is not None else _SWAP
            raise UsageError(
                f"{run.id} was called {wanted}, and the judge finds it {judged.outcome}",
                judged.shown,
                _OF_BOTH if judged.outcome is Outcome.UNRESOLVED else swap,
            )
        return _recorded(run, spec.digest, end, judged)

    def stay_with_what_was_found(self) -> None:
        """What was found by so many workers is found: with another number of them, other trials would be asked for."""
        asked = self.request
        kept = convert(self.folder.request(), Request)
        self.request = msgspec.structs.replace(asked, workers=kept.workers)
        if self.result().asked is not None:
            self.request = asked

    def employ(self, workers: int) -> None:
        """So many trials at once, here and whenever it is shown or resumed."""
        self.request = msgspec.structs.replace(self.request, workers=workers)
        kept = msgspec.structs.replace(
            self.request, good=self.setup.good.id, bad=self.setup.bad.id, seconds=None, trials=None
        )
        self.folder.write_request(msgspec.to_builtins(kept))

    def note(self, line: Line) -> None:
        self.folder.append(line)
        self.lines.append(line)

    def go(self, session: Session, tell: Callable[[Result], None], elsewhere: Elsewhere | None = None) -> Result:
        """Run what the search asks until it is done or the budget is spent. Where they run `elsewhere`, they are
        judged here.

        Raises `InterruptedRunError` and what rebuilding an end raises; what was learnt until then is kept.
        """
        known, deadline = len(self.lines), math.inf
        if self.request.seconds is not None:
            deadline = time.monotonic() + self.request.seconds
        flying: dict[Future[Line | None], tuple[Items, Interrupts]] = {}
        pool = ThreadPoolExecutor(self.request.workers)
        sweep(session)
        try:
            while True:
                result = self.result()
                tell(result)
                if result.asked is None or self.is_spent(result, known) or time.monotonic() >= deadline:
                    return result
                self.cancel(flying, result.asked)
                self.launch(session, pool, elsewhere, flying, result)
                left = None if deadline == math.inf else max(0, deadline - time.monotonic())
                done, _ = wait(flying, left, FIRST_COMPLETED)
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
            pool.shutdown()

    def is_spent(self, result: Result, known: int) -> bool:
        """All trials count that this command has made, those that take a cause apart, too; looks at the ends do not."""
        most = self.request.trials
        made = [line for line in self.lines[known:] if not line.history and not result.is_end(line)]
        return most is not None and len(made) >= most

    def launch(
        self,
        session: Session,
        pool: ThreadPoolExecutor,
        elsewhere: Elsewhere | None,
        flying: dict[Any, tuple[Items, Interrupts]],
        result: Result,
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
                future = pool.submit(self.try_out, own, elsewhere, drill, trial, asked.doing, self.round)
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

    def try_out(
        self, session: Session, elsewhere: Elsewhere | None, drill: Drill | None, trial: Items, doing: str, number: int
    ) -> Line | None:
        """One trial; None when it was cancelled."""
        started = time.monotonic()
        is_end = drill is None and trial in self.ends
        run_id = state = ""
        differs = False
        used = None if is_end else {line.run_id for line in self.lines}
        try:
            done = run_trial(session, self.setup, drill, trial, used, elsewhere)
        except InterruptedRunError:
            return None
        except (UnrebuildableError, UsageError) as error:
            if is_end:
                raise
            judged = Judged(Outcome.UNRESOLVED, error.what)
        else:
            judged = self.judge(done.run, done.record)
            keep_erased(self.workspace.store, self.workspace.specs, done.run, done.record)
            run_id, state = done.run.id, done.record.state_digest
            differs = is_end and self.differs(trial, done.record)
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
            differs=differs,
        )

    def differs(self, end: Items, record: Record) -> bool:
        """Whether an end came out otherwise than it was recorded, be it within a tolerance."""
        _, recorded = finished(self.setup.bad if end else self.setup.good)
        sides = ({one.path: one.sha256 for one in side.outputs} for side in (recorded, record))
        return next(sides) != next(sides)


def _recorded(run: Run, state: str, items: Items, judged: Judged, *, history: bool = False) -> Line:
    taken = tuple(sorted(items))
    return Line(0, taken, run.id, state, judged.outcome, judged.shown, doing=RECORDED, history=history)
