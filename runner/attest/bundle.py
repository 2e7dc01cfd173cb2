"""An envelope as a Sigstore bundle: JSON, version 0.3, the key named by a hint, no certificate, no public log.

It is written in one way only, and read in that way only: what says the same in other bytes is refused, so that
nothing can be hidden in a bundle.
"""

from __future__ import annotations

import base64
import re
from typing import Any

import msgspec

from runner.attest.dsse import IN_TOTO, Envelope, Signature
from runner.attest.rejected import Rejected
from runner.state.decode import decode_json
from runner.state.digest import canonical

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_FAMILY = "application/vnd.dev.sigstore.bundle"
LIMIT = 64 << 20
_KEY_ID = re.compile(r"[0-9a-f]{64}")


class PublicKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`hint` is the base64 of the key id, as cosign has it."""

    hint: str


class Material(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    rename={"public_key": "publicKey", "log_entries": "tlogEntries"},
):
    public_key: PublicKey
    log_entries: tuple[()]


class Bundle(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    rename={"media_type": "mediaType", "material": "verificationMaterial", "envelope": "dsseEnvelope"},
):
    media_type: str
    material: Material
    envelope: Envelope


def bundle_of(payload: bytes, signature: bytes, key_id: str) -> Bundle:
    envelope = Envelope(payload, IN_TOTO, (Signature(signature, key_id),))
    return Bundle(MEDIA_TYPE, Material(PublicKey(_hint(key_id)), ()), envelope)


def dump_bundle(bundle: Bundle) -> bytes:
    return canonical(msgspec.to_builtins(bundle)) + b"\n"


def load_bundle(data: bytes) -> Bundle:
    """Raises `Rejected`: `malformed`, `unknown-version`, `unknown-payload-type` or `re-serialised`."""
    if len(data) > LIMIT:
        raise Rejected("malformed", f"it is larger than {LIMIT >> 20} MiB")
    _refuse_unknown(data)
    try:
        bundle = decode_json(data, Bundle)
        written = dump_bundle(bundle)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Rejected("malformed", str(error)) from None
    if len(bundle.envelope.signatures) != 1:
        raise Rejected("malformed", f"{len(bundle.envelope.signatures)} signatures; there must be one")
    key_id = bundle.envelope.signatures[0].keyid
    if not _KEY_ID.fullmatch(key_id) or bundle.material.public_key.hint != _hint(key_id):
        raise Rejected("malformed", "it does not name one key")
    if written != data:
        raise Rejected("re-serialised", "its bytes are not those that this content is written in")
    return bundle


def _hint(key_id: str) -> str:
    return base64.b64encode(bytes.fromhex(key_id)).decode()


def _refuse_unknown(data: bytes) -> None:
    """Another version, or another kind of payload, is told apart from nonsense."""
    try:
        raw: Any = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Rejected("malformed", str(error)) from None
    if not isinstance(raw, dict):
        raise Rejected("malformed", "it is no JSON object")
    media_type = raw.get("mediaType")
    if isinstance(media_type, str) and media_type != MEDIA_TYPE and media_type.startswith(_FAMILY):
        raise Rejected("unknown-version", f"{media_type}; this replay reads {MEDIA_TYPE}")
    if media_type != MEDIA_TYPE:
        raise Rejected("malformed", "it is no Sigstore bundle")
    envelope = raw.get("dsseEnvelope")
    payload_type = envelope.get("payloadType") if isinstance(envelope, dict) else None
    if isinstance(payload_type, str) and payload_type != IN_TOTO:
        raise Rejected("unknown-payload-type", payload_type[:100])
