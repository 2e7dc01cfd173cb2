"""Verify: evidence of a run and keys to judge by → numbered checks, each with a reason code that stays the same.

Nothing here reads a file or knows a key: evidence says what was found, and may be of a workspace or of a file that
came from elsewhere. A check that cannot be made because an earlier one failed is skipped, and says so; what is
missing is never taken for good.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Literal, NamedTuple

import msgspec

from runner.attest.bundle import Bundle, load_bundle
from runner.attest.checkpoint import LogProof, SignedCheckpoint, load_checkpoint, load_proof
from runner.attest.dsse import pae
from runner.attest.merkle import (
    Nodes,
    consistency_proof,
    inclusion_proof,
    is_consistent,
    is_included,
    leaf_hash,
    root,
)
from runner.attest.rejected import Rejected, only, unreadable
from runner.attest.releases import ReleaseSeen, check_binding, check_is_run, withdrawal_leaf
from runner.attest.statement import KINDS, RunFiles, check_statement, leaf_data, stated_digests
from runner.attest.tombstone import Tombstone, read_tombstone
from runner.errors import ReplayError
from runner.shown import few
from runner.state.digest import digest_bytes
from runner.state.record import Record
from runner.state.release import Release, Withdrawal
from runner.state.spec import StateSpec, state_digest
from runner.state.strict import load_record, load_spec
from runner.state.verification import Check

BlobState = Literal["whole", "missing", "damaged"]
Judge = Callable[[bytes, bytes, bytes], str | None]
"""Of a key id or its beginning, a message and a signature, what is wrong: a reason code, or None."""

_MOST_NAMED = 3

REASONS = frozenset(
    """
    ok unsigned missing malformed unknown-version unknown-payload-type re-serialised copies-differ unknown-member
    untrusted-key bad-signature unknown-statement unknown-predicate wrong-run wrong-subject wrong-statement
    changed wrong-spec wrong-state missing-blob damaged-blob missing-log damaged-log
    no-proof not-included log-truncated log-rewritten log-forked other-log
    wrong-release wrong-binding deviates revoked revocation-removed
    no-log no-replay no-release in-place not-kept not-checked
    erased-by-tombstone
    """.split()
)


class LogSeen(NamedTuple):
    """A log as it is now; `holds` looks for a leaf at any place in it."""

    checkpoint: bytes
    nodes: Callable[[], AbstractContextManager[Nodes]]
    holds: Callable[[bytes], bool]


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What there is of a run. Each file stands for all its copies; none is no copy.

    `blobs` looks at the blobs that it is asked for; `inputs` tells which those of a state are that must be here, and
    `logs` the digests of what the job printed. `earlier` are checkpoints that the log must have grown from. A run of
    the log of this store, which is called `origin`, must be in the log here; one that was pulled is of another.
    `packed` is what is wrong with the file that all this came in, empty when nothing is; None in a workspace.
    `tombstones` gives those of a digest, each with its proof.
    `releases` are those that the run is said to be the run of, and the one that it was bound to.
    """

    run_id: str
    spec: tuple[bytes, ...]
    record: tuple[bytes, ...]
    bundles: Mapping[str, tuple[bytes, ...]]
    proof: tuple[bytes, ...]
    blobs: Callable[[Iterable[str]], Mapping[str, BlobState]]
    inputs: Callable[[StateSpec], Iterable[tuple[str, str]]]
    logs: Callable[[], Mapping[str, str]]
    log: LogSeen | None = None
    earlier: Mapping[str, bytes] = {}
    tombstones: Callable[[str], Iterable[tuple[bytes, bytes | None]]] = lambda _: ()
    origin: str = ""
    packed: tuple[str, str] | None = None
    releases: Mapping[str, ReleaseSeen] = {}


class Skipped(Exception):
    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail


class Told(NamedTuple):
    """What a step that passed says, with a reason of its own."""

    reason: str
    detail: str


Said = str | Told | None


