"""What package indexes list, by the simple API (PEP 503, 691): one small page a project, no file is downloaded."""

from __future__ import annotations

import base64
import json
import re
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit, urlunsplit

from runner.errors import OutsideError

DEFAULT = "https://pypi.org/simple"
_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.5, text/html;q=0.4"
_IN_HTML = re.compile(r"#sha256=([0-9a-f]{64})")
_LONGEST = 64 << 20
_GONE = (404, 410)


def urls_of(settings: Mapping[str, str]) -> list[str]:
    """The indexes that pip would ask, by its settings as variables."""
    extra = settings.get("PIP_EXTRA_INDEX_URL", "").split()
    first = [] if settings.get("PIP_NO_INDEX") else [settings.get("PIP_INDEX_URL") or DEFAULT]
    return [url.rstrip("/") for url in (*first, *extra)]


def listed(urls: Sequence[str], project: str, timeout_s: float) -> frozenset[str]:
    """The SHA-256 digests, in hex, of every file of the project that some index lists. Raises `OutsideError` when one
    of them does not answer."""
    return frozenset(digits for url in urls for digits in _listed(f"{url}/{project}/", timeout_s))


def _listed(url: str, timeout_s: float) -> set[str]:
    request = urllib.request.Request(_without_user(url), headers={"Accept": _ACCEPT, **_authorisation(url)})
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            kind, body = answer.headers.get("Content-Type", ""), answer.read(_LONGEST)
    except urllib.error.HTTPError as error:
        if error.code in _GONE:
            return set()
        raise OutsideError("a package index does not answer", f"{_host(url)}: {error.code} {error.reason}") from error
    except (OSError, ValueError) as error:
        raise OutsideError("a package index does not answer", f"{_host(url)}: {error}") from error
    return _in_json(body, url) if "json" in kind else set(_IN_HTML.findall(body.decode(errors="replace")))


def _in_json(body: bytes, url: str) -> set[str]:
    try:
        files = json.loads(body)["files"]
        return {str(file["hashes"]["sha256"]) for file in files if "sha256" in file["hashes"]}
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise OutsideError("a package index gives an answer that is none", f"{_host(url)}: {error}") from error


def _authorisation(url: str) -> dict[str, str]:
    user = urlsplit(url).netloc.rpartition("@")[0]
    return {"Authorization": "Basic " + base64.b64encode(user.encode()).decode()} if user else {}


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]
