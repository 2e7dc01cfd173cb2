"""Layer `schema`: what each tabular data file holds. Derived from the data, it is an observation that no digest covers.

A profile is made once per content, and is a blob; by the file's digest a small file in the cache remembers which, or
why there is none. A file that cannot be profiled stops nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import msgspec

from runner.errors import ReplayError, UsageError
from runner.layers import data
from runner.profile import values
from runner.profile.values import Profile
from runner.state.checked import with_check, without_check
from runner.state.decode import decode_json
from runner.state.digest import Digest, hex_of
from runner.state.plain import MALFORMED
from runner.state.spec import SchemaSeen, StateSpec
from runner.store.files import write_atomic
from runner.store.store import Store
from runner.tables.malformed import MalformedError

Say = Callable[[str], None]

SUFFIXES = (
    *(".csv", ".jsonl", ".ndjson", ".parquet", ".tsv"),
    *(".csv.gz", ".jsonl.gz", ".ndjson.gz", ".tsv.gz"),
)
MOST_FILES = 100
NOT_INSTALLED = "duckdb is not installed: pip install 'replay-runner[tables]'"
_FAILURES = (ReplayError, OSError, ImportError)
_LEFT_OUT = f"only the first {MOST_FILES} tables of a folder are profiled"


def is_tabular(path: str) -> bool:
    return path.lower().endswith(SUFFIXES)


def observe(store: Store, versions: Mapping[str, str], say: Say) -> dict[str, SchemaSeen]:
    """The schema of every tabular file in these versions of data paths, its profile kept."""
    return {
        file: SchemaSeen(unknown=_LEFT_OUT) if place >= MOST_FILES else _observe(store, file, digest, say)
        for path, version in versions.items()
        for place, (file, digest) in enumerate(tables(store, path, Digest(version)))
    }


def tables(store: Store, path: str, version: Digest) -> Iterator[tuple[str, Digest]]:
    """The tabular files of one version of a data path, by name, each with its digest."""
    listed = data.files_of(store, version)
    if listed is None:
        yield from [(path, version)] if is_tabular(path) else []
        return
    for file in sorted(listed, key=lambda one: one.path):
        if is_tabular(file.path):
            yield f"{path}/{file.path}", Digest(file.sha256)


def _observe(store: Store, file: str, digest: Digest, say: Say) -> SchemaSeen:
    if known := _known(store, digest):
        return known
    say(f"schema: profiling {file}")
    try:
        made = _make(store.blobs.verified(digest))
        profile = store.blobs.put_bytes(values.encode(made))
        seen = SchemaSeen(columns=len(made.columns), rows=made.rows, profile=profile)
    except MalformedError as error:
        seen = SchemaSeen(unknown=str(error))
    except _FAILURES as error:  # these may pass, so they are not remembered
        return SchemaSeen(unknown=_why(error))
    place = store.cache / "profiles" / answer_name(digest)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(place, with_check(msgspec.json.encode(seen)), through=store.tmp)
    return seen


def look(file: Path) -> Profile | str:
    """The profile of a file anywhere, or why there is none; nothing is kept."""
    try:
        return _make(file)
    except (MalformedError, *_FAILURES) as error:
        return _why(error)


def _make(file: Path) -> Profile:
    if find_spec("duckdb") is None:
        raise UsageError(NOT_INSTALLED)
    from runner.profile.make import profile_of

    return profile_of(file)


def _why(error: Exception) -> str:
    if isinstance(error, ReplayError):
        return error.what
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _known(store: Store, digest: Digest) -> SchemaSeen | None:
    try:
        seen = read_answer((store.cache / "profiles" / answer_name(digest)).read_bytes())
    except (FileNotFoundError, *MALFORMED):
        return None
    return seen if seen.profile is None or store.blobs.has(Digest(seen.profile)) else None


def answer_name(digest: Digest) -> str:
    """The name of the file in `cache/profiles/` that keeps what is known of a data file."""
    return f"{hex_of(digest)}-{values.VERSION}.json"


def read_answer(kept: bytes) -> SchemaSeen:
    """Raises `msgspec.DecodeError` for what is not whole."""
    return decode_json(without_check(kept), SchemaSeen)


def profile_of(store: Store, seen: SchemaSeen | None, digest: Digest) -> Profile | str:
    """The profile that was observed, or that of the data where nothing was; or why there is none."""
    seen = seen or _known(store, digest)
    if seen and seen.profile is None:
        return seen.unknown
    try:
        if seen and seen.profile:
            return values.decode(store.blobs.read(Digest(seen.profile)))
        return look(store.blobs.verified(digest))
    except ReplayError as error:
        return error.what
    except MALFORMED:
        return "its profile was written by another version of replay"


def profile_of_file(store: Store, file: Path, digest: Digest) -> Profile | str:
    """Of a file of this digest that lies anywhere; nothing is kept."""
    return look(file) if _known(store, digest) is None else profile_of(store, None, digest)


def make_again(store: Store, spec: StateSpec, profile: Digest) -> None:
    """Profile anew what a lost profile of this run was made of."""
    for path, version in spec.state.data.items():
        for file, digest in tables(store, path, Digest(version)):
            seen = spec.observed.schema.get(file)
            if seen and seen.profile == profile:
                made = look(store.blobs.verified(digest))
                if isinstance(made, Profile):
                    store.blobs.put_stream([values.encode(made)], profile.__eq__)
                return
