"""F13, F16 and F18 to F20: endpoints that fall silent, fail, or are gone, from YAML through a real control service to sockets.

Servers count attempts by themselves.  How long things take is measured by `benchmarks.faults`; here it is counts and order.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import pytest

from meshlib import Mesh, errors
from meshlib.lowlevel import Timeouts
from tests.support.control import Control
from tests.support.failing import EJECTION, NO_RETRIES, RETRIES, Failing, calling, failing, upstream
from tests.support.faultproxy import FaultProxy, slicer
from tests.support.load import Load, leaking_nothing
from tests.support.meshcalls import WAYS
from tests.support.origins import BODY, Origin
from tests.support.polling import eventually

pytestmark = pytest.mark.timeout(240)

PATIENT = Timeouts(connect=30.0, read=30.0, write=30.0, pool=30.0)
RATE = 100.0


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    with Control(tmp_path_factory.mktemp("control")) as running:
        yield running


def sending(mesh: Mesh, host: str, method: str = "GET") -> Any:
    """``send(number)``: the status."""

    async def send(number: int) -> int:
        response = await mesh.arequest(method, f"http://{host}/{number}", timeout=PATIENT)
        return response.status_code

    return send


def failed(load: Load, since: int = 0) -> int:
    """Calls from number `since` on that did not end with 200."""
    return sum(result.error is not None or result.answer != 200 for result in load.results if result.number >= since)


# --- F13

PER_TRY = """
---
apiVersion: meshlib.io/v1
kind: ResiliencePolicy
metadata: {name: %(host)s}
spec: {host: %(host)s, perTryTimeout: 300ms}
"""
ONLY_TRY = "route"
"""Whose timeout it is where there are no retries: that of the try is the call's."""


@asynccontextmanager
async def one_behind_a_proxy(control: Control, host: str, rules: str) -> AsyncIterator[tuple[Mesh, FaultProxy, list[Origin]]]:
    """Five endpoints, of which a proxy stands in front of the first; each has a connection or more."""
    async with failing() as servers, FaultProxy(servers[0].port) as proxy:
        addresses = [proxy.address, *(server.address for server in servers[1:])]
        async with calling(control, host, addresses, rules) as mesh:
            send = sending(mesh, host)
            assert set(await asyncio.gather(*(send(number) for number in range(50)))) == {200}
            assert proxy.accepted
            yield mesh, proxy, list(servers)


async def test_f13_a_half_open_connection_costs_what_was_sent_on_it_and_is_not_used_again(control: Control) -> None:
    """Without retries: each connection that fell silent fails one call, at its try's timeout, and carries no second one."""
    async with one_behind_a_proxy(control, "f13", NO_RETRIES + PER_TRY + EJECTION) as (mesh, proxy, _):
        proxy.freeze()
        frozen = proxy.accepted
        async with Load(sending(mesh, "f13", "POST"), RATE) as load:
            await load.more(100)
        assert {type(error) for error in load.errors} == {errors.TimeoutExceeded}
        assert {error.which for error in load.errors if isinstance(error, errors.TimeoutExceeded)} == {ONLY_TRY}
        assert 0 < len(load.errors) <= proxy.swallowed
        assert proxy.swallowed <= proxy.accepted, "a connection that fell silent was used again"
        assert {host.endpoint.port for host in upstream(mesh).hosts.values() if host.ejected} <= {proxy.port}
        assert frozen <= proxy.accepted


async def test_f13_with_a_retry_it_costs_nobody_a_call(control: Control) -> None:
    async with one_behind_a_proxy(control, "f13-retried", RETRIES + PER_TRY + EJECTION) as (mesh, proxy, _):
        proxy.freeze()
        async with Load(sending(mesh, "f13-retried"), RATE) as load:
            await load.more(100)
        assert failed(load) == 0
        assert 0 < proxy.swallowed <= proxy.accepted


# --- F16


