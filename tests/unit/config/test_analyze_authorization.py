"""What can be said of AuthorizationPolicies before any request: each finding with a policy that is fine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from meshlib_control.catalog.model import Port, Service
from meshlib_control.config import Finding, Severity, analyze, load
from tests.unit.config.support import loaded

STRICT = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict}
spec: {mtls: {mode: STRICT}}
"""
TOKENS = """\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens}
spec: {selector: {matchLabels: {app: reviews}}, jwtRules: [{issuer: a, jwksUri: 'https://a/keys'}]}
"""
MESH = """\
apiVersion: meshlib.io/v1
kind: MeshConfig
metadata: {name: mesh}
spec:
  trustDomain: mesh.test
  extensionProviders: [{name: opa, envoyExtAuthzGrpc: {service: opa.default.svc.cluster.local, port: 9191}}]
"""


def policy(spec: str, name: str = "p", namespace: str = "default") -> str:
    return f"""\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{{spec}}}
"""


def service(name: str = "reviews", *ports: Port, namespace: str = "default") -> Service:
    return Service(f"{name}.{namespace}.svc.cluster.local", namespace, ports or (Port(80),))


def found(*texts: str, **catalog: Any) -> list[Finding]:
    return analyze(loaded(*texts), **catalog)


def codes(*texts: str, **catalog: Any) -> list[tuple[str, str]]:
    return [(finding.code, finding.field) for finding in found(*texts, **catalog)]


def rule(text: str, action: str = "ALLOW") -> str:
    return policy(f"action: {action}, rules: [{{{text}}}]")


LABELS: Mapping[str, list[Mapping[str, str]]] = {
    "reviews.default.svc.cluster.local": [{"app": "reviews", "security.istio.io/tlsMode": "istio"}]
}


def test_a_policy_that_fits_is_clean() -> None:
    text = policy(
        "selector: {matchLabels: {app: reviews}},"
        " rules: [{from: [{source: {principals: [mesh.test/ns/default/sa/web], requestPrincipals: ['a/*']}}],"
        " to: [{operation: {methods: [GET], paths: ['/a/{*}', '/b*'], hosts: ['reviews*']}}]}]"
    )
    assert codes(STRICT, TOKENS, MESH, text, services=[service(), service("opa")], instances=LABELS) == []
    assert codes(STRICT, TOKENS, MESH, text) == []


def test_a_policy_about_nobody() -> None:
    text = policy("selector: {matchLabels: {app: review}}")
    assert codes(text, services=[service()], instances=LABELS) == [("MSH0321", "spec.selector")]
    assert codes(text) == []
    assert codes(text, services=[service()]) == []
    assert codes(policy("", namespace="empty"), services=[service()]) == [("MSH0321", "spec.selector")]
    everywhere = policy("selector: {matchLabels: {app: reviews}}", namespace="istio-system")
    assert codes(everywhere, services=[service()], instances=LABELS) == []


@pytest.mark.parametrize(
    ("source", "known"),
    [
        ("namespaces: [defualt]", False),
        ("namespaces: ['def*', default]", True),
        ("principals: [mesh.test/ns/defualt/sa/a]", False),
        ("principals: [cluster.local/ns/default/sa/a, '*/sa/a']", True),
        ("principals: [mesh.tset/ns/default/sa/a]", False),
        ("serviceAccounts: [defualt/a]", False),
        ("serviceAccounts: [a, default/a]", True),
        ("trustDomains: [mesh.tset]", False),
        ("trustDomains: [mesh.test, 'other*']", True),
    ],
)
def test_names_that_nobody_has(source: str, known: bool) -> None:
    text = rule(f"from: [{{source: {{{source}}}}}]")
    expected = [] if known else ["MSH0322"]
    assert [finding.code for finding in found(MESH, STRICT, text, services=[service(), service("opa")])] == expected


def custom(provider: str, name: str = "p", selector: str = "{}", namespace: str = "default") -> str:
    spec = f"selector: {{matchLabels: {selector}}}, action: CUSTOM, provider: {{name: {provider}}}, rules: [{{}}]"
    return policy(spec, name, namespace).replace("selector: {matchLabels: {}}, ", "")


