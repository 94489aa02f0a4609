"""PeerAuthentication: Istio's precedence and rules; and what does not go together with DestinationRules and instances."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import yaml

from meshlib_control.catalog.model import Port, Service
from meshlib_control.config import ConfigSet, Finding, Severity, analyze, validate_part
from meshlib_control.config.mtls import MTLS_LABEL, MTLS_MODE, PeerAuthentications
from tests.support.certificates import TrustDomain
from tests.unit.config.support import loaded

ROOT = "istio-system"
HTTPBIN = {"app": "httpbin"}
REVIEWS = "reviews.default.svc.cluster.local"


def policy(name: str, namespace: str, spec: str) -> str:
    return f"""\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: {name}, namespace: {namespace}}}
spec: {spec}
"""


def whole(mode: str, namespace: str = "foo", name: str = "default") -> str:
    return policy(name, namespace, f"{{mtls: {{mode: {mode}}}}}")


def for_httpbin(spec: str, name: str = "httpbin", namespace: str = "foo") -> str:
    return policy(name, namespace, "{selector: {matchLabels: {app: httpbin}}, " + spec + "}")


def mode(*texts: str, labels: Mapping[str, str] = HTTPBIN, port: int = 80, namespace: str = "foo") -> str:
    resources = [resource for text in texts for resource in loaded(text)]
    return PeerAuthentications(resources, ROOT).mode(namespace, labels, port)


STRICT_MESH = whole("STRICT", ROOT)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], "PERMISSIVE"),
        ([STRICT_MESH], "STRICT"),
        ([STRICT_MESH, whole("DISABLE")], "DISABLE"),
        ([STRICT_MESH, whole("UNSET")], "STRICT"),
        ([STRICT_MESH, policy("default", "foo", "{}")], "STRICT"),
        ([whole("DISABLE"), STRICT_MESH], "DISABLE"),
        ([whole("STRICT", "other")], "PERMISSIVE"),
        ([STRICT_MESH, for_httpbin("mtls: {mode: DISABLE}")], "DISABLE"),
        ([whole("STRICT"), for_httpbin("mtls: {mode: UNSET}")], "STRICT"),
        ([whole("DISABLE"), for_httpbin("mtls: {mode: STRICT}, portLevelMtls: {80: {mode: PERMISSIVE}}")], "PERMISSIVE"),
        ([whole("DISABLE"), for_httpbin("mtls: {mode: STRICT}, portLevelMtls: {81: {mode: PERMISSIVE}}")], "STRICT"),
        ([STRICT_MESH, for_httpbin("mtls: {mode: DISABLE}, portLevelMtls: {80: {mode: UNSET}}")], "DISABLE"),
        ([STRICT_MESH, for_httpbin("portLevelMtls: {80: {}}")], "STRICT"),
    ],
    ids=[
        "nothing is said",
        "mesh",
        "namespace before mesh",
        "UNSET inherits",
        "no mtls inherits",
        "whatever the order",
        "another namespace",
        "workload before mesh",
        "workload UNSET inherits the namespace",
        "port before workload",
        "another port",
        "port UNSET inherits the workload",
        "port without mode inherits the mesh",
    ],
)
def test_precedence(texts: list[str], expected: str) -> None:
    assert mode(*texts) == expected


def test_the_oldest_of_a_level_holds() -> None:
    """Also when it leaves the mode to the level above: it is one of them that counts."""
    assert mode(whole("STRICT", name="a"), whole("DISABLE", name="b")) == "STRICT"
    assert mode(STRICT_MESH, whole("UNSET", name="a"), whole("DISABLE", name="b")) == "STRICT"
    assert mode(for_httpbin("mtls: {mode: DISABLE}", "a"), for_httpbin("mtls: {mode: STRICT}", "b")) == "DISABLE"


def test_a_selector_chooses_by_all_its_labels_in_its_own_namespace() -> None:
    chosen = for_httpbin("mtls: {mode: STRICT}")
    assert mode(chosen) == "STRICT"
    assert mode(chosen, labels={"app": "other"}) == "PERMISSIVE"
    assert mode(chosen, namespace="bar") == "PERMISSIVE"
    assert PeerAuthentications(loaded(chosen), ROOT).selector_keys == {"app"}


def test_a_selector_in_the_root_namespace_chooses_nobody() -> None:
    chosen = for_httpbin("mtls: {mode: STRICT}", namespace=ROOT)
    assert mode(chosen) == mode(chosen, namespace=ROOT) == "PERMISSIVE"
    assert mode(STRICT_MESH, namespace=ROOT) == "STRICT"


SELECTOR = "selector: {matchLabels: {app: httpbin}}"
PEM = "not a certificate"


@pytest.mark.parametrize(
    ("part", "spec", "expected"),
    [
        ("PeerAuthentication", "{}", []),
        ("PeerAuthentication", "{mtls: {}}", []),
        ("PeerAuthentication", "{mtls: {mode: STRICT}, selector: {matchLabels: {}}}", []),
        ("PeerAuthentication", f"{{{SELECTOR}, portLevelMtls: {{8080: {{mode: UNSET}}}}}}", []),
        ("PeerAuthentication", f"{{{SELECTOR}, portLevelMtls: {{}}}}", [("MSH0143", "portLevelMtls")]),
        ("PeerAuthentication", "{portLevelMtls: {8080: {}}}", [("MSH0142", "portLevelMtls")]),
        ("PeerAuthentication", "{selector: {matchLabels: {}}, portLevelMtls: {8080: {}}}", [("MSH0142", "portLevelMtls")]),
        ("PeerAuthentication", f"{{{SELECTOR}, portLevelMtls: {{0: {{}}}}}}", [("MSH0125", "portLevelMtls.0")]),
        ("PeerAuthentication", f"{{{SELECTOR}, portLevelMtls: {{65536: {{}}}}}}", [("MSH0125", "portLevelMtls.65536")]),
        ("PeerAuthentication", f"{{{SELECTOR}, portLevelMtls: {{http: {{}}}}}}", [("MSH0125", "portLevelMtls.http")]),
        ("PeerAuthentication", "{mtls: {mode: MAYBE}}", [("MSH0104", "mtls.mode")]),
        ("PeerAuthentication", "{selector: {matchLabels: {app: 'a*'}}}", [("MSH0142", "selector.matchLabels.app")]),
        ("MeshConfig", "{trustDomain: td1, trustDomainAliases: [cluster.local, old_td.test]}", []),
        ("MeshConfig", "{trustDomain: TD1}", [("MSH0144", "trustDomain")]),
        ("MeshConfig", "{trustDomain: ''}", [("MSH0144", "trustDomain")]),
        ("MeshConfig", "{trustDomainAliases: [a/b]}", [("MSH0144", "trustDomainAliases[0]")]),
        ("MeshConfig", f"{{caCertificates: [{{pem: {PEM}, trustDomains: [a]}}]}}", [("MSH0144", "caCertificates[0].pem")]),
        ("MeshConfig", "{meshMTLS: {minProtocolVersion: TLSV1_3}, pathNormalization: {normalization: NONE}}", []),
        ("MeshConfig", "{meshMTLS: {minProtocolVersion: TLSV1_1}}", [("MSH0104", "meshMTLS.minProtocolVersion")]),
    ],
)
def test_rules(part: str, spec: str, expected: list[tuple[str, str]]) -> None:
    found = validate_part(part, yaml.load(spec, yaml.BaseLoader))  # as documents are read: keys are strings
    assert [(item.code, item.field) for item in found if item.severity is Severity.ERROR] == expected


@pytest.mark.parametrize(("number", "codes"), [(0, []), (16, []), (-1, ["MSH0105"]), (17, ["MSH0105"]), ("1", ["MSH0102"])])
def test_trusted_proxies_are_a_small_number(number: object, codes: list[str]) -> None:
    found = validate_part("MeshConfig", {"defaultConfig": {"gatewayTopology": {"numTrustedProxies": number}}})
    assert [item.code for item in found] == codes


def test_roots_must_be_authorities_and_never_keys() -> None:
    domain = TrustDomain("td2")

    def wrong(pem: bytes, *domains: str) -> list[str]:
        spec = {"caCertificates": [{"pem": pem.decode(), "trustDomains": list(domains)}]}
        return [item.message for item in validate_part("MeshConfig", spec)]

    assert wrong(domain.root.pem, "td2") == []
    assert wrong(domain.root.pem + domain.signer.pem, "td2") == []
    assert "name them" in wrong(domain.root.pem)[0]
    assert "CA:FALSE" in wrong(domain.leaf().pem, "td2")[0]
    (message,) = wrong(domain.root.pem + domain.root.key_pem, "td2")
    assert "private key" in message


# --- what does not go together


def rule(tls: str, host: str = "reviews", where: str = "trafficPolicy: {tls: %s}") -> str:
    return f"""\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: rule}}