@pytest.mark.parametrize("way", WAYS)
async def test_f16_a_response_that_trickles_ends_with_the_tries_timeout(control: Control, way: str) -> None:
    """A byte now and then does not keep a call alive."""
    host = f"f16-{way.replace(' ', '-')}"
    async with failing(1) as (server,), FaultProxy(server.port) as proxy:
        proxy.add(slicer(1, pause=0.05))  # more than a minute for the whole of it
        async with calling(control, host, [proxy.address], NO_RETRIES + PER_TRY) as mesh:
            with pytest.raises(errors.TimeoutExceeded) as caught:
                await asyncio.to_thread(WAYS[way], mesh, "GET", f"http://{host}/", timeout=PATIENT)
            assert caught.value.which == ONLY_TRY
            proxy.heal()
            healed = await asyncio.to_thread(WAYS[way], mesh, "GET", f"http://{host}/", timeout=PATIENT)
            assert healed.content == BODY


# --- F18


async def test_f18_half_of_all_answers_are_503_and_it_shows(control: Control) -> None:
    """The budget of 20 % holds, what it does not rescue is an error, and no more than one of five is left out at a time."""
    async with failing() as servers:
        for server in servers:
            server.failing, server.latency = 0.5, 0.2
        async with calling(control, "f18", [server.address for server in servers], RETRIES + EJECTION) as mesh:
            most_ejected = most_retries = 0
            send = sending(mesh, "f18")

            async def watched(number: int) -> int:
                nonlocal most_ejected, most_retries
                status: int = await send(number)
                at_work = upstream(mesh)
                most_ejected = max(most_ejected, sum(host.ejected for host in at_work.hosts.values()))
                most_retries = max(most_retries, at_work.active_retries)
                return status

            async with Load(watched, 200.0) as load:
                await load.more(400)
            assert load.errors == []
            amplification = sum(server.attempts for server in servers) / load.sent
            assert 1.0 < amplification <= 1.25
            assert failed(load) / load.sent == pytest.approx(0.5 - (amplification - 1.0) / 2.0, abs=0.1)
            assert most_ejected <= 1
            assert most_retries > 0


# --- F19


async def test_f19_one_of_five_fails_always_and_with_a_retry_nobody_notices(control: Control) -> None:
    async with failing() as servers:
        bad, *_ = servers
        bad.failing = 1.0
        async with calling(control, "f19", [server.address for server in servers], RETRIES + EJECTION) as mesh:
            async with Load(sending(mesh, "f19"), RATE) as load:
                await load.more(100)
                known, before = load.sent, bad.attempts
                await load.more(100)
            assert load.errors == []
            assert failed(load, known) == 0
            assert bad.attempts == before, "an ejected endpoint is asked"
            assert {host.endpoint.port for host in upstream(mesh).hosts.values() if host.ejected} == {bad.port}


async def test_f19_without_retries_five_errors_are_all_that_a_client_gets(control: Control) -> None:
    async with failing() as servers:
        bad, *_ = servers
        bad.failing = 1.0
        async with calling(control, "f19-once", [server.address for server in servers], NO_RETRIES + EJECTION) as mesh:
            send = sending(mesh, "f19-once")
            statuses = [await send(number) for number in range(200)]
            assert statuses.count(503) == bad.attempts == 5


async def test_f19_without_detection_it_goes_on_for_ever(control: Control) -> None:
    """The control: what would be without the rule."""
    async with failing() as servers:
        servers[0].failing = 1.0
        async with calling(control, "f19-blind", [server.address for server in servers], NO_RETRIES) as mesh:
            send = sending(mesh, "f19-blind")
            statuses = [await send(number) for number in range(200)]
            assert 20 < statuses.count(503) < 70


# --- F20


