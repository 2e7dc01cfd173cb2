"""Which runs count as trials that were made before, and which as those that a worker was asked for. No engine."""

from __future__ import annotations

import msgspec
import pytest

from runner import own
from runner.errors import TamperedError
from runner.store.runs import TRIAL
from runner.there import identity, refuse_others
from runner.trials import known_trial
from tests.attest.made import Signed

RUN = "train-20261121-aaaaaa"


@pytest.fixture
def made(signed: Signed, monkeypatch: pytest.MonkeyPatch) -> Signed:
    spec = signed._spec

    def labelled(run: str) -> object:
        given = spec(run)
        return msgspec.structs.replace(given, run=msgspec.structs.replace(given.run, labels=(TRIAL,)))

    monkeypatch.setattr(signed, "_spec", labelled)
    signed.run(RUN, outputs={"m.json": b"{}"})
    return signed


def test_only_a_trial_of_ones_own_is_taken_for_one(made: Signed) -> None:
    spec, record = made.workspace.run(RUN).spec_and_record()
    assert record is not None
    assert known_trial(made.workspace, spec, ()) is None, "somebody may have pushed what was never seen"
    own.remember(record.spec_sha256)
    done = known_trial(made.workspace, spec, ())
    assert done is not None and done.run.id == RUN
    assert known_trial(made.workspace, spec, (RUN,)) is None, "it is counted once"


def test_a_worker_replays_what_was_sent_and_nothing_else_of_that_name(made: Signed) -> None:
    run = made.workspace.run(RUN)
    assert len(identity(run)) == 2
    refuse_others(made.workspace, {RUN: list(identity(run))})
    for other in (("sha256:" + "0" * 64, identity(run)[1]), (identity(run)[0], "sha256:" + "0" * 64), ()):
        with pytest.raises(TamperedError, match="not the run that was asked for"):
            refuse_others(made.workspace, {RUN: other})
