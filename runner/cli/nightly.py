"""The commands `nightly` and `nights`: what is asked for, what is said meanwhile, what is printed in the end."""

from __future__ import annotations

import difflib
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
import typer

from runner.cli import reporting
from runner.cli.output import Progress, print_json, safe, table
from runner.cli.passphrase import given_passphrase
from runner.errors import Exit, InterruptedRunError, OutsideError, ReplayError, ReplayWarning, UsageError
from runner.keys import keyring
from runner.layers.access import limits
from runner.nightly import SUITE, Clock, Here, Pins, Request, Workers, call_out, exit_of, is_news, run_night
from runner.report.words import as_recorded, cause_or_suspects, last_copies, left_out, moving, not_looked_at, variation
from runner.run import Session
from runner.seal import Sealer, open_sealer
from runner.shown import called, count, few, gone_words, needed_by
from runner.state.decode import convert
from runner.state.job import LOCAL, JobLimits, Place, Setting, Suite
from runner.state.night import Moving, Night, NightRun, PinTrouble, Trouble
from runner.state.record import GOOD
from runner.store.nights import Nights, find_nights
from runner.tools.containers import Engine, connect
from runner.tools.interrupts import Interrupts, listening
from runner.trust import Consent
from runner.varied import Variation
from runner.workspace import WORKFILE, Workspace, open_workspace

_SHOWN = 20


class Asked(msgspec.Struct, frozen=True):
    """What the command line says; what it does not say is as the suite has it."""

    suite: str | None
    jobs: int | None
    on: str | None
    budget: str | None
    bisect: bool | None
    against: str | None
    setting: tuple[str, ...]
    consent: Consent = Consent()


def nightly(asked: Asked, reports: reporting.Asked, *, quiet: bool, store: Path | None, as_json: bool) -> int:
    workspace = open_workspace(Path.cwd(), store)
    name, suite = _suite(workspace, asked.suite)
    request = _request(name, suite, asked)
    reporting.refuse_unwritable(reports)
    nights = Nights(workspace.store)
    nights.hold(name)
    progress = Progress(quiet)
    try:
        with listening() as interrupts:
            engine = partial(connect, store_id=workspace.store.id)
            here = lambda: Session(workspace, engine(), interrupts, progress.say, apart=True)  # noqa: E731
            request, workers = _workers(workspace, request, engine, here, asked.consent, progress)
            pins, tell, at = _pins(workspace, progress), partial(_tell, progress), partial(_at, progress)
            again, keep = partial(_again, progress), partial(_keep, nights, interrupts)
            kept = run_night(workspace, nights, request, workers, Clock(), tell, here, pins, at, again, keep)
        night = kept.night
        if said := call_out(workspace, request, night):
            progress.say(f"on_regression: {said}")
        unwritten = _reported(workspace, night, reports)
    finally:
        progress.close()
        nights.release()
    if as_json:
        print_json(night)
    else:
        typer.echo(text_of(night), nl=False)
    met = kept.trouble
    if met is None:
        return exit_of(night) or unwritten
    _warn(met)
    return Exit.INTERRUPTED if met.code == Exit.INTERRUPTED else exit_of(night) or met.code


def _keep(nights: Nights, interrupts: Interrupts, night: Night) -> None:
    """A night is written whole, even if somebody asks to stop meanwhile."""
    with interrupts.held():
        nights.write(night)
    if interrupts.count:
        raise KeyboardInterrupt


def nights(part: str | None, store: Path | None, as_json: bool) -> int:
    """The last nights, or in JSON all of them; or one of them again."""
    kept = Nights(open_workspace(Path.cwd(), store).store)
    if part is not None:
        night = kept.night(find_nights(kept, [part], None, 1)[0].night)
        if as_json:
            print_json(night)
        else:
            typer.echo(text_of(night), nl=False)
        return Exit.OK
    heads = kept.heads()
    listed = [kept.night(head.night) for head in (heads if as_json else heads[-_SHOWN:])]
    if as_json:
        fields = ("night", "suite", "started", "ended", "against", "setting", "counts", "left_out", "as_recorded")
        print_json({"nights": [{name: getattr(night, name) for name in fields} for night in listed]})
    else:
        typer.echo(table([(_named(night), _counts(night)) for night in reversed(listed)]), nl=False)
        if older := len(heads) - len(listed):
            typer.echo(
                f"{count(older, 'older night')} {'is' if older == 1 else 'are'} not shown; --json has them", err=True
            )
    return Exit.OK


