"""RequestAuthentication: which tokens a workload believes."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, field

from meshlib_control.config.kinds.common import Duration, Element, PolicyTargetReference
from meshlib_control.config.kinds.destination_rule import WorkloadSelector

Strings = tuple[str, ...]
Address = Annotated[str, Meta(max_length=2048)]


class JWTHeader(Element, frozen=True):
    """A header with a token."""

    name: str = ""
    """The header's name, in any case; has to be given."""
    prefix: str | None = None
    """What stands before the token: `Bearer ` with its space. The value alone is the token unless given."""


class ClaimToHeader(Element, frozen=True):
    """A claim that the application gets as a header."""

    header: str = ""
    """The header's name; has to be given. What clients send in it is removed."""
    claim: str = ""
    """The claim, has to be given; `a.b` is member `b` of `a`. Lists and objects arrive as JSON in base64."""


class JWTRule(Element, frozen=True):
    """One issuer, its keys, and where its tokens are."""

    at_most_one: ClassVar[tuple[tuple[str, ...], ...]] = (("jwks", "jwksUri", "jwks_uri"),)

    issuer: str = ""
    """Who issues the tokens: claim `iss`. Without keys, they are discovered at
    `ISSUER/.well-known/openid-configuration`. Empty: any issuer whose tokens the keys verify."""
    audiences: Strings = ()
    """Tokens have to be for one of them: claim `aud`, compared without scheme and final slash. Any unless given."""
    jwks_uri: Address | None = None
    """Where the issuer's keys are."""
    jwks_uri_snake: Address | None = field(name="jwks_uri", default=None)
    """An old spelling of `jwksUri`."""
    jwks: str | None = None
    """The issuer's keys: a JSON Web Key Set."""
    from_headers: tuple[JWTHeader, ...] = ()
    """Headers with the token. Where no place is given at all: `Authorization: Bearer`, and the parameter `access_token`."""
    from_params: Strings = ()
    """Query parameters with the token."""
    from_cookies: Strings = ()
    """Cookies with the token."""
    output_payload_to_header: str | None = None
    """A header in which the application gets the claims, in base64url. What clients send in it is removed."""
    forward_original_token: bool = False
    """Whether the application sees the token itself."""
    output_claim_to_headers: tuple[ClaimToHeader, ...] = ()
    """Headers in which the application gets single claims."""
    timeout: Duration = 5.0
    """How long fetching the keys may take."""
    space_delimited_claims: Annotated[Strings, Meta(max_length=64)] = ()
    """Claims that are lists written as words, beside `scope` and `permission`: policies match each word."""
    presence: Literal["OPTIONAL", "REQUIRED"] = "OPTIONAL"
    """`OPTIONAL`: requests without a token pass, for an AuthorizationPolicy to judge; `REQUIRED`: they are refused."""


class RequestAuthentication(Element, frozen=True):
    """Which tokens a workload believes. A request with a token that is not valid is refused.

    Those of the root namespace, of the namespace and of the workload add up.
    """

    at_most_one: ClassVar[tuple[tuple[str, ...], ...]] = (("selector", "targetRef", "targetRefs"),)

    selector: WorkloadSelector | None = None
    """The workloads of the namespace that it is for; all of them unless given."""
    target_ref: PolicyTargetReference | None = None
    """A gateway or waypoint. The policy is for that alone, and so for no workload of this mesh."""
    target_refs: Annotated[tuple[PolicyTargetReference, ...], Meta(max_length=16)] = ()
    """Gateways or waypoints, as `targetRef`."""
    jwt_rules: Annotated[tuple[JWTRule, ...], Meta(max_length=4096)] = ()
    """Issuers. A request is right when the token of one of them is."""
