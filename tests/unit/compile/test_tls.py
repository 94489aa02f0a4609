"""How calls are protected: DestinationRule before auto mTLS before plaintext, and who may be at the other end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from meshlib.model.cluster import Cluster, UpstreamTls
from meshlib.model.endpoint import Assignment
from meshlib.xds.decode import decode
from meshlib.xds.json import to_json
from meshlib.xds.proto import cluster_pb2
from meshlib.xds.types import CLUSTER, ENDPOINTS
from meshlib_control.catalog.model import Instance, Port
from meshlib_control.compile import Flavour, Node, World, affected, generate, scope_of
from meshlib_control.compile.trust import Trust, completed
from tests.support.certificates import TrustDomain
from tests.support.configuring import INSECURE, catalog, registered, world

SECURE = Trust(roots={"cluster.local": TrustDomain().root.pem.decode()})
NAME = "outbound|80||reviews.default.svc.cluster.local"
SUBSET = "outbound|80|v1|reviews.default.svc.cluster.local"


def instance(number: int, account: str = "reviews", *, mtls: bool = True, **labels: str) -> Instance:
    return Instance(str(number), f"10.0.0.{number}", 80, service_account=account, mtls=mtls, labels=labels)


ALL = (instance(1, version="v1"), instance(2, version="v2"))


def rule(tls: str = "", *, more: str = "", host: str = "reviews") -> str:
    settings = f"trafficPolicy: {{tls: {tls}}}, " if tls else ""
    return f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: rule}}
spec: {{host: {host}, {settings}{more}}}
"""


MESH = """
apiVersion: meshlib.io/v1
kind: MeshConfig
metadata: {name: mesh}
spec: %s
"""
V1 = "subsets: [{name: v1, labels: {version: v1}}]"


def built(*texts: str, instances: tuple[Instance, ...] = ALL, trust: Trust = SECURE, port: str = "http") -> World:
    return world(*texts, services=[registered("reviews", *instances, ports=(Port(80, port),))], trust=trust)


def message(current: World, name: str = NAME, flavour: Flavour = "meshlib") -> cluster_pb2.Cluster | None:
    found = generate(current, scope_of(current, Node(flavour=flavour)), CLUSTER, [name]).get(name)
    assert found is None or isinstance(found, cluster_pb2.Cluster)
    return found


def cluster(current: World, name: str = NAME) -> Cluster:
    """As a meshlib client reads it."""
    found = message(current, name)
    assert found is not None
    _, value = decode(CLUSTER, found.SerializeToString())
    assert isinstance(value, Cluster)
    return value


def tls(*texts: str, name: str = NAME) -> UpstreamTls:
    """What holds for all endpoints."""
    found = cluster(built(*texts), name)
    assert found.tls is not None
    assert not found.auto_mtls
    return found.tls


REVIEWS = frozenset({"spiffe://cluster.local/ns/default/sa/reviews"})


def test_auto_mtls_unless_something_else_is_said() -> None:
    found = cluster(built())
    assert found.auto_mtls
    assert found.tls == UpstreamTls(identities=REVIEWS, sni="outbound_.80_._.reviews.default.svc.cluster.local")
    assert cluster(built(MESH % "{enableAutoMtls: false}")).tls is None


def test_a_mesh_without_identities_knows_no_tls() -> None:
    for text in (rule("{mode: ISTIO_MUTUAL}"), rule("{mode: SIMPLE}"), ""):
        assert cluster(built(text, trust=INSECURE)).tls is None


def test_subsets_have_a_server_name_of_their_own() -> None:
    found = cluster(built(rule(more=V1)), SUBSET).tls
    assert found is not None
    assert found.sni == "outbound_.80_.v1_.reviews.default.svc.cluster.local"
    assert found.identities == REVIEWS


def test_istio_mutual_is_for_all_endpoints() -> None:
    found = tls(rule("{mode: ISTIO_MUTUAL}"))
    assert (found.mesh, found.identities) == (True, REVIEWS)
    named = tls(rule("{mode: ISTIO_MUTUAL, sni: x.test, subjectAltNames: ['spiffe://td/ns/a/sa/b']}"))
    assert (named.sni, named.identities) == ("x.test", frozenset({"spiffe://td/ns/a/sa/b"}))


