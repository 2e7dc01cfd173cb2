"""Merkle trees as RFC 6962 has them: hashes, proofs, and what the proofs prove.

A tree is never held whole. Whoever keeps it hands in `Nodes`: the hash of any complete subtree, by level and
index. All that is asked here takes a number of them that grows with the logarithm of the tree's size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

Nodes = Callable[[int, int], bytes]
"""Of level and index, the hash of the leaves from `index << level` to `(index + 1) << level`."""

EMPTY = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def stored_position(level: int, index: int) -> int:
    """Where a node stands in the order in which nodes get complete: each leaf, then the subtrees that end with it."""
    leaves = ((index + 1) << level) - 1
    position = level
    while leaves:
        position += leaves
        leaves >>= 1
    return position


def stored_count(size: int) -> int:
    """How many complete subtrees a tree of `size` leaves has."""
    return 2 * size - size.bit_count()


def completed(size: int, leaf: bytes, nodes: Nodes) -> list[bytes]:
    """The hashes that get complete when `leaf` is added to a tree of `size`: its own, then those of the subtrees
    that end with it."""
    made, level = [leaf], 0
    while size >> level & 1:
        made.append(node_hash(nodes(level, (size >> level) - 1), made[-1]))
        level += 1
    return made


def root(size: int, nodes: Nodes) -> bytes:
    return _range_hash(0, size, nodes) if size else EMPTY


def inclusion_proof(index: int, size: int, nodes: Nodes) -> list[bytes]:
    """The path from the leaf's sibling up to the root's child."""
    return list(_path(index, 0, size, nodes))


def consistency_proof(old: int, size: int, nodes: Nodes) -> list[bytes]:
    """That the first `old` leaves of the tree are those of the older one."""
    return list(_subproof(old, 0, size, nodes, whole=True)) if 0 < old < size else []


def is_included(leaf: bytes, index: int, size: int, proof: Sequence[bytes], expected: bytes) -> bool:
    """Whether the proof leads from the leaf to the root (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    at, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if at & 1 or at == last:
            found = node_hash(sibling, found)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and found == expected


def is_consistent(old: int, size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the proof leads to both roots (RFC 9162, 2.1.4.2)."""
    if old == size:
        return not proof and old_root == new_root
    if old == 0:
        return not proof and old_root == EMPTY
    if not 0 < old < size:
        return False
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    if not path:
        return False
    at, last = old - 1, size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    older = newer = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            older, newer = node_hash(sibling, older), node_hash(sibling, newer)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            newer = node_hash(newer, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and older == old_root and newer == new_root


def _range_hash(start: int, end: int, nodes: Nodes) -> bytes:
    """Of leaves `start` to `end`, where `start` is a multiple of the least power of two that is not less than their
    number."""
    count = end - start
    level = count.bit_length() - 1
    if count == 1 << level:
        return nodes(level, start >> level)
    middle = start + (1 << level)
    return node_hash(_range_hash(start, middle, nodes), _range_hash(middle, end, nodes))


def _split(start: int, end: int) -> int:
    """RFC 6962's k: the largest power of two less than the number of leaves."""
    return start + (1 << (end - start - 1).bit_length() - 1)


def _path(index: int, start: int, end: int, nodes: Nodes) -> Iterator[bytes]:
    if end - start == 1:
        return
    middle = _split(start, end)
    if index < middle:
        yield from _path(index, start, middle, nodes)
        yield _range_hash(middle, end, nodes)
    else:
        yield from _path(index, middle, end, nodes)
        yield _range_hash(start, middle, nodes)


def _subproof(old: int, start: int, end: int, nodes: Nodes, *, whole: bool) -> Iterator[bytes]:
    if old == end:
        if not whole:
            yield _range_hash(start, end, nodes)
        return
    middle = _split(start, end)
    if old <= middle:
        yield from _subproof(old, start, middle, nodes, whole=whole)
        yield _range_hash(middle, end, nodes)
    else:
        yield from _subproof(old, middle, end, nodes, whole=False)
        yield _range_hash(start, middle, nodes)
