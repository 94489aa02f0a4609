"""Tokens of requests: found, verified, and what follows from them (Envoy 1.40's ``jwt_authn``).

`compile_jwt` makes a step of the server's flow from the filter: everything that depends on configuration alone is done once.
A request with a token that was verified within the last minute costs a hash and two look-ups.

Stricter than Envoy: see `jwt_token` and `jwt_locations`; weak keys are not used (`jwt_keys`); claims that would break a header
are refused; ``www-authenticate`` names the path without the query, since a query may hold a token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from meshlib.model.authentication import (
    AllowMissing,
    AllowMissingOrFailed,
    AllRequirements,
    AnyRequirement,
    JwtAuthentication,
    JwtProvider,
    Provider,
    Requirement,
)
from meshlib.model.inbound import Inspection, Refusal
from meshlib.policy.jwt_cache import LIFETIME, Recent
from meshlib.policy.jwt_claims import audience, audience_failure, headers_of, normalized, time_failure
from meshlib.policy.jwt_keys import KeySet, KeySource, NoRemoteKeys, parse_key_set
from meshlib.policy.jwt_locations import Location, locations
from meshlib.policy.jwt_token import MISSING, UNKNOWN_ISSUER, Failure, Token, parse_token

METADATA: Final = "envoy.filters.http.jwt_authn"

Step = Callable[[Inspection], "Refusal | None"]
Verdict = Failure | None
Verify = Callable[[Inspection, float], Verdict]
"""(request, Unix seconds) -> why the requirement does not hold.  Applies what follows from a token only when it does."""

_LONGEST_PATH = 256  # in www-authenticate, as in Envoy


def compile_jwt(filter: JwtAuthentication, keys: KeySource | None = None, *, now: Callable[[], float]) -> Step:  # noqa: A002
    """`keys`: for providers with a ``jwks_uri``; `now`: Unix seconds.  The step never raises, whatever a request holds."""
    if filter.requirement is None:
        return _nothing_required(filter)
    verify = _Compilation(filter, keys or NoRemoteKeys()).requirement(filter.requirement)
    outputs = _outputs(filter)
    bypass = filter.bypass_cors_preflight

    def step(inspection: Inspection) -> Refusal | None:
        if outputs:
            _strip(inspection, outputs)
        if bypass and inspection.request.method == "OPTIONS" and _is_preflight(inspection):
            return None
        failure = verify(inspection, now())
        return None if failure is None else _refusal(failure, inspection)

    return step


def _nothing_required(filter: JwtAuthentication) -> Step:  # noqa: A002
    outputs = _outputs(filter)

    def step(inspection: Inspection) -> None:
        _strip(inspection, outputs)

    return step


def _outputs(filter: JwtAuthentication) -> frozenset[bytes]:  # noqa: A002
    """Headers that only verified tokens may set."""
    names = {name for provider in filter.providers.values() for name, _ in provider.claim_headers}
    names |= {provider.payload_header for provider in filter.providers.values() if provider.payload_header}
    return frozenset(name.encode("latin-1") for name in names)


def _strip(inspection: Inspection, outputs: frozenset[bytes]) -> None:
    """Whatever a client has put there is no claim, also when it sends no token at all."""
    fields, changes = inspection.request.fields, inspection.header_changes
    for name in outputs:
        if name in fields or name in changes:
            changes[name] = None


def _is_preflight(inspection: Inspection) -> bool:
    fields = inspection.request.fields
    return bool(fields.get(b"origin") and fields.get(b"access-control-request-method"))


def _refusal(failure: Failure, inspection: Inspection) -> Refusal:
    scheme = "https" if inspection.request.connection.tls else "http"
    path = inspection.path[:_LONGEST_PATH].replace('"', "%22")
    challenge = f'Bearer realm="{scheme}://{inspection.host}{path}"'
    if failure is not MISSING:
        challenge += ', error="invalid_token"'
    return Refusal(
        failure.status,
        f"jwt_authn_access_denied{{{failure.message.replace(' ', '_')}}}",
        failure.message.encode(),
        close=False,
        headers=((b"www-authenticate", challenge.encode("latin-1", "replace")),),
    )


class _Compilation:
    """From requirements to functions."""

    def __init__(self, filter: JwtAuthentication, keys: KeySource) -> None:  # noqa: A002
        self._providers = filter.providers
        self._keys = keys
        self._issuers: Recent[str] = Recent()  # of verified tokens, by digest
        self._verifiers: dict[Provider, _ProviderVerifier] = {}

    def requirement(self, wanted: Requirement) -> Verify:
        match wanted:
            case Provider():
                return self._provider(wanted).verify
            case AnyRequirement(of):
                return self._any(of)
            case AllRequirements(of):
                return _all([self.requirement(item) for item in of])
            case AllowMissing():
                return self._allow_missing()
            case AllowMissingOrFailed():
                return _allow_failed(self._each())

    def _any(self, of: tuple[Requirement, ...]) -> Verify:
        """Whatever the order in the configuration: what allows anything is asked last, and once."""
        regular = [item for item in of if not isinstance(item, AllowMissing | AllowMissingOrFailed)]
        children = [(self.requirement(item), isinstance(item, Provider)) for item in regular]
        of_providers = any(is_provider for _, is_provider in children)
        if AllowMissingOrFailed() in of:
            return _allow_failed(_any(children))
        if AllowMissing() in of and not of_providers:
            return _any([*children, (self._allow_missing(), False)])
        return _any(children, allow_missing=AllowMissing() in of)

    def _allow_missing(self) -> Verify:
        """Without a group the requirement is about the tokens of all providers."""
        return _any([(self._each(), True)], allow_missing=True)

    def _each(self) -> Verify:
        return _any([(self._provider(Provider(name)).verify, True) for name in self._providers])

    def _provider(self, wanted: Provider) -> _ProviderVerifier:
        found = self._verifiers.get(wanted)
        if found is None:
            provider = self._providers[wanted.name]
            audiences = provider.audiences if wanted.audiences is None else wanted.audiences
            keys = _key_source(provider, self._keys)
            keys.keys(provider)  # begin to fetch them, before the first request needs them
            found = _ProviderVerifier(provider, audiences, keys, self._issuers)
            self._verifiers[wanted] = found
        return found


def _any(children: list[tuple[Verify, bool]], *, allow_missing: bool = False) -> Verify:
    """Left to right, the first that holds; each child with whether it is a provider.

    "Missing" and "unknown issuer" say less than any other failure.  `allow_missing`: it holds, too, when none of the
    providers found a token.
    """

    def verify(inspection: Inspection, now: float) -> Verdict:
        telling: Verdict = None
        failure: Verdict = MISSING
        found = False
        for child, is_provider in children:
            failure = child(inspection, now)
            if failure is None:
                return None
            if failure is not MISSING:
                found = found or is_provider
                if failure is not UNKNOWN_ISSUER:
                    telling = failure
        if allow_missing:
            return telling or UNKNOWN_ISSUER if found else None
        return telling or failure

    return verify


def _allow_failed(attempt: Verify) -> Verify:
    def verify(inspection: Inspection, now: float) -> Verdict:
        attempt(inspection, now)
        return None

    return verify


def _all(children: list[Verify]) -> Verify:
    def verify(inspection: Inspection, now: float) -> Verdict:
        for child in children:
            failure = child(inspection, now)
            if failure is not None:
                return failure
        return None

    return verify


def _key_source(provider: JwtProvider, remote: KeySource) -> KeySource:
    return remote if provider.jwks_uri else _InlineKeys(parse_key_set(provider.jwks) if provider.jwks else "")


class _InlineKeys:
    """Keys that came with the configuration.  An empty document is what the control service sends for keys that it cannot
    fetch: it verifies nothing.
    """

    __slots__ = ("_keys",)

    def __init__(self, keys: KeySet | str) -> None:
        self._keys = keys or "Jwks doesn't have any valid public key"

    def keys(self, provider: JwtProvider) -> KeySet | str:
        return self._keys

    def key_missed(self, provider: JwtProvider) -> None:
        return None


@dataclass(frozen=True, slots=True, eq=False)
class _Verified:
    """A token that was verified, and what follows from that."""

    issuer: str
    keys: KeySet  # with these; others have to verify it again
    since: float  # Unix seconds, like `until`; before `since` the clock was set back
    until: float
    payload: dict[str, Any]
    headers: tuple[tuple[bytes, bytes], ...]


class _ProviderVerifier:
    """One provider: a token of its issuer, signed by its keys, for its audiences, at this time."""

    __slots__ = ("_audiences", "_cache", "_issuer", "_issuers", "_keys", "_locations", "_provider")

    def __init__(self, provider: JwtProvider, audiences: tuple[str, ...], keys: KeySource, issuers: Recent[str]) -> None:
        self._provider = provider
        self._issuer = provider.issuer
        self._audiences = frozenset(map(audience, audiences))
        self._keys = keys
        # The last place first, as Envoy does: with several bad tokens it decides which of them is told.
        self._locations = locations(provider)[::-1]
        self._cache: Recent[_Verified] = Recent()
        self._issuers = issuers

    def verify(self, inspection: Inspection, now: float) -> Verdict:
        """Each token that is found must be right: the application may use any of them."""
        verified: _Verified | None = None
        used: list[Location] = []
        for location in self._locations:
            for text in location.find(inspection):
                digest = sha256(text).digest()
                known = self._cache.get(digest)
                if known is None or not known.since <= now < known.until or known.keys is not self._keys.keys(self._provider):
                    result = self._check(text, digest, now)
                    if isinstance(result, Failure):
                        return result
                    known = result
                verified = known
                used.append(location)
        if verified is None:
            return MISSING
        if verified.headers:
            inspection.header_changes.update(verified.headers)
        if self._provider.payload_in_metadata:
            found = inspection.metadata.setdefault(METADATA, {})
            found[self._provider.payload_in_metadata] = verified.payload.copy()
        if not self._provider.forward:
            for location in used:
                location.remove(inspection)
        return None

    def _check(self, text: bytes, digest: bytes, now: float) -> _Verified | Failure:
        if self._issuer and (issuer := self._issuers.get(digest)) is not None and issuer != self._issuer:
            return UNKNOWN_ISSUER  # another provider has verified it before
        result = self._verified(text, now)
        if isinstance(result, _Verified):
            self._cache.put(digest, result)
            self._issuers.put(digest, result.issuer)
        else:
            self._cache.discard(digest)
        return result

    def _verified(self, text: bytes, now: float) -> _Verified | Failure:
        """Everything, in Envoy's order."""
        token = parse_token(text)
        if isinstance(token, Failure):
            return token
        if self._issuer and token.issuer != self._issuer:
            return UNKNOWN_ISSUER
        failure = time_failure(token, self._provider, now) or audience_failure(token, self._audiences)
        if failure is not None:
            return failure
        keys = self._keys.keys(self._provider)
        if isinstance(keys, str):
            return Failure(keys)
        failure = keys.verify(token)
        if failure is not None:
            if not keys.knows(token):
                self._keys.key_missed(self._provider)
            return failure
        return self._accepted(token, keys, now)

    def _accepted(self, token: Token, keys: KeySet, now: float) -> _Verified | Failure:
        provider = self._provider
        headers = headers_of(token, provider)
        if isinstance(headers, Failure):
            return headers
        until = now + LIFETIME
        if token.expires:
            until = min(until, token.expires + provider.clock_skew)
        payload = normalized(token.claims, provider.space_delimited_claims)
        return _Verified(token.issuer, keys, now, until, payload, headers)
