"""Which runs count as trials that were made before, and which as those that a worker was asked for. No engine."""

from __future__ import annotations

import msgspec
import pytest

from runner import own
from runner.errors import TamperedError
from runner.replaying import Finding
from runner.state.spec import OutputRule, StateSpec
from runner.store.runs import TRIAL
from runner.there import identity, refuse_others, refuse_unless_of
from runner.trials import known_trial
from tests.attest.made import Signed

RUN, OTHER, REPLAY, STRAY, ALIKE = (f"train-20261121-{name * 6}" for name in "abcde")


@pytest.fixture
def made(signed: Signed, monkeypatch: pytest.MonkeyPatch) -> Signed:
    """RUN, with specs for a run of another state, for a replay of RUN, for one of nobody knows what, and for a run of
    the same state."""
    spec = signed._spec

    def labelled(run_id: str) -> StateSpec:
        given = spec(run_id if run_id == OTHER else RUN)
        replay_of = {REPLAY: RUN, STRAY: "train-20261121-zzzzzz"}.get(run_id)
        info = msgspec.structs.replace(given.run, id=run_id, labels=(TRIAL,), replay_of=replay_of)
        contract = msgspec.structs.replace(given.contract, outputs={"m.json": OutputRule("json", rtol=0.1)})
        return msgspec.structs.replace(given, run=info, contract=contract)

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
    contract = msgspec.structs.replace(spec.contract, outputs={})
    assert known_trial(made.workspace, msgspec.structs.replace(spec, contract=contract), ()) is None, (
        "it was not run so"
    )


def test_a_worker_replays_what_was_sent_and_nothing_else_of_that_name(made: Signed) -> None:
    run = made.workspace.run(RUN)
    assert len(identity(run)) == 2
    refuse_others(made.workspace, {RUN: list(identity(run))})
    for other in (("sha256:" + "0" * 64, identity(run)[1]), (identity(run)[0], "sha256:" + "0" * 64), ()):
        with pytest.raises(TamperedError, match="not the run that was asked for"):
            refuse_others(made.workspace, {RUN: other})
    with pytest.raises(TamperedError, match="not the run that was asked for"):
        refuse_others(made.workspace, {OTHER: ()})


def told(verdict: str, replay: str = REPLAY, run_id: str = RUN) -> Finding:
    return Finding(run_id=run_id, verdict=verdict, replay=replay)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("outputs", "believed"),
    [
        ({"m.json": b"{}"}, "identical equivalent diverged nondeterministic failed not-run"),
        ({"m.json": b"{} "}, "equivalent diverged nondeterministic failed not-run"),
        ({"m.json": b"{}", "other": b""}, "diverged nondeterministic failed not-run"),
        ({"other": b"{}"}, "diverged nondeterministic failed not-run"),
    ],
    ids=["alike", "within a tolerance, maybe", "one more", "another"],
)
def test_no_replay_is_believed_to_be_better_than_its_digests_allow(
    made: Signed, outputs: dict[str, bytes], believed: str
) -> None:
    made.run(REPLAY, outputs=outputs)
    for verdict in ("identical", "equivalent", "diverged", "nondeterministic", "failed", "not-run"):
        if verdict in believed.split():
            refuse_unless_of(made.workspace, told(verdict), [RUN])
        else:
            with pytest.raises(TamperedError, match=f"was called {verdict} to {RUN}, and is not"):
                refuse_unless_of(made.workspace, told(verdict), [RUN])


def test_a_finding_is_of_a_run_that_was_sent_and_names_a_replay_of_it(made: Signed) -> None:
    for run_id in (OTHER, REPLAY, STRAY, ALIKE):
        made.run(run_id, outputs={"m.json": b"{}"})
    refuse_unless_of(made.workspace, told("identical"), [RUN])
    refuse_unless_of(made.workspace, told("identical", run_id=ALIKE), [RUN, ALIKE])
    refuse_unless_of(made.workspace, told("unrebuildable", ""), [RUN])
    for bad, sent in (
        (told("identical"), [OTHER]),
        (told("identical", run_id=OTHER), [RUN]),
        (told("identical", run_id=OTHER), [RUN, OTHER]),
        (told("identical", run_id=ALIKE), [RUN]),
        (told("identical", OTHER), [RUN]),
        (told("identical", OTHER), [RUN, OTHER]),
        (told("identical", STRAY), [RUN]),
        (told("identical", RUN), [RUN]),
    ):
        with pytest.raises(TamperedError, match="is no replay of what was sent"):
            refuse_unless_of(made.workspace, bad, sent)
    for verdict in ("identical", "equivalent"):
        with pytest.raises(TamperedError, match="no replay shows"):
            refuse_unless_of(made.workspace, told(verdict, ""), [RUN])
