"""`replay bisect` on the real engine: one line names what turned a good run into a bad one, and proves it."""

from __future__ import annotations

import json
import multiprocessing
import select
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from runner import bisecting
from runner.bisecting import Bisect, Request
from runner.errors import InterruptedRunError
from runner.run import Session
from runner.state.schemas import schemas
from runner.suspects import finished
from runner.tools.containers import Engine
from runner.tools.interrupts import Interrupts
from runner.tools.judge_program import run_judge
from runner.trials import Done, on
from runner.workspace import open_workspace
from tests.conftest import Index, Workspace, until, wheel
from tests.engine.conftest import check_left_over

pytestmark = pytest.mark.engine

GOOD, BAD = "good", "bad"
NAMES = [f"V{number}" for number in range(6)]


class Job:
    """A shell job whose result depends on its variables and params; `record` runs it with some of them."""

    def __init__(self, workspace: Workspace, image: str, command: str, outputs: Any = ("m.json",)) -> None:
        self.workspace = workspace
        self.fixed = {"command": command, "image": image, "python": None, "outputs": outputs}

    def record(self, env: dict[str, str], code: int = 0, **more: Any) -> str:
        self.workspace.jobs(t=self.fixed | {"env": env} | more)
        done = self.workspace.replay("run", "t", "--json")
        assert done.code == code, done
        return str(done.json["run_id"])

    def both(self, good: dict[str, str], bad: dict[str, str], code: int = 0) -> tuple[str, str]:
        """Two runs that also differ in some variables that nothing depends on."""
        return self.record(good | dict.fromkeys(NAMES, "1")), self.record(bad | dict.fromkeys(NAMES, "2"), code)


@pytest.fixture
def job(workspace: Workspace, shell_image: str) -> Callable[..., Job]:
    def make(command: str, **more: Any) -> Job:
        return Job(workspace, shell_image, command, **more)

    return make


def bisected(workspace: Workspace, *arguments: str, code: int = 0) -> dict[str, Any]:
    done = workspace.replay("bisect", *arguments, "--json")
    assert done.code == code, done
    check_left_over(workspace)
    check_published("bisect", done.json)
    return done.json


def check_published(name: str, found: dict[str, Any]) -> None:
    """It is as the published schema says, and has no key beside those."""
    schema = schemas()[name]
    jsonschema_rs.validate(schema, found)
    (own,) = (one for one in schema["$defs"].values() if one["title"] == schema["$ref"].rpartition("/")[2])
    assert found.keys() <= own["properties"].keys()


def names(listed: list[dict[str, str]]) -> list[str]:
    return [f"{one['layer']} {one['name']}" for one in listed]


def score(condition: str) -> str:
    return f"if {condition}; then echo '{{\"score\": 0.5}}' >m.json; else echo '{{\"score\": 0.9}}' >m.json; fi"


MODE = score('[ "$MODE" = new ]')
OLD, NEW = {"MODE": "old"}, {"MODE": "new"}


def test_a_variable_is_named_and_proven_both_ways(workspace: Workspace, job: Callable[..., Job]) -> None:
    good, bad = job(MODE).both(OLD, NEW)
    done = workspace.replay("bisect", good, bad)
    assert done.code == 0, done
    cause, *rows, counts, again = done.out.splitlines()
    assert cause == "CAUSE  MODE old → new  (1 of 7 changes)"
    assert [row.split() for row in rows] == [
        ["good", "good", "m.json", "score", "0.9"],
        ["good", "+", "MODE", "bad", "m.json", "score", "0.5"],
        ["bad", "bad", "m.json", "score", "0.5"],
        ["bad", "−", "MODE", "good", "m.json", "score", "0.9"],
    ]
    assert counts.endswith("0 unresolved; flakes 0/3, 0/3")
    assert "changes left, some" in done.err

    found = bisected(workspace, good, bad)
    assert found["cause"] == [{"layer": "env", "name": "MODE", "good": "old", "bad": "new"}]
    assert found["proven"] and found["independent"] == found["companions"] == [] and found["unresolved"] == 0
    assert 2 <= found["trials"] <= 5 and found["trials"] == found["rounds"]

    # What it was is an ordinary run, and can be run again by hand.
    trial = again.split()[-1]
    replayed = workspace.replay("bisect", "replay", trial, "--json")
    assert replayed.code == 0 and replayed.json["verdict"] == "identical" and replayed.json["replay_of"] == trial
    assert workspace.replay("diff", good, trial, "--json").json["changes"] == [
        {"layer": "env", "name": "MODE", "a": "old", "b": "new"}
    ]
    assert trial in workspace.replay("ls", "--label", "bisect").out
    assert trial not in workspace.replay("ls").out
    reviewed = str(list(workspace.root.glob("state_specs/*")))
    assert trial not in reviewed and replayed.json["run_id"] not in reviewed


def test_asked_again_it_costs_nothing_and_no_engine(workspace: Workspace, job: Callable[..., Job]) -> None:
    good, bad = job(MODE).both(OLD, NEW)
    first = bisected(workspace, good, bad)
    before = workspace.replay("ls", "--label", "bisect", "-n", "0", "--json").json
    again = workspace.replay("bisect", good, bad, "--json", DOCKER_HOST="unix:///nowhere.sock")
    assert again.code == 0 and again.json == first
    assert workspace.replay("ls", "--label", "bisect", "-n", "0", "--json").json == before
    for words in (["show"], ["resume"], ["show", first["bisect"]]):
        assert workspace.replay("bisect", *words, "--json").json == first
    check_published("bisect-log", workspace.replay("bisect", "log", "--json").json)
    log = workspace.replay("bisect", "log")
    assert log.code == 0 and log.out.count("\n") == 1 + 6 + first["trials"] and "good + " in log.out
    by_number = workspace.replay("bisect", "replay", "4", "--json")
    assert by_number.code == 0 and by_number.json["verdict"] == "identical"


def test_another_judge_uses_the_trials_of_the_first(workspace: Workspace, job: Callable[..., Job]) -> None:
    good, bad = job(MODE).both(OLD, NEW)
    bisected(workspace, good, bad)
    ran = len(workspace.replay("ls", "--label", "bisect", "-n", "0", "--json").json["runs"])
    found = bisected(workspace, good, bad, "--metric", "m.json:score", "--good", ">= 0.8")
    assert names(found["cause"]) == ["env MODE"] and found["proven"]
    # Only the ends are looked at anew.
    assert len(workspace.replay("ls", "--label", "bisect", "-n", "0", "--json").json["runs"]) == ran + 4


def test_a_value_of_two_lines_is_no_line_of_its_own(workspace: Workspace, job: Callable[..., Job]) -> None:
    two = "old\nCAUSE  fake"
    good, bad = job(MODE).both({"MODE": two}, NEW)
    assert workspace.replay("bisect", good, bad).out.startswith(
        "CAUSE  MODE old\\nCAUSE  fake → new  (1 of 7 changes)\n"
    )
    told = workspace.replay("diff", good, bad).out.splitlines()
    assert sum("MODE" in line for line in told) == sum("fake" in line for line in told) == 2, told


