"""RequestAuthentication: what Istio accepts, what it refuses, and what is worth a warning."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib_control.config import Finding, Severity, validate_part
from meshlib_control.config.authentication import RequestAuthentications
from meshlib_control.config.jwks import VERIFIES_NOTHING, BadKeySet, for_data_planes, is_usable, read_keys
from tests.support.configuring import config_set
from tests.support.tokens import ec_key, ed25519_key, key_set, rsa_key, secret_key

RULE = {"issuer": "foo.com", "jwksUri": "https://foo.com/cert"}


def judged(spec: Any) -> list[tuple[str, str]]:
    """Errors and their fields."""
    return [(item.code, item.field) for item in every(spec) if item.severity is Severity.ERROR]


def every(spec: Any) -> list[Finding]:
    return validate_part("RequestAuthentication", spec)


OUTPUT = "outputClaimToHeaders[0]"


def outputs(header: str, claim: str = "c") -> dict[str, Any]:
    return rule(outputClaimToHeaders=[{"header": header, "claim": claim}])


def rule(**fields: Any) -> dict[str, Any]:
    return {"jwtRules": [{**RULE, **fields}]}


def keyed(**fields: Any) -> dict[str, Any]:
    return {"jwtRules": [{"issuer": "foo.com", **fields}]}


VALID = {
    "nothing": {},
    "no rules": {"jwtRules": []},
    "a selector": {"selector": {"matchLabels": {"app": "httpbin", "version": ""}}, "jwtRules": [RULE]},
    "any issuer": {"jwtRules": [{"issuer": "", "jwksUri": "https://foo.com/cert"}]},
    "any issuer of these keys": {"jwtRules": [{"jwks": key_set(rsa_key())}]},
    "discovered keys": {"jwtRules": [{"issuer": "https://foo.com"}]},
    "keys by plain http": keyed(jwksUri="http://foo.com"),
    "a port": keyed(jwksUri="https://foo.com:443/cert?a=b%20c"),
    "an address literal": keyed(jwksUri="https://[2001:db8::1]:8443/"),
    "the old spelling": keyed(jwks_uri="https://foo.com/cert"),
    "keys of all kinds": keyed(jwks=key_set(rsa_key(), ec_key(), ed25519_key(), secret_key())),
    "a key that is no set": keyed(jwks=json.dumps(dict(rsa_key().jwk))),
    "no keys in the set": keyed(jwks='{"keys": []}'),
    "several rules of one issuer": {"jwtRules": [RULE, RULE]},
    "audiences": rule(audiences=["a", "https://b/"]),
    "headers": rule(fromHeaders=[{"name": "x-jwt"}, {"name": "Authorization", "prefix": "Bearer "}]),
    "other places": rule(fromParams=["t"], fromCookies=["c"]),
    "outputs": rule(outputClaimToHeaders=[{"header": "x-jwt_Claim", "claim": "a.b"}], outputPayloadToHeader="x-payload"),
    "a timeout": rule(timeout="1s"),
    "words": rule(spaceDelimitedClaims=["roles"]),
    "presence": rule(presence="REQUIRED"),
    "the token goes on": rule(forwardOriginalToken=True),
}  # fmt: skip


@pytest.mark.parametrize("spec", VALID.values(), ids=VALID.keys())
def test_valid(spec: Any) -> None:
    assert judged(spec) == []


INVALID = {
    "an empty rule": ({"jwtRules": [{}]}, "MSH0143", "issuer"),
    "a rule without value": ({"jwtRules": [None]}, "MSH0143", "issuer"),
    "neither issuer nor keys": ({"jwtRules": [{"issuer": ""}]}, "MSH0143", "issuer"),
    "an empty audience": (rule(audiences=["foo", ""]), "MSH0143", "audiences[1]"),
    "an address without scheme": (keyed(jwksUri="foo.com"), "MSH0163", "jwksUri"),
    "another scheme": (keyed(jwksUri="ftp://foo.com"), "MSH0163", "jwksUri"),
    "a file": (keyed(jwksUri="file:///etc/passwd"), "MSH0163", "jwksUri"),
    "a port that is no number": (keyed(jwksUri="https://foo.com:not-a-number"), "MSH0163", "jwksUri"),
    "a port out of range": (keyed(jwksUri="https://foo.com:70000"), "MSH0163", "jwksUri"),
    "no host": (keyed(jwksUri="https:///cert"), "MSH0163", "jwksUri"),
    "a space": (keyed(jwksUri="https://foo .com/"), "MSH0163", "jwksUri"),
    "a line break": (keyed(jwksUri="https://foo.com/\n"), "MSH0163", "jwksUri"),
    "a broken escape": (keyed(jwksUri="https://foo.com/%zz"), "MSH0163", "jwksUri"),
    "the old spelling with a bad address": (keyed(jwks_uri="foo.com"), "MSH0163", "jwks_uri"),
    "a long address": (keyed(jwksUri="https://foo.com/" + "a" * 2048), "MSH0105", "jwksUri"),
    "both": (keyed(jwksUri="https://foo.com", jwks=key_set(rsa_key())), "MSH0107", "jwksUri"),
    "both spellings": (keyed(jwksUri="https://foo.com", jwks_uri="https://foo.com"), "MSH0107", "jwks_uri"),
    "keys that are no JSON": (keyed(jwks="{"), "MSH0163", "jwks"),
    "keys that are text": (keyed(jwks='"keys"'), "MSH0163", "jwks"),
    "keys in no list": (keyed(jwks='{"keys": {}}'), "MSH0163", "jwks"),
    "an object without type": (keyed(jwks="{}"), "MSH0163", "jwks"),
    "an unknown type": (keyed(jwks=key_set(rsa_key().without(kty="XXX"))), "MSH0163", "jwks"),
    "an incomplete key": (keyed(jwks=key_set(rsa_key().without("n"))), "MSH0163", "jwks"),
    "one incomplete key of two": (keyed(jwks=key_set(rsa_key(), ec_key().without("x"))), "MSH0163", "jwks"),
    "no header name": (rule(fromHeaders=[{"name": "", "prefix": "Bearer "}]), "MSH0126", "fromHeaders[0].name"),
    "a header without anything": (rule(fromHeaders=[{}]), "MSH0126", "fromHeaders[0].name"),
    "a header with a space": (rule(fromHeaders=[{"name": "a b"}]), "MSH0126", "fromHeaders[0].name"),
    "an empty parameter": (rule(fromParams=[""]), "MSH0143", "fromParams[0]"),
    "an empty cookie": (rule(fromCookies=["a", ""]), "MSH0143", "fromCookies[1]"),
    "an output of nothing": (outputs("x", ""), "MSH0143", f"{OUTPUT}.claim"),
    "an output to nowhere": (outputs(""), "MSH0126", f"{OUTPUT}.header"),
    "an empty output": (rule(outputClaimToHeaders=[{}]), "MSH0126", f"{OUTPUT}.header"),
    "an output to no header": (outputs("a%1"), "MSH0126", f"{OUTPUT}.header"),
    "an output to the host": (outputs("Host"), "MSH0126", f"{OUTPUT}.header"),
    "a payload to no header": (rule(outputPayloadToHeader="a b"), "MSH0126", "outputPayloadToHeader"),
    "an empty word list": (rule(spaceDelimitedClaims=[""]), "MSH0143", "spaceDelimitedClaims[0]"),
    "too many word lists": (rule(spaceDelimitedClaims=[str(n) for n in range(65)]), "MSH0105", "spaceDelimitedClaims"),
    "no time at all": (rule(timeout="0s"), "MSH0105", "timeout"),
    "a time without unit": (rule(timeout="5"), "MSH0106", "timeout"),
    "an unknown presence": (rule(presence="SOMETIMES"), "MSH0104", "presence"),
    "an unknown field": (rule(jwksURI="https://foo.com"), "MSH0101", "jwksURI"),
}  # fmt: skip


@pytest.mark.parametrize(("spec", "code", "field"), INVALID.values(), ids=INVALID.keys())
def test_invalid(spec: Any, code: str, field: str) -> None:
    assert (code, f"jwtRules[0].{field}") in judged(spec)


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"selector": {"matchLabels": {"": "v1"}}}, 'selector.matchLabels[""]'),
        ({"selector": {"matchLabels": {"app": "*"}}}, "selector.matchLabels.app"),
        ({"selector": {"matchLabels": {"app": "a"}}, "targetRef": {"kind": "Gateway", "name": "g"}}, "targetRef"),
        ({"targetRef": {"kind": "Gateway", "name": ""}}, "targetRef.name"),
        ({"targetRef": {"kind": "Gateway"}}, "targetRef.name"),
        ({"targetRef": {"kind": "wrong-kind", "name": "g"}}, "targetRef.kind"),
        ({"targetRef": {"group": "wrong-group", "kind": "Gateway", "name": "g"}}, "targetRef.group"),
        ({"targetRefs": [{"kind": "Gateway", "name": "g", "namespace": "x"}]}, "targetRefs[0].namespace"),
        ({"targetRefs": [{"kind": "Gateway", "name": "g"}] * 17}, "targetRefs"),
    ],
)
def test_whom_it_is_for(more: dict[str, Any], field: str) -> None:
    found = [where for _, where in judged({"jwtRules": [RULE], **more})]
    assert found == [field]


@pytest.mark.parametrize("group", ["", "gateway.networking.k8s.io", "networking.istio.io", "core"])
def test_attached_policies_are_valid_and_for_nobody(group: str) -> None:
    spec = {"targetRefs": [{"group": group, "kind": "Gateway", "name": "g"}], "jwtRules": [RULE]}
    assert [(item.code, item.field) for item in validate_part("RequestAuthentication", spec)] == [("MSH0331", "targetRefs")]
    assert judged(spec) == []


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        (keyed(), "MSH0316"),  # foo.com is no address where keys could be discovered
        (keyed(jwks='{"keys": []}'), "MSH0316"),
        (keyed(jwks=key_set(ed25519_key().without(crv="X25519"))), "MSH0316"),
        (keyed(jwks=key_set({**rsa_key().jwk, "d": "AQAB"})), "MSH0317"),
        (keyed(jwks_uri="https://foo.com"), "MSH0150"),
        (rule(fromParams=["a", "a"]), "MSH0151"),
        (rule(fromHeaders=[{"name": "X-A"}, {"name": "x-a"}]), "MSH0151"),
        (rule(audiences=["a", "a"]), "MSH0151"),
    ],
)
def test_warnings(spec: Any, code: str) -> None:
    assert [item.code for item in every(spec)] == [code]
    assert judged(spec) == []


# Key sets


def test_what_is_handed_out_is_what_was_written_when_nothing_is_wrong() -> None:
    document = " " + key_set(rsa_key(), ec_key("ES384"), ec_key("ES512"), ed25519_key(), secret_key())
    assert for_data_planes(document) == document


def test_private_members_and_unusable_keys_are_not_handed_out() -> None:
    document = key_set({**rsa_key().jwk, "d": "AQAB", "p": "AQAB", "oth": []}, ec_key().without(crv="P-384"), ec_key())
    assert json.loads(for_data_planes(document)) == {"keys": [rsa_key().jwk, ec_key().jwk]}


@pytest.mark.parametrize(
    "key",
    [
        rsa_key().without(alg="ES256"), rsa_key().without(alg=5), rsa_key().without(alg="RS1"), rsa_key().without("e"),
        ec_key().without(alg="ES384"), ec_key().without(x="AQAB"), ed25519_key().without(crv="Ed448"),
        secret_key().without("k"),
        {"kty": "oct", "k": "a+b"}, {"kty": "oct", "k": "A"}, {}, {"kty": []},
    ],
)  # fmt: skip
def test_keys_that_envoy_refuses_are_not_handed_out(key: dict[str, Any]) -> None:
    assert not is_usable(key)
    assert for_data_planes(json.dumps({"keys": [key]})) == VERIFIES_NOTHING
    assert for_data_planes(json.dumps({"keys": [key, dict(rsa_key().jwk)]})) != VERIFIES_NOTHING


@pytest.mark.parametrize("document", ["", "{", "[]", "null", '{"keys": 5}', "{}", "[" * 100_000])
def test_documents_that_are_no_key_set_verify_nothing(document: str) -> None:
    assert for_data_planes(document) == VERIFIES_NOTHING
    with pytest.raises(BadKeySet):
        read_keys(document)


MEMBERS = st.sampled_from(["keys", "kty", "n", "e", "crv", "x", "y", "k", "alg"])
VALUES = st.none() | st.text(max_size=5) | st.integers() | st.sampled_from(["RSA", "EC", "P-256", "AQAB"])


@given(st.recursive(VALUES, lambda inner: st.lists(inner) | st.dictionaries(MEMBERS, inner)))
def test_no_document_makes_it_raise(document: Any) -> None:
    assert isinstance(for_data_planes(json.dumps(document)), str)


def test_what_a_bad_key_set_holds_is_not_told() -> None:
    with pytest.raises(BadKeySet) as caught:
        read_keys(json.dumps({"keys": [{"kty": "oct", "k": "s3cret!"}]}))
    assert "s3cret" not in str(caught.value)


# Which policies hold


def policy(name: str, namespace: str, rules: str, selector: str = "") -> str:
    chosen = f"  selector: {{matchLabels: {{{selector}}}}}\n" if selector else ""
    head = (
        f"apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: {name}, namespace: {namespace}}}\n"
    )
    return f"{head}spec:\n{chosen}  jwtRules: [{rules}]\n"


def test_policies_of_mesh_namespace_and_workload_add_up_in_order_of_issuers() -> None:
    config = config_set(
        policy("mesh", "istio-system", "{issuer: https://c}"),
        policy("all", "foo", "{issuer: https://b, timeout: 2s}, {issuer: https://a, jwksUri: 'https://keys/'}"),
        policy("some", "foo", "{issuer: https://d, jwks: x}", "app: web"),
        policy("other", "bar", "{issuer: https://b, timeout: 9s}"),
    )
    index = RequestAuthentications(config.of("RequestAuthentication"), "istio-system")
    assert [item.issuer[-1] for item in index.rules_of("foo", {"app": "web", "x": "y"})] == ["a", "b", "c", "d"]
    assert [item.issuer[-1] for item in index.rules_of("foo", {})] == ["a", "b", "c"]
    assert [item.issuer[-1] for item in index.rules_of("none", {"app": "web"})] == ["c"]
    assert [item.issuer[-1] for item in index.rules_of("istio-system", {})] == ["c"]
    assert index.selector_keys == {"app"}
    discovery = "/.well-known/openid-configuration"
    assert index.key_uris == {f"https://b{discovery}": 9.0, f"https://c{discovery}": 5.0, "https://keys/": 5.0}
