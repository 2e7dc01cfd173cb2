"""Recording under given conditions, and the table of what was found, printed at the end (seen with `-s`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cases.drift import Conditions, Row, rendered
from tests.conftest import Workspace


@pytest.fixture(scope="session")
def table() -> Iterator[list[Row]]:
    rows: list[Row] = []
    yield rows
    print("\n" + rendered(rows))


def record(workspace: Workspace, conditions: Conditions, image: str) -> dict[str, Any]:
    """Make the conditions, and record a run under them."""
    for path, content in conditions.files.items():
        workspace.write(path, content)
    workspace.jobs(case={"image": image, **conditions.job})
    return workspace.run("case", **conditions.caller)


def diagnosed(workspace: Workspace, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    done = workspace.replay("diff", before["run_id"], after["run_id"], "--json")
    assert done.code == int(not done.json["equal"]), done
    found: dict[str, Any] = done.json["diagnosis"]
    return found
