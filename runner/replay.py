"""Replay: rebuild → execute → compare, on one screen.

A replay is a run of a recorded state. It never changes that state, resolves nothing anew, and says what
it found: the outputs are the same, the same within tolerance, or not, and whether they are at least the
same among replays.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from runner import __version__, supply
from runner.compare import Printed, Prober, check_installed, compare_outputs, not_probed, rule_for
from runner.diagnose import Diagnosis, diagnose_replays
from runner.diff import Change, access_changes
from runner.erased import erased_of
from runner.errors import InterruptedRunError, RefusedError, TamperedError, UsageError
from runner.execute import Executed
from runner.layers import access, host, sources
from runner.probes import Probes
from runner.rebuild import Rebuilt, damage
from runner.run import (
    Session,
    collect_outputs,
    conclude,
    ending,
    new_run,
    record_of,
    refuse_damaged,
    refuse_if_interrupted,
    run_rebuilt,
    starting,
    sweep,
    write_spec,
)
from runner.state.digest import Digest
from runner.state.moment import moment_text, now_text
from runner.state.record import (
    GOOD,
    CheckResult,
    Outcome,
    Output,
    OutputProblem,
    OutputVerdict,
    Record,
    ReplayResult,
    Verdict,
    worst,
)
from runner.state.spec import (
    AccessSeen,
    HostSeen,
    Observed,
    OutputRule,
    RunInfo,
    StateSpec,
    ToolInfo,
    state_digest,
)
from runner.store.runs import VARIED, Run, new_run_id

if TYPE_CHECKING:
    from runner.varied import Varied


class Original(msgspec.Struct, frozen=True):
    """A recorded run: what to do again and what to compare with."""

    spec: StateSpec
    record: Record


class Replayed(msgspec.Struct, frozen=True):
    """One replay: its own spec and record, the comparison in `record.replay`, and what probes of outputs printed."""

    spec: StateSpec
    record: Record
    printed: Mapping[tuple[str, Digest], Printed] = {}


def original_of(run: Run) -> Original:
    """The run with its record. Raises `UsageError` when it has none, so that nothing could be compared."""
    spec, record = run.spec_and_record()
    if record is None:
        raise UsageError(
            f"{run.id} was never finished",
            "it has a spec and no record, so there is nothing to compare a replay with",
            f"record it anew: `replay run {spec.run.job}`",
        )
    if record.outcome.ending == "refused":
        raise UsageError(
            f"{run.id} was refused {record.outcome.detail}",
            "it never ran, so there is nothing to compare a replay with",
            f"`replay show {run.id}` tells what deviates",
        )
    if record.outcome.ending == "interrupted":
        raise UsageError(
            f"{run.id} was interrupted, so its outputs are not those of its state",
            next=f"record it anew: `replay run {spec.run.job}`",
        )
    return Original(spec, record)


Vary = Callable[[Session, StateSpec], "Varied | None"]
"""What state is to be run in the place of a recorded one; None for the recorded one itself."""


def replay(session: Session, original: Original, times: int | None, vary: Vary | None = None) -> list[Replayed]:
    """Replay `times` times; by default once, and once more if that differs, to tell whether it is
    reproducible. The verdict over all is `overall`."""
    check_installed((output.path for output in original.record.every_output), original.spec.contract.outputs)
    done = [replay_once(session, original, vary)]
    wanted = times or (1 if _good(done[0]) else 2)
    while len(done) < wanted:
        done.append(replay_once(session, original, vary))
    return done


def overall(session: Session, original: Original, done: Sequence[Replayed]) -> ReplayResult:
    """One verdict over several replays of one state, per output and in all.

    A difference from the original is `diverged` when all replays have it and agree among themselves within the
    tolerance, and `nondeterministic` when they do not. Replays that are each within the tolerance of the original
    may be further than that from each other.
    """
    outputs: dict[str, OutputVerdict] = {}
    for one in done:
        for found in _result(one).outputs:
            outputs[found.path] = _worse(outputs.get(found.path), found)
    differing = {path for path, one in outputs.items() if one.verdict is Verdict.DIVERGED}
    for path, detail in _unsteady(session, original, done).items() if differing else ():
        if path in differing:
            seen = outputs[path]
            detail = f"{detail}; from the original: {seen.detail}"
            outputs[path] = OutputVerdict(path, Verdict.NONDETERMINISTIC, seen.comparator, detail)
    ends = {_result(one).verdict for one in done} & {Verdict.DIVERGED, Verdict.FAILED, Verdict.REFUSED}
    verdict = worst([*(output.verdict for output in outputs.values()), *ends])
    notes = tuple(dict.fromkeys(note for one in done for note in _result(one).notes))
    ordered = tuple(outputs[path] for path in sorted(outputs))
    return ReplayResult(replay_of=original.spec.run.id, verdict=verdict, outputs=ordered, notes=notes)


def diagnosis(original: Original, done: Sequence[Replayed], result: ReplayResult) -> Diagnosis:
    """Why the replays are not what the original was; empty when they are."""
    then, now = original.spec.observed, done[-1].spec.observed
    hosts = host.differences(then.host, now.host)
    return diagnose_replays(result.outputs, result.verdict, len(done), hosts, _telling_access(original.spec, now))


def notes_beside(original: Original, done: Sequence[Replayed], result: ReplayResult, why: Diagnosis) -> tuple[str, ...]:
    """The notes of replays but those of which the diagnosis tells as well."""
    if not any(line.startswith("access: ") for line in why.evidence):
        return result.notes
    told = set(map(_access_words, _telling_access(original.spec, done[-1].spec.observed)))
    return tuple(note for note in result.notes if note not in told)


def replay_once(session: Session, original: Original, vary: Vary | None = None) -> Replayed:
    """Rebuild the state, run it, compare its outputs with the original's, and record all that. A state that was varied
    is recorded as a run of its own: it is no replay of the original, though it is compared with it."""
    store = session.workspace.store
    secrets = _secrets(session, original.spec)
    sweep(session)
    with store.adding():
        spec = _spec_of_replay(session, original.spec, secrets)
        varied = vary(session, original.spec) if vary else None
        if varied:
            spec = _spec_of_varied(spec, varied)
        for change in access_changes(original.spec.observed.access, spec.observed.access):
            session.say(_access_words(change))
        run = new_run(session, spec.run.id)
        run.begin()
        with starting(run):
            spec_bytes = write_spec(run, spec)
            rebuilt = supply.rebuild_supplied(session, spec, run)
            refuse_if_interrupted(session)
    with ending(run):
        started = now_text()
        finished = run_rebuilt(session, run, spec, rebuilt, secrets)
        if finished.outcome.ending == "interrupted":
            raise InterruptedRunError("interrupted", f"replay {run.id} was stopped while the job ran")
        with store.adding():
            executed = collect_outputs(session, run, spec, rebuilt, finished, secrets)
            probes = Probes(session, run, spec.state, rebuilt.prepared)
            result = _compare(session, original, spec, executed, rebuilt, probes)
            record = record_of(spec, spec_bytes, started, executed, None if varied else result)
            conclude(session, run, spec, spec_bytes, record)
    return Replayed(spec, msgspec.structs.replace(record, replay=result), probes.printed)


def _compare(
    session: Session, original: Original, spec: StateSpec, executed: Executed, rebuilt: Rebuilt, prober: Prober
) -> ReplayResult:
    """The verdict of one replay. Before it says that outputs differ, what the job was given is re-hashed."""
    result = compare_with(session, original, spec.observed, executed, prober)
    if result.verdict not in GOOD:
        refuse_damaged(session, rebuilt, damage(session.workspace.store, rebuilt, full=True))
    return result


def compare_with(
    session: Session, original: Original, seen: Observed, after: Executed | Record, prober: Prober
) -> ReplayResult:
    """What came of the state now, compared with what came of it then."""
    before = original.record
    now = after.outputs + after.set_apart
    outputs = _verdicts(session, original.spec, before.every_output, now, prober)
    outputs += _problem_verdicts(before, after)
    beside = _boundary_verdict(before.checks, after.checks), _exit_verdict(before, after)
    return ReplayResult(
        replay_of=original.spec.run.id,
        verdict=worst([*(one.verdict for one in outputs), *beside]),
        outputs=tuple(sorted(outputs, key=lambda one: one.path)),
        notes=tuple(_notes(original, seen, after)),
    )


def at_best(original: Original, after: Record) -> Verdict:
    """The best that a comparison of the two can conclude: what digests, problems, boundaries and exits tell, where all
    that a rule could tolerate is taken to be within its tolerance."""
    before, rules = original.record, original.spec.contract.outputs
    was, now = ({output.path: output for output in one.every_output} for one in (before, after))
    verdicts = [_at_best(path, was.get(path), now.get(path), rules) for path in was.keys() | now.keys()]
    verdicts += [one.verdict for one in _problem_verdicts(before, after)]
    verdicts.append(_boundary_verdict(before.checks, after.checks))
    return worst([*verdicts, _exit_verdict(before, after)])


def _at_best(path: str, was: Output | None, now: Output | None, rules: Mapping[str, OutputRule]) -> Verdict:
    if was is None or now is None or was.executable != now.executable:
        return Verdict.DIVERGED
    if was.sha256 == now.sha256:
        return Verdict.IDENTICAL
    return Verdict.DIVERGED if rule_for(path, rules).compare == "bytes" else Verdict.EQUIVALENT


def _exit_verdict(was: Record, now: Executed | Record) -> Verdict:
    same = (was.outcome.exit_code, was.outcome.ending) == (now.outcome.exit_code, now.outcome.ending)
    return Verdict.IDENTICAL if same else Verdict.FAILED


def compare_also(session: Session, original: Original, done: Sequence[Replayed]) -> list[Replayed]:
    """Replays of another run of the same state and outputs, held against this run's own outputs."""
    printed = {key: found for one in done for key, found in one.printed.items()}

    def remembered(path: str, digest: Digest, rule: OutputRule) -> Printed:
        return printed.get((path, digest)) or not_probed(path, digest, rule)

    def held_against(one: Replayed) -> Replayed:
        result = compare_with(session, original, one.spec.observed, one.record, remembered)
        return Replayed(one.spec, msgspec.structs.replace(one.record, replay=result), one.printed)

    return [held_against(one) for one in done]