def test_two_that_must_meet_and_two_independent(workspace: Workspace, job: Callable[..., Job]) -> None:
    meet = job(score('[ "$A$B" = 22 ]'))
    good, bad = meet.both({"A": "1", "B": "1"}, {"A": "2", "B": "2"})
    found = bisected(workspace, good, bad)
    assert names(found["cause"]) == ["env A", "env B"] and found["proven"] and not found["independent"]
    assert "must meet" in workspace.replay("bisect", "show").out

    either = job(score('[ "$A" = 2 ] || [ "$B" = 2 ]'))
    good, bad = either.both({"A": "1", "B": "1"}, {"A": "2", "B": "2"})
    found = bisected(workspace, good, bad)
    assert sorted(names(found["cause"]) + names(found["independent"][0])) == ["env A", "env B"] and found["proven"]
    assert "independent cause 2 of 2" in workspace.replay("bisect", "show").out


def test_each_row_shows_a_value_that_decided(workspace: Workspace, job: Callable[..., Job]) -> None:
    """Two values differ between the ends, each by a cause of its own, and a row shows the one that is not good's."""
    made = job('echo "{\\"r2\\": $R, \\"mode\\": $MODE}" >m.json')
    good, bad = made.both({"R": "1", "MODE": "1"}, {"R": "2", "MODE": "2"})
    rows = {row["state"]: row for row in bisected(workspace, good, bad)["proof"]}
    assert [rows[state]["shown"].partition("  ")[0] for state in ("good", "good + MODE", "good + R", "bad")] == [
        "m.json r2 1",
        "m.json mode 2",
        "m.json r2 2",
        "m.json r2 2",
    ]


def test_params_are_taken_apart_by_key(workspace: Workspace, shell_image: str) -> None:
    job = Job(workspace, shell_image, 'case "$REPLAY_PARAMS" in *\'"depth":9\'*) echo b;; *) echo g;; esac', ["stdout"])
    good = job.record({}, params={"net": {"depth": 3, "width": 4}, "rate": 0.1, "gone": 1})
    bad = job.record({}, params={"net": {"depth": 9, "width": 5}, "rate": 0.2, "new": {"x": 1}})
    found = bisected(workspace, good, bad)
    assert found["cause"] == [{"layer": "params", "name": "net.depth", "good": "3", "bad": "9"}]
    assert found["changes"] == 5 and found["proven"]


PARAMS = {
    "p.yaml": "# by hand\nnet:\n  depth: {0}\n  width: {0}\nrate: 1e-{0}  # small\n",
    "p.json": '{{"net": {{"depth": {0}, "width": {0}}}, "rate": 0.{0}}}\n',
    "p.toml": "since = 2026-01-0{0}\n[net]\nother = {{depth = {0}1, width = {0}}}\ndepth = {0}\n",
}


@pytest.mark.parametrize("name", PARAMS)
def test_a_params_file_is_taken_apart_by_key(workspace: Workspace, shell_image: str, name: str) -> None:
    deep = """case "$(cat %s)" in *'"depth": 9'*|*'
  depth: 9'*|*'
depth = 9'*) echo b;; *) echo g;; esac"""
    job = Job(workspace, shell_image, deep % name, ["stdout"])
    runs = []
    for depth in (3, 9):
        workspace.write(name, PARAMS[name].format(depth))
        runs.append(job.record({}, params=name))
    found = bisected(workspace, *runs)
    assert names(found["cause"]) == ["params net.depth"] and found["proven"]
    assert found["changes"] == (4 if name == "p.toml" else 3)


def test_a_log_is_not_read_under_another_numbering(workspace: Workspace, shell_image: str) -> None:
    """Without its texts a TOML file is one change: the numbers of the log stand for keys that are none any more."""
    job, runs = Job(workspace, shell_image, "cat p.toml >m.json"), []
    for depth in (3, 9):
        workspace.write("p.toml", PARAMS["p.toml"].format(depth))
        runs.append(job.record({"MODE": str(depth)}, params="p.toml"))
    found = bisected(workspace, *runs, "--judge", "! grep -q 'width = 9' m.json")
    assert names(found["cause"]) == ["params net.other.width"] and found["proven"]
    shown = workspace.replay("show", runs[1], "--json").json
    text = workspace.blob(shown["spec"]["state"]["params"]["sha256"])
    away = text.rename(text.with_suffix(".away"))
    for words in (["show"], ["log"], ["show", found["bisect"]]):
        refused = workspace.replay("bisect", *words, "--json")
        assert refused.code == 2 and "divided otherwise" in refused.json["error"]["what"], refused
    resumed = workspace.replay("bisect", "resume")
    assert f"bisect {found['bisect']} goes on as " in resumed.err and resumed.code == 5, resumed
    away.rename(text)
    assert workspace.replay("bisect", "show", found["bisect"], "--json").json == found
    assert bisected(workspace, "resume", found["bisect"]) == found


def test_a_bad_job_that_crashes_and_a_crash_that_is_not_its_own(workspace: Workspace, job: Callable[..., Job]) -> None:
    """A and B crash otherwise when only one of them is new: that says nothing, and is never called bad."""
    crash = 'case "$A$B" in 12|21) echo "ImportError: half" >&2; exit 1;; esac\n'
    crash += 'if [ "$MODE" = new ]; then echo "ValueError: boom" >&2; exit 1; fi; echo "{}" >m.json'
    made = job(crash)
    good, bad = made.both(OLD | {"A": "1", "B": "1"}, NEW | {"A": "2", "B": "2"}, code=4)
    found = bisected(workspace, good, bad)
    assert names(found["cause"]) == ["env MODE"] and found["proven"]
    assert "exit 1: ValueError: boom" in workspace.replay("bisect", "show").out


def test_a_crash_is_shown_with_what_it_said_by_a_metric_too(workspace: Workspace, job: Callable[..., Job]) -> None:
    made = job('if [ "$MODE" = new ]; then echo "ValueError: boom" >&2; exit 1; fi; echo "{\\"n\\": 1}" >m.json')
    good, bad = made.both(OLD, NEW, code=4)
    found = bisected(workspace, good, bad, "--metric", "m.json:n", "--good", "> 0")
    assert names(found["cause"]) == ["env MODE"] and found["proof"][1]["shown"] == "exit 1: ValueError: boom"


def test_a_judge_of_ones_own(workspace: Workspace, job: Callable[..., Job]) -> None:
    good, bad = job(MODE).both(OLD, NEW)
    found = bisected(workspace, good, bad, "--judge", "echo seen; grep -q 0.9 m.json")
    assert names(found["cause"]) == ["env MODE"] and found["proven"]
    stopped = workspace.replay("bisect", good, bad, "--judge", "exit 126", "--json")
    assert stopped.code == 2 and "126" in stopped.json["error"]["what"] and "ask again" in stopped.json["error"]["next"]
    assert workspace.replay("bisect", "show", "--json").json == found, "what was stopped so is none to show"
    assert "good + MODE  bad   judge said 1; m.json score 0.5\n" in workspace.replay("bisect", "show").out
    unknown = workspace.replay("bisect", good, bad, "--judge", "./judge.sh", "--json")
    assert unknown.code == 2 and "whole path" in unknown.json["error"]["why"]
    unread = workspace.replay("bisect", good, bad, "--judge", "grep -qf words.txt m.json", "--json")
    assert unread.code == 2 and "whole path" in unread.json["error"]["next"], "grep ends with 2, which is bad"


