"""F17, F21, F22, F41 and F42 in virtual time: minutes of a fault in a second, with the real compiler, flows and policies.

The same with sockets and processes: `test_failing_endpoints`, `test_storms`; with figures: `benchmarks.faults`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from meshlib import errors
from meshlib.testing import Fault, Refuse, Status
from meshlib_control.lab import MeshLab

DETECTION = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: shop}
spec:
  host: shop
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 5, interval: 10s, baseEjectionTime: 30s, maxEjectionPercent: 20%(more)s}
"""
RETRIES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: %(host)s}
spec:
  hosts: [%(host)s]
  http:
  - retries: {attempts: %(attempts)d, retryOn: "5xx,connect-failure"}
    route: [{destination: {host: %(host)s}}]
"""


async def at_rate(send: Callable[[int], Awaitable[Any]], rate: float, seconds: float) -> list[Any]:
    """Open loop: what each call came to, errors too."""
    tasks: list[asyncio.Future[Any]] = []
    for number in range(int(rate * seconds)):
        tasks.append(asyncio.ensure_future(send(number)))
        await asyncio.sleep(1.0 / rate)
    return await asyncio.gather(*tasks, return_exceptions=True)


# --- F17


@dataclass
class Flapped:
    """By half minute: calls that failed, and tries that went to the instance that flaps while it was down."""

    failed: Counter[int]
    wasted: Counter[int]
    most_ejected: int


def flap(lab: MeshLab, fault: Fault, *rules: str) -> Flapped:
    """One of five instances is down for 3 of every 6 seconds, for a minute of 10 calls a second."""
    lab.service("shop", instances=5)
    lab.apply(*rules)
    client, found, began = lab.async_client("web"), Flapped(Counter(), Counter(), 0), lab.clock.now

    async def toggling() -> None:
        while True:
            with lab.inject("shop", fault, instance=0) as injected:
                await asyncio.sleep(3.0)
            found.wasted[int((lab.clock.now - began) // 30)] += injected.happened
            await asyncio.sleep(3.0)

    async def send(number: int) -> None:
        part = number // 300
        try:
            found.failed[part] += (await client.get("http://shop/")).status_code != 200
        except httpx.TransportError:
            found.failed[part] += 1
        if number % 10 == 0:
            found.most_ejected = max(found.most_ejected, len(lab.ejected("shop")))

    async def run() -> None:
        toggles = asyncio.create_task(toggling())
        assert set(await at_rate(send, 10.0, 60.0)) == {None}
        toggles.cancel()

    lab.run(run())
    return found


@pytest.mark.parametrize("fault", [Status(503), Refuse()], ids=["503", "refused"])
def test_f17_a_flapping_endpoint_costs_no_call_with_a_retry(mesh_lab: MeshLab, fault: Fault) -> None:
    found = flap(mesh_lab, fault, DETECTION % {"more": ""}, RETRIES % {"host": "shop", "attempts": 1})
    assert found.failed.total() == 0
    assert 0 < found.wasted.total() <= 25, "without detection it would be 60"
    assert found.most_ejected <= 1


def test_f17_without_retries_there_are_a_few_errors_for_each_time_that_it_is_left_out(mesh_lab: MeshLab) -> None:
    """The others are never left out."""
    found = flap(mesh_lab, Status(503), DETECTION % {"more": ""})
    assert 0 < found.failed.total() == found.wasted.total() <= 20
    assert found.most_ejected == 1


def test_f17_without_detection_it_goes_on_as_it_began(mesh_lab: MeshLab) -> None:
    """The control."""
    assert flap(mesh_lab, Status(503)).failed.total() > 40


# --- F21

WORKERS, WORK, PATIENCE = 5, 0.1, 1.0
CAPACITY = WORKERS / WORK
LIMIT = """
apiVersion: meshlib.io/v1
kind: ResiliencePolicy
metadata: {name: shop}
spec:
  selector: {matchLabels: {app: shop}}
  adaptiveConcurrency: {}
