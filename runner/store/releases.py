"""Releases as files: a folder each, `state_specs/releases/NAME/`, and a copy of it in the store.

    release.yaml       the statement, to be read and reviewed; nothing is believed but what stands there
    superseded.yaml    that another took its place         revoked.yaml    that it must no longer be used

Beside each lies its signature, `*.sigstore.json`, and the proof that it is in the log, `*.tlog-proof`, where there was
a key. No file is ever changed. The store's copy is there so that one that is removed or edited does not go unseen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from runner.errors import TamperedError, UsageError
from runner.state.decode import convert
from runner.state.digest import Digest, digest_bytes
from runner.state.release import Release, ReleaseStatus, Withdrawal
from runner.store.files import locked, write_atomic
from runner.store.runs import SPECS
from runner.store.store import Store

RELEASES = "releases"
STATEMENTS = ("release", "superseded", "revoked")
ENDINGS = ("yaml", "sigstore.json", "tlog-proof")
FILES = tuple(f"{statement}.{ending}" for statement in STATEMENTS for ending in ENDINGS)

Copies = dict[str, tuple[bytes, ...]]
"""Of each file that is there, the bytes of every copy, the reviewed one first."""


class Known(msgspec.Struct, frozen=True):
    """A release with what was said of it since. `sha256` is of its statement; `signed` says that there is a
    signature, good or not."""

    release: Release
    sha256: Digest
    superseded: Withdrawal | None
    revoked: Withdrawal | None
    signed: bool

    @property
    def status(self) -> ReleaseStatus:
        return "revoked" if self.revoked else "superseded" if self.superseded else "current"


class Flaw(NamedTuple):
    """A file that is not as it was written, from the store's folder or the workspace, and where a good copy is."""

    path: str
    problem: Literal["missing", "damaged"]
    detail: str
    copy: str | None