def test_an_authorizer_that_cannot_be_asked() -> None:
    (unknown,) = found(MESH, custom("opq"))
    assert (unknown.code, unknown.severity) == ("MSH0323", Severity.ERROR)
    assert "did you mean opa?" in unknown.message
    assert codes(MESH, custom("opa"), services=[service("opa")]) == []
    assert codes(MESH, custom("opa"), services=[service()]) == [("MSH0323", "spec.provider.name")]


def test_what_may_be_elsewhere_is_no_error_of_a_file() -> None:
    """MeshConfig and the authorizer's service need not be in the files that are looked at."""
    for text in ((custom("opa"),), (MESH, custom("opa"))):
        (finding,) = found(*text)
        assert (finding.code, finding.severity) == ("MSH0323", Severity.WARNING)
    (nowhere,) = found(custom("opa"), services=[service("opa")])
    assert nowhere.severity is Severity.ERROR


def test_what_is_for_gateways_is_about_no_workload() -> None:
    """Neither does it need anything, nor does it give anything to policies that are for workloads."""
    attached = "targetRef: {kind: Gateway, name: g}"
    asking = policy(f"{attached}, action: CUSTOM, provider: {{name: x}}, rules: [{{}}]")
    tokens = TOKENS.replace("selector: {matchLabels: {app: reviews}}", attached)
    asks = rule("from: [{source: {requestPrincipals: ['a/b']}}]")
    resources, _ = load([("a", asking), ("b", tokens), ("c", asks.replace("name: p", "name: q"))])
    assert [finding.code for finding in analyze(resources)] == ["MSH0330"]
    assert codes(TOKENS, asks) == []


def test_of_two_authorizers_for_one_workload_none_is_asked() -> None:
    more = ", {name: other, envoyExtAuthzGrpc: {service: o.default.svc.cluster.local, port: 1}}]"
    mesh = MESH.replace("9191}}]", f"9191}}}}{more}")

    def of_both(one: str, other: str) -> int:
        both = (service("opa"), service("o"), service("x", namespace="a"), service("x", namespace="b"))
        return len(codes(mesh, one, other, services=both))

    assert of_both(custom("opa"), custom("other", "q")) == 2
    assert of_both(custom("opa", namespace="istio-system"), custom("other", "q", "{app: a}")) == 2
    assert of_both(custom("opa", selector="{app: a}"), custom("other", "q", "{app: b}")) == 0
    assert of_both(custom("opa", namespace="a"), custom("other", "q", namespace="b")) == 0


@pytest.mark.parametrize(
    ("action", "source", "open_"),
    [
        ("ALLOW", "notNamespaces: [foo]", True),
        ("ALLOW", "namespaces: [foo]", False),
        ("DENY", "namespaces: [foo]", True),
        ("DENY", "notPrincipals: ['*/sa/a']", False),
        ("DENY", "ipBlocks: [10.0.0.1]", False),
    ],
)
def test_I11_identities_of_plaintext_callers(action: str, source: str, open_: bool) -> None:
    text = rule(f"from: [{{source: {{{source}}}}}]", action)
    assert [finding.code for finding in found(text)] == (["MSH0324"] if open_ else [])
    assert found(text, STRICT) == []


@pytest.mark.parametrize(
    "text",
    [
        "from: [{source: {requestPrincipals: ['a/*']}}]",
        "when: [{key: request.auth.audiences, values: [a]}]",
        "when: [{key: 'request.auth.claims[a]', notValues: [a]}]",
    ],
)
def test_tokens_that_nobody_verifies(text: str) -> None:
    assert [finding.code for finding in found(rule(text))] == ["MSH0330"]
    assert found(rule(text), TOKENS) == []
    other = policy(f"selector: {{matchLabels: {{app: other}}}}, rules: [{{{text}}}]")
    assert [finding.code for finding in found(other, TOKENS)] == ["MSH0330"]


TCP = service("db", Port(5432, "tcp"), Port(80))


