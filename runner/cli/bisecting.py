"""The command `bisect`: what it is asked, what it shows while it works, what it prints in the end."""

from __future__ import annotations

import contextlib
import math
import shlex
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec
import typer

from runner import supply
from runner.bisect import Cause, Outcome, Tally
from runner.bisect.model import Items
from runner.bisecting import LOOKS, Bisect, Drilled, Request, Result
from runner.cli.output import Progress, print_json, safe_line, table
from runner.cli.running import replay as replay_run
from runner.cli.running import session
from runner.diff import Change
from runner.drill import Drill
from runner.errors import Exit, UsageError
from runner.judge import Wanted
from runner.layers.access import limits
from runner.shown import ELLIPSIS, few
from runner.state.bisected import Bisected, BisectLog, HostChange, Inside, Moved, Proof, Suspected, Tried
from runner.state.decode import convert
from runner.state.job import LOCAL, JobLimits
from runner.store.bisects import RECORDED, BisectFolder, Line, find_bisect
from runner.suspects import finished
from runner.tools.judge_program import files_of, run_judge
from runner.trials import Elsewhere
from runner.trust import Consent, admit
from runner.workspace import Workspace, open_workspace

_SHOWN = 8
_LONGEST = 100
_ASK_OF_ONE = (
    "next:   what is neither good's nor bad's counts as bad; --output, --metric or --judge asks about one thing\n"
)
_MOVES = (
    "next:   judge by what should not move, with --output, --metric or --judge; or let the job's `outputs` ignore it\n"
)
_ANEW = "the changes are divided otherwise than when it was asked"


class Asked(msgspec.Struct, frozen=True):
    judge: str | None
    metric: str | None
    good: str | None
    output: str | None
    jobs: int | None
    on: str | None
    budget: str | None
    releases: bool


def bisect(
    words: Sequence[str], asked: Asked, consent: Consent, *, quiet: bool, store: Path | None, as_json: bool
) -> int:
    workspace = open_workspace(Path.cwd(), store)
    first, *rest = words
    kept = {"log": _log, "show": _show}
    if first in kept and len(rest) < 2:
        return kept[first](_known(workspace, rest), as_json)
    if first == "resume" and len(rest) < 2:
        folder = find_bisect(workspace.store, rest[0] if rest else None)
        made = _supplied(workspace, _resumed(folder, asked, quiet), quiet)
        if _is_divided_anew(folder, made):
            Progress(quiet).say(f"{_ANEW}: bisect {folder.id} goes on as {made.folder.id}, and its trials are used")
        return _go(made, asked, consent, quiet, as_json)
    if first == "replay" and len(rest) == 1:
        return replay_run(
            _trial(workspace, rest[0]),
            times=None,
            dry_run=False,
            apart=True,
            quiet=quiet,
            store=store,
            as_json=as_json,
            consent=consent,
        )
    if len(words) != 2:
        raise UsageError("which two runs?", f"given: {' '.join(words)}", "`replay bisect GOOD BAD`; see --help")
    if "." in words:
        raise UsageError(
            "a bisect is between two recorded runs", "`.` is none", "`replay run` records what is here now"
        )
    return _go(_supplied(workspace, _request(words, asked), quiet), asked, consent, quiet, as_json)


def _supplied(workspace: Workspace, request: Request, quiet: bool) -> Bisect:
    """In a clone that pulled nothing the remote is asked, as for a replay."""
    given, progress = supply.Asked(), Progress(quiet)
    with contextlib.closing(progress), supply.told(given), workspace.store.adding():
        return Bisect(
            workspace, request, run_judge, lambda runs: supply.bring_ends(workspace, runs, progress.say, given)
        )


def _request(words: Sequence[str], asked: Asked) -> Request:
    trials, seconds = _budget(asked.budget)
    judge = _as_it_is_now(Wanted(asked.judge, asked.metric, asked.good, asked.output))
    on = _place(asked.on) if asked.on else LOCAL
    return Request(words[0], words[1], judge, asked.jobs or 1, seconds, trials, releases=asked.releases, on=on)


