"""A hostile corpus: every part of a signed run changed in every way that comes to mind. None of it verifies, and each
case is refused by the check, and for the reason, that it should be.

The cases are made, not kept: each names what it does to which file. The attacker owns the workspace, the store and
every file in them, and sees to it that all copies agree. What he does not have is the private key.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from runner.attest.bundle import bundle_of, dump_bundle, load_bundle
from runner.attest.checkpoint import (
    SignedCheckpoint,
    dump_checkpoint,
    dump_proof,
    load_checkpoint,
    load_proof,
    sign_hint,
)
from runner.attest.dsse import IN_TOTO, pae
from runner.attest.verify import REASONS
from runner.packed import pack
from runner.seal import judge_of
from runner.state.digest import canonical
from runner.state.strict import load_yaml
from runner.state.verification import Verification
from runner.store.log import Log
from runner.tools import signing
from runner.verify import verify_packed
from tests.attest.made import Signed, new_signer, payload_of, reasons

FIRST, OTHER, RUN = "train-20261121-first1", "train-20261121-other1", "train-20261121-replay"
STRANGER = new_signer()
FILES = {
    "yaml": "spec",
    "record.json": "record",
    "sigstore.json": "envelope",
    "tlog-proof": "log-inclusion",
    "test-result.sigstore.json": "verdict",
    "verdict.sigstore.json": "verdict",
}
"""Each file of a run, and the check that it is refused by when it cannot be read or is missing."""

BUNDLES = [name for name in FILES if name.endswith("sigstore.json")]
ENVELOPE = {"malformed", "unknown-version", "unknown-payload-type", "re-serialised"}
SIGNATURE = {"bad-signature", "untrusted-key"}
OF_FLIP = {
    "yaml": {"changed", "malformed", "wrong-run", "unknown-version"},
    "record.json": {"changed", "malformed", "wrong-run", "unknown-version"},
    "sigstore.json": ENVELOPE | SIGNATURE,
    "tlog-proof": {"malformed", "unknown-version", "re-serialised", "not-included"} | SIGNATURE,
    "test-result.sigstore.json": ENVELOPE | SIGNATURE,
    "verdict.sigstore.json": ENVELOPE | SIGNATURE,
}
Attack = Callable[[Signed], None]


class Case(NamedTuple):
    """What is done, the checks one of which must refuse it, and for which reasons."""

    name: str
    attack: Attack
    checks: set[str]
    reasons: set[str]


def flipped(data: bytes, part: float, bit: int = 0) -> bytes:
    at = min(int(len(data) * part), len(data) - 1)
    return data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]


def edit(name: str, change: Callable[[bytes], bytes | None], run_id: str = RUN) -> Attack:
    return lambda made: made.write(run_id, name, change(made.read(run_id, name)))


def signed_anew(payload: bytes, signer: signing.Signer) -> bytes:
    return dump_bundle(bundle_of(payload, signer.sign(pae(IN_TOTO, payload)), signer.key.id))


# --- files of the run ----------------------------------------------------------------------------------------------


def of_files() -> Iterator[Case]:
    for name, check in FILES.items():
        also = {"sigstore.json": {"signature"}}.get(name, set())
        for number in range(12):
            part, bit = (number + 0.5) / 12, number % 7
            yield Case(
                f"bit {bit} flipped at {part:.2f} of {name}",
                edit(name, lambda data, part=part, bit=bit: flipped(data, part, bit)),
                {check} | also,
                OF_FLIP[name],
            )
        for part in (0, 0.3, 0.7, 0.999):
            yield Case(
                f"{name} truncated to {part}",
                edit(name, lambda data, part=part: data[: int(len(data) * part)]),
                {check},
                {"malformed", "re-serialised", "changed"},
            )
        gone = {"envelope": "unsigned", "verdict": "unsigned", "log-inclusion": "no-proof"}.get(check, "missing")
        yield Case(f"{name} removed", edit(name, lambda _: None), {check}, {gone})
        for more in (b"\n", b" ", b"\0"):
            yield Case(
                f"{name} with {more!r} at its end",
                edit(name, lambda data, more=more: data + more),
                {check},
                {"changed", "malformed", "re-serialised"},
            )
        yield Case(f"{name} of another run", swap(name), {check, "statement"}, swapped(name))
        for copy in (0, 1):
            yield Case(f"copy {copy} of {name} changed", one_copy(name, copy), {check}, {"copies-differ"})


def swap(name: str) -> Attack:
    def attack(made: Signed) -> None:
        source = OTHER if "test-result" in name or "verdict" in name else FIRST
        made.write(RUN, name, made.read(source, name))

    return attack


def swapped(name: str) -> set[str]:
    if name in ("yaml", "record.json"):
        return {"wrong-run"}
    return {"tlog-proof": {"not-included"}, "sigstore.json": {"wrong-run"}}.get(name, {"wrong-subject"})


def one_copy(name: str, copy: int) -> Attack:
    def attack(made: Signed) -> None:
        file = made.files(RUN, name)[copy]
        file.write_bytes(file.read_bytes() + b"\n")

    return attack


# --- other spellings and versions -------------------------------------------------------------------------------


def of_spellings() -> Iterator[Case]:
    for name in BUNDLES:
        check = FILES[name]
        for said, spell in SPELLINGS.items():
            yield Case(f"{name} {said}", edit(name, spell), {check}, {"re-serialised", "malformed"})
        for said, change, reason in ENVELOPES:
            yield Case(f"{name} {said}", edit(name, in_json(change)), {check}, {reason})
    for said, spell in SPELLINGS.items():
        yield Case(f"record {said}", edit("record.json", spell), {"record"}, {"changed", "malformed"})
    yield Case(
        "spec as JSON", edit("yaml", lambda data: json.dumps(load_yaml(data, "")).encode()), {"spec"}, {"changed"}
    )
    for said, old, new in (
        ("with a comment", b"run:", b"# reviewed\nrun:"),
        ("with line ends of Windows", b"\n", b"\r\n"),
        ("with a byte order mark", b"spec: 1", b"\xef\xbb\xbfspec: 1"),
    ):
        yield Case(
            f"spec {said}",
            edit("yaml", lambda data, old=old, new=new: data.replace(old, new)),
            {"spec"},
            {"changed", "malformed"},
        )
    for name, old, new in (
        ("yaml", b"spec: 1\n", b"spec: 2\n"),
        ("record.json", b'"record": 1', b'"record": 2'),
        ("tlog-proof", b"tlog-proof@v1", b"tlog-proof@v2"),
    ):
        yield Case(
            f"{name} of a version to come",
            edit(name, lambda data, old=old, new=new: data.replace(old, new)),
            {FILES[name]},
            {"unknown-version"},
        )
    for said, old, new in (
        ("with line ends of Windows", b"\n", b"\r\n"),
        ("with another index", b"index 2", b"index 1"),
        ("with an index spelt otherwise", b"index 2", b"index 02"),
        ("with extra data", b"index 2", b"extra AAAA\nindex 2"),
        ("of another size", b"\n3\n", b"\n4\n"),
        ("of another log", b"replay/", b"display/"),
        ("with a second signature", b"\n\xe2\x80\x94 ", b"\n\xe2\x80\x94 replay/x AAAAAAAA\n\xe2\x80\x94 "),
    ):
        yield Case(
            f"proof {said}",
            edit("tlog-proof", lambda data, old=old, new=new: data.replace(old, new)),
            {"log-inclusion"},
            {"malformed", "re-serialised", "not-included", "bad-signature"},
        )


SPELLINGS: dict[str, Callable[[bytes], bytes]] = {
    "indented": lambda data: json.dumps(json.loads(data), indent=4).encode(),
    "on one line": lambda data: json.dumps(json.loads(data)).encode(),
    "with its keys the other way round": lambda data: canonical_reversed(json.loads(data)),
    "with a key given twice": lambda data: data.replace(b"{", b'{"mediaType":"x",', 1),
    "with spaces before it": lambda data: b"  " + data,
}


def canonical_reversed(tree: Any) -> bytes:
    return json.dumps(dict(reversed(tree.items())), separators=(",", ":")).encode() + b"\n"


def in_json(change: Callable[[Any], None]) -> Callable[[bytes], bytes]:
    def edited(data: bytes) -> bytes:
        tree = json.loads(data)
        change(tree)
        return canonical(tree) + b"\n"

    return edited


def _respelt(tree: Any) -> None:
    envelope = tree["dsseEnvelope"]
    envelope["payload"] = envelope["payload"].rstrip("=") + "\n"


ENVELOPES: list[tuple[str, Callable[[Any], None], str]] = [
    ("of version 0.1", lambda tree: tree.update(mediaType="application/vnd.dev.sigstore.bundle+json;version=0.1"),
     "unknown-version"),
    ("of version 0.4", lambda tree: tree.update(mediaType="application/vnd.dev.sigstore.bundle.v0.4+json"),
     "unknown-version"),
    ("of no kind", lambda tree: tree.update(mediaType="application/json"), "malformed"),
    ("with another payload type", lambda tree: tree["dsseEnvelope"].update(payloadType="text/plain"),
     "unknown-payload-type"),
    ("without a signature", lambda tree: tree["dsseEnvelope"].update(signatures=[]), "malformed"),
    ("with its signature twice", lambda tree: tree["dsseEnvelope"]["signatures"].extend(
        tree["dsseEnvelope"]["signatures"]), "malformed"),
    ("with a certificate", lambda tree: tree["verificationMaterial"].update(certificate={"rawBytes": "AAAA"}),
     "malformed"),
    ("with an entry of a log", lambda tree: tree["verificationMaterial"].update(tlogEntries=[{}]), "malformed"),
    ("with base64 spelt otherwise", _respelt, "malformed"),
    ("with a message instead", lambda tree: tree.update(messageSignature=tree.pop("dsseEnvelope")), "malformed"),
]  # fmt: skip


# --- signatures ----------------------------------------------------------------------------------------------------


def of_signatures() -> Iterator[Case]:
    for name in BUNDLES:
        check = "signature" if name == "sigstore.json" else "verdict"
        for said, forge, reason in FORGERIES:
            yield Case(f"{name} {said}", edit(name, forge), {check}, {reason})
    for said, change, reason in PROOFS:
        yield Case(f"proof {said}", edit("tlog-proof", change), {"log-inclusion"}, {reason})


def by_stranger(data: bytes) -> bytes:
    return signed_anew(load_bundle(data).envelope.payload, STRANGER)


def by_stranger_in_our_name(data: bytes) -> bytes:
    envelope = load_bundle(data).envelope
    signature = STRANGER.sign(pae(IN_TOTO, envelope.payload))
    return dump_bundle(bundle_of(envelope.payload, signature, envelope.signatures[0].keyid))


def of_bare_payload(data: bytes) -> bytes:
    envelope = load_bundle(data).envelope
    return dump_bundle(bundle_of(envelope.payload, STRANGER.sign(envelope.payload), envelope.signatures[0].keyid))


def twin(data: bytes) -> bytes:
    """The other of the two signatures that hold for the same message: mathematics lets anybody make it."""
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

    envelope = load_bundle(data).envelope
    r, s = decode_dss_signature(envelope.signatures[0].sig)
    other = encode_dss_signature(r, signing._ORDER - s)
    return dump_bundle(bundle_of(envelope.payload, other, envelope.signatures[0].keyid))


def with_signature(make: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    def forged(data: bytes) -> bytes:
        envelope = load_bundle(data).envelope
        key_id, kept = envelope.signatures[0].keyid, envelope.signatures[0].sig
        return dump_bundle(bundle_of(envelope.payload, make(kept), key_id))

    return forged


def with_payload(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def forged(data: bytes) -> bytes:
        envelope = load_bundle(data).envelope
        assert old in envelope.payload
        payload = envelope.payload.replace(old, new)
        return dump_bundle(bundle_of(payload, envelope.signatures[0].sig, envelope.signatures[0].keyid))

    return forged


FORGERIES: list[tuple[str, Callable[[bytes], bytes], str]] = [
    ("signed by a stranger", by_stranger, "untrusted-key"),
    ("signed by a stranger in our name", by_stranger_in_our_name, "bad-signature"),
    ("signed without its type", of_bare_payload, "bad-signature"),
    ("with the signature's twin", twin, "bad-signature"),
    ("with an empty signature", with_signature(lambda _: b""), "bad-signature"),
    ("with a signature of zeroes", with_signature(lambda kept: bytes(len(kept))), "bad-signature"),
    ("with r and s zero", with_signature(lambda _: bytes.fromhex("3006020100020100")), "bad-signature"),
    ("with bytes behind the signature", with_signature(lambda kept: kept + b"\0"), "bad-signature"),
    ("with another run's name", with_payload(b"replay", b"rep1ay"), "bad-signature"),
    ("with spaces in its payload", with_payload(b'":', b'": '), "bad-signature"),
    ("of another predicate", with_payload(b'"predicateType":"', b'"predicateType":"x'), "bad-signature"),
]


def checkpoint_by_stranger(data: bytes) -> bytes:
    proof = load_proof(data)
    checkpoint = proof.signed.checkpoint
    signed = SignedCheckpoint(checkpoint, sign_hint(STRANGER.key.id), STRANGER.sign(checkpoint.text))
    return dump_proof(msgspec.structs.replace(proof, signed=signed))


def checkpoint_in_our_name(data: bytes) -> bytes:
    proof = load_proof(data)
    signed = msgspec.structs.replace(proof.signed, signature=STRANGER.sign(proof.signed.checkpoint.text))
    return dump_proof(msgspec.structs.replace(proof, signed=signed))


def respelt(data: bytes) -> bytes:
    """The same bytes in other base64: its last character has two bits that mean nothing."""
    line = data.split(b"\n")[2]
    return data.replace(line, line[:-2] + bytes([line[-2] + 1]) + b"=")


def shorter(data: bytes) -> bytes:
    proof = load_proof(data)
    return dump_proof(msgspec.structs.replace(proof, path=proof.path[1:]))


def longer(data: bytes) -> bytes:
    proof = load_proof(data)
    return dump_proof(msgspec.structs.replace(proof, path=(*proof.path, bytes(32))))


def far_away(data: bytes) -> bytes:
    return dump_proof(msgspec.structs.replace(load_proof(data), index=10**17))


PROOFS: list[tuple[str, Callable[[bytes], bytes], str]] = [
    ("signed by a stranger", checkpoint_by_stranger, "untrusted-key"),
    ("signed by a stranger in our name", checkpoint_in_our_name, "bad-signature"),
    ("with a hash less", shorter, "not-included"),
    ("with a hash more", longer, "not-included"),
    ("of an entry far away", far_away, "not-included"),
    ("with a hash spelt otherwise", respelt, "re-serialised"),
]


# --- what the owner of the key signed, and should not have -------------------------------------------------------


def of_statements() -> Iterator[Case]:
    for said, change, reason in STATEMENTS:
        yield Case(f"properly signed, {said}", resigned("sigstore.json", change), {"statement"}, {reason})
    for name in ("test-result.sigstore.json", "verdict.sigstore.json"):
        for said, change, reason in STATEMENTS[:3]:
            yield Case(f"{name} properly signed, {said}", resigned(name, change), {"verdict"}, {reason})
        yield Case(f"{name} as the provenance", as_provenance(name), {"statement"}, {"unknown-predicate"})
    yield Case("another verdict, properly signed", resigned("verdict.sigstore.json", set_verdict), {"verdict"},
               {"wrong-statement"})  # fmt: skip
    yield Case("test result and verdict swapped", kinds_swapped, {"verdict"}, {"unknown-predicate"})
    yield Case("a verdict beside a run that is no replay", verdict_beside_run, {"verdict"}, {"wrong-statement"})


def resigned(name: str, change: Callable[[Any], None]) -> Attack:
    def attack(made: Signed) -> None:
        tree = payload_of(made.read(RUN, name))
        change(tree)
        made.write(RUN, name, signed_anew(canonical(tree), made.signer))

    return attack


def as_provenance(name: str) -> Attack:
    return lambda made: made.write(RUN, "sigstore.json", made.read(RUN, name))


def kinds_swapped(made: Signed) -> None:
    a, b = "test-result.sigstore.json", "verdict.sigstore.json"
    kept = made.read(RUN, a)
    made.write(RUN, a, made.read(RUN, b))
    made.write(RUN, b, kept)


def verdict_beside_run(made: Signed) -> None:
    made.write(FIRST, "verdict.sigstore.json", made.read(RUN, "verdict.sigstore.json"))


def set_verdict(tree: Any) -> None:
    tree["predicate"]["verdict"] = "diverged"


def _build(tree: Any) -> Any:
    return tree["predicate"]["buildDefinition"]


STATEMENTS: list[tuple[str, Callable[[Any], None], str]] = [
    ("statement v2", lambda tree: tree.update(_type="https://in-toto.io/Statement/v2"), "unknown-statement"),
    ("an unknown predicate", lambda tree: tree.update(predicateType="https://slsa.dev/provenance/v9"),
     "unknown-predicate"),
    ("no subjects", lambda tree: tree.update(subject=[]), "wrong-subject"),
    ("an unknown build type", lambda tree: _build(tree).update(buildType="urn:x"), "unknown-predicate"),
    ("an output less", lambda tree: tree["subject"].pop(), "wrong-subject"),
    ("an output more", lambda tree: tree["subject"].append({"name": "x", "digest": {"sha256": "0" * 64}}),
     "wrong-subject"),
    ("an output twice", lambda tree: tree["subject"].append(tree["subject"][-1]), "wrong-subject"),
    ("another digest", lambda tree: tree["subject"][-1].update(digest={"sha256": "0" * 64}), "wrong-subject"),
    ("another run", lambda tree: tree["predicate"]["runDetails"]["metadata"].update(invocationId=OTHER), "wrong-run"),
    ("another state", lambda tree: _build(tree)["externalParameters"]["state"].update(command=["true"]),
     "wrong-statement"),
    ("another dependency", lambda tree: _build(tree)["resolvedDependencies"][0].update(digest={"sha256": "0" * 64}),
     "wrong-statement"),
    ("a claim more", lambda tree: tree["predicate"].update(reviewed=True), "wrong-statement"),
]  # fmt: skip


# --- what the run consists of ---------------------------------------------------------------------------------------


def of_blobs() -> Iterator[Case]:
    for what in ("output", "stdout", "code", "listing", "params"):
        check = "outputs" if what in ("output", "stdout") else "blobs"
        for said, change, reason in (
            ("flipped", lambda data: flipped(data, 0.5), "damaged-blob"),
            ("truncated", lambda data: data[:-1], "damaged-blob"),
            ("emptied", lambda _: b"", "damaged-blob"),
            ("grown", lambda data: data + b"x", "damaged-blob"),
            ("of another run", lambda _: b"of another", "damaged-blob"),
            ("removed", lambda _: None, "missing-blob"),
        ):
            yield Case(f"{what} {said}", blob(what, change), {check}, {reason})
    for name in ("stdout", "stderr", "order"):
        for said, change, reason in (
            ("with more", lambda data: data + b"x", "damaged-log"),
            ("removed", lambda _: None, "missing-log"),
        ):
            yield Case(f"log {name} {said}", job_log(name, change), {"logs"}, {reason})


def blob(what: str, change: Callable[[bytes], bytes | None]) -> Attack:
    def attack(made: Signed) -> None:
        rewrite(made.store.blobs.path(digest_in(made, what)), change)

    return attack


def digest_in(made: Signed, what: str) -> Any:
    spec, record = made.workspace.run(RUN).spec_and_record()
    assert record and spec.state.params
    code_files = json.loads(made.store.blobs.path(spec.state.code).read_bytes())  # type: ignore[arg-type]
    by_path = {output.path: output.sha256 for output in record.outputs}
    return {
        "output": by_path["out.txt"],
        "stdout": by_path["stdout"],
        "listing": spec.state.code,
        "code": code_files[0][2],
        "params": spec.state.params.sha256,
    }[what]


def job_log(name: str, change: Callable[[bytes], bytes | None]) -> Attack:
    return lambda made: rewrite(made.store.runs / RUN / name, change)


def rewrite(file: Path, change: Callable[[bytes], bytes | None]) -> None:
    data = change(file.read_bytes())
    file.unlink()
    if data is not None:
        file.write_bytes(data)


# --- the log -----------------------------------------------------------------------------------------------------


def of_log() -> Iterator[Case]:
    consistency = {"log-consistency"}
    for number in range(12):
        part, bit = (number + 0.5) / 12, number % 7
        yield Case(
            f"checkpoint with bit {bit} flipped at {part:.2f}",
            log_file("checkpoint", lambda data, part=part, bit=bit: flipped(data, part, bit)),
            consistency,
            {"malformed", "re-serialised"} | SIGNATURE,
        )
    for place in range(4):
        yield Case(
            f"hash {place} of the log changed",
            log_file("hashes", lambda data, place=place: flipped(data, (32 * place + 7) / len(data))),
            consistency,
            {"log-rewritten"},
        )
    for said, name, change, found in (
        ("hashes cut", "hashes", lambda data: data[:-1], {"log-truncated"}),
        ("hashes emptied", "hashes", lambda _: b"", {"log-truncated"}),
        ("hashes removed", "hashes", lambda _: None, {"log-truncated"}),
        ("checkpoint emptied", "checkpoint", lambda _: b"", {"malformed"}),
        ("checkpoint removed", "checkpoint", lambda _: None, {"missing"}),
        ("checkpoint by a stranger", "checkpoint", strangers_checkpoint, {"untrusted-key"}),
        ("checkpoint of another size", "checkpoint", lambda data: data.replace(b"\n3\n", b"\n2\n"), {"bad-signature"}),
    ):
        yield Case(f"log: {said}", log_file(name, change), consistency, found)
    yield Case("log rolled back to an older version", rolled_back, consistency, {"log-truncated"})
    yield Case("log of another store", of_another_store, consistency, {"other-log"})


def log_file(name: str, change: Callable[[bytes], bytes | None]) -> Attack:
    return lambda made: rewrite(Log(made.store).folder / name, change)


def strangers_checkpoint(data: bytes) -> bytes:
    checkpoint = load_checkpoint(data).checkpoint
    signed = SignedCheckpoint(checkpoint, sign_hint(STRANGER.key.id), STRANGER.sign(checkpoint.text))
    return dump_checkpoint(signed)


def rolled_back(made: Signed) -> None:
    """To what it was after the first run: every byte of it was signed by our key."""
    proof, folder = load_proof(made.read(FIRST, "tlog-proof")), Log(made.store).folder
    (folder / "checkpoint").write_bytes(dump_checkpoint(proof.signed))
    (folder / "hashes").write_bytes((folder / "hashes").read_bytes()[:32])


def of_another_store(made: Signed) -> None:
    other = Signed(made.root / "other", made.signer)
    for number in range(4):
        other.run(f"train-20261121-there{number}")
    shutil.copytree(Log(other.store).folder, Log(made.store).folder, dirs_exist_ok=True)


CASES = [*of_files(), *of_spellings(), *of_signatures(), *of_statements(), *of_blobs(), *of_log()]


# --- trying them -------------------------------------------------------------------------------------------------


class Target(NamedTuple):
    made: Signed
    kept: dict[Path, bytes]

    def restore(self) -> None:
        for file in self.made.root.rglob("*"):
            if file.is_file() and file not in self.kept:
                file.unlink()
        for file, data in self.kept.items():
            if not file.is_file() or file.read_bytes() != data:
                file.unlink(missing_ok=True)
                file.write_bytes(data)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Target:
    made = Signed(tmp_path_factory.mktemp("hostile") / "work")
    made.run(FIRST)
    made.run(OTHER, replay=True)
    made.run(RUN, replay=True)
    found = [made.verify(run_id) for run_id in (FIRST, OTHER, RUN)]
    assert all(one.verified for one in found), [reasons(one) for one in found]
    kept = {file: file.read_bytes() for file in made.root.rglob("*") if file.is_file()}
    return Target(made, kept)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_nothing_that_was_changed_verifies(target: Target, case: Case) -> None:
    try:
        case.attack(target.made)
        failed: dict[str, set[str]] = {}
        for run_id in (RUN, FIRST, OTHER):
            for check, reason in reasons(target.made.verify(run_id)).items():
                failed.setdefault(check, set()).add(reason)
    finally:
        target.restore()
    assert failed, "it was verified"
    assert any(failed.get(check, set()) & case.reasons for check in case.checks), failed
    assert set().union(*failed.values()) <= REASONS


def test_the_corpus_is_large_and_each_case_another() -> None:
    names = [case.name for case in CASES]
    assert len(names) >= 300 and len(set(names)) == len(names)
    assert {reason for case in CASES for reason in case.reasons} <= REASONS


# --- bundles -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packed(target: Target, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """The bundle of the replay, and that of another run."""
    folder = tmp_path_factory.mktemp("packed")
    for run_id in (RUN, FIRST):
        pack(target.made.store, target.made.workspace.run(run_id), folder / f"{run_id}.tar")
    return (folder / f"{RUN}.tar").read_bytes(), (folder / f"{FIRST}.tar").read_bytes()


def members(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {one.name: tar.extractfile(one).read() for one in tar}  # type: ignore[union-attr]


def repacked(contents: dict[str, bytes], *, at: int = 0, sort: bool = True) -> bytes:
    """A tar as `replay bundle` would write it, of other contents."""
    out = io.BytesIO()
    for name in sorted(contents) if sort else contents:
        info = tarfile.TarInfo(name)
        info.size, info.mtime = len(contents[name]), at
        out.write(info.tobuf(tarfile.GNU_FORMAT) + contents[name] + bytes(-info.size % 512))
    return out.getvalue() + bytes(1024)


def test_a_bundle_depends_on_the_run_alone_and_verifies(
    target: Target, packed: tuple[bytes, bytes], tmp_path: Path
) -> None:
    again = tmp_path / "again.tar"
    pack(target.made.store, target.made.workspace.run(RUN), again)
    assert again.read_bytes() == packed[0] == repacked(members(packed[0]))
    assert verified(packed[0], target, tmp_path).verified


def verified(data: bytes, target: Target, folder: Path) -> Verification:
    file = folder / "b.tar"
    file.write_bytes(data)
    return verify_packed(file, judge_of([target.made.signer.key]), {})


def test_no_changed_bundle_verifies(target: Target, packed: tuple[bytes, bytes], tmp_path: Path) -> None:
    mine, other = packed
    inside, others = members(mine), members(other)
    with_blob = inside | {"blobs/" + "0" * 64: b"x"}
    cases = {f"flipped at {part}": flipped(mine, part / 97, part % 8) for part in range(97)}
    cases |= {f"cut to {part}": mine[: len(mine) * part // 13] for part in range(13)}
    cases |= {f"without {name}": repacked({k: v for k, v in inside.items() if k != name}) for name in inside}
    cases |= {f"{name} of another": repacked(inside | {name: others[name]}) for name in others if name in inside
              and others[name] != inside[name]}  # fmt: skip
    cases |= {f"{name} emptied": repacked(inside | {name: b""}) for name, data in inside.items() if data}
    cases |= {
        "nothing": b"",
        "zeroes": bytes(10240),
        "something behind it": mine + b"x",
        "zeroes behind it": mine + bytes(512),
        "packed with a time": repacked(inside, at=1),
        "out of order": repacked(dict(reversed(inside.items())), sort=False),
        "packed twice": mine[:-1024] + mine,
        "a file more": repacked(inside | {"readme.txt": b"x"}),
        "a path that leads out": repacked(inside | {"../x": b"x"}),
        "a blob more": repacked(with_blob),
        "a key in it": repacked(inside | {"key.pem": target.made.signer.key.pem}),
    }
    passed = {name for name, data in cases.items() if verified(data, target, tmp_path).verified}
    assert not passed
    assert len(cases) > 120
    unknown = {name: found for name, data in cases.items() if not (found := reasons(verified(data, target, tmp_path)))}
    assert not unknown
    assert reasons(verified(repacked(with_blob), target, tmp_path)) == {"bundle": "unknown-member"}


def test_a_bundle_by_another_key_is_not_believed(packed: tuple[bytes, bytes], tmp_path: Path) -> None:
    file = tmp_path / "b.tar"
    file.write_bytes(packed[0])
    for keys in ([], [STRANGER.key]):
        found = reasons(verify_packed(file, judge_of(keys), {}))
        assert found == {"signature": "untrusted-key", "log-inclusion": "untrusted-key", "verdict": "untrusted-key"}
