"""Placeholder until the strict reader lands."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import msgspec
import yaml

from runner.state.job import Workfile
from runner.state.record import Record
from runner.state.spec import StateSpec


def load_yaml(data: bytes, source: str) -> Any:
    return yaml.safe_load(data)


def load_json(data: bytes, source: str) -> Any:
    return json.loads(data)


def load_toml(data: bytes, source: str) -> Any:
    return tomllib.loads(data.decode())


def check_plain(value: Any, source: str) -> None:
    pass


def load_spec(data: bytes, source: str) -> StateSpec:
    return msgspec.convert(yaml.safe_load(data), StateSpec)


def dump_spec(spec: StateSpec) -> bytes:
    from runner.state.digest import plain; return yaml.safe_dump(plain(spec), sort_keys=False).encode()


def load_workfile(data: bytes, source: str) -> Workfile:
    return msgspec.convert(yaml.safe_load(data), Workfile)


def load_record(data: bytes, source: str) -> Record:
    return msgspec.json.decode(data, type=Record)


def dump_record(record: Record) -> bytes:
    return msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"
