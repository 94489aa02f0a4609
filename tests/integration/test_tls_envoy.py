"""The engine's TLS with real Envoy sidecars on the other side: their ALPN, their versions, their validators."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from meshlib.model.cluster import UpstreamTls
from meshlib.wire.errors import TlsFailed
from tests.integration.test_tls_engine import KINDS, calling
from tests.support import envoy
from tests.support.certificates import Minted, TrustDomain
from tests.support.tls import member
from tests.support.tls_origin import Origin

DOMAIN = TrustDomain()
SIDECAR = DOMAIN.leaf("sidecar")
TYPES = "type.googleapis.com/envoy.extensions"

ISTIO_ALPN = ["istio-peer-exchange", "istio", "istio-http/1.0", "istio-http/1.1", "istio-h2"]
"""By which Istio's sidecars tell the mesh's TLS from an application's, in PERMISSIVE mode."""


def inline(data: bytes) -> dict[str, str]:
    return {"inline_bytes": base64.b64encode(data).decode()}


def common(shown: Minted, alpn: list[str]) -> dict[str, Any]:
    """Certificate and SPIFFE validator, as the control service has them for sidecars."""
    trust = [{"name": DOMAIN.name, "trust_bundle": inline(DOMAIN.root.pem)}]
    return {
        "tls_certificates": [{"certificate_chain": inline(shown.chain_pem), "private_key": inline(shown.key_pem)}],
        "alpn_protocols": alpn,
        "validation_context": {
            "custom_validator_config": {
                "name": "envoy.tls.cert_validator.spiffe",
                "typed_config": {
                    "@type": f"{TYPES}.transport_sockets.tls.v3.SPIFFECertValidatorConfig",
                    "trust_domains": trust,
                },
            }
        },
    }


def hcm(route: dict[str, Any]) -> dict[str, Any]:
    typed = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"}}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, **route}]}]},
    }
    return {"name": "http", "typed_config": typed}


def says(text: str) -> dict[str, Any]:
    return hcm({"direct_response": {"status": 200, "body": {"inline_string": text}}})


def tls_chain(text: str, alpn: list[str], match: dict[str, Any]) -> dict[str, Any]:
    context = {
        "@type": f"{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": common(SIDECAR, alpn),
        "require_client_certificate": True,
    }
    socket = {"name": "tls", "typed_config": context}
    return {"filter_chain_match": match, "filters": [says(text)], "transport_socket": socket}


def listener(name: str, *chains: dict[str, Any]) -> dict[str, Any]:
    inspector = {
        "name": "tls_inspector",
        "typed_config": {"@type": f"{TYPES}.filters.listener.tls_inspector.v3.TlsInspector"},
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {"name": name, "address": address, "listener_filters": [inspector], "filter_chains": list(chains)}


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin(member(DOMAIN, "server").server()) as running:
        yield running


@pytest.fixture(scope="module")
def sidecar(origin: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[envoy.Envoy]:
    upstream = {
        "@type": f"{TYPES}.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": common(SIDECAR, ["istio"]),
    }
    endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": origin.port}}}
    cluster = {
        "name": "ours",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "ours", "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
        "transport_socket": {"name": "tls", "typed_config": upstream},
    }
    tls = {"transport_protocol": "tls"}
    listeners = [
        listener("no-alpn", tls_chain("mesh", [], tls)),
        listener("http", tls_chain("mesh", ["h2", "http/1.1"], tls)),
        listener("istio", tls_chain("mesh", ["istio"], {**tls, "application_protocols": ISTIO_ALPN})),
        listener(
            "permissive",
            tls_chain("mesh", ["istio"], {**tls, "application_protocols": ISTIO_ALPN}),
            {"filter_chain_match": {"transport_protocol": "raw_buffer"}, "filters": [says("plaintext")]},
        ),
        {**listener("outbound", {"filters": [hcm({"route": {"cluster": "ours"}})]}), "listener_filters": []},
    ]
    bootstrap = {"static_resources": {"listeners": listeners, "clusters": [cluster]}}
    with envoy.running(bootstrap, tmp_path_factory.mktemp("envoy")) as running:
        yield running


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["no-alpn", "http", "istio", "permissive"])
def test_our_client_calls_a_sidecar(kind: str, name: str, sidecar: envoy.Envoy) -> None:
    """Whatever it goes by: nothing, HTTP's own protocols, or Istio's names for the mesh's TLS."""
    tls = UpstreamTls(identities=frozenset({DOMAIN.id("sidecar")}))
    with calling(kind, sidecar.listener_port(name), us=member(DOMAIN, "us"), tls=tls) as caller:
        assert [caller.get(), caller.get()] == ["mesh", "mesh"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_sidecar_refuses_who_it_does_not_know(kind: str, sidecar: envoy.Envoy) -> None:
    """By an alert that says so: the request was not taken."""
    stranger = TrustDomain()
    us = member(stranger, "us")
    us.set_trust(DOMAIN.bundle)
    with calling(kind, sidecar.listener_port("no-alpn"), us=us, tls=UpstreamTls()) as caller:
        with pytest.raises(TlsFailed) as caught:
            caller.get()
        assert caught.value.sent is False


def test_a_sidecar_calls_our_server(sidecar: envoy.Envoy) -> None:
    with httpx.Client(trust_env=False) as client:
        answer = client.get(f"http://127.0.0.1:{sidecar.listener_port('outbound')}/")
    assert (answer.status_code, answer.text) == (200, DOMAIN.id("sidecar"))
