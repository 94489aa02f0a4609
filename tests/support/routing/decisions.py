"""What became of a request, in a form that two data planes can be compared by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from tests.support.routing.configurations import Configuration
from tests.support.routing.sites import NUMBER, Arrived

FORWARDED = "forwarded"
ANSWERED = "answered"
OUTSIDE = "outside"
"""Not part of the mesh, and may be called."""
BLOCKED = "blocked"
"""Not part of the mesh, and may not."""
REFUSED = "refused"
"""As a request that is none."""

Fields = tuple[tuple[str, tuple[str, ...]], ...]

# What a data plane adds of its own, or what is a matter of the connection.
_OWN_REQUEST = frozenset(
    {NUMBER, "x-forwarded-proto", "x-request-id", "x-forwarded-for", "x-envoy-internal", "connection", "content-length",
     "transfer-encoding", "x-envoy-expected-rq-timeout-ms", "grpc-timeout"}
)  # fmt: skip
_JOINED = frozenset({"user-agent", "accept"})
_OWN_RESPONSE = frozenset(
    {"server", "date", "x-envoy-upstream-service-time", "connection", "transfer-encoding", "content-length"}
)


@dataclass(frozen=True, slots=True)
class Decision:
    """`kind`: one of the above, or Envoy's response flag for what failed: NR (no route), NC (no cluster), UH (no endpoint).

    `place`: who got the request.

    `expected`: milliseconds that the endpoint was told to have.
    """

    kind: str
    route: str = ""
    cluster: str = ""
    place: str = ""
    method: str = ""
    target: str = ""
    request: Fields = ()
    expected: int = 0
    status: int = 0
    response: Fields = ()
    body: bytes = b""


def fields(pairs: Iterable[tuple[str, str]], own: frozenset[str]) -> Fields:
    """By name, the values of each in their order.  Of some names Envoy makes one line (`_JOINED`), which means the same."""
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        if name.lower() not in own:
            found.setdefault(name.lower(), []).append(value)
    return tuple(sorted((name, (",".join(values),) if name in _JOINED else tuple(values)) for name, values in found.items()))


def forwarded(
    arrived: Arrived, route: str, cluster: str, *, place: str, status: int, headers: Iterable[tuple[str, str]]
) -> Decision:
    return Decision(
        FORWARDED,
        route,
        cluster,
        place,
        arrived.method,
        arrived.target,
        fields(arrived.headers, _OWN_REQUEST),
        int(dict(arrived.headers).get("x-envoy-expected-rq-timeout-ms", 0)),
        status,
        fields(headers, _OWN_RESPONSE),
    )


def answered(route: str, *, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> Decision:
    return Decision(ANSWERED, route, status=status, response=fields(headers, _OWN_RESPONSE), body=body)


def copy_of(configuration: Configuration, arrived: Arrived) -> tuple[object, ...]:
    """What of a mirror's copy is compared; which instance of the service got it is up to its balancer."""
    headers = fields(arrived.headers, _OWN_REQUEST)
    return configuration.place(arrived.address), arrived.method, arrived.target, headers


def agree(theirs: Decision, ours: Decision) -> bool:
    """Whether Envoy and meshlib have decided the same.

    A path that is none is refused by Envoy whatever the host; meshlib has no opinion of paths of other hosts than the mesh's.
    A deadline is a moment in meshlib: what is left of it, in whole milliseconds, may be one less than the timeout.
    """
    if theirs.kind == REFUSED and ours.kind in (OUTSIDE, BLOCKED):
        return True
    return abs(theirs.expected - ours.expected) <= 1 and replace(theirs, expected=0) == replace(ours, expected=0)
