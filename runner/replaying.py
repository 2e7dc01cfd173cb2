"""One unit of a night: recorded runs of one state, replayed once for all of them; what came of each as plain values.

It runs in a thread of the command, or in a worker on another machine: nothing is raised but an interrupt, nothing is
printed.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Sequence

import msgspec

from runner.compare import rule_for
from runner.diagnose import Diagnosis
from runner.diff import Change
from runner.errors import ConsentError, Exit, InterruptedRunError, OutsideError, ReplayError, TamperedError, disk_error
from runner.explain import explain
from runner.replay import Original, Replayed, compare_also, diagnosis, notes_beside, original_of, overall, replay
from runner.run import Session
from runner.state.night import MOST_OUTPUTS, BadOutput, Moving, NightVerdict, Trouble
from runner.state.record import GOOD, OutputVerdict, Record, ReplayResult
from runner.store.runs import Run
from runner.trust import Consent, admit
from runner.varied import Variation

_DISK = frozenset({errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENOSPC, errno.EROFS})
_WITHOUT_OUTPUTS: dict[Exit, NightVerdict] = {
    Exit.UNREBUILDABLE: "unrebuildable",
    Exit.REFUSED: "refused",
    Exit.TAMPERED: "tampered",
}


class Finding(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a night found of one run. `ran` is the digest of the state that ran, if that is not the recorded one."""

    run_id: str
    verdict: NightVerdict
    replay: str = ""
    started: str = ""
    duration_s: float = 0.0
    replays: int = 0
    disagreed: int = 0
    outputs: tuple[OutputVerdict, ...] = ()
    changes: tuple[Moving, ...] = ()
    kind: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    error: Trouble | None = None
    ran: str = ""
    bad_outputs: tuple[BadOutput, ...] | None = None


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a unit came to: a finding for each run, or the trouble of engine, network or disk that kept it from one."""

    findings: tuple[Finding, ...] = ()
    trouble: Trouble | None = None
    worker: str = ""


def replay_unit(
    session: Session, run_ids: Sequence[str], variation: Variation | None = None, *, consent: Consent | None
) -> Told:
    """Without `consent`, somebody else decided already that they may be run. Raises `InterruptedRunError` when it
    was asked to stop."""
    try:
        return Told(tuple(_findings(session, run_ids, variation, consent)))
    except InterruptedRunError:
        raise
    except OutsideError as error:
        return Told(trouble=trouble_of(error))
    except OSError as error:
        if error.errno not in _DISK:
            return Told(tuple(_not_run(run_id, own_trouble(error)) for run_id in run_ids))
        return Told(trouble=trouble_of(disk_error(error, f"use {error.filename or 'the disk'}")))
    except Exception as error:  # noqa: BLE001 - one run's trouble must not end the night of all others
        return Told(tuple(_not_run(run_id, own_trouble(error)) for run_id in run_ids))


def trouble_of(error: ReplayError) -> Trouble:
    return Trouble(int(error.code), error.what, error.why, error.next)


def own_trouble(error: Exception) -> Trouble:
    why = f"{type(error).__name__}: {error}"
    return Trouble(Exit.INTERNAL, "an error of this tool's own", why, "`replay RUN --debug` shows more; report it")


def _not_run(run_id: str, trouble: Trouble) -> Finding:
    return Finding(run_id=run_id, verdict="not-run", error=trouble)


def _findings(
    session: Session, run_ids: Sequence[str], variation: Variation | None, consent: Consent | None
) -> list[Finding]:
    """Each run leads its likes: those of the same outputs and checks are judged by its replays. An error of one run may
    be its alone, so the next is tried for itself."""
    found: list[Finding] = []
    waiting: list[tuple[Run, Original]] = []
    for run_id in run_ids:
        run = session.workspace.run(run_id)
        try:
            waiting.append((run, original_of(run)))
        except ReplayError as error:
            found.append(finding_of_error(run_id, error))
    while waiting:
        (run, leader), *others = waiting
        with run.being_replayed():
            told = _replayed(session, run, leader, variation, consent)
        if isinstance(told, Finding):
            found.append(told)
            waiting = others
            continue
        found.append(_judged(session, leader, told))
        like = [original for _, original in others if _is_alike(original, leader)]
        found += [_also(session, original, told) for original in like]
        waiting = [one for one in others if not _is_alike(one[1], leader)]
    return found


def _is_alike(one: Original, other: Original) -> bool:
    """Whether replays of the one tell of the other: not where other files are kept, other secrets come in, or
    another probe, or the same one at another file, decides."""
    return _telling(one) == _telling(other)


def _telling(original: Original) -> tuple[object, ...]:
    spec = original.spec
    secrets = {name: seen.source for name, seen in spec.observed.access.secrets.items()}
    varied_by = spec.run.job, spec.observed.dependencies.requested
    return secrets, spec.contract.outputs.keys(), spec.contract.checks, varied_by, _probed(original)


def _probed(original: Original) -> dict[str, tuple[object, str]]:
    """Each file that a probe looks at, and the probe: after the replay there is no environment to run it in."""
    rules = original.spec.contract.outputs
    written = {output.path: output.sha256 for output in original.record.every_output}
    probes = {path: rule_for(path, rules).probe for path in written}
    return {path: (probe, written[path]) for path, probe in probes.items() if probe}


def _replayed(
    session: Session, run: Run, original: Original, variation: Variation | None, consent: Consent | None
) -> list[Replayed] | Finding:
    """Its replays, or the verdict that was reached without. Nobody is asked about a stranger's spec. What was damaged
    in a cache is made anew by the second attempt."""
    attempt = functools.partial(replay, session, original, None, variation.of if variation else None)
    try:
        if consent:
            admit(session.workspace, run, original.spec, original.record, consent)
        try:
            done = attempt()
        except TamperedError:
            done = attempt()
    except (InterruptedRunError, OutsideError):
        raise
    except ReplayError as error:
        return finding_of_error(original.spec.run.id, error)
    _refuse_full_disk(original, done)
    return done


def _refuse_full_disk(original: Original, done: Sequence[Replayed]) -> None:
    """A job that this machine's full disk ended says nothing of its state."""
    endings = {one.record.outcome.ending for one in done} - {original.record.outcome.ending}
    if "disk-full" in endings and original.spec.state.access.limits.disk is None:
        raise OutsideError("the disk is full", "the job was ended before it was", "free some space (`replay gc`)")


