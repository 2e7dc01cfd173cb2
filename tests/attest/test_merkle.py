"""The tree against RFC 6962's own definitions, written down plainly, and against its published test vectors."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.attest import merkle

# --- the definitions of RFC 6962, 2.1 ---------------------------------------------------------------------------


def tree_hash(leaves: list[bytes]) -> bytes:
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    k = split(len(leaves))
    return hashlib.sha256(b"\1" + tree_hash(leaves[:k]) + tree_hash(leaves[k:])).digest()


def split(n: int) -> int:
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), tree_hash(leaves[k:])]
    return [*path(m - k, leaves[k:]), tree_hash(leaves[:k])]


def proof(m: int, leaves: list[bytes]) -> list[bytes]:
    return subproof(m, leaves, True)


def subproof(m: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    if m == len(leaves):
        return [] if whole else [tree_hash(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], whole), tree_hash(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), tree_hash(leaves[:k])]


# --- a tree kept as nodes ---------------------------------------------------------------------------------------


class Kept:
    """A tree as the log keeps it: the hashes in the order in which they got complete."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.hashes: list[bytes] = []
        self.asked = 0
        for size, data in enumerate(leaves):
            assert len(self.hashes) == merkle.stored_count(size)
            self.hashes += merkle.completed(size, merkle.leaf_hash(data), self.node)

    def node(self, level: int, index: int) -> bytes:
        self.asked += 1
        return self.hashes[merkle.stored_position(level, index)]


VECTORS = [bytes.fromhex(one) for one in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
VECTORS.append(bytes.fromhex("606162636465666768696a6b6c6d6e6f"))
ROOTS = """
e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d
fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125
aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77
d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7
4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4
76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef
ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c
5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328
""".split()


@pytest.mark.parametrize("size", range(len(ROOTS)))
def test_roots_are_those_of_the_published_vectors(size: int) -> None:
    """The eight leaves and roots of certificate-transparency's own tests."""
    kept = Kept(VECTORS[:size])
    assert merkle.root(size, kept.node).hex() == ROOTS[size]
    assert tree_hash(VECTORS[:size]).hex() == ROOTS[size]


def test_proofs_are_those_of_the_published_vectors() -> None:
    kept = Kept(VECTORS)
    assert [one.hex() for one in merkle.inclusion_proof(0, 8, kept.node)] == [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ]
    assert [one.hex() for one in merkle.consistency_proof(6, 8, kept.node)] == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=4), min_size=1, max_size=70), st.data())
def test_every_proof_is_the_definitions_and_holds(leaves: list[bytes], data: st.DataObject) -> None:
    kept, size = Kept(leaves), len(leaves)
    root = merkle.root(size, kept.node)
    assert root == tree_hash(leaves)
    index = data.draw(st.integers(0, size - 1))
    included = merkle.inclusion_proof(index, size, kept.node)
    assert included == path(index, leaves)
    assert merkle.is_included(merkle.leaf_hash(leaves[index]), index, size, included, root)
    old = data.draw(st.integers(1, size))
    consistent = merkle.consistency_proof(old, size, kept.node)
    assert consistent == proof(old, leaves)
    assert merkle.is_consistent(old, size, tree_hash(leaves[:old]), root, consistent)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=4), min_size=2, max_size=40, unique=True), st.data())
def test_no_other_leaf_place_or_tree_is_proved(leaves: list[bytes], data: st.DataObject) -> None:
    kept, size = Kept(leaves), len(leaves)
    root = merkle.root(size, kept.node)
    index, other = (data.draw(st.integers(0, size - 1)) for _ in range(2))
    included = merkle.inclusion_proof(index, size, kept.node)
    leaf = merkle.leaf_hash(leaves[index])
    if other != index:
        assert not merkle.is_included(merkle.leaf_hash(leaves[other]), index, size, included, root)
        assert not merkle.is_included(leaf, other, size, included, root)
    assert not merkle.is_included(leaf, index, size, [*included, root], root)
    assert not merkle.is_included(leaf, index, size, included[:-1], root)
    old = data.draw(st.integers(1, size - 1))
    consistent = merkle.consistency_proof(old, size, kept.node)
    changed = [*leaves[: old - 1], leaves[old - 1] + b"x"]
    assert not merkle.is_consistent(old, size, tree_hash(changed), root, consistent)
    assert not merkle.is_consistent(old, size, tree_hash(leaves[:old]), tree_hash([*leaves, b"y"]), consistent)
    assert not merkle.is_consistent(old, size, tree_hash(leaves[:old]), root, [*consistent, root])
    assert not merkle.is_consistent(size, old, root, tree_hash(leaves[:old]), consistent)


def test_what_is_asked_grows_with_the_logarithm() -> None:
    leaves = [b"%d" % number for number in range(3000)]
    kept = Kept(leaves)
    for ask in (
        lambda: merkle.root(3000, kept.node),
        lambda: merkle.inclusion_proof(1234, 3000, kept.node),
        lambda: merkle.consistency_proof(1235, 3000, kept.node),
        lambda: merkle.completed(2999, b"", kept.node),
    ):
        kept.asked = 0
        ask()
        assert kept.asked <= 24
