"""AuthorizationPolicies as filters: which hold, in which order, and what becomes of each field."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib_control.compile.trust import Trust
from tests.support.configuring import world
from tests.unit.compile.authz import (
    GRPC_PROVIDER,
    HOST,
    HTTP_PROVIDER,
    http_filters,
    policy,
    rules_of,
    tcp_filters,
    world_of,
)

RULE = "ns[foo]-policy[p]-rule[0]"


def config(item: Any) -> dict[str, Any]:
    found: dict[str, Any] = {key: value for key, value in item["typed_config"].items() if key != "@type"}
    return found


def permission(rule: str) -> Any:
    """What a rule's only permission asks for."""
    compiled: Any = rules_of(http_filters(world_of(policy(f"rules: [{{{rule}}}]"))))[RULE]
    (found,) = compiled["permissions"]
    return found["and_rules"]["rules"]


def principal(rule: str, *, trust: Trust | None = None) -> Any:
    compiled: Any = rules_of(http_filters(world_of(policy(f"rules: [{{{rule}}}]"), trust=trust)))[RULE]
    (found,) = compiled["principals"]
    return found["and_ids"]["ids"]


def names(rule: str, *, trust: Trust | None = None) -> list[Any]:
    """The matchers on the peer's identity of a rule."""
    return [item["authenticated"]["principal_name"] for item in principal(rule, trust=trust)[0]["or_ids"]["ids"]]


# --- which policies, in which order


def test_without_policies_there_are_no_filters() -> None:
    world = world_of(policy("", namespace="bar"))
    assert http_filters(world) == []
    assert tcp_filters(world) == []
    assert len(http_filters(world, namespace="bar")) == 1


def test_policies_of_the_root_and_of_the_own_namespace_hold_if_they_select_the_workload() -> None:
    """Also those of the root namespace may select."""
    world = world_of(
        policy("rules: [{}]", "everywhere", namespace="istio-system"),
        policy("selector: {matchLabels: {app: httpbin}}, rules: [{}]", "chosen", namespace="istio-system"),
        policy("selector: {matchLabels: {app: other}}, rules: [{}]", "other", namespace="istio-system"),
        policy("selector: {matchLabels: {app: httpbin, version: v2}}, rules: [{}]", "newer"),
        policy("rules: [{}]", "foreign", namespace="bar"),
        policy("rules: [{}]", "own"),
    )
    assert list(rules_of(http_filters(world))) == [
        "ns[foo]-policy[own]-rule[0]",
        "ns[istio-system]-policy[chosen]-rule[0]",
        "ns[istio-system]-policy[everywhere]-rule[0]",
    ]


def test_order_of_the_actions() -> None:
    """I15: CUSTOM, AUDIT, DENY, ALLOW; one filter for all policies of an action."""
    world = world_of(
        GRPC_PROVIDER,
        policy("rules: [{}]", "a"),
        policy("rules: [{}]", "a2"),
        policy("rules: [{}]", "b", action="DENY"),
        policy("rules: [{}]", "c", action="AUDIT"),
        policy("provider: {name: default}, rules: [{}]", "d", action="CUSTOM"),
    )
    filters = http_filters(world)
    assert [item["name"] for item in filters] == [
        "envoy.filters.http.rbac",
        "envoy.filters.http.ext_authz",
        *["envoy.filters.http.rbac"] * 3,
    ]
    assert [config(item).get("rules", {}).get("action", "ALLOW") for item in filters[2:]] == ["LOG", "DENY", "ALLOW"]
    assert sorted(rules_of(filters, 4)) == ["ns[foo]-policy[a2]-rule[0]", "ns[foo]-policy[a]-rule[0]"]


@pytest.mark.parametrize("action", ["ALLOW", "DENY", "AUDIT"])
def test_I15_a_rule_that_says_nothing_matches_everything(action: str) -> None:
    empty = rules_of(http_filters(world_of(policy("rules: [{}]", action=action))))[RULE]
    assert empty == {
        "permissions": [{"and_rules": {"rules": [{"any": True}]}}],
        "principals": [{"and_ids": {"ids": [{"any": True}]}}],
    }


