"""A hostile corpus of releases: their statements, what was said of them later, and runs that were bound to one.

As in `test_hostile.py`: the attacker owns every file, all copies agree unless a case says otherwise, and he does not
have the private key. Nothing that was changed verifies, and each case names its reason.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from runner.attest.bundle import bundle_of, dump_bundle, load_bundle
from runner.attest.dsse import IN_TOTO, pae
from runner.attest.releases import withdrawal_leaf
from runner.attest.verify import REASONS
from runner.packed import pack
from runner.releases.bind import bound
from runner.seal import judge_of
from runner.state.digest import canonical
from runner.state.spec import Binding, StateSpec
from runner.store.log import Log
from runner.tools import signing
from runner.verify import verify_packed, verify_run
from tests.attest.made import Signed, new_signer, payload_of, reasons
from tests.attest.test_hostile import ENVELOPE, SIGNATURE, flipped, members, repacked

FIRST, OTHER, HELD = "train-20261121-first1", "train-20261121-other1", "train-20261121-held11"
GOOD, SECOND, GONE, OLD = "good", "second", "gone", "old"
STRANGER = new_signer()
YAML = {"malformed", "unknown-version", "wrong-release", "wrong-statement", "wrong-run", "changed", "not-included"}
OF_CHANGE = {
    "yaml": YAML,
    "sigstore.json": ENVELOPE | SIGNATURE,
    "tlog-proof": {"malformed", "unknown-version", "re-serialised", "not-included"} | SIGNATURE,
}
Attack = Callable[[Signed], None]
Change = Callable[[bytes], bytes | None]


class Case(NamedTuple):
    """What is done, the releases of which none may verify then, and for which reasons."""

    name: str
    attack: Attack
    releases: tuple[str, ...]
    reasons: set[str]


def write(made: Signed, name: str, file: str, data: bytes | None) -> None:
    for place in made.release_files(name, file):
        if data is None:
            place.unlink(missing_ok=True)
        else:
            place.write_bytes(data)


def read(made: Signed, name: str, file: str) -> bytes:
    return made.release_files(name, file)[0].read_bytes()


def edit(name: str, file: str, change: Change) -> Attack:
    return lambda made: write(made, name, file, change(read(made, name, file)))


def of_files() -> Iterator[Case]:
    for name, statement in ((GOOD, "release"), (GONE, "revoked"), (OLD, "superseded")):
        also = {"revoked"} if statement == "revoked" else set()
        for ending, found in OF_CHANGE.items():
            file = f"{statement}.{ending}"
            for number in range(8):
                part, bit = (number + 0.5) / 8, number % 7
                flip = edit(name, file, lambda data, part=part, bit=bit: flipped(data, part, bit))
                yield Case(f"bit {bit} flipped at {part:.2f} of {file}", flip, (name,), found | also)
            for part in (0, 0.3, 0.7, 0.999):
                cut = edit(name, file, lambda data, part=part: data[: int(len(data) * part)])
                yield Case(f"{file} truncated to {part}", cut, (name,), found | also)
            for more in (b"\n", b"\0"):
                longer = edit(name, file, lambda data, more=more: data + more)
                yield Case(f"{file} with {more!r} at its end", longer, (name,), found | also)
            for copy in (0, 1):
                one = one_copy(name, file, copy)
                yield Case(f"copy {copy} of {file} changed", one, (name,), {"copies-differ"} | also)


def one_copy(name: str, file: str, copy: int) -> Attack:
    def attack(made: Signed) -> None:
        place = made.release_files(name, file)[copy]
        place.write_bytes(place.read_bytes() + b"\n")

    return attack


def removed(name: str, *files: str) -> Attack:
    def attack(made: Signed) -> None:
        for file in files:
            write(made, name, file, None)

    return attack


def swapped(name: str, source: str, *files: str) -> Attack:
    def attack(made: Signed) -> None:
        for file in files:
            write(made, name, file, read(made, source, file))

    return attack


def all_of(statement: str) -> tuple[str, ...]:
    return tuple(f"{statement}.{ending}" for ending in OF_CHANGE)


def of_removal_and_swaps() -> Iterator[Case]:
    yield Case("release.yaml removed", removed(GOOD, "release.yaml"), (GOOD,), {"missing"})
    yield Case("its signature removed", removed(GOOD, "release.sigstore.json"), (GOOD,), {"unsigned"})
    yield Case("its proof removed", removed(GOOD, "release.tlog-proof"), (GOOD,), {"no-proof"})
    yield Case("the release removed", removed(GOOD, *all_of("release")), (GOOD,), {"missing"})
    yield Case("the revocation's signature removed", removed(GONE, "revoked.sigstore.json"), (GONE,), {"revoked"})
    yield Case("the revocation's statement removed", removed(GONE, "revoked.yaml"), (GONE,), {"missing"})
    yield Case("the revocation removed", removed(GONE, *all_of("revoked")), (GONE,), {"revocation-removed"})
    for file, found in zip(all_of("release"), ({"wrong-release"}, {"wrong-statement"}, {"not-included"}), strict=True):
        yield Case(f"{file} of another release", swapped(GOOD, SECOND, file), (GOOD,), found)
    yield Case("all files of another release", swapped(GOOD, SECOND, *all_of("release")), (GOOD,), {"wrong-release"})
    yield Case("the revocation of another release", another_revoked, (GONE,), {"wrong-release"})
    yield Case(
        "a superseding of another release", swapped(GOOD, OLD, *all_of("superseded")), (GOOD,), {"wrong-release"}
    )
    yield Case("a release superseded instead of revoked", renamed, (GONE,), {"wrong-release", "revocation-removed"})


def another_revoked(made: Signed) -> None:
    made.revoke(SECOND)
    swapped(GONE, SECOND, *all_of("revoked"))(made)


def renamed(made: Signed) -> None:
    for ending in OF_CHANGE:
        write(made, GONE, f"superseded.{ending}", read(made, GONE, f"revoked.{ending}"))
        write(made, GONE, f"revoked.{ending}", None)


# --- signed anew -------------------------------------------------------------------------------------------------


def signed_anew(payload: bytes, signer: signing.Signer) -> bytes:
    return dump_bundle(bundle_of(payload, signer.sign(pae(IN_TOTO, payload)), signer.key.id))


def stated(change: Callable[[dict[str, Any]], None], name: str, statement: str, *, by_owner: bool) -> Attack:
    """The signed statement changed, and signed by a stranger, or by the owner's key as if he had erred."""

    def attack(made: Signed) -> None:
        file = f"{statement}.sigstore.json"
        payload = payload_of(read(made, name, file))
        change(payload)
        write(made, name, file, signed_anew(canonical(payload), made.signer if by_owner else STRANGER))

    return attack


