"""`replay bisect` on the real engine: one line names what turned a good run into a bad one, and proves it."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest

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
    return done.json


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
    assert trial not in str(list(workspace.root.glob("state_specs/*")))


def test_asked_again_it_costs_nothing_and_no_engine(workspace: Workspace, job: Callable[..., Job]) -> None:
    good, bad = job(MODE).both(OLD, NEW)
    first = bisected(workspace, good, bad)
    before = workspace.replay("ls", "--label", "bisect", "-n", "0", "--json").json
    again = workspace.replay("bisect", good, bad, "--json", DOCKER_HOST="unix:///nowhere.sock")
    assert again.code == 0 and again.json == first
    assert workspace.replay("ls", "--label", "bisect", "-n", "0", "--json").json == before
    for words in (["show"], ["resume"], ["show", first["bisect"]]):
        assert workspace.replay("bisect", *words, "--json").json == first
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


def test_params_are_taken_apart_by_key(workspace: Workspace, shell_image: str) -> None:
    job = Job(workspace, shell_image, 'case "$REPLAY_PARAMS" in *\'"depth":9\'*) echo b;; *) echo g;; esac', ["stdout"])
    good = job.record({}, params={"net": {"depth": 3, "width": 4}, "rate": 0.1, "gone": 1})
    bad = job.record({}, params={"net": {"depth": 9, "width": 5}, "rate": 0.2, "new": {"x": 1}})
    found = bisected(workspace, good, bad)
    assert found["cause"] == [{"layer": "params", "name": "net.depth", "good": "3", "bad": "9"}]
    assert found["changes"] == 5 and found["proven"]


@pytest.mark.parametrize("name", ["p.yaml", "p.json"])
def test_a_params_file_is_taken_apart_by_key(workspace: Workspace, shell_image: str, name: str) -> None:
    deep = """case "$(cat %s)" in *'depth": 9'*|*'depth: 9'*) echo b;; *) echo g;; esac"""
    job = Job(workspace, shell_image, deep % name, ["stdout"])
    runs = []
    for depth, rate in ((3, "1e-5"), (9, "0.2")):
        workspace.write(name, json.dumps({"net": {"depth": depth, "width": depth}, "rate": float(rate)}))
        runs.append(job.record({}, params=name))
    found = bisected(workspace, *runs)
    assert names(found["cause"]) == ["params net.depth"] and found["proven"] and found["changes"] == 3


def test_a_bad_job_that_crashes_and_a_crash_that_is_not_its_own(workspace: Workspace, job: Callable[..., Job]) -> None:
    """A and B crash otherwise when only one of them is new: that says nothing, and is never called bad."""
    crash = 'case "$A$B" in 12|21) echo "ImportError: half" >&2; exit 1;; esac\n'
    crash += 'if [ "$MODE" = new ]; then echo "ValueError: boom" >&2; exit 1; fi; echo "{}" >m.json'
    made = job(crash)
    good, bad = made.both(OLD | {"A": "1", "B": "1"}, NEW | {"A": "2", "B": "2"}, code=4)
    found = bisected(workspace, good, bad)
    assert names(found["cause"]) == ["env MODE"] and found["proven"]
    assert "exit 1: ValueError" in workspace.replay("bisect", "show").out


def test_a_judge_of_ones_own(workspace: Workspace, job: Callable[..., Job]) -> None:
    good, bad = job(MODE).both(OLD, NEW)
    found = bisected(workspace, good, bad, "--judge", "echo seen; grep -q 0.9 m.json")
    assert names(found["cause"]) == ["env MODE"] and found["proven"]
    stopped = workspace.replay("bisect", good, bad, "--judge", "exit 126", "--json")
    assert stopped.code == 2 and "126" in stopped.json["error"]["what"]


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
    assert judged.code == 1 and f"NOT REPRODUCED  {bad}" in judged.out and "outside" in judged.out


def test_a_budget_ends_in_suspicion(workspace: Workspace, job: Callable[..., Job]) -> None:
    good, bad = job(MODE).both(OLD, NEW)
    found = bisected(workspace, good, bad, "--budget", "1", code=1)
    assert not found["proven"] and found["trials"] == 1
    assert "MODE" in json.dumps(found["suspects"]) and sum(one["probability"] for one in found["suspects"]) > 0.99
    assert "INCONCLUSIVE" in workspace.replay("bisect", "show").out
    assert names(bisected(workspace, "resume")["cause"]) == ["env MODE"]


def test_trials_side_by_side(workspace: Workspace, job: Callable[..., Job]) -> None:
    good, bad = job(MODE).both(OLD, NEW)
    found = bisected(workspace, good, bad, "-j", "4")
    assert names(found["cause"]) == ["env MODE"] and found["proven"] and found["rounds"] <= 3


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
    ]
    for words in refused:
        done = workspace.replay("bisect", *words, "--json")
        assert done.code == 2 and done.json["error"]["what"], (words, done)


# --- cut off --------------------------------------------------------------------------------------------------


def _lines(workspace: Workspace) -> int:
    return sum(log.read_bytes().count(b"\n") for log in (workspace.store / "bisects").glob("*/log.jsonl"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("workers", ["1", "3"])
def test_cut_off_anywhere_it_goes_on(
    workspace: Workspace, job: Callable[..., Job], number: signal.Signals, workers: str
) -> None:
    good, bad = job(MODE).both(OLD, NEW)
    for wanted in (4, 7):
        running = workspace.start("bisect", good, bad, "-j", workers)
        until(lambda at=wanted, one=running: _lines(workspace) >= at or one.poll() is not None, "some trials")
        running.send_signal(number)
        _, err = running.communicate(timeout=60)
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


def test_packages_that_need_each_other_are_one_block(python_workspace: Workspace, index: Index) -> None:
    code = "from importlib.metadata import version; print(version('twin'))"
    good, bad = _packaged(python_workspace, index, code)
    found = bisected(python_workspace, good, bad)
    assert names(found["cause"]) == ["dependencies other", "dependencies twin"] and found["proven"]
    assert [names(block) for block in found["blocks"]] == [["dependencies other", "dependencies twin"]]
    assert found["unresolved"] == 0


def test_an_added_package_can_be_the_cause(python_workspace: Workspace, index: Index) -> None:
    code = "import importlib.util as u; print(u.find_spec('only2') is not None)"
    good, bad = _packaged(python_workspace, index, code)
    found = bisected(python_workspace, good, bad)
    assert found["cause"] == [{"layer": "dependencies", "name": "only2", "bad": "1.0"}] and found["proven"]


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
        workspace.git("add", "-A")
        workspace.git("commit", "-qm", f"step {number}")
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


def test_a_data_folder_is_taken_apart_by_file(workspace: Workspace, shell_image: str) -> None:
    workspace.git("init", "-q")
    workspace.dvc("init")
    job = Job(workspace, shell_image, "cat d/a/3.csv d/extra.csv >out.txt 2>/dev/null; true", ["out.txt"])
    runs = []
    for side in ("old", "new"):
        for number in range(6):
            workspace.write(f"d/a/{number}.csv", f"{side}\n")
        workspace.dvc("add", "d")
        runs.append(job.record({"SIDE": side}, data=["d"]))
    found = bisected(workspace, *runs)
    assert names(found["cause"]) == ["data d"] and found["proven"]
    assert [drill["parts"] for drill in found["drill"]] == [[["a/3.csv"]]]
    trial = workspace.replay("bisect", "log", "--json").json["lines"][-1]["run_id"]
    assert workspace.replay("bisect", "replay", trial).code == 0


def test_an_image_can_be_the_cause(workspace: Workspace, shell_image: str, own_image: Any) -> None:
    """Two images of the same programs, told apart by a file in one of them."""
    job = Job(workspace, shell_image, "if cat /own >out.txt; then :; else echo none >out.txt; fi", ["out.txt"])
    good = job.record({"A": "1"})
    bad = job.record({"A": "2"}, image=own_image.tag)
    found = bisected(workspace, good, bad)
    assert {one["layer"] for one in found["cause"]} == {"image"} and found["proven"]


# --- history --------------------------------------------------------------------------------------------------


def test_recorded_runs_between_are_walked_first(workspace: Workspace, job: Callable[..., Job]) -> None:
    """Each run changes one variable; only the pair at which it turned is taken apart, and the first proof is enough."""
    made = job(score('[ "$V3" = 2 ]'))
    env, runs = dict.fromkeys(NAMES, "1"), []
    for name in NAMES:
        runs.append(made.record(dict(env)))
        env[name] = "2"
    runs.append(made.record(env))
    found = bisected(workspace, runs[0], runs[-1])
    assert (found["good"], found["bad"]) == (runs[3], runs[4])
    assert names(found["cause"]) == ["env V3"] and found["changes"] == 1 and found["trials"] == 0 and found["proven"]
    shown = workspace.replay("bisect", runs[0], runs[-1])
    assert shown.out.startswith(f"history: of 5 runs recorded between, the turn is {runs[3]} … {runs[4]}")
    assert bisected(workspace, "resume") == found


# --- by chance ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_job_that_fails_by_chance_is_looked_at_more_often(workspace: Workspace, job: Callable[..., Job]) -> None:
    """One run in eight comes out the other way round. Whatever is proven is right, and says how sure it is."""
    flip = 'if [ "$MODE" = new ]; then OTHER=old; else OTHER=new; fi; read -r id </proc/sys/kernel/random/uuid\n'
    flip += "case $id in [01]*) MODE=$OTHER;; esac\n" + MODE
    made = job(flip)
    for _ in range(20):  # the recorded ends must be what they are called
        good, bad = made.both(OLD, NEW)
        sizes = [workspace.replay("show", run, "--json").json["record"]["outputs"][0]["sha256"] for run in (good, bad)]
        if sizes[0] != sizes[1] and workspace.blob(sizes[0]).read_text().strip() == '{"score": 0.9}':
            break
    done = workspace.replay("bisect", good, bad, "-j", "2", "--json", "--budget", "120", timeout=600)
    found = done.json
    if found["proven"]:
        assert names(found["cause"]) == ["env MODE"] and not found["independent"]
        tallies = workspace.replay("bisect", "show").out
        assert found["probability"] == 1.0 or "right with probability" in tallies


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
