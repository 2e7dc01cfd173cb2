"""Execution: a job runs shut in, sees what it was promised and nothing else, and ends within its limits."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Done, Workspace, absent, until

pytestmark = pytest.mark.engine


@pytest.fixture
def job(workspace: Workspace, shell_image: str) -> Any:
    """Record a job of a shell command; `replay run`'s answer."""

    def call(command: str | list[str], *arguments: str, **described: Any) -> Done:
        env = described.pop("caller", {})
        workspace.jobs(j={"command": command, "image": shell_image, "python": None} | described)
        return workspace.replay("run", "j", *arguments, **env)

    return call


def stdout(workspace: Workspace, done: Done) -> str:
    run_id = done.json["run_id"]
    return (workspace.store / "runs" / run_id / "stdout").read_text()


def record(workspace: Workspace) -> dict[str, Any]:
    (path,) = (workspace.root / "state_specs").glob("*.record.json")
    return json.loads(path.read_text())


# --- shut in -------------------------------------------------------------------------------------------------


def test_a_job_is_shut_in(job: Any, workspace: Workspace) -> None:
    """Not root, no capabilities, no new privileges, no network; it writes to its workspace, tmp and home."""
    done = job(
        "id; cat /etc/passwd; cat /proc/self/status; echo net: $(ls /sys/class/net);"
        "for d in /workspace /tmp $HOME; do echo x > $d/probe && echo wrote $d; done;"
        "for d in / /etc /usr/bin /root /etc/passwd /opt; do (echo x > $d/probe) 2>/dev/null && echo WROTE $d; done;"
        "echo $HOME $USER $LOGNAME $(cat /proc/sys/kernel/hostname); pwd;"
        "cat /proc/mounts",
        "--json",
    )
    assert done.code == 0, done
    said = stdout(workspace, done)
    uid = os.getuid() or 1000
    assert f"uid={uid}(replay)" in said
    assert f"replay:x:{uid}:" in said
    status = dict(line.split(":\t", 1) for line in said.splitlines() if ":\t" in line)
    assert status["Groups"].split() == [str(os.getgid() or 1000)]
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    root = next(fields for fields in map(str.split, said.splitlines()) if len(fields) == 6 and fields[1] == "/")
    assert "ro" in root[3].split(","), "also for a root that the job's user could write to"
    assert status["Seccomp"] != "0"
    assert "\nnet: lo\n" in said
    assert [line for line in said.splitlines() if line.lower().startswith("wrote")] == [
        "wrote /workspace",
        "wrote /tmp",
        "wrote /home/replay",
    ]
    assert "/home/replay replay replay replay\n/workspace\n" in said
    assert not workspace.root.joinpath("probe").exists(), "the live tree is not the job's workspace"


def test_only_declared_variables_enter(job: Any, workspace: Workspace, tmp_path: Path) -> None:
    """Neither the caller's environment nor the docker client's proxy settings reach the job."""
    (tmp_path / "docker").mkdir()
    proxies = {"proxies": {"default": {"httpProxy": "http://leak.invalid:1", "noProxy": "leak.invalid"}}}
    (tmp_path / "docker" / "config.json").write_text(json.dumps(proxies))
    done = job(
        ["env"],
        "--json",
        env={"MODE": "prod", "PASS": None, "n": "1", "EMPTY": "", "TZ": "Asia/Tokyo"},
        limits={"cpus": 1.5},
        caller={
            "PASS": "through",
            "LEAK": "leaked",
            "http_proxy": "http://leak.invalid",
            "DOCKER_CONFIG": str(tmp_path / "docker"),
        },
    )
    found = dict(line.split("=", 1) for line in stdout(workspace, done).splitlines())
    threads = {name: found.pop(name) for name in list(found) if name.endswith("_THREADS")}
    assert "OMP_NUM_THREADS" in threads
    assert set(threads.values()) == {"2"}
    assert found == {
        "PATH": "/usr/bin:/bin",
        "HOSTNAME": "replay",
        "HOME": "/home/replay",
        "USER": "replay",
        "LOGNAME": "replay",
        "TMPDIR": "/tmp",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "SOURCE_DATE_EPOCH": "315532800",
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "TZ": "Asia/Tokyo",
        "MODE": "prod",
        "PASS": "through",
        "n": "1",
        "EMPTY": "",
    }


def test_determinism_is_set_and_can_be_switched_off(job: Any, workspace: Workspace) -> None:
    portable = stdout(workspace, job(["env"], "--json", determinism="portable"))
    assert "OPENBLAS_CORETYPE=" in portable
    assert "MKL_CBWR=COMPATIBLE" in portable
    off = stdout(workspace, job(["env"], "--json", determinism="off"))
    assert not {"PYTHONHASHSEED", "OMP_NUM_THREADS", "TZ"} & {line.split("=")[0] for line in off.splitlines()}


