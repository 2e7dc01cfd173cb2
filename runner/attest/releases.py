"""What is said of releases, as in-toto statements, and whether it can be believed. Pure.

A release is signed as a whole: its file and those of its run are the subjects, its content is the predicate. That it
was superseded or revoked is a statement of its own. The log's entry for that depends on nothing but the release: it
can be looked for even where the statement was removed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from runner.attest.bundle import load_bundle
from runner.attest.checkpoint import load_proof
from runner.attest.dsse import pae
from runner.attest.merkle import leaf_hash
from runner.attest.rejected import Rejected, only, unreadable
from runner.attest.statement import STATEMENT, leaf_data
from runner.errors import ReplayError
from runner.state.digest import canonical, digest_bytes, plain
from runner.state.record import Record
from runner.state.release import Release, Withdrawal
from runner.state.spec import Binding, StateSpec, layer_digests
from runner.state.strict import load_release, load_withdrawal

PREDICATES = {
    "release": "urn:replay-runner:release:v1",
    "superseded": "urn:replay-runner:superseded:v1",
    "revoked": "urn:replay-runner:revoked:v1",
}
"""Predicate type of each kind of statement."""

Judge = Callable[[bytes, bytes, bytes], str | None]
Plain = dict[str, Any]
_T = TypeVar("_T")


# --- saying it -----------------------------------------------------------------------------------------------


def release_payload(release: Release, data: bytes) -> bytes:
    """The bytes that are signed; `data` are those of its file."""
    subjects = [
        _subject(f"{release.name}/release.yaml", digest_bytes(data)),
        _subject(f"{release.run}.yaml", release.spec_sha256),
        _subject(f"{release.run}.record.json", release.record_sha256),
        *(_subject(output.path, output.sha256) for output in release.outputs),
    ]
    return _payload("release", subjects, release)


def withdrawal_payload(said: Withdrawal, data: bytes) -> bytes:
    """The bytes that are signed; `data` are those of its file."""
    subjects = [
        _subject(f"{said.name}/{said.kind}.yaml", digest_bytes(data)),
        _subject(f"{said.name}/release.yaml", said.sha256),
    ]
    return _payload(said.kind, subjects, said)


def release_leaf(data: bytes) -> bytes:
    """The log's entry for a release."""
    return leaf_hash(leaf_data(data))


def withdrawal_leaf(kind: str, release_sha256: str) -> bytes:
    """The log's entry for what was said of the release of that digest."""
    return leaf_hash(f"{kind} {release_sha256}".encode())


def _payload(kind: str, subjects: list[Plain], said: Release | Withdrawal) -> bytes:
    return canonical(
        {"_type": STATEMENT, "subject": subjects, "predicateType": PREDICATES[kind], "predicate": plain(said)}
    )


