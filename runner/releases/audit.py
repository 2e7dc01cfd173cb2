"""Audit: what a release names, and what became of it, gathered from the records of this workspace."""

from __future__ import annotations

from collections.abc import Iterator

from runner.attest.verify import verified
from runner.errors import ReplayError
from runner.layers import env
from runner.releases.check import check_run
from runner.seal import Judge
from runner.state.audit import Audit, AuditedRun, Condition, Tie
from runner.state.record import Record, Verdict
from runner.state.spec import StateSpec, layer_digests
from runner.store.index import Row, rows
from runner.store.releases import Known
from runner.store.runs import Run
from runner.verify import verify_run
from runner.workspace import RELEASED, Workspace


def audit(workspace: Workspace, known: Known, judge: Judge) -> Audit:
    """Raises `UsageError` when the release's run is not here."""
    name = known.release.name
    run = workspace.run(known.release.run)
    found = verify_run(workspace, run, judge, {}, name)
    spec = workspace.find_run(RELEASED + name).spec()
    audited, unreadable = [], []
    for row in _tied(workspace, known):
        try:
            one = _audited(workspace, known, workspace.run(row.run_id))
        except ReplayError:
            unreadable.append(row.run_id)
            continue
        audited += [one] if one else []
    return Audit(
        release=known.release,
        sha256=known.sha256,
        status=known.status,
        signed=known.signed,
        verified=verified(found.checks),
        checks=found.checks,
        conditions=tuple(_conditions(spec)),
        runs=tuple(one for one in audited if one.tie != "refused"),
        refused=tuple(one for one in audited if one.tie == "refused"),
        unreadable=tuple(unreadable),
        withdrawals=tuple(said for said in (known.superseded, known.revoked) if said),
    )


def _tied(workspace: Workspace, known: Known) -> list[Row]:
    """Runs that were bound to a release of that name, and replays of the released run, oldest first."""
    listed = rows(workspace.store.folder / "index.sqlite", workspace.run_ids(), workspace.run)
    fitting = [row for row in listed if known.release.name == row.release or known.release.run == row.replay_of]
    return sorted(fitting, key=lambda row: (row.created, row.run_id))


def _audited(workspace: Workspace, known: Known, run: Run) -> AuditedRun | None:
    """None for a run of another release that had the name."""
    spec, record = run.spec_and_record()
    binding = spec.run.release
    if binding and binding.sha256 != known.sha256:
        binding = None
    if binding is None and spec.run.replay_of != known.release.run:
        return None
    tie: Tie = "replay"
    if binding:
        tie = "refused" if binding.refused else "replay of a bound run" if spec.run.replay_of else "bound"
    against, verdict, detail = _came_to(workspace, known, spec, record, tie)
    return AuditedRun(
        run_id=run.id,
        tie=tie,
        started=record.started if record else spec.run.created,
        state_digest=spec.digest,
        signed=run.is_signed(),
        against=against,
        verdict=verdict,
        detail=detail,
        deviations=binding.deviations if binding else (),
        unlisted=binding.unlisted if binding else 0,
    )


def _came_to(
    workspace: Workspace, known: Known, spec: StateSpec, record: Record | None, tie: Tie
) -> tuple[str, Verdict | None, str]:
    """What a run's outputs were compared with, the verdict, and why there is none."""
    if record is None:
        return "", None, "it was never finished"
    if tie == "refused":
        return "", None, record.outcome.detail
    if record.replay:
        return record.replay.replay_of, record.replay.verdict, ""
    try:
        return RELEASED + known.release.name, check_run(workspace, known, spec.run.id).verdict, ""
    except ReplayError as error:
        return RELEASED + known.release.name, None, error.what


def _conditions(spec: StateSpec) -> Iterator[Condition]:
    """Each part of the state with its digest and what it was called, the data path by path; of variables those first
    that are declared."""
    state, seen = spec.state, spec.observed
    access, locked = state.access, state.dependencies.locked or ()
    fixed = env.determinism_variables(access.determinism, access.limits.cpus, locked).items()
    names = {
        "code": (f"commit {seen.code.commit or 'none'}", *(f"edited: {path}" for path in seen.code.dirty)),
        "params": (state.params.file or "in replay.yaml",) if state.params else (),
        "image": (seen.image.reference or "", state.image.platform, *state.image.diff_ids),
        "dependencies": (
            *((f"Python {state.dependencies.python}",) if state.dependencies.python else ()),
            *(f"{wheel.name} {wheel.version} {wheel.sha256}" for wheel in locked),
        ),
        "env": tuple("=".join(one) for one in sorted(state.env.items(), key=lambda one: (one in fixed, one))),
        "data": tuple(f"{path} {digest}" for path, digest in sorted(state.data.items())),
        "model": tuple(f"{path} {digest}" for path, digest in sorted(state.model.items())),
        "access": (f"network {access.network}", *(f"secret {name}" for name in state.secrets)),
        "contract": tuple(sorted(spec.contract.outputs)),
    }
    for layer, digest in layer_digests(state, spec.contract).items():
        yield Condition(layer, digest, tuple(name for name in names[layer] if name))
