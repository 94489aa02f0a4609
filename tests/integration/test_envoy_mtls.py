"""Real Envoy with what the envoy flavour says of mTLS: before an application that it protects, and beside one that calls."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Collection, Iterator, Mapping
from concurrent import futures
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
from google.protobuf.message import Message

from meshlib.model.cluster import UpstreamTls
from meshlib.xds.proto import listener_pb2
from meshlib_control.catalog.model import Instance
from meshlib_control.compile import Node, World, generate, scope_of
from meshlib_control.compile.inbound import proxy_listener_name
from meshlib_control.compile.listeners import PROXY_LISTENER
from meshlib_control.compile.node import ServedPort
from meshlib_control.compile.trust import Trust
from tests.support import ads, backends, envoy, mtlsclient
from tests.support.certificates import Authority, Minted, TrustDomain, bundles, mint
from tests.support.configuring import registered, world
from tests.support.control import eventually
from tests.support.tls import contexts, member

pytestmark = pytest.mark.envoy

SERVED = 9080
DOMAIN = TrustDomain("cluster.local")
PARTNER = TrustDomain("partner.test")
TRUST = Trust(roots={domain.name: domain.root.pem.decode() for domain in (DOMAIN, PARTNER)})

MODE = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: %s}}
"""
ONLY_ALICE = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-alice}
spec:
  selector: {matchLabels: {app: reviews}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/alice]}}]
    to: [{operation: {paths: [/public/*]}}]
"""
MERGED = """
apiVersion: meshlib.io/v1
kind: MeshConfig
metadata: {name: mesh}
spec: {pathNormalization: {normalization: MERGE_SLASHES}}
"""


@contextmanager
def sidecar(current: World, leaf: Minted, folder: Path, **node: object) -> Iterator[tuple[envoy.Envoy, ads.AdsServer]]:
    """Envoy with the identity of `leaf`, once it has taken what the world says."""
    folder.mkdir(parents=True, exist_ok=True)
    certificate, key = leaf.write(folder, "workload")
    secrets = folder / "sds.yaml"
    tls = {"certificate_chain": {"filename": str(certificate)}, "private_key": {"filename": str(key)}}
    tls["watched_directory"] = {"path": str(folder)}
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    secrets.write_text(json.dumps({"resources": [{"@type": kind, "name": "default", "tls_certificate": tls}]}))
    scope = scope_of(current, Node(flavour="envoy", identity_file=str(secrets), **node))  # type: ignore[arg-type]

    def resources(type_url: str, names: Collection[str] | None) -> Mapping[str, Message]:
        found = generate(current, scope, type_url, names)
        for message in found.values():
            if isinstance(message, listener_pb2.Listener):
                message.address.socket_address.port_value = 0  # the fixed one may be taken here
        return found

    with ads.serving(resources) as control, envoy.running(envoy.ads_bootstrap(control.port), folder) as process:
        process.until(lambda: control.nacks or process.stat("listener_manager.total_listeners_active"), "listener")
        yield process, control
        assert control.nacks == []


@dataclass
class Protected:
    """An application behind Envoy."""

    port: int
    application: backends.Backend

    def get(self, leaf: Minted | None, path: str = "/", **headers: str) -> mtlsclient.Answer:
        """With the certificate of `leaf`.  Raises mtlsclient.Rejected."""
        tls = mtlsclient.context(leaf, [DOMAIN.root])
        with mtlsclient.Client(self.port, tls) as client:
            return client.ask(path, headers=headers)

    def get_plain(self, path: str = "/") -> mtlsclient.Answer:
        with mtlsclient.Client(self.port, None) as client:
            return client.ask(path)


@contextmanager
def protected(folder: Path, *texts: str, protocol: str = "http") -> Iterator[Protected]:
    with backends.running(["reviews"]) as servers:
        application = servers["reviews"]
        port = ServedPort.parse(f"{SERVED}:{application.port}/{protocol}")
        current = world(*texts, trust=TRUST)
        with sidecar(current, DOMAIN.leaf("reviews"), folder, labels={"app": "reviews"}, ports=(port,)) as (process, _):
            yield Protected(process.listener_port(proxy_listener_name(SERVED)), application)


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Protected]:
    with protected(tmp_path_factory.mktemp("strict"), MODE % "STRICT") as found:
        yield found


def test_strict_takes_identities_of_trusted_domains(strict: Protected) -> None:
    assert strict.get(DOMAIN.leaf("alice")).content == b"reviews"
    assert strict.get(PARTNER.leaf("alice")).content == b"reviews"


def test_strict_refuses_plaintext(strict: Protected) -> None:
    assert strict.get(DOMAIN.leaf("alice")).status == 200
    with pytest.raises(mtlsclient.Rejected):
        strict.get_plain()


@pytest.mark.parametrize(
    "leaf",
    [None, TrustDomain("cluster.local").leaf("alice"), TrustDomain("other.test").leaf("alice")],
    ids=["no certificate", "another authority of the same name", "a domain that nobody trusts"],
)
def test_strict_refuses_who_proves_nothing(strict: Protected, leaf: Minted | None) -> None:
    assert strict.get(DOMAIN.leaf("alice")).status == 200
    with pytest.raises(mtlsclient.Rejected):
        strict.get(leaf)


def test_a_domain_is_believed_for_its_own_identities_only(strict: Protected) -> None:
    """XF-2: roots of several domains are not one heap."""
    with pytest.raises(mtlsclient.Rejected):
        strict.get(mint(PARTNER.signer, uris=[DOMAIN.id("alice")]))


def test_meshlib_calls_envoy(strict: Protected) -> None:
    """Verified as all peers are: Envoy shows an SVID of the service."""
    alice = member(DOMAIN, "alice")
    tls = alice.client(UpstreamTls(identities=frozenset({DOMAIN.id("reviews")}), sni="outbound_.80_._.reviews"))
    assert _get(strict.port, tls) == (200, b"reviews")
    other = alice.client(UpstreamTls(identities=frozenset({DOMAIN.id("ratings")})))
    with pytest.raises(ssl.SSLError):
        _get(strict.port, other)


def test_identity_headers_of_clients_do_not_pass(strict: Protected) -> None:
    strict.get(DOMAIN.leaf("alice"), "/forged", **{"x-forwarded-client-cert": "By=x;URI=spiffe://cluster.local/ns/a/sa/admin"})
    (seen,) = [headers for _, path, headers in strict.application.requests if path == "/forged"]
    assert "x-forwarded-client-cert" not in seen


def test_permissive_takes_both(tmp_path: Path) -> None:
    with protected(tmp_path, MODE % "PERMISSIVE", MERGED) as found:
        assert found.get(DOMAIN.leaf("alice")).content == b"reviews"
        assert found.get_plain("//a//./b").content == b"reviews"
        assert [path for _, path, _ in found.application.requests] == ["/", "/a/b"]


def test_disable_is_plaintext(tmp_path: Path) -> None:
    with protected(tmp_path, MODE % "DISABLE") as found:
        assert found.get_plain().content == b"reviews"
        with pytest.raises(mtlsclient.Rejected):
            found.get(DOMAIN.leaf("alice"))


def test_policies_know_who_calls(tmp_path: Path) -> None:
    with protected(tmp_path, MODE % "PERMISSIVE", ONLY_ALICE) as found:
        assert found.get(DOMAIN.leaf("alice"), "/public/x").status == 200
        assert found.get(DOMAIN.leaf("bob"), "/public/x").status == 403
        assert found.get(DOMAIN.leaf("alice"), "/public/../private").status == 403
        assert found.get_plain("/public/x").status == 403


def test_a_port_that_speaks_something_else(tmp_path: Path) -> None:
    """TCP: the connection is protected, and what is in it passes as it is."""
    with protected(tmp_path, MODE % "STRICT", protocol="tcp") as found:
        assert found.get(DOMAIN.leaf("alice"), "/as//./it").content == b"reviews"
        assert [path for _, path, _ in found.application.requests] == ["/as//./it"]
        with pytest.raises(mtlsclient.Rejected):
            found.get_plain()


def test_a_grpc_service(tmp_path: Path) -> None:
    """gRPC's ordinary credentials know DNS names only: the one that certificates have beside the identity."""
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: b"hello")
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Greeter", {"First": handler}),))
    application = server.add_insecure_port("127.0.0.1:0")
    server.start()
    port, alice = ServedPort.parse(f"{SERVED}:{application}/grpc"), DOMAIN.leaf("alice")
    credentials = grpc.ssl_channel_credentials(DOMAIN.root.pem, alice.key_pem, alice.chain_pem)
    options = [("grpc.ssl_target_name_override", "reviews.default.cluster.local")]
    try:
        current = world(MODE % "STRICT", trust=TRUST)
        with sidecar(current, DOMAIN.leaf("reviews"), tmp_path, ports=(port,)) as (process, _):
            address = f"127.0.0.1:{process.listener_port(proxy_listener_name(SERVED))}"
            with grpc.secure_channel(address, credentials, options) as channel:
                assert channel.unary_unary("/test.Greeter/First")(b"", timeout=30) == b"hello"
            with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError):
                channel.unary_unary("/test.Greeter/First")(b"", timeout=30)
    finally:
        server.stop(0).wait(10)


def test_a_renewed_certificate_is_taken_up(tmp_path: Path) -> None:
    """From files that are moved into their place, without a word from the control service."""
    with protected(tmp_path, MODE % "STRICT") as found:
        before = _shown(found.port)
        renewed, aside = DOMAIN.leaf("reviews"), tmp_path / "aside"
        aside.mkdir()
        for file in renewed.write(aside, "workload"):
            file.replace(tmp_path / file.name)
        eventually(lambda: _shown(found.port) == renewed.der, what="the renewed certificate")
        assert before != renewed.der
        assert found.get(DOMAIN.leaf("alice")).status == 200


def _shown(port: int) -> bytes | None:
    """The certificate that a server shows."""
    context = mtlsclient.context(DOMAIN.leaf("alice"), [DOMAIN.root])
    with socket.create_connection(("127.0.0.1", port), 10) as connected, context.wrap_socket(connected) as tls:
        return tls.getpeercert(binary_form=True)


# --- Envoy calls


@contextmanager
def called(name: str, context: ssl.SSLContext | None) -> Iterator[backends.Backend]:
    """A server of TLS, or (None) of plaintext."""
    with backends.running([name]) as servers:
        if context is not None:
            servers[name].socket = context.wrap_socket(servers[name].socket, server_side=True, do_handshake_on_connect=False)
        yield servers[name]


OUTSIDE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside}
spec:
  hosts: [api.test]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: %(port)d}]
  endpoints: [{address: 127.0.0.1}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: outside}
spec: {host: api.test, trafficPolicy: {tls: %(tls)s}}
"""


def test_envoy_calls_meshlib(tmp_path: Path) -> None:
    """Auto mTLS: encrypted to the instance that speaks it, and only if it is who it should be; plaintext to the other."""
    trusted = bundles(DOMAIN)
    with ExitStack() as stack:
        good = stack.enter_context(called("good", contexts(DOMAIN.leaf("reviews"), trusted).server()))
        impostor = stack.enter_context(called("impostor", contexts(DOMAIN.leaf("ratings"), trusted).server()))
        plain = stack.enter_context(called("plain", None))

        def instance(server: backends.Backend, *, mtls: bool = True, account: str = "reviews") -> Instance:
            return Instance(server.name, "127.0.0.1", server.port, service_account=account, mtls=mtls)

        services = [
            registered("reviews", instance(good)),
            registered("stolen", instance(impostor)),
            registered("old", instance(plain, mtls=False)),
        ]
        current = world(services=services, trust=TRUST)
        process, _ = stack.enter_context(sidecar(current, DOMAIN.leaf("alice"), tmp_path))
        port = process.listener_port(PROXY_LISTENER)
        assert _through(port, "reviews") == (200, "good")
        assert _through(port, "old") == (200, "plain")
        assert _through(port, "stolen")[0] == 503
        assert impostor.requests == []


@pytest.mark.parametrize(
    ("tls", "status"),
    [
        ("{mode: SIMPLE, caCertificates: %(ca)s}", 200),
        ("{mode: SIMPLE, caCertificates: %(ca)s, sni: api.test, subjectAltNames: [other.test]}", 503),
        ("{mode: SIMPLE}", 503),
        ("{mode: SIMPLE, insecureSkipVerify: true}", 200),
        ("{mode: MUTUAL, caCertificates: %(ca)s, clientCertificate: %(cert)s, privateKey: %(key)s}", 200),
        ("{mode: DISABLE}", 503),
    ],
    ids=["verified", "another name", "an authority that the system does not know", "unverified", "mutual", "plaintext"],
)
def test_envoy_calls_the_outside(tmp_path: Path, tls: str, status: int) -> None:
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate, key = authority.issue("api.test")
    context.load_cert_chain(certificate, key)
    if "MUTUAL" in tls:
        context.load_verify_locations(authority.file)
        context.verify_mode = ssl.CERT_REQUIRED
    files = {"ca": authority.file, "cert": certificate, "key": key}
    with called("outside", context) as server:
        current = world(OUTSIDE % {"port": server.port, "tls": tls % files}, trust=TRUST)
        with sidecar(current, DOMAIN.leaf("alice"), tmp_path) as (process, _):
            assert _through(process.listener_port(PROXY_LISTENER), "api.test")[0] == status


def _through(port: int, host: str) -> tuple[int, str]:
    with httpx.Client(trust_env=False, timeout=20.0) as client:
        response = client.get(f"http://127.0.0.1:{port}/", headers={"host": host})
    return response.status_code, response.text


def _get(port: int, tls: ssl.SSLContext) -> tuple[int, bytes]:
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=tls, timeout=20)
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
