"""The published schemas and worked examples are what the code says they are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from runner.state.schemas import FILES, schemas
from runner.state.strict import check_digest, dump_spec, load_spec, load_yaml

ROOT = Path(__file__).parent.parent.parent
PUBLISHED = ROOT / "state_specs"
EXAMPLES = sorted((PUBLISHED / "examples").glob("*.yaml"))
JOBS = sorted((ROOT / "examples").glob("*/replay.yaml"))


def validator(name: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(schemas()[name])


def test_the_committed_schemas_are_the_exported_ones(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "runner.state.schemas", str(tmp_path)], cwd=ROOT, check=True)
    stale = [name for name in FILES.values() if (tmp_path / name).read_bytes() != (PUBLISHED / name).read_bytes()]
    assert not stale, "python -m runner.state.schemas state_specs"


@pytest.mark.parametrize("name", FILES)
def test_each_schema_is_one(name: str) -> None:
    schema = schemas()[name]
    jsonschema_rs.meta.validate(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] and "$id" not in schema


def nulls(schema: Any, path: str = "") -> set[str]:
    """Where a schema allows null."""
    if isinstance(schema, list):
        return set().union(*(nulls(item, path) for item in schema))
    if not isinstance(schema, dict):
        return set()
    here = {path} if schema.get("type") == "null" else set()
    return here.union(*(nulls(item, f"{path}/{key}") for key, item in schema.items()))


def test_null_is_allowed_only_where_it_means_something() -> None:
    allowed = {name: nulls(schema) for name, schema in schemas().items()}
    job = "/$defs/Job/properties"
    assert allowed == {
        "spec": set(),
        "record": set(),
        "fsck": set(),
        "verify": set(),
        "nightly": set(),
        "travel": set(),
        "status": set(),
        "pins": set(),
        "bisect": set(),
        "bisect-log": set(),
        "release": set(),
        "withdrawal": set(),
        "release-list": set(),
        "release-show": set(),
        "release-written": set(),
        "release-check": set(),
        "audit": set(),
        "workfile": {
            f"{job}/python/anyOf",
            f"{job}/env/additionalProperties/anyOf",
            f"{job}/model/anyOf/additionalProperties/anyOf",
            f"{job}/outputs/anyOf/additionalProperties/anyOf",
        },
    }


def test_spec_and_record_must_state_their_version() -> None:
    assert "spec" in schemas()["spec"]["$defs"]["StateSpec"]["required"]
    assert "record" in schemas()["record"]["$defs"]["Record"]["required"]


def test_there_are_examples_with_and_without_python() -> None:
    states = [load_spec(path.read_bytes(), str(path)).state for path in EXAMPLES]
    assert {bool(state.dependencies.python) for state in states} == {True, False}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_what_would_be_written(path: Path) -> None:
    spec = load_spec(path.read_bytes(), str(path))
    check_digest(spec, str(path))
    assert dump_spec(spec) == path.read_bytes()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_fits_the_published_schema(path: Path) -> None:
    """Read by a stock YAML parser, as another tool would."""
    published = json.loads((PUBLISHED / FILES["spec"]).read_bytes())
    jsonschema_rs.Draft202012Validator(published).validate(yaml.safe_load(path.read_bytes()))


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.parent.name)
def test_replay_yaml_of_each_demo_fits_the_schema(path: Path) -> None:
    validator("workfile").validate(load_yaml(path.read_bytes(), str(path)))
