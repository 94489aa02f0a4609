"""Cross-origin requests, answered as Envoy's CORS filter answers them.

A preflight is an OPTIONS request with ``origin`` and ``access-control-request-method``.  One from an origin that is allowed is
answered here, and so is one from any other if the policy says so: with nothing that allows a browser anything.  Whatever else
a cross-origin request is, it goes on to all policies and to the application; if its origin is allowed, the response says so,
whatever the application has said about it.
"""

from __future__ import annotations

from collections.abc import Callable

from meshlib.model.call import Call
from meshlib.model.cors import Cors, CorsPolicy
from meshlib.model.inbound import Inspection, Refusal, ServerRequest
from meshlib.policy.matching import all_of, compile_string, header_values
from meshlib.policy.routing import compile_conditions, compile_path

PREFLIGHT = "cors_response"
"""Envoy's response code details of an answer that the filter gives."""

ALLOW_ORIGIN = b"access-control-allow-origin"
_ALLOW_CREDENTIALS = b"access-control-allow-credentials"
_ANY = b"*"
_TRUE = b"true"


class _Rules:
    """One policy, compiled."""

    __slots__ = ("_exposed", "_headers", "_max_age", "_methods", "_origins", "_policy")

    def __init__(self, policy: CorsPolicy) -> None:
        tests = tuple(compile_string(origin) for origin in policy.origins)
        # Envoy asks its matchers about a literal asterisk, too: one that takes it takes every origin.
        self._origins = (lambda origin: True) if any(test(_ANY) for test in tests) else _any_of(tests)
        self._policy = policy
        self._methods = policy.methods.encode("utf-8")
        self._headers = policy.headers.encode("utf-8")
        self._exposed = policy.exposed.encode("utf-8")
        self._max_age = policy.max_age.encode("utf-8")

    def step(self, inspection: Inspection, origin: bytes) -> Refusal | None:
        """Answer a preflight, or note what the response is to say."""
        request = inspection.request
        allowed = self._origins(origin)
        preflight = request.method == "OPTIONS" and request.fields.get(b"access-control-request-method")
        if preflight and (allowed or not self._policy.forwards_unmatched):
            return Refusal(200, PREFLIGHT, close=False, headers=self._preflight(request, origin, allowed), denial=False)
        if allowed:
            inspection.response_set = dict(self._actual(origin))
        return None

    def _preflight(self, request: ServerRequest, origin: bytes, allowed: bool) -> tuple[tuple[bytes, bytes], ...]:
        found: list[tuple[bytes, bytes]] = []
        if allowed:
            found.append((ALLOW_ORIGIN, origin))
        if self._policy.credentials:
            found.append((_ALLOW_CREDENTIALS, _TRUE))
        if self._methods:
            found.append((b"access-control-allow-methods", _asked(self._methods, request, b"access-control-request-method")))
        if self._headers:
            found.append((b"access-control-allow-headers", _asked(self._headers, request, b"access-control-request-headers")))
        if self._max_age:
            found.append((b"access-control-max-age", self._max_age))
        if self._policy.private_network and request.fields.get(b"access-control-request-private-network") == _TRUE:
            found.append((b"access-control-allow-private-network", _TRUE))
        if allowed and self._exposed:
            found.append((b"access-control-expose-headers", self._exposed))
        return tuple(found)

    def _actual(self, origin: bytes) -> list[tuple[bytes, bytes]]:
        found = [(ALLOW_ORIGIN, origin)]
        if self._policy.credentials:
            found.append((_ALLOW_CREDENTIALS, _TRUE))
        if self._exposed:
            found.append((b"access-control-expose-headers", self._exposed))
        return found


def compile_cors(cors: Cors) -> Callable[[Inspection], Refusal | None]:
    """A step of the server's flow.  Raises ValueError for an expression that is not RE2."""
    routes = tuple(
        (
            compile_path(route.match.path),
            all_of(compile_conditions(route.match)),
            _Rules(route.policy) if route.policy is not None else None,
        )
        for route in cors.routes
    )

    conditional = any(rest is not None for _, rest, _ in routes)

    def step(inspection: Inspection) -> Refusal | None:
        request = inspection.request
        if b"origin" not in request.fields:
            return None
        if len(request.fields) == len(request.headers):
            origin = request.fields[b"origin"].strip(b" \t")
        else:
            origin = b",".join(header_values(request.headers, b"origin"))  # Envoy joins the lines of a known header
        if not origin:
            return None
        call = _as_call(inspection) if conditional else None
        for path_test, rest, rules in routes:
            if (path_test is None or path_test(inspection.path)) and (rest is None or call is None or rest(call)):
                return rules.step(inspection, origin) if rules is not None else None
        return None

    return step


def _as_call(inspection: Inspection) -> Call:
    """As matchers of routes look at it."""
    request = inspection.request
    path = f"{inspection.path}?{inspection.query}" if inspection.query else inspection.path
    return Call(request.method, inspection.host, path, request.headers, host=inspection.host)


def _any_of(tests: tuple[Callable[[bytes], bool], ...]) -> Callable[[bytes], bool]:
    return lambda origin: any(test(origin) for test in tests)


def _asked(allowed: bytes, request: ServerRequest, name: bytes) -> bytes:
    """What is allowed; an asterisk is what the browser asks for, which may be nothing."""
    return request.fields.get(name, b"") if allowed == _ANY else allowed
