"""RequestAuthentications become the filter that Istio makes of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshlib.policy.jwt import compile_jwt
from meshlib.policy.jwt_keys import NO_KEYS
from meshlib.xds.fields import unpack
from meshlib.xds.invalid import Problems
from meshlib.xds.json import to_json
from meshlib.xds.jwt import decode_jwt
from meshlib.xds.proto import jwt_pb2
from meshlib_control.catalog.model import CatalogSnapshot
from meshlib_control.compile import World
from meshlib_control.compile.authentication import jwt_filters
from meshlib_control.compile.node import Flavour, Node
from meshlib_control.compile.scope import scope_of
from tests.support.configuring import config_set
from tests.support.tokens import bearer, ec_key, inspected, key_set

KEYS = key_set(ec_key())
DISCOVERED = "https://b.test/.well-known/openid-configuration"


def policy(*rules: str, name: str = "p", namespace: str = "foo", selector: str = "") -> str:
    spec = f"spec:\n  {selector}\n  jwtRules:\n" + "".join(f"  - {rule}\n" for rule in rules)
    metadata = f"metadata: {{name: {name}, namespace: {namespace}}}"
    return f"apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n{metadata}\n{spec}---\n"


def mesh(tokens: str) -> str:
    return f"apiVersion: meshlib.io/v1\nkind: MeshConfig\nmetadata: {{name: mesh}}\nspec: {{tokens: {tokens}}}\n---\n"


def world(*texts: str, jwks: dict[str, str] | None = None) -> World:
    return World.of(config_set(*texts), CatalogSnapshot(), jwks=jwks)


def compiled(world: World, flavour: Flavour = "meshlib", **labels: str) -> Any:
    """The filter as JSON; None: there is none."""
    scope = scope_of(world, Node(flavour, namespace="foo", labels=labels))
    found = jwt_filters(world, scope)
    if not found:
        return None
    (item,) = found
    assert item.name == "envoy.filters.http.jwt_authn"
    return to_json(item)["typed_config"]


def providers(found: Any) -> dict[str, Any]:
    items: dict[str, Any] = found["providers"]
    return items


def test_nothing_is_asked_for_where_nothing_is_said() -> None:
    assert compiled(world()) is None
    assert compiled(world(policy("{issuer: https://a}", namespace="bar"))) is None
    assert compiled(world(policy())) is None


def test_one_rule_is_exactly_istios() -> None:
    found = compiled(world(policy(f"{{issuer: https://a, jwks: '{KEYS}'}}")))
    assert found == {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        "providers": {
            "origins-0": {
                "issuer": "https://a",
                "local_jwks": {"inline_string": KEYS},
                "payload_in_metadata": "payload",
                "normalize_payload_in_metadata": {"space_delimited_claims": ["permission", "scope"]},
            }
        },
        "rules": [
            {
                "match": {"prefix": "/"},
                "requires": {"requires_any": {"requirements": [{"provider_name": "origins-0"}, {"allow_missing": {}}]}},
            }
        ],
        "bypass_cors_preflight": True,
    }


def test_every_field_of_a_rule() -> None:
    rule = f"""{{issuer: https://a, audiences: [x, y], jwks: '{KEYS}', fromParams: [t], fromCookies: [c],
      fromHeaders: [{{name: X-Jwt, prefix: "JWT "}}, {{name: x}}], outputPayloadToHeader: x-payload, forwardOriginalToken: true,
      outputClaimToHeaders: [{{header: x-sub, claim: a.b}}], spaceDelimitedClaims: [roles, scope]}}"""
    assert providers(compiled(world(policy(rule))))["origins-0"] == {
        "issuer": "https://a",
        "audiences": ["x", "y"],
        "local_jwks": {"inline_string": KEYS},
        "forward": True,
        "from_headers": [{"name": "X-Jwt", "value_prefix": "JWT "}, {"name": "x"}],
        "from_params": ["t"],
        "from_cookies": ["c"],
        "forward_payload_header": "x-payload",
        "payload_in_metadata": "payload",
        "normalize_payload_in_metadata": {"space_delimited_claims": ["permission", "scope", "roles"]},
        "claim_to_headers": [{"header_name": "x-sub", "claim_name": "a.b"}],
    }


def test_several_rules_are_sorted_by_issuer_and_all_may_be_missing() -> None:
    texts = (
        policy("{issuer: https://c}", name="mesh", namespace="istio-system"),
        policy("{issuer: https://b}"),
        policy("{issuer: https://a}", name="chosen", selector="selector: {matchLabels: {app: web}}"),
    )
    found = compiled(world(*texts), app="web")
    assert [providers(found)[f"origins-{n}"]["issuer"] for n in range(3)] == ["https://a", "https://b", "https://c"]
    each = [{"requires_any": {"requirements": [{"provider_name": f"origins-{n}"}, {"allow_missing": {}}]}} for n in range(3)]
    names = [{"provider_name": f"origins-{n}"} for n in range(3)]
    (rule,) = found["rules"]
    assert rule["requires"] == {"requires_any": {"requirements": [*names, {"requires_all": {"requirements": each}}]}}
    assert len(providers(compiled(world(*texts), app="other"))) == 2


@pytest.mark.parametrize(
    ("presences", "requires"),
    [
        (["REQUIRED"], {"provider_name": "origins-0"}),
        (
            ["REQUIRED", "REQUIRED"],
            {"requires_any": {"requirements": [{"provider_name": "origins-0"}, {"provider_name": "origins-1"}]}},
        ),
        (["OPTIONAL", "REQUIRED"], {"provider_name": "origins-1"}),
    ],
)
def test_a_token_may_be_required(presences: list[str], requires: dict[str, Any]) -> None:
    rules = [f"{{issuer: 'https://{n}', presence: {presence}}}" for n, presence in enumerate(presences)]
    assert compiled(world(policy(*rules)))["rules"][0]["requires"] == requires


def test_keys_that_were_fetched_are_handed_out() -> None:
    rules = (
        "{issuer: a, jwksUri: 'https://a.test/keys'}",
        "{issuer: 'https://b.test/'}",
        "{issuer: c, jwks_uri: 'https://c/'}",
    )
    fetched = {"https://a.test/keys": KEYS, DISCOVERED: key_set(ec_key(kid="b")), "https://c/": key_set(ec_key(kid="c"))}
    found = providers(compiled(world(policy(*rules), jwks=fetched)))
    kids = [json.loads(item["local_jwks"]["inline_string"])["keys"][0]["kid"] for _, item in sorted(found.items())]
    assert kids == ["ec", "c", "b"]


def test_a_private_key_is_not_handed_out() -> None:
    pasted = key_set({**ec_key().jwk, "d": "c2VjcmV0"})
    found = compiled(world(policy(f"{{issuer: a, jwks: '{pasted}'}}")))
    assert "c2VjcmV0" not in json.dumps(found)
    assert json.loads(providers(found)["origins-0"]["local_jwks"]["inline_string"]) == {"keys": [ec_key().jwk]}


@pytest.mark.parametrize("fetched", [{}, {"https://a.test/": '{"keys":[]}'}, {"https://a.test/": "<html>"}])
@pytest.mark.parametrize("flavour", ["meshlib", "envoy"])
def test_J11_keys_that_cannot_be_had_verify_nothing(fetched: dict[str, str], flavour: Flavour) -> None:
    """No stand-in key, known or not: an empty document, for which Envoy and meshlib refuse every token."""
    found = compiled(world(policy("{issuer: iss, jwksUri: 'https://a.test/'}"), jwks=fetched), flavour)
    assert providers(found)["origins-0"]["local_jwks"] == {"inline_string": ""}


def test_J11_end_to_end_every_token_fails_until_keys_are_there() -> None:
    rule = policy("{issuer: iss, jwksUri: 'https://a.test/'}")
    answers = []
    for fetched in ({}, {"https://a.test/": KEYS}):
        made = world(rule, jwks=fetched)
        (item,) = jwt_filters(made, scope_of(made, Node("meshlib", namespace="foo")))
        problems = Problems()
        message = unpack(item.typed_config, jwt_pb2.JwtAuthentication, field="", problems=problems)
        assert message is not None
        step = compile_jwt(decode_jwt(message, item.name, problems, field=""), now=lambda: 1_800_000_000.0)
        assert not problems.found
        refusal = step(inspected(bearer(ec_key().token({"iss": "iss"}))))
        answers.append(refusal.body.decode() if refusal else "")
    assert answers == [NO_KEYS, ""]


def test_grpcs_own_servers_know_no_such_filter() -> None:
    assert compiled(world(policy("{issuer: https://a}")), "grpc") is None


SERVICE = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: keys, namespace: foo}
spec: {hosts: [keys.test], ports: [{number: 443, name: tls, protocol: TLS}], resolution: DNS}
---
"""