"""


@dataclass
class Overloaded:
    """Of the second half of the overload, and of the seconds that begin 5 s after it."""

    goodput: float  # answers in time, as a share of the capacity
    p99: float  # of those
    recovered: float  # the share of calls that were answered in time


def overload(lab: MeshLab) -> Overloaded:
    """Callers who give up after a second ask for three times what the server can do, for 12 s."""

    async def shop(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        async with workers:
            await asyncio.sleep(WORK)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    workers = asyncio.Semaphore(WORKERS)
    lab.service("shop", shop)
    client = lab.async_client("web", timeout=PATIENCE)

    async def send(number: int) -> float | None:
        """Seconds until a good answer; None: there was none."""
        began = lab.clock.now
        try:
            response = await client.get("http://shop/")
        except httpx.TransportError:
            return None
        return lab.clock.now - began if response.status_code == 200 else None

    async def run() -> Overloaded:
        await at_rate(send, 0.5 * CAPACITY, 4.0)
        during = await at_rate(send, 3.0 * CAPACITY, 12.0)
        await at_rate(send, 0.5 * CAPACITY, 5.0)
        after = await at_rate(send, 0.5 * CAPACITY, 4.0)
        good = sorted(seconds for seconds in during[len(during) // 2 :] if seconds is not None)
        p99 = good[int(len(good) * 0.99)] if good else PATIENCE
        return Overloaded(len(good) / (6.0 * CAPACITY), p99, sum(each is not None for each in after) / len(after))

    return lab.run(run())


def test_f21_a_limit_that_follows_the_latency_keeps_the_goodput(mesh_lab: MeshLab) -> None:
    mesh_lab.apply(LIMIT)
    found = overload(mesh_lab)
    assert found.goodput >= 0.8, found
    assert found.p99 <= 3 * WORK, found
    assert found.recovered == 1.0, found


def test_f21_without_one_next_to_nothing_is_answered_in_time(mesh_lab: MeshLab) -> None:
    """The control: nobody is refused, so everybody waits for too long."""
    assert overload(mesh_lab).goodput < 0.2


# --- F22


def chain(lab: MeshLab, *, attempts: int, rate: float, seconds: float, latency: float) -> float:
    """Tries at the leaf for each call of a chain a → b → c → leaf whose leaf fails always; every hop may retry."""

    async def leaf(request: Any) -> int:
        await asyncio.sleep(latency)
        return 503

    def hop(behind: str) -> Callable[[Any], Awaitable[int]]:
        async def serve(request: Any) -> int:
            return (await clients[behind].get(f"http://{behind}/")).status_code

        return serve

    clients: dict[str, httpx.AsyncClient] = {}
    lab.service("leaf", leaf)
    for name, behind in (("c", "leaf"), ("b", "c"), ("a", "b")):
        lab.service(name, hop(behind))
        clients[behind] = lab.async_client(name)
    lab.apply(*(RETRIES % {"host": host, "attempts": attempts} for host in ("a", "b", "c", "leaf")))
    outside = lab.async_client("web")

    async def send(number: int) -> int:
        return (await outside.get("http://a/")).status_code

    answers = lab.run(at_rate(send, rate, seconds))
    assert set(answers) == {503}
    assert lab.attempts("a") == lab.attempts("b") == lab.attempts("c") == len(answers), "only the hop next to the leaf retries"
    return lab.attempts("leaf") / len(answers)


@pytest.mark.parametrize(
    ("rate", "seconds", "latency"), [(10.0, 20.0, 0.005), (200.0, 1.0, 0.005), (200.0, 1.2, 0.2)], ids=["few", "quick", "slow"]
)
def test_f22_no_retry_storm_in_a_chain_whose_leaf_fails(mesh_lab: MeshLab, rate: float, seconds: float, latency: float) -> None:
    """However much is under way; with Istio's budgets, which are none, it would be 27."""
    assert 1.0 < chain(mesh_lab, attempts=2, rate=rate, seconds=seconds, latency=latency) <= 1.2


def test_f22_one_lost_try_at_the_leaf_is_tried_again(mesh_lab: MeshLab) -> None:
    """The control: retries are there, and the hop above hears nothing of it."""
    answers = iter([503, 503, 200])
    mesh_lab.service("leaf", lambda request: next(answers))
    mesh_lab.apply(RETRIES % {"host": "leaf", "attempts": 2})
    assert mesh_lab.client("c").get("http://leaf/").status_code == 200
    assert mesh_lab.attempts("leaf") == 3


def test_f22_blocking_applications_hand_on_that_it_was_tried_again(mesh_lab: MeshLab) -> None:
    """WSGI; the caller's own retries stay unused."""

    def shop(environ: Any, start_response: Any) -> list[bytes]:
        response = mesh_lab.client("shop").get("http://leaf/")
        start_response(f"{response.status_code} Unavailable", [])
        return [b""]

    mesh_lab.service("leaf", lambda request: 503)
    mesh_lab.service("shop", shop)
    mesh_lab.apply(*(RETRIES % {"host": host, "attempts": 2} for host in ("shop", "leaf")))
    response = mesh_lab.client("web").get("http://shop/")
    assert response.status_code == 503
    assert response.headers["x-mesh-retried"] == "1"
    assert (mesh_lab.attempts("shop"), mesh_lab.attempts("leaf")) == (1, 3)


