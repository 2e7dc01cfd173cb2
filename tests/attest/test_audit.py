"""The page of an audit: what it says of a release that cannot be believed, and of what was accepted."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from runner.rebuild import DataPlace
from runner.releases.audit import audit
from runner.releases.check import _data
from runner.releases.page import bounds, page
from runner.seal import judge_of
from runner.state.audit import Audit, AuditedRun
from runner.state.record import Verdict
from runner.state.spec import Check, TableRule
from runner.state.strict import dump_release, load_release
from runner.tools.signing import PublicKey
from tests.attest.made import Signed

pytestmark = pytest.mark.filterwarnings("ignore::runner.errors.ReplayWarning")
RUN = "train-20261121-audit1"


@pytest.fixture
def made(tmp_path: Path) -> Signed:
    made = Signed(tmp_path)
    made.run(RUN)
    made.release("prod", RUN)
    return made


def audited(made: Signed, *keys: PublicKey) -> Audit:
    return audit(made.workspace, made.workspace.releases.find("prod"), judge_of(keys))


def status(found: Audit) -> str:
    return page(found).splitlines()[2].split(". ")[0]


def test_the_first_sentence_calls_nothing_signed_whose_signature_proves_nothing(made: Signed) -> None:
    assert status(audited(made, made.signer.key)) == "It is current, and signed"
    assert status(audited(made)) == "It is current, and signed by a key that is **not trusted** here"
    for file in made.release_files("prod", "release.yaml"):
        release = load_release(file.read_bytes(), "it")
        edited = msgspec.structs.replace(release.accepted, by="Eve")
        file.write_bytes(dump_release(msgspec.structs.replace(release, accepted=edited)))
    assert status(audited(made, made.signer.key)) == "It is current, and **NOT what was signed** (wrong-statement)"


def answer(found: Audit) -> str:
    return page(found).split("## Is it what was signed?\n\n")[1].split("\n")[0]


def test_what_was_revoked_is_what_was_signed_and_an_unknown_key_is_no_forgery(made: Signed) -> None:
    assert answer(audited(made, made.signer.key)) == "Yes: no check failed."
    assert answer(audited(made)).startswith("**Nobody here says whose key signed it")
    made.revoke("prod")
    assert answer(audited(made, made.signer.key)).startswith("Yes. **It was revoked since")
    for file in made.files(RUN, "record.json"):
        file.write_bytes(file.read_bytes().replace(b"1.5", b"2.5"))
    assert answer(audited(made, made.signer.key)).startswith("**No: ")


def test_the_page_says_what_a_boundary_asks_for(made: Signed) -> None:
    found = audited(made, made.signer.key)
    checks = (
        Check(name="floor", on="m.json", when="after", metrics={"auc": ">= 0.9"}),
        Check(name="rows", on="t.csv", when="before", table=TableRule(unique=("id",), others=False)),
        Check(name="own", on="t.csv", when="before", command=("python", "a b.py")),
    )
    assert [bounds(check) for check in checks] == [
        ["auc >= 0.9"],
        ["others false", 'unique ["id"]'],
        ["python 'a b.py'"],
    ]
    contract = msgspec.structs.replace(found.release.contract, checks=checks)
    shown = page(msgspec.structs.replace(found, release=msgspec.structs.replace(found.release, contract=contract)))
    assert "| floor | metrics | m.json | auc &#62;= 0.9 | after | halt |" in shown


def test_a_run_diverged_from_the_release_and_is_identical_to_it(made: Signed) -> None:
    tied = [
        AuditedRun(run_id=RUN, tie="bound", started="", state_digest=made.workspace.run(RUN).spec().digest, signed=True)
    ]
    tied = [
        msgspec.structs.replace(one, verdict=verdict, against="prod")
        for one in tied
        for verdict in (Verdict.IDENTICAL, Verdict.DIVERGED, Verdict.FAILED)
    ]
    shown = page(msgspec.structs.replace(audited(made, made.signer.key), runs=tuple(tied)))
    assert all(words in shown for words in ("identical to prod", "diverged from prod", "failed against prod"))


@pytest.mark.parametrize("place", DataPlace)
def test_a_check_knows_every_place_that_data_can_be_in(place: DataPlace) -> None:
    pin = _data("data", "in.csv", place, cached=False)
    assert pin.here is (place in (DataPlace.VIEW, DataPlace.STORE)) and pin.place