def _subject(name: str, digest: str) -> Plain:
    return {"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}


# --- believing it --------------------------------------------------------------------------------------------


class ReleaseSeen(msgspec.Struct, frozen=True):
    """The files of one release, each with all its copies."""

    name: str
    files: Mapping[str, tuple[bytes, ...]]

    def release(self) -> tuple[Release, bytes]:
        """Raises `Rejected` where there is none, or one of another name."""
        release, data = self._read("release", load_release)
        if release.name != self.name:
            raise Rejected("wrong-release", f"it is {release.name[:64]}, not {self.name}")
        return release, data

    def check_release(self, judge: Judge) -> None:
        """That it was signed by a key that is trusted, and is in the log."""
        release, data = self.release()
        self._check_signed("release", release_payload(release, data), release_leaf(data), judge)

    def withdrawal(self, kind: str) -> tuple[Withdrawal, bytes] | None:
        """What was said of this very release. Raises `Rejected` where it is about another."""
        if not any(file.startswith(f"{kind}.") for file in self.files):
            return None
        said, data = self._read(kind, load_withdrawal)
        sha256 = digest_bytes(self.release()[1])
        if (said.kind, said.name, said.sha256) != (kind, self.name, sha256):
            raise Rejected("wrong-release", f"{kind}.yaml is about {said.name[:64]} {said.sha256[:19]}")
        return said, data

    def check_withdrawal(self, kind: str, said: Withdrawal, data: bytes, judge: Judge) -> None:
        self._check_signed(kind, withdrawal_payload(said, data), withdrawal_leaf(kind, said.sha256), judge)

    def _read(self, statement: str, load: Callable[[bytes, str], _T]) -> tuple[_T, bytes]:
        name = f"{statement}.yaml"
        data = only(self.files.get(name, ()), f"{name} of {self.name}")
        try:
            return load(data, name), data
        except ReplayError as error:
            raise unreadable(error) from None

    def _check_signed(self, statement: str, expected: bytes, leaf: bytes, judge: Judge) -> None:
        copies = self.files.get(f"{statement}.sigstore.json", ())
        if not copies:
            raise Rejected("unsigned", f"{statement}.yaml of {self.name} has no signature")
        envelope = load_bundle(only(copies, f"signature of {statement}.yaml")).envelope
        signature = envelope.signatures[0]
        message = pae(envelope.payload_type, envelope.payload)
        if problem := judge(bytes.fromhex(signature.keyid), message, signature.sig):
            raise Rejected(problem, f"key {signature.keyid}")
        _check_payload(envelope.payload, expected, statement)
        proofs = self.files.get(f"{statement}.tlog-proof", ())
        if not proofs:
            raise Rejected("no-proof", f"nothing shows that {statement}.yaml is in a log")
        proof = load_proof(only(proofs, f"proof of {statement}.yaml"))
        if problem := judge(proof.signed.hint, proof.signed.checkpoint.text, proof.signed.signature):
            raise Rejected(problem, f"a checkpoint by key {proof.signed.hint.hex()}…")
        if not proof.includes(leaf):
            raise Rejected("not-included", f"the proof of {statement}.yaml does not lead to the root of its log")


def _check_payload(payload: bytes, expected: bytes, statement: str) -> None:
    if payload == expected:
        return
    try:
        stated = msgspec.json.decode(payload)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Rejected("malformed", str(error)) from None
    if not isinstance(stated, dict):
        raise Rejected("malformed", "it is no JSON object")
    if stated.get("_type") != STATEMENT:
        raise Rejected("unknown-statement", str(stated.get("_type"))[:100])
    if stated.get("predicateType") != PREDICATES[statement]:
        raise Rejected("unknown-predicate", str(stated.get("predicateType"))[:100])
    if canonical(stated) != payload:
        raise Rejected("re-serialised", "its bytes are not those that this content is written in")
    raise Rejected("wrong-statement", f"what was signed is not what {statement}.yaml says")


def check_is_run(release: Release, spec: StateSpec, record: Record, spec_bytes: bytes, record_bytes: bytes) -> str:
    """That the release is about this run. Raises `Rejected`."""
    if release.run != spec.run.id:
        raise Rejected("wrong-run", f"{release.name} is of {release.run}")
    if (release.spec_sha256, release.record_sha256) != (digest_bytes(spec_bytes), digest_bytes(record_bytes)):
        raise Rejected("changed", f"spec or record are not those that {release.name} was made of")
    if (release.state, release.outputs, release.contract) != (spec.digest, record.outputs, spec.contract):
        raise Rejected("wrong-state", f"{release.name} names another state, other outputs or another contract")
    if release.layers != layer_digests(spec.state, spec.contract):
        raise Rejected("wrong-state", f"the layers that {release.name} names are not the run's")
    return f"the run of {release.name}"


def check_binding(release: Release, sha256: str, binding: Binding, spec: StateSpec, record: Record | None) -> str:
    """That what the run says of its release is so, and that the release lets it. Raises `Rejected`."""
    if binding.sha256 != sha256:
        raise Rejected("wrong-release", f"the run was bound to another {release.name}, {binding.sha256[:19]}")
    deviating = deviating_layers(release, spec)
    if deviating != {one.layer for one in binding.deviations}:
        found = ", ".join(sorted(deviating)) or "nothing"
        raise Rejected("wrong-binding", f"it deviates in {found}, and says otherwise")
    not_started = record is not None and record.outcome.ending == "refused"
    if bool(binding.refused) != not_started:
        raise Rejected("wrong-binding", "whether it was refused is not what its record says")
    if binding.refused:
        return f"refused by {release.name}"
    forbidden = sorted(deviating - {*release.policy.may_move})
    if forbidden and release.policy.deviation == "refuse":
        raise Rejected("deviates", f"{release.name} does not let {', '.join(forbidden)} move")
    return f"as {release.name} has it" + (f", but for {', '.join(sorted(deviating))}" if deviating else "")


def deviating_layers(release: Release, spec: StateSpec) -> set[str]:
    found = layer_digests(spec.state, spec.contract)
    return {layer for layer in {*found, *release.layers} if found.get(layer) != release.layers.get(layer)}
