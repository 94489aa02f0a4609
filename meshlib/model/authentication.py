"""Tokens that requests must or may carry (Envoy ``jwt_authn``, Istio RequestAuthentication)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Union


@dataclass(frozen=True, slots=True)
class JwtProvider:
    """One issuer and what is done with its tokens.  Times in seconds.

    Exactly one of `jwks` (the document itself) and `jwks_uri` is set.  Without `from_headers`, `from_params` and
    `from_cookies` the token is looked for in ``Authorization: Bearer`` and in the query parameter ``access_token``.
    """

    name: str  # "origins-0"
    issuer: str
    audiences: tuple[str, ...] = ()  # empty: any
    jwks: str = ""
    jwks_uri: str = ""
    jwks_timeout: float = 5.0
    jwks_refresh: float = 300.0
    from_headers: tuple[tuple[str, str], ...] = ()  # lower-case name, prefix of the value
    from_params: tuple[str, ...] = ()
    from_cookies: tuple[str, ...] = ()
    forward: bool = False  # False: the application does not see the token
    payload_header: str = ""  # lower-case; base64url of the payload, for the application
    pad_payload_header: bool = False
    claim_headers: tuple[tuple[str, str], ...] = ()  # lower-case header, claim ("a.b" is nested)
    clock_skew: float = 60.0
    space_delimited_claims: tuple[str, ...] = ("permission", "scope")
    payload_in_metadata: str = "payload"
    require_expiration: bool = False  # tokens without ``exp`` are refused


@dataclass(frozen=True, slots=True)
class Provider:
    """A token of this provider.  `audiences`: instead of the provider's own, unless None."""

    name: str
    audiences: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class AnyRequirement:
    """Left to right, the first that holds."""

    of: tuple[Requirement, ...]


@dataclass(frozen=True, slots=True)
class AllRequirements:
    of: tuple[Requirement, ...]


@dataclass(frozen=True, slots=True)
class AllowMissing:
    """Holds when no token of any provider of the enclosing group was found; one that is present and bad fails."""


@dataclass(frozen=True, slots=True)
class AllowMissingOrFailed:
    """Always holds."""


Requirement = Union[Provider, AnyRequirement, AllRequirements, AllowMissing, AllowMissingOrFailed]  # noqa: UP007


@dataclass(frozen=True, slots=True)
class JwtAuthentication:
    """The filter.  `requirement` None: nothing is asked for."""

    name: str
    providers: Mapping[str, JwtProvider] = field(default_factory=dict)
    requirement: Requirement | None = None
    bypass_cors_preflight: bool = False