@pytest.mark.parametrize("action", ["ALLOW", "AUDIT"])
def test_I15_no_rules_match_nothing(action: str) -> None:
    """A DENY without rules is refused: it would look as if it denied something."""
    none = rules_of(http_filters(world_of(policy("", action=action))))[RULE]
    assert none == {"permissions": [{"not_rule": {"any": True}}], "principals": [{"not_id": {"any": True}}]}


# --- dry run

DRY = '{istio.io/dry-run: "true"}'


@pytest.mark.parametrize(("action", "prefix"), [("ALLOW", "istio_dry_run_allow_"), ("DENY", "istio_dry_run_deny_")])
def test_a_dry_run_is_evaluated_and_not_enforced(action: str, prefix: str) -> None:
    (item,) = http_filters(world_of(policy("rules: [{}]", action=action, annotations=DRY)))
    assert "rules" not in config(item)
    assert list(config(item)["shadow_rules"]["policies"]) == [RULE]
    assert config(item)["shadow_rules_stat_prefix"] == prefix


def test_dry_runs_beside_enforced_policies() -> None:
    world = world_of(
        policy("rules: [{}]", "a", annotations=DRY),
        policy("rules: [{}]", "b", annotations='{istio.io/dry-run: "false"}'),
        policy("rules: [{}]", "c", action="DENY"),
        policy("rules: [{}]", "d", action="DENY", annotations='{istio.io/dry-run: "T"}'),
    )
    deny, allow = http_filters(world)
    assert [list(config(item)["rules"]["policies"]) for item in (deny, allow)] == [
        ["ns[foo]-policy[c]-rule[0]"],
        ["ns[foo]-policy[b]-rule[0]"],
    ]
    assert list(config(deny)["shadow_rules"]["policies"]) == ["ns[foo]-policy[d]-rule[0]"]
    assert config(deny)["shadow_rules_stat_prefix"] == "istio_dry_run_deny_"
    tcp_deny, tcp_allow = tcp_filters(world)
    assert all("shadow_rules" in config(item) for item in (tcp_deny, tcp_allow))


def test_without_dry_runs_the_prefix_is_that_of_allow() -> None:
    """As Istio writes it, whatever the action."""
    for action in ("ALLOW", "DENY", "AUDIT"):
        (item,) = http_filters(world_of(policy("rules: [{}]", action=action)))
        assert config(item)["shadow_rules_stat_prefix"] == "istio_dry_run_allow_"


# --- external authorizers


def custom(provider: str = "default", name: str = "p") -> str:
    return policy(f"provider: {{name: {provider}}}, rules: [{{to: [{{operation: {{paths: [/a]}}}}]}}]", name, action="CUSTOM")


def test_grpc_authorizer() -> None:
    rbac, asking = http_filters(world_of(GRPC_PROVIDER, custom()))
    assert list(config(rbac)["shadow_rules"]["policies"]) == [f"istio-ext-authz-default-{RULE}"]
    assert config(rbac)["shadow_rules"]["action"] == "DENY"
    assert config(rbac)["shadow_rules_stat_prefix"] == "istio_ext_authz_"
    assert config(asking) == {
        "grpc_service": {
            "envoy_grpc": {"cluster_name": f"outbound|9000||{HOST}", "authority": HOST},
            "timeout": "0.002s",
        },
        "transport_api_version": "V3",
        "failure_mode_allow": True,
        "with_request_body": {"max_request_bytes": 4096, "allow_partial_message": True},
        "status_on_error": {"code": "Forbidden"},
        "filter_enabled_metadata": {
            "filter": "envoy.filters.http.rbac",
            "path": [{"key": "istio_ext_authz_shadow_effective_policy_id"}],
            "value": {"string_match": {"prefix": "istio-ext-authz-default"}},
        },
    }