def test_an_open_network_works_and_the_verdict_says_so(job: Any, workspace: Workspace) -> None:
    done = job("ls /sys/class/net; cat /etc/hosts", "--json", network="open", outputs={"r": None})
    if done.code == 7 and "bridge" in done.json["error"]["why"]:
        raise absent(f"the engine's own bridge does not work: {done.json['error']['why']}")
    assert "eth0" in stdout(workspace, done)
    assert done.code == 4, "its declared output is missing"
    done = job("echo 1 > r", "--json", network="open", outputs={"r": None})
    again = workspace.replay("replay", done.json["run_id"])
    assert again.code == 0, again
    assert "note: the network is open" in again.out


def test_an_image_with_a_user_and_a_place_of_its_own(
    engine: Any, job: Any, workspace: Workspace, shell_image: str, tmp_path: Path
) -> None:
    """USER, WORKDIR, ENTRYPOINT and VOLUME of an image do not move a job elsewhere; its ENV counts."""
    tag = f"replay-tests/own:{os.urandom(4).hex()}"
    (tmp_path / "Dockerfile").write_text(
        f"FROM {shell_image}\nUSER 4242:4242\nWORKDIR /usr\nENV OWN=1\nVOLUME /var/own\n"
        'ENTRYPOINT ["env", "KEPT=yes"]\n'
    )
    engine.build(tmp_path, tag)
    try:
        command = "echo $(id -u) $PWD $OWN $KEPT $S"
        secret = {"secrets": {"S": "env:SECRET"}, "caller": {"SECRET": "abc"}}
        uid = os.getuid() or 1000
        for more, wanted in (
            ({}, f"{uid} /workspace 1\n"),
            ({"entrypoint": "keep"}, f"{uid} /workspace 1 yes\n"),
            ({"entrypoint": "keep"} | secret, f"{uid} /workspace 1 yes abc\n"),
        ):
            done = job(command, "--json", image=tag, **more)
            assert done.code == 0, done
            assert stdout(workspace, done) == wanted
    finally:
        subprocess.run(["docker", "rmi", "-f", tag], capture_output=True, check=False)


def test_data_and_models_are_read_only_and_other_runs_out_of_reach(job: Any, workspace: Workspace) -> None:
    workspace.git("init", "-q")
    workspace.dvc("init")
    workspace.write("data/d.csv", "a,b\n")
    workspace.write("model/m.bin", "weights")
    workspace.dvc("add", "data/d.csv", "model/m.bin")
    done = job(
        "for f in data/d.csv model/m.bin; do cat $f; (echo x > $f) 2>/dev/null && echo WROTE;"
        " rm -f $f 2>/dev/null && echo REMOVED;"
        " ln $f /tmp/l 2>/dev/null && echo LINKED; done; ls /workspace/.. ; ls -a /workspace; echo free > data/other;"
        " cat /proc/mounts",
        "--json",
        data=["data/d.csv"],
        model=["model/m.bin"],
        outputs={"data/other": None, "linked": None},
    )
    said = stdout(workspace, done)
    assert said.startswith("a,b\nweights"), done
    options = {line.split()[1]: line.split()[3].split(",") for line in said.splitlines() if " /workspace/" in line}
    assert {target: "ro" in found for target, found in options.items()} == {
        "/workspace/data/d.csv": True,
        "/workspace/model/m.bin": True,
    }
    assert not {"WROTE", "REMOVED", "LINKED", "scratch", ".replay", ".dvc"} & set(said.split())
    assert (workspace.root / "data/d.csv").read_text() == "a,b\n"
    done = job("ln -s data/d.csv linked", "--json", data=["data/d.csv"], outputs={"linked": None})
    assert [(p["path"], p["problem"]) for p in done.json["problems"]] == [("linked", "outside")], (
        "an input is no output"
    )


def test_a_path_with_a_space_and_a_colon(tmp_path: Path, engine: Any, shell_image: str) -> None:
    root = tmp_path / "a b: c"
    root.mkdir()
    here = Workspace(root)
    here.jobs(j={"command": "echo 1 > r", "image": shell_image, "python": None, "outputs": ["r"]})
    assert here.run("j")["outputs"][0]["size"] == 2
    assert here.containers() == []


# --- programs that cannot be started ------------------------------------------------------------------------


def test_a_program_that_the_image_lacks(job: Any, workspace: Workspace, bare_image: str) -> None:
    done = job(["nope", "1"])
    assert done.code == 4
    assert "could not be started" in done.out
    assert "'nope'" in done.out
    assert record(workspace)["outcome"]["ending"] == "not-started"
    done = job("true", "--json", image=bare_image)
    assert (done.code, done.json["ending"]) == (4, "not-started")
    done = job(["env"], "--json", image=bare_image)
    assert (done.code, done.json["ending"]) == (0, "exited"), "an image without a shell can run a list"