def verify(evidence: Evidence, judge: Judge) -> tuple[Check, ...]:
    """All checks, in their order. The run is verified when none failed: see `verified`."""
    steps = _Steps(evidence, judge)
    return tuple(_check(name, step) for name, step in steps.all().items())


def verified(checks: Iterable[Check]) -> bool:
    return all(check.result != "fail" for check in checks)


def _check(name: str, step: Callable[[], Said]) -> Check:
    try:
        said = step()
        return Check(name, "pass", said.reason, said.detail) if isinstance(said, Told) else _passed(name, said)
    except Skipped as skipped:
        return Check(name, "skipped", skipped.reason, skipped.detail)
    except Rejected as error:
        return Check(name, "fail", error.reason, error.detail)


def _passed(name: str, said: str | None) -> Check:
    return Check(name, "pass", "ok", said or "")


class _Steps:
    """Each step gives words about what passed, or raises. What a step reads is kept for those after it."""

    def __init__(self, evidence: Evidence, judge: Judge) -> None:
        self._seen = evidence
        self._judge = judge

    def all(self) -> dict[str, Callable[[], Said]]:
        return {
            "bundle": self._packed,
            "envelope": self._envelope,
            "signature": self._signature,
            "spec": self._spec_bytes,
            "record": self._record_bytes,
            "state": self._state_digest,
            "statement": self._statement,
            "outputs": self._outputs,
            "blobs": self._inputs,
            "logs": self._logs,
            "log-inclusion": self._inclusion,
            "log-consistency": self._consistency,
            "verdict": self._verdict,
            "release": self._release,
            "policy": self._policy,
            "revocation": self._revocation,
        }

    # --- the steps

    def _packed(self) -> None:
        if self._seen.packed is None:
            raise Skipped("in-place", "the run is in a workspace")
        reason, detail = self._seen.packed
        if reason:
            raise Rejected(reason, detail)

    def _envelope(self) -> str:
        return f"key {self._bundle('provenance').envelope.signatures[0].keyid[:16]}"

    def _signature(self) -> None:
        self._check_signature("provenance")

    def _spec_bytes(self) -> None:
        _, data = self._spec
        stated = self._stated().get(f"{self._seen.run_id}.yaml")
        if stated is not None and stated != digest_bytes(data):
            raise Rejected("changed", "it is not the one that was signed for")
        if stated is None and (record := self._known_record()) and record.spec_sha256 != digest_bytes(data):
            raise Rejected("changed", "it is not the one that the record was made for")

    def _record_bytes(self) -> None:
        record, data = self._record
        stated = self._stated().get(f"{self._seen.run_id}.record.json")
        if stated is not None and stated != digest_bytes(data):
            raise Rejected("changed", "it is not the one that was signed for")
        spec = self._known_spec()
        if spec and record.spec_sha256 != digest_bytes(spec[1]):
            raise Rejected("wrong-spec", "it was made for another spec")

    def _state_digest(self) -> str:
        spec, found = self._needed_spec()[0], state_digest(self._needed_spec()[0].state)
        if found != spec.digest:
            raise Rejected("wrong-state", f"the spec states {spec.digest[:19]}, its state has {found[:19]}")
        record = self._known_record()
        if record and record.state_digest != spec.digest:
            raise Rejected("wrong-state", f"the record is of {record.state_digest[:19]}")
        return spec.digest

    def _statement(self) -> None:
        check_statement("provenance", self._needed_bundle("provenance").envelope.payload, self._run_files())

    def _outputs(self) -> Said:
        return self._kept({output.path: output.sha256 for output in self._needed_record().outputs}, "outputs")

    def _inputs(self) -> Said:
        spec = self._needed_spec()[0]
        try:
            wanted = dict(self._seen.inputs(spec))
        except ReplayError as error:
            raise Rejected("damaged-blob", error.what) from None
        return self._kept(wanted, "files of the state")

    def _logs(self) -> Said:
        stated = self._stated_logs()
        found = self._seen.logs()
        erased = self._erased({name: digest for name, digest in stated.items() if name not in found}, "missing-log")
        for name, digest in sorted(stated.items()):
            if name in found and found[name] != digest:
                raise Rejected("damaged-log", name)
        return _all_there(len(stated), "files", erased)

    def _kept(self, wanted: Mapping[str, str], what: str) -> Said:
        """Every blob is there as it was, or was erased."""
        found = self._seen.blobs(wanted.values())
        _refuse_damaged(name for name, digest in wanted.items() if found[digest] == "damaged")
        missing = {name: digest for name, digest in wanted.items() if found[digest] == "missing"}
        return _all_there(len(wanted), what, self._erased(missing, "missing-blob"))

    def _erased(self, missing: Mapping[str, str], reason: str) -> list[str]:
        """What of the missing was erased, and why. Raises `Rejected` for what was not, or by nobody who is believed."""
        told, lost = [], []
        for name, digest in sorted(missing.items()):
            try:
                told.append(f"{name} {self._tombstone(digest).told}")
            except Rejected as error:
                lost.append(name if error.reason == "missing" else f"{name} (its tombstone: {error.reason})")
        if lost:
            raise Rejected(reason, few(lost, _MOST_NAMED))
        return told

    def _tombstone(self, digest: str) -> Tombstone:
        problem = Rejected("missing")
        for bundle, proof in self._seen.tombstones(digest):
            try:
                return read_tombstone(digest, bundle, proof, self._judge)
            except Rejected as error:
                problem = error
        raise problem

    def _inclusion(self) -> str:
        proof = self._proof
        _, data = self._known_record_bytes()
        tree = proof.signed.checkpoint
        if not proof.includes(leaf_hash(leaf_data(data))):
            raise Rejected("not-included", f"the proof does not lead from the record to the root of {tree.size}")
        return f"entry {proof.index} of {tree.size} in {tree.origin}"

    def _consistency(self) -> str:
        own = self._known_proof().signed
        earlier = {name: self._loaded_checkpoint(data) for name, data in self._seen.earlier.items()}
        must_be_here = own.checkpoint.origin == self._seen.origin or earlier
        if self._seen.log is None:
            if must_be_here:
                raise Rejected("missing", "the log is not here")
            raise Skipped("no-log", "the log itself is not here")
        now = self._loaded_checkpoint(self._seen.log.checkpoint)
        if now.checkpoint.origin != own.checkpoint.origin and not must_be_here:
            raise Skipped("no-log", f"the log here is another, {now.checkpoint.origin}")
        with self._seen.log.nodes() as nodes:
            _check_growth(now, {"the run's": own} | earlier, nodes)
            self._check_entry(now, nodes)
        return f"{now.checkpoint.size} entries, grown from {own.checkpoint.size}"

    def _verdict(self) -> str:
        record = self._needed_record()
        others = [kind for kind in KINDS if kind != "provenance"]
        if record.replay is None:
            if any(self._seen.bundles.get(kind) for kind in others):
                raise Rejected("wrong-statement", "there is a verdict, and the run is no replay")
            raise Skipped("no-replay", "the run is no replay")
        for kind in others:
            self._check_signature(kind)
            check_statement(kind, self._bundle(kind).envelope.payload, self._run_files())
        return f"{record.replay.verdict} against {record.replay.replay_of}"

    def _release(self) -> str:
        for one in self._releases():
            one.check_release(self._judge)
        return ", ".join(f"{one.name}, accepted by {one.release()[0].accepted.by}" for one in self._releases())

    def _policy(self) -> str:
        releases = self._releases()
        spec, spec_bytes = self._needed_spec()
        record, record_bytes = self._known_record_bytes()
        binding = spec.run.release
        said = []
        for one in releases:
            release, data = _needed_release(one)
            if binding and binding.name == one.name:
                said.append(check_binding(release, digest_bytes(data), binding, spec, record))
            else:
                said.append(check_is_run(release, spec, record, spec_bytes, record_bytes))
        return "; ".join(said)

    def _revocation(self) -> str:
        """Of the releases that the run is said to be the run of; if it is of none, of the one that it was bound to."""
        named = [one for one in self._releases() if not self._is_bound_to(one)]
        return "; ".join(self._not_revoked(one) for one in named or self._releases())

    def _not_revoked(self, seen: ReleaseSeen) -> str:
        sha256 = digest_bytes(_needed_release(seen)[1])
        if revoked := seen.withdrawal("revoked"):
            self._unless_unsigned(seen, "revoked", *revoked)
            said = revoked[0].said
            raise Rejected("revoked", f"{seen.name} by {said.by}, {said.at}: {said.why}")
        log = self._seen.log
        if log and log.holds(withdrawal_leaf("revoked", sha256)):
            raise Rejected("revocation-removed", f"the log has it that {seen.name} was revoked")
        superseded = seen.withdrawal("superseded")
        if superseded:
            self._unless_unsigned(seen, "superseded", *superseded)
        status = f"superseded by {superseded[0].by}" if superseded else "not revoked"
        return f"{seen.name} {status}" + ("" if log else "; no log is here that would tell of a removed revocation")

    def _unless_unsigned(self, seen: ReleaseSeen, kind: str, said: Withdrawal, data: bytes) -> None:
        """What is said without a signature counts too: nobody gains by it but who would be careful."""
        try:
            seen.check_withdrawal(kind, said, data, self._judge)
        except Rejected as error:
            if error.reason != "unsigned":
                raise

    # --- what they read

    def _releases(self) -> list[ReleaseSeen]:
        if not self._seen.releases:
            raise Skipped("no-release", "the run is bound to none")
        return list(self._seen.releases.values())

    def _is_bound_to(self, one: ReleaseSeen) -> bool:
        spec = self._known_spec()
        return bool(spec and spec[0].run.release and spec[0].run.release.name == one.name)

    @functools.cached_property
    def _spec(self) -> tuple[StateSpec, bytes]:
        data = only(self._seen.spec, "spec")
        try:
            spec = load_spec(data, "the spec")
        except ReplayError as error:
            raise unreadable(error) from None
        if spec.run.id != self._seen.run_id:
            raise Rejected("wrong-run", f"it is of {spec.run.id}")
        return spec, data

    @functools.cached_property
    def _record(self) -> tuple[Record, bytes]:
        data = only(self._seen.record, "record")
        try:
            record = load_record(data, "the record")
        except ReplayError as error:
            raise unreadable(error) from None
        if record.run_id != self._seen.run_id:
            raise Rejected("wrong-run", f"it is of {record.run_id}")
        return record, data

    @functools.cached_property
    def _proof(self) -> LogProof:
        if not self._seen.proof:
            raise Rejected("no-proof", "nothing shows that the record is in a log")
        proof = load_proof(only(self._seen.proof, "proof"))
        self._check_checkpoint(proof.signed)
        return proof

    def _bundle(self, kind: str) -> Bundle:
        found = self._seen.bundles.get(kind, ())
        if not found:
            raise Rejected("unsigned", f"there is no signed {kind}")
        return load_bundle(only(found, kind))

    def _check_signature(self, kind: str) -> None:
        envelope = self._needed_bundle(kind).envelope
        signature = envelope.signatures[0]
        message = pae(envelope.payload_type, envelope.payload)
        if problem := self._judge(bytes.fromhex(signature.keyid), message, signature.sig):
            raise Rejected(problem, f"key {signature.keyid}")

    def _loaded_checkpoint(self, data: bytes) -> SignedCheckpoint:
        signed = load_checkpoint(data)
        self._check_checkpoint(signed)
        return signed

    def _check_checkpoint(self, signed: SignedCheckpoint) -> None:
        if problem := self._judge(signed.hint, signed.checkpoint.text, signed.signature):
            raise Rejected(problem, f"a checkpoint by key {signed.hint.hex()}…")

    def _check_entry(self, now: SignedCheckpoint, nodes: Nodes) -> None:
        """That the log as it is now still has the record, at its place."""
        proof, tree = self._known_proof(), now.checkpoint
        path = inclusion_proof(proof.index, tree.size, nodes)
        leaf = leaf_hash(leaf_data(self._known_record_bytes()[1]))
        kept = proof.index < tree.size and nodes(0, proof.index) == leaf
        if not kept or not is_included(leaf, proof.index, tree.size, path, tree.root):
            raise Rejected("log-rewritten", f"entry {proof.index} is another")

    def _run_files(self) -> RunFiles:
        spec, spec_bytes = self._needed_spec()
        record, record_bytes = self._known_record_bytes()
        return RunFiles(spec, record, spec_bytes, record_bytes, dict(self._stated_logs()))

    def _stated(self) -> Mapping[str, str]:
        """The subjects' digests, by name; none where nothing was signed: another check tells that."""
        try:
            return stated_digests(self._bundle("provenance").envelope.payload, "subject")
        except Rejected:
            return {}

    def _stated_logs(self) -> Mapping[str, str]:
        payload = self._needed_bundle("provenance").envelope.payload
        return stated_digests(payload, "predicate", "runDetails", "byproducts")

    # --- what an earlier step has rejected

    def _needed_bundle(self, kind: str) -> Bundle:
        try:
            return self._bundle(kind)
        except Rejected:
            if kind != "provenance":
                raise
            raise Skipped("not-checked", "there is no envelope to read") from None

    def _needed_spec(self) -> tuple[StateSpec, bytes]:
        try:
            return self._spec
        except Rejected:
            raise Skipped("not-checked", "there is no spec to read") from None

    def _known_record_bytes(self) -> tuple[Record, bytes]:
        try:
            return self._record
        except Rejected:
            raise Skipped("not-checked", "there is no record to read") from None

    def _needed_record(self) -> Record:
        return self._known_record_bytes()[0]

    def _known_proof(self) -> LogProof:
        try:
            return self._proof
        except Rejected:
            raise Skipped("not-checked", "there is no proof to start from") from None

    def _known_spec(self) -> tuple[StateSpec, bytes] | None:
        try:
            return self._spec
        except Rejected:
            return None

    def _known_record(self) -> Record | None:
        try:
            return self._record[0]
        except Rejected:
            return None


