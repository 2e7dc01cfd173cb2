"""What a replay lacks is fetched from the remote, if DVC has one here; code and params also come from the workspace and
from the commit that they were of.

A replay is frozen all the same: whatever is fetched is pinned by digest. The remote is asked only for what no
other place at hand has, and its modules are imported only then.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from runner import needs
from runner.erased import all_erased, erased_of
from runner.errors import OutsideError, UnrebuildableError, UsageError
from runner.layers import code
from runner.needs import Need
from runner.rebuild import AtHand, DataPlace, Plan, Rebuilt, plan
from runner.run import Session, make_plan, rebuild_for
from runner.shown import count
from runner.state.digest import Digest, digest_bytes, digest_file
from runner.state.paths import inside
from runner.state.spec import StateSpec
from runner.store.files import is_within
from runner.store.runs import Run
from runner.store.store import Store
from runner.tools import git
from runner.workspace import Workspace

if TYPE_CHECKING:
    from runner.tools.remote_fs import Remote

Say = Callable[[str], None]
_CHUNK = 1 << 20
_NOUNS = {"data": "data path"}
_TELLING = frozenset({"code", "params", "wheel", "profile"})


class Asked(msgspec.Struct):
    """The remote that was asked, and its trouble if it was in any."""

    remote: Remote | None = None
    trouble: OutsideError | None = None


def supplied_plan(session: Session, spec: StateSpec, asked: Asked) -> Plan:
    """The plan, after what it lacks was fetched. Raises `TamperedError` for what the remote has with other bytes."""
    made = make_plan(session, spec)
    lacking = _lacking(session, spec, made.at_hand)
    if not lacking:
        return made
    from runner.remote.select import default_remote

    asked.remote = default_remote(session.workspace)
    try:
        if asked.remote:
            _bring(session.workspace, session.say, asked.remote, [(spec, need) for need in lacking])
    except OutsideError as error:
        session.say(f"{error.what}: {error.why}")
        asked.trouble = error
    made = make_plan(session, spec)
    if made.at_hand.code_missing and (_from_git(session, spec) or _code_of(session, spec)):
        made = make_plan(session, spec)
    if _files_again(session, spec):
        made = make_plan(session, spec)
    return made


def planned(session: Session, spec: StateSpec) -> Plan:
    """The plan as it would be printed: nothing is fetched, and it says where what is lacking would be looked for."""
    from runner.remote.select import default_remote

    made = make_plan(session, spec)
    remote = default_remote(session.workspace) if _lacking(session, spec, made.at_hand) else None
    if remote:
        made = make_plan(session, spec, remote.url)
    if made.at_hand.code_missing and _is_code_in_workspace(session, spec):
        made = plan(spec.state, spec.observed, msgspec.structs.replace(made.at_hand, code_again=True))
    return made


def rebuild_supplied(session: Session, spec: StateSpec, run: Run) -> Rebuilt:
    """What is lacking here is fetched first, if a remote has it."""
    asked = Asked()
    with told(asked):
        return rebuild_for(session, supplied_plan(session, spec, asked), run)


@contextlib.contextmanager
def told(asked: Asked) -> Iterator[None]:
    """An error about what cannot be had again says that the remote was looked at; one that could not be asked is the
    reason."""
    try:
        yield
    except UnrebuildableError as error:
        if asked.trouble:
            raise OutsideError(
                asked.trouble.what, f"{asked.trouble.why}\n{error.what}; the remote may have it", asked.trouble.next
            ) from error
        if asked.remote is None:
            raise
        why = f"{error.why}; the remote {asked.remote.name} at {asked.remote.url} does not have it"
        help_ = f"{error.next}; or `replay push` where the run still is" if error.next else ""
        raise UnrebuildableError(error.what, why.removeprefix("; "), help_) from error


def bring_blobs(session: Session, digests: Sequence[Digest]) -> None:
    """Of outputs that are to be compared, those that the store lacks, if the remote has them and none was erased."""
    lacking = _lost(session.workspace, digests)
    if not lacking:
        return
    from runner.remote import fetch
    from runner.remote.select import default_remote

    remote = default_remote(session.workspace)
    if remote:
        fetched = fetch.blobs(session.workspace.store, remote, lacking, remote.jobs)
        if fetched.wrong:
            raise fetch.wrong(fetched.wrong)


def bring_ends(workspace: Workspace, runs: Sequence[Run], say: Say, asked: Asked) -> None:
    """Of what tells two runs apart, that which the store lacks and was not erased, if the remote has it: what their
    wheels declare, their params and code, what they gave, and the last words of one that failed."""
    asked_for: list[tuple[StateSpec, Need]] = []
    silent = []
    for run in runs:
        spec, record = run.spec_and_record()
        wanted = [need for need in needs.of_spec(spec) if need.kind in _TELLING]
        wanted += needs.of_record(record) if record else ()
        asked_for += [(spec, need) for need in wanted]
        if record and not record.ok and not (run.folder / "stderr").is_file():
            silent.append(run.id)
    lost = _lost(workspace, [Digest(need.digest) for _, need in asked_for])
    lacking = [(spec, need) for spec, need in asked_for if need.digest in lost]
    if not lacking and not silent:
        return
    from runner.remote.pull import pull_own_files
    from runner.remote.select import default_remote

    asked.remote = default_remote(workspace)
    try:
        if asked.remote:
            pull_own_files(workspace, asked.remote, silent)
            _bring(workspace, say, asked.remote, lacking)
    except OutsideError as error:
        say(f"{error.what}: {error.why}")
        asked.trouble = error


def _lost(workspace: Workspace, digests: Sequence[Digest]) -> set[Digest]:
    """Those that the store lacks and that were not erased: these are missing on purpose."""
    missing = {digest for digest in digests if not workspace.store.blobs.has(digest)}
    return missing - erased_of(workspace.store, workspace.specs, missing).keys()


def _lacking(session: Session, spec: StateSpec, at_hand: AtHand) -> list[Need]:
    """The pins that no place at hand has, of those that a rebuild needs."""
    blobs = session.workspace.store.blobs
    wheels = {wheel.sha256 for wheel in at_hand.wheels_missing}
    away = {p for p, place in (at_hand.data | at_hand.model).items() if place in (DataPlace.DVC, DataPlace.GONE)}
    drift = {check.drift.profile for check in spec.contract.checks if check.drift}

    def lacks(need: Need) -> bool:
        if need.kind == "image":
            return not _image_is_at_hand(session, at_hand)
        if need.kind in ("data", "model"):
            return need.name in away
        if need.kind == "wheel":
            return need.digest in wheels
        if need.kind == "code":
            return at_hand.code_missing > 0
        wanted = need.kind == "params" or need.digest in drift
        return wanted and not blobs.has(Digest(need.digest))

    return [need for need in needs.of_spec(spec) if lacks(need)]


def _image_is_at_hand(session: Session, at_hand: AtHand) -> bool:
    """A recipe is a last resort: it seldom gives the same layers."""
    if any(place.kind in ("engine", "archive") for place in at_hand.image):
        return True
    return any(session.engine.registry_has(place.name) for place in at_hand.image if place.kind == "registry")


def _bring(workspace: Workspace, say: Say, remote: Remote, pins: Sequence[tuple[StateSpec, Need]]) -> None:
    from runner.remote import fetch

    store = workspace.store
    fetched = fetch.pins(store, remote, pins, remote.jobs, all_erased(store, workspace.specs))
    if fetched.wrong:
        raise fetch.wrong(fetched.wrong)
    came = Counter(need.kind for spec, need in pins if fetch.is_here(store, spec, need))
    if fetched.came:
        kinds = ", ".join(
            kind if number == 1 else count(number, _NOUNS.get(kind, kind)) for kind, number in came.items()
        )
        size = sum(fetched.came.values())
        say(f"fetched from {remote.url}: {kinds or 'a part'} ({count(len(fetched.came), 'blob')}, {size / 1e6:.1f} MB)")


def _files_again(session: Session, spec: StateSpec) -> bool:
    """Files of code and params that are nowhere else are taken from the workspace as it is, or from the commit, where
    one has the very bytes."""
    found = [path for path, digest in _lost_files(session.workspace.store, spec) if _again(session, spec, path, digest)]
    if found:
        session.say(f"from the workspace or its commit: {', '.join(found[:3])}{' …' * (len(found) > 3)}")
    return bool(found)


def _lost_files(store: Store, spec: StateSpec) -> list[tuple[str, Digest]]:
    params, listing = spec.state.params, Digest(spec.state.code)
    files = [(file.path, file.sha256) for file in code.files_of(store, listing)] if store.blobs.has(listing) else []
    if params and params.file and params.sha256:
        files.append((inside(params.file, "params"), params.sha256))
    return [(path, Digest(digest)) for path, digest in files if not store.blobs.has(Digest(digest))]


def _is_code_in_workspace(session: Session, spec: StateSpec) -> bool:
    """Whether what `_from_git`, `_code_of` and `_again` would take is there; nothing is taken."""
    store, root, seen = session.workspace.store, session.workspace.root, spec.observed.code
    if seen.commit and not seen.dirty and git.known_commits(root, [seen.commit]):
        return True
    if not store.blobs.has(Digest(spec.state.code)):
        with contextlib.suppress(UsageError):
            return digest_bytes(code.listing(_observed(session.workspace, spec))) == spec.state.code
        return False

    def has(path: str, digest: Digest) -> bool:
        live, content = root / path, git.content(root, seen.commit, path) if seen.commit else None
        with contextlib.suppress(OSError):
            if live.is_file() and is_within(root, live) and digest_file(live) == digest:
                return True
        return content is not None and digest_bytes(content) == digest

    return all(has(path, digest) for path, digest in _lost_files(store, spec))


def _observed(then: Workspace, spec: StateSpec) -> tuple[code.CodeFile, ...]:
    from runner.capture import owned_paths

    return code.observe(then.root, set(owned_paths(then, then.job(spec.run.job))))


def _again(session: Session, spec: StateSpec, path: str, digest: Digest) -> bool:
    root, blobs = session.workspace.root, session.workspace.store.blobs
    live, commit = root / path, spec.observed.code.commit
    if live.is_file() and is_within(root, live):
        with contextlib.suppress(OSError), live.open("rb") as file:
            blobs.put_stream(iter(lambda: file.read(_CHUNK), b""), digest.__eq__)
    if not blobs.has(digest) and commit and (content := git.content(root, commit, path)) is not None:
        blobs.put_stream([content], digest.__eq__)
    return blobs.has(digest)


def _from_git(session: Session, spec: StateSpec) -> bool:
    """Code that was recorded from a clean commit is taken from there, if that gives the very same files."""
    from runner import past

    commit = spec.observed.code.commit
    if not commit or spec.observed.code.dirty:
        return False
    with contextlib.suppress(UsageError, OutsideError), past.at_commit(session.workspace, commit) as then:
        return _code_of(session, spec, then, f"git, commit {commit[:12]}")
    return False


def _code_of(session: Session, spec: StateSpec, then: Workspace | None = None, name: str = "the workspace") -> bool:
    """Keep the code of a workspace, by default as it is now, if it is the very code of the state."""
    then = then or session.workspace
    with contextlib.suppress(UsageError):
        files = _observed(then, spec)
        if digest_bytes(code.listing(files)) == spec.state.code:
            code.keep(session.workspace.store, then.root, files)
            session.say(f"code: from {name}")
            return True
    return False