def test_a_program_that_cannot_be_executed(job: Any, workspace: Workspace) -> None:
    workspace.write("script", "echo hi\n", mode=0o644)
    done = job(["./script"], "--json")
    assert (done.code, done.json["ending"]) == (4, "not-started")
    assert done.json["exit_code"] in (126, 127)


# --- limits --------------------------------------------------------------------------------------------------


def test_a_job_that_takes_all_memory(job: Any, workspace: Workspace) -> None:
    done = job("x=xxxxxxxx; while :; do x=$x$x; done", limits={"memory": "24m"})
    assert done.code == 4, done
    assert "out of memory" in done.out
    assert record(workspace)["outcome"]["ending"] == "out-of-memory"
    done = job("sh -c 'x=xxxxxxxx; while :; do x=$x$x; done' || exit 9", "--json", limits={"memory": "24m"})
    assert (done.json["ending"], done.json["exit_code"]) == ("out-of-memory", 9), "one process of several"


def test_a_job_that_forks_without_end_is_bounded(job: Any, workspace: Workspace) -> None:
    done = job("f() { f | f & }; f; sleep 1; echo not reached by all", "--json", limits={"processes": 20, "time": "5m"})
    assert done.code in (0, 4), done
    assert done.json["duration_s"] < 240


def test_limits_reach_the_engine(job: Any, workspace: Workspace) -> None:
    read = "cat $c/memory/memory.limit_in_bytes $c/pids/pids.max $c/cpu/cpu.cfs_quota_us"
    read += " $c/memory.max $c/pids.max $c/cpu.max"
    done = job(
        f"c=/sys/fs/cgroup; {read} 2>/dev/null; cat /proc/mounts",
        "--json",
        limits={"memory": "64m", "processes": 33, "cpus": 0.5, "shm": "3m"},
    )
    said = stdout(workspace, done)
    numbers = said[: said.index("overlay") if "overlay" in said else None].split()
    assert str(64 << 20) in numbers
    assert "33" in numbers
    assert "50000" in numbers
    assert "size=3072k" in next(line for line in said.splitlines() if " /dev/shm " in line)


def test_the_time_limit_ends_a_job_cleanly(job: Any, workspace: Workspace) -> None:
    """Its TERM handler runs, what it says then is kept, and no output of it counts as complete."""
    done = job(
        "trap 'echo cleaning up; echo partial > r; exit 3' TERM; echo ready; sleep 600 & wait", "--json",
        limits={"time": "3s"}, outputs={"r": None},
    )  # fmt: skip
    assert (done.code, done.json["ending"], done.json["exit_code"]) == (4, "time-limit", 3), done
    assert stdout(workspace, done) == "ready\ncleaning up\n"


def test_a_job_that_hides_its_output_is_still_limited(job: Any, workspace: Workspace) -> None:
    done = job("exec >/dev/null 2>&1; sleep 600", limits={"time": "0.3s"})
    assert done.code == 4
    assert "ended by its time limit" in done.out


@pytest.mark.slow
def test_a_job_that_ignores_term_is_killed(job: Any, workspace: Workspace) -> None:
    done = job("trap '' TERM; sleep 600", "--json", limits={"time": "3s"})
    assert (done.json["ending"], done.json["exit_code"]) == ("time-limit", 137)
    assert 12 < done.json["duration_s"] < 300


def test_a_job_that_fills_its_disk_is_ended(job: Any, workspace: Workspace) -> None:
    done = job("head -c 30000000 /dev/zero > big; sleep 600", "--json", limits={"disk": "8m"})
    assert (done.code, done.json["ending"]) == (4, "disk-full"), done
    assert "big" in done.json["undeclared"]


def test_limits_hold_for_a_job_that_ends_before_anybody_looked(job: Any) -> None:
    for command, limits, ending in (
        ("i=0; while [ $i -lt 9999 ]; do i=$((i+1)); done", {"time": 0.001}, "time-limit"),
        ("head -c 3000000 /dev/zero > big", {"disk": "1m"}, "disk-full"),
    ):

        def late(command: str = command, limits: dict[str, Any] = limits, ending: str = ending) -> bool:
            """By itself, and too late. A busy engine may note the start when the job is about to end."""
            done: Done = job(command, "--json", limits=limits)
            return done.json["exit_code"] == 0 and (done.code, done.json["ending"]) == (4, ending)

        until(late, f"a job that is faster than whoever looks, and is {ending}")
    done = job("true", "--json", limits={"time": "1m", "disk": "1m"})
    assert (done.code, done.json["ending"]) == (0, "exited"), done


