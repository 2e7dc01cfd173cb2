"""Tombstones: a signed statement that a blob was erased, by whom, when and why; of its content it says nothing.

A tombstone is for one digest, and counts only if a believed key signed it and it is in that key's log. It excuses that
the blob is missing, wherever the blob was needed, and nothing else: a damaged one stays damaged.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from runner.attest.bundle import load_bundle
from runner.attest.checkpoint import load_proof
from runner.attest.dsse import pae
from runner.attest.merkle import leaf_hash
from runner.attest.rejected import Rejected
from runner.attest.statement import STATEMENT
from runner.state.decode import convert
from runner.state.digest import canonical, digest_bytes

TOMBSTONE = "urn:replay-runner:tombstone:v1"
_PREFIX = "sha256:"

Judge = Callable[[bytes, bytes, bytes], str | None]
"""Of a key id or its beginning, a message and a signature, what is wrong: a reason code, or None."""


class Why(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """What a tombstone says beside what was erased; times are UTC."""

    erased_on: str
    by: str
    reason: str
    size: int


class Tombstone(msgspec.Struct, frozen=True):
    """What was erased, and what it was called."""

    sha256: str
    path: str
    why: Why

    @property
    def told(self) -> str:
        return f"erased on {self.why.erased_on[:10]} by {self.why.by}: {self.why.reason}"


class _Digest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sha256: str


class _Subject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    digest: _Digest
    name: str


class _Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"type_": "_type"}):
    type_: str
    subject: tuple[_Subject, ...]
    predicate_type: str = msgspec.field(name="predicateType")
    predicate: Why


def statement(made: Tombstone) -> bytes:
    """The bytes that are signed."""
    subject = _Subject(_Digest(made.sha256.removeprefix(_PREFIX)), made.path)
    return canonical(msgspec.to_builtins(_Statement(STATEMENT, (subject,), TOMBSTONE, made.why)))


def leaf_of(bundle: bytes) -> bytes:
    """What the log holds of a tombstone."""
    return leaf_hash(digest_bytes(bundle).encode())


def read_tombstone(sha256: str, bundle: bytes, proof: bytes | None, judge: Judge) -> Tombstone:
    """The tombstone of that blob. Raises `Rejected` for what does not excuse that it is missing."""
    envelope = load_bundle(bundle).envelope
    signature = envelope.signatures[0]
    message = pae(envelope.payload_type, envelope.payload)
    if problem := judge(bytes.fromhex(signature.keyid), message, signature.sig):
        raise Rejected(problem, f"a tombstone by key {signature.keyid}")
    made = _read(envelope.payload)
    if made.sha256 != sha256:
        raise Rejected("wrong-subject", f"the tombstone is of {made.sha256[:19]}")
    if proof is None:
        raise Rejected("no-proof", "nothing shows that the tombstone is in a log")
    found = load_proof(proof)
    signed = found.signed
    if problem := judge(signed.hint, signed.checkpoint.text, signed.signature):
        raise Rejected(problem, f"a checkpoint by key {signed.hint.hex()}…")
    if not found.includes(leaf_of(bundle)):
        raise Rejected("not-included", "the proof is not that of the tombstone")
    return made


def _read(payload: bytes) -> Tombstone:
    try:
        raw = msgspec.json.decode(payload)
        kind = raw.get("predicateType") if isinstance(raw, dict) else None
        if kind != TOMBSTONE:
            raise Rejected("unknown-predicate", str(kind)[:100])
        found = convert(raw, _Statement)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Rejected("malformed", str(error)) from None
    if found.type_ != STATEMENT:
        raise Rejected("unknown-statement", found.type_[:100])
    if canonical(raw) != payload:
        raise Rejected("re-serialised", "its bytes are not those that this content is written in")
    if len(found.subject) != 1:
        raise Rejected("wrong-subject", f"{len(found.subject)} subjects; there must be one")
    return Tombstone(_PREFIX + found.subject[0].digest.sha256, found.subject[0].name, found.predicate)
