"""The SDK's client, asked for at first use: importing this costs as much as the rest of a command's start."""

from __future__ import annotations

from typing import Any

import docker
from docker.utils import kwargs_from_env

from runner.tools.engine_errors import patience_s


class Client(docker.APIClient):  # type: ignore[misc]
    """Asks for the version once, as the SDK must anyway to agree on an API: the engine needs 6 ms for the answer,
    and it does not change while a command runs."""

    def __init__(self, **how: Any) -> None:
        self._versions: dict[bool, dict[str, Any]] = {}
        super().__init__(**how)

    def version(self, api_version: bool = True) -> dict[str, Any]:
        if api_version not in self._versions:
            self._versions[api_version] = dict(super().version(api_version))
        return self._versions[api_version]


def client_of(host: str) -> Client:
    return Client(base_url=host, version="auto", timeout=patience_s())


def client_of_environment() -> Client:
    """As DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH say."""
    return Client(**kwargs_from_env(), version="auto", timeout=patience_s())
