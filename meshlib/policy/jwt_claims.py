"""Claims of a token: whether they hold now and here, and what the application and the policies get of them."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final

from meshlib.model.authentication import JwtProvider
from meshlib.policy.jwt_token import FAILS, Failure, Token

NOT_YET_VALID: Final = Failure("Jwt not yet valid")
EXPIRED: Final = Failure("Jwt is expired")
AUDIENCE: Final = Failure("Audiences in Jwt are not allowed", 403)
UNSAFE_CLAIM: Final = Failure("Jwt claim cannot be the value of a header")

_SCHEME = re.compile(r"https?://")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def time_failure(token: Token, provider: JwtProvider, now: float) -> Failure | None:
    """`now`: Unix seconds.  A token without ``exp`` never expires unless the provider requires it, as in Envoy.

    Beyond Envoy: a token from the future (``iat``) is not valid yet.
    """
    skew = provider.clock_skew
    if now + skew < token.not_before or now + skew < token.issued:
        return NOT_YET_VALID
    if token.expires and now > token.expires + skew:
        return EXPIRED
    if provider.require_expiration and not token.expires:
        return FAILS
    return None


def audience(text: str) -> str:
    """As Envoy compares it: without scheme and one trailing slash."""
    return _SCHEME.sub("", text, count=1).removesuffix("/") if text.startswith("http") else text.removesuffix("/")


def audience_failure(token: Token, allowed: frozenset[str]) -> Failure | None:
    """`allowed`: through `audience`; empty allows any token."""
    if not allowed or any(audience(item) in allowed for item in token.audiences):
        return None
    return AUDIENCE


def normalized(claims: Mapping[str, Any], space_delimited: tuple[str, ...]) -> dict[str, Any]:
    """The claims as policies see them: of those named, a text is the list of its words."""
    result = dict(claims)
    for name in space_delimited:
        value = result.get(name)
        if isinstance(value, str):
            result[name] = [word for word in value.split(" ") if word]
    return result


def headers_of(token: Token, provider: JwtProvider) -> tuple[tuple[bytes, bytes], ...] | Failure:
    """Headers for the application.  A claim that a header cannot carry makes the token unusable."""
    values: dict[str, str] = {}
    for name, claim in provider.claim_headers:
        text = _text(_claim(token.claims, claim))
        if text:
            values[name] = f"{values[name]},{text}" if name in values else text
    if provider.payload_header:
        padding = "=" * (-len(token.payload) % 4) if provider.pad_payload_header else ""
        values[provider.payload_header] = token.payload + padding
    if any(_CONTROL.search(value) for value in values.values()):
        return UNSAFE_CLAIM
    return tuple((name.encode("latin-1"), value.encode("utf-8")) for name, value in values.items())


def _claim(claims: Mapping[str, Any], path: str) -> object:
    """``a.b`` is member b of member a; a dot is never part of a name."""
    value: Any = claims
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return str(int(value)) if value.is_integer() else f"{value:f}"
        case _:
            return b64encode(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()).decode("ascii")
