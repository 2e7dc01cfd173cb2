"""A judge that a person wrote: a command run on this machine, in a folder that holds the outputs of one run."""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from runner.state.digest import digest_file


def run_judge(command: str, folder: Path, facts: Mapping[str, str]) -> int:
    """Its exit status; what it prints goes to stderr."""
    return subprocess.run(
        ["sh", "-c", command], cwd=folder, env=os.environ | facts, stdin=subprocess.DEVNULL, stdout=2, check=False
    ).returncode


def files_of(command: str) -> dict[str, str]:
    """The digests of the files that its words name: by a whole path, or as programs that are found on the PATH. What
    those read or import in turn is not looked at; a relative path is one of the outputs."""
    found = {}
    for path in _named(command):
        try:
            found[str(path)] = digest_file(path)
        except OSError:  # one that cannot be read is none that could be told apart
            continue
    return dict(sorted(found.items()))


def _named(command: str) -> Iterator[Path]:
    words = shlex.shlex(command, posix=True, punctuation_chars=True)
    words.whitespace_split, words.commenters = True, ""
    try:
        listed = ["", *words]
    except ValueError:  # the shell will say what is wrong with it
        return
    for before, word in itertools.pairwise(listed):
        if ">" in before:  # it is written, not read
            continue
        path = os.path.expanduser(os.path.expandvars(word))
        place = path if os.path.isabs(path) else None if "/" in path else shutil.which(path)
        if place and os.path.isfile(place):
            yield Path(place)
