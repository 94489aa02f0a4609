"""Whether a request would be let in, and in which words it is told."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.lowlevel import Authorization, Connection, Peer, ServerRequest, SpiffeId, authorize
from meshlib_control.compile.inbound import inbound_listener, inbound_name
from meshlib_control.compile.trust import Trust
from tests.unit.compile.authz import GRPC_PROVIDER, policy, scope_in, world_of

WEB = "spiffe://cluster.local/ns/foo/sa/web"
STRICT = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: foo}
spec: {mtls: {mode: STRICT}}
"""
TOKENS = """\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: foo}
spec: {jwtRules: [{issuer: 'https://a', jwks: '{"keys": [{"kty": "oct", "k": "AA", "kid": "x"}]}'}]}
"""


def asked(*texts: str, source: str = "", trust: Trust | None = None, **more: Any) -> Authorization:
    world = world_of(*texts, trust=trust)
    listener = inbound_listener(world, scope_in(world), inbound_name(8080))
    assert listener is not None
    peer = Peer(SpiffeId.parse(source)) if source else None
    connection = Connection(remote_address="10.0.0.7", local_port=8080, tls=peer is not None, peer=peer)
    headers = [(b"host", b"httpbin"), *more.get("headers", [])]
    request = ServerRequest(more.get("method", "GET"), more.get("target", b"/a"), headers, connection=connection)
    return authorize(listener.SerializeToString(), request, now=0.0, claims=more.get("claims"))


def rules(found: Authorization) -> list[tuple[str, bool, str]]:
    return [(rule.name, rule.matched, rule.reason) for step in found.steps for rule in step.rules]


def test_without_policies_everybody_is_let_in() -> None:
    found = asked()
    assert (found.outcome, found.policy, found.mtls) == ("allowed", "", "PERMISSIVE")
    assert found.steps == ()


def test_strict_asks_for_an_identity_before_any_policy() -> None:
    assert asked(STRICT, source=WEB).outcome == "allowed"
    refused = asked(STRICT)
    assert (refused.outcome, refused.status, refused.mtls) == ("denied", 403, "STRICT")


def test_the_rule_that_allows_is_told_and_why_the_others_do_not() -> None:
    text = policy(
        "rules: [{from: [{source: {principals: [cluster.local/ns/foo/sa/other]}}]},"
        " {from: [{source: {principals: [cluster.local/ns/foo/sa/web]}}], to: [{operation: {methods: [GET]}}]}]"
    )
    found = asked(text, source=WEB)
    assert (found.outcome, found.policy) == ("allowed", "ns[foo]-policy[p]-rule[1]")
    assert rules(found) == [
        (
            "ns[foo]-policy[p]-rule[0]",
            False,
            f"asks for identity spiffe://cluster.local/ns/foo/sa/other; identity is {WEB}",
        ),
        ("ns[foo]-policy[p]-rule[1]", True, f"method GET, identity {WEB}"),
    ]
    refused = asked(text, source=WEB, method="POST")
    assert (refused.outcome, refused.status, refused.policy) == ("denied", 403, "")
    assert rules(refused)[1][2] == "asks for method GET; method is POST"


def test_a_deny_rule_is_told() -> None:
    text = policy("rules: [{to: [{operation: {paths: [/a]}}]}]", action="DENY")
    assert asked(text, target=b"/b").outcome == "allowed"
    found = asked(text)
    assert (found.outcome, found.policy, found.reason) == ("denied", "ns[foo]-policy[p]-rule[0]", "a DENY policy matched")


def test_a_dry_run_is_told_and_decides_nothing() -> None:
    text = policy("rules: [{}]", action="DENY", annotations='{istio.io/dry-run: "true"}')
    found = asked(text)
    assert found.outcome == "allowed"
    assert [(rule.matched, rule.dry_run) for step in found.steps for rule in step.rules] == [(True, True)]
    assert found.notes[-1] == "dry run: policy ns[foo]-policy[p]-rule[0] would deny"


def test_audit_decides_nothing() -> None:
    found = asked(policy("rules: [{}]", action="AUDIT"))
    assert (found.outcome, found.steps[0].action, found.steps[0].outcome) == ("allowed", "AUDIT", "passed")


CUSTOM = policy("provider: {name: default}, rules: [{to: [{operation: {paths: [/a]}}]}]", action="CUSTOM")


def test_an_authorizer_is_named_and_not_asked() -> None:
    found = asked(GRPC_PROVIDER, CUSTOM)
    assert found.outcome == "asked"
    assert "my-custom-ext-authz.foo.svc.cluster.local" in found.reason
    assert asked(GRPC_PROVIDER, CUSTOM, target=b"/b").outcome == "allowed"


