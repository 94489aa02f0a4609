"""TLS, inbound listeners and secrets: what cannot be done exactly as it is said is refused (I08, I17); nothing becomes less."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from meshlib.model.authentication import JwtAuthentication
from meshlib.model.authorization import ExternalAuthorization, RbacFilter
from meshlib.model.cluster import Cluster, UpstreamTls
from meshlib.model.endpoint import Assignment
from meshlib.model.identity import TrustBundles
from meshlib.model.listener import INBOUND_PREFIX, InboundListener, MtlsMode, PathNormalization
from meshlib.xds.decode import decode
from meshlib.xds.invalid import ResourceInvalid
from meshlib.xds.json import from_json
from meshlib.xds.proto import listener_pb2
from meshlib.xds.types import ENVOY_NAMES, PREFIX
from tests.support.certificates import TrustDomain

UNKNOWN_FIELD = b"\xfa\x3e\x01x"
ADS = {"ads": {}, "resource_api_version": "V3"}
REVIEWS = "spiffe://td/ns/default/sa/reviews"

Document = dict[str, Any]


def typed(kind: str, /, **fields: Any) -> Document:
    return {"@type": PREFIX + ENVOY_NAMES[kind], **fields}


def socket(kind: str, **fields: Any) -> Document:
    return {"name": "socket", "typed_config": typed(kind, **fields)}


OWN = {"instance_name": "default", "certificate_name": "default"}
ROOTS = {"instance_name": "default", "certificate_name": "ROOTCA"}
RAW = socket("RawBuffer")


def common(**fields: Any) -> Document:
    names = [{"exact": REVIEWS}]
    validation = {"ca_certificate_provider_instance": ROOTS, "match_subject_alt_names": names}
    return {"tls_certificate_provider_instance": OWN, "validation_context": validation, **fields}


def mutual(**fields: Any) -> Document:
    return socket("UpstreamTlsContext", **{"common_tls_context": common(), "sni": "reviews", **fields})


def named(matcher: Document) -> Document:
    return {"system_root_certs": {}, "match_typed_subject_alt_names": [matcher]}


def simple(validation: Document | None = None, **fields: Any) -> Document:
    checked = named({"san_type": "DNS", "matcher": {"exact": "a.test"}})
    return socket(
        "UpstreamTlsContext",
        common_tls_context={"validation_context": checked if validation is None else validation, **fields},
        sni="a.test",
    )


def cluster(**fields: Any) -> Document:
    base = {"name": "c", "type": "EDS", "eds_cluster_config": {"eds_config": ADS}}
    return typed("Cluster", **{**base, **fields})


def matches(mesh: Document | None = None, plain: Document | None = None) -> list[Document]:
    return [
        {"name": "m", "match": {"tlsMode": "istio"}, "transport_socket": mesh or mutual()},
        {"name": "p", "match": {}, "transport_socket": plain or RAW},
    ]


def decoded(document: Document) -> object:
    return decode(document["@type"], from_json(document).SerializeToString())[1]


def problems_of(document: Document) -> list[str]:
    try:
        decoded(document)
    except ResourceInvalid as invalid:
        return [problem.field for problem in invalid.problems]
    return []


# --- towards others


@pytest.mark.parametrize(
    ("fields", "tls", "auto"),
    [
        ({}, None, False),
        ({"transport_socket": RAW}, None, False),
        ({"transport_socket": mutual()}, UpstreamTls(identities=frozenset({REVIEWS}), sni="reviews"), False),
        ({"transport_socket_matches": matches()}, UpstreamTls(identities=frozenset({REVIEWS}), sni="reviews"), True),
        (
            {"transport_socket": mutual(common_tls_context=common(tls_params={"tls_minimum_protocol_version": "TLSv1_3"}))},
            UpstreamTls(identities=frozenset({REVIEWS}), sni="reviews", minimum_version="TLSv1_3"),
            False,
        ),
        ({"transport_socket": simple()}, UpstreamTls(mesh=False, sni="a.test", dns_names=("a.test",)), False),
        (
            {
                "transport_socket": simple(
                    {"trusted_ca": {"filename": "/ca"}},
                    tls_certificates=[{"certificate_chain": {"filename": "/c"}, "private_key": {"filename": "/k"}}],
                )
            },
            UpstreamTls(mesh=False, sni="a.test", ca_file="/ca", certificate_file="/c", key_file="/k"),
            False,
        ),
        (
            {"transport_socket": simple({"trust_chain_verification": "ACCEPT_UNTRUSTED"})},
            UpstreamTls(mesh=False, sni="a.test", verify=False),
            False,
        ),
    ],
    ids=["none", "plain", "mutual", "auto", "version", "simple", "files", "unverified"],
)
def test_tls_of_a_cluster(fields: Document, tls: UpstreamTls | None, auto: bool) -> None:
    found = decoded(cluster(**fields))
    assert isinstance(found, Cluster)
    assert (found.tls, found.auto_mtls) == (tls, auto)


CONTEXT = "transport_socket.typed_config"
COMMON = f"{CONTEXT}.common_tls_context"
VALIDATION = f"{COMMON}.validation_context"


def validated(**fields: Any) -> Document:
    return mutual(common_tls_context=common(validation_context={"ca_certificate_provider_instance": ROOTS, **fields}))


@pytest.mark.parametrize(
    ("found", "field"),
    [
        ({"name": "envoy.transport_sockets.tls"}, CONTEXT),
        (socket("Router"), CONTEXT),
        (mutual(allow_renegotiation=True), f"{CONTEXT}.allow_renegotiation"),
        (
            mutual(common_tls_context=common(tls_certificate_provider_instance={"instance_name": "other"})),
            f"{COMMON}.tls_certificate_provider_instance",
        ),
        (mutual(common_tls_context=common(validation_context={})), f"{VALIDATION}.ca_certificate_provider_instance"),
        (
            mutual(common_tls_context=common(validation_context={"ca_certificate_provider_instance": OWN})),
            f"{VALIDATION}.ca_certificate_provider_instance",
        ),
        (validated(match_subject_alt_names=[{"prefix": "spiffe://td/"}]), f"{VALIDATION}.match_subject_alt_names[0]"),
        (
            validated(match_subject_alt_names=[{"exact": REVIEWS, "ignore_case": True}]),
            f"{VALIDATION}.match_subject_alt_names[0]",
        ),
        (validated(match_subject_alt_names=[{"exact": "reviews.test"}]), f"{VALIDATION}.match_subject_alt_names[0].exact"),
        (validated(verify_certificate_hash=["x"]), f"{VALIDATION}.verify_certificate_hash"),
        (validated(crl={"filename": "/crl"}), f"{VALIDATION}.crl"),
        (validated(trust_chain_verification="ACCEPT_UNTRUSTED"), f"{VALIDATION}.trust_chain_verification"),
        (mutual(common_tls_context=common(alpn_protocols=["h2"])), f"{COMMON}.alpn_protocols"),
        (
            mutual(common_tls_context=common(tls_params={"cipher_suites": ["x"]})),
            f"{COMMON}.tls_params.cipher_suites",
        ),
        (
            mutual(common_tls_context=common(tls_params={"tls_minimum_protocol_version": "TLSv1_0"})),
            f"{COMMON}.tls_params.tls_minimum_protocol_version",
        ),
        (
            mutual(common_tls_context=common(tls_certificates=[{"private_key": {"inline_string": "x"}}])),
            f"{COMMON}.tls_certificates",
        ),
        (
            socket(
                "UpstreamTlsContext",
                common_tls_context={
                    "tls_certificate_sds_secret_configs": [{"name": "default", "sds_config": ADS}],
                    "validation_context": {"system_root_certs": {}},
                },
                sni="a.test",
            ),
            f"{COMMON}.tls_certificate_sds_secret_configs",
        ),
        (simple({}), VALIDATION),
        (
            simple(
                {"system_root_certs": {}, "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": "x"}}]}
            ),
            f"{VALIDATION}.match_typed_subject_alt_names[0].san_type",
        ),
        (
            simple(
                {"system_root_certs": {}, "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"suffix": "x"}}]}
            ),
            f"{VALIDATION}.match_typed_subject_alt_names[0].matcher",
        ),
        (simple({"trusted_ca": {"inline_string": "x"}, "system_root_certs": {}}), f"{VALIDATION}.trusted_ca.inline_string"),
        (
            simple(tls_certificates=[{"certificate_chain": {"filename": "/c"}}]),
            f"{COMMON}.tls_certificates[0]",
        ),
        (
            simple(tls_certificates=[{"certificate_chain": {"filename": "/c"}, "private_key": {"inline_string": "k"}}]),
            f"{COMMON}.tls_certificates[0].private_key.inline_string",
        ),
    ],
)
def test_I08_tls_that_is_present_but_unusable(found: Document, field: str) -> None:
    assert field in problems_of(cluster(transport_socket=found))
    assert problems_of(cluster(transport_socket=mutual())) == problems_of(cluster(transport_socket=simple())) == []


@pytest.mark.parametrize(
    ("found", "field"),
    [
        (matches()[:1], "transport_socket_matches"),
        (matches()[::-1], "transport_socket_matches"),
        ([*matches(), matches()[1]], "transport_socket_matches"),
        ([{**matches()[0], "match": {"tlsMode": "other"}}, matches()[1]], "transport_socket_matches"),
        (matches(plain=mutual()), "transport_socket_matches[1].transport_socket"),
        (matches(mesh=simple()), "transport_socket_matches[0].transport_socket"),
        (matches(mesh=RAW), "transport_socket_matches[0].transport_socket.typed_config"),
    ],
)
def test_I08_matches_of_endpoints_that_are_not_istios(found: list[Document], field: str) -> None:
    assert field in problems_of(cluster(transport_socket_matches=found))


def test_I08_tls_of_connections_that_are_not_made_here() -> None:
    dialled = {"type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "eds_cluster_config": None}
    base = {key: value for key, value in {**cluster(**dialled)}.items() if value is not None}
    assert problems_of(base) == []
    assert problems_of({**base, "transport_socket": simple()}) == ["transport_socket"]
    assert "transport_socket" in problems_of(cluster(transport_socket=mutual(), transport_socket_matches=matches()))


def test_endpoints_say_that_they_speak_mtls() -> None:
    def document(**metadata: Any) -> Document:
        address = {"address": {"socket_address": {"address": "10.0.0.1", "port_value": 80}}}
        endpoint = {"endpoint": address, "metadata": {"filter_metadata": metadata}}
        return typed("ClusterLoadAssignment", cluster_name="c", endpoints=[{"lb_endpoints": [endpoint]}])

    match = "envoy.transport_socket_match"
    speaks = decoded(document(**{match: {"tlsMode": "istio"}, "envoy.lb": {"version": "v1"}}))
    assert isinstance(speaks, Assignment)
    assert (speaks.endpoints[0].mtls, speaks.endpoints[0].labels) == (True, (("version", "v1"),))
    plain = decoded(document(**{"envoy.lb": {"version": "v1"}}))
    assert isinstance(plain, Assignment)
    assert not plain.endpoints[0].mtls
    field = f"endpoints[0].lb_endpoints[0].metadata.filter_metadata[{match!r}]"
    assert problems_of(document(**{match: {"tlsMode": "other"}})) == [field]


# --- inbound

NAME = f"{INBOUND_PREFIX}9080"
ROUTER = {"name": "router", "typed_config": typed("Router")}
ROUTES = {
    "name": "inbound",
    "virtual_hosts": [
        {"name": "h", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "non_forwarding_action": {}}]},
    ],
}
ANY_RULE = {"action": "ALLOW", "policies": {"p": {"permissions": [{"any": True}], "principals": [{"any": True}]}}}
RBAC = {"name": "rbac", "typed_config": typed("HttpRBAC", rules=ANY_RULE)}


def manager(**fields: Any) -> Document:
    base = {"stat_prefix": "in", "route_config": ROUTES, "http_filters": [ROUTER], "normalize_path": True}
    return typed("HttpConnectionManager", **{**base, **fields})


def server(**fields: Any) -> Document:
    validation = {"ca_certificate_provider_instance": ROOTS}
    base = {"common_tls_context": common(validation_context=validation), "require_client_certificate": True}
    return socket("DownstreamTlsContext", **{**base, **fields})


def chain(protocol: str = "tls", /, **fields: Any) -> Document:
    security = {"transport_socket": server()} if protocol == "tls" else {}
    base = {"filter_chain_match": {"transport_protocol": protocol}, "filters": [{"name": "h", "typed_config": manager()}]}
    return {**base, **security, **fields}


def serving(**fields: Any) -> Document:
    """The manager of both chains with these fields."""
    filters = [{"name": "h", "typed_config": manager(**fields)}]
    return listener(chain(filters=filters), chain("raw_buffer", filters=filters))


def listener(*chains: Document, **fields: Any) -> Document:
    address = {"socket_address": {"address": "0.0.0.0", "port_value": 9080}}
    base = {"name": NAME, "address": address, "traffic_direction": "INBOUND"}
    return typed("Listener", **{**base, "filter_chains": list(chains), **fields})


BOTH = (chain(), chain("raw_buffer"))


@pytest.mark.parametrize(
    ("chains", "mode"),
    [(BOTH[:1], MtlsMode.STRICT), (BOTH, MtlsMode.PERMISSIVE), (BOTH[::-1], MtlsMode.PERMISSIVE), (BOTH[1:], MtlsMode.DISABLE)],
)
def test_mode_is_which_chains_there_are(chains: tuple[Document, ...], mode: MtlsMode) -> None:
    assert decoded(listener(*chains)) == InboundListener(NAME, 9080, mode)


def test_filters_in_their_order() -> None:
    jwt = {"name": "jwt", "typed_config": typed("JwtAuthentication")}
    asking = typed(
        "ExtAuthz",
        transport_api_version="V3",
        grpc_service={"envoy_grpc": {"cluster_name": "outbound|9000||a.test", "authority": "a.test"}, "timeout": "1s"},
    )
    filters = [{"name": "ask", "typed_config": asking}, jwt, RBAC, {"name": "more", "is_optional": True}, ROUTER]
    found = decoded(serving(http_filters=filters))
    assert isinstance(found, InboundListener)
    assert [type(each) for each in found.filters] == [ExternalAuthorization, JwtAuthentication, RbacFilter]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"normalize_path": False}, PathNormalization.NONE),
        ({}, PathNormalization.BASE),
        ({"merge_slashes": True}, PathNormalization.MERGE_SLASHES),
        (
            {"merge_slashes": True, "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD"},
            PathNormalization.DECODE_AND_MERGE_SLASHES,
        ),
    ],
)
def test_path_normalization(fields: Document, expected: PathNormalization) -> None:
    found = decoded(serving(**fields))
    assert isinstance(found, InboundListener)
    assert found.normalization is expected


def test_trusted_hops() -> None:
    found = decoded(serving(use_remote_address=True, xff_num_trusted_hops=2))
    assert isinstance(found, InboundListener)
    assert found.trusted_hops == 2


MANAGER = "filter_chains[0].filters[0].typed_config"
TLS = "filter_chains[0].transport_socket.typed_config"
HOST = ROUTES["virtual_hosts"][0]


def routed(**host: Any) -> Document:
    return {"route_config": {"name": "inbound", "virtual_hosts": [{**HOST, **host}]}}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (listener(), "filter_chains"),
        (listener(BOTH[0], BOTH[0]), "filter_chains[1]"),
        (listener(*BOTH, name=f"{INBOUND_PREFIX}http"), "name"),
        (listener(*BOTH, name=f"{INBOUND_PREFIX}9081"), "address"),
        (listener(*BOTH, api_listener={}), "api_listener"),
        (listener(*BOTH, listener_filters=[{"name": "x"}]), "listener_filters"),
        (
            listener(chain(filter_chain_match={"transport_protocol": "raw_buffer"})),
            "filter_chains[0].filter_chain_match.transport_protocol",
        ),
        (
            listener(chain("raw_buffer", filter_chain_match={"transport_protocol": "tls"})),
            "filter_chains[0].filter_chain_match.transport_protocol",
        ),
        (
            listener(chain(filter_chain_match={"destination_port": 9080})),
            "filter_chains[0].filter_chain_match.destination_port",
        ),
        (listener(chain(transport_socket=server(require_client_certificate=False))), f"{TLS}.require_client_certificate"),
        (listener(chain(transport_socket=server(require_sni=True))), f"{TLS}.require_sni"),
        (
            listener(chain(transport_socket=server(common_tls_context=common()))),
            f"{TLS}.common_tls_context.validation_context",
        ),
        (
            listener(chain(transport_socket=server(common_tls_context={}))),
            f"{TLS}.common_tls_context.tls_certificate_provider_instance",
        ),
        (listener(chain(transport_socket=mutual())), TLS),
        (listener(chain(filters=[])), "filter_chains[0].filters"),
        (listener(chain(filters=[{"name": "x", "typed_config": typed("Router")}])), MANAGER),
        (
            listener(BOTH[0], chain("raw_buffer", filters=[{"name": "h", "typed_config": manager(normalize_path=False)}])),
            "filter_chains",
        ),
        (serving(http_filters=[]), f"{MANAGER}.http_filters"),
        (serving(http_filters=[RBAC]), f"{MANAGER}.http_filters"),
        (serving(http_filters=[ROUTER, RBAC, ROUTER]), f"{MANAGER}.http_filters[0]"),
        (serving(http_filters=[{"name": "x", "typed_config": typed("TlsInspector")}, ROUTER]), f"{MANAGER}.http_filters[0]"),
        (serving(http_filters=[{"name": "x"}, ROUTER]), f"{MANAGER}.http_filters[0]"),
        (serving(use_remote_address=True), f"{MANAGER}.use_remote_address"),
        (serving(use_remote_address=False), f"{MANAGER}.use_remote_address"),
        (serving(use_remote_address=False, xff_num_trusted_hops=1), f"{MANAGER}.use_remote_address"),
        (serving(xff_num_trusted_hops=1), f"{MANAGER}.use_remote_address"),
        (serving(stream_idle_timeout="5s"), f"{MANAGER}.stream_idle_timeout"),
        (serving(normalize_path=False, merge_slashes=True), f"{MANAGER}.normalize_path"),
        (serving(path_with_escaped_slashes_action="REJECT_REQUEST"), f"{MANAGER}.normalize_path"),
        (serving(**routed(domains=["a.test"])), f"{MANAGER}.route_config"),
        (serving(**routed(routes=[])), f"{MANAGER}.route_config"),
        (
            serving(**routed(routes=[{"match": {"prefix": "/x"}, "non_forwarding_action": {}}])),
            f"{MANAGER}.route_config",
        ),
        (
            serving(**routed(routes=[{"match": {"prefix": "/"}, "route": {"cluster": "c"}}])),
            f"{MANAGER}.route_config.virtual_hosts[0].routes[0].route",
        ),
        (
            serving(**routed(request_headers_to_remove=["x"])),
            f"{MANAGER}.route_config.virtual_hosts[0].request_headers_to_remove",
        ),
    ],
)
def test_I17_inbound_listeners_that_are_not_understood(document: Document, field: str) -> None:
    assert field in problems_of(document)
    assert problems_of(listener(*BOTH)) == []


def test_I17_unknown_fields_of_a_filter() -> None:
    """In an Any within an Any within a listener."""
    message = from_json(serving(http_filters=[RBAC, ROUTER]))
    assert isinstance(message, listener_pb2.Listener)
    for each in message.filter_chains:
        content = listener_pb2.HttpConnectionManager.FromString(each.filters[0].typed_config.value)
        content.http_filters[0].typed_config.value += UNKNOWN_FIELD
        packed = AnyMessage(type_url=each.filters[0].typed_config.type_url, value=content.SerializeToString(deterministic=True))
        each.filters[0].typed_config.CopyFrom(packed)
    with pytest.raises(ResourceInvalid, match=r"http_filters\[0\].typed_config: field number 1007"):
        decode(PREFIX + ENVOY_NAMES["Listener"], message.SerializeToString())


# --- secrets

DOMAIN, PARTNER = TrustDomain("td"), TrustDomain("partner.test")
PEM = DOMAIN.root.pem.decode()


def secret(*domains: Document, **fields: Any) -> Document:
    config = typed("SPIFFECertValidatorConfig", trust_domains=list(domains))
    validation = {"custom_validator_config": {"name": "spiffe", "typed_config": config}, **fields}
    return typed("Secret", name="ROOTCA", validation_context=validation)


def bundle(name: str, pem: str) -> Document:
    return {"name": name, "trust_bundle": {"inline_string": pem}}


def test_roots_by_trust_domain() -> None:
    two = DOMAIN.root.pem.decode() + DOMAIN.signer.pem.decode()
    found = decoded(secret(bundle("td", two), bundle("partner.test", f"text\n{PARTNER.root.pem.decode()}\n\n")))
    assert found == TrustBundles({"td": (DOMAIN.root.der, DOMAIN.signer.der), "partner.test": (PARTNER.root.der,)})


CONFIG = "validation_context.custom_validator_config.typed_config"
BUNDLE = f"{CONFIG}.trust_domains[0].trust_bundle"


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (secret(), f"{CONFIG}.trust_domains"),
        (typed("Secret", name="ROOTCA"), CONFIG),
        (secret(bundle("td", PEM), trusted_ca={"filename": "/ca"}), "validation_context.trusted_ca"),
        (secret(bundle("TD", PEM)), f"{CONFIG}.trust_domains[0].name"),
        (secret(bundle("td", PEM), bundle("td", PEM)), f"{CONFIG}.trust_domains[1].name"),
        (secret(bundle("td", "")), BUNDLE),
        (secret(bundle("td", "no certificate")), BUNDLE),
        (secret(bundle("td", PEM.replace("M", "!"))), BUNDLE),
        (secret(bundle("td", PEM + PEM.replace("MII", "AAA"))), BUNDLE),
        (secret(bundle("td", PEM[:-30])), BUNDLE),
        (secret(bundle("td", PEM * 257)), BUNDLE),
        (secret({"name": "td", "trust_bundle": {"filename": "/ca"}}), f"{BUNDLE}.filename"),
    ],
)
def test_I08_roots_that_cannot_be_read(document: Document, field: str) -> None:
    """One bad certificate, and none is used: what was there before stays."""
    assert field in problems_of(document)
    assert problems_of(secret(bundle("td", PEM))) == []


def test_a_private_key_is_never_taken_nor_shown() -> None:
    key = DOMAIN.root.key_pem.decode()
    with pytest.raises(ResourceInvalid, match="PRIVATE KEY: expected certificates only") as caught:
        decoded(secret(bundle("td", PEM + key)))
    assert key.splitlines()[1] not in str(caught.value)
