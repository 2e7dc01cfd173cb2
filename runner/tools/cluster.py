"""The only door to `distributed`: plain functions called on the workers of a Dask cluster.

Its schedulers reach Slurm, Kubernetes and clouds. What goes out and comes back are plain values; a worker imports this
package, and is told nothing but what it is called with. A worker that met trouble is spared for a while, so that one
that fails at once does not draw everything.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from runner.errors import OutsideError, UsageError

SCHEME = "dask://"
_PATIENCE_S = 30
_SPARED_S = 60.0


def own_address() -> str:
    """Of the worker that runs this."""
    from distributed import get_worker

    return str(get_worker().address)


class Cluster:
    """A connection to a scheduler. Raises `UsageError` where Dask is not installed, `OutsideError` where no scheduler
    answers."""

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client
        except ImportError:
            raise UsageError(
                "Dask is not installed", f"{address} is a Dask scheduler", "pip install 'replay-runner[dask]'"
            ) from None
        place = address.removeprefix(SCHEME)
        try:
            self._client = Client(f"tcp://{place}", timeout=_PATIENCE_S, set_as_default=False)
        except (OSError, TimeoutError) as error:
            why = str(error) or type(error).__name__
            raise OutsideError(f"no Dask scheduler answers at {place}", why, "start it, or correct --on") from error
        self._spared: dict[str, float] = {}
        self._lock = threading.Lock()

    def slots(self) -> int:
        """How many calls the workers that there are now take at once."""
        return sum(self._client.nthreads().values())

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What it gives, on some worker; where that one is lost, on another. Whatever goes wrong with the cluster is
        raised as it comes."""
        workers = self._well()
        where = {"workers": workers, "allow_other_workers": True} if workers else {}
        return self._client.submit(function, *arguments, pure=False, **where).result()

    def spare(self, address: str) -> None:
        with self._lock:
            self._spared[address] = time.monotonic() + _SPARED_S

    def close(self) -> None:
        self._client.close(timeout=_PATIENCE_S)

    def _well(self) -> list[str]:
        """The workers to choose from; none where all are alike."""
        with self._lock:
            now = time.monotonic()
            self._spared = {address: until for address, until in self._spared.items() if until > now}
            spared = set(self._spared)
        if not spared:
            return []
        return [address for address in self._client.scheduler_info(n_workers=-1)["workers"] if address not in spared]
