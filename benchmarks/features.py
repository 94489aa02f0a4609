"""What a call costs in policy when its route, host and service have every feature configured: `python -m benchmarks.features`.

One YAML with all of it, compiled and decoded as ever; no sockets: from the look-up of the route to the slot given back.  Next
to it the same call with one feature at a time, so that a dear one is seen, and the same for a request that is served
(`benchmarks.served`).  Goals are scaled as in `benchmarks.flow`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.flow import HEADERS, Yard, microseconds
from benchmarks.harness import Ratio, report
from benchmarks.served import costs as costs_of_serving
from meshlib.flow.client import client_flow
from meshlib.flow.commands import Attempt, Copy, Decided, Launch, Race
from meshlib.flow.record import CallRecord
from meshlib.model.call import Call
from meshlib.model.outcome import Outcome
from meshlib_control.lab import MeshLab

INSTANCES = 20
CALLERS = [*HEADERS, (b"x-user", b"jason"), (b"x-tenant", b"acme"), (b"cookie", b"session=1")]


def virtual_service(rule: str) -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews, namespace: default}}
spec:
  hosts: [reviews]
  http:
  - name: other
    match: [{{uri: {{prefix: /other}}}}]
    route: [{{destination: {{host: reviews}}}}]
  - name: featured
{rule}
"""


def destination_rule(policy: str) -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: reviews, namespace: default}}
spec:
  host: reviews
  subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]
  trafficPolicy: {policy}
"""


def resilience(spec: str) -> str:
    return f"""
apiVersion: meshlib.io/v1
kind: ResiliencePolicy
metadata: {{name: reviews, namespace: default}}
spec: {{host: reviews, {spec}}}
"""


PLAIN = "    route: [{destination: {host: reviews}}]"
SPLIT = """    route:
    - {destination: {host: reviews, subset: v1}, weight: 90, headers: {request: {set: {x-share: v1}}}}
    - {destination: {host: reviews, subset: v2}, weight: 10}"""
MATCH = """    match:
    - uri: {prefix: /api}
      headers: {x-user: {regex: "j[a-z]+"}, x-tenant: {exact: acme}}
      queryParams: {page: {exact: "1"}}"""
HEADER_RULES = "    headers: {request: {set: {x-origin: mesh}, remove: [x-debug]}, response: {add: {x-served: mesh}}}"
REWRITE = "    rewrite: {uri: /v2, authority: reviews.internal}"
FAULT = """    fault:
      delay: {fixedDelay: 1s, percentage: {value: 0.0001}}
      abort: {httpStatus: 503, percentage: {value: 0.0001}}"""
MIRROR = """    mirrors: [{destination: {host: reviews}, percentage: {value: 0.0001}}]"""
RETRIES = "    timeout: 5s\n    retries: {attempts: 3, perTryTimeout: 2s, retryOn: '5xx,reset,503', backoff: 50ms}"
HASHED = "{loadBalancer: {consistentHash: {httpHeaderName: x-user, maglev: {tableSize: 65537}}}}"
OUTLIERS = "{outlierDetection: {consecutive5xxErrors: 5, splitExternalLocalOriginErrors: true}}"
BOTH = HASHED[:-1] + ", " + OUTLIERS[1:-1] + ", connectionPool: {http: {http2MaxRequests: 1000}}}"
BREAKER = "circuitBreaker: {failurePercent: 50}"
CONCURRENCY = "adaptiveConcurrency: {maxConcurrencyLimit: 200}"
HEDGING = "hedging: {delay: 50ms}"
LIMIT = """
apiVersion: meshlib.io/v1
kind: RateLimitPolicy
metadata: {name: reviews, namespace: default}
spec:
  host: reviews
  limits: [{name: per-tenant, by: [{header: x-tenant}], tokens: 1000000, interval: 1s}]