def _needed_release(seen: ReleaseSeen) -> tuple[Release, bytes]:
    try:
        return seen.release()
    except Rejected:
        raise Skipped("not-checked", "there is no release to read") from None


def _refuse_damaged(names: Iterable[str]) -> None:
    if damaged := sorted(names):
        raise Rejected("damaged-blob", few(damaged, _MOST_NAMED))


def _all_there(count: int, what: str, erased: list[str]) -> Said:
    return (
        Told("erased-by-tombstone", f"{len(erased)} of {count} {what}: {few(erased, _MOST_NAMED)}")
        if erased
        else f"{count} {what}"
    )


def _check_growth(now: SignedCheckpoint, earlier: Mapping[str, SignedCheckpoint], nodes: Nodes) -> None:
    tree = now.checkpoint
    if root(tree.size, nodes) != tree.root:
        raise Rejected("log-rewritten", "its hashes do not give the root that was signed")
    for name, one in earlier.items():
        old = one.checkpoint
        if old.origin != tree.origin:
            raise Rejected("other-log", f"{name} checkpoint is of {old.origin}, the log here is {tree.origin}")
        if old.size > tree.size:
            raise Rejected("log-truncated", f"{name} checkpoint counts {old.size}, the log {tree.size}")
        if old.size == tree.size and old.root != tree.root:
            raise Rejected("log-forked", f"{name} checkpoint has another root for {old.size}")
        proof = consistency_proof(old.size, tree.size, nodes)
        if not is_consistent(old.size, tree.size, old.root, tree.root, proof):
            raise Rejected("log-rewritten", f"the log did not grow from {name} checkpoint of {old.size}")
