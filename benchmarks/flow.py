"""The pure cost of policy, and of importing: `python -m benchmarks.flow [--json FILE]`.

No sockets: the client's flow from lookup to released slot, the server's from raw request to handle.  Machines differ by
factors, so beside the microseconds stands a yardstick (constructing a slotted object with three fields), which took 0.126 µs
where the goals were set; goals are scaled by it, and the scale is printed.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import threading
import timeit
from pathlib import Path

from benchmarks.harness import Ratio, report
from meshlib.flow.client import client_flow
from meshlib.flow.destination import Destination
from meshlib.flow.record import CallRecord
from meshlib.flow.server import server_flow
from meshlib.flow.upstream import Upstream
from meshlib.model.call import Call
from meshlib.model.inbound import ServerRequest
from meshlib.model.outcome import Outcome
from meshlib.model.route import Forward, HeaderMatch, PathMatch, Route, RouteMatch, StringMatch, WeightedCluster
from meshlib.testing import DEFAULT_RETRY, service

HEADERS = [(b"accept", b"*/*"), (b"accept-encoding", b"gzip"), (b"user-agent", b"python-httpx"), (b"x-request-id", b"1")]
INBOUND = [
    (b"host", b"reviews"),
    (b"accept", b"*/*"),
    (b"accept-encoding", b"gzip, deflate"),
    (b"user-agent", b"python-httpx"),
    (b"x-envoy-attempt-count", b"1"),
    (b"x-envoy-expected-rq-timeout-ms", b"5000"),
    (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
]


class Yard:
    __slots__ = ("a", "b", "c")

    def __init__(self, a: int, b: int, c: int) -> None:
        self.a = a
        self.b = b
        self.c = c


def microseconds(call: object, number: int = 5000) -> float:
    return min(timeit.repeat(call, number=number, repeat=7)) / number * 1e6  # type: ignore[arg-type]


def client(routes: int, endpoints: int) -> float:
    """Microseconds for one call that the last of `routes` takes."""
    name = "outbound|80||reviews"
    made = [
        Route(
            f"r{index}",
            RouteMatch(
                PathMatch("prefix", f"/group{index % 10}/item{index}/"),
                (HeaderMatch("end-user", StringMatch("exact", "jason")),) if index % 5 == 0 else (),
            ),
            Forward((WeightedCluster(name),), retry=DEFAULT_RETRY),
        )
        for index in range(routes - 1)
    ]
    everything = Route(
        "rest", RouteMatch(PathMatch("prefix", "/")), Forward((WeightedCluster(name),), timeout=5.0, retry=DEFAULT_RETRY)
    )
    addresses = [f"10.{index >> 16}.{index >> 8 & 255}.{index & 255}:80" for index in range(endpoints)]
    target = service("reviews", addresses, routes=[*made, everything])
    rng = random.Random(1)
    upstream = Upstream(name)
    upstream.update(target.clusters[name], rng)
    destination = Destination(target, {name: upstream})
    lock = threading.Lock()

    def one() -> None:
        call = Call("GET", "reviews:80", "/group3/other?x=1", HEADERS, started=1.0)
        flow = client_flow(call, destination, CallRecord("reviews:80", 1.0), rng)
        with lock:
            next(flow)
        try:
            with lock:
                flow.send(Outcome(1.1, status=200, headers=HEADERS))
        except StopIteration as stop:
            with lock:
                stop.value.lease.release()

    return microseconds(one)


def server() -> float:
    def one() -> None:
        flow = server_flow(ServerRequest("GET", b"/api/reviews/7?x=1", INBOUND), 1.0)
        next(flow)
        flow.close()

    return microseconds(one)


def import_milliseconds() -> float:
    """`import meshlib` over a bare interpreter."""

    def median(code: str) -> float:
        times = [timeit.timeit(lambda: subprocess.run([sys.executable, "-c", code], check=True), number=1) for _ in range(9)]
        return statistics.median(times)

    return (median("import meshlib") - median("pass")) * 1000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--json", type=Path)
    options = arguments.parse_args()
    scale = max(microseconds(lambda: Yard(1, 2, 3), 100_000) / 0.126, 1.0)
    sizes = {endpoints: client(100, endpoints) for endpoints in (10, 1_000, 10_000)}
    served = server()
    imported = import_milliseconds()
    print(f"flow: this machine is {scale:.1f} times slower than the one that goals were set on")
    ratios = [
        Ratio("client flow, 100 routes, 1,000 endpoints", sizes[1_000], 15 * scale, at_least=False, unit=" µs"),
        Ratio("client flow, 10,000 endpoints / 10 endpoints", sizes[10_000] / sizes[10], 1.3, at_least=False),
        Ratio("server flow", served, 10 * scale, at_least=False, unit=" µs"),
        Ratio("import meshlib", imported, 60 * scale, at_least=False, unit=" ms"),
    ]
    report("flow", ratios, {"scale": scale, "client_us": sizes, "server_us": served, "import_ms": imported}, options.json)


if __name__ == "__main__":
    main()
