"""Nights as a suite's months would have left them, made up; and bytes of images."""

from __future__ import annotations

import datetime
import random
import struct
import zlib
from collections import Counter
from collections.abc import Iterator

from runner.state.night import Artifact, Moved, Moving, Night, NightRun, NightVerdict, PinTrouble, Rate, Trouble
from runner.state.record import OutputVerdict, Verdict

FIRST = datetime.datetime(2026, 8, 24, 3, tzinfo=datetime.UTC)
JOBS = ("train", "score", "features", "digits", "churn", "forecast")
ALPHABET = "23456789abcdefghjkmnpqrstvwxyz"


def png(width: int, height: int, colour: tuple[int, int, int]) -> bytes:
    """An image of one colour with a lighter diagonal."""
    rows = b"".join(
        b"\0" + bytes(255 if abs(x * height - y * width) < width else part for x in range(width) for part in colour)
        for y in range(height)
    )

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def run_of(run_id: str = "train-20261120-k3v9xq", **given: object) -> NightRun:
    """A run that is as good as it was, but for what is given."""
    plain: dict[str, object] = {
        "run_id": run_id,
        "job": run_id.split("-")[0],
        "verdict": "identical",
        "moved": "steady",
        "before": "identical",
        "since": "nightly-20260824-030000",
        "state_digest": "sha256:" + "ab" * 32,
        "duration_s": 3.2,
        "command": f"replay {run_id}",
    }
    return NightRun(**(plain | given))  # type: ignore[arg-type]


def night_of(*runs: NightRun, name: str = "2026-11-21", **given: object) -> Night:
    plain: dict[str, object] = {
        "night": name,
        "suite": "nightly",
        "started": "2026-11-21T03:00:00Z",
        "ended": "2026-11-21T03:42:10Z",
        "runs": runs,
        "counts": dict(Counter(run.verdict for run in runs)),
    }
    return Night(**(plain | given))  # type: ignore[arg-type]


def diverged(run_id: str, moved: Moved = "regressed", **given: object) -> NightRun:
    """A run whose table and plot are no longer what they were, for a package that moved."""
    detail = "bytes differ; as table: 2 of 4 rows differ; score: 2 differ, most at row 3: 0.70 → 0.91 (+30 %)"
    plain: dict[str, object] = {
        "verdict": "diverged",
        "moved": moved,
        "since": "nightly-20261121-030000",
        "replay": "train-20261121-aqdkz7",
        "labels": ("prod", "eu"),
        "started": "2026-11-21T03:01:10Z",
        "outputs": (
            OutputVerdict("scores.csv", Verdict.DIVERGED, "table", detail),
            OutputVerdict("metrics.json", Verdict.DIVERGED, "json", "1 difference: auc 0.91 became 0.87"),
            OutputVerdict("plot.png", Verdict.DIVERGED, "image", "214 of 9,600 pixels differ"),
            OutputVerdict("model.pkl", Verdict.IDENTICAL, "bytes"),
        ),
        "changes": (
            Moving("dependencies", "scikit-learn", "1.3.2", "1.4.0"),
            Moving("env", "MODE", "", "prod"),
            Moving("data", "data/customers.csv", "sha256:be06f620997b", "sha256:75b939b4f4e1"),
        ),
        "kind": ("execution state drift",),
        "evidence": ("dependencies: scikit-learn 1.3.2 → 1.4.0", "env: MODE is new"),
        "cause": (Moving("dependencies", "scikit-learn", "1.3.2", "1.4.0"),),
        "proven": True,
        "artifacts": (
            Artifact("a.csv", "scores.csv", "text", "original"),
            Artifact("b.csv", "scores.csv", "text", "replay"),
            Artifact("a.json", "metrics.json", "text", "original"),
            Artifact("b.json", "metrics.json", "text", "replay"),
            Artifact("a.png", "plot.png", "image", "original"),
            Artifact("d.png", "plot.png", "image", "difference"),
            Artifact("b.png", "plot.png", "image", "replay"),
            Artifact("log.txt", "", "log", "replay"),
        ),
    }
    return run_of(run_id, **(plain | given))


FILES = {
    "a.csv": b"id,name,score\n1,ada,0.50\n2,bob,0.60\n3,cyd,0.70\n4,dan,0.80\n",
    "b.csv": b"id,name,score\n1,ada,0.50\n2,bob,0.61\n3,cyd,0.91\n4,dan,0.80\n",
    "a.json": b'{\n  "auc": 0.91,\n  "rows": 4\n}\n',
    "b.json": b'{\n  "auc": 0.87,\n  "rows": 4\n}\n',
    "a.png": png(160, 60, (40, 90, 160)),
    "b.png": png(160, 60, (160, 90, 40)),
    "d.png": png(160, 60, (200, 40, 40)),
    "log.txt": b"epoch 1 loss 0.41\nepoch 2 loss 0.39\n\x1b[31mwarning\x1b[0m: learning rate was lowered\n",
}
"""Of the night that `diverged` runs are in, by name."""