spec: {{host: {host}, {where % tls}}}
"""


def analyzed(*texts: str, **more: object) -> list[Finding]:
    return analyze(ConfigSet(resource for text in texts for resource in loaded(text)), **more)  # type: ignore[arg-type]


def told(*texts: str, **more: object) -> list[tuple[str, str]]:
    return [(finding.code, finding.field) for finding in analyzed(*texts, **more) if finding.code >= "MSH0311"]


def live(*labels: Mapping[str, str], port: str = "http") -> dict[str, object]:
    return {"services": [Service(REVIEWS, "default", (Port(80, port),))], "instances": {REVIEWS: list(labels)}}


STRICT = whole("STRICT", "default")
DISABLED = whole("DISABLE", "default")
SPEAKS = {MTLS_LABEL: MTLS_MODE}


@pytest.mark.parametrize("tls", ["{mode: DISABLE}", "{mode: SIMPLE}"])
@pytest.mark.parametrize(
    ("where", "field"),
    [
        ("trafficPolicy: {tls: %s}", "spec.trafficPolicy.tls.mode"),
        (
            "trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: %s}]}",
            "spec.trafficPolicy.portLevelSettings[0].tls.mode",
        ),
        ("subsets: [{name: v1, trafficPolicy: {tls: %s}}]", "spec.subsets[0].trafficPolicy.tls.mode"),
    ],
)
def test_plaintext_towards_strict(tls: str, where: str, field: str) -> None:
    assert told(rule(tls, where=where), STRICT) == [("MSH0311", field)]
    assert told(rule(tls, where=where)) == told(rule("{mode: ISTIO_MUTUAL}", where=where), STRICT) == []


def test_mtls_towards_plaintext() -> None:
    assert told(rule("{mode: ISTIO_MUTUAL}"), DISABLED) == [("MSH0312", "spec.trafficPolicy.tls.mode")]
    assert told(rule("{mode: DISABLE}"), DISABLED) == []


def test_workloads_are_judged_by_their_labels_where_instances_are_known() -> None:
    exempt = policy("old", "default", "{selector: {matchLabels: {app: old}}, mtls: {mode: DISABLE}}")
    disable = rule("{mode: DISABLE}")
    assert told(disable, STRICT, exempt, **live({"app": "old"})) == []
    assert told(disable, STRICT, exempt, **live(SPEAKS)) == [
        ("MSH0314", "spec.selector"),
        ("MSH0311", "spec.trafficPolicy.tls.mode"),
    ]


def test_hosts_outside_are_no_workloads() -> None:
    entry = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api}
spec: {hosts: [api.test], ports: [{number: 80, name: http}], resolution: DNS}
"""
    assert told(entry, rule("{mode: SIMPLE}", "api.test"), STRICT) == []
    inside = entry.replace("resolution", "location: MESH_INTERNAL, resolution")
    assert told(inside, rule("{mode: SIMPLE}", "api.test"), STRICT) == [("MSH0311", "spec.trafficPolicy.tls.mode")]


