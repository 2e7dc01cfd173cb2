"""A model's probe is run in the recorded environment, for the original's file and for the replay's, and decides."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import Workspace
from tests.engine.conftest import Recorded

pytestmark = pytest.mark.engine

UUID = "/proc/sys/kernel/random/uuid"
SECRET = "s3cr3t-Zq8w"


@pytest.fixture
def record(workspace: Workspace, shell_image: str) -> Any:
    def recorded(command: str, probe: Any, **more: Any) -> str:
        base = {"command": command, "image": shell_image, "python": None}
        rule = {"compare": "model", "probe": probe, **more.pop("rule", {})}
        workspace.jobs(j=base | {"outputs": {"m.pkl": rule}} | more)
        run_id: str = workspace.run(KEY=SECRET)["run_id"]
        return run_id

    return recorded


def replayed(workspace: Workspace, run_id: str, code: int, *arguments: str) -> dict[str, Any]:
    done = workspace.replay("replay", run_id, "--json", *arguments, KEY=SECRET)
    assert done.code == code, done
    (found,) = done.json["outputs"]
    return found | {"all": done.json}


def test_it_decides_that_models_are_the_same(record: Any, workspace: Workspace) -> None:
    """The probe is the recorded one, whatever the job did to its copy."""
    workspace.write("probe.sh", 'read auc rest <"$1"; echo "{\\"auc\\": $auc}"\n')
    run_id = record(f"echo 0.5 $(cat {UUID}) > m.pkl; echo false > probe.sh", ["sh", "probe.sh", "{}"])
    workspace.write("probe.sh", "exit 1\n")
    found = replayed(workspace, run_id, 0)
    assert (found["verdict"], found["comparator"]) == ("equivalent", "model")
    assert found["detail"] == "by the probe: it prints the same for both; the bytes differ"
    assert "by the probe" in workspace.replay("replay", run_id).out


def test_its_tolerance_is_that_of_the_rule(record: Any, workspace: Workspace) -> None:
    probe = 'read up rest < {}; echo "{\\"up\\": $up}"'
    run_id = record("cat /proc/uptime > m.pkl", probe, rule={"rtol": 0.5})
    found = replayed(workspace, run_id, 0)
    assert found["verdict"] == "equivalent" and "rtol" in found["detail"], found


def test_replays_that_disagree_by_the_probe(record: Any, workspace: Workspace) -> None:
    run_id = record(f"cat {UUID} > m.pkl", ["cat", "{}"])
    found = replayed(workspace, run_id, 1)
    assert found["verdict"] == "nondeterministic", found
    assert found["detail"].startswith("replays 1 and 2 disagree: by the probe: as text")
    assert len(found["all"]["replays"]) == 2


def test_replays_that_agree_by_the_probe_are_not_called_nondeterministic(record: Any, workspace: Workspace) -> None:
    run_id = record(f"cat {UUID} > m.pkl", ["ls", "m.pkl"])
    assert replayed(workspace, run_id, 0, "--times", "2")["verdict"] == "equivalent"


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        ("echo no such layer >&2; exit 3", "the probe exits 3: no such layer for the original"),
        ("cat {} >/dev/null", "the probe prints nothing for the original"),
        (["/nowhere"], "the probe cannot be started for the original"),
    ],
)
def test_a_probe_that_fails_leaves_it_to_bytes(record: Any, workspace: Workspace, probe: Any, words: str) -> None:
    run_id = record(f"cat {UUID} > m.pkl", probe)
    found = replayed(workspace, run_id, 1)
    assert found["verdict"] == "nondeterministic" and words in found["detail"] and "byte" in found["detail"], found


def test_a_night_asks_each_run_its_own_probe(record: Any, workspace: Workspace) -> None:
    """They are runs of one state, with other probes or other bytes to look at."""
    lax, strict = ["ls", "m.pkl"], ["cat", "{}"]
    command = f"cat {UUID} > m.pkl"
    ids = {
        record(command, probe): verdict for probe, verdict in [(lax, "equivalent"), (strict, "nondeterministic")] * 2
    }
    ids[record(command, [], rule={"compare": "bytes"})] = "nondeterministic"
    runs = workspace.replay("nightly", "--json").json["runs"]
    assert len({run["state_digest"] for run in runs}) == 1
    assert {run["run_id"]: run["verdict"] for run in runs} == ids, runs
    assert "was not run" not in str(runs)


def test_it_is_shut_in(record: Any, workspace: Workspace) -> None:
    """No network, no secret, nothing of what the job left, the model read-only; inputs and variables are there."""
    conditions = [
        "{ read head; ! read route; } < /proc/net/route",
        'test -z "$KEY" && test "$MODE" = prod',
        'test ! -e left && test ! -e "$HOME/left" && test ! -e /tmp/left',
        "! echo x 2>/dev/null >> {}",
        'test "$(cat in.txt)" = input && test "$(cat p.yaml)" = "a: 7"',
    ]
    workspace.write("in.txt", "input")
    workspace.write("p.yaml", "a: 7")
    run_id = record(
        f"cat {UUID} > m.pkl; touch left ~/left /tmp/left",
        "; ".join(f"{{ {one}; }} || exit {number}" for number, one in enumerate(conditions, 10)) + "; echo fine",
        network="open",
        model=["in.txt"],
        params="p.yaml",
        env={"MODE": "prod"},
        secrets={"KEY": "env:KEY"},
    )
    found = replayed(workspace, run_id, 0)
    assert found["verdict"] == "equivalent", found


def test_a_pickle_is_loaded_by_the_recorded_packages(packaged: Recorded) -> None:
    workfile = json.loads((packaged.root / "replay.yaml").read_text())
    train = "import pickle, uuid; pickle.dump({'w': [0.1, 0.2], 'id': uuid.uuid4().hex}, open('m.pkl', 'wb'))"
    packaged.write(
        "probe.py",
        "import alpha, json, pickle, sys\n"
        "print(json.dumps({'w': pickle.load(open(sys.argv[1], 'rb'))['w'], 'by': alpha.VALUE}))\n",
    )
    workfile["jobs"]["py"] |= {
        "command": ["python", "-c", train],
        "outputs": {"m.pkl": {"compare": "model", "probe": ["python", "probe.py", "{}"]}},
    }
    packaged.write("replay.yaml", json.dumps(workfile))
    (found,) = packaged.replayed(packaged.run("py")["run_id"])["outputs"]
    assert found["detail"] == "by the probe: it prints the same for both; the bytes differ", found