def test_http_authorizer() -> None:
    _, asking = http_filters(world_of(HTTP_PROVIDER, custom()))
    patterns = [
        {"prefix": "x-prefix-", "ignore_case": True},
        {"suffix": "-suffix", "ignore_case": True},
    ]
    cookie, authorization = ({"exact": name, "ignore_case": True} for name in ("Set-cookie", "Authorization"))
    found = config(asking)
    assert found["http_service"] == {
        "server_uri": {"uri": f"http://{HOST}", "cluster": f"outbound|9000||{HOST}", "timeout": "10s"},
        "path_prefix": "/check",
        "authorization_request": {
            "headers_to_add": [{"key": "x-header-1", "value": "value-1"}, {"key": "x-header-2", "value": "value-2"}]
        },
        "authorization_response": {
            "allowed_upstream_headers": {"patterns": [authorization, *patterns]},
            "allowed_client_headers": {"patterns": [cookie, *patterns]},
            "allowed_client_headers_on_success": {"patterns": [cookie]},
        },
    }
    assert found["allowed_headers"] == {"patterns": [{"exact": "x-custom-id", "ignore_case": True}, *patterns]}
    assert found["with_request_body"]["pack_as_bytes"] is True


def test_what_an_authorizer_has_unless_it_is_said() -> None:
    text = GRPC_PROVIDER[: GRPC_PROVIDER.index("      timeout")].replace("foo/", "")
    _, asking = http_filters(world_of(text, custom()))
    assert config(asking)["grpc_service"]["timeout"] == "600s"
    assert {"status_on_error", "with_request_body", "failure_mode_allow"}.isdisjoint(config(asking))


def test_authorizers_of_connections_are_asked_over_grpc() -> None:
    rbac, asking = tcp_filters(world_of(GRPC_PROVIDER, custom()))
    assert config(rbac)["shadow_rules"]["policies"][f"istio-ext-authz-default-{RULE}"]["permissions"] == [
        {"and_rules": {"rules": [{"any": True}]}}
    ]
    assert asking["name"] == "envoy.filters.network.ext_authz"
    assert tcp_filters(world_of(HTTP_PROVIDER, custom())) == []


@pytest.mark.parametrize(
    ("mesh", "authorizer"),
    [
        (None, True),  # no provider at all
        (GRPC_PROVIDER.replace("name: default", "name: other"), True),
        (GRPC_PROVIDER, False),  # its service does not exist
        (GRPC_PROVIDER.replace("foo/", "bar/"), True),  # ... in that namespace
    ],
)
def test_what_cannot_be_asked_is_refused(mesh: str | None, authorizer: bool) -> None:
    world = world_of(*([mesh] if mesh else []), custom(), authorizer=authorizer)
    for filters in (http_filters(world), tcp_filters(world)):
        (item,) = filters
        assert config(item)["rules"]["action"] == "DENY"
        assert list(config(item)["rules"]["policies"]) == [f"istio-ext-authz-default-{RULE}-deny-due-to-bad-CUSTOM-action"]
        assert "shadow_rules" not in config(item)


def test_several_authorizers_on_one_workload_refuse() -> None:
    filters = http_filters(world_of(GRPC_PROVIDER, custom(name="a"), custom("another", "b")))
    assert [list(config(item)["rules"]["policies"]) for item in filters] == [
        ["istio-ext-authz-another-ns[foo]-policy[b]-rule[0]-deny-due-to-bad-CUSTOM-action"],
        ["istio-ext-authz-default-ns[foo]-policy[a]-rule[0]-deny-due-to-bad-CUSTOM-action"],
    ]


# --- gRPC's own servers


def test_grpc_servers_get_what_they_understand_and_refuse_what_they_cannot_ask() -> None:
    """H15: names of headers in lower case."""
    world = world_of(
        GRPC_PROVIDER,
        custom(name="d"),
        policy("rules: [{}]", "c", action="AUDIT"),
        policy("rules: [{}]", "e", annotations=DRY),
        policy("rules: [{when: [{key: 'request.headers[X-Role]', values: [admin]}]}]", "b", action="DENY"),
        policy("rules: [{}]", "a"),
    )
    filters = http_filters(world, flavour="grpc")
    assert [item["name"] for item in filters] == [
        "envoy.filters.http.rbac.istio-ext-authz-default",
        "envoy.filters.http.rbac.DENY",
        "envoy.filters.http.rbac",
    ]
    assert all("shadow_rules" not in config(item) for item in filters)
    denied: Any = rules_of(filters, 1)["ns[foo]-policy[b]-rule[0]"]
    assert denied["principals"][0]["and_ids"]["ids"][0]["or_ids"]["ids"][0]["header"]["name"] == "x-role"


