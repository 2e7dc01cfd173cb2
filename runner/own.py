"""The user's own lists of specs that may be run here: those recorded by this user, and those allowed once.

They lie beside the user's keys, outside of every workspace and store: whoever can have a file pulled into those could
add a spec to a list in them as well. They name specs by the digest of their bytes, so no edited spec is on them.
"""

from __future__ import annotations

import contextlib
import os

from runner.keys import keyring

LIST, ALLOWED = "specs", "allowed"


def is_known(spec_sha256: str) -> bool:
    return _has(LIST, spec_sha256)


def remember(spec_sha256: str) -> None:
    """Where the list cannot be written, the user is asked: no reason for a run to fail."""
    _add(LIST, spec_sha256)


def is_allowed(digest: str) -> bool:
    return _has(ALLOWED, digest)


def allow(digest: str) -> None:
    """A stranger's spec, or one with what it was allowed beside that."""
    _add(ALLOWED, digest)


def _has(name: str, digest: str) -> bool:
    try:
        return f"{digest}\n".encode() in (keyring().folder / name).read_bytes()
    except OSError:
        return False


def _add(name: str, digest: str) -> None:
    if _has(name, digest):
        return
    with contextlib.suppress(OSError):
        place = keyring().folder / name
        place.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, f"{digest}\n".encode())
        finally:
            os.close(fd)
