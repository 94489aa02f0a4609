"""A JSON Web Key Set (RFC 7517) and the choice of the key that verifies a token.

An algorithm is bound to the key: what a key can verify follows from its type, curve and declared ``alg``, never from what a
token says.  So a public key is never taken for an HMAC secret, and no algorithm of another family is ever tried.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from meshlib.model.authentication import JwtProvider
from meshlib.policy.jwt_token import FAILS, Failure, Token, parse_object

MAX_KEYS: Final = 256
"""More keys than this in one set are refused: each one without ``kid`` may be tried for a token."""

NO_KEYS: Final = "Jwks doesn't have any valid public key"
NOT_FETCHED: Final = "Jwks remote fetch is failed"

_NO_MATCH = Failure("Jwks doesn't have key to match kid or alg from Jwt")
_WRONG_LENGTH = Failure("Jwt ED25519 signature is wrong length")

_MIN_RSA_BITS, _MAX_RSA_BITS = 2048, 16384  # RFC 7518 sections 3.3 and 3.5; OpenSSL's own upper bound
_CURVES = {"P-256": ("SECP256R1", 32, "ES256"), "P-384": ("SECP384R1", 48, "ES384"), "P-521": ("SECP521R1", 66, "ES512")}
_HASHES = {"256": "SHA256", "384": "SHA384", "512": "SHA512"}
_ED25519_SIGNATURE = 64
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+={0,2}")

Verifier = Callable[[bytes, bytes], bool]
"""(signature, what is signed) -> whether it is right."""


class _Unusable(ValueError):
    """A key that verifies nothing here."""


@dataclass(frozen=True, slots=True, eq=False)
class VerifyKey:
    """One key.  `verifiers`: by algorithm, those that the key's type, curve and declared algorithm allow."""

    key_id: str
    algorithm: str  # as declared; "": none
    verifiers: Mapping[str, Verifier]


class KeySet:
    """The usable keys of a document, in its order.  Compared by identity: a new set is a new object."""

    __slots__ = ("keys",)

    def __init__(self, keys: tuple[VerifyKey, ...]) -> None:
        self.keys = keys

    def verify(self, token: Token) -> Failure | None:
        """None when one of the keys has signed it.

        A key is out of the question when both it and the token name a key and the names differ, or when it declares
        another algorithm.  Envoy's rules, by which `knows` can tell an unknown key from a bad signature.
        """
        matched = False
        for key in self.keys:
            if not _may_verify(key, token):
                continue
            matched = True
            verifier = key.verifiers.get(token.algorithm)
            if verifier is None:
                continue
            if token.algorithm == "EdDSA" and len(token.signature) != _ED25519_SIGNATURE:
                return _WRONG_LENGTH
            if verifier(token.signature, token.signed):
                return None
        return FAILS if matched else _NO_MATCH

    def knows(self, token: Token) -> bool:
        """Whether some key could have signed it."""
        return any(_may_verify(key, token) for key in self.keys)

    def __repr__(self) -> str:
        return f"<KeySet {[key.key_id for key in self.keys]}>"


class KeySource(Protocol):
    """Where the keys of providers with a ``jwks_uri`` come from.  Must not block."""

    def keys(self, provider: JwtProvider) -> KeySet | str:
        """The keys as they are now; the same object as long as they are the same.  A text: why there are none."""
        ...

    def key_missed(self, provider: JwtProvider) -> None:
        """A well-formed token was signed by a key that the set does not have: it may be time to look for a newer one."""
        ...


class NoRemoteKeys:
    """For processes that fetch nothing: tokens of providers with a ``jwks_uri`` are refused."""

    def keys(self, provider: JwtProvider) -> KeySet | str:
        return NOT_FETCHED

    def key_missed(self, provider: JwtProvider) -> None:
        return None


def _may_verify(key: VerifyKey, token: Token) -> bool:
    if token.key_id and key.key_id and token.key_id != key.key_id:
        return False
    return not key.algorithm or key.algorithm == token.algorithm


def parse_key_set(document: str) -> KeySet | str:
    """The set, or what is wrong with it.  Keys that cannot be used are left out; a set without usable ones is an error."""
    members = parse_object(document.encode("utf-8", "replace"))
    if members is None:
        return "Jwks is an invalid JSON"
    if "keys" not in members:
        return "Jwks does not have [keys] field"
    listed = members["keys"]
    if not isinstance(listed, list):
        return "[keys] in Jwks is not an array"
    if len(listed) > MAX_KEYS:
        return f"Jwks has more than {MAX_KEYS} keys"
    keys = tuple(key for key in map(_key, listed) if key is not None)
    return KeySet(keys) if keys else NO_KEYS


