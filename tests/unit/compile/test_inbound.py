"""What a workload is told of the ports that it serves, and whom to believe."""

from __future__ import annotations

import pytest

from meshlib.model.authorization import RbacFilter
from meshlib.model.identity import TrustBundles
from meshlib.model.listener import INBOUND_PREFIX, InboundListener, MtlsMode, PathNormalization
from meshlib.xds.decode import decode
from meshlib.xds.proto import cluster_pb2, listener_pb2
from meshlib.xds.types import CLUSTER, LISTENER, SECRET
from meshlib_control.compile import Flavour, Node, World, compile_document, generate, scope_of
from meshlib_control.compile.listeners import PROXY_LISTENER
from meshlib_control.compile.node import ServedPort
from meshlib_control.compile.trust import Trust
from tests.support.certificates import TrustDomain
from tests.support.configuring import INSECURE, world

DOMAIN, PARTNER = TrustDomain(), TrustDomain("partner.test")
SECURE = Trust(aliases=("old.test",), roots={domain.name: domain.root.pem.decode() for domain in (DOMAIN, PARTNER)})
NAME = f"{INBOUND_PREFIX}9080"

POLICIES = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: old}
spec:
  selector: {matchLabels: {app: old}}
  mtls: {mode: PERMISSIVE}
  portLevelMtls: {9081: {mode: DISABLE}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: get}