def _boundary_verdict(was: Sequence[CheckResult], now: Sequence[CheckResult]) -> Verdict:
    """A boundary that halts a replay and did not halt the original refuses it; the other way round, the two differ."""
    before, after = ({check.name for check in checks if check.halts} for checks in (was, now))
    if after - before:
        return Verdict.REFUSED
    return Verdict.DIVERGED if before - after else Verdict.IDENTICAL


def _verdicts(
    session: Session, spec: StateSpec, before: Sequence[Output], after: Sequence[Output], prober: Prober
) -> list[OutputVerdict]:
    store, was, now = session.workspace.store, *({output.path: output for output in one} for one in (before, after))
    lost = {
        path: told
        for path, told in _erased(session, before).items()
        if path in now and now[path].sha256 != was[path].sha256
    }

    def opener(digest: Digest) -> Path:
        supply.bring_blobs(session, [digest])
        return store.blobs.verified(digest)

    compared = compare_outputs(
        {path: output for path, output in was.items() if path not in lost},
        {path: output for path, output in now.items() if path not in lost},
        spec.contract.outputs,
        opener,
        prober,
    )
    return [*compared, *(_uncompared(path, rule_for(path, spec.contract.outputs), lost[path]) for path in lost)]


def _erased(session: Session, outputs: Sequence[Output]) -> dict[str, str]:
    """Outputs that are no longer there to be compared, and what their tombstones say."""
    workspace = session.workspace
    found = erased_of(workspace.store, workspace.specs, (Digest(output.sha256) for output in outputs))
    told = {digest: tombstone.told for digest, tombstone in found.items()}
    return {output.path: told[Digest(output.sha256)] for output in outputs if output.sha256 in told}