def write_judge(file: Path, name: str) -> str:
    """The command of a judge that finds a run good as long as one value is 1, and notes of which runs it was asked."""
    file.write_text(f'echo "$REPLAY_RUN" >>{file}.log\ngrep -q "^{name}=1$" o.txt\n')
    return f"sh {file}; exit $?"


def test_a_judge_that_was_mended_is_asked_again(workspace: Workspace, job: Callable[..., Job], tmp_path: Path) -> None:
    made = job('printf "A=%s\\nB=%s\\n" "$A" "$B" >o.txt', outputs=["o.txt"])
    good, bad = made.both({"A": "1", "B": "1"}, {"A": "2", "B": "2"})
    file = tmp_path / "judge.sh"
    command = write_judge(file, "A")
    first = bisected(workspace, good, bad, "--judge", command)
    assert names(first["cause"]) == ["env A"]
    assert bisected(workspace, good, bad, "--judge", command) == first

    # No matter how it reads: another text is another judge, which is asked of the outputs that are there.
    file.write_text(file.read_text() + "# the same\n")
    Path(f"{file}.log").unlink()
    listed = ["ls", "--label", "bisect", "-n", "0", "--json"]
    ran = len(workspace.replay(*listed).json["runs"])
    again = bisected(workspace, good, bad, "--judge", command)
    assert again["cause"] == first["cause"] and again["bisect"] != first["bisect"]
    assert len(workspace.replay(*listed).json["runs"]) == ran + 4, "only the ends are looked at anew"
    asked = Path(f"{file}.log").read_text().split()
    tried = {row["run_id"] for row in first["proof"]}
    assert len(tried.intersection(asked)) >= 2

    write_judge(file, "B")
    assert names(bisected(workspace, good, bad, "--judge", command)["cause"]) == ["env B"]
    assert workspace.replay("bisect", "show", first["bisect"], "--json").json == first


def test_a_judge_that_was_mended_meanwhile_goes_on_with_no_answer_of_the_old(
    workspace: Workspace, job: Callable[..., Job], tmp_path: Path
) -> None:
    made = job('printf "A=%s\\nB=%s\\n" "$A" "$B" >o.txt', outputs=["o.txt"])
    good, bad = made.both({"A": "1", "B": "1"}, {"A": "2", "B": "2"})
    file = tmp_path / "judge.sh"
    first = bisected(workspace, good, bad, "--judge", write_judge(file, "A"), "--budget", "2", code=1)
    assert workspace.replay("bisect", "show", "--json").json == first
    command = write_judge(file, "B")
    done = workspace.replay("bisect", "resume", "--json")
    assert done.code == 0 and names(done.json["cause"]) == ["env B"] and not done.json["independent"], done
    assert "the judge changed" in done.err
    assert bisected(workspace, good, bad, "--judge", command) == bisected(workspace, "resume") == done.json
    assert workspace.replay("bisect", "show", first["bisect"], "--json").json == first


def test_one_output_alone(workspace: Workspace, job: Callable[..., Job]) -> None:
    made = job('echo "$A" >a.txt; echo "$B" >b.txt', outputs=["a.txt", "b.txt"])
    good, bad = made.both({"A": "1", "B": "1"}, {"A": "2", "B": "2"})
    found = bisected(workspace, good, bad, "--output", "b.txt")
    assert names(found["cause"]) == ["env B"] and found["proven"]


def test_a_bad_run_that_does_not_reproduce_is_not_searched(workspace: Workspace, job: Callable[..., Job]) -> None:
    """It was bad because of something that no state holds: here, a file of the store's own place."""
    made = job('read -r line </proc/sys/kernel/random/uuid; echo "{\\"id\\": \\"$line\\"}" >m.json')
    good, bad = made.both(OLD, NEW)
    done = workspace.replay("bisect", good, bad, "--json")
    assert done.code == 1, done
    assert not done.json["proven"] and done.json["cause"] == [] and done.json["trials"] == 0
    judged = workspace.replay("bisect", good, bad, "--judge", f'test "$REPLAY_RUN" != {bad}')
    assert judged.code == 1 and f"NOT REPRODUCED  {bad}" in judged.out
    said = "2 reruns of its own state did not give what was recorded: the cause lies outside of\n"
    said += "what is recorded, or it is chance. Nothing that is observed of the machine differs between then and now.\n"
    assert judged.out.endswith(said)


def test_a_budget_ends_in_suspicion(workspace: Workspace, job: Callable[..., Job]) -> None:
    good, bad = job(MODE).both(OLD, NEW)
    found = bisected(workspace, good, bad, "--budget", "1", code=1)
    assert not found["proven"] and found["trials"] == 1
    assert "MODE" in json.dumps(found["suspects"]) and sum(one["probability"] for one in found["suspects"]) > 0.99
    assert "INCONCLUSIVE" in workspace.replay("bisect", "show").out
    assert bisected(workspace, "resume", "--budget", "1", code=1)["trials"] == 2, "each command has its own budget"
    refused = workspace.replay("bisect", "resume", "--judge", "true", "--json")
    assert refused.code == 2 and "--judge" in refused.json["error"]["what"]
    assert names(bisected(workspace, "resume")["cause"]) == ["env MODE"]


def test_a_budget_holds_for_taking_a_cause_apart_too(workspace: Workspace, shell_image: str) -> None:
    job = Job(workspace, shell_image, "cat lib/5.txt", ["stdout"])
    runs = []
    for side in ("old", "new"):
        for number in range(8):
            workspace.write(f"lib/{number}.txt", f"{side}\n")
        runs.append(job.record({}))

    def drilled(*arguments: str, code: int = 0) -> tuple[int, bool]:
        found = bisected(workspace, *arguments, code=code)
        (drill,) = found["drill"]
        assert found["trials"] == 0 and found["proven"]
        return drill["trials"], drill["proven"]

    assert [drilled(*words, "--budget", "1") for words in (runs, ["resume"])] == [(1, False), (2, False)]
    trials, is_proven = drilled("resume")
    assert trials > 2 and is_proven


def test_a_budget_of_time_ends_within_a_trial(workspace: Workspace, job: Callable[..., Job]) -> None:
    """The hybrid of the two would not end by itself."""
    good, bad = job('if [ "$A" != "$B" ]; then sleep 3600; fi; echo "$A" >m.json').both(
        {"A": "1", "B": "1"}, {"A": "2", "B": "2"}
    )
    found = bisected(workspace, good, bad, "--budget", "20s", code=1)
    assert not found["proven"] and not found["cause"]


def test_trials_side_by_side(workspace: Workspace, job: Callable[..., Job]) -> None:
    good, bad = job(MODE).both(OLD, NEW)
    found = bisected(workspace, good, bad, "-j", "4")
    assert names(found["cause"]) == ["env MODE"] and found["proven"] and found["rounds"] <= 3
    assert bisected(workspace, good, bad) == bisected(workspace, "show") == found, "it costs no trial to ask again"


