"""Evidence: what the store has to show of runs that came out otherwise: both sides of an output, pictures of where
images differ, both logs. What is large, lost or damaged is not shown; nothing is an error.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from runner.compare import difference_picture, differing_images
from runner.errors import ReplayError
from runner.logs import read_log
from runner.state.digest import Digest
from runner.state.night import Artifact, Night, NightRun
from runner.state.record import GOOD, Output, Record
from runner.store.runs import Run, is_run_id
from runner.workspace import Workspace

MOST_RUNS = 50
MOST_OUTPUTS = 20
LARGEST = 2 << 20
MOST_BYTES = 64 << 20
_TAIL = 48 << 10
_SHOWN = frozenset({"regressed", "flaky", "failing"})
_IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8")


Side = Literal["original", "replay"]


class Evidence(NamedTuple):
    """The night with artifacts for its runs, and their bytes by file name."""

    night: Night
    files: dict[str, bytes]


class _Sides(NamedTuple):
    """A run and the replay that gave its verdict: where they are kept and what they wrote."""

    original: Run
    replay: Run
    before: dict[str, Output]
    after: dict[str, Output]

    @property
    def runs(self) -> tuple[tuple[Side, Run], ...]:
        return ("replay", self.replay), ("original", self.original)

    @property
    def outputs(self) -> tuple[tuple[Side, dict[str, Output]], ...]:
        return ("original", self.before), ("replay", self.after)


def gather(workspace: Workspace, night: Night) -> Evidence:
    """What can be shown of the runs that are in trouble, those that come first in the night."""
    files: dict[str, bytes] = {}
    in_trouble = [run.run_id for run in night.runs if run.moved in _SHOWN and is_run_id(run.replay)]
    shown = set(in_trouble[:MOST_RUNS])
    runs = tuple(_with_evidence(workspace, run, files) if run.run_id in shown else run for run in night.runs)
    return Evidence(msgspec.structs.replace(night, runs=runs), files)


def _with_evidence(workspace: Workspace, run: NightRun, files: dict[str, bytes]) -> NightRun:
    found = []
    try:
        for artifact, data in _of_run(workspace, run):
            if sum(map(len, files.values())) + len(data) > MOST_BYTES:
                break
            files[artifact.file] = data
            found.append(artifact)
    except (ReplayError, OSError):
        pass
    return msgspec.structs.replace(run, artifacts=run.artifacts + tuple(found))


def _of_run(workspace: Workspace, run: NightRun) -> Iterator[tuple[Artifact, bytes]]:
    """Logs first: they are there even where outputs are lost."""
    sides = _sides(workspace, run)
    for name, kept in sides.runs:
        if log := _log(kept.folder):
            yield Artifact(f"{run.run_id}/{name}.log", "", "log", name), log
    bad = [one.path for one in run.outputs if one.verdict not in GOOD]
    for number, path in enumerate(bad[:MOST_OUTPUTS]):
        for name, outputs in sides.outputs:
            data = _small(workspace, outputs.get(path))
            if data is not None and (kind := _kind(data)):
                yield Artifact(f"{run.run_id}/{number}.{name}", path, kind, name), data
    yield from _pictures(workspace, run, sides, bad[:MOST_OUTPUTS])


def _sides(workspace: Workspace, run: NightRun) -> _Sides:
    original, replay = workspace.run(run.run_id), workspace.run(run.replay)
    return _Sides(original, replay, _by_path(original.record()), _by_path(replay.record()))


def _by_path(record: Record | None) -> dict[str, Output]:
    return {output.path: output for output in record.every_output} if record else {}


def _small(workspace: Workspace, output: Output | None) -> bytes | None:
    if output is None or output.size > LARGEST:
        return None
    with contextlib.suppress(ReplayError):
        return workspace.store.blobs.read(Digest(output.sha256))
    return None


def _kind(data: bytes) -> Literal["image", "text"] | None:
    """Of what can be looked at."""
    if data.startswith(_IMAGES):
        return "image"
    try:
        data.decode()
    except UnicodeDecodeError:
        return None
    return None if b"\0" in data else "text"


def _pictures(workspace: Workspace, run: NightRun, sides: _Sides, bad: list[str]) -> Iterator[tuple[Artifact, bytes]]:
    """None where what reads images is not installed."""
    before = {path: output for path, output in sides.before.items() if path in bad and output.size <= LARGEST}
    verified = workspace.store.blobs.verified
    with tempfile.TemporaryDirectory(prefix="replay-") as folder:
        for path in differing_images(before, sides.after, sides.original.spec().contract.outputs):
            target = Path(folder) / "picture.png"
            with contextlib.suppress(ReplayError):
                a, b = (verified(Digest(outputs[path].sha256)) for outputs in (before, sides.after))
                difference_picture(a, b, target)
                name = f"{run.run_id}/{bad.index(path)}.difference"
                yield Artifact(name, path, "image", "difference"), target.read_bytes()


def _log(folder: Path) -> bytes:
    """As the streams came; of large ones the ends alone, one after the other."""
    streams = [file for name in ("stdout", "stderr") if (file := folder / name).is_file()]
    if sum(file.stat().st_size for file in streams) <= LARGEST:
        return b"".join(data for stream, data in read_log(folder) if stream)
    return b"\n".join(_tail(file) for file in streams)


def _tail(file: Path) -> bytes:
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - _TAIL))
        return f"… the end of {file.name}:\n".encode() + opened.read()
