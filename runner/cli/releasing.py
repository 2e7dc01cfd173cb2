"""The commands about releases: `release …` and `audit`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import typer

from runner.cli.output import print_error, print_json, safe, table
from runner.cli.passphrase import asked_passphrase
from runner.errors import Exit, ReplayError, UsageError, disk_error
from runner.keys import keyring
from runner.shown import few
from runner.state.digest import plain
from runner.state.record import EXIT_OF_VERDICT, GOOD, Verdict
from runner.state.release import (
    Acceptance,
    ReleaseCheck,
    ReleaseList,
    ReleaseListed,
    ReleaseShown,
    ReleaseWritten,
    WithdrawalKind,
)
from runner.state.spec import Binding, Check, Deviation, Layer, OnDeviation, Policy
from runner.state.verification import UNTRUSTED, only_lacks
from runner.store.files import write_atomic
from runner.store.releases import Known
from runner.workspace import PRESENT, RELEASED, Workspace, open_workspace

if TYPE_CHECKING:
    from runner.releases.make import Written
    from runner.run import Bind
    from runner.seal import Judge, Sealer

_SHOWN = 20
_MOST_BOUNDS = 8


def create(
    name: str,
    part: str,
    reason: str,
    accepted_by: str | None,
    policy: str,
    may_move: str,
    store: Path | None,
    as_json: bool,
) -> int:
    from runner.releases import make

    workspace = open_workspace(Path.cwd(), store)
    named = name.removeprefix(RELEASED)
    wanted = Policy(deviation_of(policy), _layers(may_move))
    said = make.said(workspace, accepted_by, reason)
    written = make.create(workspace, named, part, said, wanted, _sealer())
    return _written(workspace, named, written, as_json)


def withdraw(
    kind: WithdrawalKind, name: str, by: str | None, reason: str, said_by: str | None, store: Path | None, as_json: bool
) -> int:
    from runner.releases import make

    workspace = open_workspace(Path.cwd(), store)
    named = name.removeprefix(RELEASED)
    other = by.removeprefix(RELEASED) if by else None
    written = make.withdraw(workspace, kind, named, make.said(workspace, said_by, reason), other, _sealer())
    return _written(workspace, named, written, as_json)


def listed(store: Path | None, as_json: bool) -> int:
    workspace = open_workspace(Path.cwd(), store)
    doubt, found, unreadable = _doubter(workspace), [], {}
    for name in workspace.releases.names():
        try:
            known = workspace.releases.find(name)
        except ReplayError as error:
            unreadable[name] = error
            continue
        found.append((known, doubt(known)))
    if as_json:
        wrong = {name: error.what for name, error in unreadable.items()}
        print_json(ReleaseList(tuple(_listed(*one) for one in found), wrong))
    elif found:
        typer.echo(table([_row(*one) for one in found], ("RELEASE", "STATUS", "RUN", "ACCEPTED", "WHY")), nl=False)
    elif not unreadable:
        typer.echo("no releases: `replay release create NAME RUN --reason TEXT` makes one", err=True)
    if not as_json:
        for problem in unreadable.values():
            print_error(problem, as_json)
    return Exit.TAMPERED if unreadable or any(_is_false(reason) for _, reason in found) else Exit.OK


def show(name: str, store: Path | None, as_json: bool) -> int:
    workspace = open_workspace(Path.cwd(), store)
    known = workspace.releases.find(name.removeprefix(RELEASED))
    doubt = _doubter(workspace)(known)
    if as_json:
        print_json(
            ReleaseShown(
                status=known.status,
                signed=known.signed,
                sha256=known.sha256,
                release=known.release,
                superseded=known.superseded,
                revoked=known.revoked,
                doubt=doubt,
            )
        )
    else:
        typer.echo(_show_text(known, doubt), nl=False)
    return Exit.TAMPERED if _is_false(doubt) else Exit.OK


def diff(a: str, b: str, store: Path | None, as_json: bool) -> int:
    """What `replay diff` says of the two runs, and what else the two releases accept."""
    from runner.cli.looking import diff_json, diff_text
    from runner.explain import explain
    from runner.releases.bind import contract_changes

    workspace = open_workspace(Path.cwd(), store)
    one, other = (workspace.releases.find(name.removeprefix(RELEASED)) for name in (a, b))
    found = explain(workspace, RELEASED + one.release.name, RELEASED + other.release.name)
    contract = tuple(contract_changes(one.release.contract, other.release.contract))
    policies = [known.release.policy for known in (one, other)]
    if as_json:
        told = {"a": one.release.name, "b": other.release.name, "contract": contract}
        policy = {"policy": {"a": policies[0], "b": policies[1]}} if policies[0] != policies[1] else {}
        print_json(diff_json(found) | told | policy)
    else:
        text = diff_text(found) + deviations_text(contract)
        text += f"  policy  {_policy(policies[0])} → {_policy(policies[1])}\n" if policies[0] != policies[1] else ""
        typer.echo(text, nl=False)
    return Exit.OK if found.diff.equal and not contract else Exit.DIFFERENT


def check(name: str, part: str, store: Path | None, as_json: bool) -> int:
    from runner.releases.bind import refuse_unbelieved
    from runner.releases.check import check_present, check_run
    from runner.tools.containers import connect_if_any

    workspace = open_workspace(Path.cwd(), store)
    known = workspace.releases.find(name.removeprefix(RELEASED))
    refuse_unbelieved(workspace, known, _judge())
    found = check_present(workspace, known, connect_if_any()) if part == PRESENT else check_run(workspace, known, part)
    if as_json:
        print_json(found)
    else:
        typer.echo(_check_text(found), nl=False)
    return _check_exit(found)


def audit(name: str, output: Path | None, force: bool, store: Path | None, as_json: bool) -> int:
    from runner.releases.audit import audit as audited
    from runner.releases.page import page

    workspace = open_workspace(Path.cwd(), store)
    known = workspace.releases.find(name.removeprefix(RELEASED))
    if output and output.exists() and not force:
        raise UsageError(f"{output} is there already", next="give --force to overwrite it, or another name")
    found = audited(workspace, known, _judge())
    if output:
        try:
            write_atomic(output.absolute(), page(found).encode())
        except OSError as error:
            raise disk_error(error, f"write {output}") from error
    if as_json:
        print_json(found)
    elif output:
        typer.echo(f"wrote {output}")
    else:
        typer.echo(page(found), nl=False)
    if not as_json and only_lacks(found.checks):
        from runner.remote.select import how_to_get

        typer.echo(f"next: {how_to_get(workspace, known.release.run)}, then audit again", err=True)
    return Exit.OK if found.verified else Exit.TAMPERED


def _check_exit(found: ReleaseCheck) -> int:
    """The worst of what was found, in the order of the verdicts."""
    if found.status == "revoked" or not found.allowed:
        return Exit.REFUSED
    if found.lost:
        return Exit.UNREBUILDABLE
    if found.verdict:
        return EXIT_OF_VERDICT[found.verdict] or (Exit.OK if found.equal else Exit.DIFFERENT)
    return Exit.OK if found.equal else Exit.DIFFERENT


def _check_text(found: ReleaseCheck) -> str:
    name = RELEASED + found.name
    said = safe("; ".join(_check_words(found, name)))
    good = f"{name} would run here now, unchanged" if found.verdict is None else f"{found.against} is what {name} names"
    text = f"no: {said}\n" if said else f"yes: {good}\n"
    text += deviations_text(found.deviations, found.unlisted)
    text += "".join(f"  {layer}  unknown: {safe(why)}\n" for layer, why in found.unknown.items())
    text += "".join(f"  access  {safe(why)}\n" for why in found.unreadable.values())
    text += "".join(f"  {pin.layer}  {safe(pin.name)}: {safe(pin.place)}\n" for pin in found.lost)
    differing = [one for one in found.outputs if one.verdict is not Verdict.IDENTICAL]
    return text + table([(f"  {safe(one.path)}", one.verdict, safe(one.detail)) for one in differing[:_SHOWN]])


def _check_words(found: ReleaseCheck, name: str) -> Iterator[str]:
    """Why not; nothing for yes."""
    if found.status == "revoked":
        yield f"{name} was revoked"
    if found.deviations:
        what = "what would run" if found.verdict is None else found.against
        yield f"{what} deviates from {name}, which {'lets it' if found.allowed else 'refuses that'}"
    elif found.unknown:
        yield "not all of it can be told without running it"
    if found.unreadable:
        yield f"{', '.join(found.unreadable)} cannot be read here"
    if found.lost:
        lost = len(found.lost)
        yield f"{lost} pin{'s' * (lost != 1)} of {name} {'is' if lost == 1 else 'are'} not here"
    if found.verdict not in (None, *GOOD):
        yield f"its outputs are not those that were accepted: {found.verdict}"


def deviation_of(text: str) -> OnDeviation:
    if text not in get_args(OnDeviation):
        raise UsageError(f"--policy: {text!r} is not known", next=f"one of {', '.join(get_args(OnDeviation))}")
    return text  # type: ignore[return-value]


def _layers(text: str) -> tuple[Layer, ...]:
    """Raises `UsageError` for what is no layer."""
    found = [layer for word in text.split(",") if (layer := word.strip())]
    for layer in found:
        if layer not in get_args(Layer):
            raise UsageError(f"--may-move: {layer!r} is no layer", next=f"of {', '.join(get_args(Layer))}")
    return tuple(sorted(set(found)))  # type: ignore[arg-type]


# --- run --release -------------------------------------------------------------------------------------------


def bind_of(workspace: Workspace, name: str | None, policy: str | None) -> Bind | None:
    """What holds a run to a release, if it is to be held to one."""
    if name is None:
        if policy is not None:
            raise UsageError("--policy needs --release", "a policy says what becomes of a deviation from a release")
        return None
    from runner.releases.bind import binder

    return binder(workspace, name, deviation_of(policy) if policy else None, _judge())


def binding_text(binding: Binding) -> str:
    """What a run that was bound is told of it."""
    text = f"  under {RELEASED}{binding.name}" + ("" if binding.deviations else ": nothing deviates") + "\n"
    return text + deviations_text(binding.deviations, binding.unlisted)


def deviations_text(found: tuple[Deviation, ...], unlisted: int = 0) -> str:
    text = table([(f"  {one.layer}", safe(one.name), _sides(one)) for one in found[:_SHOWN]])
    left = len(found) - len(found[:_SHOWN]) + unlisted
    return text + (f"  and {left} more\n" if left else "")


def _sides(one: Deviation) -> str:
    return " → ".join(safe("—" if side is None else side)[:100] for side in (one.a, one.b))


# --- what is shown -------------------------------------------------------------------------------------------


def _written(workspace: Workspace, name: str, written: Written, as_json: bool) -> int:
    known, file = workspace.releases.find(name), written.statement
    if as_json:
        of_run = tuple(map(str, written.of_run))
        print_json(ReleaseWritten(written=str(file), of_run=of_run, release=_listed(known)))
        return Exit.OK
    signed = "signed" if (file.parent / f"{file.stem}.sigstore.json").is_file() else "not signed"
    typer.echo(f"{known.status}  {RELEASED}{name}, {signed}\nwrote {file.parent}/{file.stem}.*: review and commit it")
    if written.of_run:
        run_id = known.release.run
        typer.echo(f"wrote {written.of_run[0].parent}/{run_id}.*: commit them too, only this store had the run")
    return Exit.OK


def _doubter(workspace: Workspace) -> Callable[[Known], str]:
    """Why what was signed of a release does not verify; nothing of signing is loaded for those that nobody signed."""

    def doubt(known: Known) -> str:
        if not known.signed:
            return ""
        from runner.releases import bind

        return bind.doubt(workspace, known, judge())

    judge = functools.cache(_judge)
    return doubt


def _is_false(doubt: str) -> bool:
    """Whether it is not what was signed; a key that is not trusted here says nothing of that."""
    return doubt not in ("", UNTRUSTED)


def _row(known: Known, doubt: str) -> tuple[str, ...]:
    release = known.release
    return (
        RELEASED + release.name,
        _status(known, doubt),
        release.run,
        f"{safe(release.accepted.by)}, {release.accepted.at[:10]}",
        safe(release.accepted.why),
    )


def _listed(known: Known, doubt: str = "") -> ReleaseListed:
    release = known.release
    return ReleaseListed(
        name=release.name,
        status=known.status,
        signed=known.signed,
        sha256=known.sha256,
        run_id=release.run,
        state_digest=release.state,
        accepted=release.accepted,
        policy=release.policy,
        superseded_by=known.superseded.by if known.superseded else None,
        doubt=doubt,
    )


def _status(known: Known, doubt: str) -> str:
    if _is_false(doubt):
        return f"{known.status}, not verified: {doubt}".removeprefix("current, ")
    unsigned = f", {doubt}" if doubt else "" if known.signed else ", not signed"
    by = f" by {known.superseded.by}" if known.superseded and not known.revoked else ""
    return known.status + by + unsigned


def _show_text(known: Known, doubt: str) -> str:
    release = known.release
    tolerances = release.contract.outputs.items()
    lines = [
        ("release", f"{RELEASED}{release.name}  ({_status(known, doubt)})"),
        ("sha256", known.sha256),
        ("run", f"{release.run}, of job {release.job}"),
        ("state", release.state),
        ("accepted", _accepted(release.accepted)),
        ("policy", _policy(release.policy)),
        *(("output", f"{one.path}  {one.size} bytes  {one.sha256[:19]}") for one in release.outputs),
        *(("tolerance", f"{path}  {_rule(plain(rule))}") for path, rule in tolerances),
        *(("boundary", _boundary(one)) for one in release.contract.checks),
        *((said.kind, _accepted(said.said)) for said in (known.superseded, known.revoked) if said),
    ]
    return "".join(f"{name:<10} {safe(value)}\n" for name, value in lines)


def _policy(policy: Policy) -> str:
    moving = f"; {', '.join(policy.may_move)} may move" if policy.may_move else ""
    return f"a run that deviates is {'refused' if policy.deviation == 'refuse' else 'warned of'}{moving}"


def _boundary(check: Check) -> str:
    from runner.releases.page import bounds

    name = check.name if check.on in check.name else f"{check.name} ({check.on})"
    return f"{name}: {few(bounds(check), _MOST_BOUNDS)}; {check.action}"


def _rule(rule: dict[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in rule.items()) or "bytes"


def _accepted(said: Acceptance) -> str:
    return f"by {said.by}, {said.at}: {said.why}"


# --- keys ----------------------------------------------------------------------------------------------------


def _sealer() -> Sealer | None:
    keys = keyring()
    if not keys.can_sign():
        return None
    from runner.seal import open_sealer

    return open_sealer(keys, asked_passphrase)


def _judge() -> Judge:
    from runner.seal import judge_of

    return judge_of(keyring().trusted())
