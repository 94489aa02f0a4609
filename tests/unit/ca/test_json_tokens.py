"""JWTs that prove who a workload is: the attack cases J01 to J10, each beside a token that is taken."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from meshlib_control.ca.claims import ClaimPattern
from meshlib_control.ca.errors import CallerRefused
from meshlib_control.ca.issuers import IssuerSettings, KeySetSource
from meshlib_control.ca.json_tokens import JsonTokens
from tests.support.authority import REVIEWS, TRUST_DOMAIN, SettableClock

CLOCK = SettableClock()
NOW = CLOCK.now
ISSUER = "https://issuer.test"
RSA = rsa.generate_private_key(65537, 2048)
EC256 = ec.generate_private_key(ec.SECP256R1())
EC384 = ec.generate_private_key(ec.SECP384R1())
ED = ed25519.Ed25519PrivateKey.generate()
STRANGER = ec.generate_private_key(ec.SECP256R1())


def jwk(key: Any, kid: str | None, **more: object) -> dict[str, object]:
    algorithm: Any = jwt.algorithms.ECAlgorithm
    if isinstance(key, rsa.RSAPrivateKey):
        algorithm = jwt.algorithms.RSAAlgorithm
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        algorithm = jwt.algorithms.OKPAlgorithm
    document: dict[str, object] = json.loads(algorithm.to_jwk(key.public_key()))
    return {**document, **({} if kid is None else {"kid": kid}), **more}


KEY_SET = json.dumps({"keys": [jwk(RSA, "rsa"), jwk(EC256, "ec"), jwk(EC384, "ec384"), jwk(ED, "ed")]})
SUBJECT = "system:serviceaccount:default:reviews"


def claims(**changes: object) -> dict[str, object]:
    """Those of a good token; None takes one away."""
    good = {"iss": ISSUER, "aud": ["istio-ca"], "sub": SUBJECT, "iat": int(NOW), "exp": int(NOW) + 600}
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def signed(payload: Mapping[str, object] | None = None, key: Any = EC256, alg: str = "ES256", **header: Any) -> str:
    return raw({"alg": alg, "kid": "ec", **header}, json.dumps(payload or claims()).encode(), key, alg)


def raw(header: Mapping[str, object], payload: bytes, key: Any, alg: str) -> str:
    """Signed by hand: PyJWT would refuse to make some of these."""
    head = json.dumps({name: value for name, value in header.items() if value is not None}).encode()
    content = b".".join(map(encoded, (head, payload)))
    signature = jwt.get_algorithm_by_name(alg).sign(content, key) if key is not None else b""
    return (content + b"." + encoded(signature)).decode()


def encoded(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def verifier(**settings: Any) -> JsonTokens:
    issuer = IssuerSettings(**{"issuer": ISSUER, "jwks": KeySetSource(inline=KEY_SET), **settings})
    return JsonTokens([issuer], TRUST_DOMAIN, clock=CLOCK)


async def refusal(token: str, **settings: Any) -> str:
    """Why it is refused, after a good token was taken by the same settings."""
    tokens = verifier(**settings)
    with pytest.raises(CallerRefused) as caught:
        await tokens.identity(token)
    if len(token) > 20:
        assert token not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "alg", "kid"),
    [(EC256, "ES256", "ec"), (EC384, "ES384", "ec384"), (RSA, "RS256", "rsa"), (RSA, "PS512", "rsa"), (ED, "EdDSA", "ed")],
)
async def test_a_good_token_names_its_workload(key: Any, alg: str, kid: str) -> None:
    assert await verifier().identity(signed(key=key, alg=alg, kid=kid)) == (REVIEWS, ISSUER)


@pytest.mark.parametrize("header", [{"typ": "JWT"}, {"typ": "jwt"}, {"typ": "JOSE"}, {"kid": None}, {"x5t": "ignored"}])
async def test_headers_that_do_no_harm(header: dict[str, Any]) -> None:
    assert await verifier().identity(signed(**header))


@pytest.mark.parametrize("alg", ["none", "None", "nOnE", "", "HS256", "RS1", "ES256K"])
async def test_J01_no_algorithm(alg: str) -> None:
    for signature in ("", "."):
        token = (
            encoded(json.dumps({"alg": alg, "kid": "ec"}).encode()) + b"." + encoded(json.dumps(claims()).encode())
        ).decode()
        assert "JWT" in await refusal(f"{token}{signature}")
        assert "JWT" in await refusal(f"{token}.AAAA")


@pytest.mark.parametrize("alg", [None, 1, ["ES256"], {"a": "b"}])
async def test_J01_an_algorithm_that_is_no_text(alg: object) -> None:
    head = {} if alg is None else {"alg": alg}
    assert "names no algorithm" in await refusal(raw(head, json.dumps(claims()).encode(), EC256, "ES256"))


PUBLIC_FORMS = {
    "PEM": RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
    "DER": RSA.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
    "PKCS #1": RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1),
    "EC PEM": EC256.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
    "JWK": json.dumps(jwk(EC256, "ec")).encode(),
}


@pytest.mark.parametrize("secret", PUBLIC_FORMS.values(), ids=PUBLIC_FORMS.keys())
@pytest.mark.parametrize("kid", ["rsa", "ec", None])
async def test_J02_a_public_key_is_no_secret(secret: bytes, kid: str | None) -> None:
    header = {"alg": "HS256", **({} if kid is None else {"kid": kid})}
    content = encoded(json.dumps(header).encode()) + b"." + encoded(json.dumps(claims()).encode())
    token = (content + b"." + encoded(hmac.digest(secret, content, hashlib.sha256))).decode()
    assert "algorithm is not one" in await refusal(token)


@pytest.mark.parametrize(
    ("key", "alg", "kid"),
    [(RSA, "RS256", "ec"), (EC256, "ES256", "rsa"), (EC384, "ES384", "ec"), (ED, "EdDSA", "ec"), (STRANGER, "ES256", "ec")],
)
async def test_J03_an_algorithm_that_is_not_the_keys(key: Any, alg: str, kid: str) -> None:
    assert "not signed by any key" in await refusal(signed(key=key, alg=alg, kid=kid))


async def test_J03_an_algorithm_that_the_issuer_does_not_use() -> None:
    assert await verifier(algorithms=("ES256",)).identity(signed())
    assert "algorithm is not one" in await refusal(signed(key=RSA, alg="RS256", kid="rsa"), algorithms=("ES256",))


async def test_J03_an_algorithm_that_the_key_is_not_for() -> None:
    bound = KeySetSource(inline=json.dumps({"keys": [jwk(RSA, "rsa", alg="RS512")]}))
    assert await verifier(jwks=bound).identity(signed(key=RSA, alg="RS512", kid="rsa"))
    assert "not signed by any key" in await refusal(signed(key=RSA, alg="RS256", kid="rsa"), jwks=bound)


@pytest.mark.parametrize(
    "header", [{"crit": ["bork"]}, {"crit": []}, {"crit": ["b64"], "b64": True}, {"b64": False}, {"crit": "exp"}]
)
async def test_J04_extensions_that_must_be_understood(header: dict[str, Any]) -> None:
    assert "must be understood" in await refusal(signed(**header))


async def test_J05_json_serialization() -> None:
    head, payload, signature = signed().split(".")
    flattened = json.dumps({"protected": head, "payload": payload, "signature": signature})
    general = json.dumps({"payload": payload, "signatures": []})
    for form in (
        flattened,
        general,
        f"{head}.{payload}.{signature}.x",
        f"{head}.{payload}",
        f"{head}.{payload}.",
        signed() + "\n",
    ):
        assert "compact form" in await refusal(form)


@pytest.mark.parametrize(
    "issuer", ["https:", ISSUER + "/", ISSUER.upper(), [ISSUER], {"a": ISSUER}, 1, "", None, "https://other.test"]
)
async def test_J06_another_issuer(issuer: object) -> None:
    assert "no configured issuer" in await refusal(signed(claims(iss=issuer)))


async def test_J06_T03_the_keys_of_one_issuer_are_not_those_of_another() -> None:
    other = IssuerSettings("https://other.test", KeySetSource(inline=json.dumps({"keys": [jwk(STRANGER, "ec")]})))
    ours = IssuerSettings(ISSUER, KeySetSource(inline=KEY_SET))
    tokens = JsonTokens([ours, other], TRUST_DOMAIN, clock=CLOCK)
    assert await tokens.identity(signed(claims(iss="https://other.test"), key=STRANGER))
    with pytest.raises(CallerRefused, match="not signed by any key"):
        await tokens.identity(signed(claims(iss=ISSUER), key=STRANGER))


@pytest.mark.parametrize("audience", ["istio-ca", ["istio-ca"], ["other", "istio-ca"]])
async def test_J07_our_audience(audience: object) -> None:
    assert await verifier().identity(signed(claims(aud=audience)))


@pytest.mark.parametrize(
    "audience", [None, "", "other", "istio", "istio-ca-2", "ISTIO-CA", [], [1], [["istio-ca"]], 1, {"istio-ca": 1}]
)
async def test_J07_another_audience(audience: object) -> None:
    assert "not for this audience" in await refusal(signed(claims(aud=audience)))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"exp": None}, "never expires"),
        ({"exp": int(NOW) - 61}, "has expired"),
        ({"exp": int(NOW) + 3661}, "good for longer than 3600 s"),
        ({"iat": int(NOW) - 3600, "exp": int(NOW) + 600}, "good for longer"),
        ({"iat": None, "exp": int(NOW) + 3661}, "good for longer"),
        ({"exp": 1e300}, "no time in exp"),
        ({"exp": -1}, "no time in exp"),
        ({"exp": True}, "no time in exp"),
        ({"exp": str(int(NOW) + 600)}, "no time in exp"),
        ({"exp": [int(NOW) + 600]}, "no time in exp"),
        ({"nbf": int(NOW) + 61}, "not valid yet"),
        ({"nbf": "now"}, "no time in nbf"),
        ({"iat": int(NOW) + 61}, "not valid yet"),
        ({"iat": {}}, "no time in iat"),
    ],
)
async def test_J08_times(changes: dict[str, object], why: str) -> None:
    assert why in await refusal(signed(claims(**changes)))


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
async def test_J08_times_that_only_python_calls_json(text: str) -> None:
    payload = json.dumps(claims()).replace(str(int(NOW) + 600), text).encode()
    assert "no time in exp" in await refusal(raw({"alg": "ES256", "kid": "ec"}, payload, EC256, "ES256"))


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": int(NOW) - 59},
        {"exp": NOW + 600.5},
        {"nbf": int(NOW) + 59},
        {"iat": int(NOW) + 59},
        {"iat": None},
        {"exp": int(NOW) + 3600},
    ],
)
async def test_J08_times_within_the_leeway(changes: dict[str, object]) -> None:
    assert await verifier().identity(signed(claims(**changes)))


@pytest.mark.parametrize("kid", ["unknown", "../../etc/passwd", "", "k" * 300, 1, ["ec"], {"a": "b"}])
async def test_J09_key_ids(kid: object) -> None:
    assert "JWT" in await refusal(signed(kid=kid))


async def test_J09_keys_with_one_id_are_all_tried() -> None:
    both = KeySetSource(inline=json.dumps({"keys": [jwk(STRANGER, "ec"), jwk(EC256, "ec")]}))
    assert await verifier(jwks=both).identity(signed())


async def test_J10_keys_that_the_token_brings_along_are_not_used() -> None:
    url = "https://attacker.test/keys"
    for header in ({"jwk": jwk(STRANGER, "ec")}, {"jku": url}, {"x5u": url}, {"x5c": ["AAAA"]}):
        assert "not signed by any key" in await refusal(signed(key=STRANGER, **header))
        assert await verifier().identity(signed(**header))


@pytest.mark.parametrize("header", [{"typ": "at+jwt"}, {"typ": 1}, {"typ": "secevent+jwt"}, {"typ": ""}])
async def test_tokens_of_another_type(header: dict[str, Any]) -> None:
    assert "another type" in await refusal(signed(**header))


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "a" * 10_000,
        "A" * 8193,
        "eyJ.eyJ.AAAA",
        " ",
        "\x00",
        "ä.ö.ü",
        "W10.W10.AAAA",
        "bnVsbA.e30.AAAA",
    ],
)
async def test_J16_what_is_no_token(token: str) -> None:
    assert "JWT" in await refusal(token)


async def test_J16_deep_json() -> None:
    payload = b'{"a":' + b"[" * 3000 + b"]" * 3000 + b"}"
    assert "JWT" in await refusal(raw({"alg": "ES256", "kid": "ec"}, payload, EC256, "ES256"))


async def test_names_that_are_there_twice_make_a_token_unreadable() -> None:
    payload = json.dumps(claims()).replace('"sub"', f'"sub": "{SUBJECT}x", "sub"', 1).encode()
    assert "cannot be read" in await refusal(raw({"alg": "ES256", "kid": "ec"}, payload, EC256, "ES256"))


@pytest.mark.parametrize("subject", ["ns/../admin", "system:serviceaccount:default:../admin", None, "", 1])
async def test_T03_a_subject_that_names_no_workload(subject: object) -> None:
    assert "names no workload" in await refusal(signed(claims(sub=subject)))


async def test_other_claims_than_the_subject() -> None:
    patterns = (ClaimPattern("repository", "acme/{service_account}"), ClaimPattern("ref", "refs/heads/main"))
    ci = {"claims": patterns, "namespace": "ci"}
    good = claims(sub="anything", repository="acme/reviews", ref="refs/heads/main")
    identity, _ = await verifier(**ci).identity(signed(good))
    assert str(identity) == "spiffe://cluster.local/ns/ci/sa/reviews"
    for changes in (
        {"ref": "refs/heads/main2"},
        {"repository": "acme2/reviews"},
        {"repository": None},
        {"ref": ["refs/heads/main"]},
    ):
        assert "names no workload" in await refusal(signed({**good, **changes}), **ci)
