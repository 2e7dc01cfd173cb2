"""What is signed of a run: read by others' code, whole, and refused when it is anything else."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from securesystemslib.dsse import Envelope as OthersEnvelope
from securesystemslib.signer import SSlibKey

from runner.attest.bundle import bundle_of, dump_bundle, load_bundle
from runner.attest.dsse import IN_TOTO, pae
from runner.attest.rejected import Rejected
from runner.attest.statement import KINDS, check_statement, statements
from runner.state.digest import canonical, digest_bytes
from runner.tools import signing
from tests.attest.made import run_files

SIGNER = signing.open_private_key(signing.new_private_key(None), None, "a key")


def signed(payload: bytes, signer: signing.Signer = SIGNER) -> bytes:
    return dump_bundle(bundle_of(payload, signer.sign(pae(IN_TOTO, payload)), signer.key.id))


def test_pae_is_that_of_the_protocol() -> None:
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("ä", b"") == b"DSSEv1 2 \xc3\xa4 0 "


def test_the_provenance_names_every_part_of_the_state() -> None:
    run = run_files()
    made: Any = json.loads(statements(run)["provenance"])
    assert made["_type"] == "https://in-toto.io/Statement/v1"
    assert made["predicateType"] == "https://slsa.dev/provenance/v1"
    named = {one["name"]: "sha256:" + one["digest"]["sha256"] for one in made["subject"]}
    assert named == {
        f"{run.record.run_id}.yaml": run.record.spec_sha256,
        f"{run.record.run_id}.record.json": digest_bytes(run.record_bytes),
        **{one.path: one.sha256 for one in run.record.outputs},
    }
    build = made["predicate"]["buildDefinition"]
    depends = {one["name"]: "sha256:" + one["digest"]["sha256"] for one in build["resolvedDependencies"]}
    state = run.spec.state
    assert depends["code"] == state.code
    assert set(state.image.diff_ids) <= set(depends.values())
    assert {one.wheel: one.sha256 for one in state.dependencies.locked or ()} == {
        name.removeprefix("dependencies/locked/"): digest
        for name, digest in depends.items()
        if name.startswith("dependencies/locked/")
    }
    for kind, versions in (("data", state.data), ("model", state.model)):
        assert {f"{kind}/{path}": digest for path, digest in versions.items()}.items() <= depends.items()
    assert {one["name"] for one in made["predicate"]["runDetails"]["byproducts"]} == {"stdout", "stderr", "order"}
    assert canonical(build["externalParameters"]["state"]) == canonical(state)


def test_a_replay_also_tells_its_verdict_and_the_tolerances() -> None:
    run = run_files(replay=True)
    made = {kind: json.loads(payload) for kind, payload in statements(run).items()}
    assert made.keys() == KINDS.keys()
    result = made["test-result"]["predicate"]
    assert result["result"] == "PASSED" and result["passedTests"] == ["out/0.json", "out/1.json"]
    assert made["verdict"]["predicate"]["verdict"] == "identical"
    assert made["verdict"]["predicate"]["tolerances"] == msgspec.json.decode(canonical(run.spec.contract))


def test_equal_files_give_equal_statements() -> None:
    assert statements(run_files(replay=True)) == statements(run_files(replay=True))


def test_securesystemslib_reads_and_verifies_the_envelopes() -> None:
    key = SSlibKey(SIGNER.key.id, "ecdsa", "ecdsa-sha2-nistp256", {"public": SIGNER.key.pem.decode()})
    for payload in statements(run_files(replay=True)).values():
        envelope = OthersEnvelope.from_dict(json.loads(signed(payload))["dsseEnvelope"])
        assert envelope.payload == payload
        assert envelope.pae() == pae(IN_TOTO, payload)
        assert envelope.verify([key], 1).keys() == {SIGNER.key.id}
        envelope.payload = payload.replace(b"train", b"drain")
        with pytest.raises(Exception, match="threshold"):
            envelope.verify([key], 1)


def test_openssl_verifies_what_was_signed_and_signs_what_is_verified(tmp_path: Path) -> None:
    payload = statements(run_files())["provenance"]
    envelope = json.loads(signed(payload))["dsseEnvelope"]
    files = {"key.pem": SIGNER.key.pem, "pae": pae(IN_TOTO, payload)}
    files["sig"] = base64.b64decode(envelope["signatures"][0]["sig"])
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    verify = ["openssl", "dgst", "-sha256", "-verify", "key.pem", "-signature", "sig", "pae"]
    assert subprocess.run(verify, cwd=tmp_path, capture_output=True).returncode == 0
    (tmp_path / "pae").write_bytes(pae(IN_TOTO, payload + b" "))
    assert subprocess.run(verify, cwd=tmp_path, capture_output=True).returncode == 1


def test_a_signature_has_one_form() -> None:
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

    for number in range(8):
        message = b"%d" % number
        signature = SIGNER.sign(message)
        r, s = decode_dss_signature(signature)
        assert SIGNER.key.verifies(message, signature)
        assert not SIGNER.key.verifies(message, encode_dss_signature(r, signing._ORDER - s))
        assert not SIGNER.key.verifies(message, signature + b"\0")
        assert not SIGNER.key.verifies(b"other", signature)


def test_a_bundle_is_read_as_it_was_written() -> None:
    payload = statements(run_files())["provenance"]
    found = load_bundle(signed(payload))
    assert found.envelope.payload == payload
    assert found.envelope.signatures[0].keyid == SIGNER.key.id


def changed(**keys: Any) -> bytes:
    tree = json.loads(signed(statements(run_files())["provenance"]))
    for path, value in keys.items():
        at = tree
        *folders, last = path.split("__")
        for folder in folders:
            at = at[folder]
        at[last] = value
    return canonical(tree) + b"\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "malformed"),
        (b"[]", "malformed"),
        (b"{}", "malformed"),
        (b"\xff", "malformed"),
        (b"[" * 100_000, "malformed"),
        (changed(extra=1), "malformed"),
        (changed(dsseEnvelope__signatures=[]), "malformed"),
        (changed(dsseEnvelope__payload="!"), "malformed"),
        (changed(verificationMaterial__publicKey__hint="AAAA"), "malformed"),
        (changed(mediaType="application/vnd.dev.sigstore.bundle.v0.4+json"), "unknown-version"),
        (changed(mediaType="text/plain"), "malformed"),
        (changed(dsseEnvelope__payloadType="application/json"), "unknown-payload-type"),
        (json.dumps(json.loads(changed())).encode(), "re-serialised"),
        (changed() + b"\n", "re-serialised"),
    ],
)
def test_what_is_no_bundle_of_ours_is_rejected(data: bytes, reason: str) -> None:
    with pytest.raises(Rejected) as raised:
        load_bundle(data)
    assert raised.value.reason == reason


def test_a_statement_is_about_one_run_and_nothing_else() -> None:
    run, other = run_files(replay=True), run_files("train-20261121-bbbbbb", replay=True)
    reasons = {}
    for kind, payload in statements(run).items():
        check_statement(kind, payload, run)
        for name, wrong in _wrong(payload).items():
            reasons[kind, name] = _reason(kind, wrong, run)
        reasons[kind, "of another"] = _reason(kind, payload, other)
    assert {name: reason for (kind, name), reason in reasons.items() if kind == "provenance"} == {
        "type": "unknown-statement",
        "predicate": "unknown-predicate",
        "build type": "unknown-predicate",
        "subject": "wrong-subject",
        "two of a name": "wrong-subject",
        "state": "wrong-statement",
        "more": "wrong-statement",
        "spaces": "re-serialised",
        "array": "malformed",
        "nothing": "malformed",
        "of another": "wrong-run",
    }
    assert all(reasons[kind, "of another"] == "wrong-subject" for kind in ("verdict", "test-result"))


def _reason(kind: str, payload: bytes, run: Any) -> str:
    with pytest.raises(Rejected) as raised:
        check_statement(kind, payload, run)
    return raised.value.reason


def _wrong(payload: bytes) -> dict[str, bytes]:
    def edited(edit: Any) -> bytes:
        tree = json.loads(payload)
        edit(tree)
        return canonical(tree)

    return (
        {
            "type": edited(lambda tree: tree.update(_type="https://in-toto.io/Statement/v2")),
            "predicate": edited(lambda tree: tree.update(predicateType="https://slsa.dev/provenance/v2")),
            "build type": edited(lambda tree: tree["predicate"].get("buildDefinition", {}).update(buildType="urn:x")),
            "subject": edited(lambda tree: tree["subject"].pop()),
            "two of a name": edited(lambda tree: tree["subject"].append(tree["subject"][0])),
            "state": payload.replace(b'"network":"none"', b'"network":"open"'),
            "more": edited(lambda tree: tree["predicate"].update(more=1)),
            "spaces": payload.replace(b'":', b'": ', 1),
            "array": b"[1]",
            "nothing": b"",
        }
        if b"buildDefinition" in payload
        else {}
    )


def test_an_older_statement_that_says_less_still_holds() -> None:
    run = run_files()
    tree = json.loads(statements(run)["provenance"])
    del tree["predicate"]["runDetails"]["byproducts"]
    tree["predicate"]["buildDefinition"]["resolvedDependencies"].pop()
    check_statement("provenance", canonical(tree), run)