def _reported(workspace: Workspace, night: Night, asked: reporting.Asked) -> Exit:
    """The night has ended, and is printed even if its report cannot be written."""
    try:
        reporting.report_night(workspace, night, asked)
    except InterruptedRunError:
        raise
    except ReplayError as error:
        _warn(error)
        return error.code
    return Exit.OK


def _warn(error: ReplayError | Trouble) -> None:
    warnings.warn(f"{error.what}: {error.why}", ReplayWarning, stacklevel=3)


# --- what is asked for --------------------------------------------------------------------------------------------


def _suite(workspace: Workspace, name: str | None) -> tuple[str, Suite]:
    """The suite of that name; without one, `nightly`, or every run where none is declared."""
    suites = workspace.workfile().suites if (workspace.root / WORKFILE).is_file() else {}
    if name is None:
        return SUITE, suites.get(SUITE, Suite())
    if name not in suites:
        near = difflib.get_close_matches(name, suites, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(sorted(suites)) or 'no suite'}"
        raise UsageError(f"{WORKFILE} has no suite {name!r}", hint)
    return name, suites[name]


def _request(name: str, suite: Suite, asked: Asked) -> Request:
    for text in asked.setting:
        try:
            convert(text, Setting)
        except msgspec.ValidationError:
            known = "dependencies=latest, image=REFERENCE and env.NAME=VALUE"
            raise UsageError(f"--set: {text!r} is nothing that can be set", f"known are {known}") from None
    if asked.against not in (None, "."):
        raise UsageError(f"--against: {asked.against!r} is nothing to replay against", next="`--against .`")
    on = place(asked.on or suite.on)
    budget = asked.budget if asked.budget is not None else suite.budget
    return Request(
        suite=name,
        select=suite.select,
        on=on,
        workers=asked.jobs or suite.jobs or (1 if on == LOCAL else None),
        budget_s=_seconds("budget", budget),
        patience_s=_seconds("patience", suite.patience) or Request().patience_s,
        bisect=suite.bisect if asked.bisect is None else asked.bisect,
        against=asked.against or suite.against or "",
        setting=asked.setting or suite.set,
        on_regression=suite.on_regression,
    )


def place(on: str) -> str:
    try:
        return convert(on, Place)
    except msgspec.ValidationError:
        raise UsageError(f"--on: {on!r} is no place", next="local, or dask://HOST:PORT") from None


def _workers(
    workspace: Workspace,
    request: Request,
    engine: Callable[[], Engine],
    here: Callable[[], Session],
    consent: Consent,
    progress: Progress,
) -> tuple[Request, Workers]:
    """Where it runs; on a cluster, as many at once as that takes."""
    if request.on == LOCAL:
        variation = request.variation
        _look_up_images(variation, here)
        return request, Here(workspace, engine, _sealer(progress), request.workers or 1, variation, consent)
    if request.varies:
        raise UsageError(
            "variations run on this machine only", f"{request.on} was given, with --against or --set", "--on local"
        )
    from runner.there import There

    there = There(workspace, request.on, request.workers, consent)
    return msgspec.structs.replace(request, workers=there.count), there


def _look_up_images(variation: Variation | None, here: Callable[[], Session]) -> None:
    """An engine that does not answer yet is waited for later, as it is for every run."""
    if variation is None or not variation.images:
        return
    try:
        session = here()
    except OutsideError:
        return
    variation.look_up_images(session)


def _pins(workspace: Workspace, progress: Progress) -> Pins:
    def look(run_ids: list[str]) -> tuple[PinTrouble, ...] | None:
        from runner.rot import troubles

        return troubles(workspace, run_ids, progress.say)

    return look


def _seconds(what: str, text: str | float | None) -> float | None:
    try:
        return limits(JobLimits(time=text)).time
    except UsageError as error:
        raise UsageError(f"{what}: {text!r} is no time", next="like 90s, 30m or 2h") from error


def _sealer(progress: Progress) -> Sealer | None:
    """Nobody is there to be asked for a passphrase: without one, replays are recorded unsigned, and that is said."""
    keys = keyring()
    if not keys.can_sign():
        return None
    try:
        return open_sealer(keys, given_passphrase)
    except UsageError as error:
        progress.say(f"replays are not signed: {error.what}")
        return None