def of_statements() -> Iterator[Case]:
    changes: dict[str, tuple[Callable[[dict[str, Any]], None], set[str]]] = {
        "unchanged": (lambda _: None, set()),
        "another statement type": (lambda one: one.update(_type="x"), {"unknown-statement"}),
        "another predicate type": (lambda one: one.update(predicateType="urn:x:v9"), {"unknown-predicate"}),
        "another reason": (lambda one: one["predicate"].update(x="y"), {"wrong-statement"}),
        "a subject less": (lambda one: one["subject"].pop(), {"wrong-statement"}),
        "a subject more": (lambda one: one["subject"].append({"name": "x"}), {"wrong-statement"}),
        "no predicate": (lambda one: one.pop("predicate"), {"wrong-statement"}),
    }
    for (told, (change, found)), (name, statement) in itertools.product(
        changes.items(), ((GOOD, "release"), (GONE, "revoked"), (OLD, "superseded"))
    ):
        stranger = stated(change, name, statement, by_owner=False)
        yield Case(f"{statement}: {told}, signed by a stranger", stranger, (name,), {"untrusted-key"})
        if found:
            owner = stated(change, name, statement, by_owner=True)
            yield Case(f"{statement}: {told}, signed", owner, (name,), found)
    for statement, name in (("release", GOOD), ("revoked", GONE), ("superseded", OLD)):
        yield Case(f"{statement}: no JSON, signed", not_json(name, statement), (name,), {"malformed"})
        yield Case(f"{statement}: written otherwise", spaced(name, statement), (name,), {"re-serialised"})
        yield Case(f"{statement}: its key named otherwise", other_key(name, statement), (name,), SIGNATURE)
    yield Case("a release said by a stranger", said_by_a_stranger, (GOOD,), {"untrusted-key"})
    for old, new in ((b"refuse", b"warn"), (b"Ada", b"Eve"), (FIRST.encode(), OTHER.encode()), (b"[code]", b"[data]")):
        edited = edit(GOOD, "release.yaml", lambda data, old=old, new=new: data.replace(old, new))
        yield Case(f"the release with {new.decode()} for {old.decode()}", edited, (GOOD,), YAML)