class Releases:
    """Those of a workspace. `specs` is its `state_specs/`, or None in a folder that is no workspace."""

    def __init__(self, store: Store, specs: Path | None) -> None:
        self._reviewed = specs / RELEASES if specs else None
        self._kept = store.folder / RELEASES
        self._tmp = store.tmp
        self._store = store

    def names(self) -> list[str]:
        """Of every release, sorted."""
        found = {file.parent.name for place in self._places for file in place.glob("*/release.yaml")}
        return sorted(found)

    def find(self, name: str) -> Known:
        """Raises `UsageError` when there is none of that name, and `TamperedError` when its files do not fit."""
        copies = self.copies(name)
        if "release.yaml" not in copies:
            raise self._unknown(name)
        from runner.state.strict import load_release, load_withdrawal

        data = self._only(name, "release.yaml", copies)
        release = load_release(data, str(self._place(name, "release.yaml")))
        _refuse_misplaced(name, release.name, self._place(name, "release.yaml"))
        sha256 = digest_bytes(data)
        said: dict[str, Withdrawal] = {}
        for kind in ("superseded", "revoked"):
            file = f"{kind}.yaml"
            if file in copies:
                said[kind] = load_withdrawal(self._only(name, file, copies), str(self._place(name, file)))
                _refuse_misplaced(f"{kind} {name} {sha256}", _about(said[kind]), self._place(name, file))
        if self._is_unsaid(copies):
            raise TamperedError(
                f"@{name} was revoked, and the files that say so are gone",
                "the log of this store has it",
                f"restore {SPECS}/{RELEASES}/{name}/revoked.* from git",
            )
        return Known(release, sha256, said.get("superseded"), said.get("revoked"), "release.sigstore.json" in copies)

    def run_of(self, name: str) -> str:
        """The run-id that it names, whatever else may be wrong with it: for those who will tell."""
        from runner.state.strict import load_release

        copies = self.copies(name)
        if "release.yaml" not in copies:
            raise self._unknown(name)
        place = self._place(name, "release.yaml")
        try:
            return load_release(copies["release.yaml"][0], str(place)).run
        except UsageError as error:
            raise TamperedError(f"{place} cannot be read", error.why, "restore it from git") from None

    def all(self) -> list[Known]:
        return [self.find(name) for name in self.names()]

    def copies(self, name: str) -> Copies:
        """What there is of a release; nothing for a name that could be none."""
        if not is_release_name(name):
            return {}
        found: Copies = {}
        for file in FILES:
            places = [place / name / file for place in self._places]
            if there := tuple(place.read_bytes() for place in places if place.is_file()):
                found[file] = there
        return found

    def flaws(self) -> Iterator[Flaw]:
        """Files of which a copy differs from the other, or is missing where the release has others. A release that is
        in one of the two places only, as in a clone or on another branch, is no flaw."""
        for name in self.names():
            copies = self.copies(name)
            for file in copies:
                yield from self._flaws_of(name, file)
            if self._is_unsaid(copies):
                yield Flaw(
                    f"{SPECS}/{RELEASES}/{name}/revoked.yaml", "missing", "the log has that it was revoked", None
                )

    def _flaws_of(self, name: str, file: str) -> Iterator[Flaw]:
        kept, reviewed = f"{RELEASES}/{name}/{file}", f"{SPECS}/{RELEASES}/{name}/{file}"
        places = [place / name / file for place in self._places]
        data = [place.read_bytes() if place.is_file() else None for place in places]
        if not all(place.parent.is_dir() for place in places):
            return
        if data[0] is None:
            yield Flaw(reviewed, "missing", "the store has a copy", kept)
        elif data[-1] is None:
            yield Flaw(kept, "missing", f"{SPECS}/ has a copy", reviewed)
        elif data[0] != data[-1]:
            yield Flaw(reviewed, "damaged", "it differs from the store's copy, and nothing tells which is right", None)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Held while something is said of a release, so that it is said once."""
        self._kept.mkdir(exist_ok=True)
        with locked(self._kept / "lock"):
            yield

    def write(self, name: str, statement: str, data: bytes, signed: dict[str, bytes]) -> Path:
        """Keep a statement with what signs it, by ending; the statement itself comes last. Returns the file to be
        reviewed."""
        if self._reviewed is None:
            raise UsageError(
                "a release needs a workspace",
                "it is kept in state_specs/, beside a replay.yaml, to be reviewed",
                "`replay init` makes one",
            )
        for place in (self._kept, self._reviewed):
            folder = place / name
            folder.mkdir(parents=True, exist_ok=True)
            for ending, content in (*signed.items(), ("yaml", data)):
                write_atomic(folder / f"{statement}.{ending}", content, through=self._tmp)
        return self._reviewed / name / f"{statement}.yaml"

    def _unknown(self, name: str) -> UsageError:
        import difflib

        near = difflib.get_close_matches(name, self.names(), n=1)
        hint = f"did you mean @{near[0]}?" if near else "`replay release list` shows those that there are"
        return UsageError(f"no release is called {name!r}", f"{len(self.names())} are known here", hint)

    @property
    def _places(self) -> list[Path]:
        return [place for place in (self._reviewed, self._kept) if place]

    def _place(self, name: str, file: str) -> Path:
        return next(place / name / file for place in self._places if (place / name / file).is_file())

    def _only(self, name: str, file: str, copies: Copies) -> bytes:
        first, *others = copies[file]
        if any(other != first for other in others):
            raise TamperedError(
                f"{self._place(name, file)} is not what the store keeps of @{name}",
                f"it differs from {self._kept / name / file}, and nobody changes one",
                "restore the one that was changed: from git, or from the other",
            )
        return first

    def _is_unsaid(self, copies: Copies) -> bool:
        """Whether the log has it that a release was revoked, and no file says so."""
        from runner.attest.releases import withdrawal_leaf
        from runner.store.log import Log

        if "revoked.yaml" in copies or "release.yaml" not in copies:
            return False
        return Log(self._store).holds(withdrawal_leaf("revoked", digest_bytes(copies["release.yaml"][0])))


def _refuse_misplaced(wanted: str, found: str, place: Path) -> None:
    if wanted != found:
        raise TamperedError(
            f"{place} is not where it belongs", f"it is about {found}, not {wanted}", "restore it from git"
        )


def _about(said: Withdrawal) -> str:
    return f"{said.kind} {said.name} {said.sha256}"


def is_release_name(text: str) -> bool:
    """Whether a release could be called that."""
    from runner.state.spec import ReleaseName

    try:
        convert(text, ReleaseName)
    except msgspec.ValidationError:
        return False
    return True