def test_what_policies_refuse_is_refused_whatever_the_authorizer_would_say() -> None:
    found = asked(GRPC_PROVIDER, CUSTOM, policy("", "nobody"))
    assert (found.outcome, found.steps[-1].action) == ("denied", "ALLOW")
    assert rules(found)[-1][2] == "has no rules and never matches"


def test_an_authorizer_that_cannot_be_asked_refuses() -> None:
    found = asked(CUSTOM)
    assert (found.outcome, found.steps[0].action) == ("denied", "CUSTOM")
    assert found.policy.endswith("-deny-due-to-bad-CUSTOM-action")
    assert asked(CUSTOM, target=b"/b").outcome == "allowed"


def test_claims_are_those_that_are_given() -> None:
    text = policy("rules: [{when: [{key: 'request.auth.claims[group]', values: [admin]}]}]")
    allowed = asked(TOKENS, text, claims={"iss": "https://a", "group": ["x", "admin"]})
    assert allowed.outcome == "allowed"
    refused = asked(TOKENS, text, claims={"iss": "https://a", "group": ["x"]})
    assert rules(refused)[0][2] == "asks for claim group admin; claim group is ['x']"
    unknown = asked(text, claims={"group": "admin"})
    assert unknown.outcome == "denied"
    assert "no RequestAuthentication" in " ".join(unknown.notes)


def test_given_claims_are_seen_as_those_of_a_token() -> None:
    text = policy("rules: [{when: [{key: 'request.auth.claims[scope]', values: [read]}]}]")
    words = asked(TOKENS, text, claims={"iss": "https://a", "scope": "write read"})
    assert words.outcome == "allowed"
    assert asked(TOKENS, text, claims={"iss": "https://a", "scope": "readers"}).outcome == "denied"
    assert asked(TOKENS, text, claims={"scope": "read"}).outcome == "allowed"


def test_an_issuer_that_nobody_believes_is_told() -> None:
    stranger, known = (asked(TOKENS, claims={"iss": issuer}).steps[0].detail for issuer in ("https://b", "https://a"))
    assert "no RequestAuthentication is about the issuer https://b" in stranger
    assert known == "the claims are taken as given"


def test_a_token_is_verified_unless_claims_are_given() -> None:
    found = asked(TOKENS, headers=[(b"authorization", b"Bearer a.b.c")])
    assert (found.outcome, found.status, found.steps[0].action) == ("denied", 401, "JWT")


def test_identities_prove_nothing_where_tls_is_off() -> None:
    disabled = STRICT.replace("STRICT", "DISABLE")
    text = policy("rules: [{from: [{source: {namespaces: [foo]}}]}]")
    assert asked(STRICT, text, source=WEB).outcome == "allowed"
    found = asked(disabled, text, source=WEB)
    assert (found.outcome, found.mtls) == ("denied", "DISABLE")
    assert "plaintext only" in found.notes[0]


def test_an_ambiguous_request_is_refused_before_any_policy() -> None:
    found = asked(target=b"a")
    assert (found.outcome, found.status, found.steps) == ("denied", 400, ())


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("to: [{operation: {ports: ['80', '81']}}]", "asks for port 80 or port 81; port is 8080"),
        ("to: [{operation: {hosts: ['*.com']}}]", "asks for host suffix .com; host is httpbin"),
        ("to: [{operation: {paths: ['/x/{*}']}}]", "asks for path like the template /x/*; path is /a"),
        ("to: [{operation: {notPaths: ['/a']}}]", "asks for not (path /a); path is /a"),
        ("from: [{source: {ipBlocks: [10.1.0.0/16]}}]", "asks for source address in 10.1.0.0/16; source address is 10.0.0.7"),
        ("from: [{source: {principals: ['*']}}]", "asks for identity like .+; identity is not proved"),
        ("when: [{key: 'request.headers[x-a]', values: ['*']}]", "asks for header x-a to be there; header x-a is missing"),
        ("when: [{key: connection.sni, values: [a]}]", "asks for server name (SNI) a; server name is not sent"),
        (
            "to: [{operation: {methods: [POST]}}, {operation: {paths: [/b]}}]",
            "asks for method POST; method is GET; or asks for path /b; path is /a",
        ),
    ],
)
def test_conditions_in_words(rule: str, reason: str) -> None:
    assert rules(asked(policy(f"rules: [{{{rule}}}]")))[0][2] == reason


def test_only_inbound_listeners_are_asked() -> None:
    from meshlib.xds.invalid import ResourceInvalid

    with pytest.raises(ResourceInvalid):
        authorize(b"", ServerRequest("GET", b"/", []), now=0.0)
