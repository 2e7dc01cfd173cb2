"""The door to MLflow: an active run of its own is told which run was recorded under it.

MLflow takes two seconds to import and minutes to give up on a server: it is run as a program of its own, for a bounded
time, and only where a run is active.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping

from runner.errors import OutsideError

_LONGEST_S = 60
# What a user sets goes before.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
_PROGRAM = """
import json, sys
told = json.load(sys.stdin)
try:
    from mlflow.tracking import MlflowClient
    client = MlflowClient()
    client.log_text(told["run"], told["text"], told["file"])
    for name, value in told["tags"].items():
        client.set_tag(told["run"], name, value)
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def active_run(environment: Mapping[str, str]) -> str | None:
    """The run that whoever called is in, as `mlflow run` exports it; None where MLflow is not installed."""
    run = environment.get("MLFLOW_RUN_ID")
    is_told = run and environment.get("MLFLOW_TRACKING_URI")
    return run if is_told and importlib.util.find_spec("mlflow") else None


def tell(run: str, tags: Mapping[str, str], file: str, text: str) -> None:
    """Attach the text as a file and set the tags. Raises `OutsideError` when that cannot be done."""
    told = {"run": run, "tags": dict(tags), "file": file, "text": text}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _PROGRAM],
            env=_PATIENCE | os.environ,
            input=json.dumps(told),
            capture_output=True,
            text=True,
            timeout=_LONGEST_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _error(f"it did not answer within {_LONGEST_S} s") from error
    if done.returncode:
        raise _error((done.stderr.strip().splitlines() or ["it ended without a word"])[-1])


def _error(why: str) -> OutsideError:
    return OutsideError("MLflow could not be told of the run", why, "the run is recorded all the same")
