"""Claims decide: RequestAuthentication and AuthorizationPolicy from YAML to the answer, over the wire format of xDS."""

from __future__ import annotations

import time
from typing import Any

import pytest

from meshlib.flow.inbound import Step
from meshlib.policy.authorization import compile_rbac
from meshlib.policy.jwt import compile_jwt
from meshlib.xds.fields import unpack
from meshlib.xds.invalid import Problems
from meshlib.xds.jwt import decode_jwt
from meshlib.xds.proto import jwt_pb2, rbac_pb2
from meshlib.xds.rbac import decode_rbac
from meshlib_control.catalog.model import CatalogSnapshot
from meshlib_control.compile import World
from meshlib_control.compile.authentication import jwt_filters
from meshlib_control.compile.authorization import authorization_filters
from meshlib_control.compile.node import Node
from meshlib_control.compile.scope import scope_of
from meshlib_control.config import ConfigSet, load
from tests.support.tokens import bearer, ec_key, inspected, key_set

POLICIES = f"""\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: tokens, namespace: default}}
spec:
  jwtRules:
  - {{issuer: iss, jwks: '{key_set(ec_key())}', outputClaimToHeaders: [{{header: x-role, claim: role}}]}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: who, namespace: default}}
spec:
  rules:
  - from: [{{source: {{requestPrincipals: ["iss/me"]}}}}]
    when:
    - {{key: "request.auth.claims[scope]", values: [write]}}
    - {{key: "request.auth.claims[realm][roles]", values: [admin]}}
    - {{key: "request.auth.audiences", values: [shop]}}
    - {{key: "request.headers[x-role]", values: [boss]}}
"""
CLAIMS = {
    "iss": "iss",
    "sub": "me",
    "scope": "read write",
    "realm": {"roles": ["user", "admin"]},
    "aud": ["shop", "else"],
    "role": "boss",
}


@pytest.fixture(scope="module")
def steps() -> tuple[Step, Step]:
    """The two filters as a workload compiles them."""
    resources, findings = load([("policies.yaml", POLICIES)])
    assert findings == []
    world = World.of(ConfigSet(resources), CatalogSnapshot())
    scope = scope_of(world, Node())
    (tokens,), (rules,) = jwt_filters(world, scope), authorization_filters(world, scope)
    problems = Problems()
    token_message = unpack(tokens.typed_config, jwt_pb2.JwtAuthentication, field="", problems=problems)
    rules_message = unpack(rules.typed_config, rbac_pb2.HttpRBAC, field="", problems=problems)
    assert token_message is not None
    assert rules_message is not None
    authentication = compile_jwt(decode_jwt(token_message, tokens.name, problems, field=""), now=time.time)
    authorization = compile_rbac(decode_rbac(rules_message, rules.name, problems, field=""), port=80)
    assert not problems.found
    return authentication, authorization


@pytest.mark.parametrize(
    ("claims", "headers", "status"),
    [
        ({}, (), 200),
        ({"aud": "shop"}, (), 200),
        ({"realm": {"roles": "admin"}}, (), 200),
        ({"scope": "read"}, (), 403),
        ({"scope": ["read write"]}, (), 403),
        ({"realm": {"roles": ["user"]}}, (), 403),
        ({"realm": None}, (), 403),
        ({"sub": "you"}, (), 403),
        ({"aud": "else"}, (), 403),
        ({"role": "user"}, (("x-role", "boss"),), 403),  # J17: the client's own header is nobody's claim
        (None, (("x-role", "boss"),), 403),
        ({"iss": "else"}, (), 401),
    ],
)
def test_claims_decide(
    steps: tuple[Step, Step], claims: dict[str, Any] | None, headers: tuple[tuple[str, str], ...], status: int
) -> None:
    sent = () if claims is None else (bearer(ec_key().token({**CLAIMS, **claims})),)
    request = inspected(*sent, *headers)
    refusal = None
    for step in steps:
        refusal = refusal or step(request)
    assert (refusal.status if refusal else 200) == status