def test_disable_is_plaintext() -> None:
    assert cluster(built(rule("{mode: DISABLE}"))).tls is None


def test_simple_and_mutual_are_verified_as_web_servers() -> None:
    simple = tls(rule("{mode: SIMPLE}"))
    assert simple == UpstreamTls(
        mesh=False, sni="reviews.default.svc.cluster.local", dns_names=("reviews.default.svc.cluster.local",)
    )
    files = "clientCertificate: /c.pem, privateKey: /k.pem, caCertificates: /ca.pem"
    mutual = tls(rule(f"{{mode: MUTUAL, {files}, sni: a.test, subjectAltNames: [b.test, c.test]}}"))
    assert mutual == UpstreamTls(
        mesh=False,
        sni="a.test",
        dns_names=("b.test", "c.test"),
        ca_file="/ca.pem",
        certificate_file="/c.pem",
        key_file="/k.pem",
    )
    assert not tls(rule("{mode: SIMPLE, insecureSkipVerify: true}")).verify


def test_levels_of_a_rule() -> None:
    """Subset before host, port before both; a port that says nothing of TLS is back at auto mTLS."""
    subset = "subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {tls: {mode: DISABLE}}}]"
    current = built(rule("{mode: SIMPLE}", more=subset))
    simple = cluster(current).tls
    assert simple is not None
    assert not simple.mesh
    assert cluster(current, SUBSET).tls is None
    ports = "trafficPolicy: {tls: {mode: SIMPLE}, portLevelSettings: [{port: {number: 80}, %s}]}"
    assert cluster(built(rule(more=ports % "tls: {mode: DISABLE}"))).tls is None
    assert cluster(built(rule(more=ports % "loadBalancer: {simple: RANDOM}"))).auto_mtls


def test_minimum_version_of_the_mesh() -> None:
    version = MESH % "{meshMTLS: {minProtocolVersion: TLSV1_3}}"
    assert tls(version, rule("{mode: ISTIO_MUTUAL}")).minimum_version == "TLSv1_3"
    assert tls(version, rule("{mode: SIMPLE}")).minimum_version == ""


# --- who may answer


def identities(current: World) -> frozenset[str]:
    found = cluster(current).tls
    assert found is not None
    return found.identities


@pytest.mark.parametrize(
    ("instances", "accounts"),
    [
        ((instance(1, "a"), instance(2, "b"), instance(3, "a")), {"a", "b"}),
        ((instance(1, "a"), instance(2, "", mtls=False)), {"a"}),
        ((instance(1, "a"), instance(2, "b", mtls=False)), {"a", "b"}),
        ((instance(1, "a"), instance(2, "")), {"a", "default"}),
        ((), {"default"}),
        ((instance(1, "", mtls=False),), {"default"}),
    ],
    ids=["several accounts", "plain and unknown", "plain but known", "mTLS and unknown", "no instances", "nothing known"],
)
def test_I09_identities_are_those_of_the_instances(instances: tuple[Instance, ...], accounts: set[str]) -> None:
    """Never "anybody": an empty set would be believed whoever answers."""
    expected = {f"spiffe://cluster.local/ns/default/sa/{account}" for account in accounts}
    assert identities(built(instances=instances)) == expected


def test_I14_aliases_of_the_trust_domain_are_names_of_the_same() -> None:
    trust = replace(SECURE, domain="td1", aliases=("old.test",))
    more = MESH % "{trustDomainAliases: [older.test]}"
    expected = {f"spiffe://{domain}/ns/default/sa/reviews" for domain in ("td1", "old.test", "older.test")}
    assert identities(built(more, trust=trust)) == expected


ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: vm}
spec:
  hosts: [vm.test]
  location: %(location)s
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 10.0.0.9, serviceAccount: vm, labels: {security.istio.io/tlsMode: istio}}]
  subjectAltNames: %(names)s
