"""What a job declares about its stages and boundaries, made whole: names given, commands split, places derived.

A boundary is crossed before the job starts when it is on an input, and after what writes it when it is on an output.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from runner.errors import UsageError
from runner.state.job import Job, JobCheck, JobStage, words_of
from runner.state.paths import STDOUT, covers, inside
from runner.state.spec import CHECK_KINDS, Baseline, Check, OutputRule, Stage
from runner.store.files import is_within

BaselineOf = Callable[[str, str], Baseline]

# --- stages --------------------------------------------------------------------------------------------------


def job_stages(job: Job) -> tuple[JobStage, ...]:
    """Those that are written out; stages of `dvc.yaml` are filled in before."""
    return tuple(stage for stage in job.stages if isinstance(stage, JobStage))


def stages_of(name: str, job: Job, outputs: Collection[str], code: Collection[str]) -> tuple[Stage, ...]:
    """The stages of the job in their order. `code` are the paths of its code files.

    Raises `UsageError` for what no stage could be given, or what none would write.
    """
    stages: list[Stage] = []
    inputs = _inputs(job)
    for number, declared in enumerate(job_stages(job)):
        where = f"jobs.{name}.stages[{number}]"
        words = words_of(declared.command)
        if not words:
            _refuse(f"{where}.command", "found nothing", "a command")
        stage = Stage(
            name=declared.name,
            command=words,
            deps=tuple(dict.fromkeys(inside(dep, f"{where}.deps") for dep in declared.deps)),
            outs=tuple(dict.fromkeys(inside(out, f"{where}.outs") for out in declared.outs)),
        )
        _refuse_clash(where, stage, stages, inputs)
        _refuse_unknown_deps(where, stage, stages, inputs, code)
        stages.append(stage)
    for output in outputs if stages else ():
        if output != STDOUT and not any(_touch(out, output) for stage in stages for out in stage.outs):
            _refuse(f"jobs.{name}.outputs", f"{output!r} is among the `outs` of no stage", "a path that a stage writes")
    return tuple(stages)


def _refuse_clash(where: str, stage: Stage, before: Sequence[Stage], inputs: Collection[str]) -> None:
    if any(stage.name == other.name for other in before):
        _refuse(f"{where}.name", f"there is another stage {stage.name!r}", "a name of its own")
    for out in stage.outs:
        if out == STDOUT:
            _refuse(f"{where}.outs", "`stdout` is the job's", "it under the job's `outputs`")
        taken = [f"an out of {other.name}" for other in before for one in other.outs if _touch(one, out)]
        taken += ["an input" for path in inputs if _touch(path, out)]
        taken += ["a dep of the same stage" for dep in stage.deps if _touch(dep, out)]
        if taken:
            _refuse(f"{where}.outs", f"{out!r} is also {taken[0]}", "a path of its own")


def _refuse_unknown_deps(
    where: str, stage: Stage, before: Sequence[Stage], inputs: Collection[str], code: Collection[str]
) -> None:
    known = [*inputs, *(out for other in before for out in other.outs)]
    for dep in stage.deps:
        if not any(_touch(dep, one) for one in known) and not any(covers(dep, path) for path in code):
            expected = "a code file or folder, a path under data, model or params, or an out of an earlier stage"
            _refuse(f"{where}.deps", f"{dep!r} is none that the stage could be given", expected)


def _inputs(job: Job) -> list[str]:
    params = [job.params] if isinstance(job.params, str) else []
    return [inside(path, "data") for path in (*job.data, *job.model, *params)]


def _touch(one: str, other: str) -> bool:
    return covers(one, other) or covers(other, one)


# --- boundaries ----------------------------------------------------------------------------------------------


def checks_of(
    name: str,
    job: Job,
    root: Path,
    outputs: Mapping[str, OutputRule],
    stages: Sequence[Stage],
    baseline: BaselineOf,
) -> tuple[Check, ...]:
    """The boundaries of the job and of its stages, in the order in which they are declared. `baseline` finds what a
    named run had at a path.

    Raises `UsageError` for what can never be evaluated.
    """
    found: dict[str, Check] = {}
    for where, declared, stage in _declared(name, job):
        check = _check(where, declared, job, root, outputs, stages, baseline)
        if stage:
            _refuse_foreign(where, check, stage)
        if check.name in found:
            if declared.name:
                _refuse(f"{where}.name", f"there is another check {check.name!r}", "a name of its own")
            _refuse(where, f"there is another check of {check.on} by {check.kind}", "a `name` for one of them")
        found[check.name] = check
    return tuple(found.values())


def _declared(name: str, job: Job) -> Iterator[tuple[str, JobCheck, JobStage | None]]:
    for number, check in enumerate(job.checks):
        yield f"jobs.{name}.checks[{number}]", check, None
    for place, stage in enumerate(job_stages(job)):
        for number, check in enumerate(stage.checks):
            yield f"jobs.{name}.stages[{place}].checks[{number}]", check, stage


def _refuse_foreign(where: str, check: Check, stage: JobStage) -> None:
    if not any(covers(inside(path, where), check.on) for path in (*stage.deps, *stage.outs)):
        _refuse(f"{where}.on", f"{check.on!r} is neither a dep nor an out of {stage.name}", "one of these")


def _check(
    where: str,
    declared: JobCheck,
    job: Job,
    root: Path,
    outputs: Mapping[str, OutputRule],
    stages: Sequence[Stage],
    baseline: BaselineOf,
) -> Check:
    kinds = [kind for kind in CHECK_KINDS if getattr(declared, kind) is not None]
    if len(kinds) != 1:
        _refuse(where, f"found {' and '.join(kinds) or 'none'}", f"exactly one of {', '.join(CHECK_KINDS)}")
    on = STDOUT if declared.on == STDOUT else inside(declared.on, f"{where}.on")
    is_input = any(covers(path, on) for path in _inputs(job))
    stage = next((stage.name for stage in stages if any(covers(out, on) for out in stage.outs)), None)
    if not is_input and stage is None and not any(covers(output, on) for output in outputs):
        _refuse(f"{where}.on", f"{on!r} is not declared", "a path under data, model, params or outputs, or `stdout`")
    return Check(
        name=declared.name or f"{kinds[0]} of {on}",
        on=on,
        when="before" if is_input else "after",
        stage=stage,
        action=declared.action,
        escalate=_escalation(where, declared),
        schema=_schema(f"{where}.schema", declared, root),
        table=_table(f"{where}.table", declared),
        metrics=_metrics(f"{where}.metrics", declared),
        drift=None if declared.drift is None else baseline(declared.drift, on),
        command=_command(f"{where}.command", declared, on),
    )


def _escalation(where: str, declared: JobCheck) -> tuple[str, ...]:
    if declared.escalate and not declared.escalate[0].strip():
        _refuse(f"{where}.escalate", "its first word is empty", "a program and its arguments")
    return declared.escalate


def _schema(where: str, declared: JobCheck, root: Path) -> dict[str, Any] | None:
    """The schema itself, so that the contract stands alone."""
    from runner.checks import schema_problem

    if declared.schema is None:
        return None
    found = _read_schema(where, declared.schema, root) if isinstance(declared.schema, str) else declared.schema
    if problem := schema_problem(found):
        _refuse(where, problem, "a JSON Schema that stands alone")
    return found


def _read_schema(where: str, given: str, root: Path) -> dict[str, Any]:
    from runner.checks import read_document

    path = inside(given, where)
    if not is_within(root, root / path) or not (root / path).is_file():
        _refuse(where, f"there is no file {path}", "the path of a JSON Schema in the workspace, or the schema itself")
    document = read_document((root / path).read_bytes(), path)
    if not isinstance(document, dict):
        _refuse(where, f"{path} holds no mapping", "a JSON Schema")
    return document


def _table(where: str, declared: JobCheck) -> Any:
    from runner.checks import rule_problem
    from runner.compare.extras import missing

    if declared.table is None:
        return None
    if problem := rule_problem(declared.table):
        _refuse(f"{where}.{problem}", "")
    if lacking := missing("tables"):
        raise UsageError(
            f"{where} cannot work here",
            f"{' and '.join(lacking)} is not installed",
            "pip install 'replay-runner[tables]'",
        )
    return declared.table


def _metrics(where: str, declared: JobCheck) -> dict[str, str] | None:
    if declared.metrics == {}:
        _refuse(where, "found none", 'values and what they must be: {accuracy: ">= 0.9"}')
    return declared.metrics


def _command(where: str, declared: JobCheck, on: str) -> tuple[str, ...] | None:
    if declared.command is None:
        return None
    words = words_of(declared.command)
    if not words:
        _refuse(where, "found nothing", "a command")
    if on == STDOUT:
        _refuse(where, "`stdout` is no file that it could read", "a check on a path")
    return words


def _refuse(where: str, found: str, expected: str = "") -> NoReturn:
    why = f"{where}: {found}" if found else where
    raise UsageError(
        "replay.yaml is not valid", f"{why}; expected {expected}" if expected else why, "correct replay.yaml"
    )
