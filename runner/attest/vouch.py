"""Does a signed statement of a run vouch for its spec? A pure function of bytes and the keys that are believed."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from runner.attest.bundle import load_bundle
from runner.attest.dsse import pae
from runner.attest.rejected import Rejected
from runner.attest.statement import KINDS, predicate_type, stated_digests

Judge = Callable[[bytes, bytes, bytes], str | None]
"""Of a key id or its beginning, a message and a signature, what is wrong: a reason code, or None."""


class Doubt(msgspec.Struct, frozen=True):
    """Why a spec is not vouched for: a reason code of `verify`, and the key that signed, if one did."""

    reason: str
    key: str = ""


def doubt(bundle: bytes | None, run_id: str, spec_sha256: str, judge: Judge) -> Doubt | None:
    """None when a believed key signed for exactly that spec, under that run-id."""
    if bundle is None:
        return Doubt("unsigned")
    try:
        envelope = load_bundle(bundle).envelope
        signature = envelope.signatures[0]
        message = pae(envelope.payload_type, envelope.payload)
        if problem := judge(bytes.fromhex(signature.keyid), message, signature.sig):
            return Doubt(problem, signature.keyid)
        if predicate_type(envelope.payload) != KINDS["provenance"]:
            return Doubt("unknown-predicate", signature.keyid)
        stated = stated_digests(envelope.payload, "subject").get(f"{run_id}.yaml")
    except Rejected as error:
        return Doubt(error.reason)
    return None if stated == spec_sha256 else Doubt("wrong-subject", signature.keyid)
