"""The door to a command of the user's own that is told of a broken boundary."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

_LONGEST_S = 60


def escalate(command: Sequence[str], told: bytes, folder: Path) -> str:
    """Run it in `folder` with `told` on its stdin; how it ended. Whatever goes wrong is said, never raised."""
    try:
        done = subprocess.run(command, cwd=folder, input=told, capture_output=True, timeout=_LONGEST_S, check=False)
    except subprocess.TimeoutExpired:
        return f"ended after {_LONGEST_S} s"
    except (OSError, ValueError) as error:
        return f"could not be run: {getattr(error, 'strerror', None) or error}"
    return f"exit {done.returncode}"