@pytest.mark.parametrize(
    ("action", "text", "code"),
    [
        ("ALLOW", "to: [{operation: {methods: [GET]}}]", "MSH0326"),
        ("DENY", "to: [{operation: {paths: [/a]}}]", "MSH0325"),
        ("DENY", "to: [{operation: {paths: [/a], ports: ['5432']}}]", "MSH0325"),
        ("DENY", "to: [{operation: {paths: [/a], ports: ['80']}}]", None),
        ("DENY", "from: [{source: {ipBlocks: [10.0.0.1]}}]", None),
    ],
)
def test_I16_ports_without_requests(action: str, text: str, code: str | None) -> None:
    assert [finding.code for finding in found(rule(text, action), services=[TCP])] == ([code] if code else [])
    assert found(rule(text, action), services=[service()]) == []


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("to: [{operation: {paths: ['/admin/.*']}}]", "MSH0327"),
        ("to: [{operation: {paths: ['/a/*/b']}}]", "MSH0327"),
        ("to: [{operation: {paths: ['^/a$']}}]", "MSH0327"),
        ("to: [{operation: {hosts: ['a|b*']}}]", "MSH0327"),
        ("from: [{source: {principals: ['cluster.local/ns/.*/sa/a']}}]", "MSH0327"),
        ("when: [{key: 'request.headers[x]', values: ['a*b']}]", "MSH0327"),
        ("to: [{operation: {paths: [admin]}}]", "MSH0328"),
        ("to: [{operation: {paths: ['/a?b=c']}}]", "MSH0328"),
        ("to: [{operation: {paths: ['/a/../b']}}]", "MSH0328"),
        ("to: [{operation: {methods: [get]}}]", "MSH0328"),
        ("to: [{operation: {hosts: ['http://a*']}}]", "MSH0328"),
        ("from: [{source: {principals: ['spiffe://cluster.local/ns/a/sa/b']}}]", "MSH0328"),
        ("from: [{source: {principals: [web]}}]", "MSH0328"),
        ("from: [{source: {requestPrincipals: [issuer]}}]", "MSH0328"),
        ("from: [{source: {requestPrincipals: ['https://a*']}}]", "MSH0328"),
        ("from: [{source: {requestPrincipals: ['*/a*']}}]", "MSH0328"),
        ("when: [{key: 'experimental.envoy.filters.http.lua[a]', values: [b]}]", "MSH0328"),
        ("to: [{operation: {hosts: [a.test]}}]", "MSH0329"),
    ],
)
def test_values_that_are_not_what_they_look_like(text: str, code: str) -> None:
    open_tokens = TOKENS.replace("selector: {matchLabels: {app: reviews}}, ", "")
    assert code in [finding.code for finding in found(rule(text), open_tokens, STRICT)]


@pytest.mark.parametrize(
    "text",
    [
        "to: [{operation: {paths: ['/a.b', '/a+b', '/*', '*.html', '/{*}/b/{**}', '/a(1)b'], methods: [GET, 'P*']}}]",
        "to: [{operation: {hosts: ['a.test*', '*.test', 'a.test:8080', '*']}}]",
        "from: [{source: {principals: ['*', 'a/ns/b/*', '*/sa/c', a/ns/b/sa/c], namespaces: ['*a*']}}]",
        "from: [{source: {requestPrincipals: ['*', 'https://a/*', 'https://a/b*', '*/b', 'a*']}}]",
        "when: [{key: 'experimental.envoy.filters.http.jwt_authn[payload]', values: [b]}]",
    ],
)
def test_values_that_are_fine(text: str) -> None:
    open_tokens = TOKENS.replace("selector: {matchLabels: {app: reviews}}, ", "")
    assert [str(finding) for finding in found(rule(text), open_tokens, STRICT)] == []


def test_dots_are_compared_where_paths_are_not_normalized() -> None:
    mesh = MESH.replace("  trustDomain", "  pathNormalization: {normalization: NONE}\n  trustDomain")
    text = rule("to: [{operation: {paths: ['/a/../b']}}]")
    assert codes(mesh, text) == []
    assert [code for code, _ in codes(MESH, text)] == ["MSH0328"]
