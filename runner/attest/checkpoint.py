"""Checkpoints of a log, and proofs that something is in it, as C2SP has them: `tlog-checkpoint`, a `signed-note` with
an ECDSA signature, and `tlog-proof@v1`.

Read in one way only, as bundles are.
"""

from __future__ import annotations

import base64
import binascii
import re

import msgspec

from runner.attest.merkle import is_included
from runner.attest.rejected import Rejected

PROOF_HEADER = "c2sp.org/tlog-proof@v1"
_OTHER_VERSION = re.compile(r"c2sp\.org/tlog-proof@v[0-9]+")
LIMIT = 1 << 16
_HINT = 4
_HASH = 32
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_NAME = re.compile(r"[!-*,-~]{1,200}")


class Checkpoint(msgspec.Struct, frozen=True):
    """What a log says of itself. `origin` names the log."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> bytes:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{_base64(self.root)}\n".encode()


class SignedCheckpoint(msgspec.Struct, frozen=True):
    """`hint` is the first four bytes of the key id: it helps to find the key."""

    checkpoint: Checkpoint
    hint: bytes
    signature: bytes


class LogProof(msgspec.Struct, frozen=True):
    """That an entry is the log's at `index`, in the tree that `signed` tells of."""

    index: int
    path: tuple[bytes, ...]
    signed: SignedCheckpoint

    def includes(self, leaf: bytes) -> bool:
        tree = self.signed.checkpoint
        return is_included(leaf, self.index, tree.size, self.path, tree.root)


def sign_hint(key_id: str) -> bytes:
    return bytes.fromhex(key_id)[:_HINT]


def dump_checkpoint(signed: SignedCheckpoint) -> bytes:
    line = f"\n— {signed.checkpoint.origin} {_base64(signed.hint + signed.signature)}\n"
    return signed.checkpoint.text + line.encode()


def dump_proof(proof: LogProof) -> bytes:
    lines = [PROOF_HEADER, f"index {proof.index}", *map(_base64, proof.path), "", ""]
    return "\n".join(lines).encode() + dump_checkpoint(proof.signed)


def checkpoint_in(data: bytes) -> bytes:
    """The bytes of a checkpoint that stands alone, or in a proof."""
    return data.partition(b"\n\n")[2] if data.startswith(PROOF_HEADER.encode()) else data


def load_checkpoint(data: bytes) -> SignedCheckpoint:
    """Raises `Rejected`: `malformed` or `re-serialised`."""
    lines = _lines(data)
    if len(lines) != 5 or lines[3]:
        raise Rejected("malformed", "it is no checkpoint with one signature")
    mark, name, signed = [*lines[4].split(" "), "", "", ""][:3]
    if mark != "—" or name != lines[0] or not _NAME.fullmatch(name):
        raise Rejected("malformed", "its signature is not that of the log that it names")
    found = _bytes(signed)
    if len(found) <= _HINT:
        raise Rejected("malformed", "its signature is too short")
    checkpoint = Checkpoint(lines[0], _number(lines[1]), _hash(lines[2]))
    made = SignedCheckpoint(checkpoint, found[:_HINT], found[_HINT:])
    if dump_checkpoint(made) != data:
        raise Rejected("re-serialised", "its bytes are not those that this content is written in")
    return made


def load_proof(data: bytes) -> LogProof:
    """Raises `Rejected`: `malformed`, `unknown-version` or `re-serialised`."""
    head, empty, _ = data.partition(b"\n\n")
    lines = _lines(head + b"\n")
    if lines[0] != PROOF_HEADER:
        reason = "unknown-version" if _OTHER_VERSION.fullmatch(lines[0]) else "malformed"
        raise Rejected(reason, f"it begins with {lines[0][:60]!r}")
    if len(lines) < 2 or not lines[1].startswith("index ") or not empty:
        raise Rejected("malformed", "its second line is no index")
    index = _number(lines[1].removeprefix("index "))
    proof = LogProof(index, tuple(map(_hash, lines[2:])), load_checkpoint(checkpoint_in(data)))
    if dump_proof(proof) != data:
        raise Rejected("re-serialised", "its bytes are not those that this content is written in")
    return proof


def _lines(data: bytes) -> list[str]:
    if len(data) > LIMIT:
        raise Rejected("malformed", f"it is larger than {LIMIT >> 10} KiB")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise Rejected("malformed", "it is not UTF-8") from None
    if not text.endswith("\n"):
        raise Rejected("malformed", "its last line has no end")
    return text[:-1].split("\n")


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise Rejected("malformed", f"{text[:30]!r} is no number")
    return int(text)


def _hash(text: str) -> bytes:
    found = _bytes(text)
    if len(found) != _HASH:
        raise Rejected("malformed", "a hash does not have 32 bytes")
    return found


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Rejected("malformed", f"{text[:30]!r} is not base64") from None


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
