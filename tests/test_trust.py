"""What a run of a bisect is lent by the other, on values and a user's own lists."""

from __future__ import annotations

import msgspec
import pytest

from runner import own
from runner.errors import ConsentError
from runner.state.record import Record
from runner.state.spec import AccessSeen, SecretSeen, SourceSeen, StateSpec
from runner.trust import Consent, admit, lent_by
from tests.attest.made import Signed
from tests.test_hybrid import spec


def with_rights(made: StateSpec, network: str, source: str = "", uri: str = "") -> StateSpec:
    seen = {"KEY": SecretSeen(source, "hmac-sha256:" + "0" * 32)} if source else {}
    asked = (SourceSeen(uri, True, "x", secret="KEY"),) if uri else ()
    access = msgspec.structs.replace(made.state.access, network=network)
    state = msgspec.structs.replace(made.state, access=access, secrets=tuple(seen))
    observed = msgspec.structs.replace(made.observed, access=AccessSeen(secrets=seen, sources=asked))
    return msgspec.structs.replace(made, state=state, observed=observed)


def test_what_a_run_is_lent_is_what_it_has_not_itself() -> None:
    plain = with_rights(spec(), "none")
    full = with_rights(spec(), "open", "env:KEY", "s3://b")
    assert lent_by(plain, full).lines == lent_by(full, full).lines == ()
    lent = lent_by(full, plain)
    assert [name for name, _ in lent.lines] == ["network", "secret KEY"] and lent.secrets == {"KEY": "env:KEY"}
    assert all(text.endswith(f", in trials, as {full.run.id} has it") for _, text in lent.lines)
    for other in (with_rights(spec(), "open", "env:OTHER", "s3://b"), with_rights(spec(), "open", "env:KEY")):
        assert lent_by(full, other).secrets == {"KEY": "env:KEY"}, "from elsewhere, or shown to others"


def test_who_was_allowed_alone_is_asked_about_with_what_it_is_lent(signed: Signed) -> None:
    run = signed.run("train-20261121-first1")
    alone, record = run.spec_and_record()
    assert isinstance(record, Record)
    alone = with_rights(alone, "none")
    admit(signed.workspace, run, alone, record, Consent(trust=True))
    admit(signed.workspace, run, alone, record, Consent(), beside=alone)
    network, secret = with_rights(alone, "open"), with_rights(alone, "none", "env:KEY")
    for beside in (network, secret):
        with pytest.raises(ConsentError, match="was not recorded here"):
            admit(signed.workspace, run, alone, record, Consent(), beside=beside)
    with pytest.raises(ConsentError, match="trials would hand secrets over"):
        admit(signed.workspace, run, alone, record, Consent(trust=True), beside=secret)
    admit(signed.workspace, run, alone, record, Consent(trust=True), beside=network)
    with pytest.raises(ConsentError):
        admit(signed.workspace, run, alone, record, Consent(), beside=secret)
    admit(signed.workspace, run, alone, record, Consent(True, frozenset({"env:KEY"})), beside=secret)
    for beside in (network, secret):
        admit(signed.workspace, run, alone, record, Consent(), beside=beside)


def test_a_run_of_ones_own_is_lent_anything(signed: Signed) -> None:
    run = signed.run("train-20261121-first1")
    alone, record = run.spec_and_record()
    assert isinstance(record, Record)
    own.remember(record.spec_sha256)
    admit(signed.workspace, run, alone, record, Consent(), beside=with_rights(alone, "open", "env:KEY"))
