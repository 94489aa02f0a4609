"""JWTs of configured issuers, strictly: compact form, asymmetric algorithms bound to the key, every claim checked by hand.

The attack cases J01 to J10 (algorithm confusion, ``crit``, JSON serialization, array issuers, embedded keys) are tests by name.
"""

from __future__ import annotations

import base64
import json
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import jwt

from meshlib.lowlevel import SpiffeId
from meshlib_control.ca.errors import CallerRefused, IdentityRefused
from meshlib_control.ca.issuer_keys import Fetch, IssuerKeys
from meshlib_control.ca.issuers import IssuerSettings
from meshlib_control.ca.names import workload_id

MAX_TOKEN = 8192
MAX_KEY_ID = 256
MAX_TRIED = 4
"""Keys that a token without a key id is checked with."""
TYPES = ("jwt", "jose")
"""What ``typ`` may be, if it is there."""

_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class _Header:
    algorithm: str
    key_id: str | None


class JsonTokens:
    """Those of several issuers.  `fetch`: how key sets are fetched that have a URL."""

    def __init__(
        self,
        issuers: Iterable[IssuerSettings],
        trust_domain: str,
        *,
        fetch: Fetch | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._trust_domain = trust_domain
        self._clock = clock
        self._issuers = {
            each.issuer: (each, IssuerKeys(each.jwks, fetch, name=each.issuer, clock=monotonic)) for each in issuers
        }

    @property
    def problems(self) -> tuple[str, ...]:
        """Issuers whose keys cannot be read."""
        return tuple(f"JWT issuer {name}: {keys.problem}" for name, (_, keys) in self._issuers.items() if keys.problem)

    async def identity(self, token: str) -> tuple[SpiffeId, str]:
        """Whom the token names, and its issuer.  Raises `CallerRefused`, whose message shows nothing of the token."""
        header, claims = _unverified(token)
        issuer = claims.get("iss")
        found = self._issuers.get(issuer) if isinstance(issuer, str) else None
        if found is None:
            raise CallerRefused("the JWT is of no configured issuer")
        settings, keys = found
        if header.algorithm not in settings.algorithms:
            raise CallerRefused(f"the JWT's algorithm is not one that {settings.issuer} may use")
        await self._verify(token, header, keys)
        _check_claims(claims, settings, self._clock())
        try:
            return workload_id(self._trust_domain, *settings.names_in(claims)), settings.issuer
        except IdentityRefused as error:
            raise CallerRefused(f"the JWT of {settings.issuer} names no workload: {error}") from error

    async def _verify(self, token: str, header: _Header, keys: IssuerKeys) -> None:
        for candidate in (await keys.candidates(header.key_id, header.algorithm))[:MAX_TRIED]:
            try:
                jwt.api_jws.PyJWS().decode_complete(token, candidate.key, algorithms=[header.algorithm])
            except jwt.PyJWTError:
                continue
            return
        raise CallerRefused("the JWT is not signed by any key of its issuer")


def _unverified(token: str) -> tuple[_Header, Mapping[str, object]]:
    """What the token says of itself: to find out whose keys to check it with, and for nothing else."""
    if len(token) > MAX_TOKEN:
        raise CallerRefused(f"the JWT has more than {MAX_TOKEN} bytes")
    if not _COMPACT.fullmatch(token):
        raise CallerRefused("the credential is no JWT in compact form")
    first, second, _ = token.split(".")
    return _header(_json(first)), _json(second)


def _header(content: Mapping[str, object]) -> _Header:
    if "crit" in content or "b64" in content:
        raise CallerRefused("the JWT's header has extensions that must be understood, and are not (RFC 7515, section 4.1.11)")
    kind, algorithm, key_id = content.get("typ"), content.get("alg"), content.get("kid")
    if kind is not None and not (isinstance(kind, str) and kind.lower() in TYPES):
        raise CallerRefused("the JWT is of another type")
    if not isinstance(algorithm, str):
        raise CallerRefused("the JWT names no algorithm")
    if key_id is not None and not (isinstance(key_id, str) and len(key_id) <= MAX_KEY_ID):
        raise CallerRefused("the JWT's key id is none")
    # Keys that a token brings along (jwk, jku, x5c, x5u) are not looked at.
    return _Header(algorithm, key_id)


def _json(part: str) -> Mapping[str, object]:
    try:
        content = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise CallerRefused("the JWT cannot be read") from error
    if not isinstance(content, dict):
        raise CallerRefused("the JWT cannot be read")
    return content


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """RFC 7519, section 4: of claims that are there twice nobody knows which one another reader takes."""
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a name is there twice")
    return content


def _check_claims(claims: Mapping[str, object], settings: IssuerSettings, now: float) -> None:
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or not any(each in settings.audiences for each in audiences if isinstance(each, str)):
        raise CallerRefused(f"the JWT of {settings.issuer} is not for this audience ({', '.join(settings.audiences)})")
    expires = _time(claims, "exp", settings)
    if expires is None:
        raise CallerRefused(f"the JWT of {settings.issuer} never expires")
    if now >= expires + settings.leeway:
        raise CallerRefused(f"the JWT of {settings.issuer} has expired")
    begins = _time(claims, "nbf", settings)
    issued = _time(claims, "iat", settings)
    if any(time is not None and time > now + settings.leeway for time in (begins, issued)):
        raise CallerRefused(f"the JWT of {settings.issuer} is not valid yet")
    if expires - (now if issued is None else issued) > settings.max_lifetime + settings.leeway:
        raise CallerRefused(f"the JWT of {settings.issuer} is good for longer than {settings.max_lifetime:g} s")


def _time(claims: Mapping[str, object], name: str, settings: IssuerSettings) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value < 1e12:
        raise CallerRefused(f"the JWT of {settings.issuer} has no time in {name}")
    return float(value)
