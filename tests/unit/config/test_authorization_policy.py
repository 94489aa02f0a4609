"""AuthorizationPolicy: what may be written."""

from __future__ import annotations

import pytest
import yaml

from meshlib_control.config import Severity, load, validate_part
from meshlib_control.config.attributes import claim_path, header_name, metadata_key
from meshlib_control.config.validate.authorization_policy import is_dry_run


def judged(spec: str) -> list[tuple[str, str]]:
    """(field, code) of the errors."""
    return [
        (item.field, item.code)
        for item in validate_part("AuthorizationPolicy", yaml.safe_load(spec))
        if item.severity is Severity.ERROR
    ]


def rule(text: str) -> str:
    return f"{{rules: [{text}]}}"


def source(text: str) -> str:
    return rule(f"{{from: [{{source: {{{text}}}}}]}}")


def operation(text: str) -> str:
    return rule(f"{{to: [{{operation: {{{text}}}}}]}}")


def when(key: str, values: str = "[v]") -> str:
    return rule(f"{{when: [{{key: '{key}', values: {values}}}]}}")


SOURCE = "rules[0].from[0].source"
OPERATION = "rules[0].to[0].operation"
WHEN = "rules[0].when[0]"


@pytest.mark.parametrize(
    "spec",
    [
        "{}",
        "{action: AUDIT}",
        "{action: ALLOW, rules: []}",
        "{rules: [{}]}",
        "{action: AUDIT, rules: [{}]}",
        "{action: CUSTOM, provider: {name: opa}, rules: [{}]}",
        "{selector: {matchLabels: {app: a}}}",
        source("principals: ['*'], notPrincipals: [a]"),
        source("serviceAccounts: [ns/sa, sa], notServiceAccounts: [b]"),
        source("trustDomains: ['*.local', td], ipBlocks: [10.0.0.1, '::1', 10.0.0.0/8, 'fd00::/8']"),
        operation("ports: ['80', '0', '65535'], methods: [GET], hosts: ['*']"),
        operation("paths: [/, /a, /a/*, '*.html', '*', '/a/{*}/b', '/{**}', '/{*}/b/{**}/c', '/{**}/']"),
        *(
            when(key)
            for key in (
                "request.headers[x-role]",
                "source.namespace",
                "source.principal",
                "source.serviceAccount",
                "source.trustDomain",
                "request.auth.principal",
                "request.auth.audiences",
                "request.auth.presenter",
                "request.auth.claims[a]",
                "request.auth.claims[a][b]",
                "connection.sni",
                "experimental.envoy.filters.a.b[c]",
            )
        ),
        when("destination.port", "['80']"),
        when("source.ip", "[10.0.0.0/8]"),
        rule("{when: [{key: source.principal, notValues: [a]}]}"),
    ],
)
def test_what_istio_accepts(spec: str) -> None:
    assert judged(spec) == []


@pytest.mark.parametrize(
    ("spec", "field", "code"),
    [
        ("{selector: {matchLabels: {'': a}}}", "selector.matchLabels.", "MSH0142"),
        ("{selector: {matchLabels: {a: 'b*'}}}", "selector.matchLabels.a", "MSH0142"),
        ("{provider: {name: opa}}", "provider", "MSH0160"),
        ("{action: DENY, provider: {name: opa}, rules: [{}]}", "provider", "MSH0160"),
        ("{action: CUSTOM, provider: {name: opa}}", "rules", "MSH0143"),
        ("{action: CUSTOM, rules: [{}]}", "provider", "MSH0143"),
        ("{action: CUSTOM, provider: {}, rules: [{}]}", "provider", "MSH0143"),
        ("{action: REFUSE}", "action", "MSH0104"),
        ("{rules: [{from: []}]}", "rules[0].from", "MSH0143"),
        ("{rules: [{to: []}]}", "rules[0].to", "MSH0143"),
        ("{rules: [{from: [{}]}]}", SOURCE, "MSH0143"),
        ("{rules: [{to: [{}]}]}", OPERATION, "MSH0143"),
        (source(""), SOURCE, "MSH0143"),
        (operation(""), OPERATION, "MSH0143"),
        (source("principals: []"), SOURCE, "MSH0143"),
        (source("namespaces: [a, '']"), f"{SOURCE}.namespaces[1]", "MSH0143"),
        (source("ipBlocks: [10.0.0.300]"), f"{SOURCE}.ipBlocks[0]", "MSH0135"),
        (source("ipBlocks: ['*']"), f"{SOURCE}.ipBlocks[0]", "MSH0135"),
        (source("ipBlocks: [10.0.0.0/33]"), f"{SOURCE}.ipBlocks[0]", "MSH0135"),
        (source("ipBlocks: [10.0.0.0/255.0.0.0]"), f"{SOURCE}.ipBlocks[0]", "MSH0135"),
        (source("notRemoteIpBlocks: ['fe80::1%eth0']"), f"{SOURCE}.notRemoteIpBlocks[0]", "MSH0135"),
        (source("serviceAccounts: ['ns/*']"), f"{SOURCE}.serviceAccounts[0]", "MSH0124"),
        (source("serviceAccounts: [a/b/c]"), f"{SOURCE}.serviceAccounts[0]", "MSH0124"),
        (source("serviceAccounts: [/b]"), f"{SOURCE}.serviceAccounts[0]", "MSH0124"),
        (source("serviceAccounts: [b/]"), f"{SOURCE}.serviceAccounts[0]", "MSH0124"),
        (source("serviceAccounts: [a], namespaces: [b]"), f"{SOURCE}.serviceAccounts", "MSH0107"),
        (source("notServiceAccounts: [a], notPrincipals: [b]"), f"{SOURCE}.serviceAccounts", "MSH0107"),
        (source("trustDomains: ['*a*']"), f"{SOURCE}.trustDomains[0]", "MSH0124"),
        (operation("ports: ['80-90']"), f"{OPERATION}.ports[0]", "MSH0125"),
        (operation("ports: ['65536']"), f"{OPERATION}.ports[0]", "MSH0125"),
        (operation("notPorts: ['8*']"), f"{OPERATION}.notPorts[0]", "MSH0125"),
        (operation("paths: ['/a/{**}/{*}']"), f"{OPERATION}.paths[0]", "MSH0124"),
        (operation("paths: ['/a/{**}/{**}']"), f"{OPERATION}.paths[0]", "MSH0124"),
        (operation("paths: ['/a{*}']"), f"{OPERATION}.paths[0]", "MSH0124"),
        (operation("paths: ['/a/{b}']"), f"{OPERATION}.paths[0]", "MSH0124"),
        (operation("paths: ['/{*}/b*']"), f"{OPERATION}.paths[0]", "MSH0124"),
        (operation("paths: ['/{*}//b']"), f"{OPERATION}.paths[0]", "MSH0124"),
        (operation("notPaths: ['/{*}/ä']"), f"{OPERATION}.notPaths[0]", "MSH0124"),
        (when(""), f"{WHEN}.key", "MSH0124"),
        (when("source.ports"), f"{WHEN}.key", "MSH0124"),
        (when("request.headers"), f"{WHEN}.key", "MSH0124"),
        (when("request.headers[]"), f"{WHEN}.key", "MSH0124"),
        (when("request.headers.x"), f"{WHEN}.key", "MSH0124"),
        (when("request.auth.claims"), f"{WHEN}.key", "MSH0124"),
        (when("experimental.envoy.filters.a"), f"{WHEN}.key", "MSH0124"),
        (when("destination.labels[a]"), f"{WHEN}.key", "MSH0124"),
        (when("destination.user"), f"{WHEN}.key", "MSH0124"),
        (when("source.principal", "[]"), f"{WHEN}.values", "MSH0143"),
        (when("destination.port", "['80', x]"), f"{WHEN}.values[1]", "MSH0125"),
        (when("destination.ip", "[x]"), f"{WHEN}.values[0]", "MSH0135"),
    ],
)
def test_what_is_refused(spec: str, field: str, code: str) -> None:
    assert (field, code) in [(name.replace('[""]', "."), found) for name, found in judged(spec)]


