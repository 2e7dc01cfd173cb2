"""How runs lie in a remote, all below `replay/`:

    blobs/ab/cdef…              bytes by their SHA-256, as in the store
    images/<digest>.json        which blobs an archived image is made of, as in the store
    runs/<run-id>/<sha256>      a manifest: the run's own files, by digest; small ones are in it
    shared/<sha256>             a file of a release, a key or a tombstone of `state_specs/`, with its path there

Whatever is named by digest is verified when it arrives, so a remote can lose things and be read by others, and cannot
pass off one thing as another. A run's manifest is put there last: a run that is listed was whole. What is added to a
run later, as a signature, makes another manifest beside the first; together they are the run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec

from runner.errors import TamperedError, UsageError
from runner.keys import OFFERED
from runner.state.decode import decode_json
from runner.state.digest import Digest, digest_bytes, digest_of_hex, hex_of
from runner.state.paths import is_below
from runner.state.plain import MALFORMED
from runner.state.spec import Sha256
from runner.store.releases import FILES, RELEASES
from runner.store.runs import is_run_id
from runner.store.tombstones import BUNDLE, ERASED, PROOF

BLOBS, IMAGES, RUNS, SHARED = "replay/blobs", "replay/images", "replay/runs", "replay/shared"
FORMAT = 1
INLINE = 1 << 16
ALWAYS_INLINE = frozenset({"spec.yaml", "record.json"})
_OF_SUMS = "sums"
_HEX = re.compile(r"[0-9a-f]{64}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_STATEMENT = re.compile(
    rf"{RELEASES}/{_FILE.pattern}/({'|'.join(map(re.escape, FILES))})"
    rf"|{OFFERED}/{_FILE.pattern}\.pem"
    rf"|{ERASED}/{_HEX.pattern}\.({'|'.join(map(re.escape, (BUNDLE, PROOF)))})"
)


class RunFile(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One file of a run. Without `content` it is a blob of the remote."""

    sha256: Sha256
    size: int
    content: bytes | None = None


class Manifest(
    msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag_field="format", tag=FORMAT
):
    """`apart`: where it was pushed from, `state_specs/` has no copy of it."""

    run_id: str
    files: dict[str, RunFile]
    apart: bool = False


class Shared(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="format", tag=FORMAT):
    """A file of `state_specs/`; `path` is relative to it."""

    path: str
    content: bytes


_Kind = TypeVar("_Kind", Manifest, Shared)


def blob_name(digest: str) -> str:
    digits = hex_of(Digest(digest))
    return f"{BLOBS}/{digits[:2]}/{digits[2:]}"


def blob_names(digests: Iterable[str]) -> dict[str, str]:
    """The digest of each name. Written out, as there may be a hundred thousand."""
    return {f"{BLOBS}/{digest[7:9]}/{digest[9:]}": digest for digest in digests}


def image_name(digest: str) -> str:
    return f"{IMAGES}/{hex_of(Digest(digest))}.json"


def run_name(run_id: str, digest: str) -> str:
    return f"{RUNS}/{run_id}/{hex_of(Digest(digest))}"


def shared_name(digest: str) -> str:
    return f"{SHARED}/{hex_of(Digest(digest))}"


def runs_listed(names: Iterable[str]) -> dict[str, set[Digest]]:
    """The manifests of each run, of what a remote lists below `runs/`. Raises `TamperedError` for a name that no push
    gave: it was not this tool that wrote there."""
    found: dict[str, set[Digest]] = {}
    for name in names:
        run_id, _, digits = name.partition("/")
        if not is_run_id(run_id) or not _HEX.fullmatch(digits):
            raise _foreign(f"{RUNS}/{name}")
        found.setdefault(run_id, set()).add(digest_of_hex(digits))
    return found


def shared_listed(names: Iterable[str]) -> set[Digest]:
    for name in names:
        if not _HEX.fullmatch(name):
            raise _foreign(f"{SHARED}/{name}")
    return {digest_of_hex(name) for name in names}


def _foreign(name: str) -> TamperedError:
    return TamperedError(
        f"the remote holds {name!r}, which no push wrote",
        "its name is none of ours; nothing was taken from the remote",
        "remove it there, and find out who can write to the remote",
    )


def encoded(value: Manifest | Shared) -> bytes:
    return msgspec.json.encode(value, order="deterministic")


def digest_of(path: str, content: bytes) -> Digest:
    """What a statement is kept under."""
    return digest_bytes(encoded(Shared(path, content)))


def manifest_of(run_id: str, files: Mapping[str, RunFile], *, apart: bool = False) -> Manifest:
    return Manifest(run_id, dict(sorted(files.items())), apart)


def read_manifest(data: bytes, run_id: str, digest: Digest) -> Manifest:
    """Raises `TamperedError` when the bytes are not those of that digest, or say something that no push says."""
    name = run_name(run_id, digest)
    manifest = _read(data, name, digest, Manifest)
    if manifest.run_id != run_id:
        raise _tampered(name, f"it is of {manifest.run_id!r}")
    for file, kept in manifest.files.items():
        if not _FILE.fullmatch(file) or file == "lock":
            raise _tampered(name, f"no run has a file called {file!r}")
        if kept.content is not None and (digest_bytes(kept.content), len(kept.content)) != (kept.sha256, kept.size):
            raise _tampered(name, f"{file} in it is not what its digest says")
    return manifest


def is_statement(path: str) -> bool:
    """Whether a file of `state_specs/` is one that travels: nothing else that a remote has is written there, where git,
    pytest and other tools would read it."""
    return bool(_STATEMENT.fullmatch(path))


def read_shared(data: bytes, digest: Digest) -> Shared:
    shared = _read(data, shared_name(digest), digest, Shared)
    if not is_below(shared.path) or shared.path.startswith("."):
        raise _tampered(shared_name(digest), f"{shared.path!r} does not lie in state_specs")
    return shared


def _read(data: bytes, name: str, digest: Digest, kind: type[_Kind]) -> _Kind:
    if digest_bytes(data) != digest:
        raise _tampered(name, "its bytes have another digest than its name says")
    try:
        return decode_json(data, kind)
    except MALFORMED as error:
        if b'"format":1' not in data[:100]:
            raise UsageError(f"{name} in the remote was written by a newer replay", str(error), "upgrade it") from error
        raise _tampered(name, str(error)) from error


def _tampered(name: str, why: str) -> TamperedError:
    return TamperedError(
        f"{name} in the remote is not what was pushed", why, "`replay push` again where the run still is"
    )


def merged(manifests: Iterable[Manifest]) -> dict[str, RunFile]:
    """The files of a run, of all that was pushed of it. Of two sums, those of the most files count. Raises
    `TamperedError` where two pushes disagree."""
    files: dict[str, RunFile] = {}
    for manifest in sorted(manifests, key=lambda one: len(one.files)):
        for name, file in manifest.files.items():
            if name != _OF_SUMS and name in files and files[name].sha256 != file.sha256:
                raise TamperedError(
                    f"the remote has two different files called {name} of {manifest.run_id}",
                    f"{files[name].sha256} and {file.sha256}; nobody changes one",
                    "compare them with the reviewed copy in git",
                )
            files[name] = file
    return files


def covers(there: Mapping[str, RunFile], here: Mapping[str, RunFile]) -> bool:
    """Whether nothing of a run would be added by pushing it."""
    return all(name in there and (name == _OF_SUMS or there[name].sha256 == here[name].sha256) for name in here)