def _as_it_is_now(judge: Wanted) -> Wanted:
    return msgspec.structs.replace(judge, files=files_of(judge.command)) if judge.command is not None else judge


def _place(on: str) -> str:
    from runner.cli.nightly import place

    return place(on)


def _budget(text: str | None) -> tuple[int | None, float | None]:
    if text is None:
        return None, None
    if text.isdecimal():
        return int(text), None
    try:
        return None, limits(JobLimits(time=text)).time
    except UsageError as error:
        raise UsageError(f"--budget: {text!r} is no number of trials and no time", next="like 40, or 30m") from error


def _resumed(folder: BisectFolder, asked: Asked, quiet: bool) -> Request:
    """As it was asked for; with a judge that changed since it is another bisect, so that no answers of two mix."""
    if judged_by := next((name for name in ("judge", "metric", "good", "output") if getattr(asked, name)), None):
        raise UsageError(
            f"a bisect that goes on is judged as it was: --{judged_by} cannot be given",
            next=f"`replay bisect GOOD BAD --{judged_by} …` asks anew, and uses the trials that there are",
        )
    kept = convert(folder.request(), Request)
    on = _place(asked.on) if asked.on else kept.on
    judge = _as_it_is_now(kept.judge)
    if judge != kept.judge:
        Progress(quiet).say(f"the judge changed since: what bisect {folder.id} tried is judged anew")
    trials, seconds = _budget(asked.budget)
    return msgspec.structs.replace(
        kept,
        judge=judge,
        workers=asked.jobs or (kept.workers if on == kept.on else 1),
        seconds=seconds,
        trials=trials,
        releases=asked.releases or kept.releases,
        on=on,
    )


def _known(workspace: Workspace, rest: Sequence[str]) -> Bisect:
    folder = find_bisect(workspace.store, rest[0] if rest else None)
    made = Bisect(workspace, convert(folder.request(), Request), run_judge)
    if _is_divided_anew(folder, made):
        raise UsageError(
            f"bisect {folder.id} cannot be shown: {_ANEW}",
            "what the store has of wheels and parameter files decides what can be told apart",
            f"`replay bisect resume {folder.id}` goes on as another, and uses the trials that there are",
        )
    return made


def _is_divided_anew(folder: BisectFolder, made: Bisect) -> bool:
    """What was kept is of another numbering of the changes; a judge that changed makes another bisect, too."""
    return made.folder.id != folder.id and made.request.judge == convert(folder.request(), Request).judge


def _trial(workspace: Workspace, part: str) -> str:
    """A trial's run: by any part of its run-id, or by its number in the last bisect's log."""
    if not part.isdecimal():
        return part
    lines = find_bisect(workspace.store, None).lines()
    if not 1 <= int(part) <= len(lines) or not lines[int(part) - 1].run_id:
        raise UsageError(f"the last bisect has no trial {part} that ran", next="`replay bisect log` lists them")
    return lines[int(part) - 1].run_id


def _go(made: Bisect, asked: Asked, consent: Consent, quiet: bool, as_json: bool) -> int:
    good, bad = made.setup.good, made.setup.bad
    for run, other in ((good, bad), (bad, good)):
        admit(made.workspace, run, *finished(run), consent, beside=finished(other)[0])
    made.folder.hold()
    try:
        known = len(made.lines)
        made.begin()
        result = made.result()
        if result.asked is not None:
            with session(made.workspace, quiet=quiet) as here, _elsewhere(made, asked.jobs) as elsewhere:
                result = made.go(here, _teller(here.say, known), elsewhere)
    finally:
        made.folder.release()
    return _print(result, as_json)


@contextlib.contextmanager
def _elsewhere(made: Bisect, jobs: int | None) -> Iterator[Elsewhere | None]:
    """On a cluster as many trials at once as that takes."""
    from runner.there import There

    if made.request.on == LOCAL:
        yield None
        return
    there = There(made.workspace, made.request.on, jobs)
    made.employ(there.count)
    try:
        yield there.try_out
    finally:
        there.stop()


