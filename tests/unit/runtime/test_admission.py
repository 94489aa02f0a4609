"""Limits of what is in the application at once: who gets in, who waits, who is sent away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from meshlib.model.inbound import Connection, ServerRequest
from meshlib.model.inbound_limits import InboundLimits
from meshlib.model.listener import InboundListener
from meshlib.model.snapshot import Snapshot
from meshlib.runtime.admission import RequestLimits
from meshlib.runtime.enforcement import Enforcement
from meshlib.runtime.serving import Inbound, Serving

PORT = 8080


class Process:
    """A process that serves one port under limits."""

    def __init__(self, limits: InboundLimits) -> None:
        self.inbound = Inbound()
        self.enforcement = Enforcement(self.inbound)
        self.say(limits)

    def say(self, limits: InboundLimits | None) -> None:
        listener = InboundListener("inbound", PORT, limits=limits)
        self.enforcement.publish(Snapshot(inbound={PORT: listener}))

    def serve(self, *headers: tuple[bytes, bytes]) -> Serving:
        fields = [(b"host", b"orders"), *headers]
        return self.inbound.serve(ServerRequest("GET", b"/", fields, connection=Connection(local_port=PORT)))

    @property
    def limits(self) -> RequestLimits:
        return self.enforcement.limits[PORT]


def test_more_than_the_requests_allowed_at_once_are_sent_away() -> None:
    process = Process(InboundLimits(max_requests=1))
    first = process.serve()
    assert first.refusal is None
    with first:
        refusal = process.serve().refusal
    assert refusal is not None
    assert (refusal.status, refusal.flag, refusal.close) == (503, "UO", False)
    assert (b"x-envoy-overloaded", b"true") in refusal.headers
    assert process.serve().refusal is None
    assert process.limits.overflow == 1
    assert process.inbound.refused == 0  # nobody was denied anything


def test_without_limits_everything_comes_in() -> None:
    process = Process(InboundLimits())
    held = [process.serve() for _ in range(50)]
    assert not [serving for serving in held if serving.refusal or serving.pending]


def test_a_request_that_never_gets_to_the_application_gives_its_place_back() -> None:
    """A client that goes while the server prepares."""
    process = Process(InboundLimits(max_requests=1))
    serving = process.serve()
    assert process.limits.active == 1
    del serving
    assert process.limits.active == 0


def test_an_application_that_raises_gives_its_place_back() -> None:
    process = Process(InboundLimits(max_requests=1))
    with pytest.raises(LookupError), process.serve():
        raise LookupError
    assert process.limits.active == 0


def test_who_finds_the_application_full_waits_for_a_place() -> None:
    """Blocking: the second request goes on in its own thread as soon as the first has ended."""
    process = Process(InboundLimits(max_active=1, max_pending=1))
    first = process.serve()
    second = process.serve()
    assert second.pending is not None
    assert second.wanted_body == 0
    third = process.serve().refusal
    assert third is not None
    assert third.status == 503
    done = threading.Event()

    def go_on() -> None:
        second.check()
        done.set()

    thread = threading.Thread(target=go_on)
    thread.start()
    with first:
        assert not done.is_set()
    thread.join()
    assert second.refusal is None
    with second:
        assert process.limits.active == 1
    assert process.limits.active == 0


async def test_who_waits_on_an_event_loop_does_not_block_it() -> None:
    process = Process(InboundLimits(max_active=1))
    first = process.serve()
    second = process.serve()
    waiting = asyncio.create_task(second.acheck())
    await asyncio.sleep(0)
    assert not waiting.done()
    with first:
        pass
    await waiting
    assert (second.pending, second.refusal) == (None, None)


async def test_who_waits_may_be_let_in_by_another_thread() -> None:
    process = Process(InboundLimits(max_active=1))
    first = process.serve()
    second = process.serve()
    waiting = asyncio.create_task(second.acheck())
    await asyncio.sleep(0)
    await asyncio.to_thread(first.__enter__)
    await asyncio.to_thread(lambda: process.limits.apply(InboundLimits(max_active=2)))
    await waiting
    assert second.refusal is None


@pytest.mark.parametrize("blocking", [True, False])
async def test_nobody_waits_beyond_the_deadline_of_the_caller(blocking: bool) -> None:
    process = Process(InboundLimits(max_active=1))
    first = process.serve()
    late = process.serve((b"x-envoy-expected-rq-timeout-ms", b"1"))
    if blocking:
        late.check()
    else:
        await late.acheck()
    assert late.refusal is not None
    assert late.refusal.status == 504
    assert process.limits.pending == 0
    with first:
        pass


async def test_who_goes_while_waiting_leaves_the_queue() -> None:
    process = Process(InboundLimits(max_active=1, max_pending=1))
    first, second = process.serve(), process.serve()
    waiting = asyncio.create_task(second.acheck())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert process.limits.pending == 0
    with first:
        pass


def test_first_come_first_served() -> None:
    limits = RequestLimits(InboundLimits(max_active=1))
    places = [limits.enter() for _ in range(4)]
    order: list[int] = []
    for index, place in enumerate(places):
        assert place is not None
        if index:
            order.append(index)
            limits.leave(places[index - 1])  # type: ignore[arg-type]  # none of them is None
            assert place.admitted
    assert order == [1, 2, 3]


def test_calls_of_grpc_share_connections() -> None:
    """Of the limits only that of requests is for them."""
    limits = RequestLimits(InboundLimits(max_requests=3, max_active=1, max_pending=0))
    calls = [limits.enter(multiplexed=True) for _ in range(4)]
    assert [call is not None and call.admitted for call in calls] == [True, True, True, False]
    for call in calls[:3]:
        assert call is not None
        limits.leave(call)
    assert limits.streams == 0


def test_nobody_overtakes_those_who_wait() -> None:
    limits = RequestLimits(InboundLimits(max_active=1))
    limits.enter()
    waiting = limits.enter()
    limits.apply(InboundLimits(max_active=1, max_pending=2))
    late = limits.enter()
    assert waiting is not None
    assert late is not None
    assert not late.admitted


def test_new_limits_hold_for_those_who_are_in() -> None:
    """What is under way counts on: it is the same application."""
    process = Process(InboundLimits(max_requests=2))
    held = [process.serve(), process.serve()]
    process.say(InboundLimits(max_requests=3))
    assert process.serve().refusal is None
    process.say(InboundLimits(max_requests=2))
    assert process.serve().refusal is not None
    del held
    process.say(None)
    many = [process.serve() for _ in range(5)]
    assert not [serving for serving in many if serving.refusal]


def test_numbers_hold_under_threads() -> None:
    limits = RequestLimits(InboundLimits(max_active=3, max_pending=100))
    most = 0
    lock = threading.Lock()
    inside = 0

    def request(rounds: int = 30) -> None:
        nonlocal inside, most
        for _ in range(rounds):
            place = limits.enter()
            assert place is not None
            assert place.admitted or place.wait(None)
            with lock:
                inside += 1
                most = max(most, inside)
            with lock:
                inside -= 1
            limits.leave(place)

    run_in_threads(request, 12)
    assert 1 <= most <= 3
    assert (limits.active, limits.pending, limits.overflow) == (0, 0, 0)


def run_in_threads(work: Callable[[], None], count: int) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("late", [(), ((b"x-envoy-expected-rq-timeout-ms", b"100"),)])
def test_who_waits_for_a_place_is_waited_for_by_whoever_drains(late: tuple[tuple[bytes, bytes], ...]) -> None:
    """Until it has been served, or its time is over."""
    process = Process(InboundLimits(max_active=1))
    first, second = process.serve(), process.serve(*late)
    process.inbound.draining = True
    served: list[int] = []

    def serve() -> None:
        second.check()
        if second.refusal is None:
            with second:
                served.append(1)

    thread = threading.Thread(target=serve)
    with first:
        thread.start()
        while process.inbound.waiting == 0 and not served and second.refusal is None:
            pass
        if late:
            thread.join()
    assert process.inbound.wait_idle(60)
    assert served == ([] if late else [1])
    thread.join()
    assert (process.inbound.active, process.inbound.waiting) == (0, 0)


async def test_who_gives_up_waiting_is_waited_for_no_more() -> None:
    process = Process(InboundLimits(max_active=1))
    first, second = process.serve(), process.serve()
    waiting = asyncio.create_task(second.acheck())
    await asyncio.sleep(0)
    assert process.inbound.waiting == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert process.inbound.waiting == 0
    with first:
        pass


def test_a_loop_that_was_closed_with_a_request_in_the_queue_stops_nobody_else() -> None:
    process = Process(InboundLimits(max_active=1))
    first, forgotten = process.serve(), process.serve()
    loop = asyncio.new_event_loop()
    waiting = forgotten.acheck()

    async def begin() -> None:
        waiting.send(None)

    loop.run_until_complete(begin())
    loop.close()
    with first:
        pass  # the other one is let in by that, and nobody is there
    waiting.close()
    assert process.limits.active == 0
    assert process.serve().pending is None
