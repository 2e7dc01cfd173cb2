"""Signing: ECDSA over P-256 with SHA-256, the only door to cryptography.

A signature has one form: DER, its `s` in the lower half, so that nobody can make a second one of it. A key's id is
the SHA-256 of its DER SubjectPublicKeyInfo, which `openssl pkey -pubin -outform DER | sha256sum` gives too.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from runner.errors import OutsideError, UsageError

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_ALGORITHM = ec.ECDSA(hashes.SHA256())
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm)
_PATIENCE_S = 120.0


class PublicKey(msgspec.Struct, frozen=True):
    """`id` is hex, `pem` the key in the one form in which it is written."""

    id: str
    pem: bytes

    def verifies(self, message: bytes, signature: bytes) -> bool:
        if not _is_strict(signature):
            return False
        key = serialization.load_pem_public_key(self.pem)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        try:
            key.verify(signature, message, _ALGORITHM)
        except InvalidSignature:
            return False
        return True


class Signer(msgspec.Struct, frozen=True):
    """Something that signs, and the key that verifies what it signed."""

    key: PublicKey
    sign: Callable[[bytes], bytes]


def new_private_key(passphrase: str | None) -> bytes:
    """A new private key as PKCS 8 in PEM, encrypted when there is a passphrase."""
    key = ec.generate_private_key(ec.SECP256R1())
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase.encode())
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def is_encrypted(private: bytes) -> bool:
    return b"ENCRYPTED" in private


def open_private_key(private: bytes, passphrase: str | None, source: str) -> Signer:
    """Raises `UsageError` when the passphrase is wrong, or it is no such key."""
    try:
        key = serialization.load_pem_private_key(private, passphrase.encode() if passphrase else None)
    except _UNREADABLE as error:
        why = "the passphrase is wrong, or the file is damaged" if is_encrypted(private) else str(error)
        raise UsageError(f"the signing key {source} cannot be opened", why, "set REPLAY_KEY_PASSPHRASE") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _wrong_kind(source)
    return Signer(_public(key.public_key(), source), lambda message: _strict(key.sign(message, _ALGORITHM)))


def load_public_key(pem: bytes, source: str) -> PublicKey:
    """Raises `UsageError` unless it is the public half of a P-256 key, in PEM."""
    try:
        key = serialization.load_pem_public_key(pem)
    except _UNREADABLE:
        raise UsageError(f"{source} holds no public key", next="`openssl pkey -in KEY -pubout` prints one") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise _wrong_kind(source)
    return _public(key, source)


def command_signer(command: str, key: PublicKey) -> Signer:
    """Signs by a command of the user's: the message on its stdin, the signature in DER on its stdout."""

    def sign(message: bytes) -> bytes:
        try:
            done = subprocess.run(
                ["sh", "-c", command], input=message, capture_output=True, timeout=_PATIENCE_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise _failed(command, f"it took more than {_PATIENCE_S:.0f} s") from None
        except OSError as error:
            raise _failed(command, str(error)) from error
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise _failed(command, f"it exited {done.returncode}" + (f": {said[-1]}" if said else ""))
        try:
            signature = _strict(done.stdout)
        except ValueError:
            raise _failed(command, "what it printed is no ECDSA signature in DER") from None
        if not key.verifies(message, signature):
            raise _failed(command, f"its signature is not that of the key {key.id[:16]} in REPLAY_SIGN_KEY")
        return signature

    return Signer(key, sign)


def _public(key: ec.EllipticCurvePublicKey, source: str) -> PublicKey:
    if not isinstance(key.curve, ec.SECP256R1):
        raise _wrong_kind(source)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    der = key.public_bytes(serialization.Encoding.DER, form)
    return PublicKey(hashlib.sha256(der).hexdigest(), key.public_bytes(serialization.Encoding.PEM, form))


def _strict(signature: bytes) -> bytes:
    r, s = decode_dss_signature(signature)
    return encode_dss_signature(r, min(s, _ORDER - s))


def _is_strict(signature: bytes) -> bool:
    try:
        return _strict(signature) == signature
    except ValueError:
        return False


def _wrong_kind(source: str) -> UsageError:
    return UsageError(f"{source} is no key for ECDSA over P-256", next="`replay keys init` makes one")


def _failed(command: str, why: str) -> OutsideError:
    return OutsideError(f"the signing command {command!r} failed", why, "mend REPLAY_SIGN_COMMAND")