def _show(made: Bisect, as_json: bool) -> int:
    return _print(made.result(), as_json)


def _log(made: Bisect, as_json: bool) -> int:
    """What was tried, in order, for a person to follow."""
    result = made.result()
    if as_json:
        lines = tuple(_tried(result, number, line) for number, line in enumerate(result.lines, 1))
        print_json(BisectLog(result.id, result.setup.good.id, result.setup.bad.id, lines))
        return Exit.OK
    setup = result.setup
    head = f"bisect {result.id}: {setup.good.id} (good) … {setup.bad.id} (bad), {len(setup.between.changes)} changes\n"
    head += _left_out_checks(result)
    rows = [
        (
            f"{number:>3}",
            f"round {line.round}",
            safe_line(_line_taken(result, line)),
            line.outcome,
            line.run_id or "—",
            safe_line(line.shown) + (f" ({line.note})" if line.note else "") + f"  [{line.doing}]",
        )
        for number, line in enumerate(result.lines, 1)
    ]
    typer.echo(head + table([tuple(map(str, row)) for row in rows]), nl=False)
    return Exit.OK


def _tried(result: Result, number: int, line: Line) -> Tried:
    drill = _drill_of(result, line)
    return Tried(
        number,
        line.round,
        _line_taken(result, line),
        line.outcome,  # type: ignore[arg-type]
        line.doing,
        line.seconds,
        () if line.drill else _plain(result, frozenset(line.items)),
        tuple(drill.names[item] for item in line.items) if drill else (),
        line.run_id or None,
        line.state or None,
        line.shown,
        line.note,
        line.drill,
    )


# --- while it works -----------------------------------------------------------------------------------------------


def _teller(say: Callable[[str], None], known: int) -> Callable[[Result], None]:
    """Tells of each trial once; the first so many lines were told by the command that made them."""
    told = known
    if known:
        say(f"going on after {known} trials, looks at the ends included")

    def tell(result: Result) -> None:
        nonlocal told
        for line in result.lines[told:]:
            if line.doing != RECORDED:
                say(safe_line(f"{_line_taken(result, line)}: {line.outcome}  {line.shown}{_progress(result)}"))
        told = len(result.lines)

    return tell


def _progress(result: Result) -> str:
    if result.asked is None:
        return ""
    left = result.asked.left
    looks = _looks_left(result)
    still = "; looking at the ends" if looks else f"; {len(left)} changes left" if left else ""
    count = len(result.trials)
    return f"  ({count} trial{'s' * (count != 1)}{still}, some {looks + _to_come(result)} to come)"


def _looks_left(result: Result) -> int:
    return sum(max(0, LOOKS - result.seen.get(end, Tally()).runs) for end in (frozenset[int](), result.everything))


def _to_come(result: Result) -> int:
    """What a search of one cause needs on average, the proof included."""
    left = list(result.asked.left.values()) if result.asked else []
    if not left and _looks_left(result):
        left = [1 / len(result.everything)] * len(result.everything)
    bits = -sum(share * math.log2(share) for share in left if share > 0)
    return math.ceil(bits) + 2 if left else 1


def _name(change: Change) -> str:
    return "the code" if (change.layer, change.name) == ("code", "files") else change.name


def _drill_of(result: Result, line: Line) -> Drill | None:
    return next((one.drill for one in result.drilled if one.drill.key == line.drill), None)


def _line_taken(result: Result, line: Line) -> str:
    if not line.drill:
        return _taken(result, frozenset(line.items))
    drill = _drill_of(result, line)
    if drill is None:
        return f"{line.drill}: {len(line.items)} parts"
    names = [drill.names[item] for item in line.items]
    taken = f"up to {names[-1]}" if drill.ordered and names else few(names, 3)
    return f"{_name(drill.change)}: {taken or 'none of it'}"


def _taken(result: Result, items: Items) -> str:
    everything = result.everything
    if not items or items == everything:
        return "bad" if items else "good"
    few = items if len(items) <= len(everything) / 2 else everything - items
    names = _names(result.setup.changes_of(few))
    return f"good + {names}" if few is items else f"bad − {names}"