@pytest.mark.parametrize(("action", "code"), [("DENY", "MSH0143"), ("AUDIT", "MSH0151"), ("ALLOW", "")])
def test_nothing_is_denied_without_rules_and_nothing_allowed(action: str, code: str) -> None:
    """The first is a mistake; the second is how one begins."""
    found = [(item.code, item.field) for item in validate_part("AuthorizationPolicy", {"action": action})]
    assert found == ([(code, "rules")] if code else [])


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("request.header[x]", "request.headers[x]"),
        ("request.auth.claim[a][b]", "request.auth.claims[a][b]"),
        ("source.prinicpal", "source.principal"),
    ],
)
def test_attributes_that_are_nearly_right_get_a_hint(key: str, meant: str) -> None:
    (found,) = validate_part("AuthorizationPolicy", {"rules": [{"when": [{"key": key, "values": ["v"]}]}]})
    assert found.message.endswith(f"did you mean {meant}?")


def test_a_policy_is_for_a_selector_or_a_target() -> None:
    target = "{kind: Gateway, group: gateway.networking.k8s.io, name: g}"
    assert judged(f"{{targetRefs: [{target}]}}") == []
    assert ("targetRef", "MSH0107") in judged(f"{{selector: {{}}, targetRef: {target}}}")
    assert ("targetRef.namespace", "MSH0142") in judged("{targetRef: {kind: Service, name: a, namespace: b}}")


@pytest.mark.parametrize("field", ["principals", "notPrincipals", "namespaces", "notNamespaces", "requestPrincipals"])
def test_identities_are_the_external_authorizers_to_judge(field: str) -> None:
    spec = f"{{action: CUSTOM, provider: {{name: opa}}, rules: [{{from: [{{source: {{{field}: [a]}}}}]}}]}}"
    assert judged(spec) == [(f"{SOURCE}.{field}", "MSH0160")]
    assert judged(spec.replace(field, "ipBlocks").replace("[a]", "[10.0.0.1]")) == []


def policy(annotation: str, action: str = "ALLOW") -> str:
    return f"""\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: p, annotations: {{istio.io/dry-run: {annotation}}}}}
spec: {{action: {action}, rules: [{{}}]}}
"""


def test_a_dry_run_is_a_boolean_of_allow_or_deny() -> None:
    """What Istio's cases about annotations say."""
    for value, expected in (('"true"', True), ('"false"', False), ('"1"', True)):
        ((resource,), findings) = load([("p.yaml", policy(value, "DENY"))])
        assert findings == []
        assert is_dry_run(resource.annotations) is expected
    assert [item.code for item in load([("p.yaml", policy('"on"'))])[1]] == ["MSH0009"]
    for action in ("AUDIT", "CUSTOM"):
        (found, *_) = load([("p.yaml", policy('"true"', action))])[1]
        assert found.code == "MSH0160"


def test_names_in_brackets() -> None:
    assert header_name("request.headers[x-role]") == "x-role"
    assert claim_path("request.auth.claims[a]") == ("a",)
    assert claim_path("request.auth.claims[a][b.c]") == ("a", "b.c")
    assert claim_path("request.auth.claims[a]b[c]") == ("a]b[c",)
    assert metadata_key("experimental.envoy.filters.a.b[c]") == ("envoy.filters.a.b", "c")