def _uncompared(path: str, rule: OutputRule, told: str) -> OutputVerdict:
    """Other bytes than those that were erased: whether within the tolerance, nobody can tell any more."""
    if rule.compare == "bytes":
        return OutputVerdict(path, Verdict.DIVERGED, rule.compare, f"bytes differ from the original, which was {told}")
    detail = f"bytes differ, and the original cannot be compared otherwise: it was {told}"
    return OutputVerdict(path, Verdict.UNREBUILDABLE, rule.compare, detail)


def _problem_verdicts(before: Record, after: Record | Executed) -> list[OutputVerdict]:
    """Outputs that could not be taken from one of the two."""
    was, now = ({problem.path: problem for problem in one.problems} for one in (before, after))
    compared = {output.path for one in (before, after) for output in one.outputs + one.set_apart}
    return [_problem_verdict(was.get(path), now.get(path)) for path in sorted((was.keys() | now.keys()) - compared)]


def _problem_verdict(was: OutputProblem | None, now: OutputProblem | None) -> OutputVerdict:
    """The same trouble in both is no difference, if it leaves nothing unseen."""
    problem = now or was
    assert problem is not None
    detail = f"{problem.problem}: {problem.detail}"
    if was != now:
        return OutputVerdict(problem.path, Verdict.DIVERGED, "none", detail)
    if not problem.tells_all:
        return OutputVerdict(problem.path, Verdict.FAILED, "none", f"{detail}; so it cannot be compared")
    return OutputVerdict(problem.path, Verdict.IDENTICAL, "none", f"{detail} (as in the original)")