async def test_f20_all_endpoints_are_down_and_come_back(control: Control) -> None:
    """Every call ends with an error that says so, nothing waits for anything, nothing grows; then all is as before."""
    async with failing() as servers, calling(control, "f20", [server.address for server in servers], RETRIES) as mesh:
        send = sending(mesh, "f20")
        assert await send(0) == 200
        for server in servers:
            await server.down()
        await asyncio.gather(*(send(number) for number in range(50)), return_exceptions=True)
        executed = sum(server.attempts for server in servers)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        async with leaking_nothing():
            for _ in range(10):
                answers = await asyncio.gather(*(send(number) for number in range(100)), return_exceptions=True)
                assert {type(answer) for answer in answers} == {errors.ConnectFailed}
                assert upstream(mesh).active == upstream(mesh).active_retries == 0
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB
        assert sum(server.attempts for server in servers) == executed
        for server in servers:
            await server.up()
        async with Load(send, RATE) as load:
            await load.more(100)
            healed = load.sent
            await load.more(50)
        assert failed(load, healed) == 0


async def test_f20_no_call_waits_for_a_retry_that_must_fail(control: Control) -> None:
    """Nor does a blocking one: where everybody knows that nobody is there, there is no backoff."""
    async with failing(1) as (server,), calling(control, "f20-blocking", [server.address], RETRIES) as mesh:
        await server.down()

        def call() -> int:
            with pytest.raises(errors.ConnectFailed) as caught:
                mesh.request("GET", "http://f20-blocking/", timeout=PATIENT)
            return caught.value.attempts

        with ThreadPoolExecutor(8) as pool:
            attempts = [pool.submit(call) for _ in range(200)]
            assert {await asyncio.wrap_future(each) for each in attempts} == {2}


# --- F41 and F42

FAILOVER = """
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: %(host)s}
spec:
  hosts: [%(host)s]
  http:
  - retries: {attempts: 2, retryOn: "5xx,connect-failure", retryRemoteLocalities: true}
    route: [{destination: {host: %(host)s}}]
""" + EJECTION.replace("maxEjectionPercent: 20", "maxEjectionPercent: 100")


async def test_f41_a_zone_is_killed_and_the_next_one_takes_over(control: Control) -> None:
    """Without a lost call; and when it is back, and has been left out for long enough, calls stay at home again."""
    zones = ["r/a", "r/a", "r/b", "r/b"]
    rules = FAILOVER.replace("baseEjectionTime: 300s", "baseEjectionTime: 500ms").replace("interval: 1s", "interval: 100ms")
    async with failing(4) as servers:
        own, other = servers[:2], servers[2:]
        addresses = [server.address for server in servers]
        async with calling(control, "f41", addresses, rules, localities=zones, locality="r/a") as mesh:
            async with Load(sending(mesh, "f41"), RATE) as load:
                await load.more(50)
                assert sum(server.attempts for server in other) == 0
                for server in own:
                    await server.down()
                await load.more(100)
                assert sum(server.attempts for server in other) >= 90
                for server in own:
                    await server.up()
                await eventually(lambda: not any(host.ejected for host in upstream(mesh).hosts.values()))
                await load.more(20)
                away = sum(server.attempts for server in other)
                await load.more(30)
                assert sum(server.attempts for server in other) <= away + 3
            assert failed(load) == 0


async def test_f42_without_panic_nobody_is_asked_when_all_are_left_out(control: Control) -> None:
    """Istio's threshold of 0: five errors each, then an error at once that says why."""
    rules = NO_RETRIES + EJECTION.replace("maxEjectionPercent: 20", "maxEjectionPercent: 100")
    async with failing(3) as servers:
        for server in servers:
            server.failing = 1.0
        async with calling(control, "f42", [server.address for server in servers], rules) as mesh:
            send = sending(mesh, "f42")
            assert {await send(number) for number in range(15)} == {503}
            with pytest.raises(errors.NoHealthyUpstream):
                await send(15)
            assert [server.attempts for server in servers] == [5, 5, 5]


def test_the_origins_fail_as_they_are_told() -> None:
    """Equal seeds fail equally, or a run could not be repeated."""
    one, other = Failing(7), Failing(7)
    one.failing = other.failing = 0.5
    answers = [asyncio.run(server.respond("GET", "/")) for server in (one, other) for _ in range(20)]
    assert answers[:20] == answers[20:]
