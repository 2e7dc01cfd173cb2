"""The whole check: look, judge, and where asked mend, until mending brings nothing more to light."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import msgspec

from runner.environment import locks
from runner.errors import ReplayError
from runner.fsck.facts import Facts, Hasher, look, read_listings
from runner.fsck.judge import Damage, judge
from runner.fsck.mend import Mender
from runner.fsck.runs import judge_run
from runner.state.digest import Digest
from runner.state.health import Finding, Health
from runner.store.files import FileLock
from runner.store.store import Store
from runner.workspace import Workspace

Say = Callable[[str], None]
_MOST_PASSES = 4
# What others are mended from comes first: specs before blobs, lists before what they name, blobs before archives.
_ORDER = ("store", "key", "other", "sums", "record", "spec", "log", "blob", "image")


def check(workspace: Workspace, say: Say, *, repair: bool) -> Health:
    """Look at every file of the store. With `repair`, get again what can be had again, keeping everybody else out;
    without it, only `gc` has to wait. Raises `OutsideError` when others go on using a store that is to be repaired."""
    hasher = Hasher()
    with _guarded(workspace.store, repair=repair) as alone:
        facts, damages, unneeded = _look(workspace, hasher, say, alone=alone)
        done: dict[str, Finding] = {}
        mender = Mender(workspace, say)
        for _ in range(_MOST_PASSES if repair else 0):
            new = [damage for damage in damages if damage.finding.path not in done]
            if not new:
                break
            done |= {finding.path: finding for finding in _mend_all(mender, new, say)}
            facts, damages, unneeded = _look(workspace, hasher, say, alone=alone)
    still = {damage.finding.path: damage.finding for damage in damages}
    findings = _settled(done, still)
    return Health(
        store=str(workspace.store.folder),
        whole=not any(finding.counts for finding in findings),
        files=facts.files,
        bytes=facts.bytes,
        findings=findings,
        unchecked=facts.unchecked,
        unneeded=unneeded,
    )


def _look(workspace: Workspace, hasher: Hasher, say: Say, *, alone: bool) -> tuple[Facts, tuple[Damage, ...], int]:
    facts = look(workspace, hasher, say, alone=alone)
    runs = [judge_run(run) for run in facts.runs]
    whole = {digest for digest, found in facts.blobs.items() if found.sha256 == digest}
    states = [run.spec.state for run in runs if run.spec]
    versions = (Digest(digest) for state in states for digest in (*state.data.values(), *state.model.values()))
    listings = read_listings(workspace.store, {Digest(state.code) for state in states}, versions, whole)
    found = judge(facts, runs, listings)
    return facts, found.damages, found.unneeded


def _mend_all(mender: Mender, damages: list[Damage], say: Say) -> Iterator[Finding]:
    for damage in sorted(damages, key=_rank):
        try:
            repair, mended = mender.mend(damage), "repaired"
        except ReplayError as error:
            repair, mended = error.why or error.what, "lost"
        say(f"fsck: {damage.finding.path}: {repair}")
        yield msgspec.structs.replace(damage.finding, repair=repair, mended=mended)


def _rank(damage: Damage) -> tuple[int, bool, str]:
    kind = damage.finding.kind
    is_list = any(use.role == "code list" for use in damage.uses)
    last = kind == "blob" and {use.role for use in damage.uses} == {"profile"}  # made of data
    order = _ORDER.index(kind) if kind in _ORDER and not last else len(_ORDER)
    return order, not is_list, damage.finding.path


def _settled(done: dict[str, Finding], still: dict[str, Finding]) -> tuple[Finding, ...]:
    """What was mended is so only if the last look says so; what one attempt brought back for all is mended too."""
    found = dict(still)
    for path, finding in done.items():
        if path in still:
            found[path] = msgspec.structs.replace(finding, mended="lost")
        elif finding.mended == "lost":
            found[path] = msgspec.structs.replace(
                finding, mended="repaired", repair="with what was got for another file"
            )
        else:
            found[path] = finding
    return tuple(found[path] for path in sorted(found))


@contextlib.contextmanager
def _guarded(store: Store, *, repair: bool) -> Iterator[bool]:
    """Whether nobody else adds meanwhile. A store that cannot be written to is read all the same."""
    if repair:
        with store.collecting(), locks.collecting(store.cache):
            yield True
        return
    with contextlib.ExitStack() as held:
        try:
            lock = FileLock(store.folder / "gc.lock")
            alone = lock.acquire(wait=False)
            lock.release()
            held.enter_context(store.adding())
        except OSError:
            alone = False
        yield alone