spec: {selector: {matchLabels: {app: old}}, rules: [{to: [{operation: {methods: [GET]}}]}]}
"""
MESH = """
apiVersion: meshlib.io/v1
kind: MeshConfig
metadata: {name: mesh}
spec: %s
"""


def message(current: World, node: Node, name: str = NAME) -> listener_pb2.Listener | None:
    found = generate(current, scope_of(current, node), LISTENER, [name]).get(name)
    assert found is None or isinstance(found, listener_pb2.Listener)
    return found


def inbound(*texts: str, port: int = 9080, trust: Trust = SECURE, **labels: str) -> InboundListener:
    """As a meshlib process in namespace `default` reads it."""
    name = f"{INBOUND_PREFIX}{port}"
    found = message(world(*texts, trust=trust), Node(labels=labels), name)
    assert found is not None
    _, value = decode(LISTENER, found.SerializeToString())
    assert isinstance(value, InboundListener)
    return value


def test_without_policies_both_kinds_of_connections_are_taken() -> None:
    assert inbound() == InboundListener(NAME, 9080, MtlsMode.PERMISSIVE, PathNormalization.BASE)


def test_workloads_get_what_holds_for_their_labels_and_port() -> None:
    assert inbound(POLICIES) == InboundListener(NAME, 9080, MtlsMode.STRICT)
    old = inbound(POLICIES, app="old")
    assert (old.mtls, len(old.filters)) == (MtlsMode.PERMISSIVE, 1)
    assert isinstance(old.filters[0], RbacFilter)
    assert inbound(POLICIES, port=9081, app="old").mtls is MtlsMode.DISABLE


def test_a_mesh_without_identities_asks_for_none_but_enforces_the_rest() -> None:
    found = inbound(POLICIES, trust=INSECURE, app="old")
    assert (found.mtls, len(found.filters)) == (MtlsMode.DISABLE, 1)
    assert inbound(POLICIES, trust=INSECURE).mtls is MtlsMode.DISABLE


@pytest.mark.parametrize("mode", ["NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"])
def test_path_normalization_of_the_mesh(mode: str) -> None:
    text = MESH % f"{{pathNormalization: {{normalization: {mode}}}}}"
    assert inbound(text).normalization is PathNormalization(mode)
    envoys = message(world(text), Node(flavour="envoy"), PROXY_LISTENER)
    assert envoys is not None
    manager = listener_pb2.HttpConnectionManager.FromString(envoys.filter_chains[0].filters[0].typed_config.value)
    assert manager.normalize_path.value == (mode != "NONE")
    assert manager.merge_slashes == (mode.endswith("MERGE_SLASHES"))


def test_H20_trusted_proxies_of_the_mesh() -> None:
    assert inbound().trusted_hops == 0
    assert inbound(MESH % "{defaultConfig: {gatewayTopology: {numTrustedProxies: 2}}}").trusted_hops == 2


def test_minimum_version_of_the_mesh() -> None:
    assert inbound(MESH % "{meshMTLS: {minProtocolVersion: TLSV1_3}}").minimum_version == "TLSv1_3"


@pytest.mark.parametrize("name", ["x:0", "0.0.0.0:http", "0.0.0.0:65536", "", "0.0.0.0:"])
def test_what_is_no_port_does_not_exist(name: str) -> None:
    prefix = INBOUND_PREFIX.removesuffix("0.0.0.0:")
    assert message(world(trust=SECURE), Node(), prefix + "0.0.0.0:9080") is not None
    assert message(world(trust=SECURE), Node(), prefix + name) is None


# --- grpcio


@pytest.mark.parametrize(
    ("texts", "labels", "tls"),
    [
        ([POLICIES], {}, True),
        ([], {}, False),
        ([], {"security.istio.io/tlsMode": "istio"}, True),
        ([], {"security.istio.io/tlsMode": "disabled"}, False),
    ],
    ids=["STRICT", "PERMISSIVE", "PERMISSIVE and it speaks mTLS", "PERMISSIVE and it does not"],
)
def test_grpcio_has_one_chain(texts: list[str], labels: dict[str, str], tls: bool) -> None:
    name = "xds.istio.io/grpc/lds/inbound/[::]:50051"
    found = message(world(*texts, trust=SECURE), Node(flavour="grpc", labels=labels), name)
    assert found is not None
    assert found.address.socket_address.address == "::"
    (chain,) = found.filter_chains
    assert not chain.HasField("filter_chain_match")
    assert chain.HasField("transport_socket") == tls


# --- Envoy


def test_envoy_stands_before_the_application() -> None:
    ports = (ServedPort.parse("9080:8080"), ServedPort.parse("9081:8081/tcp"), ServedPort.parse("9082"))
    current = world(POLICIES, trust=SECURE)
    scope = scope_of(current, Node(flavour="envoy", ports=ports))
    listeners = generate(current, scope, LISTENER)
    assert sorted(listeners) == ["0.0.0.0_9080", "0.0.0.0_9081", PROXY_LISTENER]
    tcp = listeners["0.0.0.0_9081"]
    assert isinstance(tcp, listener_pb2.Listener)
    assert [item.name for item in tcp.filter_chains[0].filters] == ["envoy.filters.network.tcp_proxy"]
    clusters = generate(current, scope, CLUSTER)
    assert {"inbound|9080||", "inbound|9081||"} <= clusters.keys()
    assert not {name for name in generate(current, scope_of(current, Node(flavour="envoy")), CLUSTER) if "inbound" in name}


@pytest.mark.parametrize(("text", "options"), [("9080:8080", 0), ("9080:8080/grpc", 1), ("9080:8080/http2", 1)])
def test_an_application_is_spoken_to_in_its_protocol(text: str, options: int) -> None:
    current = world(trust=SECURE)
    scope = scope_of(current, Node(flavour="envoy", ports=(ServedPort.parse(text),)))
    found = generate(current, scope, CLUSTER, ["inbound|9080||"])["inbound|9080||"]
    assert isinstance(found, cluster_pb2.Cluster)
    assert len(found.typed_extension_protocol_options) == options
    assert "0.0.0.0_9080" in generate(current, scope, LISTENER)


@pytest.mark.parametrize("text", ["", "http", "0", "65536", "80:", "80:0", "80:81:82", "80/udp", "٣"])
def test_ports_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="is not a served port"):
        ServedPort.parse(text)


# --- whom to believe


def bundles(current: World) -> TrustBundles | None:
    found = generate(current, scope_of(current, Node()), SECRET, ["ROOTCA", "default"])
    assert found.keys() <= {"ROOTCA"}
    if not found:
        return None
    value = decode(SECRET, found["ROOTCA"].SerializeToString())[1]
    assert isinstance(value, TrustBundles)
    return value


def test_roots_of_each_domain_and_of_the_other_names_of_the_own() -> None:
    own, partner = (DOMAIN.root.der,), (PARTNER.root.der,)
    assert bundles(world(trust=SECURE)) == TrustBundles({"cluster.local": own, "old.test": own, "partner.test": partner})


def test_no_roots_no_secret() -> None:
    assert bundles(world(trust=Trust())) is None
    assert bundles(world(trust=Trust(roots=SECURE.roots, secure=False))) is None


# --- for people


@pytest.mark.parametrize("flavour", ["meshlib", "envoy", "grpc"])
def test_compile_prints_what_a_node_serves(flavour: Flavour) -> None:
    node = Node(flavour=flavour, ports=(ServedPort(9080, 8080),))
    document = compile_document(world(trust=SECURE), node)
    served = "0.0.0.0_9080" if flavour == "envoy" else NAME
    assert served in [item.get("name") for item in document]
    assert ("ROOTCA" in [item.get("name") for item in document]) == (flavour != "grpc")
    without = compile_document(world(trust=SECURE), Node(flavour=flavour))
    assert served not in [item.get("name") for item in without]
