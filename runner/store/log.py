"""The log: which records were signed here, in their order, as a Merkle tree that can only grow.

    log/hashes       32 bytes each: a leaf, then the subtrees that it completes (the truth)
    log/checkpoint   the signed size and root: what of `hashes` counts
    log/lock         held by whoever appends

An append reads and writes a number of hashes that grows with the logarithm of the log's size. What was written
and never signed for, because the command was killed, is written over by the next one.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator

from runner.attest import merkle
from runner.attest.checkpoint import (
    Checkpoint,
    LogProof,
    SignedCheckpoint,
    checkpoint_in,
    dump_checkpoint,
    load_checkpoint,
)
from runner.attest.rejected import Rejected
from runner.errors import ReplayWarning, TamperedError, disk_error
from runner.store.files import locked, write_atomic
from runner.store.store import Store

_HASH = 32

Sign = Callable[[Checkpoint], SignedCheckpoint]
Judge = Callable[[SignedCheckpoint], str | None]
"""What is wrong with a checkpoint's signature, if anything."""


class Log:
    def __init__(self, store: Store) -> None:
        self.folder = store.folder / "log"
        self.origin = f"replay/{store.id}"
        self._tmp = store.tmp
        self._runs = store.runs
        self._hashes = self.folder / "hashes"
        self._checkpoint = self.folder / "checkpoint"

    def checkpoint(self) -> bytes | None:
        """The newest checkpoint as it is kept; None before anything was signed."""
        try:
            return self._checkpoint.read_bytes()
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def nodes(self) -> Iterator[merkle.Nodes]:
        """The hashes, to be asked of what a checkpoint counts. Asking raises `Rejected`: `log-truncated`."""
        try:
            fd = os.open(self._hashes, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            yield _absent
            return
        try:
            yield lambda level, index: _node(fd, level, index)
        finally:
            os.close(fd)

    def holds(self, leaf: bytes) -> bool:
        """Whether a leaf is anywhere in it: all hashes are looked through."""
        hashes = self._hashes.read_bytes() if self._hashes.is_file() else b""
        at = hashes.find(leaf)
        while at >= 0 and at % _HASH:
            at = hashes.find(leaf, at + 1)
        return at >= 0

    def damage(self) -> tuple[str, str] | None:
        """The file that is not what was written, and why, without knowing any key; every hash is computed anew."""
        kept = self.checkpoint()
        if kept is None:
            lost = self._hashes.is_file() and self._hashes.stat().st_size
            return ("log/checkpoint", "there are hashes, and nothing says how many count") if lost else None
        try:
            tree = load_checkpoint(kept).checkpoint
        except Rejected as error:
            return "log/checkpoint", error.detail
        hashes = self._hashes.read_bytes() if self._hashes.is_file() else b""
        if len(hashes) < _HASH * merkle.stored_count(tree.size):
            return "log/hashes", f"it ends before what its checkpoint of {tree.size} counts"

        def node(level: int, index: int) -> bytes:
            start = _HASH * merkle.stored_position(level, index)
            return hashes[start : start + _HASH]

        for size in range(tree.size):
            start, made = _HASH * merkle.stored_count(size), merkle.completed(size, node(0, size), node)
            if hashes[start : start + _HASH * len(made)] != b"".join(made):
                return "log/hashes", f"the hashes of entry {size} do not fit"
        fits = merkle.root(tree.size, node) == tree.root
        return None if fits else ("log/hashes", "its hashes do not give the root that was signed")

    def append(self, leaf: bytes, sign: Sign, judge: Judge) -> LogProof:
        """Add a leaf, and prove it. Nothing is added to a log that is not as it was signed: raises `TamperedError`."""
        with self._opened_alone() as fd:

            def nodes(level: int, index: int) -> bytes:
                return _node(fd, level, index)

            before = self._checked(nodes, judge)
            made = merkle.completed(before.size, leaf, nodes)
            _write(fd, merkle.stored_count(before.size), b"".join(made))
            size = before.size + 1
            signed = sign(Checkpoint(before.origin, size, merkle.root(size, nodes)))
            write_atomic(self._checkpoint, dump_checkpoint(signed), through=self._tmp)
            return LogProof(before.size, tuple(merkle.inclusion_proof(before.size, size, nodes)), signed)

    @contextlib.contextmanager
    def _opened_alone(self) -> Iterator[int]:
        try:
            self.folder.mkdir(exist_ok=True)
            with locked(self.folder / "lock"):
                fd = os.open(self._hashes, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                try:
                    yield fd
                finally:
                    os.close(fd)
        except OSError as error:
            raise disk_error(error, f"write to {self.folder}") from error

    def _checked(self, nodes: merkle.Nodes, judge: Judge) -> Checkpoint:
        """What the log is now. Its own signature and root are checked: to sign for more is to vouch for all."""
        kept = self.checkpoint()
        if kept is None:
            if self._hashes.stat().st_size > _HASH:  # more than a first append that was killed leaves
                raise self._refused("its checkpoint is gone, and nothing else says how many of its hashes count")
            self._warn_of_loss()
            return Checkpoint(self.origin, 0, merkle.EMPTY)
        try:
            signed = load_checkpoint(kept)
            found = merkle.root(signed.checkpoint.size, nodes)
        except Rejected as error:
            raise self._refused(f"{error.reason}: {error.detail}") from None
        if found != signed.checkpoint.root:
            raise self._refused("its hashes do not give the root that was signed")
        if problem := judge(signed):
            raise self._refused(
                f"{problem}: its checkpoint is not signed by a key that you trust",
                "`replay keys trust` the key that signed it, then `replay sign` the run; nothing was added to it",
            )
        return signed.checkpoint

    def _warn_of_loss(self) -> None:
        """A log begins once. That there was one is known by the proofs that it gave; pulled ones are another's."""
        begins = f"{self.origin}\n".encode()
        proofs = self._runs.glob("*/tlog-proof")
        if any(checkpoint_in(proof.read_bytes()).startswith(begins) for proof in proofs):
            text = f"the log in {self.folder} is gone, and another was begun: runs of the old one do not verify here"
            warnings.warn(f"{text} before it is brought back from a copy of the store", ReplayWarning, stacklevel=2)

    def _refused(self, why: str, then: str = "") -> TamperedError:
        mend = "bring it back from a copy of the store, then `replay sign` the run; nothing was added to it"
        return TamperedError(f"the log in {self.folder} is not what was written", why, then or mend)


def _node(fd: int, level: int, index: int) -> bytes:
    found = os.pread(fd, _HASH, _HASH * merkle.stored_position(level, index))
    if len(found) != _HASH:
        raise Rejected("log-truncated", "hashes that its checkpoint counts are not there")
    return found


def _absent(level: int, index: int) -> bytes:
    raise Rejected("log-truncated", f"there are no hashes; asked for {index} of level {level}")


def _write(fd: int, position: int, data: bytes) -> None:
    start = _HASH * position
    os.pwrite(fd, data, start)
    os.ftruncate(fd, start + len(data))
    os.fsync(fd)
