"""A run as a Process Run Crate: JSON-LD that says what the files of a folder are to the run.

RO-Crate 1.1 with the Process Run Crate profile 0.5. The run is a CreateAction; its instrument is the job's code, its
objects are code, parameters, data and models, its results the outputs. A pure function of spec, record and what of
them is in the folder; the same run gives the same bytes.
"""

from __future__ import annotations

import datetime
import mimetypes
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from runner.state.digest import Digest, hex_of
from runner.state.record import Output, Record
from runner.state.spec import State, StateSpec

METADATA = "ro-crate-metadata.json"
CODE, DATA, LOGS, OUTPUTS, PARAMS = "code", "data", "logs", "outputs", "params"

_CRATE = "https://w3id.org/ro/crate/1.1"
_PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
_TERMS = "https://w3id.org/ro/terms/workflow-run"
_STATUS = "http://schema.org/"
_ANY = "application/octet-stream"
_TEXTS = ("stdout", "stderr")
_KINDS = {"yaml": "application/yaml", "yml": "application/yaml", "jsonl": "application/jsonl"}
_SCRIPT_URL = ("https://", "http://")

Entity = dict[str, Any]


class Included(msgspec.Struct, frozen=True):
    """What is in the folder beside outputs and code: files of the run by name, each with what it is; data paths; and
    the outputs that are not there, each with why. `key` is the id of the one that signed."""

    files: Mapping[str, str]
    data: frozenset[str] = frozenset()
    absent: Mapping[str, str] = {}
    key: str | None = None


