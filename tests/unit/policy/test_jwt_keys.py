"""Which key verifies which token.  Attacks on the choice of the algorithm are here."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from meshlib.policy.jwt_keys import MAX_KEYS, NO_KEYS, KeySet, parse_key_set
from meshlib.policy.jwt_token import Failure, Token, parse_token
from tests.support.certificates import Authority
from tests.support.tokens import SigningKey, b64, ec_key, ed25519_key, key_set, rsa_key, secret_key, segment

CLAIMS = {"iss": "issuer"}
WRONG = "Jwt verification fails"
NO_MATCH = "Jwks doesn't have key to match kid or alg from Jwt"


def usable(document: str) -> KeySet:
    keys = parse_key_set(document)
    assert isinstance(keys, KeySet), keys
    return keys


def verdict(document: str, token: str) -> str:
    """ "" when it is verified."""
    parsed = parse_token(token.encode())
    assert isinstance(parsed, Token), parsed
    failure = usable(document).verify(parsed)
    return "" if failure is None else failure.message


def forged(header: dict[str, Any], secret: bytes, algorithm: str = "sha256") -> str:
    signed = f"{segment(header)}.{segment(CLAIMS)}"
    return f"{signed}.{b64(hmac.digest(secret, signed.encode(), algorithm))}"


RSA_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]
KEYS = [
    *((rsa_key, name) for name in RSA_ALGORITHMS),
    *((lambda name=name: ec_key(name), name) for name in ("ES256", "ES384", "ES512")),
    *((lambda name=name: secret_key(name), name) for name in ("HS256", "HS384", "HS512")),
    (ed25519_key, "EdDSA"),
]


@pytest.mark.parametrize(("make", "algorithm"), KEYS, ids=[name for _, name in KEYS])
def test_each_algorithm(make: Any, algorithm: str) -> None:
    """Verified by the key, with and without its declared algorithm; not when a bit of what was signed has changed."""
    key: SigningKey = make()
    token = key.token(CLAIMS, algorithm=algorithm)
    assert verdict(key_set(key), token) == ""
    assert verdict(key_set({**key.jwk, "alg": algorithm}), token) == ""
    head, _, signature = token.split(".")
    assert verdict(key_set(key), f"{head}.{segment({'iss': 'issue2'})}.{signature}") == WRONG


@pytest.mark.parametrize("declared", RSA_ALGORITHMS)
@pytest.mark.parametrize("used", RSA_ALGORITHMS)
def test_J03_a_declared_algorithm_is_the_only_one(declared: str, used: str) -> None:
    token = rsa_key().token(CLAIMS, algorithm=used)
    assert verdict(key_set({**rsa_key().jwk, "alg": declared}), token) == ("" if declared == used else NO_MATCH)


@pytest.mark.parametrize("key", [ec_key("ES256"), ec_key("ES384"), ec_key("ES512"), ed25519_key(), secret_key(), rsa_key()])
@pytest.mark.parametrize("label", [*RSA_ALGORITHMS, "ES256", "ES384", "ES512", "HS256", "EdDSA"])
def test_J03_a_label_of_another_family_changes_nothing(key: SigningKey, label: str) -> None:
    """The signature is the key's own; the header says something else, `kid` and curve included."""
    signed = f"{segment({'alg': label, 'kid': key.jwk['kid']})}.{segment(CLAIMS)}"
    token = f"{signed}.{b64(key.sign(signed.encode()))}"
    assert (verdict(key_set(key), token) == "") == (label == key.algorithm)


def public_forms(key: Any, folder: Any) -> dict[str, bytes]:
    """All the byte strings that a careless verifier might take for a secret."""
    encoding, form = serialization.Encoding, serialization.PublicFormat
    public = key.private.public_key()
    forms = {
        "pem": public.public_bytes(encoding.PEM, form.SubjectPublicKeyInfo),
        "pem without newline": public.public_bytes(encoding.PEM, form.SubjectPublicKeyInfo).strip(),
        "der": public.public_bytes(encoding.DER, form.SubjectPublicKeyInfo),
        "jwk": json.dumps(dict(key.jwk)).encode(),
        "jwks": key_set(key).encode(),
        "empty": b"",
    }
    if key.algorithm.startswith("RS"):
        forms["pkcs1 pem"] = public.public_bytes(encoding.PEM, form.PKCS1)
        forms["pkcs1 der"] = public.public_bytes(encoding.DER, form.PKCS1)
        forms["modulus"] = public.public_numbers().n.to_bytes(256, "big")
        forms["n as text"] = key.jwk["n"].encode()
    else:
        forms["point"] = public.public_bytes(encoding.X962, form.UncompressedPoint)
    certificate = Authority(folder).file.read_bytes()
    forms["certificate"] = certificate
    forms["certificate der"] = x509.load_pem_x509_certificate(certificate).public_bytes(encoding.DER)
    return forms


