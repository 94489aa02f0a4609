"""A served request through a listener with every feature: CORS, a token, policies, a rate limit, load shedding.

No sockets: the server's flow from the raw request to the application, and what is done when the response begins.  Its figures
are part of `benchmarks.features`.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping

from benchmarks.authorization import per_header, per_path, per_service
from benchmarks.flow import INBOUND, microseconds
from benchmarks.jwt import authentication, token
from meshlib.flow.inbound import InboundPlan, compile_listener
from meshlib.flow.limiting import Limiting
from meshlib.flow.server import Handle, server_flow
from meshlib.flow.shedding import Shedding
from meshlib.model.authorization import Action, Rbac, RbacFilter
from meshlib.model.cors import Cors, CorsPolicy, CorsRoute
from meshlib.model.identity import Peer, SpiffeId
from meshlib.model.inbound import Connection, ServerRequest
from meshlib.model.listener import HttpFilter, InboundListener, MtlsMode
from meshlib.model.rate_limit import Attribute, Descriptor, LimitPolicy, RateLimit, RateLimits, TokenBucket
from meshlib.model.resilience import AdaptiveConcurrency, LoadShedding, ServerResilience
from meshlib.model.route import PathMatch, RouteMatch, StringMatch

POLICIES = 10
CALLER = 6
"""Of those that policies are about, the last one that may."""
ORIGIN = b"https://shop.example"

CORS = Cors(
    (
        CorsRoute(
            RouteMatch(PathMatch("prefix", "/")),
            CorsPolicy(origins=(StringMatch("exact", ORIGIN.decode()),), exposed="x-page", credentials=True),
        ),
    )
)
AUTHORIZATION = (
    RbacFilter("deny", Rbac(Action.DENY, (per_path(90), per_header(91), per_service(92)))),
    RbacFilter("allow", Rbac(Action.ALLOW, tuple(per_service(number) for number in range(CALLER + 1)))),
)
LIMITS = RateLimits(
    (
        LimitPolicy(
            "shop/items",
            (
                RateLimit(
                    "per-caller",
                    by=(Descriptor("attribute", attribute=Attribute.CALLER),),
                    bucket=TokenBucket(tokens=1_000_000, interval=1.0, burst=1_000_000),
                ),
            ),
        ),
    )
)
RESILIENCE = ServerResilience("items", LoadShedding(max_concurrency=500), AdaptiveConcurrency())


def features() -> Mapping[str, tuple[HttpFilter, ...]]:
    """Filters of the listener by what they are called."""
    tokens = authentication("ES256")
    return {
        "served: nothing configured": (),
        "served: CORS": (CORS,),
        "served: a known token": (tokens,),
        f"served: {POLICIES} policies": AUTHORIZATION,
        "served: rate limit": (LIMITS,),
        "served: load shedding": (),
        "served: every feature": (CORS, tokens, *AUTHORIZATION, LIMITS),
    }


def costs() -> dict[str, float]:
    """Microseconds of one request, by feature."""
    return {name: cost(filters, sheds="shedding" in name or "every" in name) for name, filters in features().items()}


def cost(filters: tuple[HttpFilter, ...], *, sheds: bool) -> float:
    plan = _plan(filters, sheds=sheds)
    peer = Peer(SpiffeId.of_workload("cluster.local", "shop", f"caller{CALLER}"))
    connection = Connection(remote_address="10.0.0.7", tls=True, peer=peer)
    headers = [*INBOUND, (b"origin", ORIGIN), (b"authorization", f"Bearer {token('ES256')}".encode()), (b"x-team", b"none")]

    def one() -> None:
        flow = server_flow(ServerRequest("GET", f"/api/{CALLER}/items?x=1".encode(), headers, connection=connection), 1.0, plan)
        command = next(flow)
        assert isinstance(command, Handle), "the request is let in"
        if command.stay is not None:
            command.stay.end()
        flow.close()

    return microseconds(one)


def _plan(filters: tuple[HttpFilter, ...], *, sheds: bool) -> InboundPlan:
    lock = threading.RLock()

    def shedding(port: int, policy: ServerResilience) -> Shedding:
        made = Shedding(port, lock=lock, clock=time.monotonic, rng=random.Random(1))
        made.apply(policy)
        return made

    listener = InboundListener("inbound", 8080, MtlsMode.STRICT, filters=filters, resilience=RESILIENCE if sheds else None)
    return compile_listener(listener, now=time.time, limiting=Limiting(lock, time.monotonic), shedding=shedding)
