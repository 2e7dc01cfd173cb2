from __future__ import annotations

from pathlib import Path

import pytest

from runner.compare import Comparator, Comparison, compare_outputs, extras, outputs
from runner.errors import OutsideError, UsageError
from runner.state.digest import Digest, digest_bytes, hex_of
from runner.state.record import Output, OutputVerdict, Verdict
from runner.state.spec import OutputRule


class Files:
    """Outputs in a folder, by digest; it remembers what was opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.opened: list[Digest] = []

    def output(self, path: str, content: bytes, executable: bool = False) -> Output:
        digest = digest_bytes(content)
        (self.folder / hex_of(digest)).write_bytes(content)
        return Output(path, digest, len(content), executable)

    def run(self, **contents: bytes) -> dict[str, Output]:
        return {path: self.output(path, content) for path, content in contents.items()}

    def open(self, digest: Digest) -> Path:
        self.opened.append(digest)
        return self.folder / hex_of(digest)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_equal_bytes_are_identical_and_never_opened(files: Files) -> None:
    run = files.run(b=b"1", a=b"2")
    found = compare_outputs(run, run, {"a": OutputRule("json")}, files.open)
    assert found == (
        OutputVerdict("a", Verdict.IDENTICAL, "json"),
        OutputVerdict("b", Verdict.IDENTICAL, "bytes"),
    )
    assert files.opened == []


def test_outputs_in_one_run_only_have_diverged(files: Files) -> None:
    found = compare_outputs(files.run(old=b"1"), files.run(new=b"1"), {}, files.open)
    assert found == (
        OutputVerdict("new", Verdict.DIVERGED, "bytes", "not in the original"),
        OutputVerdict("old", Verdict.DIVERGED, "bytes", "missing in the replay"),
    )


@pytest.mark.parametrize(
    ("before", "after", "detail"),
    [(True, False, "executable in the original only"), (False, True, "executable in the replay only")],
)
def test_the_executable_bit_counts(files: Files, before: bool, after: bool, detail: str) -> None:
    original, replayed = files.output("run.sh", b"x", before), files.output("run.sh", b"x", after)
    (found,) = compare_outputs({"run.sh": original}, {"run.sh": replayed}, {}, files.open)
    assert found == OutputVerdict("run.sh", Verdict.DIVERGED, "bytes", detail)


def test_no_comparator_calls_other_bytes_identical(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of another distribution may call so what it takes for equal."""
    careless = Comparator(lambda *_: Comparison(Verdict.IDENTICAL))
    monkeypatch.setattr(outputs, "comparator_of", lambda *_: careless)
    (found,) = compare_outputs(files.run(a=b"1"), files.run(a=b"2"), {"a": OutputRule("json")}, files.open)
    assert found == OutputVerdict("a", Verdict.EQUIVALENT, "json", "equal to `json`; the bytes differ")


def test_the_executable_bit_counts_even_if_the_content_is_equivalent(files: Files) -> None:
    original, replayed = files.output("a", b"1", True), files.output("a", b" 1")
    (found,) = compare_outputs({"a": original}, {"a": replayed}, {"a": OutputRule("json")}, files.open)
    assert found.verdict is Verdict.DIVERGED
    assert found.detail.startswith("executable in the original only; formatting only")


@pytest.mark.parametrize(
    ("path", "comparator"),
    [
        ("out/a.json", "json"),
        ("out/deep/b", "json"),
        ("out/log/x.txt", "text"),
        ("out/log/raw", "bytes"),
        ("outside", "bytes"),
        ("stdout", "text"),
    ],
)
@pytest.mark.parametrize("slash", ["", "/"])
def test_the_longest_key_that_covers_a_path_gives_the_rule(
    files: Files, path: str, comparator: str, slash: str
) -> None:
    rules = {
        f"out{slash}": OutputRule("json"),
        f"out/log{slash}": OutputRule("text"),
        "out/log/raw": OutputRule("bytes"),
        "stdout": OutputRule("text"),
    }
    run = {path: files.output(path, b"1")}
    (found,) = compare_outputs(run, run, rules, files.open)
    assert found.comparator == comparator