@pytest.mark.parametrize("key", [rsa_key(), ec_key()], ids=["RSA", "EC"])
@pytest.mark.parametrize(("label", "digest"), [("HS256", "sha256"), ("HS384", "sha384"), ("HS512", "sha512")])
def test_J02_a_public_key_is_never_a_secret(key: SigningKey, label: str, digest: str, tmp_path: Any) -> None:
    for name, secret in public_forms(key, tmp_path).items():
        for kid in (key.jwk["kid"], None):
            header = {"alg": label, **({"kid": kid} if kid else {})}
            assert verdict(key_set(key), forged(header, secret, digest)) == WRONG, name
    assert verdict(key_set(key), key.token(CLAIMS)) == ""


def test_J02_a_secret_beside_public_keys_verifies_its_own_tokens_only() -> None:
    document = key_set(rsa_key(), secret_key())
    assert verdict(document, secret_key().token(CLAIMS)) == ""
    assert verdict(document, forged({"alg": "HS256", "kid": "hs"}, rsa_key().jwk["n"].encode())) == WRONG
    assert verdict(document, forged({"alg": "HS256"}, b"")) == WRONG


@pytest.mark.parametrize("member", ["jwk", "jku", "x5u", "x5c", "x5t"])
def test_J10_keys_in_the_token_are_not_looked_at(member: str) -> None:
    attacker = rsa_key("rsa", 3072)
    values = {"jwk": dict(attacker.jwk), "x5c": ["MIIB"], "x5t": "abc"}
    header = {member: values.get(member, "https://attacker.test/keys")}
    assert verdict(key_set(rsa_key()), attacker.token(CLAIMS, header=header)) == WRONG
    assert verdict(key_set(rsa_key()), rsa_key().token(CLAIMS, header=header)) == ""


@pytest.mark.parametrize("kid", ["other", "../../etc/passwd", "file:///dev/null", "x" * 5000, "' OR 1=1", "rsa\x00"])
def test_J09_an_unknown_key_is_only_unknown(kid: str) -> None:
    token = rsa_key().token(CLAIMS, header={"kid": kid})
    assert verdict(key_set(rsa_key()), token) == NO_MATCH
    parsed = parse_token(token.encode())
    assert isinstance(parsed, Token)
    assert not usable(key_set(rsa_key())).knows(parsed)


def test_J09_without_a_name_on_either_side_all_keys_are_tried() -> None:
    document = key_set(rsa_key("other", 3072), ec_key(), rsa_key())
    assert verdict(document, rsa_key().token(CLAIMS, header={"kid": None})) == ""
    assert verdict(document, rsa_key().token(CLAIMS, header={"kid": ""})) == ""
    assert verdict(key_set(rsa_key().without("kid")), rsa_key().token(CLAIMS)) == ""


def test_J09_duplicate_names_are_all_tried() -> None:
    twice = key_set({**rsa_key("other", 3072).jwk, "kid": "rsa"}, {**ec_key().jwk, "kid": "rsa"}, rsa_key())
    assert verdict(twice, rsa_key().token(CLAIMS)) == ""
    assert verdict(twice, rsa_key("third", 4096).token(CLAIMS, header={"kid": "rsa"})) == WRONG


@pytest.mark.parametrize("size", [0, 1, 63, 65, 70, 72, 128])
def test_ec_signatures_have_their_exact_length(size: int) -> None:
    """Two numbers of full length; neither DER nor cut or padded ones."""
    head, payload, signature = ec_key().token(CLAIMS).split(".")
    del signature
    assert verdict(key_set(ec_key()), f"{head}.{payload}.{b64(b'1' * size) or 'AA'}") == WRONG


