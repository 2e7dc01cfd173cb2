"""The silent drifts again, among some fifty changes that do nothing: a bisect names exactly the cause.

They install real packages from the index that pip is set to, so they are slow.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cases.conftest import record
from tests.cases.drift import Conditions
from tests.cases.test_releases import RELEASES, Release, shared, shared_store
from tests.conftest import Workspace

__all__ = ["shared", "shared_store"]

INNOCUOUS = """
anyio 3.6.2 4.4.0, attrs 22.2.0 24.2.0, blinker 1.5 1.8.2, cachetools 5.3.0 5.5.0, certifi 2023.7.22 2024.8.30,
click 8.1.3 8.1.7, colorama 0.4.5 0.4.6, decorator 5.1.0 5.1.1, filelock 3.12.0 3.15.4,
fsspec 2023.1.0 2024.6.1, h11 0.13.0 0.14.0, httpcore 0.16.3 1.0.5, httpx 0.23.3 0.27.0, humanize 4.6.0 4.10.0,
idna 3.4 3.7, importlib-metadata 6.0.0 8.4.0, iniconfig 1.1.1 2.0.0, isodate 0.6.0 0.6.1,
itsdangerous 2.1.1 2.1.2, jinja2 3.1.2 3.1.4, jmespath 1.0.0 1.0.1, markdown-it-py 2.2.0 3.0.0,
markupsafe 2.1.2 2.1.5, mdurl 0.1.0 0.1.2, more-itertools 9.1.0 10.4.0, networkx 3.1 3.3, packaging 23.0 24.1,
platformdirs 3.10.0 4.2.2, pluggy 1.0.0 1.5.0, pygments 2.15.0 2.18.0, pyparsing 3.0.9 3.1.2,
python-dotenv 1.0.0 1.0.1, pyyaml 6.0 6.0.2, rich 13.3.1 13.8.0, six 1.15.0 1.16.0, sniffio 1.3.0 1.3.1,
sortedcontainers 2.3.0 2.4.0, tabulate 0.8.10 0.9.0, tenacity 8.1.0 8.5.0, tomli 2.0.0 2.0.1,
tomlkit 0.11.6 0.13.2, toolz 0.12.0 0.12.1, tqdm 4.64.1 4.66.5, typing-extensions 4.8.0 4.12.2,
urllib3 1.26.18 2.2.2, wcwidth 0.2.6 0.2.13, wrapt 1.14.1 1.16.0, zipp 3.15.0 3.20.0
"""
MOST_TRIALS = {"s01_sklearn_kmeans_n_init": 8, "s24_interaction_pandas_x_data": 15}


def conditions(release: Release, side: int) -> Conditions:
    """Those of the release, with the others' versions of that side beside them."""
    made = release.conditions(side)
    taken = {pin.partition("==")[0] for pin in (*release.beside, f"{release.package}==")}
    listed = [one.split() for one in INNOCUOUS.replace("\n", " ").split(",")]
    others = [f"{name}=={versions[side]}" for name, *versions in listed if name not in taken]
    pins = "\n".join([made.files["requirements.in"].strip(), *others, ""])
    return made._replace(files=made.files | {"requirements.in": pins})


@pytest.mark.engine
@pytest.mark.network
@pytest.mark.slow
@pytest.mark.corpus
@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.script)
def test_the_cause_is_named_among_fifty_changes(release: Release, shared: Workspace, python311: str) -> None:
    good, bad = (record(shared, conditions(release, side), python311)["run_id"] for side in (0, 1))
    done = shared.replay("bisect", good, bad, "--json", timeout=1800)
    assert done.code == 0, done
    found: dict[str, Any] = done.json
    cause = {(one["layer"], one["name"]): (one["good"], one["bad"]) for one in found["cause"]}
    expected = {("dependencies", release.package): release.versions}
    if release.env:
        expected["env", release.env[0]] = release.env[1:]
    assert cause == expected and found["proven"] and not found["independent"]
    assert found["unresolved"] == 0 and found["changes"] > 45
    assert found["trials"] <= MOST_TRIALS.get(release.script, 9)
    again = shared.replay("bisect", good, bad, "--json")
    assert json.loads(again.out) == found
