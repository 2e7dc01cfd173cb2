"""`replay init`: a first `replay.yaml`, from what a folder holds. Pure but for reading names."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from runner.state.strict import load_yaml

_ENTRY_POINTS = ("train.py", "main.py", "run.py", "job.py", "pipeline.py")
_REQUIREMENTS = ("requirements.in", "requirements.txt", "pyproject.toml")
_SKIPPED = frozenset({".git", ".dvc", ".venv", "venv", ".replay", "node_modules", "state_specs"})


class Findings(msgspec.Struct, frozen=True):
    """What was found; paths are relative to the folder. `program` is a console script of the project itself."""

    stages: tuple[str, ...] = ()
    script: str | None = None
    program: str | None = None
    requirements: str | None = None
    image_folders: tuple[str, ...] = ()
    dockerfile: bool = False
    data: tuple[str, ...] = ()
    params: str | None = None


def find(root: Path) -> Findings:
    images = root / "images"
    folders = sorted(p for p in images.iterdir() if _is_image(p)) if images.is_dir() else []
    scripts = [name for name in _ENTRY_POINTS if (root / name).is_file()]
    scripts += sorted(path.name for path in root.glob("*.py") if path.name not in _ENTRY_POINTS)
    requirements = next((name for name in _REQUIREMENTS if (root / name).is_file()), None)
    return Findings(
        stages=_stages(root),
        script=scripts[0] if scripts else None,
        program=_program(root) if requirements == "pyproject.toml" and not scripts else None,
        requirements=requirements,
        image_folders=tuple(f"images/{folder.name}" for folder in folders),
        dockerfile=(root / "Dockerfile").is_file(),
        data=tuple(sorted(_data(root))),
        params=next((name for name in ("params.yaml", "params.json", "params.toml") if (root / name).is_file()), None),
    )


def workfile(found: Findings) -> str:
    """The text of a `replay.yaml` that loads as it is; what could not be found stands as a comment."""
    names = found.stages or (Path(found.script).stem if found.script else found.program or "job",)
    jobs = "\n".join(_job(name, found, is_stage=bool(found.stages)) for name in names)
    return (
        "# The jobs of this workspace. `replay run JOB` records one, `replay RUN` runs a recorded one again.\n"
        "version: 1\n"
        "jobs:\n" + jobs
    )


def _job(name: str, found: Findings, *, is_stage: bool) -> str:
    lines = [f"  {_quoted(_job_name(name))}:"]
    if is_stage:
        lines.append(f"    stage: {_quoted(name)}             # command, deps, params and outs as in dvc.yaml")
    else:
        command = f"python {found.script}" if found.script else found.program or "echo 'say here what is to be run'"
        lines.append(f"    command: {_quoted(command)}    # a string goes to `sh -c`, a list is executed as it is")
    lines.append(
        f"    image: {_quoted(_image(found))}    # a folder with a Dockerfile or recipe, or any image reference"
    )
    lines.append(
        f"    dependencies: {found.requirements}    # locked inside the image at the first run"
        if found.requirements
        else "    # dependencies: requirements.in    # none found: the job uses what the image holds"
    )
    if not is_stage:
        lines += _inputs(found)
        lines += [
            "    outputs: [stdout]    # paths that the job writes, and `stdout`; each may say how it is compared:"
        ]
        lines += ["    # outputs:", "    #   metrics.json: {compare: json, rtol: 1e-6}"]
    lines += ["    # env: {MODE: prod}                  # nothing else of your environment reaches the job"]
    lines += ["    # secrets: {API_KEY: env:API_KEY}    # references; the values are never recorded"]
    lines += ["    # limits: {memory: 2g, cpus: 2, time: 1h}"]
    return "\n".join(lines) + "\n"


def _inputs(found: Findings) -> list[str]:
    lines = ["    data:    # tracked by DVC, read-only in the job"] if found.data else []
    lines += [f"      - {_quoted(path)}" for path in found.data]
    if not found.data:
        lines.append("    # data: [data/customers.csv]         # tracked by DVC: `dvc add data/customers.csv`")
    return lines + ([f"    params: {found.params}"] if found.params else ["    # params: params.yaml"])


def _image(found: Findings) -> str:
    if found.image_folders:
        return found.image_folders[0]
    return "./" if found.dockerfile else "python:3.11-slim"


def _is_image(folder: Path) -> bool:
    return (folder / "Dockerfile").is_file() or (folder / "recipe.yaml").is_file()


def _program(root: Path) -> str | None:
    """The first console script that `pyproject.toml` declares; a job can call it by name."""
    try:
        described = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    project = described.get("project")
    scripts = project.get("scripts") if isinstance(project, dict) else None
    return next(iter(scripts), None) if isinstance(scripts, dict) else None


def _stages(root: Path) -> tuple[str, ...]:
    file = root / "dvc.yaml"
    described: Any = load_yaml(file.read_bytes(), str(file)) if file.is_file() else None
    stages = described.get("stages") if isinstance(described, dict) else None
    return tuple(name for name, stage in (stages or {}).items() if isinstance(stage, dict) and "cmd" in stage)


def _data(root: Path) -> list[str]:
    found = []
    for file in root.rglob("*.dvc"):
        if file.is_file() and _SKIPPED.isdisjoint(file.relative_to(root).parts):
            found.append(str(file.relative_to(root)).removesuffix(".dvc"))
    return found


def _job_name(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "-" for c in name).strip("-._") or "job"


def _quoted(text: str) -> str:
    """A YAML scalar; quoted, as JSON, when it is more than plain words."""
    plain = all(c.isalnum() or c in "_./-" for c in text) and text[:1].isalpha()
    return text if plain or text.replace(" ", "").replace(".", "").isalpha() else json.dumps(text)