def test_a_trial_that_can_no_longer_matter_is_cut_off(
    workspace: Workspace, job: Callable[..., Job], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two changes must meet: the trial without the first is asked for beside the guess that this one is enough, and
    is of no use once the guess is wrong."""
    made = job(score('[ "$A$B" = 22 ]'))
    runs = made.both({"A": "1", "B": "1"}, {"A": "2", "B": "2"})
    where = open_workspace(workspace.root, None)
    bisect = Bisect(where, Request(*runs, workers=2, history=False), run_judge)
    setup, cut_off = bisect.setup, []
    whole = setup.problem.everything
    both = {item for item, change in enumerate(setup.between.changes) if change.name in ("A", "B")}

    def trial(session: Session, *arguments: Any) -> Done:
        _, _, items, *_ = arguments
        if len(items) == len(whole) - 1 and not cut_off:
            done, _, _ = select.select([session.interrupts.fileno()], [], [], 300)
            cut_off.append(items)
            assert done, "nobody asked for it to be ended"
            raise InterruptedRunError("interrupted")
        run = setup.bad if both <= items else setup.good
        return Done(run, finished(run)[1])

    monkeypatch.setattr(bisecting, "run_trial", trial)
    interrupts = Interrupts()
    bisect.begin()
    result = bisect.go(Session(where, engine, interrupts, lambda _text: None), lambda _result: None)
    interrupts.close()
    assert result.found and result.found.proven and len(cut_off) == 1
    assert frozenset().union(*result.found.causes[0].parts) == both


def test_trials_run_on_the_workers_of_any_executor(
    workspace: Workspace, job: Callable[..., Job], engine: Engine
) -> None:
    """Processes here, which share nothing with the one that asks but the workspace, its store and the engine."""
    good, bad = job(MODE).both(OLD, NEW)
    where = open_workspace(workspace.root, None)
    made = Bisect(where, Request(good, bad, workers=2), run_judge)
    interrupts = Interrupts()
    made.folder.hold()
    try:
        made.begin()
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
            session = Session(where, engine, interrupts, lambda _text: None)
            result = made.go(session, lambda _result: None, on(executor, where))
    finally:
        made.folder.release()
        interrupts.close()
    assert result.found and result.found.proven
    check_left_over(workspace)
    assert names(bisected(workspace, good, bad)["cause"]) == ["env MODE"]


def test_what_cannot_be_asked_is_refused(workspace: Workspace, job: Callable[..., Job]) -> None:
    made = job(MODE)
    good, bad = made.both(OLD, NEW)
    same = made.record(NEW | dict.fromkeys(NAMES, "2"))
    refused = [
        [bad, same],
        [bad, good, "--judge", "grep -q 0.9 m.json"],
        [good],
        [good, bad, "--metric", "m.json"],
        [good, bad, "--metric", "m.json:score", "--good", "high"],
        [good, bad, "--budget", "soon"],
        [good, bad, "--output", "none.txt"],
        ["replay", "99"],
        [good, "."],
    ]
    for words in refused:
        done = workspace.replay("bisect", *words, "--json")
        assert done.code == 2 and done.json["error"]["what"], (words, done)
    assert "`replay run` records" in done.json["error"]["next"], "what is here now is no recorded run"


def test_what_was_refused_is_refused_again_and_is_no_bisect(workspace: Workspace, job: Callable[..., Job]) -> None:
    good, bad = job(MODE).both(OLD, NEW)
    first = bisected(workspace, good, bad)
    for _ in range(2):
        done = workspace.replay("bisect", good, bad, "--metric", "m.json:score", "--good", "> 0.1", "--json")
        assert done.code == 2 and f"{bad} was called bad" in done.json["error"]["what"], done
    for words in (["show"], ["resume"]):
        assert workspace.replay("bisect", *words, "--json").json == first


@pytest.mark.parametrize("kept", [0, 1])
def test_killed_while_the_recorded_runs_are_judged_both_are_judged_when_asked_again(
    workspace: Workspace, job: Callable[..., Job], kept: int
) -> None:
    good, bad = job(MODE).both(OLD, NEW)
    first = bisected(workspace, good, bad)
    log = workspace.root / ".replay" / "bisects" / first["bisect"] / "log.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:kept]))
    shown = workspace.replay("bisect", "show", "--json")
    assert shown.code == 1 and shown.json["trials"] == 0 and not shown.json["proven"], shown
    assert bisected(workspace, "resume")["cause"] == first["cause"]
    lines = workspace.replay("bisect", "log", "--json").json["lines"]
    assert [line["run_id"] for line in lines if line["doing"] == "recorded"] == [good, bad]


# --- checks, which are of the contract ------------------------------------------------------------------------


class Checked:
    """A job that copies a parameter, which is no matter, and writes a value, which its command decides."""

    def __init__(self, workspace: Workspace, image: str) -> None:
        self.job = Job(workspace, image, "", {"m.json": "json", "n.json": {"compare": "json", "ignore": ["n"]}})

    def record(self, value: int, number: int, *checks: dict[str, Any], code: int = 0) -> str:
        self.job.workspace.write("p.json", json.dumps({"n": number}))
        self.job.fixed["command"] = f"cp p.json n.json; echo '{{\"v\":{value}}}' >m.json"
        return self.job.record({}, code=code, params="p.json", checks=list(checks))


def limit(path: str, most: int, **more: Any) -> dict[str, Any]:
    return {"on": path, "metrics": {"n": f"<= {most}"}} | more


@pytest.mark.parametrize("path", ["n.json", "p.json"])
def test_checks_that_the_ends_declare_differently_are_left_out(
    workspace: Workspace, shell_image: str, path: str
) -> None:
    """After the job, and before it starts: the limit of one end would halt the values of the other."""
    made = Checked(workspace, shell_image)
    alike = limit("n.json", 99, name="alike")
    good = made.record(1, 3, limit(path, 5), alike)
    bad = made.record(2, 30, limit(path, 50), alike)
    found = bisected(workspace, good, bad)
    assert names(found["cause"]) == ["code command"] and found["proven"] and not found["independent"]
    assert found["checks_left_out"] == [f"metrics of {path}"]
    for words in ((good, bad), ("show",), ("log",)):
        told = workspace.replay("bisect", *words)
        assert f"left out of every trial: metrics of {path}\n" in told.out, told
    (trial, *_) = (row["run_id"] for row in found["proof"] if row["state"].startswith("good + "))
    record = workspace.replay("show", trial, "--json").json["record"]
    assert [check["name"] for check in record["checks"]] == ["alike"]


def test_a_trial_that_ran_under_other_checks_is_not_taken(workspace: Workspace, shell_image: str) -> None:
    """The states are those of the bisect before, which knew nothing of the limit that halts one."""
    made = Checked(workspace, shell_image)
    lenient = [made.record(value, number) for value, number in ((1, 3), (2, 30))]
    assert names(bisected(workspace, *lenient)["cause"]) == ["code command"]
    strict = made.record(1, 3, limit("n.json", 5)), made.record(2, 30, limit("n.json", 5), code=6)
    found = bisected(workspace, *strict)
    assert names(found["cause"]) == ["params n"] and "checks_left_out" not in found


def test_an_end_halted_by_a_check_that_the_other_declares_differently_is_refused(
    workspace: Workspace, shell_image: str
) -> None:
    made = Checked(workspace, shell_image)
    good = made.record(1, 3, limit("n.json", 50))
    bad = made.record(1, 30, limit("n.json", 5), code=6)
    done = workspace.replay("bisect", good, bad, "--json")
    assert done.code == 2, done
    assert "metrics of n.json" in done.json["error"]["what"] and "differ" in done.json["error"]["why"]
    assert workspace.replay("ls", "--label", "bisect", "-n", "0", "--json").json["runs"] == []


def test_a_metric_that_neither_run_has_is_refused_with_what_there_is(
    workspace: Workspace, job: Callable[..., Job]
) -> None:
    made = job(
        'echo "{\\"score\\": $N, \\"by\\": {\\"kind\\": 1, \\"name\\": \\"x\\"}}" >m.json; echo a >a.txt',
        outputs=["m.json", "a.txt"],
    )
    good, bad = made.both({"N": "1"}, {"N": "2"})

    def refused(metric: str) -> dict[str, str]:
        done = workspace.replay("bisect", good, bad, "--metric", metric, "--good", "<= 1", "--json")
        assert done.code == 2, done
        return dict(done.json["error"])

    missing = refused("metrics.json:score")
    assert missing["what"] == "--metric: neither run has the output metrics.json"
    assert missing["why"] == "they have a.txt, m.json"
    for key in ("scores", "by", "by.name"):
        unknown = refused(f"m.json:{key}")
        assert unknown["what"] == f"--metric: m.json has no number {key} in either run"
        assert unknown["why"] == "it has by.kind, score"
    assert "no JSON" in refused("a.txt:score")["why"]
    assert names(bisected(workspace, good, bad, "--metric", "m.json:score", "--good", "<= 1")["cause"]) == ["env N"]


# --- cut off --------------------------------------------------------------------------------------------------


def _lines(workspace: Workspace) -> int:
    return sum(log.read_bytes().count(b"\n") for log in (workspace.store / "bisects").glob("*/log.jsonl"))


@pytest.mark.parametrize(
    ("number", "workers"),
    [
        (signal.SIGKILL, "1"),
        (signal.SIGINT, "3"),
        pytest.param(signal.SIGKILL, "3", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, "1", marks=pytest.mark.slow),
    ],
)
def test_cut_off_anywhere_it_goes_on(
    workspace: Workspace, job: Callable[..., Job], number: signal.Signals, workers: str
) -> None:
    good, bad = job(MODE).both(OLD, NEW)
    for wanted in (4, 7):
        running = workspace.start("bisect", good, bad, "-j", workers)
        until(lambda at=wanted, one=running: _lines(workspace) >= at or one.poll() is not None, "some trials")
        running.send_signal(number)
        _, err = running.communicate(timeout=300)
        assert running.returncode in (130, -number, 0), err
    (log,) = (workspace.store / "bisects").glob("*/log.jsonl")
    kept = _lines(workspace)
    with log.open("ab") as file:
        file.write(b'{"round": 99, "items": [1')
    found = bisected(workspace, "resume")
    assert names(found["cause"]) == ["env MODE"] and found["proven"]
    assert _lines(workspace) >= kept


# --- packages -------------------------------------------------------------------------------------------------


def _serve(index: Index, side: int) -> list[str]:
    """Packages of one side: `model` wants the `base` of its own time, `twin` and `other` each the other."""
    for number in range(8):
        index.add(wheel(f"plain{number}", f"{side}.0", {f"plain{number}.py": f"VALUE = {side}\n"}))
    index.add(wheel("base", f"{side}.0", {"base.py": f"VALUE = {side}\n"}))
    index.add(wheel("model", f"{side}.0", {"model.py": f"VALUE = {side}\n"}, (f"base>={side}",)))
    index.add(wheel("twin", f"{side}.0", {"twin.py": ""}, (f"other=={side}.0",)))
    index.add(wheel("other", f"{side}.0", {"other.py": ""}))
    index.add(wheel(f"only{side}", "1.0", {f"only{side}.py": ""}))
    return [f"{name}=={side}.0" for name in (*(f"plain{n}" for n in range(8)), "base", "model", "twin", "other")] + [
        f"only{side}==1.0"
    ]


def _packaged(workspace: Workspace, index: Index, code: str) -> tuple[str, str]:
    pip = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index.url, "PIP_FIND_LINKS": "", "PIP_RETRIES": "0"}
    image = workspace.image  # type: ignore[attr-defined]
    workspace.jobs(t={"command": ["python", "-c", code], "image": image, "dependencies": "r.in", "outputs": ["stdout"]})
    runs = []
    for side in (1, 2):
        workspace.write("r.in", "\n".join(_serve(index, side)) + "\n")
        runs.append(workspace.run("t", **pip)["run_id"])
    return runs[0], runs[1]


def test_a_package_with_what_must_come_along(python_workspace: Workspace, index: Index) -> None:
    good, bad = _packaged(python_workspace, index, "import model; print('value', model.VALUE)")
    index.close()
    found = bisected(python_workspace, good, bad)
    assert found["cause"] == [{"layer": "dependencies", "name": "model", "good": "1.0", "bad": "2.0"}]
    assert names(found["companions"]) == ["dependencies base"]
    assert found["proven"] and found["unresolved"] == 0 and found["changes"] == 14 and found["trials"] <= 6
    assert "came along, as they must: base" in python_workspace.replay("bisect", "show").out


def pushed_clone(workspace: Workspace, tmp_path: Path, record: Callable[[], tuple[str, str]]) -> tuple[Any, ...]:
    """Two runs, and a clone of what git has of them; their remote has the rest."""
    workspace.git("init", "-q")
    workspace.dvc("init")
    workspace.dvc("remote", "add", "-d", "share", str(tmp_path / "remote"))
    workspace.write(".gitignore", ".replay\n")
    runs = record()
    workspace.commit("all")
    assert workspace.replay("push").code == 0
    workspace.git("clone", "-q", str(workspace.root), str(tmp_path / "clone"))
    return (Workspace(tmp_path / "clone"), *runs)


def test_in_a_clone_that_pulled_nothing_the_remote_is_asked(
    python_workspace: Workspace, index: Index, tmp_path: Path
) -> None:
    """For the wheels, which say what goes together, for what is compared, and for what each trial is made of."""
    code = "import model; print('value', model.VALUE)"
    clone, good, bad = pushed_clone(python_workspace, tmp_path, lambda: _packaged(python_workspace, index, code))
    index.close()
    done = clone.replay("bisect", good, bad, "--trust", "--json")
    assert done.code == 0, done
    assert names(done.json["cause"]) == ["dependencies model"] and done.json["proven"]
    assert names(done.json["companions"]) == ["dependencies base"] and "fetched from" in done.err
    assert clone.git("status", "--porcelain") == ""
    check_left_over(clone)


def test_in_a_clone_a_crash_is_known_by_its_last_words(
    workspace: Workspace, job: Callable[..., Job], tmp_path: Path
) -> None:
    made = job('if [ "$MODE" = new ]; then echo "ValueError: boom" >&2; exit 1; fi; echo "{}" >m.json')
    clone, good, bad = pushed_clone(workspace, tmp_path, lambda: made.both(OLD, NEW, code=4))
    done = clone.replay("bisect", good, bad, "--trust", "--json")
    assert done.code == 0, done
    assert names(done.json["cause"]) == ["env MODE"] and done.json["proven"]


@pytest.mark.slow
def test_packages_that_need_each_other_are_one_block(python_workspace: Workspace, index: Index) -> None:
    code = "from importlib.metadata import version; print(version('twin'))"
    good, bad = _packaged(python_workspace, index, code)
    found = bisected(python_workspace, good, bad)
    assert names(found["cause"]) == ["dependencies other", "dependencies twin"] and found["proven"]
    assert [names(block) for block in found["blocks"]] == [["dependencies other", "dependencies twin"]]
    assert found["unresolved"] == 0


@pytest.mark.slow
def test_an_added_package_can_be_the_cause(python_workspace: Workspace, index: Index) -> None:
    code = "import importlib.util as u; print(u.find_spec('only2') is not None)"
    good, bad = _packaged(python_workspace, index, code)
    found = bisected(python_workspace, good, bad)
    assert found["cause"] == [{"layer": "dependencies", "name": "only2", "bad": "1.0"}] and found["proven"]


@pytest.mark.slow
def test_a_removed_package_can_be_the_cause(python_workspace: Workspace, index: Index) -> None:
    code = "import importlib.util as u; print(u.find_spec('only1') is not None)"
    good, bad = _packaged(python_workspace, index, code)
    found = bisected(python_workspace, good, bad)
    assert found["cause"] == [{"layer": "dependencies", "name": "only1", "good": "1.0"}] and found["proven"]


# --- into a cause ---------------------------------------------------------------------------------------------


def test_the_code_is_taken_apart_by_commit(workspace: Workspace, shell_image: str) -> None:
    """Seven commits, one of which turns it bad, and one that cannot run at all; requirements and such play no part."""
    workspace.git("init", "-q")
    workspace.write(".gitignore", ".replay\n")
    job = Job(workspace, shell_image, "sh lib/main.sh >out.txt", ["out.txt"])
    workspace.write("lib/main.sh", "echo 0.9\n")
    workspace.jobs(t=job.fixed)
    runs, commits = [], []
    steps = ["echo 0.9 # 1", "echo 0.9 # 2", "echo 0.9 # 3", "syntax ( error", "echo 0.5 # 5", "echo 0.5 # 6"]
    for number, step in enumerate(["echo 0.9", *steps]):
        workspace.write("lib/main.sh", f"{step}\n")
        workspace.write("notes.txt", f"{number}\n")
        workspace.commit(f"step {number}")
        commits.append(workspace.git("rev-parse", "HEAD"))
        if number in (0, len(steps)):
            runs.append(job.record({"N": str(number)}))
            workspace.git("add", "-A")
            workspace.git("commit", "-qm", "specs") if number == 0 else None
    found = bisected(workspace, *runs)
    assert names(found["cause"]) == ["code files"] and found["proven"]
    (drill,) = found["drill"]
    (parts,) = drill["parts"]
    assert drill["ordered"] and drill["proven"]
    # Between the last good and the first bad one lies the commit that cannot run.
    assert [part.split(" ", 1)[1] for part in parts] == ["step 4", "step 5"]
    assert parts[-1].startswith(commits[5][:12])
    assert "first bad: " in workspace.replay("bisect", "show").out
    assert bisected(workspace, *runs) == found


def test_no_trial_of_a_commit_is_read_as_one_of_a_file(workspace: Workspace, shell_image: str) -> None:
    """The first commit brings the second file, and the second commit the first, which is the cause."""
    workspace.git("init", "-q")
    workspace.write(".gitignore", ".replay\n")
    job = Job(workspace, shell_image, "cat a.txt >out.txt", ["out.txt"])
    workspace.jobs(t=job.fixed | {"env": {}})
    runs = []
    for number, (a, b) in enumerate((("old", "old"), ("old", "new"), ("new", "new"))):
        workspace.write("a.txt", f"{a}\n")
        workspace.write("b.txt", f"{b}\n")
        workspace.commit(f"step {number}")
        if number != 1:
            runs.append(job.record({}))
    (drill,) = bisected(workspace, *runs)["drill"]
    assert [part.split(" ", 1)[1] for part in drill["parts"][0]] == ["step 2"] and drill["trials"] == 1
    (workspace.root / ".git").rename(workspace.root.parent / "git")
    (drill,) = bisected(workspace, *runs)["drill"]
    assert drill["parts"] == [["a.txt"]] and drill["proven"]


def test_the_code_is_taken_apart_by_file_where_no_commits_hold_it(workspace: Workspace, shell_image: str) -> None:
    job = Job(workspace, shell_image, "cat lib/*.txt >out.txt", ["out.txt"])
    runs = []
    for side in ("old", "new"):
        for number in range(5):
            workspace.write(f"lib/{number}.txt", "same\n" if number != 3 else f"{side}\n")
            workspace.write(f"other/{number}.txt", f"{side}\n")
        runs.append(job.record({}))
    found = bisected(workspace, *runs)
    assert names(found["cause"]) == ["code files"] and found["changes"] == 1
    assert [drill["parts"] for drill in found["drill"]] == [[["lib/3.txt"]]]


def test_the_one_file_that_differs_is_named(workspace: Workspace, shell_image: str) -> None:
    """It needs no trial: what was proven of the code is proven of it."""
    job = Job(workspace, shell_image, "cat lib/*.txt >out.txt", ["out.txt"])
    runs = []
    for side in ("old", "new"):
        workspace.write("lib/0.txt", "same\n")
        workspace.write("lib/1.txt", f"{side}\n")
        runs.append(job.record({"N": side}, determinism="off" if side == "new" else "same-host"))
    found = bisected(workspace, *runs)
    assert names(found["cause"]) == ["code files"]
    (drill,) = found["drill"]
    assert (drill["parts"], drill["proven"], drill["trials"]) == ([["lib/1.txt"]], True, 0)
    assert "\n  of it: lib/1.txt  (0 trials more)\n" in workspace.replay("bisect", "show").out


def test_data_that_the_diagnosis_points_at_is_suspected_first(workspace: Workspace, shell_image: str) -> None:
    """Of two tables one lost a column, and the other has a value that moved."""
    workspace.git("init", "-q")
    workspace.dvc("init")
    job = Job(workspace, shell_image, "cat d.csv", ["stdout"])
    runs = []
    for broken, moved in (("a,b\n1,2\n", "a\n1\n"), ("a\n1\n", "a\n2\n")):
        workspace.write("d.csv", broken)
        workspace.write("e.csv", moved)
        workspace.dvc("add", "d.csv", "e.csv")
        runs.append(job.record({}, data=["d.csv", "e.csv"]))
    setup = Bisect(open_workspace(workspace.root, None), Request(*runs), run_judge).setup
    weights = {change.name: setup.problem.weight(item) for item, change in enumerate(setup.between.changes)}
    assert weights["d.csv"] > weights["e.csv"]


@pytest.mark.slow
def test_one_commit_among_sixty(workspace: Workspace, shell_image: str) -> None:
    """In a merge's second parent there are as many again, which are no steps of this line."""
    workspace.git("init", "-q", "-b", "main")
    workspace.write(".gitignore", ".replay\n")
    job = Job(
        workspace, shell_image, "read -r n <n.txt; if [ $n -ge 37 ]; then echo 0.5; else echo 0.9; fi", ["stdout"]
    )

    workspace.jobs(t=job.fixed | {"env": {}})
    workspace.write("n.txt", "0\n")
    workspace.commit("step 0")
    good = job.record({})
    for number in range(1, 61):
        if number == 20:
            workspace.git("checkout", "-qb", "side")
            for other in range(5):
                workspace.write("other.txt", f"{other}\n")
                workspace.commit(f"aside {other}")
            workspace.git("checkout", "-q", "main")
            workspace.git("merge", "-q", "--no-ff", "-m", "step 20", "side")
        else:
            workspace.write("n.txt", f"{number}\n")
            workspace.commit(f"step {number}")
    found = bisected(workspace, good, job.record({}))
    (drill,) = found["drill"]
    assert [part.split(" ", 1)[1] for part in drill["parts"][0]] == ["step 37"] and drill["proven"]
    assert found["trials"] == 0 and drill["trials"] <= 7


def test_a_past_state_that_nobody_recorded_is_the_good_end(workspace: Workspace, shell_image: str) -> None:
    """What ran at a commit is rebuilt by `run --at`, and bisected with what runs now."""
    workspace.git("init", "-q")
    workspace.write(".gitignore", ".replay\n")
    job = Job(workspace, shell_image, "cat answer.txt; echo $MODE", ["stdout"])
    for number, answer in enumerate(("old", "old", "new", "new")):
        workspace.write("answer.txt", f"{answer}\n")
        workspace.jobs(t=job.fixed | {"env": {"MODE": "same", "N": str(number)}})
        workspace.commit(f"step {number}")
    bad = workspace.run("t")["run_id"]
    good = workspace.run("t", "--at", "HEAD~3", "--as-of", "2026-01-01")["run_id"]
    found = bisected(workspace, good, bad)
    assert names(found["cause"]) == ["code files"] and found["proven"]
    assert [part.split(" ", 1)[1] for part in found["drill"][0]["parts"][0]] == ["step 2"]


def test_a_data_folder_is_taken_apart_by_file(workspace: Workspace, shell_image: str) -> None:
    workspace.git("init", "-q")
    workspace.dvc("init")
    job = Job(workspace, shell_image, "cat d/a/3.csv d/extra.csv >out.txt 2>/dev/null; true", ["out.txt"])
    runs = []
    for side in ("old", "new"):
        for number in range(6):
            workspace.write(f"d/a/{number}.csv", f"{side}\n")
            workspace.write(f"d/a/\x1b[2J{number}.csv", f"{side}\n")
        workspace.dvc("add", "d")
        runs.append(job.record({"SIDE": side}, data=["d"]))
    found = bisected(workspace, *runs)
    assert names(found["cause"]) == ["data d"] and found["proven"]
    assert [drill["parts"] for drill in found["drill"]] == [[["a/3.csv"]]]
    trial = workspace.replay("bisect", "log", "--json").json["lines"][-1]["run_id"]
    assert workspace.replay("bisect", "replay", trial).code == 0
    log = workspace.replay("bisect", "log").out
    assert "\\x1b[2J" in log and "\x1b" not in log, "a name of a file is not obeyed"


def test_independent_causes_are_taken_apart_by_asking_of_each(workspace: Workspace, shell_image: str) -> None:
    workspace.git("init", "-q")
    workspace.dvc("init")
    job = Job(workspace, shell_image, "cat d/2.csv e.csv && echo $MODE", ["stdout"])
    runs = []
    for side in ("old", "new"):
        for number in range(4):
            workspace.write(f"d/{number}.csv", f"{side}\n")
        workspace.write("e.csv", side)
        workspace.dvc("add", "d", "e.csv")
        runs.append(job.record({"MODE": side}, data=["d", "e.csv"]))
    found = bisected(workspace, *runs)
    causes = [found["cause"], *found["independent"]]
    assert sorted(map(names, causes)) == [["data d"], ["data e.csv"], ["env MODE"]] and "drill" not in found
    rows = workspace.replay("bisect", "show").out.splitlines()
    (said,) = (row.partition("replay bisect ")[2].split() for row in rows if "take it apart" in row)
    assert [drill["parts"] for drill in bisected(workspace, *said)["drill"]] == [[["2.csv"]]]


LAYERS = {
    "data d.csv": '[ "$d" = new ]',
    "model m.txt": '[ "$m" = new ]',
    "code files": '[ "$c" = new ]',
    "env MODE": '[ "$MODE" = new ]',
    "params deep.rate": "case $REPLAY_PARAMS in *2*) true;; *) false;; esac",
    "image image": "[ -e /own ]",
    "data d.csv × env MODE": '[ "$d$MODE" = newnew ]',
    "image image × model m.txt": '[ -e /own ] && [ "$m" = new ]',
}


ACROSS_TWO = [cause for cause in LAYERS if "×" in cause]


@pytest.mark.parametrize(
    "cause", [*ACROSS_TWO, *(pytest.param(one, marks=pytest.mark.slow) for one in LAYERS if one not in ACROSS_TWO)]
)
def test_a_cause_in_any_layer_and_across_two(
    workspace: Workspace, shell_image: str, own_image: Any, cause: str
) -> None:
    """All layers differ, and each time another one, or two that must meet, turn it bad."""
    workspace.git("init", "-q")
    workspace.dvc("init")
    read = "read -r d <d.csv; read -r m <m.txt; read -r c <code.txt\n"
    job = Job(workspace, shell_image, read + score(LAYERS[cause]))
    runs = []
    for side, image in (("old", shell_image), ("new", own_image.tag)):
        for name in ("d.csv", "m.txt", "code.txt"):
            workspace.write(name, f"{side}\n")
        workspace.dvc("add", "d.csv")
        env = {"MODE": side, "V0": side, "V1": side}
        params = {"deep": {"rate": 1 if side == "old" else 2}, "other": side}
        runs.append(job.record(env, data=["d.csv"], model=["m.txt"], params=params, image=image))
    found = bisected(workspace, *runs)
    assert sorted(names(found["cause"])) == sorted(cause.split(" × ")) and found["proven"]
    assert found["changes"] == 9 and found["unresolved"] == 0 and not found["independent"]


# --- history --------------------------------------------------------------------------------------------------


def test_recorded_runs_between_say_where_to_look(workspace: Workspace, job: Callable[..., Job]) -> None:
    """Each run changes one variable; only what it turned at is tried, and proven of the two runs that were asked of."""
    made = job(score('[ "$V3" = 2 ]'))
    env, runs = dict.fromkeys(NAMES, "1"), []
    for name in NAMES:
        runs.append(made.record(dict(env)))
        env[name] = "2"
    runs.append(made.record(env))
    found = bisected(workspace, runs[0], runs[-1])
    assert (found["good"], found["bad"], found["changes"]) == (runs[0], runs[-1], 6)
    assert names(found["cause"]) == ["env V3"] and found["trials"] == 2 and found["proven"]
    assert [row["state"] for row in found["proof"]] == ["good", "good + V3", "bad", "bad − V3"]
    shown = workspace.replay("bisect", runs[0], runs[-1])
    assert shown.out.startswith("history: 3 good and 2 bad runs that were recorded between say where to look first\n")
    assert bisected(workspace, "resume") == found
    log = workspace.replay("bisect", "log", "--json").json["lines"]
    assert [line["run_id"] for line in log if line["doing"] == "recorded"] == [runs[0], runs[-1], *sorted(runs[1:-1])]


def test_an_experiment_between_is_no_cause(workspace: Workspace, shell_image: str) -> None:
    """It was bad by what the two that are asked of have in common; another one changed what they differ in, too."""
    command = """case "$(cat p.json)" in *'"b"'*) ten=1;; *) ten=;; esac
case "$(cat p.json)" in *2*) k=2;; *) k=1;; esac; echo "{\\"score\\": $ten$k}" >m.json"""
    job = Job(workspace, shell_image, command)

    def record(mode: str, k: int) -> str:
        workspace.write("p.json", json.dumps({"mode": mode, "k": k}))
        return job.record({}, params="p.json")

    good = record("a", 1)
    record("b", 1), record("b", 2)
    bad = record("a", 2)
    changes = workspace.replay("diff", good, bad, "--json").json["changes"]
    assert [(change["layer"], change["name"]) for change in changes] == [("params", "k")]
    found = bisected(workspace, good, bad)
    assert (found["good"], found["bad"], names(found["cause"])) == (good, bad, ["params k"]) and found["proven"]


def test_a_run_between_that_is_bad_otherwise_says_nothing(workspace: Workspace, job: Callable[..., Job]) -> None:
    """`A` moves the output too, and not to what the bad run gave."""
    made = job('echo "{\\"a\\": $((A * (3 - B))), \\"b\\": $B}" >m.json')
    good = made.record({"A": "1", "B": "1"})
    made.record({"A": "2", "B": "1"})
    bad = made.record({"A": "2", "B": "2"})
    found = bisected(workspace, good, bad)
    assert (found["good"], found["bad"]) == (good, bad)
    log = workspace.replay("bisect", "log", "--json").json["lines"]
    assert [line["run_id"] for line in log if line["doing"] == "recorded"] == [good, bad]


# --- by chance ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.search
def test_a_job_that_fails_by_chance_is_looked_at_more_often(workspace: Workspace, job: Callable[..., Job]) -> None:
    """One run in eight comes out the other way round, as the job declares. Whatever is proven is right, and says how
    sure it is: so it may be wrong for once."""
    flip = 'if [ "$MODE" = new ]; then OTHER=old; else OTHER=new; fi; read -r id </proc/sys/kernel/random/uuid\n'
    flip += "case $id in [01]*) MODE=$OTHER;; esac\n" + MODE
    made = job(flip)
    made.fixed["determinism"] = "off"
    for _ in range(20):  # the recorded ends must be what they are called
        good, bad = made.both(OLD, NEW)
        sizes = [workspace.replay("show", run, "--json").json["record"]["outputs"][0]["sha256"] for run in (good, bad)]
        if sizes[0] != sizes[1] and workspace.blob(sizes[0]).read_text().strip() == '{"score": 0.9}':
            break
    done = workspace.replay("bisect", good, bad, "-j", "2", "--json", "--budget", "120", timeout=1800)
    found = done.json
    if found["proven"]:
        assert names(found["cause"]) == ["env MODE"] and not found["independent"]
        tallies = workspace.replay("bisect", "show").out
        assert found["probability"] == 1.0 or "right with probability" in tallies


@pytest.mark.slow
def test_a_package_is_taken_apart_by_the_releases_that_the_store_holds(
    python_workspace: Workspace, index: Index
) -> None:
    """Other runs had releases in between; no index is asked."""
    good, bad = _packaged(python_workspace, index, "import model; print(model.VALUE >= 2)")
    pip = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index.url, "PIP_FIND_LINKS": "", "PIP_RETRIES": "0"}
    image = python_workspace.image  # type: ignore[attr-defined]
    for version, value in (("1.2", 1), ("1.6", 2)):
        index.add(wheel("model", version, {"model.py": f"VALUE = {value}\n"}))
        python_workspace.write("other.in", f"model=={version}\n")
        python_workspace.jobs(o={"command": "true", "image": image, "dependencies": "other.in", "outputs": []})
        python_workspace.run("o", **pip)
    index.close()
    found = bisected(python_workspace, good, bad)
    (drill,) = found["drill"]
    assert (drill["name"], drill["parts"], drill["proven"]) == ("model", [["1.6"]], True)
    assert (
        "first bad: 1.6  (2 trials more; among releases that the store holds)"
        in python_workspace.replay("bisect", "show").out
    )
    assert bisected(python_workspace, good, bad) == found