def _notes(original: Original, now: Observed, executed: Executed | Record) -> list[str]:
    notes = []
    before, after = original.record.outcome, executed.outcome
    if (before.exit_code, before.ending) != (after.exit_code, after.ending):
        notes.append(f"the job {_ended(after)}; in the original it {_ended(before)}")
    if original.spec.state.access.network == "open":
        notes.append("the network is open to this job: what it fetched is no part of the state")
    if not original.spec.contract.outputs:
        notes.append("the job declares no outputs, so only its exit status was compared")
    notes += _boundary_notes(original.record.checks, executed.checks)
    notes += _host_notes(original.spec.observed.host, now.host)
    notes += map(_access_words, access_changes(original.spec.observed.access, now.access))
    return notes


def _access_words(change: Change) -> str:
    """What moved in access since the original; never the value of a secret."""
    return f"access: {change.name}: {change.detail or f'{change.b}; at the original {change.a}'}"


def _telling_access(spec: StateSpec, now: Observed) -> list[Change]:
    """What of access can explain that a job ends otherwise: a source only where the network is open to it."""
    is_open = spec.state.access.network == "open"
    changes = access_changes(spec.observed.access, now.access)
    return [change for change in changes if is_open or change.name in spec.state.secrets]


def _boundary_notes(was: Sequence[CheckResult], now: Sequence[CheckResult]) -> Iterator[str]:
    """What halts one of the two, and what is broken without halting."""
    before, after = ({check.name: check for check in checks} for checks in (was, now))
    for name, check in after.items():
        old = before.get(name)
        if check.broken:
            halts = ("halted by " if check.halts else "") + f"check {name!r} of {check.on}: {check.detail}"
            yield halts + (" (as in the original)" if old and old.broken else "; it was not broken in the original")
        elif old and old.broken:
            yield f"check {name!r} was broken in the original: {old.detail}"


def _host_notes(then: HostSeen, now: HostSeen) -> list[str]:
    """What differs between the machines, since it may explain a difference in the outputs."""
    fields = host.differences(then, now)
    return [f"the host differs in {', '.join(fields)}"] if fields else []