# --- identities


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("*", {"safe_regex": {"regex": ".+"}}),
        ("a/ns/b/sa/c", {"exact": "spiffe://a/ns/b/sa/c"}),
        ("a/ns/b/*", {"prefix": "spiffe://a/ns/b/"}),
        ("*/ns/b/sa/c", {"safe_regex": {"regex": "spiffe://.*/ns/b/sa/c"}}),
        ("*/sa/a.b+[c]", {"safe_regex": {"regex": r"spiffe://.*/sa/a\.b\+\[c\]"}}),
        ("a*b", {"exact": "spiffe://a*b"}),
    ],
)
def test_principals(value: str, expected: Any) -> None:
    """I12: a suffix is an expression, in which nothing but the asterisk is special."""
    assert names(f"from: [{{source: {{principals: ['{value}']}}}}]") == [expected]


@pytest.mark.parametrize(
    ("field", "value", "regex"),
    [
        ("namespaces", "a.b", r".*/ns/a\.b/.*"),
        ("namespaces", "*a*", ".*/ns/.*a.*/.*"),
        ("serviceAccounts", "ns/cert-manager.io", r"spiffe://.+/ns/ns/(.+/|)sa/cert-manager\.io(/.+)?"),
        ("serviceAccounts", "sa", "spiffe://.+/ns/foo/(.+/|)sa/sa(/.+)?"),
        ("trustDomains", "a*.b", r"spiffe://a[^/]*\.b/.*"),
        ("trustDomains", "*.b", r"spiffe://[^/]*\.b/.*"),
    ],
)
def test_I13_nothing_in_a_name_is_special(field: str, value: str, regex: str) -> None:
    assert names(f"from: [{{source: {{{field}: ['{value}']}}}}]") == [{"safe_regex": {"regex": regex}}]


def test_trust_domains() -> None:
    assert names("from: [{source: {trustDomains: ['*', a]}}]") == [{"prefix": "spiffe://"}, {"prefix": "spiffe://a/"}]


ALIASES = Trust("td2", ("td1", "some-td"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("td1/ns/b/sa/c", ["td2/ns/b/sa/c", "td1/ns/b/sa/c", "some-td/ns/b/sa/c"]),
        ("cluster.local/ns/b/sa/c", ["td2/ns/b/sa/c", "td1/ns/b/sa/c", "some-td/ns/b/sa/c"]),
        ("other/ns/b/sa/c", ["other/ns/b/sa/c"]),
        ("td1/ns/b", ["td1/ns/b"]),
        ("td1*/ns/b/sa/c", ["td1*/ns/b/sa/c"]),
        ("td1/ns/b/sa/c/d", ["td1/ns/b/sa/c/d"]),
    ],
)
def test_I14_principals_hold_under_every_name_of_the_trust_domain(value: str, expected: list[str]) -> None:
    found = names(f"from: [{{source: {{principals: ['{value}']}}}}]", trust=ALIASES)
    assert found == [{"exact": f"spiffe://{name}"} for name in expected]
    negated = principal(f"from: [{{source: {{notPrincipals: ['{value}']}}}}]", trust=ALIASES)
    assert len(negated[0]["not_id"]["or_ids"]["ids"]) == len(expected)


def test_I14_wildcards_of_the_trust_domain() -> None:
    """``*-td`` covers one of the names; ``*`` all of them, so nothing is put beside it."""
    suffix = names("from: [{source: {principals: ['*-td/ns/b/sa/c']}}]", trust=ALIASES)
    assert suffix == [
        {"exact": "spiffe://td2/ns/b/sa/c"},
        {"exact": "spiffe://td1/ns/b/sa/c"},
        {"safe_regex": {"regex": "spiffe://.*-td/ns/b/sa/c"}},
    ]
    assert names("from: [{source: {principals: ['*/ns/b/sa/c']}}]", trust=ALIASES) == [
        {"safe_regex": {"regex": "spiffe://.*/ns/b/sa/c"}}
    ]


