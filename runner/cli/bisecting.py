"""The command `bisect`: what it is asked, what it shows while it works, what it prints in the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import typer

from runner.bisect import Cause, Outcome
from runner.bisect.model import Items
from runner.bisecting import LOOKS, Bisect, Drilled, Request, Result
from runner.cli.output import print_json, safe, table
from runner.cli.running import replay as replay_run
from runner.cli.running import session
from runner.diff import Change
from runner.errors import Exit, UsageError
from runner.judge import Wanted
from runner.layers.access import limits
from runner.state.job import JobLimits
from runner.store.bisects import BisectFolder, Line, find_bisect
from runner.tools.judge_program import run_judge
from runner.workspace import Workspace, open_workspace

_SHOWN = 8


class Asked(msgspec.Struct, frozen=True):
    judge: str | None
    metric: str | None
    good: str | None
    output: str | None
    jobs: int
    budget: str | None
    releases: bool


def bisect(words: Sequence[str], asked: Asked, *, quiet: bool, store: Path | None, as_json: bool) -> int:
    workspace = open_workspace(Path.cwd(), store)
    first, *rest = words
    kept = {"log": _log, "show": _show}
    if first in kept and len(rest) < 2:
        return kept[first](_known(workspace, rest), as_json)
    if first == "resume" and len(rest) < 2:
        folder = find_bisect(workspace.store, rest[0] if rest else None)
        return _go(Bisect(workspace, _resumed(folder, asked), run_judge), quiet, as_json)
    if first == "replay" and len(rest) == 1:
        return replay_run(
            _trial(workspace, rest[0]), times=None, dry_run=False, quiet=quiet, store=store, as_json=as_json
        )
    if len(words) != 2:
        raise UsageError("which two runs?", f"given: {' '.join(words)}", "`replay bisect GOOD BAD`; see --help")
    return _go(Bisect(workspace, _request(words, asked), run_judge), quiet, as_json)


def _request(words: Sequence[str], asked: Asked) -> Request:
    trials, seconds = _budget(asked.budget)
    judge = Wanted(asked.judge, asked.metric, asked.good, asked.output)
    return Request(words[0], words[1], judge, asked.jobs, seconds, trials, releases=asked.releases)


def _budget(text: str | None) -> tuple[int | None, float | None]:
    if text is None:
        return None, None
    if text.isdecimal():
        return int(text), None
    try:
        return None, limits(JobLimits(time=text)).time
    except UsageError as error:
        raise UsageError(f"--budget: {text!r} is no number of trials and no time", next="like 40, or 30m") from error


def _resumed(folder: BisectFolder, asked: Asked) -> Request:
    kept = msgspec.convert(folder.request(), Request)
    trials, seconds = _budget(asked.budget)
    return msgspec.structs.replace(
        kept, workers=max(asked.jobs, kept.workers), seconds=seconds, trials=trials, releases=asked.releases
    )


def _known(workspace: Workspace, rest: Sequence[str]) -> Bisect:
    folder = find_bisect(workspace.store, rest[0] if rest else None)
    return Bisect(workspace, msgspec.convert(folder.request(), Request), run_judge)


def _trial(workspace: Workspace, part: str) -> str:
    """A trial's run: by any part of its run-id, or by its number in the last bisect's log."""
    if not part.isdecimal():
        return part
    lines = find_bisect(workspace.store, None).lines()
    if not 1 <= int(part) <= len(lines) or not lines[int(part) - 1].run_id:
        raise UsageError(f"the last bisect has no trial {part} that ran", next="`replay bisect log` lists them")
    return lines[int(part) - 1].run_id


def _go(made: Bisect, quiet: bool, as_json: bool) -> int:
    made.folder.hold()
    try:
        made.begin()
        result = made.result()
        if result.asked is not None:
            with session(made.workspace, quiet=quiet) as here:
                result = made.go(here, _teller(here.say))
    finally:
        made.folder.release()
    return _print(result, as_json)


def _show(made: Bisect, as_json: bool) -> int:
    return _print(made.result(), as_json)


def _log(made: Bisect, as_json: bool) -> int:
    """What was tried, in order, for a person to follow."""
    result = made.result()
    if as_json:
        print_json({"bisect": result.id, "lines": [_log_line(result, line) for line in result.lines]})
        return Exit.OK
    setup = result.setup
    head = f"bisect {result.id}: {setup.good.id} (good) … {setup.bad.id} (bad), {len(setup.between.changes)} changes\n"
    rows = [
        (
            f"{number:>3}",
            f"round {line.round}",
            _line_taken(result, line),
            line.outcome,
            line.run_id or "—",
            safe(line.shown) + (f" ({line.note})" if line.note else "") + f"  [{line.doing}]",
        )
        for number, line in enumerate(result.lines, 1)
    ]
    typer.echo(head + table([tuple(map(str, row)) for row in rows]), nl=False)
    return Exit.OK


def _log_line(result: Result, line: Line) -> dict[str, object]:
    taken = list(line.items) if line.drill else _plain(result, frozenset(line.items))
    return {**msgspec.to_builtins(line), "items": taken}


# --- while it works -----------------------------------------------------------------------------------------------


def _teller(say: Callable[[str], None]) -> Callable[[Result], None]:
    said: list[str] = []

    def tell(result: Result) -> None:
        for line in result.lines[len(said) :]:
            said.append(f"{_line_taken(result, line)}: {line.outcome}")
            if line.doing != "recorded":
                say(f"{said[-1]}  {line.shown}{_progress(result)}")

    return tell


def _progress(result: Result) -> str:
    if result.asked is None:
        return ""
    left = result.asked.left
    still = f"; {len(left)} changes left" if left else ""
    count = len(result.trials)
    return f"  ({count} trial{'s' * (count != 1)}{still}, some {_to_come(result)} to come)"


def _to_come(result: Result) -> int:
    left = result.asked.left.values() if result.asked else ()
    bits = -sum(share * math.log2(share) for share in left if share > 0)
    return math.ceil(bits) + 2 if left else 1


def _name(change: Change) -> str:
    return "the code" if (change.layer, change.name) == ("code", "files") else change.name


def _line_taken(result: Result, line: Line) -> str:
    if not line.drill:
        return _taken(result, frozenset(line.items))
    drill = next((one.drill for one in result.drilled if one.drill.key == line.drill), None)
    count = f" of {len(drill.names)}" if drill else ""
    return f"{line.drill}: {len(line.items)}{count} parts"


def _taken(result: Result, items: Items) -> str:
    everything = result.everything
    if not items or items == everything:
        return "bad" if items else "good"
    few = items if len(items) <= len(everything) / 2 else everything - items
    names = _names(result.setup.changes_of(few))
    return f"good + {names}" if few is items else f"bad − {names}"


def _names(changes: Sequence[Change]) -> str:
    names = [_name(change) for change in changes]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


# --- in the end ------------------------------------------------------------------------------------------------------


def _print(result: Result, as_json: bool) -> int:
    if as_json:
        print_json(_json(result))
    else:
        typer.echo(_text(result), nl=False)
    return Exit.OK if result.found and result.found.proven else Exit.DIFFERENT


def _json(result: Result) -> dict[str, object]:
    causes = result.found.causes if result.found else ()
    main = causes[0] if causes else None
    found: dict[str, object] = {
        "bisect": result.id,
        "cause": _plain(result, _items(main)) if main else [],
        "proven": bool(result.found and result.found.proven),
        "trials": len(result.trials),
        "rounds": result.rounds,
        "unresolved": sum(line.outcome == Outcome.UNRESOLVED for line in result.trials),
        "independent": [_plain(result, _items(cause)) for cause in causes[1:]],
        "companions": _plain(result, main.companions) if main else [],
        "blocks": [_plain(result, part) for cause in causes for part in cause.parts if _is_block(result, part)],
        "changes": len(result.setup.between.changes),
        "good": result.setup.good.id,
        "bad": result.setup.bad.id,
    }
    if result.drilled:
        found["drill"] = [_drill_json(one) for one in result.drilled]
    if result.found:
        found["probability"] = round(result.found.probability, 4)
    if result.asked and not result.found:
        shares = sorted(result.asked.left.items(), key=lambda one: -one[1])
        found["suspects"] = [
            {"changes": _plain(result, frozenset({item})), "probability": round(share, 4)} for item, share in shares
        ]
    if result.unreproduced:
        found["unreproduced"] = result.unreproduced
        found["host"] = [{"name": name, "then": then, "now": now} for name, then, now in _hosts(result)]
    return found


def _items(cause: Cause) -> Items:
    return frozenset[int]().union(*cause.parts)


def _is_block(result: Result, part: Items) -> bool:
    return len(result.setup.changes_of(part)) > 1


def _plain(result: Result, items: Items) -> list[dict[str, str]]:
    listed = (
        {"layer": change.layer, "name": change.name, "good": change.a, "bad": change.b}
        for change in result.setup.changes_of(items)
    )
    return [{key: value for key, value in one.items() if value is not None} for one in listed]


def _text(result: Result) -> str:
    text = _history(result)
    if result.unreproduced:
        return text + _unreproduced(result)
    if result.found is None:
        return text + _inconclusive(result)
    causes = result.found.causes
    text += "".join(_cause_text(result, cause, number, len(causes)) for number, cause in enumerate(causes, 1))
    text += "".join(map(_drill_text, result.drilled))
    text += _counts(result)
    again = next((line.run_id for line in result.lines if frozenset(line.items) == causes[0].sufficient), "")
    return text + (f"again:  replay bisect replay {again}\n" if again else "")


def _history(result: Result) -> str:
    if not result.passed:
        return ""
    setup = result.setup
    return f"history: of {result.passed} runs recorded between, the turn is {setup.good.id} … {setup.bad.id}\n"


def _drill_text(one: Drilled) -> str:
    counted = f"({one.trials} trials more)"
    if one.found is None:
        return f"  in {safe(_name(one.drill.change))}: not found yet {counted}\n"
    items = [item for cause in one.found.causes for part in cause.parts for item in sorted(part)]
    names = [safe(one.drill.names[item]) for item in items]
    which = "first bad" if one.drill.ordered else "of it"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"  {which}: {', '.join(names[:_SHOWN])}{more}  {counted}\n"


def _drill_json(one: Drilled) -> dict[str, object]:
    causes = one.found.causes if one.found else ()
    parts = [[one.drill.names[item] for part in cause.parts for item in sorted(part)] for cause in causes]
    change = one.drill.change
    found = {"layer": change.layer, "name": change.name, "ordered": one.drill.ordered, "parts": parts}
    return found | {"proven": bool(one.found and one.found.proven), "trials": one.trials}


def _cause_text(result: Result, cause: Cause, number: int, count: int) -> str:
    changes = result.setup.changes_of(_items(cause))
    total = len(result.setup.between.changes)
    head = "CAUSE" if cause.proven else "NOT PROVEN"
    which = f", independent cause {number} of {count}" if count > 1 else ""
    shown = [f"{_name(change)} {_sides(change)}" for change in changes[:_SHOWN]]
    more = f" and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
    meet = "must meet, " if len(cause.parts) > 1 else ""
    text = f"{head}  {safe('  ×  '.join(shown) if meet else ', '.join(shown))}{more}"
    text += f"  ({meet}{len(changes)} of {total} change{'s' * (total != 1)}{which})\n"
    for part in cause.parts:
        if _is_block(result, part):
            text += f"  cannot be taken apart: {safe(_names(result.setup.changes_of(part)))}\n"
    if cause.companions:
        text += f"  came along, as they must: {safe(_names(result.setup.changes_of(cause.companions)))}\n"
    name = _names(changes)
    rows = [_row(result, "good", frozenset()), _row(result, f"good + {name}", cause.sufficient)]
    rows.append(_row(result, "bad", result.everything))
    for part, without in zip(cause.parts, cause.without, strict=False):
        rows.append(_row(result, f"bad − {_left_out(result, part, without)}", without))
    return text + table([row for row in rows if row])


def _left_out(result: Result, part: Items, without: Items) -> str:
    others = result.everything - without - part
    name = _names(result.setup.changes_of(part))
    return name + (f" − {_names(result.setup.changes_of(others))}" if others else "")


def _row(result: Result, what: str, items: Items) -> tuple[str, ...]:
    lines = [line for line in result.lines if frozenset(line.items) == items]
    if not lines:
        return ()
    tally = result.seen[items]
    last = lines[-1]
    outcome = last.outcome if not (tally.good and tally.bad) else f"{tally.good} good, {tally.bad} bad"
    note = f"  ({last.note})" if last.note else ""
    return (f"  {safe(what)}", outcome, safe(last.shown) + note)


def _sides(change: Change) -> str:
    return " → ".join("—" if side is None else side for side in (change.a, change.b))


def _counts(result: Result) -> str:
    unresolved = sum(line.outcome == Outcome.UNRESOLVED for line in result.trials)
    ends = [result.seen[end] for end in (frozenset[int](), result.everything)]
    flakes = f"flakes {ends[0].bad}/{ends[0].runs}, {ends[1].good}/{ends[1].runs}"
    trials, rounds = len(result.trials), result.rounds
    text = (
        f"{trials} trial{'s' * (trials != 1)} in {rounds} round{'s' * (rounds != 1)}; {unresolved} unresolved; {flakes}"
    )
    if result.found and result.found.probability < 1:
        text += f"; right with probability {result.found.probability:.3f}"
    return text + "\n"


def _inconclusive(result: Result) -> str:
    text = "INCONCLUSIVE\n"
    if result.asked:
        shares = sorted(result.asked.left.items(), key=lambda one: -one[1])[:_SHOWN]
        rows = [
            (f"  {safe(_names(result.setup.changes_of(frozenset({item}))))}", f"{share:.3f}") for item, share in shares
        ]
        text += table(rows)
        more = len(result.asked.left) - len(shares)
        text += f"  and {more} more\n" if more else ""
    return text + _counts(result) + f"on:     replay bisect resume {result.id}\n"


def _unreproduced(result: Result) -> str:
    which = result.unreproduced
    run = result.setup.bad if which == "bad" else result.setup.good
    lines = [line for line in result.lines if result.is_end(line) and bool(line.items) == (which == "bad")]
    text = f"NOT REPRODUCED  {run.id}\n"
    text += table(
        [("  recorded" if line.doing == "recorded" else "  rerun", line.outcome, safe(line.shown)) for line in lines]
    )
    text += f"its own state does not give again what was recorded ({LOOKS - 1} reruns): the cause is outside of what\n"
    text += "is recorded, or chance. What differs between the machine then and now:\n"
    rows = [(f"  {name}", f"{safe(then)} → {safe(now)}") for name, then, now in _hosts(result)]
    return text + (table(rows) if rows else "  nothing that is observed\n")


def _hosts(result: Result) -> list[tuple[str, str, str]]:
    """Fields in which the machine of the recorded run and that of its last rerun differ."""
    then, now = result.then, result.now
    pairs = ((name, str(getattr(then, name)), str(getattr(now, name))) for name in then.__struct_fields__)
    return [(name, before, after) for name, before, after in pairs if before != after]