"""

FEATURES = {
    "nothing configured": [virtual_service(PLAIN)],
    "conditions": [virtual_service(f"{MATCH}\n{PLAIN}")],
    "split and its headers": [virtual_service(SPLIT), destination_rule("{loadBalancer: {simple: LEAST_REQUEST}}")],
    "header operations": [virtual_service(f"{HEADER_RULES}\n{PLAIN}")],
    "rewrites": [virtual_service(f"{REWRITE}\n{PLAIN}")],
    "faults": [virtual_service(f"{FAULT}\n{PLAIN}")],
    "a mirror": [virtual_service(f"{MIRROR}\n{PLAIN}")],
    "timeouts and retries": [virtual_service(f"{RETRIES}\n{PLAIN}")],
    "consistent hash": [virtual_service(PLAIN), destination_rule(HASHED)],
    "outlier detection": [virtual_service(PLAIN), destination_rule(OUTLIERS)],
    "circuit breaker": [virtual_service(PLAIN), resilience(BREAKER)],
    "adaptive concurrency": [virtual_service(PLAIN), resilience(CONCURRENCY)],
    "hedging": [virtual_service(PLAIN), resilience(HEDGING)],
    "rate limit": [virtual_service(PLAIN), LIMIT],
    "every feature": [
        virtual_service("\n".join((MATCH, HEADER_RULES, REWRITE, FAULT, MIRROR, RETRIES, SPLIT))),
        destination_rule(BOTH),
        resilience(f"{BREAKER}, {CONCURRENCY}"),
        LIMIT,
    ],
}


def cost(documents: list[str]) -> float:
    """Microseconds of policy for one call."""
    with MeshLab(seed=1) as lab:
        for version in ("v1", "v2"):
            lab.service("reviews", lambda request: 200, labels={"version": version}, instances=INSTANCES // 2)
        lab.apply(*documents)
        mesh = lab.mesh("web")
        mesh.request("GET", "http://reviews/api?page=1", headers=[(key.decode(), value.decode()) for key, value in CALLERS])
        client = mesh._running().client
        destination = client.destinations.current["reviews:80"]
        rng, lock = client._rng, client.lock
        now = client.clock()

        def one() -> None:
            nonlocal now
            now += 0.001
            call = Call("GET", "reviews:80", "/api?page=1", CALLERS, started=now)
            flow = client_flow(call, destination, CallRecord("reviews:80", now), rng)
            with lock:
                command = next(flow)
            launched: Attempt | None = None
            try:
                while True:
                    with lock:
                        if isinstance(command, Launch):
                            launched = command.attempt
                            command = flow.send(now)
                        elif isinstance(command, Copy):
                            command = flow.send(now)
                        elif isinstance(command, Race):
                            assert launched is not None
                            command = flow.send(Decided(launched, Outcome(now + 0.001, status=200, headers=HEADERS)))
                        else:
                            command = flow.send(Outcome(now + 0.001, status=200, headers=HEADERS))
            except StopIteration as stop:
                if stop.value.lease is not None:
                    with lock:
                        stop.value.lease.release()

        return microseconds(one, 3000)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--json", type=Path)
    options = arguments.parse_args()
    scale = max(microseconds(lambda: Yard(1, 2, 3), 100_000) / 0.126, 1.0)
    called = {name: cost(documents) for name, documents in FEATURES.items()}
    served = costs_of_serving()
    print(f"features: this machine is {scale:.1f} times slower than the one that goals were set on")
    for costs in (called, served):
        plain = next(iter(costs.values()))
        for name, microsecond in costs.items():
            print(f"  {name:<28} {microsecond:7.2f} µs  (+{microsecond - plain:.2f})")
    goals = [
        Ratio("a call with every feature configured", called["every feature"], 30 * scale, at_least=False, unit=" µs"),
        Ratio("a request served with every feature", served["served: every feature"], 30 * scale, at_least=False, unit=" µs"),
    ]
    report("features", goals, {"scale": scale, "costs_us": {**called, **served}}, options.json)


if __name__ == "__main__":
    main()
