"""Where tombstones lie: `erased/` in the store and in `state_specs/`, two files for each blob that was erased.

    HEX.sigstore.json   the signed tombstone of the blob with that digest
    HEX.tlog-proof      that it is in the log

What they say is for `attest.tombstone`; whether it is believed, for `erased`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from runner.state.digest import Digest, digest_of_hex, hex_of, is_digest
from runner.store.files import write_atomic
from runner.store.store import Store

ERASED = "erased"
BUNDLE, PROOF = "sigstore.json", "tlog-proof"


class Kept(NamedTuple):
    """The files of a tombstone, as they are."""

    bundle: bytes
    proof: bytes | None


class Tombstones:
    def __init__(self, store: Store, specs: Path | None) -> None:
        self._tmp = store.tmp
        self._folders = [folder / ERASED for folder in (specs, store.folder) if folder]

    def exist(self) -> bool:
        """Whether anything was ever erased: mostly nothing was, and nobody needs to look further."""
        return any(folder.is_dir() for folder in self._folders)

    def copies(self, digest: Digest) -> tuple[Kept, ...]:
        """The reviewed one first; none for a blob that was not erased."""
        return tuple(kept for folder in self._folders if (kept := _read(folder, hex_of(digest))))

    def of(self, sha256: str) -> tuple[Kept, ...]:
        return self.copies(Digest(sha256))

    def digests(self) -> Iterator[Digest]:
        """Of every blob that there is a tombstone of, believed or not."""
        names = {path.name.partition(".")[0] for folder in self._folders for path in folder.glob(f"*.{BUNDLE}")}
        yield from (digest_of_hex(name) for name in sorted(names) if is_digest(f"sha256:{name}"))

    def keep(self, digest: Digest, kept: Kept) -> None:
        """The bundle last: a tombstone that has one has its proof."""
        for folder in self._folders:
            folder.mkdir(parents=True, exist_ok=True)
            for ending, data in ((PROOF, kept.proof), (BUNDLE, kept.bundle)):
                if data is not None:
                    write_atomic(folder / f"{hex_of(digest)}.{ending}", data, through=self._tmp)


def _read(folder: Path, name: str) -> Kept | None:
    bundle, proof = folder / f"{name}.{BUNDLE}", folder / f"{name}.{PROOF}"
    if not bundle.is_file():
        return None
    return Kept(bundle.read_bytes(), proof.read_bytes() if proof.is_file() else None)
