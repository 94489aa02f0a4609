"""Tokens and key sets for tests: signed right, wrong, or not at all."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from meshlib.model.inbound import Connection, Inspection, ServerRequest

Json = dict[str, Any]


def b64(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def segment(value: object) -> str:
    """A part of a token: compact JSON in base64url; text and bytes as they are."""
    if isinstance(value, bytes):
        return b64(value)
    return b64((value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))).encode())


@dataclass(frozen=True)
class SigningKey:
    """A private key and the public half as a JWK."""

    algorithm: str
    private: Any
    jwk: Mapping[str, Any] = field(repr=False)

    def sign(self, signed: bytes, algorithm: str | None = None) -> bytes:
        """The signature over these bytes; `algorithm`: another one that the key can do."""
        return get_default_algorithms()[algorithm or self.algorithm].sign(signed, self.private)

    def token(self, claims: object, *, header: Mapping[str, Any] | None = None, algorithm: str | None = None) -> str:
        """A compact token.  `header` adds to, or replaces, ``alg``, ``typ`` and ``kid``; None as a value removes a field."""
        fields: Json = {"alg": algorithm or self.algorithm, "typ": "JWT", "kid": self.jwk.get("kid"), **(header or {})}
        fields = {name: value for name, value in fields.items() if value is not None}
        signed = f"{segment(fields)}.{segment(claims)}"
        return f"{signed}.{b64(self.sign(signed.encode(), algorithm))}"

    def without(self, *members: str, **others: Any) -> Json:
        """The JWK without some members, and with others."""
        return {name: value for name, value in self.jwk.items() if name not in members} | others


@cache
def rsa_key(kid: str = "rsa", bits: int = 2048) -> SigningKey:
    key = rsa.generate_private_key(65537, bits)
    return _named("RS256", key, _public("RS256", key.public_key()), kid)


@cache
def ec_key(algorithm: str = "ES256", kid: str = "ec") -> SigningKey:
    curve = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}[algorithm]
    key = ec.generate_private_key(curve)
    return _named(algorithm, key, _public(algorithm, key.public_key()), kid)


@cache
def ed25519_key(kid: str = "ed") -> SigningKey:
    key = ed25519.Ed25519PrivateKey.generate()
    return _named("EdDSA", key, _public("EdDSA", key.public_key()), kid)


@cache
def secret_key(algorithm: str = "HS256", kid: str = "hs", secret: bytes = b"0123456789abcdef" * 4) -> SigningKey:
    return _named(algorithm, secret, {"kty": "oct", "k": b64(secret)}, kid)


def key_set(*keys: SigningKey | Mapping[str, Any]) -> str:
    """A JWKS document."""
    return json.dumps({"keys": [key.jwk if isinstance(key, SigningKey) else key for key in keys]})


def _public(algorithm: str, key: Any) -> Json:
    jwk = get_default_algorithms()[algorithm].to_jwk(key, as_dict=True)
    return {name: value for name, value in jwk.items() if name != "key_ops"}


def _named(algorithm: str, private: Any, jwk: Json, kid: str) -> SigningKey:
    return SigningKey(algorithm, private, {**jwk, "kid": kid})


def inspected(*headers: tuple[str, str], target: str = "/a", method: str = "GET", tls: bool = False) -> Inspection:
    """A request on its way through the filters; `Host: h.test` is added."""
    raw = [(b"host", b"h.test"), *((name.encode(), value.encode("latin-1")) for name, value in headers)]
    request = ServerRequest(method, target.encode(), raw, connection=Connection(tls=tls))
    path, _, query = target.partition("?")
    return Inspection(request, path, query, "h.test", "h.test", target.encode())


def bearer(token: str) -> tuple[str, str]:
    return "authorization", f"Bearer {token}"
