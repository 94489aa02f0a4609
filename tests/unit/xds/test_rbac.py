"""RBAC is read in full or refused: what is left out of a policy makes it another one (I17, GHSA-hrxh-6v49-42gf)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.json_format import ParseDict

from meshlib.model.authorization import (
    Action,
    Address,
    AllOf,
    Always,
    AnyOf,
    Authenticated,
    DestinationPort,
    Header,
    IpBlock,
    Matcher,
    MetadataMatch,
    Not,
    RbacFilter,
    RequestedServerName,
    UriTemplate,
    UrlPath,
    ValueMatch,
)
from meshlib.model.route import HeaderMatch, StringMatch
from meshlib.xds.fields import parse
from meshlib.xds.invalid import Problems
from meshlib.xds.json import from_json
from meshlib.xds.proto import rbac_pb2
from meshlib.xds.rbac import decode_rbac
from meshlib.xds.types import pack

Json = dict[str, Any]

ANY: Json = {"any": True}
REGEX = {"safe_regex": {"regex": "a.*"}}


def decode(message: rbac_pb2.HttpRBAC) -> tuple[RbacFilter, list[str]]:
    problems = Problems()
    return decode_rbac(message, "rbac", problems, field="f"), [str(problem) for problem in problems.found]


def with_rules(rules: Json) -> tuple[RbacFilter, list[str]]:
    return decode(ParseDict({"rules": rules}, rbac_pb2.HttpRBAC()))


def permission(rule: Json) -> tuple[Matcher, list[str]]:
    found, problems = with_rules({"policies": {"p": {"permissions": [rule], "principals": [ANY]}}})
    assert found.rules is not None
    permissions = found.rules.policies[0].permission
    assert isinstance(permissions, AnyOf)
    return permissions.of[0], problems


def principal(identifier: Json) -> tuple[Matcher, list[str]]:
    found, problems = with_rules({"policies": {"p": {"permissions": [ANY], "principals": [identifier]}}})
    assert found.rules is not None
    principals = found.rules.policies[0].principal
    assert isinstance(principals, AnyOf)
    return principals.of[0], problems


def template(text: str) -> Json:
    message = rbac_pb2.Permission()
    message.uri_template.name = "uri_template"
    message.uri_template.typed_config.CopyFrom(pack(rbac_pb2.UriTemplateMatchConfig(path_template=text)))
    return {"uri_template": message}


A = StringMatch("exact", "a")
BOTH: list[tuple[Json, Matcher]] = [
    (ANY, Always()),
    ({"header": {"name": "x-a", "string_match": {"exact": "a"}}}, Header(HeaderMatch("x-a", A))),
    ({"header": {"name": "X-A", "present_match": True}}, Header(HeaderMatch("x-a", present=True))),
    ({"header": {"name": ":method", "string_match": {"exact": "a"}}}, Header(HeaderMatch(":method", A))),
    ({"header": {"name": ":authority", "string_match": REGEX}}, Header(HeaderMatch(":authority", StringMatch("regex", "a.*")))),
    ({"header": {"name": "x", "range_match": {"start": 1, "end": 5}}}, Header(HeaderMatch("x", range=(1, 5)))),
    ({"header": {"name": "x"}}, Header(HeaderMatch("x", present=True))),
    (
        {"header": {"name": "x", "string_match": {"exact": "a"}, "invert_match": True}},
        Header(HeaderMatch("x", A, invert=True)),
    ),
    ({"url_path": {"path": {"prefix": "/a", "ignore_case": True}}}, UrlPath(StringMatch("prefix", "/a", ignore_case=True))),
    (
        {"metadata": {"filter": "f", "path": [{"key": "a"}, {"key": "b"}], "value": {"string_match": {"exact": "a"}}}},
        MetadataMatch("f", ("a", "b"), ValueMatch(string=A)),
    ),
    (
        {"metadata": {"filter": "f", "path": [{"key": "a"}], "value": {"present_match": True}, "invert": True}},
        MetadataMatch("f", ("a",), ValueMatch(present=True), invert=True),
    ),
]
PERMISSIONS: list[tuple[Json, Matcher]] = [
    *BOTH,
    ({"and_rules": {"rules": [ANY, {"destination_port": 80}]}}, AllOf((Always(), DestinationPort(80)))),
    ({"or_rules": {"rules": [ANY]}}, AnyOf((Always(),))),
    ({"not_rule": ANY}, Not(Always())),
    ({"destination_ip": {"address_prefix": "10.1.2.3", "prefix_len": 8}}, IpBlock(Address.DESTINATION, "10.0.0.0/8")),
    ({"requested_server_name": {"exact": "a"}}, RequestedServerName(A)),
]
PRINCIPALS: list[tuple[Json, Matcher]] = [
    *BOTH,
    ({"and_ids": {"ids": [ANY]}}, AllOf((Always(),))),
    ({"or_ids": {"ids": [ANY, ANY]}}, AnyOf((Always(), Always()))),
    ({"not_id": ANY}, Not(Always())),
    ({"authenticated": {}}, Authenticated()),
    ({"authenticated": {"principal_name": {"exact": "spiffe://a"}}}, Authenticated(StringMatch("exact", "spiffe://a"))),
    ({"authenticated": {"principal_name": REGEX}}, Authenticated(StringMatch("regex", "a.*"))),
    ({"direct_remote_ip": {"address_prefix": "::1", "prefix_len": 128}}, IpBlock(Address.DIRECT_REMOTE, "::1/128")),
    ({"source_ip": {"address_prefix": "10.0.0.1", "prefix_len": 32}}, IpBlock(Address.DIRECT_REMOTE, "10.0.0.1/32")),
    ({"remote_ip": {"address_prefix": "0.0.0.0"}}, IpBlock(Address.REMOTE, "0.0.0.0/0")),
]


@pytest.mark.parametrize(("rule", "expected"), PERMISSIONS, ids=str)
def test_permissions(rule: Json, expected: Matcher) -> None:
    assert permission(rule) == (expected, [])


@pytest.mark.parametrize(("identifier", "expected"), PRINCIPALS, ids=str)
def test_principals(identifier: Json, expected: Matcher) -> None:
    assert principal(identifier) == (expected, [])


@pytest.mark.parametrize("text", ["/a/*", "/a/*/b/**", "/**/a", "/", "/a/", "/a-b_c.d~%20!$&'()+,;:@=/*"])
def test_uri_templates(text: str) -> None:
    message = rbac_pb2.HttpRBAC()
    policy = message.rules.policies["p"]
    policy.permissions.append(template(text)["uri_template"])
    policy.principals.add(any=True)
    found, problems = decode(message)
    assert problems == []
    assert found.rules is not None
    assert found.rules.policies[0].permission == AnyOf((UriTemplate(text),))


@pytest.mark.parametrize("text", ["", "a", "/a*", "/{x}", "/{x=*}", "/**/*", "/**/**", "/a//b", "/a b", "/***", "/a?b"])
def test_I17_templates_that_are_none(text: str) -> None:
    message = rbac_pb2.HttpRBAC()
    policy = message.rules.policies["p"]
    policy.permissions.append(template(text)["uri_template"])
    policy.principals.add(any=True)
    assert len(decode(message)[1]) == 1


UNKNOWN: dict[str, Json] = {
    "no matcher": {},
    "any false": {"any": False},
    "unsupported matcher": {"matcher": {"name": "envoy.rbac.matchers.upstream_ip_port"}},
    "empty and": {"and_rules": {}},
    "empty or": {"or_rules": {}},
    "port": {"destination_port": 70000},
    "address": {"destination_ip": {"address_prefix": "10.0.0", "prefix_len": 8}},
    "prefix length": {"destination_ip": {"address_prefix": "10.0.0.0", "prefix_len": 33}},
    "no path": {"url_path": {}},
    "empty prefix": {"url_path": {"path": {"prefix": ""}}},
    "regex": {"url_path": {"path": {"safe_regex": {"regex": "("}}}},
    "backreference": {"url_path": {"path": {"safe_regex": {"regex": r"(a)\1"}}}},
    "header without a name": {"header": {"name": ""}},
    "header name": {"header": {"name": "x role"}},
    "H15 scheme": {"header": {"name": ":SCHEME", "string_match": {"exact": "a"}}},
    "H15 grpc": {"header": {"name": "GRPC-Foo", "string_match": {"exact": "a"}}},
    "pseudo header": {"header": {"name": ":status", "present_match": True}},
    "metadata without a filter": {"metadata": {"path": [{"key": "a"}], "value": {"present_match": True}}},
    "metadata without a path": {"metadata": {"filter": "f", "value": {"present_match": True}}},
    "metadata with an empty key": {"metadata": {"filter": "f", "path": [{"key": ""}], "value": {"present_match": True}}},
    "metadata without a value": {"metadata": {"filter": "f", "path": [{"key": "a"}]}},
    "metadata with an empty value": {"metadata": {"filter": "f", "path": [{"key": "a"}], "value": {}}},
    "empty list match": {"metadata": {"filter": "f", "path": [{"key": "a"}], "value": {"list_match": {}}}},
    "or of one": {
        "metadata": {"filter": "f", "path": [{"key": "a"}], "value": {"or_match": {"value_matchers": [{"null_match": {}}]}}}
    },
    "number range": {"metadata": {"filter": "f", "path": [{"key": "a"}], "value": {"double_match": {}}}},
    "server name": {"requested_server_name": {}},
}
WRAPPED: dict[str, Callable[[Json], Json]] = {
    "alone": lambda rule: rule,
    "negated": lambda rule: {"not_rule": rule},
    "in and": lambda rule: {"and_rules": {"rules": [ANY, rule]}},
    "in or": lambda rule: {"or_rules": {"rules": [ANY, rule]}},
    "deep": lambda rule: {"not_rule": {"and_rules": {"rules": [{"or_rules": {"rules": [rule]}}, ANY]}}},
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("case", UNKNOWN)
def test_I17_what_is_not_understood_is_refused_wherever_it_stands(case: str, wrap: Callable[[Json], Json]) -> None:
    problems_found = permission(wrap(UNKNOWN[case]))[1]
    assert len(problems_found) == 1
    assert problems_found[0].startswith("f.rules.policies['p'].permissions[0]")
    assert permission(wrap(ANY))[1] == []


def test_I17_a_template_of_another_kind() -> None:
    rule = rbac_pb2.Permission()
    rule.uri_template.typed_config.CopyFrom(pack(rbac_pb2.RBAC()))
    policy = rbac_pb2.Policy(permissions=[rule], principals=[rbac_pb2.Principal(any=True)])
    assert len(decode(rbac_pb2.HttpRBAC(rules=rbac_pb2.RBAC(policies={"p": policy})))[1]) == 1


@pytest.mark.parametrize(
    "identifier",
    [
        {},
        {"any": False},
        {"filter_state": {"key": "io.istio.peer_principal", "string_match": {"exact": "a"}}},
        {"and_ids": {}},
        {"authenticated": {"principal_name": {}}},
        {"authenticated": {"principal_name": {"exact": "reviews.default"}}},
        {"authenticated": {"principal_name": {"prefix": "http://"}}},
        {"remote_ip": {}},
        {"not_id": {"filter_state": {"key": "x", "string_match": {"exact": "a"}}}},
    ],
    ids=str,
)
def test_I17_principals_that_are_not_understood(identifier: Json) -> None:
    assert principal(identifier)[1]


def test_a_prefix_of_every_identity_is_one() -> None:
    assert principal({"authenticated": {"principal_name": {"prefix": "spiffe:"}}})[1] == []


@pytest.mark.parametrize(("length", "problems"), [(1024, 0), (1025, 1)])
def test_P22_expressions_have_a_longest(length: int, problems: int) -> None:
    rule = {"safe_regex": {"regex": "a" * length}}
    assert len(permission({"url_path": {"path": rule}})[1]) == problems
    assert len(permission({"header": {"name": "x", "string_match": rule}})[1]) == problems
    assert len(principal({"authenticated": {"principal_name": rule}})[1]) == problems


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ({"action": 7}, "f.rules.action: 7: expected ALLOW, DENY or LOG"),
        ({"policies": {"p": {"principals": [ANY]}}}, "f.rules.policies['p'].permissions: empty: expected at least one"),
        ({"policies": {"p": {"permissions": [ANY]}}}, "f.rules.policies['p'].principals: empty: expected at least one"),
    ],
)
def test_rules_that_are_none(rules: Json, problem: str) -> None:
    assert with_rules(rules)[1] == [problem]


def test_fields_that_our_messages_do_not_have_are_refused() -> None:
    """Such as a policy's condition, or a port range."""
    data = rbac_pb2.Permission(any=True).SerializeToString() + b"\x5a\x02\x08\x01"  # destination_port_range
    problems = Problems()
    parse(rbac_pb2.Permission, data, field="permission", problems=problems)
    expected = "permission: field number 11: expected only fields that this data plane knows"
    assert [str(found) for found in problems.found] == [expected]


