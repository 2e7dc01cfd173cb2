"""Tombstones, and a hostile corpus of them: a blob that is missing is excused by its own tombstone as it was signed and
logged by a believed key, and by nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from runner.attest.bundle import bundle_of, dump_bundle, load_bundle
from runner.attest.tombstone import Tombstone, Why, leaf_of, statement
from runner.attest.verify import REASONS
from runner.erase import erase, find
from runner.erased import all_erased
from runner.errors import RefusedError, UsageError
from runner.keys import Keyring
from runner.packed import pack
from runner.seal import judge_of
from runner.state.digest import Digest, canonical, digest_bytes, hex_of
from runner.state.verification import Verification
from runner.store.tombstones import BUNDLE, ERASED, PROOF
from runner.verify import verify_packed
from tests.attest.made import Signed, payload_of, reasons
from tests.attest.test_hostile import (
    FORGERIES,
    PROOFS,
    SPELLINGS,
    STRANGER,
    Target,
    flipped,
    members,
    repacked,
    signed_anew,
)

FIRST, RUN = "train-20261121-first1", "train-20261121-erased"
TEXT = b"Jane Doe, 12 Elm Street\n"
ERASED_DIGEST, OTHER_DIGEST = digest_bytes(TEXT), digest_bytes(b"John Doe\n")
Attack = Callable[[Signed], None]


class Case(NamedTuple):
    """What is done; the words of what `verify` says of the tombstone."""

    name: str
    attack: Attack
    said: set[str]


def places(made: Signed, digest: Digest, ending: str) -> list[Path]:
    folders = (made.root / "state_specs", made.store.folder)
    return [folder / ERASED / f"{hex_of(digest)}.{ending}" for folder in folders]


def rewritten(ending: str, change: Callable[[bytes], bytes | None], digest: Digest = ERASED_DIGEST) -> Attack:
    def attack(made: Signed) -> None:
        for file in places(made, digest, ending):
            data = change(file.read_bytes())
            file.unlink()
            if data is not None:
                file.write_bytes(data)

    return attack


def of_files() -> Iterator[Case]:
    bundles = {
        "malformed",
        "unknown-version",
        "unknown-payload-type",
        "re-serialised",
        "bad-signature",
        "untrusted-key",
    }
    proofs = {"malformed", "unknown-version", "re-serialised", "not-included", "bad-signature", "untrusted-key"}
    for ending, said in ((BUNDLE, bundles), (PROOF, proofs)):
        for number in range(16):
            part, bit = (number + 0.5) / 16, number % 7
            change = rewritten(ending, lambda data, part=part, bit=bit: flipped(data, part, bit))
            yield Case(f"bit {bit} flipped at {part:.2f} of the {ending}", change, said)
        for part in (0.0, 0.4, 0.999):
            cut = rewritten(ending, lambda data, part=part: data[: int(len(data) * part)])
            yield Case(f"{ending} cut to {part}", cut, said)
        for more in (b"\n", b" ", b"\0"):
            yield Case(f"{ending} with {more!r}", rewritten(ending, lambda data, more=more: data + more), said)
        theirs = rewritten(ending, lambda _: None), swapped_in(ending)
        yield Case(f"the {ending} of another tombstone", both(*theirs), said | {"wrong-subject", "not-included"})
    yield Case("removed", both(rewritten(BUNDLE, lambda _: None), rewritten(PROOF, lambda _: None)), {""})
    yield Case("without its proof", rewritten(PROOF, lambda _: None), {"no-proof"})
    yield Case("another's in its place", both(swapped_in(BUNDLE), swapped_in(PROOF)), {"wrong-subject"})
    for said, spell in SPELLINGS.items():
        yield Case(f"{said}", rewritten(BUNDLE, spell), {"re-serialised", "malformed"})


def both(*attacks: Attack) -> Attack:
    def attack(made: Signed) -> None:
        for one in attacks:
            one(made)

    return attack


def swapped_in(ending: str) -> Attack:
    def attack(made: Signed) -> None:
        theirs = places(made, OTHER_DIGEST, ending)[0].read_bytes()
        for file in places(made, ERASED_DIGEST, ending):
            file.write_bytes(theirs)

    return attack


def of_signatures() -> Iterator[Case]:
    for said, forge, reason in FORGERIES:
        if "name" not in said or "our" in said:
            yield Case(f"tombstone {said}", rewritten(BUNDLE, forge), {reason})
    for said, change, reason in PROOFS:
        yield Case(f"its proof {said}", rewritten(PROOF, change), {reason})
    yield Case("unsigned", rewritten(BUNDLE, unsigned), {"malformed"})
    for said, old, new in (
        ("re-targeted", hex_of(OTHER_DIGEST).encode(), hex_of(ERASED_DIGEST).encode()),
        ("given another reason", b"by request", b"by mistake"),
        ("given another time", b'"erasedOn":"20', b'"erasedOn":"19'),
    ):
        yield Case(said, retargeted(old, new), {"bad-signature"})


def unsigned(data: bytes) -> bytes:
    return load_bundle(data).envelope.payload


def retargeted(old: bytes, new: bytes) -> Attack:
    """Words of a tombstone, this one's or the other's, changed, and its signature kept."""

    def attack(made: Signed) -> None:
        of = OTHER_DIGEST if old == hex_of(OTHER_DIGEST).encode() else ERASED_DIGEST
        kept = load_bundle(places(made, of, BUNDLE)[0].read_bytes()).envelope
        assert old in kept.payload
        signature = kept.signatures[0]
        forged = dump_bundle(bundle_of(kept.payload.replace(old, new), signature.sig, signature.keyid))
        for file in places(made, ERASED_DIGEST, BUNDLE):
            file.write_bytes(forged)

    return attack


def of_statements() -> Iterator[Case]:
    """What the owner of the key signed, and what is no tombstone of that blob all the same."""
    for said, change, reason in STATEMENTS:
        yield Case(f"properly signed and logged, {said}", resigned(change), {reason})
    yield Case("properly signed, and never logged", resigned(lambda _: None, logged=False), {"not-included"})
    yield Case("the run's provenance", provenance, {"unknown-predicate"})


def resigned(change: Callable[[Any], None], *, logged: bool = True) -> Attack:
    def attack(made: Signed) -> None:
        tree = payload_of(places(made, ERASED_DIGEST, BUNDLE)[0].read_bytes())
        tree["predicate"]["reason"] = "another"
        change(tree)
        bundle = signed_anew(canonical(tree), made.signer)
        proof = made.sealer.logged(made.store, leaf_of(bundle)) if logged else None
        for file in places(made, ERASED_DIGEST, BUNDLE):
            file.write_bytes(bundle)
        for file in places(made, ERASED_DIGEST, PROOF) if proof else ():
            file.write_bytes(proof)

    return attack


def provenance(made: Signed) -> None:
    for file in places(made, ERASED_DIGEST, BUNDLE):
        file.write_bytes(made.read(RUN, "sigstore.json"))


STATEMENTS: list[tuple[str, Callable[[Any], None], str]] = [
    ("of another blob", lambda tree: tree["subject"][0].update(digest={"sha256": hex_of(OTHER_DIGEST)}),
     "wrong-subject"),
    ("of no blob", lambda tree: tree.update(subject=[]), "wrong-subject"),
    ("of two blobs", lambda tree: tree["subject"].append(tree["subject"][0]), "wrong-subject"),
    ("of a digest in other letters", lambda tree: tree["subject"][0]["digest"].update(
        sha256=hex_of(ERASED_DIGEST).upper()), "wrong-subject"),
    ("statement v2", lambda tree: tree.update(_type="https://in-toto.io/Statement/v2"), "unknown-statement"),
    ("a predicate to come", lambda tree: tree.update(predicateType="urn:replay-runner:tombstone:v2"),
     "unknown-predicate"),
    ("with its content", lambda tree: tree["predicate"].update(content="Jane Doe"), "malformed"),
    ("without a reason", lambda tree: tree["predicate"].pop("reason"), "malformed"),
]  # fmt: skip

CASES = [*of_files(), *of_signatures(), *of_statements()]


# --- trying them -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("erased")
    made = Signed(folder / "work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPLAY_KEYS", str(folder / "keys"))
        Keyring(folder / "keys").trust(made.signer.key)
        made.run(FIRST, outputs={"theirs.txt": b"John Doe\n"})
        made.run(RUN, outputs={"out.txt": TEXT, "other.txt": b"kept\n"})
        for run_id, name in ((RUN, "out.txt"), (FIRST, "theirs.txt")):
            found = find(made.workspace, made.workspace.run(run_id), name, logs=False)
            assert erase(made.workspace, found, "by request", made.sealer)
        kept = {file: file.read_bytes() for file in made.root.rglob("*") if file.is_file()}
        yield Target(made, kept)


def outputs(found: Verification) -> tuple[str, str, str]:
    return next((one.result, one.reason, one.detail) for one in found.checks if one.name == "outputs")


def test_an_erased_output_verifies_and_is_told(target: Target) -> None:
    found = target.made.verify(RUN)
    assert found.verified, reasons(found)
    result, reason, detail = outputs(found)
    assert (result, reason) == ("pass", "erased-by-tombstone")
    assert detail.startswith("1 of 2 outputs: out.txt erased on 20") and detail.endswith(": by request")
    assert set(all_erased(target.made.store, target.made.workspace.specs)) == {ERASED_DIGEST, OTHER_DIGEST}
    statement_ = payload_of(places(target.made, ERASED_DIGEST, BUNDLE)[0].read_bytes())
    assert b"Jane" not in json.dumps(statement_).encode()
    assert statement_["predicate"]["size"] == len(TEXT)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_other_tombstone_excuses_a_missing_blob(target: Target, case: Case) -> None:
    try:
        case.attack(target.made)
        found = target.made.verify(RUN)
        believed = set(all_erased(target.made.store, target.made.workspace.specs))
    finally:
        target.restore()
    result, reason, detail = outputs(found)
    assert (result, reason) == ("fail", "missing-blob"), found
    said = detail.partition("its tombstone: ")[2].rstrip(")")
    assert said in case.said, detail
    assert ERASED_DIGEST not in believed


def test_the_corpus_is_large_and_each_case_another() -> None:
    names = [case.name for case in CASES]
    assert len(names) >= 75 and len(set(names)) == len(names)
    assert {reason for case in CASES for reason in case.said if reason} <= REASONS


def test_a_tombstone_excuses_no_damage_and_no_other_blob(target: Target) -> None:
    made = target.made
    other = digest_bytes(b"kept\n")
    for attack, reason in (
        (lambda: made.store.blobs.path(other).write_bytes(b"bad\n"), "damaged-blob"),
        (lambda: made.store.blobs.path(other).unlink(), "missing-blob"),
        (lambda: made.store.blobs.path(ERASED_DIGEST).write_bytes(b"forged\n"), "damaged-blob"),
    ):
        try:
            attack()  # type: ignore[no-untyped-call]
            assert outputs(made.verify(RUN))[:2] == ("fail", reason)
        finally:
            target.restore()


@pytest.fixture
def made(trusted: Signed) -> Signed:
    """To be erased from, a workspace for each test."""
    return trusted


def test_what_is_empty_holds_nothing_to_erase(made: Signed) -> None:
    """An empty log is in nearly every run, and an empty file in the code of many."""
    runs = [made.run(run_id, outputs={"d/out.txt": run_id.encode(), "d/empty.txt": b""}) for run_id in (FIRST, RUN)]
    found = find(made.workspace, runs[1], "d", logs=True)
    assert {target.path for target in found.targets} == {"d/out.txt", f"log stdout of {RUN}", f"log order of {RUN}"}
    erase(made.workspace, found, "by request", made.sealer)
    assert all((run.folder / "stderr").is_file() for run in runs)
    assert made.store.blobs.has(digest_bytes(b"")) and made.verify(RUN).verified and made.verify(FIRST).verified
    for run, name in ((runs[1], "d/empty.txt"), (None, digest_bytes(b""))):
        with pytest.raises(UsageError, match="is empty"):
            find(made.workspace, run, name, logs=False)


def test_a_log_that_is_code_of_a_run_is_not_erased(made: Signed) -> None:
    run = made.run(RUN)
    (run.folder / "stdout").write_bytes(f"print('{RUN}')".encode())
    run.write_sums({})
    assert find(made.workspace, run, "out.txt", logs=False)
    with pytest.raises(RefusedError, match=r"code train\.py"):
        find(made.workspace, run, "out.txt", logs=True)


def test_who_signs_for_himself_alone_is_not_believed(target: Target) -> None:
    """A stranger's tombstone with a whole log of his own."""
    made = target.made
    theirs = Signed(made.root.parent / "theirs", STRANGER)
    why = Why("2026-11-21T00:00:00Z", "me", "mine", 1)
    bundle = theirs.sealer.bundle(statement(Tombstone(ERASED_DIGEST, "out.txt", why)))
    proof = theirs.sealer.logged(theirs.store, leaf_of(bundle))
    try:
        for ending, data in ((BUNDLE, bundle), (PROOF, proof)):
            rewritten(ending, lambda _, data=data: data)(made)
        assert outputs(made.verify(RUN)) == ("fail", "missing-blob", "out.txt (its tombstone: untrusted-key)")
    finally:
        target.restore()


