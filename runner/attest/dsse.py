"""DSSE: a payload with its type, and signatures over both (the Dead Simple Signing Envelope, v1).

What is signed is not the payload but its pre-authentication encoding, so that a payload can never be taken
for one of another type.
"""

from __future__ import annotations

import msgspec

IN_TOTO = "application/vnd.in-toto+json"


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`keyid` only helps to find the key; nothing is believed because of it."""

    sig: bytes
    keyid: str


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"payload_type": "payloadType"}):
    payload: bytes
    payload_type: str
    signatures: tuple[Signature, ...]


def pae(payload_type: str, payload: bytes) -> bytes:
    """The pre-authentication encoding: the bytes that are signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
