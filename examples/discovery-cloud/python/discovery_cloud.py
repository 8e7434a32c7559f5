"""Joins by identity: the machine's metadata names the cluster, its identity token is the credential. The Rust version is
in ../src.

How to build and run it is in ../../README.md.
"""

import base64
import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.source import Cluster, Credential, Secret_BearerToken, Trust_CertificateAuthority
from wit_world.imports import http, settings
from wit_world.imports.http import HeaderValue_Text
from wit_world.imports.types import Error

# Unless the settings say otherwise.
METADATA = "http://169.254.169.254/computeMetadata/v1"
AUDIENCE = "kubernetes"


class Source(exports.Source):
    def discover(self) -> Cluster:
        audience = settings.text("audience") or AUDIENCE
        endpoints = get("instance/attributes/kubernetes-endpoints").split(",")
        authority = get("instance/attributes/kubernetes-ca")
        token = get(f"instance/service-accounts/default/identity?audience={audience}").strip()
        return Cluster(
            [endpoint.strip() for endpoint in endpoints],
            Trust_CertificateAuthority(authority),
            Credential(Secret_BearerToken(token), expires_at(token)),
            [("instance", get("instance/id"))],
            [],
        )


def get(path: str) -> str:
    """One value of the metadata. Without it this machine has no cluster, and asking again does not help."""
    url = f"{settings.text('metadata') or METADATA}/{path}"
    headers = [("metadata-flavor", HeaderValue_Text("Google"))]
    response = http.fetch(http.Request("GET", url, headers, b"", 2_000))
    if response.status == 404:
        raise Err(Error("no-cluster", f"the metadata has no `{path}`", False))
    if response.status != 200:
        raise Err(Error("unavailable", f"the metadata service answered {response.status}", response.status >= 500))
    return response.body.decode()


def expires_at(token: str) -> int | None:
    """When a JSON Web Token expires, in seconds since 1970; none for anything else. The API server checks its signature."""
    try:
        payload = token.split(".")[1]
        end = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"]
    except (ValueError, LookupError, TypeError):
        return None
    return end if isinstance(end, int) else None