# --- what is printed ----------------------------------------------------------------------------------------------


def _tell(progress: Progress, run: NightRun) -> None:
    if run.moved not in ("steady", "new"):
        progress.say(f"{run.moved}: {run.run_id} {run.verdict}" + (f": {run.error.what}" if run.error else ""))


def _again(progress: Progress, run_id: str, met: Trouble) -> None:
    why = f": {met.why}" if met.why else ""
    progress.say(f"waiting to try again: {run_id}: {met.what}{why}")


def _at(progress: Progress, done: int, total: int, flying: Sequence[str]) -> None:
    doing = f"replaying {few(flying, 1)}" if flying else "waiting to try again"
    progress.at(f"{done} of {total} done; {doing}")


def text_of(night: Night) -> str:
    """A line for a quiet night; else what got worse first, each with what is known of it."""
    told = [run for run in night.runs if _is_told(night, run)]
    facts = "; ".join(filter(None, (_counts(night), as_recorded(night), last_copies(night))))
    text = f"{_head(night)}  {_named(night)}: {facts}\n"
    text += "".join(_run_text(run) for run in told[:_SHOWN])
    text += f"  and {len(told) - _SHOWN} more: `replay nights {night.night} --json`\n" if len(told) > _SHOWN else ""
    text += _pins_text(night.pins)
    if night.gone:
        shown = ", ".join(night.gone[:3]) + (", …" if len(night.gone) > 3 else "")
        text += f"{gone_words(len(night.gone))}: {shown}\n"
    return text


def _named(night: Night) -> str:
    return " ".join(filter(None, (night.night, safe(variation(night)))))


def _head(night: Night) -> str:
    if any(is_news(night, run) for run in night.runs):
        return "WORSE"
    if night.runs and all(run.moved == "not-run" for run in night.runs):
        return "NOTHING RAN"
    is_quiet = night.is_whole and not any(_is_told(night, run) for run in night.runs)
    return "QUIET" if is_quiet else "NO WORSE"


def _is_told(night: Night, run: NightRun) -> bool:
    return run.moved in ("regressed", "failing", "not-run", "fixed") or (
        run.moved == "flaky" and (run.verdict not in GOOD or run.since == night.night)
    )


def _counts(night: Night) -> str:
    moved = Counter(run.moved for run in night.runs)
    shown = ", ".join(f"{number} {name}" for name, number in moved.items())
    told = f"{count(len(night.runs), 'run')}: {shown}" if night.runs else "no run was replayed"
    return "; ".join(filter(None, (told, left_out(night), not_looked_at(night))))


def _run_text(run: NightRun) -> str:
    was = f" (was {run.before})" if run.before and run.before != run.verdict else ""
    text = f"{run.moved:<9}  {run.run_id}  {run.verdict}{was}  since {run.since}\n"
    if run.flaky:
        rate = run.flaky
        text += f"  {rate.disagreed} of {rate.of} replays disagreed: {rate.low:.0%} to {rate.high:.0%} of them do\n"
    if run.error:
        text += f"  {safe(run.error.what)}" + (f": {safe(run.error.why)}" if run.error.why else "") + "\n"
        text += f"  next: {safe(run.error.next)}\n" if run.error.next else ""
    if run.cause:
        text += f"  {cause_or_suspects(run)}: {_changes(run.cause)}\n"
    elif run.changes:
        text += f"  changed: {_changes(run.changes)}\n"
    bad = [one for one in run.outputs if one.verdict not in GOOD]
    text += "".join(f"  {safe(one.path)}  {one.verdict}  {safe(one.detail)}\n" for one in bad[:3])
    text += "".join(f"  {safe(line)}\n" for line in run.evidence)
    return text + (f"  again: {run.command}\n" if run.moved in ("regressed", "failing", "flaky") else "")


def _pins_text(pins: Sequence[PinTrouble]) -> str:
    """What is lost, each by name."""
    lost = [pin for pin in pins if not pin.places]
    text = "".join(f"lost       {safe(called(pin.kind, pin.name))}, {needed_by(pin.runs)}\n" for pin in lost[:_SHOWN])
    return text + (f"  and {len(lost) - _SHOWN} more: `replay pins`\n" if len(lost) > _SHOWN else "")


def _changes(changes: Sequence[Moving]) -> str:
    return safe(few([f"{one.layer} {moving(one)}" for one in changes], 3))