def _names(changes: Sequence[Change]) -> str:
    return few([_name(change) for change in changes], 3)


# --- in the end ------------------------------------------------------------------------------------------------------


def _print(result: Result, as_json: bool) -> int:
    if as_json:
        print_json(_json(result))
    else:
        typer.echo(text_of(result), nl=False)
    return Exit.OK if result.found and result.found.proven else Exit.DIFFERENT


def _json(result: Result) -> Bisected:
    causes = result.found.causes if result.found else result.asked.causes if result.asked else ()
    main = causes[0] if causes else None
    return Bisected(
        bisect=result.id,
        good=result.setup.good.id,
        bad=result.setup.bad.id,
        changes=len(result.setup.between.changes),
        cause=_plain(result, _items(main)) if main else (),
        proven=bool(result.found and result.found.proven),
        trials=len(result.trials),
        rounds=result.rounds,
        unresolved=_unresolved(result),
        independent=tuple(_plain(result, _items(cause)) for cause in causes[1:]),
        companions=_plain(result, main.companions) if main else (),
        blocks=tuple(_plain(result, part) for cause in causes for part in cause.parts if _is_block(result, part)),
        proof=tuple(dict.fromkeys(one for cause in causes for one in _proof(result, cause))),
        drill=tuple(map(_drill_json, result.drilled)),
        probability=round(result.found.probability, 4) if result.found else None,
        alpha=result.alpha if result.found else None,
        suspects=() if result.found else _suspects(result),
        unreproduced=result.unreproduced or None,  # type: ignore[arg-type]
        host=tuple(HostChange(*each) for each in _hosts(result)) if result.unreproduced else (),
        checks_left_out=result.setup.checks_left_out,
    )


def _suspects(result: Result) -> tuple[Suspected, ...]:
    shares = sorted(result.asked.left.items(), key=lambda one: -one[1]) if result.asked else []
    return tuple(Suspected(_plain(result, frozenset({item})), round(share, 4)) for item, share in shares)


def _unresolved(result: Result) -> int:
    return sum(line.outcome == Outcome.UNRESOLVED for line in result.trials)


def _items(cause: Cause) -> Items:
    return frozenset[int]().union(*cause.parts)


def _is_block(result: Result, part: Items) -> bool:
    return len(result.setup.changes_of(part)) > 1


def _plain(result: Result, items: Items) -> tuple[Moved, ...]:
    return tuple(Moved(one.layer, one.name, one.a, one.b) for one in result.setup.changes_of(items))


def text_of(result: Result) -> str:
    """What a person reads of where a bisect stands."""
    text = _left_out_checks(result) + _history(result)
    if result.unreproduced:
        return text + _unreproduced(result)
    if result.found is None:
        return text + _inconclusive(result)
    causes = result.found.causes
    text += "".join(_cause_text(result, cause, number, len(causes)) for number, cause in enumerate(causes, 1))
    text += "".join(map(_drill_text, result.drilled))
    text += _counts(result)
    again = _run_of(result, causes[0].sufficient)
    text += f"again:  replay bisect replay {again}\n" if again else ""
    text += f"on:     replay bisect resume {result.id}\n" if result.asked else ""
    return text + (_ASK_OF_ONE if any(map(partial(_is_neither, result), causes)) else "")


def _run_of(result: Result, items: Items) -> str:
    lines = _runs_of(result, items)
    return _telling(lines)[0].run_id if lines else ""


def _is_neither(result: Result, cause: Cause) -> bool:
    """The cause alone makes a result that is not the bad run's: maybe not what was asked about."""
    lines = _runs_of(result, cause.sufficient)
    return bool(lines) and bool(_telling(lines)[-1].note)


def _left_out_checks(result: Result) -> str:
    names = safe_line(", ".join(result.setup.checks_left_out))
    return f"checks that the two runs do not declare alike are left out of every trial: {names}\n" if names else ""