"""


def entry(names: str = "[]", *texts: str, location: str = "MESH_INTERNAL") -> Cluster:
    return cluster(built(ENTRY % {"names": names, "location": location}, *texts), "outbound|80||vm.test")


def test_service_entries_name_identities_beside_those_of_their_endpoints() -> None:
    found = entry("[spiffe://cluster.local/ns/other/sa/x, spiffe://partner/ns/a/sa/b, vm.example.com]").tls
    assert found is not None
    assert found.identities == {
        "spiffe://cluster.local/ns/other/sa/x",
        "spiffe://partner/ns/a/sa/b",
        "spiffe://cluster.local/ns/default/sa/vm",
    }


def test_hosts_outside_are_called_as_they_are_until_a_rule_says_otherwise() -> None:
    assert entry(location="MESH_EXTERNAL").tls is None
    found = entry("[a.test]", rule("{mode: SIMPLE}", host="vm.test"), location="MESH_EXTERNAL").tls
    assert found is not None
    assert (found.sni, found.dns_names) == ("vm.test", ("a.test",))


@pytest.mark.parametrize("flavour", ["meshlib", "envoy"])
def test_a_port_for_https_is_called_like_any_other_where_a_rule_begins_tls(flavour: Flavour) -> None:
    """Istio's TLS origination: the application says http, and a VirtualService moves it to this port."""
    plain, begun = (message(built(*texts, port="https"), flavour=flavour) for texts in ((), (rule("{mode: SIMPLE}"),)))
    assert begun is not None
    assert begun.type == cluster_pb2.Cluster.EDS
    assert begun.transport_socket.name == "envoy.transport_sockets.tls"
    if plain is not None:  # Envoy has no way to it
        assert plain.type == cluster_pb2.Cluster.ORIGINAL_DST


def test_there_is_no_tls_without_a_name_to_verify() -> None:
    wild = ENTRY.replace("vm.test", "'*.vm.test'") % {"names": "[]", "location": "MESH_EXTERNAL"}
    name = "outbound|80||*.vm.test"
    assert message(built(wild, rule("{mode: SIMPLE}", host="'*.vm.test'")), name) is None
    assert message(built(wild, rule("{mode: SIMPLE, sni: a.vm.test}", host="'*.vm.test'")), name) is not None


def test_tls_is_not_left_out_where_the_caller_dials() -> None:
    """The caller's own transport would know nothing of it: no cluster rather than a plain one."""
    anywhere = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: any}
spec: {hosts: [any.test], resolution: NONE, ports: [{number: 80, name: http}]}
"""
    name = "outbound|80||any.test"
    simple = rule("{mode: SIMPLE}", host="any.test")
    assert message(built(anywhere), name) is not None
    assert message(built(anywhere, simple), name) is None
    envoys = message(built(anywhere, simple), name, "envoy")
    assert envoys is not None
    assert envoys.HasField("transport_socket")


# --- which endpoints


def mtls_of(current: World, flavour: Flavour = "meshlib") -> dict[str, bool]:
    found = generate(current, scope_of(current, Node(flavour=flavour)), ENDPOINTS, [NAME])[NAME]
    _, value = decode(ENDPOINTS, found.SerializeToString())
    assert isinstance(value, Assignment)
    return {endpoint.address: endpoint.mtls for endpoint in value.endpoints}


PEERS = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: old}
spec: {selector: {matchLabels: {app: old}}, mtls: {mode: DISABLE}}
"""


def test_endpoints_say_whether_they_speak_mtls() -> None:
    current = built(PEERS, instances=(instance(1), instance(2, mtls=False), instance(3, app="old")))
    assert mtls_of(current) == {"10.0.0.1": True, "10.0.0.2": False, "10.0.0.3": False}
    assert set(mtls_of(built(trust=INSECURE)).values()) == {False}


