"""What of the workspace's runs can travel: which files and blobs each of them is made of, read from the store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from runner import needs
from runner.keys import OFFERED
from runner.needs import Need
from runner.remote import layout
from runner.remote.layout import Manifest, RunFile
from runner.state.digest import Digest, digest_bytes, digest_file
from runner.state.record import Record
from runner.state.spec import StateSpec
from runner.store.releases import RELEASES
from runner.store.runs import Run, RunStatus
from runner.store.store import Store
from runner.store.tombstones import ERASED

_READ_WHOLE = 1 << 20
_FOLDERS = (RELEASES, OFFERED, ERASED)


class Goods(msgspec.Struct, frozen=True):
    """One finished run. `digest` is that of its manifest, `large` are those of its own files that are blobs there."""

    run: Run
    spec: StateSpec
    record: Record
    manifest: Manifest
    digest: Digest
    large: dict[str, Path]

    def needs(self) -> Iterator[Need]:
        yield from needs.of_spec(self.spec)
        yield from needs.of_record(self.record)


def of_run(run: Run) -> Goods | None:
    """None for a run that was never finished. Raises `TamperedError` when spec and record are not what they were."""
    if run.status() is not RunStatus.FINISHED or not run.has_spec():
        return None
    spec, record = run.spec_and_record()
    if record is None:
        return None
    files: dict[str, RunFile] = {}
    large: dict[str, Path] = {}
    for name, path in run.own_files().items():
        size = path.stat().st_size
        content = path.read_bytes() if size <= layout.INLINE or name in layout.ALWAYS_INLINE else None
        digest = digest_file(path) if content is None else digest_bytes(content)
        files[name] = RunFile(digest, size, content)
        if content is None:
            large[digest] = path
    manifest = layout.manifest_of(run.id, files, apart=run.is_apart())
    return Goods(run, spec, record, manifest, digest_bytes(layout.encoded(manifest)), large)


class Planned(msgspec.Struct, frozen=True):
    """A run that is yet to be: what its state is made of can travel ahead of it."""

    run: Run
    spec: StateSpec
    digest: Digest
    large: dict[str, Path] = {}

    def needs(self) -> Iterator[Need]:
        return needs.of_spec(self.spec)


class Expander:
    """The blobs behind pins, each pin asked for once however many runs share it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[tuple[str, str], tuple[str, ...]] = {}

    def blobs(self, spec: StateSpec, need: Need) -> tuple[str, ...]:
        key = (need.kind, need.digest)
        if key not in self._known:
            self._known[key] = needs.behind(self._store, spec, need)
        return self._known[key]


def statements(specs: Path | None) -> dict[str, bytes]:
    """The releases, keys and tombstones in `state_specs/`: they are of no single run. By their path there."""
    if specs is None or not specs.is_dir():
        return {}
    files = [path for folder in _FOLDERS for path in sorted((specs / folder).rglob("*")) if path.is_file()]
    named = {path.relative_to(specs).as_posix(): path for path in files if not path.is_symlink()}
    travel = {name: path for name, path in named.items() if layout.is_statement(name)}
    return {name: path.read_bytes() for name, path in travel.items() if path.stat().st_size <= _READ_WHOLE}
