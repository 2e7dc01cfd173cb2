"""Seal: sign what is said of a run, add its record to the log, keep both beside the record.

The last file is written when all others are: a run is sealed as a whole or not at all, and sealing again does the
rest. Nothing of the run itself is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from runner.attest.bundle import bundle_of, dump_bundle
from runner.attest.checkpoint import Checkpoint, SignedCheckpoint, dump_proof, sign_hint
from runner.attest.dsse import IN_TOTO, pae
from runner.attest.merkle import leaf_hash
from runner.attest.statement import RunFiles, leaf_data, log_digests, statements
from runner.keys import Ask, Keyring
from runner.state.record import Record
from runner.state.spec import StateSpec
from runner.state.verification import UNTRUSTED
from runner.store.log import Log
from runner.store.runs import SIGNED, Run
from runner.store.store import Store
from runner.tools.signing import PublicKey, Signer

PROOF = "tlog-proof"
Judge = Callable[[bytes, bytes, bytes], str | None]
"""Of a key id or its beginning, a message and a signature, what is wrong: a reason code, or None."""


def bundle_name(kind: str) -> str:
    """The file of one kind of statement, as `ATTESTED` has it."""
    return SIGNED if kind == "provenance" else f"{kind}.{SIGNED}"


class Sealer(msgspec.Struct, frozen=True):
    """What signs, and the keys by which an earlier checkpoint of the log may have been signed."""

    signer: Signer
    trusted: tuple[PublicKey, ...]

    def seal(
        self, store: Store, run: Run, spec: StateSpec, spec_bytes: bytes, record: Record, record_bytes: bytes
    ) -> None:
        logs = log_digests({name: one.sha256 for name, one in run.sums().items()})
        made = statements(RunFiles(spec, record, spec_bytes, record_bytes, logs))
        bundles = {kind: self.bundle(payload) for kind, payload in made.items()}
        run.write_attested(PROOF, self.logged(store, leaf_hash(leaf_data(record_bytes))))
        for kind in sorted(bundles, key=lambda kind: kind == "provenance"):
            run.write_attested(bundle_name(kind), bundles[kind])

    def bundle(self, payload: bytes) -> bytes:
        """A statement, signed, as a file."""
        return dump_bundle(bundle_of(payload, self.signer.sign(pae(IN_TOTO, payload)), self.signer.key.id))

    def logged(self, store: Store, leaf: bytes) -> bytes:
        """Add a leaf to the log; the file that proves it."""
        judge = judge_of([self.signer.key, *self.trusted])
        proof = Log(store).append(
            leaf, self._checkpoint, lambda signed: judge(signed.hint, signed.checkpoint.text, signed.signature)
        )
        return dump_proof(proof)

    def _checkpoint(self, checkpoint: Checkpoint) -> SignedCheckpoint:
        key_id = self.signer.key.id
        return SignedCheckpoint(checkpoint, sign_hint(key_id), self.signer.sign(checkpoint.text))


def open_sealer(keyring: Keyring, ask: Ask) -> Sealer | None:
    """None where nothing signs. Raises `UsageError` when the key cannot be opened: before a job runs, not after."""
    signer = keyring.signer(ask)
    return Sealer(signer, tuple(keyring.trusted())) if signer else None


def judge_of(keys: Iterable[PublicKey]) -> Judge:
    """Believes what one of these keys signed."""
    known = {bytes.fromhex(key.id): key for key in keys}

    def judge(hint: bytes, message: bytes, signature: bytes) -> str | None:
        fitting = [key for key_id, key in known.items() if hint and key_id.startswith(hint)]
        if not fitting:
            return UNTRUSTED
        return None if any(key.verifies(message, signature) for key in fitting) else "bad-signature"

    return judge