def finding_of_error(run_id: str, error: ReplayError) -> Finding:
    """What nobody allowed was not tried, which says nothing of the run."""
    verdict = "not-run" if isinstance(error, ConsentError) else _WITHOUT_OUTPUTS.get(error.code, "not-run")
    return Finding(run_id=run_id, verdict=verdict, error=trouble_of(error))


def _also(session: Session, original: Original, done: Sequence[Replayed]) -> Finding:
    try:
        return _judged(session, original, compare_also(session, original, done))
    except (InterruptedRunError, OutsideError):
        raise
    except ReplayError as error:
        return finding_of_error(original.spec.run.id, error)


def _judged(session: Session, original: Original, done: Sequence[Replayed]) -> Finding:
    result = overall(session, original, done)
    last = done[-1]
    varied = last.spec.digest != original.spec.digest
    why, changes = (
        _told_of_varied(session, original, last, result) if varied else (diagnosis(original, done, result), ())
    )
    ended = [one.record.replay for one in done if one.record.replay]
    return Finding(
        run_id=original.spec.run.id,
        verdict=result.verdict.value,
        replay=last.record.run_id,
        started=done[0].record.started,
        duration_s=round(sum(one.record.outcome.duration_s for one in done), 3),
        replays=len(done),
        disagreed=sum(one.verdict not in GOOD for one in ended),
        outputs=result.outputs,
        changes=tuple(Moving(one.layer, one.name, one.a or "", one.b or "") for one in changes),
        kind=why.kind,
        evidence=_evidence(original, done, result, why),
        ran=last.spec.digest if varied else "",
        bad_outputs=_bad_outputs(result, last.record),
    )


def _evidence(original: Original, done: Sequence[Replayed], result: ReplayResult, why: Diagnosis) -> tuple[str, ...]:
    if result.verdict in GOOD and not original.record.ok:
        return ("the original was halted, too" if original.record.halted else "the original failed, too",)
    return (*why.evidence, *notes_beside(original, done, result, why)) if why.kind else ()


def _bad_outputs(result: ReplayResult, last: Record) -> tuple[BadOutput, ...] | None:
    if result.verdict in GOOD:
        return None
    written = {output.path: output.sha256 for output in last.every_output}
    bad = [BadOutput(one.path, one.verdict, written.get(one.path, "")) for one in result.outputs]
    return tuple(one for one in bad if one.verdict not in GOOD)[:MOST_OUTPUTS]


def _told_of_varied(
    session: Session, original: Original, last: Replayed, result: ReplayResult
) -> tuple[Diagnosis, tuple[Change, ...]]:
    """What was changed; where that gave another result, what kind of drift it is."""
    found = explain(session.workspace, original.spec.run.id, last.record.run_id)
    good = result.verdict in GOOD
    return Diagnosis() if good else found.diagnosis, found.diff.changes