def test_I14_trust_domains_and_conditions_too() -> None:
    prefixes = [{"prefix": f"spiffe://{name}/"} for name in ("td2", "td1", "some-td")]
    assert names("from: [{source: {trustDomains: [td1]}}]", trust=ALIASES) == prefixes
    assert names("when: [{key: source.trustDomain, values: [td2]}]", trust=ALIASES) == prefixes
    assert len(names("when: [{key: source.principal, values: [td1/ns/b/sa/c]}]", trust=ALIASES)) == 3


# --- tokens


@pytest.mark.parametrize(
    ("value", "issuer", "subject"),
    [
        ("*", {"safe_regex": {"regex": ".+"}}, {"safe_regex": {"regex": ".+"}}),
        ("https://a/b", {"exact": "https://a"}, {"exact": "b"}),
        ("https://a/*", {"exact": "https://a"}, {"safe_regex": {"regex": ".+"}}),
        ("https://a/b*", {"exact": "https://a"}, {"prefix": "b"}),
        ("a*", {"prefix": "a"}, {"safe_regex": {"regex": ".+"}}),
        ("*/b", {"safe_regex": {"regex": ".+"}}, {"exact": "b"}),
        ("*a/b", {"suffix": "a"}, {"exact": "b"}),
        ("*b", {"safe_regex": {"regex": ".+"}}, {"suffix": "b"}),
        ("*a/b*", {"suffix": "a"}, {"exact": "b*"}),
        ("a*b/c", {"exact": "a*b"}, {"exact": "c"}),
        ("a", {"exact": "a"}, {"exact": ""}),
    ],
)
def test_request_principals_are_issuer_and_subject(value: str, issuer: Any, subject: Any) -> None:
    ((found,),) = [item["or_ids"]["ids"] for item in principal(f"from: [{{source: {{requestPrincipals: ['{value}']}}}}]")]
    iss, sub = (item["metadata"] for item in found["and_ids"]["ids"])
    assert [step["key"] for step in iss["path"]] == ["payload", "iss"]
    assert [step["key"] for step in sub["path"]] == ["payload", "sub"]
    assert (iss["value"]["string_match"], sub["value"]["string_match"]) == (issuer, subject)


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("request.auth.audiences", ["aud"]),
        ("request.auth.presenter", ["azp"]),
        ("request.auth.claims[a]", ["a"]),
        ("request.auth.claims[a][b.c]", ["a", "b.c"]),
        ("request.auth.claims[a]b[c]", ["a]b[c"]),
    ],
)
def test_claims_are_values_or_lists_with_one(key: str, path: list[str]) -> None:
    (found,) = principal(f"when: [{{key: '{key}', values: [x]}}]")
    assert found["metadata"] == {
        "filter": "envoy.filters.http.jwt_authn",
        "path": [{"key": step} for step in ("payload", *path)],
        "value": {
            "or_match": {
                "value_matchers": [
                    {"list_match": {"one_of": {"string_match": {"exact": "x"}}}},
                    {"string_match": {"exact": "x"}},
                ]
            }
        },
    }


# --- operations and conditions


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("hosts: ['*']", {"header": {"name": ":authority", "present_match": True}}),
        ("hosts: [A.com]", {"header": {"name": ":authority", "string_match": {"exact": "A.com", "ignore_case": True}}}),
        ("methods: ['P*']", {"header": {"name": ":method", "string_match": {"prefix": "P"}}}),
        ("paths: ['*']", {"url_path": {"path": {"safe_regex": {"regex": ".+"}}}}),
        ("paths: ['*.html']", {"url_path": {"path": {"suffix": ".html"}}}),
        ("ports: ['080']", {"destination_port": 80}),
    ],
)
def test_operations(rule: str, expected: Any) -> None:
    assert permission(f"to: [{{operation: {{{rule}}}}}]") == [{"or_rules": {"rules": [expected]}}]


def test_path_templates() -> None:
    (found,) = permission("to: [{operation: {paths: ['/a/{*}/b/{**}']}}]")
    template = found["or_rules"]["rules"][0]["uri_template"]
    assert template["name"] == "uri-template"
    assert template["typed_config"]["path_template"] == "/a/*/b/**"


