"""Trust: may the job of a recorded run be run here? One decision for all that runs jobs from specs.

    recorded here, or allowed once    goes without asking: the user's own list of specs says so, outside any workspace
    signed by a key that is trusted   goes without asking
    anybody else's                    what it would do is shown, and `--trust` or a yes is needed

A stranger's secrets are another matter: what it says about where they are taken from was written by the stranger. Each
such place needs a yes of its own, or its name in `--allow-secret`, unless `replay.yaml` here takes the very same secret
from there and shows it to the same sources. What no answer can allow is in `confined`.

A trial of a bisect runs what one run says with what the other has. So a stranger's run is asked about with the secrets
and the network that the other lends it; of those secrets each needs a yes of its own, whatever `replay.yaml` declares.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from runner import own
from runner.attest.vouch import Doubt, doubt
from runner.confined import refuse_unconfined
from runner.errors import ConsentError, ReplayError
from runner.keys import keyring
from runner.state.digest import digest_value
from runner.state.record import Record
from runner.state.spec import Limits, StateSpec
from runner.store.runs import SIGNED, Run

if TYPE_CHECKING:
    from runner.workspace import Workspace

_LONGEST = 300
_WHY = {
    "unsigned": "nobody signed it",
    "untrusted-key": "it is signed by a key that you do not trust",
    "bad-signature": "its signature is forged, or it was changed",
    "wrong-subject": "its signature is for another spec",
}


class Rights(msgspec.Struct, frozen=True):
    """What a spec would do here: lines for people, and where its secrets come from, by name."""

    lines: tuple[tuple[str, str], ...]
    secrets: Mapping[str, str] = {}
    shown_to: Mapping[str, tuple[str, ...]] = {}


class Declared(msgspec.Struct, frozen=True):
    """A secret as a job of the workspace's own `replay.yaml` declares it, and the sources that it is shown to."""

    source: str
    shown_to: frozenset[str] = frozenset()


class Stranger(msgspec.Struct, frozen=True):
    """A spec that nobody vouches for: whose it is, why not, what it would do, what needs a yes of its own, of which
    `lent` would be another run's."""

    run_id: str
    doubt: Doubt
    rights: Rights
    unconfirmed: tuple[str, ...] = ()
    lent: tuple[str, ...] = ()


Ask = Callable[[Stranger], bool]
"""Show it and ask, about its secrets one by one; True when all was answered with yes."""


class Consent(msgspec.Struct, frozen=True):
    """What the user allows beforehand; `ask` is None where there is no terminal."""

    trust: bool = False
    secrets: frozenset[str] = frozenset()
    ask: Ask | None = None


# --- the decision ------------------------------------------------------------------------------------------


def rights_of(spec: StateSpec) -> Rights:
    seen = spec.observed.access
    secrets = {name: seen.secrets[name].source for name in spec.state.secrets if name in seen.secrets}
    shown_to = {name: tuple(one.uri for one in seen.sources if one.secret == name) for name in secrets}
    return Rights(tuple((name, _cut(text)) for name, text in _lines(spec, secrets, shown_to)), secrets, shown_to)


def lent_by(other: StateSpec, spec: StateSpec) -> Rights:
    """What trials between the two have of the other that the spec itself has not."""
    mine, theirs = rights_of(spec), rights_of(other)
    secrets = {
        name: source
        for name, source in theirs.secrets.items()
        if mine.secrets.get(name) != source or not set(theirs.shown_to[name]) <= set(mine.shown_to[name])
    }
    names = {f"secret {name}" for name in secrets}
    if spec.state.access.network == "none":
        names |= {"network"} if other.state.access.network != "none" else set()
    lines = [(name, f"{text}, in trials, as {other.run.id} has it") for name, text in theirs.lines if name in names]
    return Rights(tuple(lines), secrets, {name: theirs.shown_to[name] for name in secrets})


def unconfirmed(rights: Rights, declared: Mapping[str, Collection[Declared]], allowed: Collection[str]) -> list[str]:
    """The places from which secrets would be taken without that anybody here had said so."""
    return sorted(
        {
            source
            for name, source in rights.secrets.items()
            if source not in allowed
            and not any(
                one.source == source and one.shown_to.issuperset(rights.shown_to[name])
                for one in declared.get(name, ())
            )
        }
    )


def decide(stranger: Stranger, consent: Consent) -> None:
    """Raises `ConsentError` unless the user allows it, beforehand or now."""
    if consent.trust and not stranger.unconfirmed:
        return
    if consent.ask:
        if consent.ask(stranger):
            return
        raise ConsentError(f"{stranger.run_id} was not run", "you said no")
    raise _untrusted(stranger) if not consent.trust else _not_handed_over(stranger)


def _untrusted(stranger: Stranger) -> ConsentError:
    told = "; ".join(f"{name}: {text}" for name, text in stranger.rights.lines)
    allow = "".join(f" --allow-secret {shlex.quote(source)}" for source in stranger.unconfirmed)
    key = stranger.doubt.key[:16]
    instead = f", or `replay keys trust {key}` if that key is its owner's" if key else ""
    return ConsentError(
        f"{stranger.run_id} was not recorded here, and {why(stranger.doubt)}",
        f"it would do this with your rights: {told}",
        f"if it may, give --trust{allow}{instead}",
    )


