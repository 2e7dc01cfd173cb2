"""Listings of files are checked as a whole, and as strictly as each entry would be alone."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from runner.state.digest import are_digests, digest_bytes, is_digest
from runner.state.paths import is_below, listing_problem

DIGEST = str(digest_bytes(b""))
paths = st.lists(st.text("ab/.\0\n", max_size=6), max_size=5)
texts = st.lists(st.sampled_from([DIGEST, DIGEST + "\n", f"{DIGEST}\n{DIGEST}", "", "\n", DIGEST.upper(), DIGEST[:-1]]))


@given(paths)
@example([])
@example([""])
@example(["/a"])
@example(["a/", "b"])
@example(["a/../b"])
@example(["a\0b"])
@example(["a", "a/b/c"])
@example(["a", "a"])
def test_a_listing_is_refused_for_what_any_of_its_paths_would_be(listed: list[str]) -> None:
    above = {path[:at] for path in listed for at, character in enumerate(path) if character == "/"}
    can_be_laid_out = all(map(is_below, listed)) and above.isdisjoint(listed) and len(set(listed)) == len(listed)
    assert (listing_problem(listed) is None) == can_be_laid_out


@given(texts)
def test_digests_are_what_each_of_them_is(listed: list[str]) -> None:
    assert are_digests(listed) == all(map(is_digest, listed))