def metadata(spec: StateSpec, record: Record, included: Included) -> bytes:
    """The bytes of `ro-crate-metadata.json`."""
    ended = _ended(record)
    objects, results = list(_objects(spec, included)), list(_results(record, included))
    files = [_file(name, {"description": what}) for name, what in sorted(included.files.items())]
    parts = [one for one in (*objects, *results, *files) if _types(one) & {"File", "Dataset"}]
    action = _action(spec, record, ended, objects, results, included)
    author = {"author": _to("#signer")} if included.key else {}
    graph = [
        {"@id": METADATA, "@type": "CreativeWork", "conformsTo": _to(_CRATE), "about": _to("./")},
        {
            "@id": "./",
            "@type": "Dataset",
            "name": f"The run {record.run_id}",
            "description": f"What the job {spec.run.job} ran, under which conditions, and what came of it",
            "datePublished": ended,
            "license": _to("#license"),
            "conformsTo": _to(_PROFILE),
            "mentions": _to("#run"),
            "hasPart": [_to(one["@id"]) for one in parts],
            **author,
        },
        {"@id": _PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"},
        {
            "@id": "#license",
            "@type": "CreativeWork",
            "name": "No license is stated",
            "description": "A run does not know under which terms its code and data may be used; ask its owner",
        },
        action,
        *_instrument(spec, record),
        *_image(spec),
        *_environment(spec.state),
        *_agent(included),
        *objects,
        *results,
        *files,
    ]
    document = {"@context": [f"{_CRATE}/context", f"{_TERMS}/context"], "@graph": graph}
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def _action(
    spec: StateSpec, record: Record, ended: str, objects: list[Entity], results: list[Entity], included: Included
) -> Entity:
    outcome = record.outcome
    found: Entity = {
        "@id": "#run",
        "@type": "CreateAction",
        "name": f"{'Replay' if record.replay else 'Run'} {record.run_id}",
        "description": _told(record),
        "identifier": record.run_id,
        "instrument": _to("#job"),
        "object": [_to(one["@id"]) for one in objects],
        "result": [_to(one["@id"]) for one in results],
        "startTime": _time(_started(record)),
        "endTime": ended,
        "actionStatus": _STATUS + ("CompletedActionStatus" if record.ok else "FailedActionStatus"),
        "containerImage": _to("#image"),
    }
    if not record.ok:
        found["error"] = f"{outcome.ending} {outcome.exit_code}" + (f": {outcome.detail}" if outcome.detail else "")
    if spec.state.env:
        found["environment"] = [_to(one["@id"]) for one in _environment(spec.state)]
    if included.key:
        found["agent"] = _to("#signer")
    return found


def _told(record: Record) -> str:
    said = f"state {record.state_digest}, ended {record.outcome.ending} {record.outcome.exit_code}"
    return f"{said}; {record.replay.verdict} to {record.replay.replay_of}" if record.replay else said


def _instrument(spec: StateSpec, record: Record) -> Iterator[Entity]:
    seen, locked = spec.observed.code, spec.state.dependencies.locked or ()
    commands = [spec.state.command] if spec.state.command else [stage.command for stage in spec.state.stages]
    found: Entity = {
        "@id": "#job",
        "@type": "SoftwareSourceCode",
        "name": spec.run.job,
        "version": record.state_digest,
        "description": " && ".join(" ".join(command) for command in commands),
        "softwareRequirements": [_to(_package(wheel.name, wheel.version)) for wheel in locked],
    }
    if seen.remote and seen.remote.startswith(_SCRIPT_URL):
        found |= {"codeRepository": seen.remote, "url": seen.remote}
    yield found if locked else {key: value for key, value in found.items() if key != "softwareRequirements"}
    for wheel in locked:
        yield {
            "@id": _package(wheel.name, wheel.version),
            "@type": "SoftwareApplication",
            "name": wheel.name,
            "softwareVersion": wheel.version,
            "sha256": hex_of(Digest(wheel.sha256)),
        }


def _image(spec: StateSpec) -> Iterator[Entity]:
    seen, image = spec.observed.image, spec.state.image
    name = seen.folder or seen.reference or image.platform
    found: Entity = {
        "@id": "#image",
        "@type": "ContainerImage",
        "additionalType": _to(f"{_TERMS}#DockerImage"),
        "name": name,
        "description": f"{image.platform}, layers {', '.join(image.diff_ids)}",
    }
    if not seen.folder and seen.reference:
        first, slash, _ = seen.reference.partition("/")
        is_host = bool(slash) and ("." in first or ":" in first)
        path = seen.reference.removeprefix(f"{first}/") if is_host else seen.reference
        path = path.partition("@")[0]
        found |= {"registry": first if is_host else "docker.io", "name": path.rpartition(":")[0] or path}
        found |= {"tag": path.rpartition(":")[2]} if ":" in path else {}
    if seen.repo_digests:
        found["sha256"] = seen.repo_digests[0].rpartition(":")[2]
    yield found


def _environment(state: State) -> Iterator[Entity]:
    for name, value in sorted(state.env.items()):
        yield {"@id": f"#env/{quote(name)}", "@type": "PropertyValue", "name": name, "value": value}


def _agent(included: Included) -> Iterator[Entity]:
    if included.key:
        name = f"The holder of the key {included.key}"
        yield {"@id": "#signer", "@type": "Person", "name": name, "identifier": included.key}


def _objects(spec: StateSpec, included: Included) -> Iterator[Entity]:
    state, params = spec.state, spec.state.params
    yield {
        "@id": f"{CODE}/",
        "@type": "Dataset",
        "name": "The job's code",
        "description": "every file of the workspace that the job saw beside parameters and data",
        "identifier": state.code,
    }
    if params and params.file and params.sha256:
        yield _file(f"{PARAMS}/{params.file}", {"sha256": hex_of(Digest(params.sha256))})
    for name, value in _leaves(params.values if params else {}, ""):
        yield {"@id": f"#param/{quote(name)}", "@type": "PropertyValue", "name": name, "value": value}
    for path, digest in sorted((state.data | state.model).items()):
        seen = (spec.observed.data | spec.observed.model).get(path)
        sized = {"contentSize": str(seen.size)} if seen and seen.size is not None else {}
        if path not in included.data:
            told = "not in this crate; its digest is what the run saw"
            found: Entity = {"@id": f"#data/{quote(path)}", "@type": "CreativeWork", "description": told}
        elif seen and seen.nfiles is not None:
            found = {"@id": f"{DATA}/{quote(path)}/", "@type": "Dataset"}
        else:
            found = _file(f"{DATA}/{path}", {})
        yield found | {"name": path, "identifier": digest} | sized


def _results(record: Record, included: Included) -> Iterator[Entity]:
    for output in record.every_output:
        yield _absent(output, included.absent[output.path]) if output.path in included.absent else _output(output)


def _output(output: Output) -> Entity:
    sized = {"sha256": hex_of(Digest(output.sha256)), "contentSize": str(output.size)}
    return _file(f"{OUTPUTS}/{output.path}", sized) | {"name": output.path}


def _absent(output: Output, why: str) -> Entity:
    return {
        "@id": f"#output/{quote(output.path)}",
        "@type": "CreativeWork",
        "name": output.path,
        "description": f"not in this crate: {why}",
        "sha256": hex_of(Digest(output.sha256)),
        "contentSize": str(output.size),
    }


def _file(path: str, more: Entity) -> Entity:
    found: Entity = {"@id": quote(path), "@type": "File", "name": path.rpartition("/")[2], **more}
    return found | {"encodingFormat": _kind(path)}


def _kind(path: str) -> str:
    name = path.rpartition("/")[2]
    if "." not in name or name.endswith(".tlog-proof"):
        return "text/plain" if name in _TEXTS or name.endswith(".tlog-proof") else _ANY
    return _KINDS.get(name.rpartition(".")[2].lower()) or mimetypes.guess_type(name)[0] or _ANY


def _leaves(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, inner in sorted(value.items()):
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    elif name:
        yield name, value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _types(entity: Entity) -> set[str]:
    return {entity["@type"]}


def _to(name: str) -> Entity:
    return {"@id": name}


def _package(name: str, version: str) -> str:
    return f"pkg:pypi/{quote(name)}@{quote(version)}"


def _started(record: Record) -> datetime.datetime:
    return datetime.datetime.fromisoformat(record.started).astimezone(datetime.UTC)


def _ended(record: Record) -> str:
    return _time(_started(record) + datetime.timedelta(seconds=record.outcome.duration_s))


def _time(moment: datetime.datetime) -> str:
    return moment.isoformat(timespec="seconds")