def nights(runs: int, count: int, seed: int = 7) -> Iterator[Night]:
    """So many nights of so many runs, the oldest first. Some break and are mended, some are flaky; in the last night
    there is one of each kind."""
    chance = random.Random(seed)
    names = [f"{JOBS[n % len(JOBS)]}-20260801-{''.join(chance.choices(ALPHABET, k=6))}" for n in range(runs)]
    verdicts: dict[str, NightVerdict] = dict.fromkeys(names, "identical")
    since: dict[str, str] = {}
    for number in range(count):
        at = FIRST + datetime.timedelta(days=number)
        tonight = []
        for name in names:
            before, verdicts[name] = verdicts[name], _next(verdicts[name], chance)
            tonight.append(_replayed(name, before, verdicts[name], number, f"{at:%Y-%m-%d}", since, chance))
        if number == count - 1:
            tonight[: len(_LAST)] = [make(name) for make, name in zip(_LAST, names, strict=False)]
        order = ("regressed", "flaky", "failing", "not-run", "fixed", "new", "steady")
        yield night_of(
            *sorted(tonight, key=lambda run: order.index(run.moved)),
            name=f"{at:%Y-%m-%d}",
            started=f"{at:%Y-%m-%dT%H:%M:%SZ}",
            ended=f"{at + datetime.timedelta(minutes=41):%Y-%m-%dT%H:%M:%SZ}",
            pins=PINS if number == count - 1 else (),
        )


PINS = (
    PinTrouble("wheel", "alpha 1.0", "sha256:" + "0c" * 32, ("store",), ("train-20261120-k3v9xq",)),
    PinTrouble("image", "python:3.11-slim", "sha256:" + "0d" * 32, (), ("a-20261120-k3v9xq",)),
)


def _next(verdict: NightVerdict, chance: random.Random) -> NightVerdict:
    dice = chance.random()
    if verdict == "identical":
        return "diverged" if dice < 0.001 else "not-run" if dice < 0.0015 else "identical"
    return "identical" if verdict == "not-run" or dice < 0.2 else verdict


def _replayed(
    name: str,
    before: NightVerdict,
    verdict: NightVerdict,
    number: int,
    day: str,
    since: dict[str, str],
    chance: random.Random,
) -> NightRun:
    if before != verdict or name not in since:
        since[name] = day
    moved: Moved = "steady"
    if verdict == "not-run":
        moved = "not-run"
    elif verdict == "diverged":
        moved = "failing" if before == "diverged" else "regressed"
    elif before == "diverged":
        moved = "fixed"
    told = Verdict.DIVERGED if verdict == "diverged" else Verdict.IDENTICAL
    outputs = tuple(
        OutputVerdict(path, told if path == "metrics.json" else Verdict.IDENTICAL, "json")
        for path in ("metrics.json", "scores.csv")
    )
    return run_of(
        name,
        verdict=verdict,
        moved=moved,
        before=before,
        since=since[name],
        duration_s=round(chance.uniform(2, 4), 1),
        outputs=() if verdict == "not-run" else outputs,
    )


def _flaky(name: str) -> NightRun:
    return run_of(
        name, verdict="nondeterministic", moved="flaky", before="identical", flaky=Rate(3, 20, 0.052, 0.36),
        outputs=(OutputVerdict("order.txt", Verdict.NONDETERMINISTIC, "text", "replays disagree in 4 lines"),),
    )  # fmt: skip


def _lost(name: str) -> NightRun:
    trouble = Trouble(3, "the wheel of alpha 1.0 cannot be had again", "looked in: store, index", "`replay pull`")
    return run_of(name, verdict="unrebuildable", moved="failing", before="unrebuildable", error=trouble)


def _not_run(name: str) -> NightRun:
    trouble = Trouble(7, "no container engine answers", "tried 4 times in 3 min", "start it, and run the night again")
    return run_of(name, verdict="not-run", moved="not-run", before="identical", error=trouble, attempts=4)


_LAST = (
    diverged,
    _flaky,
    _lost,
    _not_run,
    lambda name: run_of(name, moved="fixed", before="diverged", since="nightly-20261121-030000"),
    lambda name: run_of(name, moved="new", before=None, since="nightly-20261121-030000"),
)