@pytest.mark.parametrize(
    ("flavour", "texts", "remote"),
    [
        ("meshlib", (), True),
        ("envoy", (), False),
        ("envoy", (SERVICE,), True),
    ],
)
def test_workloads_may_fetch_by_themselves(flavour: Flavour, texts: tuple[str, ...], remote: bool) -> None:
    """Envoy only where a cluster leads there; otherwise the control service does it as before."""
    rule = policy("{issuer: iss, jwksUri: 'https://keys.test/jwks', timeout: 2s}")
    found = compiled(world(mesh("{jwksFetch: WORKLOAD}"), rule, *texts, jwks={"https://keys.test/jwks": KEYS}), flavour)
    provider = providers(found)["origins-0"]
    if remote:
        assert provider["remote_jwks"] == {
            "http_uri": {"uri": "https://keys.test/jwks", "cluster": "outbound|443||keys.test", "timeout": "2s"},
            "cache_duration": "300s",
        }
    else:
        assert "remote_jwks" not in provider
        assert json.loads(provider["local_jwks"]["inline_string"]) == json.loads(KEYS)


def test_an_issuer_that_has_to_be_asked_first_is_asked_by_the_control_service() -> None:
    made = world(mesh("{jwksFetch: WORKLOAD}"), policy("{issuer: 'https://b.test'}"), jwks={DISCOVERED: KEYS})
    assert "local_jwks" in providers(compiled(made))["origins-0"]


def test_J08_the_mesh_may_refuse_tokens_that_never_expire() -> None:
    rule = policy("{issuer: https://a}")
    assert "require_expiration" not in providers(compiled(world(rule)))["origins-0"]
    assert providers(compiled(world(mesh("{requireExpiration: true}"), rule)))["origins-0"]["require_expiration"] is True


def test_policies_for_gateways_are_enforced_by_no_workload() -> None:
    """Nor are their keys fetched."""
    text = policy("{issuer: a, jwksUri: 'https://a.test/keys'}")
    assert compiled(world(text)) is not None
    assert "https://a.test/keys" in world(text).request_authentications.key_uris
    attached = world(text.replace("spec:", "spec:\n  targetRefs: [{kind: Gateway, name: g}]"))
    assert compiled(attached) is None
    assert not attached.request_authentications.key_uris
