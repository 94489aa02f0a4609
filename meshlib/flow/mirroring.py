"""Copies of a call for the mirrors of its route (Envoy ``request_mirror_policies``): decided here, sent by somebody else.

Drawn once a call, each mirror by itself, after the route has made the request what it is upstream; tries after the first have
none.  A copy has one try, no part in the call's deadline, and no mirrors of its own.  It is as the call: method, path, headers
and body; only the host says that it is none, by ``-shadow`` behind its name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from meshlib.flow.commands import Copy
from meshlib.model.call import Call
from meshlib.model.listener import PathNormalization
from meshlib.model.route import Forward, Mirror, PathMatch, Route, RouteMatch, VirtualHost, WeightedCluster
from meshlib.model.snapshot import Target
from meshlib.policy.identity_headers import PREFIX
from meshlib.policy.rng import Rng

if TYPE_CHECKING:
    from meshlib.flow.destination import Destination

LONGEST: Final = 15.0
"""Seconds that a copy may take where the route has no timeout, which Envoy would then give it: nobody waits for it, so nobody
would ever give it up."""

_EVERYTHING = RouteMatch(PathMatch("prefix", "/"))


class Mirrors:
    """Of one route."""

    __slots__ = ("_mirrors",)

    def __init__(self, action: Forward, name: str, make: Callable[[Target], Destination]) -> None:
        timeout = min(action.timeout or LONGEST, LONGEST)
        self._mirrors = tuple(
            (mirror.fraction, mirror.keep_host, make(_target(mirror, name, timeout))) for mirror in action.mirrors
        )

    def copies(self, call: Call, rng: Rng) -> list[Copy]:
        """Those that are to be sent of this call."""
        return [
            Copy(_copied(call, keep_host=keep_host), destination)
            for fraction, keep_host, destination in self._mirrors
            if fraction >= 1.0 or rng.random() < fraction
        ]


def mirrors_of(action: Forward, name: str, make: Callable[[Target], Destination]) -> Mirrors | None:
    """None: the route, which goes by `name`, has none.  `make`: compiles a target."""
    return Mirrors(action, name, make) if action.mirrors else None


def shadowed(host: str) -> str:
    """``reviews-shadow:9080`` for ``reviews:9080``."""
    name, colon, port = host.rpartition(":")
    if colon and port.isdigit() and (":" not in name or name.endswith("]")):
        return f"{name}-shadow:{port}"
    return f"{host}-shadow"


def _copied(call: Call, *, keep_host: bool) -> Call:
    """The caller's wishes about retries and time are about the call, not about its copies.  What the mesh's ends tell each
    other is for the one that is called.
    """
    host, headers = call.host, []
    for pair in call.headers:
        name = pair[0].lower()
        if name == b"host":  # as the caller has written it, which goes before all else
            host = pair[1].decode("latin-1")
        elif not name.startswith(PREFIX):
            headers.append(pair)
    if not keep_host:
        host = shadowed(host)
    return Call(call.method, call.authority, call.path, headers, started=call.started, replayable=False, host=host)


def _target(mirror: Mirror, name: str, timeout: float) -> Target:
    """A target of one route to one cluster.  The path has its canonical form already, or what a rewrite has made of it."""
    action = Forward((WeightedCluster(mirror.cluster),), timeout=timeout)
    host = VirtualHost(f"mirror {mirror.cluster}", ("*",), (Route(name, _EVERYTHING, action),), attempt_count_header=True)
    return Target(mirror.cluster, host, {}, normalization=PathNormalization.NONE)
