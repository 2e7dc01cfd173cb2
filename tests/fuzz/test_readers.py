"""Readers keep their promise (see `readers`) for what once broke them, for damaged documents, and for any bytes."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.errors import ReplayError
from runner.state.strict import load_yaml
from tests.fuzz.readers import READERS, SEPARATOR, check, corpus

LONGEST_S = 120
FILES = [(name, file) for name in READERS for file in corpus(name)]
quick = settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
thorough = settings(quick, max_examples=600)


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """What takes longer is a reader that hangs."""

    def stop(_signal: int, _frame: object) -> None:
        raise TimeoutError(f"it reads for more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def checked(name: str, data: bytes) -> None:
    with within(LONGEST_S):
        check(name, data)


@pytest.mark.parametrize(("name", "file"), FILES, ids=[f"{name}-{file.name}" for name, file in FILES])
def test_known_inputs(name: str, file: Path) -> None:
    checked(name, file.read_bytes())


def test_every_reader_has_a_corpus_and_every_corpus_a_reader() -> None:
    here = Path(__file__).parent
    assert {folder.name for folder in (here / "corpus").iterdir()} == READERS.keys()
    assert {folder.name for folder in (here / "regressions").iterdir()} <= READERS.keys()
    assert sum(file.stat().st_size for _, file in FILES) < 1 << 20


# --- damage ----------------------------------------------------------------------------------------------------


@st.composite
def damaged(draw: Callable[..., Any], seeds: list[bytes]) -> bytes:
    """A known input, a few of its pieces cut out, doubled, replaced, or given another's place."""
    found = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(found)))
        stop = min(len(found), start + draw(st.sampled_from([0, 1, 2, 8, 64, 512])))
        other = draw(st.sampled_from(seeds))
        piece = draw(
            st.one_of(
                st.sampled_from(
                    [b"", b"\0", b"\xff", b"\n", b"../", b"/", b"~", b"[", b"{", b'"', b"&a ", b"*a", b"9" * 400]
                ),
                st.just(found[start:stop] * 2),
                st.just(other[start:stop]),
                st.binary(max_size=16),
            )
        )
        found = found[:start] + piece + found[stop:]
    return found


@pytest.mark.parametrize("name", READERS)
def test_damaged_files(name: str) -> None:
    _search_damaged(name, quick)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_damaged_files_at_length(name: str) -> None:
    _search_damaged(name, thorough)


def _search_damaged(name: str, how: settings) -> None:
    seeds = [file.read_bytes() for file in corpus(name)]

    @how
    @given(
        damaged(seeds) | st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode(errors="replace"))
    )
    def search(data: bytes) -> None:
        checked(name, data)

    search()


# --- documents that are whole but for a node ------------------------------------------------------------------

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["../up", "/etc", "", "a\0b", "\u202e", "sha256:" + "0" * 64, "~x", "1e999", "http://[", "${x}"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def nodes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from nodes(item, (*path, key))


def with_node(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copied = value.copy()
    copied[path[0]] = with_node(value[path[0]], path[1:], new)
    return copied


def whole(name: str) -> list[tuple[bytes, Any, bytes]]:
    """The corpus's documents that JSON can express: what stands before, the value, what stands after."""
    found = []
    for file in corpus(name):
        data = file.read_bytes()
        head = data[:1] if name in ("parameters", "store_file", "engine_answer") else b""
        document, separator, rest = data[len(head) :].partition(SEPARATOR)
        try:
            value = load_yaml(document, "corpus")
        except ReplayError:
            continue
        if isinstance(value, dict | list) and head != b"2":
            found.append((head, value, separator + rest))
    return found


DOCUMENTS = [
    "spec",
    "record",
    "workfile",
    "parameters",
    "dvc_file",
    "dvc_stage",
    "dvc_listing",
    "store_file",
    "engine_answer",
]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_with_another_node(name: str) -> None:
    _search_documents(name, quick)


@pytest.mark.slow
@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_with_another_node_at_length(name: str) -> None:
    _search_documents(name, thorough)


def _search_documents(name: str, how: settings) -> None:
    """JSON is YAML, so one form serves all readers of documents."""
    documents = whole(name)
    assert documents

    @how
    @given(st.data())
    def search(data: st.DataObject) -> None:
        head, value, rest = data.draw(st.sampled_from(documents))
        for _ in range(data.draw(st.integers(1, 3))):
            value = with_node(value, data.draw(st.sampled_from(list(nodes(value)))), data.draw(values))
        checked(name, head + json.dumps(value).encode() + rest)

    search()