# --- what a job may do to itself -----------------------------------------------------------------------------


def test_a_job_that_kills_itself(job: Any, workspace: Workspace) -> None:
    done = job("kill -9 $$", "--json")
    assert (done.code, done.json["ending"], done.json["exit_code"]) == (4, "exited", 137), done
    again = workspace.replay("replay", done.json["run_id"])
    assert again.code == 0, "the same end is the same result"


def test_background_processes_end_with_their_job(job: Any, workspace: Workspace) -> None:
    done = job("(sleep 600; echo late > late) & echo started", "--json")
    assert done.code == 0
    assert done.json["duration_s"] < 300
    assert "late" not in done.json["undeclared"]


# --- output --------------------------------------------------------------------------------------------------


def test_the_first_and_last_bytes_of_a_fast_job_are_kept(job: Any, workspace: Workspace) -> None:
    for command, wanted in (
        ("echo first", b"first\n"),
        ("printf 'no newline'", b"no newline"),
        ("printf '\\000\\377\\033[31m\\r'", b"\0\xff\033[31m\r"),
        ("echo seen; exec >&- 2>&-; sleep .2; echo on > r", b"seen\n"),
    ):
        done = job(command, "--json")
        assert done.code == 0, done
        assert json.loads(done.out), "stdout holds one object and nothing of the job"
        assert (workspace.store / "runs" / done.json["run_id"] / "stdout").read_bytes() == wanted
        shown = subprocess.run(
            workspace.command("logs", done.json["run_id"]), cwd=workspace.root, capture_output=True, check=True
        )
        assert shown.stdout == wanted


def test_both_streams_are_told_apart_and_in_order(job: Any, workspace: Workspace) -> None:
    done = job("for i in 1 2 3; do echo o$i; sleep .5; echo e$i >&2; sleep .5; done", "--json")
    run_id = done.json["run_id"]
    pieces = workspace.replay("logs", run_id, "--json").json["pieces"]
    assert [(p["stream"], p["text"]) for p in pieces] == [
        (stream, f"{stream[3]}{i}\n") for i in (1, 2, 3) for stream in ("stdout", "stderr")
    ]
    assert workspace.replay("logs", run_id, "--stream", "stderr").out == "e1\ne2\ne3\n"


def test_output_is_seen_while_the_job_runs(workspace: Workspace, shell_image: str) -> None:
    workspace.jobs(j={"command": "echo live; sleep 600", "image": shell_image, "python": None})
    process = workspace.start("run", "j")
    assert process.stderr
    try:
        assert any(line == b"live\n" for line in iter(process.stderr.readline, b""))
        assert process.poll() is None
        assert len(workspace.containers()) == 1
        (kept,) = workspace.store.glob("runs/*/stdout")
        assert kept.read_bytes() == b"live\n"
    finally:
        process.terminate()
        process.communicate(timeout=300)


def test_quiet_shows_nothing_of_the_job(job: Any) -> None:
    done = job("echo noise; echo noise >&2", "--quiet")
    assert "noise" not in done.out + done.err
    assert done.err == ""
    assert "recorded" in done.out


def print_much(workspace: Workspace, shell_image: str, size: int) -> int:
    """Record a job that prints that much; the most memory that the command took, in bytes."""
    workspace.jobs(j={"command": f"head -c {size} /dev/zero", "image": shell_image, "python": None})
    watched = (
        "import resource, subprocess, sys; "
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL); "
        "print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [workspace.command()[0], "-c", watched, *workspace.command("run", "j")]
    done = subprocess.run(command, cwd=workspace.root, env=workspace.env, capture_output=True, text=True, check=True)
    code, kilobytes = done.stdout.split()
    assert code == "0"
    (kept,) = workspace.store.glob("runs/*/stdout")
    assert kept.stat().st_size == size
    return int(kilobytes) << 10


def test_much_output_takes_little_memory(workspace: Workspace, shell_image: str) -> None:
    assert print_much(workspace, shell_image, 150 << 20) < 140 << 20


@pytest.mark.slow
def test_a_gigabyte_of_output_takes_little_memory(workspace: Workspace, shell_image: str) -> None:
    assert print_much(workspace, shell_image, 1 << 30) < 140 << 20


# --- no engine -----------------------------------------------------------------------------------------------


def test_no_engine(job: Any, tmp_path: Path) -> None:
    for where in (f"unix://{tmp_path}/none.sock", "tcp://127.0.0.1:1"):
        done = job("true", caller={"DOCKER_HOST": where})
        assert done.code == 7
        assert where in done.err
        assert "systemctl start docker" in done.err
    done = job("true", "--json", caller={"DOCKER_HOST": where})
    assert done.json["error"]["code"] == 7
    assert done.json["error"]["next"]