@pytest.mark.parametrize("r", [0, 1, 2**256 - 1])
@pytest.mark.parametrize("s", [0, 1, 2**256 - 1])
def test_ec_signatures_of_nothing(r: int, s: int) -> None:
    """r = s = 0 was accepted by more than one library (CVE-2022-21449)."""
    head, payload, _ = ec_key().token(CLAIMS).split(".")
    signature = b64(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    assert verdict(key_set(ec_key()), f"{head}.{payload}.{signature}") == WRONG


def test_ed25519_signatures_have_64_bytes() -> None:
    token = ed25519_key().token(CLAIMS)
    assert verdict(key_set(ed25519_key()), token) == ""
    assert verdict(key_set(ed25519_key()), token[:-4]) == "Jwt ED25519 signature is wrong length"


UNUSABLE = {
    "of no type": rsa_key().without("kty"),
    "of an unknown type": rsa_key().without(kty="XXX"),
    "type is no text": rsa_key().without(kty=["RSA"]),
    "for encryption": rsa_key().without(use="enc"),
    "for signing": rsa_key().without(key_ops=["sign"]),
    "without modulus": rsa_key().without("n"),
    "modulus is no text": rsa_key().without(n=5),
    "modulus is no base64url": rsa_key().without(n="a+b/"),
    "without exponent": rsa_key().without("e"),
    "even exponent": rsa_key().without(e=b64(b"\x02")),
    "exponent one": rsa_key().without(e=b64(b"\x01")),
    "1024 bits": rsa_key("rsa", 1024).jwk,
    "algorithm of another family": rsa_key().without(alg="ES256"),
    "algorithm is no text": rsa_key().without(alg=5),
    "certificate only": rsa_key().without("n", "e", x5c=["MIIB"]),
    "point off the curve": ec_key().without(x=ec_key().jwk["y"], y=ec_key().jwk["x"]),
    "unknown curve": ec_key().without(crv="secp256k1"),
    "another curve": ec_key().without(crv="P-384"),
    "curve and algorithm differ": ec_key().without(alg="ES384"),
    "Ed448": ed25519_key().without(crv="Ed448"),
    "X25519": ed25519_key().without(crv="X25519"),
    "short point": ed25519_key().without(x=b64(b"1" * 31)),
    "short secret": secret_key("HS256", "hs", b"too short").jwk,
    "empty secret": {"kty": "oct", "k": ""},
    "secret shorter than the hash": {**secret_key("HS512", "hs", b"1" * 32).jwk, "alg": "HS512"},
    "no object": "key",
}


@pytest.mark.parametrize("key", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_keys_that_cannot_be_used_are_left_out(key: Any) -> None:
    assert parse_key_set(json.dumps({"keys": [key]})) == NO_KEYS
    assert verdict(json.dumps({"keys": [key, dict(rsa_key().jwk)]}), rsa_key().token(CLAIMS)) == ""


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("", "Jwks is an invalid JSON"),
        ("{", "Jwks is an invalid JSON"),
        ("[]", "Jwks is an invalid JSON"),
        ('{"keys":[],"keys":[]}', "Jwks is an invalid JSON"),
        ("{}", "Jwks does not have [keys] field"),
        ('{"keys":{}}', "[keys] in Jwks is not an array"),
        ('{"keys":[]}', NO_KEYS),
        (json.dumps({"keys": [{}] * (MAX_KEYS + 1)}), f"Jwks has more than {MAX_KEYS} keys"),
        ("\ud800", "Jwks is an invalid JSON"),
    ],
)
def test_documents_that_are_no_key_set(document: str, message: str) -> None:
    assert parse_key_set(document) == message


def test_private_halves_do_no_harm() -> None:
    """A document with them is somebody's mistake; it verifies like the public one."""
    from jwt.algorithms import RSAAlgorithm

    private = RSAAlgorithm.to_jwk(rsa_key().private, as_dict=True)
    private.pop("key_ops")
    assert verdict(json.dumps({"keys": [private]}), rsa_key().token(CLAIMS)) == ""


def test_secrets_are_not_shown() -> None:
    assert "0123" not in repr(usable(key_set(secret_key())))
    assert hashlib.sha256(b"x").hexdigest() not in repr(usable(key_set(secret_key())))


JWK = st.dictionaries(
    st.sampled_from(["kty", "crv", "x", "y", "n", "e", "k", "alg", "kid", "use", "key_ops"]),
    st.sampled_from(["RSA", "EC", "OKP", "oct", "P-256", "P-521", "Ed25519", "AQAB", "ES256", "sig", "", "A" * 43, "é"])
    | st.none()
    | st.integers()
    | st.lists(st.text(max_size=3), max_size=2),
)


@given(st.lists(JWK, max_size=3))
def test_no_document_makes_it_raise(keys: list[dict[str, Any]]) -> None:
    assert isinstance(parse_key_set(json.dumps({"keys": keys})), str | KeySet)


@given(st.text(max_size=60))
def test_no_text_makes_it_raise(document: str) -> None:
    assert isinstance(parse_key_set(document), str)


def test_failures_have_a_status() -> None:
    token = parse_token(rsa_key().token(CLAIMS).encode())
    assert isinstance(token, Token)
    assert usable(key_set(ec_key())).verify(token) == Failure(NO_MATCH, 401)
