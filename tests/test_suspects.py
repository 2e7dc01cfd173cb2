"""What the numbers of a bisect's items stand for, on values alone."""

from __future__ import annotations

from pathlib import Path

from runner.bisect import Problem
from runner.bisect.implications import blocks
from runner.hybrid import Between, between
from runner.state.digest import Digest, digest_bytes
from runner.state.spec import Dependencies, Image, Params, StateSpec
from runner.store.runs import Run
from runner.store.store import Store, open_store
from runner.suspects import Setup
from tests.test_hybrid import SHA, spec, wheel


def side(version: str, python: str, tag: str, layers: int) -> StateSpec:
    locked = (wheel("model", version, f"{tag}-{tag}-manylinux_2_17_x86_64"), wheel("other", version))
    return spec(
        image=Image("linux/amd64", (SHA,) * layers),
        env={"MODE": version},
        dependencies=Dependencies(python=python, locked=locked),
    )


def numbering(store: Store, found: Between, needs: tuple[tuple[int, int], ...] = ()) -> Digest:
    made = blocks(len(found.changes), needs, found.together)
    run = Run(store, "t-20260101-abc", None)
    return Setup(run, run, found, made, Problem(made.needs)).numbering


def test_a_log_is_of_one_numbering(tmp_path: Path) -> None:
    """Wheels that come to the store, what wheels declare, and parameter files that go: each tells items apart anew."""
    store = open_store(tmp_path, create=True)
    good, bad = side("1", "3.11.2", "cp311", 1), side("2", "3.13.1", "cp313", 2)
    bound = between(good, bad)
    tags = {"1": "cp313-cp313-manylinux_2_17_x86_64", "2": "cp311-cp311-manylinux_2_17_x86_64"}
    shelf = [wheel("model", version, tag) for version, tag in tags.items()]
    apart = between(good, bad, None, shelf)
    built_anew = between(good, bad, None, [wheel("model", "1", tags["1"].replace("_2_17_", "_2_28_")), shelf[1]])
    texts = b"a = 1\nb = 1\n", b"a = 2\nb = 2\n"
    first, last = (
        spec(params=Params({"a": n, "b": n}, "p.toml", digest_bytes(text))) for n, text in enumerate(texts, 1)
    )
    seen = [numbering(store, one) for one in (bound, apart, built_anew, between(first, last))]
    seen += [numbering(store, between(first, last, texts)), numbering(store, apart, ((0, len(apart.changes) - 1),))]
    assert len(set(seen)) == len(seen)
    assert numbering(store, between(good, bad)) == seen[0], "and nothing else does"