def not_json(name: str, statement: str) -> Attack:
    return lambda made: write(made, name, f"{statement}.sigstore.json", signed_anew(b"[]", made.signer))


def spaced(name: str, statement: str) -> Attack:
    def attack(made: Signed) -> None:
        file = f"{statement}.sigstore.json"
        payload = json.dumps(payload_of(read(made, name, file)), indent=1).encode()
        write(made, name, file, signed_anew(payload, made.signer))

    return attack


def other_key(name: str, statement: str) -> Attack:
    """The good signature, said to be the stranger's."""

    def attack(made: Signed) -> None:
        file = f"{statement}.sigstore.json"
        envelope = load_bundle(read(made, name, file)).envelope
        write(made, name, file, dump_bundle(bundle_of(envelope.payload, envelope.signatures[0].sig, STRANGER.key.id)))

    return attack


def said_by_a_stranger(made: Signed) -> None:
    """The release made anew, with another reason, by somebody with a key of his own."""
    other = Signed(made.root.parent / "elsewhere", STRANGER)
    other.run(FIRST)
    other.release(GOOD, FIRST)
    for file in all_of("release"):
        write(made, GOOD, file, read(other, GOOD, file))


CASES = [*of_files(), *of_removal_and_swaps(), *of_statements()]


@pytest.fixture
def made(tmp_path: Path) -> Signed:
    return target(tmp_path / "work")


def target(root: Path) -> Signed:
    made = Signed(root)
    made.run(FIRST)
    made.run(OTHER)
    for name, run_id in ((GOOD, FIRST), (SECOND, OTHER), (GONE, FIRST), (OLD, FIRST)):
        made.release(name, run_id, "code")
    made.revoke(GONE)
    made.supersede(OLD, GOOD)
    made.run(HELD, bind=binding(made, GOOD))
    return made


def binding(made: Signed, name: str) -> Callable[[StateSpec], Binding]:
    known = made.workspace.releases.find(name)
    then = made.workspace.run(known.release.run).spec()
    return lambda now: bound(made.workspace, known, then, known.release.policy, now)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Signed, dict[Path, bytes]]:
    made = target(tmp_path_factory.mktemp("hostile") / "work")
    return made, {file: file.read_bytes() for file in made.root.rglob("*") if file.is_file()}


def restore(made: Signed, kept: dict[Path, bytes]) -> None:
    for file in made.root.rglob("*"):
        if file.is_file() and file not in kept:
            file.unlink()
    for file, data in kept.items():
        if not file.is_file() or file.read_bytes() != data:
            file.write_bytes(data)


def test_untouched_they_verify_but_for_the_one_that_was_revoked(made: Signed) -> None:
    for name in (GOOD, SECOND, OLD):
        assert reasons(made.verify_release(name)) == {}, name
    assert reasons(made.verify_release(GONE)) == {"revocation": "revoked"}
    assert reasons(made.verify(HELD)) == {}
    assert "superseded by good" in str(made.verify_release(OLD))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_release_that_was_changed_verifies(corpus: tuple[Signed, dict[Path, bytes]], case: Case) -> None:
    made, kept = corpus
    try:
        case.attack(made)
        for name in case.releases:
            failed = reasons(made.verify_release(name))
            assert failed, "it was verified"
            assert set(failed.values()) & case.reasons, failed
            assert set(failed.values()) <= REASONS
        if GOOD in case.releases:
            assert reasons(made.verify(HELD)), "a run that was bound to it was verified"
    finally:
        restore(made, kept)