def _ended(outcome: Outcome) -> str:
    if outcome.ending == "halted":
        return "was halted by a boundary before it started"
    return f"exited {outcome.exit_code}" if outcome.ending == "exited" else f"ended by {outcome.ending}"


def _unsteady(session: Session, original: Original, done: Sequence[Replayed]) -> Mapping[str, str]:
    """Outputs in which replays disagree among themselves: beyond the tolerance, or on being within it of the
    original."""
    found: dict[str, str] = {}
    first = done[0].record
    good = [{one.path: one.verdict is not Verdict.DIVERGED for one in _result(each).outputs} for each in done]
    printed = {key: found for one in done for key, found in one.printed.items()}

    def remembered(path: str, digest: Digest, rule: OutputRule) -> Printed:
        return printed.get((path, digest)) or not_probed(path, digest, rule)

    for number, other in enumerate(done[1:], 2):
        compared = _verdicts(session, original.spec, first.every_output, other.record.every_output, remembered)
        for one in (*compared, *_problem_verdicts(first, other.record)):
            if one.verdict is Verdict.DIVERGED:
                found.setdefault(one.path, f"replays 1 and {number} disagree: {one.detail}")
            elif good[0].get(one.path) != good[number - 1].get(one.path):
                found.setdefault(one.path, f"only some of {len(done)} replays differ beyond the tolerance")
    return found


def _worse(a: OutputVerdict | None, b: OutputVerdict) -> OutputVerdict:
    return b if a is None or worst([a.verdict, b.verdict]) is not a.verdict else a


def _good(one: Replayed) -> bool:
    return _result(one).verdict in GOOD


def _result(one: Replayed) -> ReplayResult:
    if one.record.replay is None:
        raise TamperedError(f"{one.record.run_id} is no replay", "its record holds no comparison")
    return one.record.replay


def _spec_of_replay(session: Session, original: StateSpec, secrets: Mapping[str, bytes]) -> StateSpec:
    """The same state and contract, seen here and now."""
    now = datetime.datetime.now(datetime.UTC)
    run = RunInfo(
        id=new_run_id(original.run.job, now),
        job=original.run.job,
        created=moment_text(now),
        tool=ToolInfo(version=__version__),
        labels=original.run.labels,
        replay_of=original.run.id,
        release=original.run.release,
    )
    observed = msgspec.structs.replace(
        original.observed,
        access=_access_now(session, original, secrets),
        host=host.observe(session.engine.version()),
    )
    return msgspec.structs.replace(original, run=run, observed=observed)


def _spec_of_varied(spec: StateSpec, varied: Varied) -> StateSpec:
    run = msgspec.structs.replace(spec.run, labels=(VARIED,), replay_of=None)
    seen = msgspec.structs.replace(varied.observed, access=spec.observed.access, host=spec.observed.host)
    return msgspec.structs.replace(spec, run=run, state=varied.state, observed=seen, digest=state_digest(varied.state))


def _access_now(session: Session, spec: StateSpec, secrets: Mapping[str, bytes]) -> AccessSeen:
    store, then = session.workspace.store, spec.observed.access
    references = {name: then.secrets[name].source for name in secrets}
    return AccessSeen(
        access.seen(references, secrets, store.fingerprint_key()) if secrets else {},
        sources.observe(session.workspace.root, sources.of_seen(then.sources), secrets),
    )


def _secrets(session: Session, spec: StateSpec) -> dict[str, bytes]:
    """The secrets now, from where they were taken then. A replay cannot do with fewer."""
    seen = spec.observed.access.secrets
    lost = [name for name in spec.state.secrets if name not in seen]
    if lost:
        raise RefusedError(f"the spec does not say where secret {lost[0]} is taken from")
    references = {name: seen[name].source for name in spec.state.secrets}
    return access.read_secrets(references, session.workspace.root, os.environ)
