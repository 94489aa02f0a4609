"""The server's side in a process: what is counted, what the application's calls inherit, what never reaches it."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from meshlib import RequestContext, carried, current_request
from meshlib.flow.inbound import NO_POLICY, InboundPlan
from meshlib.lowlevel import Connection, Peer, ServerRequest, SpiffeId
from meshlib.model.listener import MtlsMode
from meshlib.runtime.serving import POLICY_UNKNOWN, Inbound

DEADLINE = 30.0
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def request(*headers: tuple[bytes, bytes], target: bytes = b"/") -> ServerRequest:
    return ServerRequest("GET", target, [(b"host", b"reviews"), *headers])


def test_requests_in_flight_and_served_are_counted() -> None:
    inbound = Inbound()
    first, second = inbound.serve(request()), inbound.serve(request())
    assert (inbound.active, inbound.served) == (0, 0)
    with first:
        with second:
            assert (inbound.active, inbound.served) == (2, 0)
        assert (inbound.active, inbound.served) == (1, 1)
    assert (inbound.active, inbound.served, inbound.refused) == (0, 2, 0)


def test_an_application_that_fails_is_counted_as_served() -> None:
    inbound = Inbound()
    with pytest.raises(ZeroDivisionError), inbound.serve(request()):
        raise ZeroDivisionError
    assert (inbound.active, inbound.served) == (0, 1)
    assert current_request() is None


def test_counts_are_exact_under_many_threads() -> None:
    inbound = Inbound()

    def serve(_: int) -> None:
        for _ in range(200):
            with inbound.serve(request()):
                pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(serve, range(8)))
    assert (inbound.active, inbound.served) == (0, 1600)


def test_what_two_readers_could_read_differently_is_refused() -> None:
    inbound = Inbound()
    serving = inbound.serve(ServerRequest("GET", b"/", [(b"host", b"a"), (b"host", b"b")]))
    assert serving.refusal is not None
    assert serving.refusal.status == 400
    assert (inbound.active, inbound.refused) == (0, 1)


def test_the_target_is_handed_on_in_origin_form() -> None:
    serving = Inbound().serve(request(target=b"http://reviews/7?x=1"))
    with serving:
        assert serving.target == b"/7?x=1"


def test_the_context_is_in_place_while_the_application_runs_and_no_longer() -> None:
    headers = [(b"traceparent", TRACE), (b"x-envoy-attempt-count", b"3"), (b"x-envoy-expected-rq-timeout-ms", b"60000")]
    serving = Inbound().serve(request(*headers))
    assert current_request() is None
    with serving:
        context = current_request()
        assert context is serving.context
        assert context.attempt == 3
        assert context.trace is not None
        assert context.trace.trace_id == TRACE.split(b"-")[1].decode()
        assert context.deadline is not None
        assert current_in_task() is context
        assert in_new_thread(carried(current_request)) is context
        assert in_new_thread(current_request) is None
    assert current_request() is None


def current_in_task() -> RequestContext | None:
    async def look() -> RequestContext | None:
        return await asyncio.create_task(asyncio.to_thread(current_request))

    return asyncio.run(look())


def in_new_thread(look: object) -> object:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(look()))  # type: ignore[operator]
    thread.start()
    thread.join(DEADLINE)
    return found[0]


def test_requests_at_the_same_time_do_not_see_each_other() -> None:
    inbound = Inbound()

    async def handle(number: bytes) -> int:
        with inbound.serve(request((b"x-envoy-attempt-count", number))):
            await asyncio.sleep(0.01)
            context = current_request()
            assert context is not None
            return context.attempt

    async def run() -> list[int]:
        return await asyncio.gather(*(handle(b"%d" % number) for number in range(1, 6)))

    assert asyncio.run(run()) == [1, 2, 3, 4, 5]


def test_a_body_that_ends_in_another_context_leaves_nothing_there() -> None:
    """Some WSGI servers iterate a body elsewhere than where they called the application."""
    inbound = Inbound()
    serving = inbound.serve(request())
    contextvars.copy_context().run(serving.__enter__)
    elsewhere = contextvars.copy_context()
    elsewhere.run(serving.__exit__, None, None, None)
    assert elsewhere.run(current_request) is None
    assert inbound.active == 0


@pytest.fixture
def draining() -> Iterator[Inbound]:
    inbound = Inbound()
    inbound.draining = True
    yield inbound
    assert inbound.active == 0


def test_waiting_for_idle_ends_with_the_last_request(draining: Inbound) -> None:
    assert draining.wait_idle(0.0)
    idle: list[bool] = []
    with draining.serve(request()) as last:
        assert last.close
        assert not draining.wait_idle(0.01)
        waiting = threading.Thread(target=lambda: idle.append(draining.wait_idle(DEADLINE)))
        waiting.start()
    waiting.join(DEADLINE)
    assert idle == [True]


def test_a_forked_child_serves_nothing_yet(draining: Inbound) -> None:
    contextvars.copy_context().run(draining.serve(request()).__enter__)  # never left, so not in the context of other tests
    draining.lock.acquire()  # by a thread that the child does not have
    draining.forget()
    assert draining.active == 0
    with draining.serve(request()):
        assert draining.active == 1


# --- plans

STRICT, PERMISSIVE = InboundPlan(mtls=MtlsMode.STRICT), InboundPlan(mtls=MtlsMode.PERMISSIVE)
ALICE = Peer(SpiffeId("td1", "/ns/default/sa/alice"))


def arriving(port: int, peer: Peer | None = None) -> ServerRequest:
    connection = Connection(local_port=port, tls=peer is not None, peer=peer)
    return ServerRequest("GET", b"/", [(b"host", b"reviews")], connection=connection)


def test_each_port_has_its_plan_and_others_the_strictest_one() -> None:
    """A port that no plan names is a way around those that they name."""
    inbound = Inbound()
    assert inbound.plan(8080) is NO_POLICY
    inbound.publish({8080: PERMISSIVE, 8443: STRICT})
    assert [inbound.plan(port) for port in (8080, 8443, 9999, 0)] == [PERMISSIVE, STRICT, STRICT, STRICT]
    inbound.publish({8080: PERMISSIVE})
    assert inbound.plan(9999) is PERMISSIVE
    inbound.publish({}, STRICT)
    assert inbound.plan(8080) is STRICT


@pytest.mark.parametrize(("plan", "peer", "status"), [
    (STRICT, None, 403), (STRICT, ALICE, None), (PERMISSIVE, None, None), (PERMISSIVE, ALICE, None),
    (POLICY_UNKNOWN, None, 403), (POLICY_UNKNOWN, ALICE, 503),
])  # fmt: skip
def test_a_plan_holds_for_the_next_request(plan: InboundPlan, peer: Peer | None, status: int | None) -> None:
    inbound = Inbound()
    inbound.publish({8080: plan})
    serving = inbound.serve(arriving(8080, peer))
    assert (serving.refusal and serving.refusal.status) == status
    if status is None:
        with serving:
            assert serving.context.peer is peer