def test_a_bundle_carries_its_tombstones_and_none_that_was_changed(target: Target, tmp_path: Path) -> None:
    file = tmp_path / "b.tar"
    pack(target.made.store, target.made.workspace.run(RUN), file)
    judge = judge_of([target.made.signer.key])
    mine = file.read_bytes()
    inside = members(mine)
    found = verify_packed(file, judge, {})
    assert found.verified and outputs(found)[1] == "erased-by-tombstone", reasons(found)
    name = f"erased/{hex_of(ERASED_DIGEST)}"
    assert TEXT not in mine and f"{name}.{BUNDLE}" in inside
    theirs = places(target.made, OTHER_DIGEST, BUNDLE)[0].read_bytes()
    cases = {f"flipped at {part}": flipped(mine, part / 61, part % 8) for part in range(61)}
    cases |= {
        "without it": repacked({k: v for k, v in inside.items() if not k.startswith("erased/")}),
        "without its proof": repacked({k: v for k, v in inside.items() if k != f"{name}.{PROOF}"}),
        "one more": repacked(inside | {f"erased/{hex_of(OTHER_DIGEST)}.{BUNDLE}": theirs}),
        "of what is there": repacked(
            inside | {f"erased/{hex_of(digest_bytes(b'kept' + bytes([10])))}.{BUNDLE}": theirs}
        ),
        "another's": repacked(inside | {f"{name}.{BUNDLE}": theirs}),
    }
    passed = []
    for said, data in cases.items():
        file.write_bytes(data)
        if verify_packed(file, judge, {}).verified:
            passed.append(said)
    assert passed == []
