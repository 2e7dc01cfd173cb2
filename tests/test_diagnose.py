"""What kind of drift it is: no more is said than was seen, the most telling first. Pure."""

from __future__ import annotations

import pytest

from runner.diagnose import DataFinding, Diagnosis, MetricFinding, diagnose, diagnose_replays
from runner.diff import Change, Diff
from runner.state.record import OutputVerdict, Verdict

DATA = Change("data", "d.csv", "sha256:aaaa", "sha256:bbbb")
ENV = Change("env", "MODE", "a", "b")


def found(*changes: Change, **more: object) -> Diff:
    given = {"host": (), "equal": not changes, **more}
    return Diff(a="one", b="two", changes=changes, **given)  # type: ignore[arg-type]


def test_nothing_changed_gives_no_finding() -> None:
    assert diagnose(found()) == Diagnosis()


@pytest.mark.parametrize("layer", ["code", "params", "image", "dependencies", "env", "access", "model"])
def test_pipeline_runtime_access_and_model_are_execution_state(layer: str) -> None:
    said = diagnose(found(Change(layer, "x", "1", "2")))
    assert said.kind == ("execution state drift",) and said.evidence == (f"{layer}: x 1 → 2",) and said.next


def test_the_most_telling_layer_comes_first() -> None:
    image, params = Change("image", "image", "a", "b"), Change("params", "rate", "1", "2")
    data = DataFinding("d.csv", schema=("age: integer → text",))
    said = diagnose(found(image, params, DATA), [data])
    assert [line.partition(":")[0] for line in said.evidence] == ["schema", "params", "image"]
    assert said.kind == ("execution state drift",), "a broken schema is no data drift"


def test_preprocessing_is_called_that() -> None:
    change = Change("code", "clean.py", "1", "2", "normalise changed")
    other = Change("code", "train.py", "1", "2")
    said = diagnose(found(change, other), preprocessing=["clean.py"])
    assert said.evidence == ("code, preprocessing: clean.py (normalise changed)", "code: train.py 1 → 2")


@pytest.mark.parametrize(
    ("finding", "kind", "word"),
    [
        (DataFinding("d.csv", moved=("price: KS 0.4",)), "data drift", "KS 0.4"),
        (DataFinding("d.csv"), "data drift", "distributions are equal"),
        (DataFinding("d.csv", unexamined="not a table"), "unknown", "not a table"),
        (None, "unknown", "not examined"),
    ],
)
def test_data_that_moved(finding: DataFinding | None, kind: str, word: str) -> None:
    said = diagnose(found(DATA), [finding] if finding else [])
    assert said.kind == (kind,) and word in said.evidence[0]


def test_columns_that_moved_beside_a_broken_schema_are_told_and_are_no_data_drift() -> None:
    said = diagnose(found(DATA), [DataFinding("d.csv", schema=("age: added",), moved=("price moved",))])
    assert said.kind == ("execution state drift",)
    assert said.evidence == ("schema: d.csv: age: added; besides, price moved",)


def test_model_drift_needs_a_worse_metric_on_data_that_looks_the_same() -> None:
    worse, better = MetricFinding("auc", 0.9, 0.7, worse=True), MetricFinding("auc", 0.7, 0.9, worse=False)
    steady, moved = DataFinding("d.csv"), DataFinding("d.csv", moved=("age: PSI 0.5",))
    assert diagnose(found(DATA), [steady], [worse]).kind == ("model drift",)
    assert diagnose(found(DATA), [steady], [better]).kind == ("data drift",)
    assert diagnose(found(DATA), [moved], [worse]).kind == ("data drift",)
    assert diagnose(found(DATA, ENV), [steady], [worse]).kind == ("execution state drift", "data drift")
    assert diagnose(found(DATA), [], [worse]).kind == ("unknown",)
    assert diagnose(found(), [], [worse]).kind == ()


def test_one_state_with_other_outputs_is_chance_or_the_host() -> None:
    output, cpu = Change("outputs", "m.json", "1", "2"), Change("host", "cpu", "a", "b")
    assert diagnose(found(outputs=(output,))).kind == ("nondeterminism",)
    said = diagnose(found(outputs=(output,), host=(cpu,)))
    assert said.kind == ("host",) and "m.json" in said.evidence[0] and "cpu" in said.evidence[0]
    assert diagnose(found(ENV, outputs=(output,))).kind == ("execution state drift",), "outputs follow the state"


def test_layers_that_could_not_be_looked_at_are_unknown() -> None:
    said = diagnose(found(unknown={"image": "no engine answers"}, equal=False))
    assert said.kind == ("unknown",) and said.evidence == ("image: no engine answers",)


def test_long_lists_are_cut_short() -> None:
    said = diagnose(found(*(Change("env", f"V{n}", "1", "2") for n in range(9))))
    assert said.evidence[0].endswith("and 6 more")


@pytest.mark.parametrize(
    ("verdict", "host", "kind"),
    [
        (Verdict.IDENTICAL, ["cpu"], ()),
        (Verdict.EQUIVALENT, [], ()),
        (Verdict.NONDETERMINISTIC, ["cpu"], ("nondeterminism",)),
        (Verdict.DIVERGED, ["cpu"], ("host",)),
        (Verdict.DIVERGED, [], ("unknown",)),
        (Verdict.FAILED, [], ("unknown",)),
    ],
)
def test_why_replays_differ(verdict: Verdict, host: list[str], kind: tuple[str, ...]) -> None:
    outputs = [OutputVerdict("m.json", verdict, "bytes"), OutputVerdict("same", Verdict.IDENTICAL, "bytes")]
    said = diagnose_replays(outputs, verdict, 2, host)
    assert said.kind == kind and bool(said.next) == bool(kind)
    assert all("same" not in line.split(" on ")[-1] or "m.json" in line for line in said.evidence)
