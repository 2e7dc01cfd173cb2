"""Attestations: what is signed of a run, how it is written down, and how it is checked. Values and pure functions.

    statement    (spec, record) → in-toto statements        dsse         the envelope, and the bytes that are signed
    bundle       an envelope as a Sigstore bundle           merkle       RFC 6962 trees and proofs
    checkpoint   C2SP checkpoints and proofs as files       verify       evidence → numbered checks

Whoever signs or knows keys is passed in: cryptography stays behind its door.
"""