def test_f22_a_failure_of_ones_own_is_tried_again_by_the_hop_above(mesh_lab: MeshLab) -> None:
    """What failed behind and was made good by the application says nothing about the next failure."""
    own = iter([500, 200])

    async def shop(request: Any) -> int:
        await leaf.get("http://leaf/")
        return next(own)

    mesh_lab.service("leaf")
    mesh_lab.service("shop", shop)
    leaf = mesh_lab.async_client("shop")
    mesh_lab.apply(RETRIES % {"host": "shop", "attempts": 2})
    assert mesh_lab.client("web").get("http://shop/").status_code == 200
    assert mesh_lab.attempts("shop") == 2


# --- F41


def shares(lab: MeshLab, of: set[str], calls: int = 700) -> float:
    """The share of calls that these instances answered."""
    mesh = lab.mesh("web")
    answered = Counter(mesh.request("GET", "http://shop/").json()["instance"] for _ in range(calls))
    return sum(answered[name] for name in of) / calls


@pytest.mark.parametrize(
    ("healthy", "instances", "share"), [(10, 10, 1.0), (18, 25, 1.0), (17, 24, 0.99), (5, 10, 0.7), (3, 12, 0.35)]
)
def test_f41_shares_of_a_zone_that_fails_in_part(mesh_lab: MeshLab, healthy: int, instances: int, share: float) -> None:
    """Envoy's table for an overprovisioning of 1.4: 100, 72, 71, 50 and 25 % of the own zone are healthy."""
    mesh_lab.service("shop", instances=instances, locality="r/a")
    mesh_lab.service("shop", instances=5, locality="r/b")
    mesh_lab.service("web", locality="r/a")
    mesh_lab.apply(DETECTION % {"more": ""})
    for number in range(healthy, instances):
        mesh_lab.set_health("shop", "unhealthy", number)
    assert shares(mesh_lab, {f"shop-{number}" for number in range(instances)}) == pytest.approx(share, abs=0.03)


def test_f41_a_zone_that_is_gone_costs_no_call(mesh_lab: MeshLab) -> None:
    """Its processes are killed, nobody but the caller has noticed, and retries may go to other zones."""
    mesh_lab.service("shop", instances=3, locality="r/a")
    mesh_lab.service("shop", instances=3, locality="r/b")
    mesh_lab.service("web", locality="r/a")
    remote = RETRIES.replace("attempts:", "retryRemoteLocalities: true, attempts:") % {"host": "shop", "attempts": 2}
    mesh_lab.apply(DETECTION.replace("maxEjectionPercent: 20", "maxEjectionPercent: 100") % {"more": ""}, remote)
    own, other = {"shop-0", "shop-1", "shop-2"}, {"shop-3", "shop-4", "shop-5"}
    assert shares(mesh_lab, own, 100) == 1.0
    for number in range(3):
        mesh_lab.down("shop", number)
    assert shares(mesh_lab, other, 200) == 1.0


# --- F42


@pytest.mark.parametrize(("threshold", "share"), [(0, 0.0), (50, 0.6)])
def test_f42_panic_is_what_the_threshold_says(mesh_lab: MeshLab, threshold: int, share: float) -> None:
    """Three of five are unhealthy.  Under the threshold all are called alike, with 0 never."""
    mesh_lab.service("shop", instances=5)
    mesh_lab.apply(DETECTION % {"more": f", minHealthPercent: {threshold}"})
    for number in range(3):
        mesh_lab.set_health("shop", "unhealthy", number)
    assert shares(mesh_lab, {"shop-0", "shop-1", "shop-2"}) == pytest.approx(share, abs=0.05)


def test_f42_with_a_threshold_of_0_nobody_is_asked_and_the_error_comes_at_once(mesh_lab: MeshLab) -> None:
    mesh_lab.service("shop", instances=5)
    mesh_lab.apply(DETECTION % {"more": ", minHealthPercent: 0"})
    mesh_lab.set_health("shop", "unhealthy")
    began = mesh_lab.clock.now
    with pytest.raises(errors.NoHealthyUpstream):
        mesh_lab.mesh("web").request("GET", "http://shop/")
    assert mesh_lab.clock.now == began
    assert mesh_lab.attempts("shop") == 0