def _tagged(name: str, version: str, python: str, value: str) -> tuple[str, bytes]:
    """A wheel that says it is for one Python only."""
    tag = f"cp{python}-cp{python}-linux_x86_64"
    return wheel(name, version, {f"{name}.py": f"VALUE = {value!r}\n"}, tag=tag)


@pytest.mark.slow
@pytest.mark.parametrize("cause", ["python", "tied", "both"])
def test_another_python_and_packages_that_have_wheels_for_either(
    python_workspace: Workspace, python311: str, python313: str, index: Index, cause: str
) -> None:
    """Debian's 3.11 to 3.13, in one go with packages: `tied` has releases for both Pythons in the store, and its
    version is a change of its own; `bound` has none for the other, and goes with the image."""
    for version in ("1.0", "2.0"):
        for python in ("311", "313"):
            index.add(_tagged("tied", version, python, version))
        for number in range(4):
            index.add(wheel(f"plain{number}", version, {f"plain{number}.py": ""}))
    index.add(_tagged("bound", "1.0", "311", "1"))
    index.add(_tagged("bound", "2.0", "313", "2"))
    pip = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index.url, "PIP_FIND_LINKS": "", "PIP_RETRIES": "0"}
    condition = {
        "python": "sys.version_info >= (3, 13)",
        "tied": "tied.VALUE == '2.0'",
        "both": "sys.version_info >= (3, 13) and tied.VALUE == '2.0'",
    }[cause]
    command = ["python", "-c", f"import sys, tied, bound; print({condition})"]

    def record(image: str, side: int, tied: int) -> str:
        pins = [f"plain{number}=={side}.0" for number in range(4)] + [f"tied=={tied}.0", f"bound=={side}.0"]
        python_workspace.write("r.in", "\n".join(pins if side == tied else pins[:-1]) + "\n")
        job = {"command": command if side == tied else "true", "image": image, "outputs": ["stdout"]}
        python_workspace.jobs(**{"t" if side == tied else "o": job | {"dependencies": "r.in"}})
        return str(python_workspace.run("t" if side == tied else "o", **pip)["run_id"])

    good, bad = record(python311, 1, 1), record(python313, 2, 2)
    record(python311, 1, 2), record(python313, 2, 1)
    index.close()
    found = bisected(python_workspace, good, bad)
    own = [f"{one['layer']} {one['name']}" for one in found["cause"]]
    assert found["proven"] and found["unresolved"] == 0 and not found["independent"]
    assert ("dependencies tied" in own) is (cause != "python")
    assert ("image image" in own) is (cause != "tied") and ("dependencies bound" in own) is (cause != "tied")


def test_a_package_is_taken_apart_by_release_if_the_index_may_be_asked(
    python_workspace: Workspace, index: Index
) -> None:
    good, bad = _packaged(python_workspace, index, "import model; print(model.VALUE >= 2)")
    for version, value in (("1.2", 1), ("1.4", 1), ("1.6", 2), ("1.8", 2), ("1.9rc1", 2)):
        index.add(wheel("model", version, {"model.py": f"VALUE = {value}\n"}))
    pip = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index.url, "PIP_FIND_LINKS": "", "PIP_RETRIES": "0"}
    assert "drill" not in bisected(python_workspace, good, bad)
    done = python_workspace.replay("bisect", good, bad, "--releases", "--json", **pip)
    assert done.code == 0, done
    (drill,) = done.json["drill"]
    assert (drill["name"], drill["parts"], drill["proven"]) == ("model", [["1.6"]], True)
    index.close()
    assert "first bad: 1.6" in python_workspace.replay("bisect", "show").out