def test_the_rule_reaches_the_comparator(files: Files) -> None:
    rules = {"out": OutputRule("json", rtol=0.1)}
    original, replayed = files.output("out/m.json", b"100"), files.output("out/m.json", b"101")
    (found,) = compare_outputs({"out/m.json": original}, {"out/m.json": replayed}, rules, files.open)
    assert found.verdict is Verdict.EQUIVALENT
    assert "inside rtol 0.1, atol 0" in found.detail


def test_a_rule_that_cannot_be_used_is_refused_before_anything_is_compared(files: Files) -> None:
    with pytest.raises(UsageError, match="no comparator is called 'tabel'"):
        compare_outputs(files.run(a=b"1"), files.run(a=b"2"), {"zz": OutputRule("tabel")}, files.open)
    assert files.opened == []


def test_a_file_that_cannot_be_read_is_named(files: Files) -> None:
    original, replayed = files.run(a=b"1"), files.run(a=b"2")
    lost = files.folder / hex_of(Digest(replayed["a"].sha256))
    lost.unlink()
    with pytest.raises(OutsideError) as error:
        compare_outputs(original, replayed, {}, files.open)
    assert error.value.what == "output 'a' cannot be compared"
    assert str(lost) in error.value.why


@pytest.mark.parametrize(
    ("path", "before", "after", "detail"),
    [
        ("a.csv", b"id,x\n1,2\n", b"id,x\n1,3\n", "bytes differ; as table: 1 of 1 row differs; x: 1 differs, most"),
        ("a.json", b"[1]", b"[ 1]", "bytes differ; as json: formatting only; allowed: rtol 0, atol 0"),
        ("a.json", b"[1]", b"[", "bytes differ; as json: replay: not JSON: line 1 column 2"),
        ("a.txt", b"1", b"2", "1 bytes in both, first difference at byte 0, line 1"),
        ("a", b"1", b"2", "1 bytes in both, first difference at byte 0, line 1"),
    ],
)
def test_bytes_decide_and_the_name_says_who_explains(
    files: Files, path: str, before: bytes, after: bytes, detail: str
) -> None:
    (found,) = compare_outputs({path: files.output(path, before)}, {path: files.output(path, after)}, {}, files.open)
    assert (found.verdict, found.comparator) == (Verdict.DIVERGED, "bytes")
    assert found.detail.startswith(detail)


def test_large_files_and_missing_extras_explain_nothing(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def detail() -> str:
        one, two = files.output("a.csv", b"x\n1\n"), files.output("a.csv", b"x\n2\n")
        return compare_outputs({"a.csv": one}, {"a.csv": two}, {}, files.open)[0].detail

    assert detail().startswith("bytes differ; as table")
    with monkeypatch.context() as patch:
        patch.setattr(outputs, "MAX_EXPLAINED", 3)
        assert detail().startswith("4 bytes in both")
    monkeypatch.setattr(extras, "find_spec", lambda module: None)
    assert detail().startswith("4 bytes in both")


def test_auto_is_told_as_what_it_chose(files: Files) -> None:
    original, replayed = files.output("out/a.csv", b"x\n1\n"), files.output("out/a.csv", b"x\n1.1\n")
    rules = {"out": OutputRule("auto", rtol=0.5, share=0.1)}
    (found,) = compare_outputs({"out/a.csv": original}, {"out/a.csv": replayed}, rules, files.open)
    assert (found.verdict, found.comparator) == (Verdict.EQUIVALENT, "table")


def test_an_extra_that_is_missing_is_told_before_files_are_opened(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, replayed = files.run(a=b"1"), files.run(a=b"2")
    monkeypatch.setattr(extras, "find_spec", lambda module: None)
    with pytest.raises(UsageError, match="the comparator `table` cannot work here"):
        compare_outputs(original, replayed, {"a": OutputRule("table")}, files.open)
    assert files.opened == []