def test_the_corpus_is_large_and_each_case_another() -> None:
    names = [case.name for case in CASES]
    assert len(names) >= 150 and len(set(names)) == len(names)
    assert {reason for case in CASES for reason in case.reasons} <= REASONS


# --- runs that are bound -----------------------------------------------------------------------------------------


def test_a_release_of_the_same_name_made_at_another_time_is_another(made: Signed, tmp_path: Path) -> None:
    """An older version replayed: signed by the right key, about the right run, and not what the run was bound to."""
    older = Signed(tmp_path / "older", made.signer)
    older.run(FIRST)
    older.release(GOOD, FIRST)
    for file in all_of("release"):
        write(made, GOOD, file, read(older, GOOD, file))
    assert reasons(made.verify(HELD))["policy"] == "wrong-release"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"deviations": ()}, "wrong-binding"),
        ({"refused": "deviates"}, "wrong-binding"),
        ({"sha256": "sha256:" + "0" * 64}, "wrong-release"),
        ({"name": "nobody"}, "missing"),
    ],
)
def test_a_binding_that_does_not_hold_is_named_though_it_is_signed(
    made: Signed, change: dict[str, Any], reason: str
) -> None:
    honest = binding(made, GOOD)
    run_id = "train-20261121-wrong1"
    made.run(run_id, bind=lambda spec: msgspec.structs.replace(honest(spec), **change))
    assert reason in reasons(made.verify(run_id)).values()


def test_what_the_release_does_not_let_move_does_not_verify(made: Signed) -> None:
    made.release("strict", OTHER)
    honest = binding(made, "strict")
    made.run("train-20261121-moved1", bind=lambda spec: msgspec.structs.replace(honest(spec), refused=""))
    assert reasons(made.verify("train-20261121-moved1")) == {"policy": "deviates"}


def test_a_release_of_one_run_is_none_of_another(made: Signed) -> None:
    found = verify_run(made.workspace, made.workspace.run(FIRST), judge_of([made.signer.key]), {}, SECOND)
    assert reasons(found) == {"policy": "wrong-run"}


def test_a_run_bound_to_a_release_that_is_revoked_later_fails_from_then_on(made: Signed) -> None:
    made.revoke(GOOD)
    assert reasons(made.verify(HELD)) == {"revocation": "revoked"}
    removed(GOOD, *all_of("revoked"))(made)
    assert reasons(made.verify(HELD)) == {"revocation": "revocation-removed"}


def test_the_log_finds_a_leaf_wherever_it_is_and_no_other(made: Signed) -> None:
    log = Log(made.store)
    known = made.workspace.releases.find(GONE)
    assert log.holds(withdrawal_leaf("revoked", known.sha256))
    assert not log.holds(withdrawal_leaf("superseded", known.sha256))
    data = (log.folder / "hashes").read_bytes()
    assert not log.holds(data[16:48])


# --- bundles -----------------------------------------------------------------------------------------------------


def test_no_changed_release_in_a_bundle_verifies(made: Signed, tmp_path: Path) -> None:
    judge = judge_of([made.signer.key])

    def found(data: bytes) -> dict[str, str]:
        file = tmp_path / "b.tar"
        file.write_bytes(data)
        return reasons(verify_packed(file, judge, {}))

    whole = tmp_path / "whole.tar"
    copies = {GOOD: made.workspace.releases.copies(GOOD)}
    pack(made.store, made.workspace.run(HELD), whole, copies)
    assert found(whole.read_bytes()) == {}
    inside = members(whole.read_bytes())
    names = [name for name in inside if name.startswith("releases/")]
    assert len(names) == 3
    for name in names:
        assert found(repacked({k: v for k, v in inside.items() if k != name})), name
        assert found(repacked(inside | {name: b""})), name
        assert found(repacked(inside | {name: flipped(inside[name], 0.5)})), name
        other = made.release_files(SECOND, name.rpartition("/")[2])[0].read_bytes()
        assert found(repacked(inside | {name: other})), name
    revoked = {f"releases/{GONE}/{file}": data[0] for file, data in made.workspace.releases.copies(GONE).items()}
    assert found(repacked(inside | revoked))
    assert found(repacked(inside | {"releases/../x": b""})) and found(repacked(inside | {"releases/x/y": b""}))
