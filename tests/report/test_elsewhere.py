"""A night where people already look: JUnit XML, GitHub's annotations and its step summary."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import msgspec
import pytest

from runner.cli.nightly import text_of
from runner.report.github import MOST_ANNOTATIONS, MOST_ROWS, summary, workflow_commands
from runner.report.junit import junit
from runner.report.words import why
from runner.state.night import Moving, Night, PinTrouble
from runner.store.nights import rows_of
from tests.conftest import Workspace
from tests.report.kept import keep
from tests.report.made import FILES, diverged, night_of, nights, run_of
from tests.report.test_page import HOSTILE, hostile_night

ATTRIBUTES = {
    "testsuites": {"name", "time", "tests", "failures", "disabled", "errors"},
    "testsuite": {"name", "tests", "failures", "errors", "time", "disabled", "skipped", "timestamp", "hostname", "id"},
    "testcase": {"name", "assertions", "time", "classname", "status"},
    "properties": set(),
    "property": {"name", "value"},
    "failure": {"type", "message"},
    "error": {"type", "message"},
    "skipped": {"message"},
}
CHILDREN = {
    "testsuites": "(testsuite )*",
    "testsuite": "(properties )?(testcase )*(system-out )?(system-err )?",
    "testcase": "(properties )?(skipped )?(error )*(failure )*(system-out )*(system-err )*",
    "properties": "(property )*",
}
REQUIRED = {"testsuite": {"name", "tests"}, "testcase": {"name", "classname"}, "property": {"name"}}
"""The schema that Jenkins publishes (junit-4.xsd), and `properties` in a test case, as pytest writes them."""


def checked(data: bytes) -> ElementTree.Element:
    """The document, which has the common shape."""
    root = ElementTree.fromstring(data)
    assert root.tag == "testsuites"
    for element in root.iter():
        assert set(element.attrib) <= ATTRIBUTES[element.tag]
        assert set(element.attrib) >= REQUIRED.get(element.tag, set())
        assert re.fullmatch(CHILDREN.get(element.tag, ""), "".join(f"{child.tag} " for child in element))
    for suite in root:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.attrib["timestamp"])
        assert int(suite.attrib["tests"]) == len(suite.findall("testcase"))
    return root


def last_night() -> Night:
    return list(nights(20, 3))[-1]


def test_junit_has_a_case_for_each_run_and_says_what_it_came_to() -> None:
    left_out = run_of("late-20261120-aaaaaa", verdict="not-run", moved="not-run")
    night = last_night()
    night = night_of(*night.runs, left_out, suite="nightly")
    root = checked(junit(night))
    suite = root[0]
    found = {key: suite.attrib[key] for key in ("tests", "failures", "errors", "skipped")}
    assert found == {"tests": "21", "failures": "3", "errors": "1", "skipped": "1"}
    (failure, *_) = suite.iter("failure")
    assert failure.attrib == {"type": "diverged", "message": "diverged: cause: scikit-learn 1.3.2 → 1.4.0"}
    assert "scores.csv: diverged" in str(failure.text) and "again: replay train-" in str(failure.text)
    told = {one.attrib["name"]: one.attrib["value"] for one in suite.findall("testcase")[0].iter("property")}
    assert told["verdict"] == "diverged" and told["state-digest"].startswith("sha256:") and told["run-id"]
    assert junit(night) == junit(night)


@pytest.mark.parametrize("proven", [True, False])
def test_what_is_not_proven_is_no_cause(proven: bool) -> None:
    night = night_of(diverged("train-20261120-aaaaaa", proven=proven))
    told = "cause: " if proven else "suspects: "
    assert f"{told}scikit-learn 1.3.2 → 1.4.0" in why(night.runs[0])
    for text in (junit(night).decode(), text_of(night)):
        assert f"{told}dependencies scikit-learn 1.3.2 → 1.4.0" in text
        assert ("cause:" in text, "suspects:" in text) == (proven, not proven)
    (row,) = rows_of(night)
    assert row.cause == ("dependencies scikit-learn" if proven else "")


def test_what_of_the_code_is_the_cause_is_said_everywhere() -> None:
    cause = Moving("code", "files", "sha256:628b", "sha256:f6ef", "of it: churn.py")
    night = night_of(diverged("train-20261120-aaaaaa", cause=(cause,), proven=True))
    for text in (why(night.runs[0]), junit(night).decode(), text_of(night), workflow_commands(night)):
        assert "files sha256:628b → sha256:f6ef (of it: churn.py)" in text.replace("%3A", ":")


def test_what_a_night_had_no_time_for_is_said_everywhere() -> None:
    night = night_of(run_of(), left_out=3, left_out_runs=("a-20261120-aaaaaa", "b-20261120-bbbbbb"))
    (suite,) = checked(junit(night))
    cases = [(case.attrib["name"], case.find("skipped") is not None) for case in suite.findall("testcase")]
    assert cases[1:] == [("a-20261120-aaaaaa", True), ("b-20261120-bbbbbb", True), ("1 run more", True)]
    assert (suite.attrib["tests"], suite.attrib["skipped"]) == ("4", "3")
    (earlier,) = checked(junit(night_of(run_of(), left_out=3)))
    assert [case.attrib["name"] for case in earlier.findall("testcase")][1:] == ["3 runs"], "of earlier versions"
    assert summary(night).startswith(
        "## <code>nightly</code>: 1 run as good as before; 3 not looked at for want of time\n"
    )
    assert workflow_commands(night) == "::warning title=nightly::3 not looked at for want of time\n"


def test_what_is_varied_stands_beside_the_name() -> None:
    night = night_of(run_of(), against=".", setting=("env.A=b c",))
    assert summary(night).startswith("## <code>nightly &#45;&#45;against &#46; &#45;&#45;set ")
    (suite,) = checked(junit(night))
    told = {one.attrib["name"]: one.attrib["value"] for one in suite.findall("properties/property")}
    assert told["variation"] == "--against . --set 'env.A=b c'"


def test_what_was_set_and_changed_nothing_is_said() -> None:
    night = night_of(run_of(), run_of("b-20261120-bbbbbb"), setting=("dependencies=latest",), as_recorded=2)
    told = summary(night)
    assert "quiet" not in told
    assert "2 of 2 runs are as recorded: nothing newer fits their requirements" in told
    some = night_of(run_of(), run_of("b-20261120-bbbbbb"), setting=("env.A=b",), as_recorded=1)
    told = summary(some)
    assert "a quiet night" in told and "1 of 2 runs is as recorded: what was set changes nothing of it" in told


@pytest.mark.parametrize("words", HOSTILE)
def test_junit_stays_well_formed_whatever_runs_are_called(words: str) -> None:
    root = checked(junit(hostile_night(words)))
    assert len(root) == 1 and len(root[0].findall("testcase")) == 1


def test_annotations_are_errors_for_what_is_new_and_warnings_for_the_rest() -> None:
    lines = workflow_commands(last_night()).splitlines()
    assert re.match(r"::error title=train-\S+%3A regressed::diverged\. cause: .*%0Aagain: replay train", lines[0])
    assert [line.split(" ")[0] for line in lines] == ["::error"] + ["::warning"] * 5
    many = night_of(*(diverged(f"a-20261120-{n:06}") for n in range(50)))
    lines = workflow_commands(many).splitlines()
    assert len(lines) == MOST_ANNOTATIONS and "and 41 more" in lines[-1]
    assert workflow_commands(night_of(run_of())) == ""


def test_a_pin_is_named_once_with_those_who_need_it() -> None:
    code = PinTrouble("code", "code", "sha256:1", ("store",), ("a-1", "b-2", "c-3", "d-4"))
    lost = PinTrouble("wheel", "alpha.whl", "sha256:2", (), ("a-1",))
    night = msgspec.structs.replace(night_of(run_of()), pins=(code, lost))
    assert workflow_commands(night).splitlines() == [
        "::warning title=code::left in store only; needed by 4 runs: a-1, b-2, c-3 and 1 more",
        "::warning title=wheel alpha.whl::lost; needed by 1 run: a-1",
    ]
    assert text_of(night).splitlines()[-1] == "lost       wheel alpha.whl, needed by 1 run: a-1"
    assert "<code>code</code>: " in summary(night)


@pytest.mark.parametrize("words", [*HOSTILE, "a\n::error::b", "%0A::stop-commands::x", "a,b:c::d"])
def test_no_text_is_a_command_of_the_runner(words: str) -> None:
    lines = workflow_commands(hostile_night(words)).splitlines()
    assert [line.split(" ", 1)[0] for line in lines] == ["::error", "::warning"]
    for line in lines:
        title, _, message = line.split(" ", 1)[1].removeprefix("title=").partition("::")
        assert not re.search("[,:]", title) and message.isprintable()
        assert not re.search("%(?!25|0D|0A|3A|2C)", line)


def test_the_summary_names_what_is_gone() -> None:
    told = summary(night_of(gone=("a", "b", "c", "d")))
    assert "\n4 runs of last night are gone: <code>a&#44; b&#44; c and 1 more</code>\n" in told


def test_the_summary_has_what_moved() -> None:
    told = summary(last_night())
    for words in ("New regressions (1)", "Flaky (1)", "Not run (1)", "Down to the last copy, or lost (2)"):
        assert f"### {words}" in told
    assert "As good as before" not in told
    many = summary(night_of(*(diverged(f"a-20261120-{n:06}") for n in range(5000))))
    assert len(many.splitlines()) < MOST_ROWS + 20 and "and 4,900 more" in many
    assert len(many) < 1 << 20


@pytest.mark.parametrize("words", [*HOSTILE, "| a | b |\n## c", "![x](http://x) @user #1 https://x.org *b* `c`"])
def test_no_text_is_markup_of_the_summary(words: str) -> None:
    plain, hostile = summary(hostile_night("harmless")), summary(hostile_night(words))
    for entity in re.findall(r"<code>(.*?)</code>", hostile):
        assert re.fullmatch(r"(?:\w| |&#\d+;)*", entity)

    def bare(text: str) -> str:
        return re.sub(r"<code>.*?</code>", "", text)

    assert bare(hostile) == bare(plain)


def test_the_command_writes_and_tells(workspace: Workspace) -> None:
    keep(workspace.root, nights(20, 3), FILES)
    file = workspace.write("summary.md", "before\n")
    done = workspace.replay("report", "--junit", "out/junit.xml", "--github", "--json", GITHUB_STEP_SUMMARY=str(file))
    assert done.code == 0 and done.json["written"] == ["out/junit.xml"], done
    assert done.err.startswith("::error title=train-")
    assert file.read_text().startswith("before\n## <code>nightly</code>: 1 regressed")
    checked((workspace.root / "out/junit.xml").read_bytes())
    done = workspace.replay("report", "--github", GITHUB_STEP_SUMMARY="")
    assert done.code == 0 and "::error" not in done.out and "::error" in done.err
    done = workspace.replay("report", "--github", GITHUB_STEP_SUMMARY="/nowhere/x")
    assert done.code == 7 and "cannot add to" in done.err