def test_actions_shadow_rules_and_the_order_of_policies() -> None:
    policy = {"permissions": [ANY], "principals": [ANY]}
    message = ParseDict(
        {
            "rules": {"action": "DENY", "policies": dict.fromkeys(("b", "a", "é", "B", "😀", "\uffff"), policy)},
            "shadow_rules": {"action": "LOG"},
            "rules_stat_prefix": "x_",
            "shadow_rules_stat_prefix": "istio_dry_run_allow_",
        },
        rbac_pb2.HttpRBAC(),
    )
    found, problems = decode(message)
    assert problems == []
    assert found.rules is not None
    assert [item.name for item in found.rules.policies] == ["B", "a", "b", "é", "￿", "\U0001f600"]  # of bytes
    assert found.rules.action is Action.DENY
    assert found.shadow is not None
    assert (found.shadow.action, found.shadow.policies, found.shadow_prefix) == (Action.LOG, (), "istio_dry_run_allow_")
    assert decode(rbac_pb2.HttpRBAC())[0] == RbacFilter("rbac")


CORPUS = Path(__file__).parents[4] / "shared" / "corpora" / "authz" / "http"


@pytest.mark.skipif(not CORPUS.is_dir(), reason="Istio's test data are not beside this checkout")
def test_what_istio_writes_is_understood() -> None:
    """Every filter of the corpus, but for the deprecated matcher's own name."""
    read = 0
    for file in sorted(CORPUS.glob("*-out*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            if not document or not document["typedConfig"]["@type"].endswith("rbac.v3.RBAC"):
                continue
            message = from_json(document["typedConfig"])
            assert isinstance(message, rbac_pb2.HttpRBAC)
            assert decode(message)[1] == [], file.name
            read += 1
    assert read >= 6
