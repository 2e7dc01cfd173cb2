"""Whatever stands in a file that somebody else wrote, its reader gives a value or a reason, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.attest.bundle import bundle_of, dump_bundle, load_bundle
from runner.attest.checkpoint import dump_checkpoint, dump_proof, load_checkpoint, load_proof
from runner.attest.rejected import Rejected
from runner.attest.statement import KINDS, check_statement, stated_digests, statements
from runner.attest.verify import REASONS
from runner.errors import UsageError
from runner.packed import pack
from runner.seal import judge_of
from runner.state.digest import canonical
from runner.tools import signing
from runner.verify import verify_packed
from tests.attest.made import Signed, run_files

RUN = run_files("train-20261121-odd111", replay=True)
MADE = statements(RUN)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One good file of each kind."""
    folder = tmp_path_factory.mktemp("odd")
    made = Signed(folder / "work")
    run = made.run("train-20261121-odd222")
    pack(made.store, run, folder / "b.tar")
    return {
        "bundle": made.read(run.id, "sigstore.json"),
        "proof": made.read(run.id, "tlog-proof"),
        "checkpoint": (made.store.folder / "log" / "checkpoint").read_bytes(),
        "packed": (folder / "b.tar").read_bytes(),
        "key": made.signer.key.pem,
    }


READERS: dict[str, Any] = {
    "bundle": lambda data, _: dump_bundle(load_bundle(data)),
    "proof": lambda data, _: dump_proof(load_proof(data)),
    "checkpoint": lambda data, _: dump_checkpoint(load_checkpoint(data)),
}


def read(kind: str, data: bytes, folder: Path) -> None:
    try:
        if kind == "packed":
            (folder / "x.tar").write_bytes(data)
            checks = verify_packed(folder / "x.tar", judge_of([]), {}).checks
            assert {check.reason for check in checks} <= REASONS
        elif kind == "key":
            signing.load_public_key(data, "x").verifies(b"", b"")
        else:
            assert READERS[kind](data, folder) == data, "what is read is what would be written"
    except Rejected as error:
        assert error.reason in REASONS
    except UsageError as error:
        assert kind == "key" and error.what


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
@pytest.mark.parametrize("kind", ["bundle", "proof", "checkpoint", "packed", "key"])
def test_a_file_with_anything_in_it_is_read_or_rejected(
    files: dict[str, bytes], tmp_path: Path, kind: str, data: st.DataObject
) -> None:
    good = files[kind]
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 40)))
    read(kind, good[:start] + data.draw(st.binary(max_size=40)) + good[end:], tmp_path)
    read(kind, data.draw(st.binary(max_size=200)), tmp_path)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(one for key, item in inner for one in places(item, (*path, key)))]


def put(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    at = tree
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return tree


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_statement_with_anything_anywhere_is_rejected_or_unchanged(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(KINDS)))
    tree = json.loads(MADE[kind])
    payload = canonical(put(tree, data.draw(st.sampled_from(places(tree))), data.draw(VALUES)))
    try:
        stated_digests(payload, "subject")
        stated_digests(payload, "predicate", "runDetails", "byproducts")
        check_statement(kind, payload, RUN)
    except Rejected as error:
        assert error.reason in REASONS
    else:
        assert set(places(msgspec.json.decode(payload))) <= set(places(json.loads(MADE[kind])))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_bundle_with_anything_anywhere_is_rejected(data: st.DataObject) -> None:
    tree = json.loads(dump_bundle(bundle_of(b"{}", b"x", "ab" * 32)))
    value = data.draw(VALUES)
    changed = canonical(put(tree, data.draw(st.sampled_from(places(tree))), value)) + b"\n"
    try:
        load_bundle(changed)
    except Rejected as error:
        assert error.reason in REASONS