def test_instances_that_speak_no_mtls_under_strict() -> None:
    (finding,) = analyzed(STRICT, **live({}, SPEAKS, {}))
    assert (finding.code, finding.resource) == ("MSH0313", "PeerAuthentication/default/default")
    assert finding.message.startswith(f"2 known instances speak no mTLS, though it is STRICT for them, of {REVIEWS}")
    assert analyzed(STRICT, **live(SPEAKS)) == []
    assert analyzed(whole("PERMISSIVE", "default"), **live({})) == []


def test_policies_that_cannot_hold() -> None:
    in_root = for_httpbin("mtls: {mode: STRICT}", namespace=ROOT)
    assert told(in_root) == [("MSH0314", "spec.selector")]
    second = whole("DISABLE", "default", "second")
    (finding,) = analyzed(STRICT, second)
    assert (finding.code, finding.resource) == ("MSH0314", "PeerAuthentication/default/second")
    assert told(policy("x", "default", "{selector: {matchLabels: {app: x}}}"), **live({"app": "y"})) == [
        ("MSH0314", "spec.selector")
    ]


def test_tls_that_grpc_cannot_do() -> None:
    files = "{mode: SIMPLE, caCertificates: /ca.pem}"
    assert told(rule(files), **live(SPEAKS, port="grpc")) == [("MSH0315", "spec.trafficPolicy.tls.mode")]
    assert told(rule("{mode: SIMPLE}"), **live(SPEAKS, port="grpc")) == told(rule(files), **live(SPEAKS)) == []
    assert told(rule(files), grpc_clients=True, **live(SPEAKS)) == [("MSH0315", "spec.trafficPolicy.tls.mode")]
