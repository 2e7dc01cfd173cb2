"""What a model's probe printed stands for the model, where it tells anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.compare import Printed, compare_outputs
from runner.compare.comparator import Comparison
from runner.compare.printed import compare
from runner.probes import command_of
from runner.state.digest import Digest, digest_bytes
from runner.state.record import Output, OutputVerdict, Verdict
from runner.state.spec import NumberTolerance, OutputRule

BYTES = Comparison(Verdict.DIVERGED, "6 bytes in both")
RULE = OutputRule("model", probe="x", rtol=0.01, tolerances={"n": NumberTolerance(atol=5)}, ignore=("time",))


@pytest.mark.parametrize(
    ("before", "after", "verdict", "words"),
    [
        (b'{"auc": 0.5}', b'{"auc": 0.5}', Verdict.EQUIVALENT, "prints the same for both; the bytes differ"),
        (b'{"auc": 0.5}', b'{"auc": 0.501}', Verdict.EQUIVALENT, "rtol"),
        (b'{"n": 1, "time": 1}', b'{"n": 4, "time": 9}', Verdict.EQUIVALENT, "atol"),
        (b'{"auc": 0.5}', b'{"auc": 0.6}', Verdict.DIVERGED, "auc"),
        (b'{"auc": 0.5}', b"no JSON", Verdict.DIVERGED, "replay: not JSON"),
        (b"seen: 3\n", b"seen: 4\n", Verdict.DIVERGED, "as text, which has no tolerance: 1 line differs"),
        (b"seen: 3\n", b"seen: 3\n", Verdict.EQUIVALENT, "prints the same"),
    ],
)
def test_the_probe_decides(before: bytes, after: bytes, verdict: Verdict, words: str) -> None:
    found = compare(Printed(before), Printed(after), RULE, BYTES)
    assert found.verdict is verdict and found.detail.startswith("by the probe: ") and words in found.detail


@pytest.mark.parametrize("side", ["original", "replay"])
def test_where_it_tells_nothing_bytes_decide(side: str) -> None:
    told = {"original": Printed(b"1"), "replay": Printed(b"1")} | {side: Printed(problem="exits 1: no module")}
    found = compare(told["original"], told["replay"], RULE, BYTES)
    assert found == Comparison(Verdict.DIVERGED, f"the probe exits 1: no module for the {side}; 6 bytes in both")


def test_it_is_asked_only_where_bytes_differ(tmp_path: Path) -> None:
    asked: list[str] = []
    for text in ("one", "two"):
        (tmp_path / str(digest_bytes(text.encode()))).write_text(text)

    def output(text: str) -> dict[str, Output]:
        return {"m.pkl": Output("m.pkl", digest_bytes(text.encode()), 3)}

    def print_it(path: str, digest: Digest, rule: OutputRule) -> Printed:
        asked.append(path)
        assert rule.probe == ("p", "{}")
        return Printed(b"same")

    def verdict(before: str, after: str) -> OutputVerdict:
        rules = {"m.pkl": OutputRule("model", probe=("p", "{}"))}
        (found,) = compare_outputs(output(before), output(after), rules, lambda d: tmp_path / d, print_it)
        return found

    assert verdict("one", "one").verdict is Verdict.IDENTICAL and asked == []
    assert verdict("one", "two").verdict is Verdict.EQUIVALENT and asked == ["m.pkl", "m.pkl"]


def test_the_path_is_one_word() -> None:
    assert command_of(OutputRule(probe=("p", "--model={}")), "a b.pkl") == ("p", "--model=/workspace/a b.pkl")
    assert command_of(OutputRule(probe="p {} | q"), "a b.pkl") == ("sh", "-c", "p '/workspace/a b.pkl' | q")