def _not_handed_over(stranger: Stranger) -> ConsentError:
    sources = ", ".join(stranger.unconfirmed)
    allow = " ".join(f"--allow-secret {shlex.quote(source)}" for source in stranger.unconfirmed)
    if stranger.lent:
        return ConsentError(
            f"trials would hand secrets over to what {stranger.run_id} runs: {sources}",
            "they run what either run says with what the other has; --trust alone hands no secret over",
            f"if it may have them, give {allow}",
        )
    return ConsentError(
        f"{stranger.run_id} wants secrets that nobody here declared: {sources}",
        "a stranger's spec says where they are taken from; --trust alone hands none of them over",
        f"if it may have them, give {allow}, or declare them alike in replay.yaml",
    )


def why(doubted: Doubt) -> str:
    key = f" ({doubted.key[:16]})" if doubted.key else ""
    return _WHY.get(doubted.reason, f"its signature cannot be checked: {doubted.reason}") + key


def _lines(
    spec: StateSpec, secrets: Mapping[str, str], shown_to: Mapping[str, tuple[str, ...]]
) -> Iterator[tuple[str, str]]:
    state, observed = spec.state, spec.observed
    for stage in state.stages:
        yield f"stage {stage.name}", shlex.join(stage.command)
    if state.command:
        yield "command", shlex.join(state.command)
    for check in spec.contract.checks:
        if check.command is not None:
            yield f"check {check.name}", shlex.join(check.command)
    for path, rule in spec.contract.outputs.items():
        if rule.probe:
            yield f"probe of {path}", rule.probe if isinstance(rule.probe, str) else shlex.join(rule.probe)
    image = observed.image.folder or observed.image.reference
    yield "image", image or f"{state.image.platform}, {len(state.image.diff_ids)} layers"
    yield "network", "none" if state.access.network == "none" else "open: it reaches whatever this machine reaches"
    for name, source in secrets.items():
        places = "".join(f", and {uri} from this machine" for uri in shown_to[name])
        yield f"secret {name}", f"{source}, shown to the job{places}"
    for one in observed.access.sources:
        if one.secret is None:
            yield "asks", f"{one.uri}, from this machine"
    if state.env:
        yield "variables", ", ".join(state.env)
    if mounts := [*state.data, *state.model]:
        yield "mounts", ", ".join(mounts) + ", read-only"
    yield "limits", _limits(state.access.limits)


def _limits(limits: Limits) -> str:
    set_ones = [f"{name} {value:g}" for name, value in msgspec.structs.asdict(limits).items() if value is not None]
    unset = [name for name in ("memory", "time", "disk") if getattr(limits, name) is None]
    return ", ".join([*set_ones, *([f"none on {', '.join(unset)}"] if unset else [])])


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"


# --- the world ----------------------------------------------------------------------------------------------


def admit(
    workspace: Workspace,
    run: Run,
    spec: StateSpec,
    record: Record,
    consent: Consent,
    *,
    beside: StateSpec | None = None,
) -> None:
    """Call it before anything is run from a recorded spec; `record` is the one that was checked against it. `beside`
    is the other spec of a bisect. What was allowed once is not asked again.

    Raises `ConsentError` for what the user does not allow, and `RefusedError` for what nobody can.
    """
    refuse_unconfined(spec)
    lent = lent_by(beside, spec) if beside else Rights(())
    allowed = digest_value([record.spec_sha256, lent]) if lent.lines else record.spec_sha256
    if own.is_known(record.spec_sha256) or own.is_allowed(allowed):
        return
    found = _doubt(run, record)
    if found is None:
        return
    rights = rights_of(spec)
    asks = rights.secrets and not own.is_allowed(record.spec_sha256)
    asked = unconfirmed(rights, _declared(workspace), consent.secrets) if asks else []
    others = unconfirmed(lent, {}, consent.secrets)
    told = msgspec.structs.replace(rights, lines=(*rights.lines, *lent.lines))
    decide(Stranger(run.id, found, told, tuple(dict.fromkeys((*asked, *others))), tuple(others)), consent)
    own.allow(record.spec_sha256)
    own.allow(allowed)


def _doubt(run: Run, record: Record) -> Doubt | None:
    from runner.seal import judge_of

    copies = run.copies(SIGNED, SIGNED)
    trusted = keyring().trusted() if copies else []
    return doubt(copies[0] if copies else None, run.id, record.spec_sha256, judge_of(trusted))


def _declared(workspace: Workspace) -> dict[str, list[Declared]]:
    """Of all jobs of `replay.yaml`; none where there is none that can be read."""
    from runner.layers import sources

    found: dict[str, list[Declared]] = {}
    try:
        jobs = workspace.workfile().jobs.values()
        for job in jobs:
            shown = sources.declared(job)
            for name, source in job.secrets.items():
                to = frozenset(one.uri for one in shown if one.secret == name)
                found.setdefault(name, []).append(Declared(source, to))
    except ReplayError:
        return {}
    return found
