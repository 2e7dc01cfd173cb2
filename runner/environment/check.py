"""Finding damage in a sealed folder: what differs from its manifest, by name."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from runner.environment.layout import FILE, PROGRAM, SYMLINK, Entry, folders_of
from runner.environment.seal import (
    MANIFEST,
    ROOT,
    Stamp,
    Stamps,
    manifest_of,
    parse_manifest,
    read_stamps,
    survey,
    write_stamps,
)
from runner.state.digest import digest_bytes, digest_file


def check_quick(folder: Path) -> list[str]:
    """Names below `root` of what is damaged, missing or extra, by comparing stamps; empty when all is right.

    Another size, mode or mtime is damage. A file that only its inode or ctime tells from its stamp is hashed,
    and stamped anew if its content is right: linking a file into another environment changes its ctime.

    What this misses: bytes that went bad without being written through the file system, and a write that keeps
    size and times because it fell into the clock tick of the stamp or because the clock was set back.
    `check_full` finds those.
    """
    return _check(folder, trust_stamps=True)


def check_full(folder: Path) -> list[str]:
    """Like `check_quick`, but every file is read and hashed, in bounded memory."""
    return _check(folder, trust_stamps=False)


def _check(folder: Path, *, trust_stamps: bool) -> list[str]:
    try:
        manifest = manifest_of(folder)
    except (OSError, ValueError):
        return [MANIFEST]
    try:
        found, folders = survey(folder / ROOT)
    except OSError:
        return [ROOT]
    known = read_stamps(folder)
    if trust_stamps and found == known and folders == folders_of(found):
        return []
    try:
        entries = {entry.path: entry for entry in parse_manifest(manifest)}
    except ValueError:
        return [MANIFEST]
    settled = {path for path in found if trust_stamps and found[path] == known.get(path)}
    damaged = {
        path
        for path in (found.keys() & entries.keys()) - settled
        if _looks_changed(found[path], known.get(path)) or entry_at(folder / ROOT, path) != entries[path]
    }
    wrong = damaged | (found.keys() ^ entries.keys()) | (folders ^ folders_of(entries))
    _stamp_anew(folder, known, {path: stamp for path, stamp in found.items() if path not in wrong})
    return sorted(wrong)


def _looks_changed(now: Stamp, then: Stamp | None) -> bool:
    return then is not None and (now.mode, now.size, now.mtime) != (then.mode, then.size, then.mtime)


def _stamp_anew(folder: Path, known: Stamps, right: Stamps) -> None:
    """Damaged files keep their old stamp. Where stamps cannot be kept, the next check hashes again."""
    try:
        if not right.items() <= known.items():
            write_stamps(folder, {**known, **right})
    except OSError:
        pass


def entry_at(root: Path, path: str) -> Entry | None:
    """What is at `root/path` now, content included; None if it is nothing that a sealed folder holds."""
    place = root / path
    try:
        found = place.lstat()
        if stat.S_ISLNK(found.st_mode):
            return Entry(path, SYMLINK, found.st_size, digest_bytes(os.fsencode(place.readlink())))
        if not stat.S_ISREG(found.st_mode):
            return None
        mode = PROGRAM if found.st_mode & stat.S_IXUSR else FILE
        return Entry(path, mode, found.st_size, digest_file(place))
    except OSError:
        return None
