"""A service in another language joins the mesh: real Envoy before it, with an identity, on a real control service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from meshlib import Mesh
from meshlib.runtime.identity.material import Material
from meshlib.runtime.identity.pem import encode
from meshlib_control.compile.listeners import PROXY_ADDRESS, PROXY_PORT
from meshlib_control.demo.processes import free_ports
from tests.support import backends, envoy, mtlsclient
from tests.support.control import eventually
from tests.support.zero_trust import STRICT, SecureMesh, allow

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(240)]

LEGACY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: legacy, namespace: default}
spec:
  hosts: [legacy.default.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: %d}]
  endpoints: [{address: 127.0.0.1, serviceAccount: legacy, labels: {security.istio.io/tlsMode: istio}}]
"""


@dataclass
class Legacy:
    port: int
    application: backends.Backend
    process: envoy.Envoy


def material_of(mesh: Mesh) -> Material:
    """A certificate that the control service issued, for a process that is not ours."""
    process = mesh._processes.current
    assert process is not None
    assert process.identity is not None
    process.identity.wait(60)
    assert process.identity.current is not None
    return process.identity.current


def bootstrap(town: SecureMesh, files: dict[str, str], node: dict[str, Any]) -> dict[str, Any]:
    """With mTLS to the control service."""
    document = envoy.ads_bootstrap(int(town.control.xds.rpartition(":")[2]), node_id="legacy-1", delta=True)
    document["node"]["metadata"] = node
    name = "envoy.extensions.transport_sockets.tls.v3"
    control = "spiffe://cluster.local/ns/meshlib-system/sa/meshlib-control"
    document["static_resources"]["clusters"][0]["transport_socket"] = {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"type.googleapis.com/{name}.UpstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2"],
                "tls_certificates": [
                    {"certificate_chain": {"filename": files["chain"]}, "private_key": {"filename": files["key"]}}
                ],
                "validation_context": {
                    "trusted_ca": {"filename": files["roots"]},
                    "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": control}}],
                },
            },
        },
    }
    return document


def write_identity(material: Material, roots: Path, folder: Path) -> dict[str, str]:
    """As an operator's tool keeps them, and the SDS file that names them."""
    files = {name: str(folder / name) for name in ("chain", "key", "sds.yaml")} | {"roots": str(roots)}
    Path(files["chain"]).write_bytes(encode(material.chain))
    Path(files["key"]).write_bytes(material.key.pem())
    certificate = {"certificate_chain": {"filename": files["chain"]}, "private_key": {"filename": files["key"]}}
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    secret = {"@type": kind, "name": "default", "tls_certificate": certificate}
    Path(files["sds.yaml"]).write_text(json.dumps({"resources": [secret]}))
    return files


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureMesh]:
    with SecureMesh(tmp_path_factory.mktemp("town")) as town:
        town.control.apply(STRICT)
        yield town


@pytest.fixture(scope="module")
def legacy(town: SecureMesh, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Legacy]:
    folder = tmp_path_factory.mktemp("legacy")
    (port,) = free_ports(1)
    with backends.running(["legacy"]) as servers, town.mesh("legacy") as mesh:
        files = write_identity(material_of(mesh), town.folder / "ca.pem", folder)
        node = {
            "NAMESPACE": "default",
            "SERVICE": "legacy",
            "LABELS": {"app": "legacy"},
            "PORTS": [f"{port}:{servers['legacy'].port}"],
            "IDENTITY_FILE": files["sds.yaml"],
        }
        town.control.apply(LEGACY % port)
        town.control.apply(allow("legacy", "productpage"))
        with envoy.running(bootstrap(town, files, node), folder) as process:
            process.listener_port(f"0.0.0.0_{port}")
            yield Legacy(port, servers["legacy"], process)


def test_meshlib_calls_a_service_behind_envoy(town: SecureMesh, legacy: Legacy) -> None:
    with town.mesh("productpage") as productpage, town.mesh("ratings") as ratings:
        answer = productpage.request("GET", "http://legacy/")
        assert (answer.status_code, answer.content) == (200, b"legacy")
        assert ratings.request("GET", "http://legacy/secret").status_code == 403
    assert [path for _, path, _ in legacy.application.requests] == ["/"]


def test_plaintext_does_not_reach_it(legacy: Legacy) -> None:
    with pytest.raises(mtlsclient.Rejected), mtlsclient.Client(legacy.port, None) as client:
        client.ask("/")


def test_a_service_behind_envoy_calls_meshlib(town: SecureMesh, legacy: Legacy) -> None:
    proxy = f"{PROXY_ADDRESS}:{PROXY_PORT}"
    if proxy not in legacy.process.get("/listeners").text:
        pytest.skip(f"something else has {proxy}, which is the port that applications use")
    reviews = town.serve("reviews")
    town.control.apply(allow("reviews", "legacy"))

    def answer() -> httpx.Response:
        with httpx.Client(proxy=f"http://{proxy}", trust_env=False, timeout=20) as client:
            return client.get("http://reviews/api/7")

    eventually(lambda: answer().status_code == 200, what="Envoy to know the new service")
    assert answer().json()["peer"] == "spiffe://cluster.local/ns/default/sa/legacy"
    assert reviews.reached
