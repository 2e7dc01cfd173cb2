"""Causes: why a run got worse, as far as what is recorded can tell.

Where a variation ran another state, a bisect between the two takes them apart. Where the very state that was good is
bad now, nothing recorded differs: the cause lies outside, and what is known of that is how the machines differ.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from runner.bisecting import Bisect, Request
from runner.errors import InterruptedRunError, ReplayError
from runner.layers import host
from runner.run import Session
from runner.state.night import Moving, NightRun
from runner.state.spec import HostSeen
from runner.tools.judge_program import run_judge
from runner.workspace import Workspace

_TOLD = frozenset({"diverged", "failed", "nondeterministic"})


def can_be_bisected(run: NightRun) -> bool:
    return bool(run.ran and run.replay) and run.verdict in _TOLD


def unlooked(run: NightRun) -> NightRun:
    """One whose cause nobody has come to yet."""
    return _with_evidence(run, f"no cause was looked for to an end: `replay bisect {run.run_id} {run.replay}`")


def bisected(connect: Callable[[], Session], run: NightRun, workers: int, seconds: float | None) -> NightRun:
    """With what of the variation made the difference. What keeps that from being found is told beside it."""
    try:
        session = connect()
        made = Bisect(session.workspace, Request(run.run_id, run.replay, workers=workers, seconds=seconds), run_judge)
        made.folder.hold()
        try:
            made.begin()
            result = made.result()
            if result.asked is not None:
                result = made.go(session, lambda _result: None)
        finally:
            made.folder.release()
    except InterruptedRunError:
        raise
    except ReplayError as error:
        return _with_evidence(run, f"no cause was found: {error.what}")
    except OSError as error:
        return _with_evidence(run, f"no cause was found: {error}")
    except Exception as error:  # noqa: BLE001 - one bisect's trouble must not end the night of all runs
        why = f"{type(error).__name__}: {error}; `replay bisect {run.run_id} {run.replay} --debug` shows more"
        return _with_evidence(run, f"the bisect ended with an error of this tool's own: {why}")
    if result.found is None or not result.found.causes:
        return _with_evidence(run, f"no cause was found yet: `replay bisect resume {result.id}` goes on")
    main = result.found.causes[0]
    changes = result.setup.changes_of(frozenset[int]().union(*main.parts))
    inside = {(one.drill.change.layer, one.drill.change.name): one.named for one in result.drilled}
    cause = tuple(
        Moving(one.layer, one.name, one.a or "", one.b or "", inside.get((one.layer, one.name), "")) for one in changes
    )
    return msgspec.structs.replace(run, cause=cause, proven=result.found.proven)


def outside(workspace: Workspace, run: NightRun, good: str) -> NightRun:
    """For a run whose very state is bad now: how this machine differs from that of `good`, the last run that was."""
    if run.ran or run.verdict not in ("diverged", "failed") or not run.replay:
        return run
    try:
        then, now = (workspace.run(run_id).spec().observed.host for run_id in (good, run.replay))
    except ReplayError:
        return run
    told = f"the state is the recorded one, so the cause lies outside of it; {host_words(good, then, now)}"
    return _with_evidence(run, told)


def host_words(good: str, then: HostSeen, now: HostSeen) -> str:
    """How the machine differs from that of `good`."""
    differing = ", ".join(host.differences(then, now))
    return (
        f"the host differs from that of {good} in {differing}"
        if differing
        else f"the host does not differ from that of {good}"
    )


def _with_evidence(run: NightRun, line: str) -> NightRun:
    return msgspec.structs.replace(run, evidence=(*run.evidence, line))