def _history(result: Result) -> str:
    came = [Outcome(line.outcome) for line in result.history]
    if not came:
        return ""
    good = came.count(Outcome.GOOD)
    return f"history: {good} good and {len(came) - good} bad runs that were recorded between say where to look first\n"


def _drill_text(one: Drilled) -> str:
    counted = (
        f"({one.trials} trial{'s' * (one.trials != 1)} more{f'; among {one.drill.among}' if one.drill.among else ''})"
    )
    if not one.named:
        return f"  in {safe_line(_name(one.drill.change))}: not found yet {counted}\n"
    return f"  {safe_line(one.named)}  {counted}\n"


def _drill_json(one: Drilled) -> Inside:
    drill, proven = one.drill, bool(one.found and one.found.proven)
    return Inside(drill.change.layer, drill.change.name, drill.ordered, one.parts, proven, one.trials)


def _cause_text(result: Result, cause: Cause, number: int, count: int) -> str:
    changes = result.setup.changes_of(_items(cause))
    total = len(result.setup.between.changes)
    head = "CAUSE" if cause.proven else "NOT PROVEN"
    which = f", independent cause {number} of {count}" if count > 1 else ""
    shown = [f"{_name(change)} {_sides(change)}" for change in changes[:_SHOWN]]
    more = f" and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
    meet = "must meet, " if len(cause.parts) > 1 else ""
    text = f"{head}  {safe_line('  ×  '.join(shown) if meet else ', '.join(shown))}{more}"
    text += f"  ({meet}{len(changes)} of {total} change{'s' * (total != 1)}{which})\n"
    for part in cause.parts:
        if _is_block(result, part):
            text += f"  cannot be taken apart: {safe_line(_names(result.setup.changes_of(part)))}\n"
    if cause.companions:
        text += f"  came along, as they must: {safe_line(_names(result.setup.changes_of(cause.companions)))}\n"
    rows = [
        (f"  {safe_line(one.state)}", _came(result, items), safe_line(one.shown)) for items, one in _rows(result, cause)
    ]
    return text + table(rows) + (_further(result, cause, changes) if count > 1 else "")


def _further(result: Result, cause: Cause, changes: Sequence[Change]) -> str:
    """Beside other causes none is taken apart: the bad state stays bad without it. By itself it is."""
    run = _run_of(result, cause.sufficient)
    if not run or not any(change in result.divisible for change in changes):
        return ""
    judge, good = result.judge, result.setup.good.id
    named = {"--judge": judge.command, "--metric": judge.metric, "--good": judge.good, "--output": judge.output}
    words = [good, run, *(word for name, value in named.items() if value for word in (name, value))]
    return f"  to take it apart: replay bisect {safe_line(shlex.join(words))}\n"


def _proof(result: Result, cause: Cause) -> list[Proof]:
    return [one for _, one in _rows(result, cause)]


def _rows(result: Result, cause: Cause) -> list[tuple[Items, Proof]]:
    """What the proof rests on, as far as it was run."""
    states = [
        ("good", frozenset[int]()),
        (f"good + {_names(result.setup.changes_of(_items(cause)))}", cause.sufficient),
    ]
    states.append(("bad", result.everything))
    for part, without in zip(cause.parts, cause.without, strict=False):
        states.append((f"bad − {_left_out(result, part, without)}", without))
    rows = []
    for state, items in states:
        if lines := _runs_of(result, items):
            last = _telling(lines)[-1]
            shown = last.shown + (f"  ({last.note})" if last.note else "")
            rows.append((items, Proof(state, last.outcome, last.run_id, len(lines), shown)))  # type: ignore[arg-type]
    return rows


def _runs_of(result: Result, items: Items) -> list[Line]:
    return [line for line in result.lines if not line.drill and not line.history and frozenset(line.items) == items]


def _telling(lines: Sequence[Line]) -> list[Line]:
    """Those that came out as most of them that could be judged did: one that came out otherwise by chance shows what
    its state is not."""
    sure = [line for line in lines if line.outcome != Outcome.UNRESOLVED] or list(lines)
    came = [line.outcome for line in sure]
    return [line for line in sure if line.outcome == max(came, key=came.count)]


