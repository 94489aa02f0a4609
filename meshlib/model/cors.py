"""How browsers are answered that ask on behalf of pages from elsewhere (Fetch standard, CORS protocol)."""

from __future__ import annotations

from dataclasses import dataclass

from meshlib.model.route import RouteMatch, StringMatch


@dataclass(frozen=True, slots=True)
class CorsPolicy:
    """Envoy ``envoy.extensions.filters.http.cors.v3.CorsPolicy``.  Texts are header values as they are sent; empty: not sent.

    ``*`` as `methods` or `headers` stands for what the browser asks for.
    """

    origins: tuple[StringMatch, ...] = ()  # any one of them allows an origin
    methods: str = ""
    headers: str = ""
    exposed: str = ""  # headers of responses that scripts may read
    max_age: str = ""  # seconds that a browser may keep the answer to a preflight
    credentials: bool = False
    private_network: bool = False
    forwards_unmatched: bool = True  # preflights from other origins go to the application; False: they are answered here


@dataclass(frozen=True, slots=True)
class CorsRoute:
    """`policy` None: requests that match are none of ours."""

    match: RouteMatch
    policy: CorsPolicy | None


@dataclass(frozen=True, slots=True)
class Cors:
    """The filter of an inbound listener: the first route that matches decides."""

    routes: tuple[CorsRoute, ...]
