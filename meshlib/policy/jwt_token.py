"""The compact form of a token, read strictly (RFC 7515, RFC 7519).  What is read here is not verified yet.

Order of the checks and messages are Envoy's (jwt_verify_lib).  Stricter than Envoy: no empty sections, no duplicate members,
no lenient JSON, times are integers, no ``crit`` (nothing is understood, so RFC 7515 section 4.1.11 refuses all of it), no
``b64: false``, no tokens that say that they are for another purpose (RFC 8725 section 3.11).
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

MAX_TOKEN: Final = 8192
"""Longest token, in bytes.  Envoy's whole request head has 60 KiB."""

MAX_DEPTH: Final = 100
"""Deepest nesting of JSON in a token; that of protobuf's parser, hence Envoy's."""

ALGORITHMS: Final = frozenset(f"{family}{bits}" for family in ("RS", "PS", "ES", "HS") for bits in ("256", "384", "512")) | {
    "EdDSA"
}
"""What Envoy verifies.  ``none`` is no algorithm."""

_SECTION = re.compile(rb"[A-Za-z0-9_-]+")
_MAX_TIME = 2**63
_OTHER_PURPOSES = frozenset(
    {
        "client-authentication+jwt",
        "dpop+jwt",
        "entity-statement+jwt",
        "jose+json",
        "kb+jwt",
        "logout+jwt",
        "oauth-authz-req+jwt",
        "secevent+jwt",
        "token-introspection+jwt",
    }
)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a token is refused, in Envoy's words, and the status that says so."""

    message: str
    status: int = 401


MISSING: Final = Failure("Jwt is missing")
UNKNOWN_ISSUER: Final = Failure("Jwt issuer is not configured")
FAILS: Final = Failure("Jwt verification fails")

_FORM = Failure("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections")
_TOO_LONG = Failure(f"Jwt is longer than {MAX_TOKEN} bytes")


@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """A well-formed token.  Times in Unix seconds; 0: not given."""

    algorithm: str
    key_id: str
    issuer: str
    audiences: tuple[str, ...]
    issued: int
    not_before: int
    expires: int
    claims: Mapping[str, Any]
    payload: str  # as sent: base64url without padding
    signed: bytes
    signature: bytes


def parse_token(text: bytes) -> Token | Failure:
    """Never raises, whatever the bytes are."""
    if len(text) > MAX_TOKEN:
        return _TOO_LONG
    sections = text.split(b".")
    if len(sections) != 3 or not all(sections):
        return _FORM
    header = _object(sections[0], "header")
    if isinstance(header, Failure):
        return header
    if fault := _header_fault(header):
        return Failure(f"Jwt header {fault}")
    claims = _object(sections[1], "payload")
    if isinstance(claims, Failure):
        return claims
    if fault := _claims_fault(claims):
        return Failure(f"Jwt payload {fault}")
    signature = _decode(sections[2])
    if signature is None:
        return Failure("Jwt signature is an invalid Base64url encoded")
    audience = claims.get("aud", [])
    return Token(
        algorithm=header["alg"],
        key_id=header.get("kid", ""),
        issuer=claims.get("iss", ""),
        audiences=(audience,) if isinstance(audience, str) else tuple(audience),
        issued=claims.get("iat", 0),
        not_before=claims.get("nbf", 0),
        expires=claims.get("exp", 0),
        claims=claims,
        payload=sections[1].decode("ascii"),
        signed=text[: -len(sections[2]) - 1],
        signature=signature,
    )


def _header_fault(header: Mapping[str, Any]) -> str:
    if not isinstance(header.get("alg"), str):
        return "[alg] field is required and must be a string"
    if header["alg"] not in ALGORITHMS:
        return "[alg] is not supported"
    if not isinstance(header.get("kid", ""), str):
        return "[kid] field is not a string"
    if "crit" in header:
        return "[crit] is not supported"
    if header.get("b64", True) is not True:
        return "[b64] is not supported"
    kind = header.get("typ", "")
    if not isinstance(kind, str):
        return "[typ] field is not a string"
    if kind.lower().removeprefix("application/") in _OTHER_PURPOSES:
        return "[typ] is not supported"
    return ""


def _claims_fault(claims: Mapping[str, Any]) -> str:
    for name in ("iss", "sub"):
        if not isinstance(claims.get(name, ""), str):
            return f"[{name}] field is not a string"
    for name in ("iat", "nbf", "exp"):
        value = claims.get(name, 0)
        if type(value) is not int:  # a boolean is no number here
            return f"[{name}] field is not an integer"
        if not 0 <= value < _MAX_TIME:
            return f"[{name}] field is not a positive 64 bit integer"
    audience = claims.get("aud", "")
    if not isinstance(audience, str) and not (isinstance(audience, list) and all(isinstance(item, str) for item in audience)):
        return "[aud] field is not a string or string list"
    if not isinstance(claims.get("jti", ""), str):
        return "[jti] field is not a string"
    return ""


def _object(section: bytes, what: str) -> dict[str, Any] | Failure:
    text = _decode(section)
    if text is None:
        return Failure(f"Jwt {what} is an invalid Base64url encoded")
    value = parse_object(text)
    return Failure(f"Jwt {what} is an invalid JSON") if value is None else value


def _decode(section: bytes) -> bytes | None:
    if _SECTION.fullmatch(section) is None or len(section) % 4 == 1:
        return None
    try:
        return urlsafe_b64decode(section + b"=" * (-len(section) % 4))
    except binascii.Error:  # pragma: no cover - ruled out above
        return None


def parse_object(text: bytes) -> dict[str, Any] | None:
    """A JSON object in UTF-8 with each member once, without NaN and infinite numbers, at most `MAX_DEPTH` deep."""
    if text.count(b"{") + text.count(b"[") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        return None
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)
        if b"\\u" in text:  # an escape may stand for half a character, which no header can carry
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _depth(text: bytes) -> int:
    deepest = depth = 0
    quoted = escaped = False
    for byte in text:
        if quoted:
            if escaped:
                escaped = False
            elif byte == 0x5C:  # backslash
                escaped = True
            elif byte == 0x22:  # quote
                quoted = False
        elif byte == 0x22:
            quoted = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is there twice")
    return members


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def _finite(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ValueError(digits)
    return value
