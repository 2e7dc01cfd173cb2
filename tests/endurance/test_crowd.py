"""Eight commands at once on one store for two minutes: nothing corrupt, nobody waits for ever, no wrong verdict."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conftest import Done
from tests.endurance.test_kills import left_over
from tests.engine.conftest import Recorded

pytestmark = [pytest.mark.engine, pytest.mark.slow]

CROWD = 8
SECONDS = float(os.environ.get("CROWD_SECONDS", "120"))
VERDICTS = {"steady": ("identical", 0), "random": ("nondeterministic", 1)}
CHOICES = {"replay": 6, "run": 4, "diff": 2, "ls": 2, "gc": 2, "rm": 1, "show": 1, "fsck": 1}


class Member:
    """One of the crowd: calls commands by a seeded choice and judges each answer."""

    def __init__(self, recorded: Recorded, number: int) -> None:
        self.recorded = recorded
        self.number = number
        self.random = random.Random(number)
        self.own: dict[str, str] = {}
        self.counts: Counter[str] = Counter()

    def go(self, deadline: float) -> Counter[str]:
        name = list(CHOICES)[self.number]  # each is called, however few there is time for
        while time.monotonic() < deadline:
            self.counts[name] += 1
            getattr(self, f"do_{name}")()
            name = self.random.choices(list(CHOICES), list(CHOICES.values()))[0]
        return self.counts

    def call(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> Done:
        done = self.recorded.replay(*arguments, "--json", timeout=900)
        assert done.code in codes, f"{arguments}: {done.code}\n{done.out}\n{done.err}"
        return done

    def judge(self, job: str, run: str) -> None:
        verdict, code = VERDICTS[job]
        assert self.call("replay", run, "-q", codes=(code,)).json["verdict"] == verdict

    def job(self) -> str:
        return self.random.choice(sorted(VERDICTS))

    def do_replay(self) -> None:
        job = self.job()
        self.judge(job, self.recorded.ids[job])

    def do_run(self) -> None:
        job = self.job()
        done: dict[str, Any] = self.call("run", job, "-q").json
        self.judge(job, done["run_id"])
        self.own[done["run_id"]] = job

    def do_diff(self) -> None:
        assert self.call("diff", self.recorded.ids["steady"], self.recorded.ids["where"], codes=(1,)).json["changes"]

    def do_ls(self) -> None:
        listed = {row["run_id"]: row["outcome"] for row in self.call("ls", "-n", "0").json["runs"]}
        assert all(listed[run] == "ok" for run in (*self.own, *(self.recorded.ids[job] for job in VERDICTS)))

    def do_gc(self) -> None:
        self.call("gc", codes=(0, 7))  # 7: others went on adding for a minute

    def do_rm(self) -> None:
        if self.own:
            run = self.random.choice(sorted(self.own))
            del self.own[run]
            self.call("rm", run)

    def do_show(self) -> None:
        self.call("show", self.recorded.ids[self.job()])

    def do_fsck(self) -> None:
        assert self.call("fsck", codes=(0, 7)).json


def test_a_crowd_on_one_store(recorded: Recorded) -> None:
    members = [Member(recorded, number) for number in range(CROWD)]
    deadline = time.monotonic() + SECONDS
    with ThreadPoolExecutor(CROWD) as pool:
        counts = sum(pool.map(lambda member: member.go(deadline), members), Counter[str]())
    assert counts.keys() == CHOICES.keys(), counts
    for member in members:
        for run, job in list(member.own.items())[:3]:
            member.judge(job, run)
    assert recorded.replay("gc").code == 0
    assert recorded.replay("fsck").code == 0
    assert recorded.replayed(recorded.ids["steady"], "-q")["verdict"] == "identical"
    left_over(recorded)
