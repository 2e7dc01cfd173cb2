"""Silent drifts between real releases: no warning reaches the job's output, and the diagnosis names the package.

They install real packages from the index that pip is set to, so they are slow; all share one store, by which wheels
and unpacked trees are had once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cases.conftest import diagnosed, record
from tests.cases.drift import EXECUTION_STATE, Conditions, Finding, Row, finding
from tests.conftest import Workspace
from tests.engine.conftest import check_left_over, copy_store

JOBS = Path(__file__).parent / "jobs"
README = Path(__file__).parents[2] / "README.md"
PANDAS = ("numpy==1.26.4", "python-dateutil==2.8.2", "pytz==2023.3", "tzdata==2023.3", "six==1.16.0")
LEARN = ("numpy==1.26.4", "scipy==1.11.4", "joblib==1.3.2", "threadpoolctl==3.2.0")
DEPENDENCIES = Finding((EXECUTION_STATE,), ("dependencies",))
AND_ENV = Finding((EXECUTION_STATE,), ("dependencies", "env"))


class Release(NamedTuple):
    """A package's two versions, what it is installed with, and what the job prints with each. `env` gives values of
    one variable, before and after."""

    script: str
    package: str
    versions: tuple[str, str]
    prints: tuple[str, str]
    beside: tuple[str, ...] = ()
    env: tuple[str, str, str] | None = None
    expected: Finding = DEPENDENCIES

    def conditions(self, side: int) -> Conditions:
        pins = [*self.beside, f"{self.package}=={self.versions[side]}"]
        keys = {"command": ["python3", "job.py"], "dependencies": "requirements.in", "outputs": ["stdout"]}
        env = {self.env[0]: self.env[1 + side]} if self.env else {}
        files = {"job.py": (JOBS / f"{self.script}.py").read_text(), "requirements.in": "\n".join([*pins, ""])}
        return Conditions(keys | {"env": env}, files)


RELEASES = [
    Release(
        "s01_sklearn_kmeans_n_init",
        "scikit-learn",
        ("1.3.2", "1.4.0"),
        ('{"inertia": 1165224.5}', '{"inertia": 1165420.2}'),
        LEARN,
    ),
    Release(
        "s07_pandas_read_csv_none",
        "pandas",
        ("1.5.3", "2.0.0"),
        (
            '{"plans": {"Basic": 1, "None": 2, "Pro": 1}, "missing": 0}',
            '{"plans": {"Basic": 1, "Pro": 1}, "missing": 2}',
        ),
        PANDAS,
    ),
    Release(
        "s09_numpy_nep50",
        "numpy",
        ("1.26.4", "2.0.0"),
        (
            '{"dtype": "float64", "x": 6.1, "acc": 10000.0}',
            '{"dtype": "float32", "x": 6.099999904632568, "acc": 9998.557}',
        ),
    ),
    Release(
        "s12_networkx_node_link",
        "networkx",
        ("3.5", "3.6"),
        (
            '{"keys": ["directed", "graph", "links", "multigraph", "nodes"], "n_links": 2}',
            '{"keys": ["directed", "edges", "graph", "multigraph", "nodes"], "n_links": 0}',
        ),
    ),
    Release("s18_polars_count_nulls", "polars", ("0.19.19", "0.20.2"), ('{"count": 3}', '{"count": 1}')),
    Release(
        "s24_interaction_pandas_x_data",
        "pandas",
        ("1.5.3", "2.0.0"),
        ('{"billable_rows": 4}', '{"billable_rows": 2}'),
        PANDAS,
        ("DATA_V", "1", "2"),
        AND_ENV,
    ),
]


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.script)
def test_the_readme_tells_it(release: Release) -> None:
    lines = [
        line for line in README.read_text(encoding="utf-8").splitlines() if line.startswith(f"| {release.package}")
    ]
    told = (f"{release.package} {' → '.join(release.versions)}", f"| {', '.join(release.expected.layers)} |")
    assert any(all(word in line for word in told) for line in lines)


@pytest.fixture(scope="session")
def shared_store(python_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("releases") / ".replay"
    copy_store(python_store, store)
    return store


@pytest.fixture
def shared(shared_store: Path, tmp_path: Path) -> Iterator[Workspace]:
    """A workspace of its own on the store that all releases share."""
    (tmp_path / "work").mkdir()
    workspace = Workspace(tmp_path / "work", shared_store)
    yield workspace
    check_left_over(workspace)


@pytest.mark.engine
@pytest.mark.network
@pytest.mark.slow
@pytest.mark.corpus
@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.script)
def test_a_silent_release_is_named(release: Release, shared: Workspace, python311: str, table: list[Row]) -> None:
    runs = [record(shared, release.conditions(side), python311) for side in (0, 1)]
    said = diagnosed(shared, *runs)
    table.append(Row(release.script, release.expected, finding(said)))
    assert finding(said) == release.expected, said
    moved = [f"dependencies: {release.package} {' → '.join(release.versions)}"]
    moved += [f"env: {release.env[0]} {release.env[1]} → {release.env[2]}"] if release.env else []
    assert sorted(said["evidence"]) == moved
    for run, printed in zip(runs, release.prints, strict=True):
        (output,) = run["outputs"]
        assert shared.blob(output["sha256"]).read_text() == f"{printed}\n"