def _key(jwk: object) -> VerifyKey | None:
    if not isinstance(jwk, dict) or not _is_for_signatures(jwk):
        return None
    name, declared = jwk.get("kid", ""), jwk.get("alg", "")
    if not isinstance(declared, str):
        return None
    make = _MAKERS.get(jwk.get("kty")) if isinstance(jwk.get("kty"), str) else None
    if make is None:
        return None
    try:
        verifiers = make(jwk)
    except (ValueError, TypeError, KeyError):
        return None
    if declared:
        verifiers = {algorithm: verifier for algorithm, verifier in verifiers.items() if algorithm == declared}
    return VerifyKey(name if isinstance(name, str) else "", declared, verifiers) if verifiers else None


def _is_for_signatures(jwk: Mapping[str, Any]) -> bool:
    operations = jwk.get("key_ops")
    return jwk.get("use", "sig") == "sig" and (operations is None or (isinstance(operations, list) and "verify" in operations))


def _number(jwk: Mapping[str, Any], member: str) -> int:
    return int.from_bytes(_bytes(jwk, member), "big")


def _bytes(jwk: Mapping[str, Any], member: str) -> bytes:
    text = jwk[member]
    if not isinstance(text, str) or _BASE64URL.fullmatch(text) is None:
        raise _Unusable(member)
    text = text.rstrip("=")
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise _Unusable(member) from error


def _rsa(jwk: Mapping[str, Any]) -> dict[str, Verifier]:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    modulus = _number(jwk, "n")
    if not _MIN_RSA_BITS <= modulus.bit_length() <= _MAX_RSA_BITS:
        raise _Unusable("n")
    key = rsa.RSAPublicNumbers(_number(jwk, "e"), modulus).public_key()

    def verifier(scheme: padding.AsymmetricPadding, algorithm: hashes.HashAlgorithm) -> Verifier:
        def verify(signature: bytes, signed: bytes) -> bool:
            try:
                key.verify(signature, signed, scheme, algorithm)
            except InvalidSignature:
                return False
            return True

        return verify

    made: dict[str, Verifier] = {}
    for bits, name in _HASHES.items():
        algorithm: hashes.HashAlgorithm = getattr(hashes, name)()
        made[f"RS{bits}"] = verifier(padding.PKCS1v15(), algorithm)
        # RFC 7518 section 3.5: the salt is as long as the hash.
        made[f"PS{bits}"] = verifier(padding.PSS(padding.MGF1(algorithm), algorithm.digest_size), algorithm)
    return made


def _ec(jwk: Mapping[str, Any]) -> dict[str, Verifier]:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    curve, size, name = _CURVES[jwk["crv"]]
    key = ec.EllipticCurvePublicNumbers(_number(jwk, "x"), _number(jwk, "y"), getattr(ec, curve)()).public_key()
    scheme = ec.ECDSA(getattr(hashes, _HASHES[name[2:]])())

    def verify(signature: bytes, signed: bytes) -> bool:
        if len(signature) != 2 * size:  # RFC 7518 section 3.4: two numbers of full length, not DER
            return False
        halves = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
        try:
            key.verify(utils.encode_dss_signature(*halves), signed, scheme)
        except InvalidSignature:
            return False
        return True

    return {name: verify}


def _okp(jwk: Mapping[str, Any]) -> dict[str, Verifier]:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if jwk["crv"] != "Ed25519":
        raise _Unusable("crv")
    key = Ed25519PublicKey.from_public_bytes(_bytes(jwk, "x"))

    def verify(signature: bytes, signed: bytes) -> bool:
        try:
            key.verify(signature, signed)
        except InvalidSignature:
            return False
        return True

    return {"EdDSA": verify}


def _oct(jwk: Mapping[str, Any]) -> dict[str, Verifier]:
    secret = _bytes(jwk, "k")

    def verifier(name: str) -> Verifier:
        return lambda signature, signed: hmac.compare_digest(hmac.digest(secret, signed, name), signature)

    # RFC 7518 section 3.2: a secret is at least as long as the hash.
    found = {f"HS{bits}": name.lower() for bits, name in _HASHES.items() if len(secret) >= int(bits) // 8}
    return {algorithm: verifier(name) for algorithm, name in found.items() if name in hashlib.algorithms_guaranteed}


_MAKERS: Mapping[Any, Callable[[Mapping[str, Any]], dict[str, Verifier]]] = {"RSA": _rsa, "EC": _ec, "OKP": _okp, "oct": _oct}