@pytest.mark.parametrize(
    ("value", "address", "length"),
    [("10.0.0.1", "10.0.0.1", 32), ("10.1.2.3/8", "10.1.2.3", 8), ("::1", "::1", 128), ("FD00::/8", "fd00::", 8)],
)
def test_addresses(value: str, address: str, length: int) -> None:
    block = {"address_prefix": address, "prefix_len": length}
    assert permission(f"when: [{{key: destination.ip, values: ['{value}']}}]")[0]["or_rules"]["rules"] == [
        {"destination_ip": block}
    ]
    assert principal(f"from: [{{source: {{ipBlocks: ['{value}']}}}}]")[0]["or_ids"]["ids"] == [{"direct_remote_ip": block}]
    assert principal(f"when: [{{key: remote.ip, values: ['{value}']}}]")[0]["or_ids"]["ids"] == [{"remote_ip": block}]


def test_metadata_of_other_filters() -> None:
    (one,) = permission("when: [{key: 'experimental.envoy.filters.a.b[c]', values: ['[x]']}]")
    assert one["metadata"]["value"] == {"list_match": {"one_of": {"string_match": {"exact": "x"}}}}
    (two,) = permission("when: [{key: 'experimental.envoy.filters.a.b[c]', values: [x, y*]}]")
    assert two["metadata"]["value"]["or_match"]["value_matchers"] == [
        {"string_match": {"exact": "x"}},
        {"string_match": {"prefix": "y"}},
    ]


def test_conditions_hold_for_each_source_and_each_operation() -> None:
    compiled: Any = rules_of(
        http_filters(
            world_of(
                policy(
                    "rules: [{from: [{source: {namespaces: [a]}}, {source: {namespaces: [b]}}],"
                    " to: [{operation: {methods: [GET]}}, {operation: {methods: [PUT]}}],"
                    " when: [{key: 'request.headers[x]', notValues: [y]}, {key: destination.port, values: ['80']}]}]"
                )
            )
        )
    )[RULE]
    assert [len(item["and_ids"]["ids"]) for item in compiled["principals"]] == [2, 2]
    assert [list(item["and_ids"]["ids"][1]) for item in compiled["principals"]] == [["not_id"], ["not_id"]]
    assert [len(item["and_rules"]["rules"]) for item in compiled["permissions"]] == [2, 2]


@pytest.mark.parametrize("field", ["targetRef: {kind: Gateway, name: g}", "targetRefs: [{kind: Service, name: httpbin}]"])
def test_policies_for_gateways_are_enforced_by_no_workload(field: str) -> None:
    """Not by all of them either: without targets the same policy has no selector."""
    attached = world(policy(f"{field}, rules: []"))
    assert [*http_filters(attached), *tcp_filters(attached)] == []
    everybodys = world(policy("rules: []"))
    assert (len(http_filters(everybodys)), len(tcp_filters(everybodys))) == (1, 1)


# --- TCP


@pytest.mark.parametrize(
    "rule",
    [
        "to: [{operation: {methods: [GET]}}]",
        "to: [{operation: {notHosts: [a]}}]",
        "to: [{operation: {paths: [/a], ports: ['80']}}]",
        "from: [{source: {requestPrincipals: [a]}}]",
        "when: [{key: 'request.headers[x]', values: [y]}]",
        "when: [{key: 'request.auth.claims[x]', notValues: [y]}]",
        "when: [{key: request.auth.audiences, values: [y]}]",
    ],
)
def test_I16_what_asks_for_a_request_never_allows_a_connection_and_denies_more(rule: str) -> None:
    (allow,) = tcp_filters(world_of(policy(f"rules: [{{{rule}}}]")))
    assert config(allow)["rules"] == {}  # ALLOW of nothing: refuses everything
    assert config(allow)["stat_prefix"] == "tcp."
    (deny,) = tcp_filters(world_of(policy(f"rules: [{{{rule}}}]", action="DENY")))
    kept: Any = config(deny)["rules"]["policies"][RULE]
    asked = [kept["permissions"][0]["and_rules"]["rules"], kept["principals"][0]["and_ids"]["ids"]]
    expected = [{"or_rules": {"rules": [{"destination_port": 80}]}}] if "ports" in rule else [{"any": True}]
    assert asked == [expected, [{"any": True}]]