def _came(result: Result, items: Items) -> str:
    tally = result.seen[items]
    if tally.good and tally.bad:
        return f"{tally.good} good, {tally.bad} bad"
    return Outcome.GOOD if tally.good else Outcome.BAD if tally.bad else Outcome.UNRESOLVED


def _left_out(result: Result, part: Items, without: Items) -> str:
    others = result.everything - without - part
    name = _names(result.setup.changes_of(part))
    return name + (f" − {_names(result.setup.changes_of(others))}" if others else "")


def _sides(change: Change) -> str:
    return " → ".join("—" if side is None else _brief(side) for side in (change.a, change.b))


def _brief(side: str) -> str:
    return side if len(side) <= _LONGEST else side[: _LONGEST - 1] + ELLIPSIS


def _counts(result: Result) -> str:
    unresolved = _unresolved(result)
    ends = [result.seen.get(end, Tally()) for end in (frozenset[int](), result.everything)]
    flakes = f"flakes {ends[0].bad}/{ends[0].runs}, {ends[1].good}/{ends[1].runs}"
    trials, rounds = len(result.trials), result.rounds
    text = (
        f"{trials} trial{'s' * (trials != 1)} in {rounds} round{'s' * (rounds != 1)}; {unresolved} unresolved; {flakes}"
    )
    if result.found and result.alpha:
        sure = f"right with probability {result.found.probability:.3f}, " if result.found.probability < 1 else ""
        text += f"; {sure}α {result.alpha:g}"
    return text + "\n"


def _inconclusive(result: Result) -> str:
    text = "INCONCLUSIVE  it was stopped before it was sure"
    text += "; how likely each suspect is:\n" if result.asked and result.asked.left else "\n"
    if result.asked:
        shares = sorted(result.asked.left.items(), key=lambda one: -one[1])[:_SHOWN]
        rows = [
            (f"  {safe_line(_names(result.setup.changes_of(frozenset({item}))))}", f"{share:.3f}")
            for item, share in shares
        ]
        text += table(rows)
        more = len(result.asked.left) - len(shares)
        text += f"  and {more} more\n" if more else ""
        for cause in result.asked.causes:
            text += f"  found, not proven yet: {safe_line(_names(result.setup.changes_of(_items(cause))))}\n"
    return text + _counts(result) + f"on:     replay bisect resume {result.id}\n"


def _unreproduced(result: Result) -> str:
    which = result.unreproduced
    run = result.setup.bad if which == "bad" else result.setup.good
    lines = [line for line in result.lines if result.is_end(line) and bool(line.items) == (which == "bad")]
    text = f"NOT REPRODUCED  {run.id}\n"
    text += table(
        [("  recorded" if line.doing == RECORDED else "  rerun", line.outcome, safe_line(line.shown)) for line in lines]
    )
    text += f"{LOOKS - 1} reruns of its own state did not give what was recorded: the cause lies outside of\n"
    text += "what is recorded, or it is chance. "
    rows = [(f"  {name}", f"{safe_line(then)} → {safe_line(now)}") for name, then, now in _hosts(result)]
    if rows:
        text += "What differs between the machine then and now:\n" + table(rows)
    else:
        text += "Nothing that is observed of the machine differs between then and now.\n"
    return text + ("" if result.judge.command or result.judge.metric else _MOVES)


def _hosts(result: Result) -> list[tuple[str, str, str]]:
    """Fields in which the machine of the recorded run and that of its last rerun differ."""
    then, now = result.then, result.now
    pairs = ((name, getattr(then, name), getattr(now, name)) for name in then.__struct_fields__)
    return [(name, _seen(before), _seen(after)) for name, before, after in pairs if before != after]


def _seen(value: tuple[str, ...] | str | int | None) -> str:
    return (", ".join(value) or "none") if isinstance(value, tuple) else "unknown" if value is None else str(value)
