"""jwt_authn as it comes over the wire: everything is understood or refused."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format

from meshlib.model.authentication import (
    AllowMissing,
    AllowMissingOrFailed,
    AllRequirements,
    AnyRequirement,
    JwtAuthentication,
    JwtProvider,
    Provider,
    Requirement,
)
from meshlib.xds.fields import parse
from meshlib.xds.invalid import Problems
from meshlib.xds.jwt import MAX_PROVIDERS, MAX_REQUIREMENTS, decode_jwt
from meshlib.xds.proto import jwt_pb2

LOCAL = {"local_jwks": {"inline_string": "{}"}}
P = {"provider_name": "p"}


def read(document: dict[str, Any]) -> tuple[JwtAuthentication, list[str]]:
    """The filter, and what is wrong with it."""
    message = json_format.ParseDict(document, jwt_pb2.JwtAuthentication())
    problems = Problems()
    found = decode_jwt(message, "jwt", problems, field="f")
    return found, [str(problem) for problem in problems.found]


def good(document: dict[str, Any]) -> JwtAuthentication:
    found, problems = read(document)
    assert problems == []
    return found


def with_provider(**fields: Any) -> dict[str, Any]:
    source = {} if {"local_jwks", "remote_jwks"} & fields.keys() else LOCAL
    return {"providers": {"p": {**source, **fields}}}


def with_requirement(requires: Any, match: Any = None) -> dict[str, Any]:
    rule = {"match": match or {"prefix": "/"}, "requires": requires}
    return {"providers": {"p": LOCAL, "q": LOCAL}, "rules": [rule]}


def test_a_provider_in_full() -> None:
    found = good(
        with_provider(
            issuer="issuer",
            audiences=["a", "b"],
            require_expiration=True,
            forward=True,
            from_headers=[{"name": "X-Jwt", "value_prefix": "JWT "}],
            from_params=["t"],
            from_cookies=["c"],
            forward_payload_header="X-Payload",
            pad_forward_payload_header=True,
            payload_in_metadata="payload",
            normalize_payload_in_metadata={"space_delimited_claims": ["scope"]},
            clock_skew_seconds=5,
            claim_to_headers=[{"header_name": "X-Sub", "claim_name": "a.b"}],
        )
    )
    assert found.providers["p"] == JwtProvider(
        "p",
        "issuer",
        ("a", "b"),
        jwks="{}",
        jwks_refresh=600.0,
        from_headers=(("x-jwt", "JWT "),),
        from_params=("t",),
        from_cookies=("c",),
        forward=True,
        payload_header="x-payload",
        pad_payload_header=True,
        claim_headers=(("x-sub", "a.b"),),
        clock_skew=5.0,
        space_delimited_claims=("scope",),
        require_expiration=True,
    )


def test_envoys_defaults_hold() -> None:
    found = good(with_provider())
    assert (found.requirement, found.bypass_cors_preflight) == (None, False)
    provider = found.providers["p"]
    assert (provider.clock_skew, provider.space_delimited_claims, provider.payload_in_metadata) == (60.0, (), "")
    assert (provider.forward, provider.require_expiration) == (False, False)


@pytest.mark.parametrize(
    ("source", "document"),
    [
        ({"inline_string": "x"}, "x"),
        ({"inline_string": ""}, ""),
        ({"inline_bytes": "eA=="}, "x"),
        ({"inline_bytes": "/w=="}, "\ufffd"),
    ],
)
def test_keys_inline(source: dict[str, str], document: str) -> None:
    assert good(with_provider(local_jwks=source)).providers["p"].jwks == document


def test_keys_by_address() -> None:
    uri = {"uri": "https://keys.test:8443/jwks?a=b", "cluster": "outbound|8443||keys.test", "timeout": "2s"}
    remote = {"http_uri": uri, "cache_duration": "300s", "async_fetch": {"fast_listener": True}}
    provider = good(with_provider(remote_jwks=remote)).providers["p"]
    assert (provider.jwks_uri, provider.jwks, provider.jwks_timeout, provider.jwks_refresh) == (uri["uri"], "", 2.0, 300.0)
    provider = good(with_provider(remote_jwks={"http_uri": {"uri": "http://keys.test", "timeout": "0s"}})).providers["p"]
    assert (provider.jwks_timeout, provider.jwks_refresh) == (5.0, 600.0)


ANY: dict[str, Any] = {"requires_any": {"requirements": [P, {"allow_missing": {}}]}}


@pytest.mark.parametrize(
    ("requires", "expected"),
    [
        (P, Provider("p")),
        ({"provider_and_audiences": {"provider_name": "p", "audiences": ["a"]}}, Provider("p", ("a",))),
        ({"allow_missing": {}}, AllowMissing()),
        ({"allow_missing_or_failed": {}}, AllowMissingOrFailed()),
        (ANY, AnyRequirement((Provider("p"), AllowMissing()))),
        (
            {"requires_all": {"requirements": [{"provider_name": "q"}, ANY]}},
            AllRequirements((Provider("q"), AnyRequirement((Provider("p"), AllowMissing())))),
        ),
    ],
)
def test_requirements(requires: dict[str, Any], expected: Requirement) -> None:
    assert good(with_requirement(requires)).requirement == expected
    assert good({**with_requirement(requires), "bypass_cors_preflight": True}).bypass_cors_preflight


NOT_UNDERSTOOD = {
    "keys from nowhere": ({"providers": {"p": {}}}, "f.providers['p']: no jwks_source_specifier"),
    "keys in a file": (with_provider(local_jwks={"filename": "/etc/keys"}), "local_jwks: filename"),
    "an empty source": (with_provider(local_jwks={}), "local_jwks: no specifier"),
    "an address of a file": (with_provider(remote_jwks={"http_uri": {"uri": "file:///etc/keys"}}), "http_uri.uri"),
    "an address without host": (with_provider(remote_jwks={"http_uri": {"uri": "https:///x"}}), "http_uri.uri"),
    "an address with a bad port": (with_provider(remote_jwks={"http_uri": {"uri": "https://a:b/"}}), "http_uri.uri"),
    "no address": (with_provider(remote_jwks={}), "http_uri.uri"),
    "a negative timeout": (with_provider(remote_jwks={"http_uri": {"uri": "https://a", "timeout": "-1s"}}), "http_uri.timeout"),
    "a longest life": (with_provider(max_lifetime="60s"), "f.providers['p'].max_lifetime"),
    "a header that is none": (with_provider(from_headers=[{"name": "a b"}]), "from_headers[0].name"),
    "a header without name": (with_provider(from_headers=[{"value_prefix": "x"}]), "from_headers[0].name"),
    "an output that is none": (with_provider(claim_to_headers=[{"header_name": "a:", "claim_name": "c"}]), "header_name"),
    "an output of nothing": (with_provider(claim_to_headers=[{"header_name": "a"}]), "claim_name"),
    "a payload header that is none": (with_provider(forward_payload_header="a b"), "forward_payload_header"),
    "a parameter without name": (with_provider(from_params=["a", ""]), "from_params"),
    "a cookie without name": (with_provider(from_cookies=[""]), "from_cookies"),
    "an unknown provider": (with_requirement({"provider_name": "x"}), "provider_name: 'x'"),
    "no requirement": (with_requirement({}), "no requires_type"),
    "a group of none": (with_requirement({"requires_any": {}}), "0 of them"),
    "a group of one": (with_requirement({"requires_all": {"requirements": [P]}}), "1 of them"),
    "some paths": (with_requirement(P, {"prefix": "/api"}), "match: some requests"),
    "one path": (with_requirement(P, {"path": "/"}), "match"),
    "some headers": (with_requirement(P, {"prefix": "/", "headers": [{"name": "a"}]}), "headers"),
    "a rule without requirement": ({"rules": [{"match": {"prefix": "/"}}]}, "rules[0]: no requires"),
    "several rules": ({"providers": {"p": LOCAL}, "rules": [{"match": {"prefix": "/"}, "requires": P}] * 2}, "2 rules"),
    "too many providers": ({"providers": {str(n): LOCAL for n in range(MAX_PROVIDERS + 1)}}, "257 of them"),
    "too many requirements": (with_requirement({"requires_any": {"requirements": [P] * MAX_REQUIREMENTS}}), "too many"),
}  # fmt: skip


@pytest.mark.parametrize(("document", "told"), NOT_UNDERSTOOD.values(), ids=NOT_UNDERSTOOD.keys())
def test_I17_what_is_not_understood_is_refused(document: dict[str, Any], told: str) -> None:
    _, problems = read(document)
    assert any(told in problem for problem in problems), problems


def test_I17_depth_is_bounded() -> None:
    requires: dict[str, Any] = P
    for _ in range(12):
        requires = {"requires_any": {"requirements": [requires, P]}}
    assert any("too many" in problem for problem in read(with_requirement(requires))[1])


def test_I17_fields_that_are_not_even_known_are_refused() -> None:
    problems = Problems()
    # JwtAuthentication.filter_state_rules = 3, of which our messages know nothing
    parse(jwt_pb2.JwtAuthentication, b"\x1a\x00", field="f", problems=problems)
    assert [problem.field for problem in problems.found] == ["f"]
