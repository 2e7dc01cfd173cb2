"""The passphrase of the signing key: from REPLAY_KEY_PASSPHRASE, or asked for on a terminal, never an argument."""

from __future__ import annotations

import os
import sys

import typer

from runner.errors import UsageError


def asked_passphrase() -> str:
    """Of the key that there is."""
    return _given() or _asked("Passphrase of the signing key")


def given_passphrase() -> str:
    """Of the key that there is, where nobody can be asked. Raises `UsageError` when none was given."""
    found = _given()
    if not found:
        raise UsageError("the signing key needs a passphrase", "nobody is asked here", "set REPLAY_KEY_PASSPHRASE")
    return found


def new_passphrase(*, plain: bool) -> str | None:
    """For a key that is to be made; None for one that is not to be encrypted."""
    if plain:
        return None
    found = _given() or _asked("New passphrase of the signing key", confirm=True)
    if not found:
        raise UsageError("the passphrase is empty", next="give one, or --plain for a key without")
    return found


def _given() -> str | None:
    return os.environ.get("REPLAY_KEY_PASSPHRASE")


def _asked(text: str, *, confirm: bool = False) -> str:
    if not sys.stdin.isatty():
        raise UsageError(
            "the signing key needs a passphrase", "there is no terminal to ask on", "set REPLAY_KEY_PASSPHRASE"
        )
    answer: str = typer.prompt(text, hide_input=True, confirmation_prompt=confirm, err=True)
    return answer
