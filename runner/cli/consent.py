"""What the user says to a stranger's spec: by `--trust` and `--allow-secret`, or by a yes on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from runner.cli.output import safe, table
from runner.trust import Consent, Stranger, why


def consent_of(trust: bool, allowed: Sequence[str]) -> Consent:
    asks = sys.stdin.isatty() and sys.stderr.isatty()
    return Consent(trust, frozenset(allowed), (lambda stranger: _asked(stranger, trust)) if asks else None)


def _asked(stranger: Stranger, trust: bool) -> bool:
    """A yes to the whole, unless it was given; then one to each secret that nobody here declared."""
    if not trust:
        said = why(stranger.doubt)
        typer.echo(f"{safe(stranger.run_id)} was not recorded here, and {safe(said)}. It would do this:", err=True)
        typer.echo(table([(f"  {safe(name)}", safe(text)) for name, text in stranger.rights.lines]), nl=False, err=True)
        if not typer.confirm("Run it?", err=True):
            return False
    return all(typer.confirm(f"Hand {safe(source)} over to it?", err=True) for source in stranger.unconfirmed)