@pytest.mark.parametrize(("label", "mtls", "expected"), [("istio", False, True), ("disabled", True, False)])
def test_istios_label_goes_before_the_registration(label: str, mtls: bool, expected: bool) -> None:
    labelled = replace(instance(1, mtls=mtls), labels={"security.istio.io/tlsMode": label})
    assert mtls_of(built(instances=(labelled,))) == {"10.0.0.1": expected}


# --- other clients


def test_grpcio_is_plain_only_where_mtls_would_cut_off_an_instance() -> None:
    """It has one kind of connection a cluster, so the subset counts."""
    mixed = (instance(1, version="v1"), instance(2, mtls=False, version="v2"))

    def secured(current: World, name: str = NAME) -> bool:
        found = message(current, name, "grpc")
        assert found is not None
        assert not found.transport_socket_matches
        return found.HasField("transport_socket")

    assert secured(built())
    assert secured(built(instances=()))
    assert not secured(built(instances=mixed))
    assert secured(built(rule(more=V1), instances=mixed), SUBSET)
    assert secured(built(rule("{mode: ISTIO_MUTUAL}"), instances=mixed))


def test_grpcio_gets_no_cluster_whose_tls_it_cannot_do() -> None:
    assert message(built(rule("{mode: SIMPLE, caCertificates: /ca.pem}")), flavour="grpc") is None
    assert message(built(rule("{mode: SIMPLE, insecureSkipVerify: true}")), flavour="grpc") is None
    assert message(built(rule("{mode: SIMPLE}")), flavour="grpc") is not None


def test_envoy_takes_roots_from_the_control_service_and_keys_from_its_own_file() -> None:
    current = built(rule("{mode: ISTIO_MUTUAL}"))
    scope = scope_of(current, Node(flavour="envoy", identity_file="/run/me.yaml"))
    found = to_json(generate(current, scope, CLUSTER, [NAME])[NAME])
    socket = found["transport_socket"]
    assert isinstance(socket, Mapping)
    common = socket["typed_config"]["common_tls_context"]
    (own,) = common["tls_certificate_sds_secret_configs"]
    assert (own["name"], own["sds_config"]["path_config_source"]["path"]) == ("default", "/run/me.yaml")
    combined = common["combined_validation_context"]
    assert combined["validation_context_sds_secret_config"]["name"] == "ROOTCA"
    assert combined["default_validation_context"]["match_typed_subject_alt_names"] == [
        {"san_type": "URI", "matcher": {"exact": "spiffe://cluster.local/ns/default/sa/reviews"}}
    ]


# --- what a change touches


def test_a_new_identity_renews_clusters_before_endpoints() -> None:
    old = built()
    host = "reviews.default.svc.cluster.local"

    def after(*instances: Instance, trust: Trust = SECURE) -> World:
        return replace(old, instances={host: instances}, trust=completed(trust, old.settings))

    assert affected(old, after(*ALL)).clusters == frozenset()
    moved = affected(old, after(ALL[0], replace(ALL[1], address="10.0.0.7")))
    assert not moved.clusters
    assert moved.endpoint_clusters == {NAME}
    assert affected(old, after(*ALL, instance(3, "other"))).clusters == {NAME}
    assert affected(old, after(ALL[0], replace(ALL[1], mtls=False))).clusters == {NAME}
    insecure = replace(old, trust=INSECURE)
    assert affected(insecure, replace(after(*ALL, instance(3, "other")), trust=INSECURE)).clusters == frozenset()
    assert affected(old, after(*ALL, trust=Trust())).everything


def test_mesh_config_adds_to_what_the_authority_says() -> None:
    partner = TrustDomain("partner").root.pem.decode()
    indented = partner.replace("\n", "\n      ")
    text = (
        MESH
        % f"""
  trustDomain: td1
  caCertificates:
  - trustDomains: [partner]
    pem: |
      {indented}
"""
    )
    offline = World.of(built(text).routing.config, catalog())
    assert (offline.trust.domain, offline.trust.secure, set(offline.trust.roots)) == ("td1", True, {"partner"})
    running = built(text)
    assert (running.trust.domain, set(running.trust.roots)) == ("cluster.local", {"cluster.local", "partner"})
