"""What the validator of RO-Crates says of a folder, asked without a network.

It reads the two JSON-LD contexts from the net. Here it is given the terms of them that crates of ours may use, so that
a term that is none of theirs is found as well.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

_SCHEMA = (
    "CreateAction CreativeWork Dataset Person PropertyValue SoftwareApplication SoftwareSourceCode about actionStatus "
    "additionalType agent author codeRepository contentSize datePublished description encodingFormat endTime error "
    "hasPart identifier instrument license mentions name object result softwareRequirements softwareVersion startTime "
    "url value version"
).split()
_RUN = "ContainerImage containerImage environment registry sha256 tag".split()
CONTEXTS = {
    "https://w3id.org/ro/crate/1.1/context": {
        **{term: f"http://schema.org/{term}" for term in _SCHEMA},
        "File": "http://schema.org/MediaObject",
        "conformsTo": "http://purl.org/dc/terms/conformsTo",
    },
    "https://w3id.org/ro/terms/workflow-run/context": {
        term: f"https://w3id.org/ro/terms/workflow-run#{term}" for term in _RUN
    },
}


def issues(crate: Path, patch: pytest.MonkeyPatch, *, recommended: bool = False) -> list[str]:
    """What the Process Run Crate profile and RO-Crate 1.1 require, or also recommend, and the crate is not."""
    import requests
    from rdflib.plugins.shared.jsonld import context
    from rocrate_validator import models, services
    from rocrate_validator.utils import document_loader

    def answer(_session: requests.Session, _method: str, url: str, **_: Any) -> requests.Response:
        found = requests.Response()
        found.status_code, found.url = 200, url
        found.headers["Content-Type"] = "application/ld+json"
        found._content = json.dumps({"@context": CONTEXTS[url]}).encode()
        return found

    patch.setattr(requests.Session, "request", answer)
    document_loader.install_document_loader()
    patch.setattr(context, "source_to_json", lambda url, *_: ({"@context": CONTEXTS[url]}, None))
    severity = models.Severity.RECOMMENDED if recommended else models.Severity.REQUIRED
    asked = services.ValidationSettings(
        rocrate_uri=str(crate),
        profile_identifier="process-run-crate",
        requirement_severity=severity,
        no_cache=True,
    )
    return [f"{issue.check.identifier}: {issue.message}" for issue in services.validate(asked).get_issues()]
