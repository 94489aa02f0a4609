"""`grpc.aio` on a mesh's channel and behind the mesh's flow: each kind of call, and each kind of servicer's method."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import grpc
import grpc.aio
import pytest

from meshlib import current_request, errors
from meshlib.model.listener import MtlsMode
from meshlib.testing import service
from meshlib_integrations.grpc_aio import MeshChannel, channel, peer
from tests.support.grpcmesh import (
    BOTH,
    CLIENT_STREAM,
    DOMAIN,
    HOST,
    SERVER_STREAM,
    UNARY,
    Member,
    aserving,
    greeter,
    handlers,
    serving,
)
from tests.support.polling import eventually
from tests.support.servers import free_port

ALICE = DOMAIN.id("alice").encode()


def who(context: Any) -> bytes:
    served = current_request()
    assert served is not None
    assert served.peer == peer(context)
    return str(peer(context)).encode()


# --- each kind of servicer's method


async def unary(request: bytes, context: Any) -> bytes:
    return request + b" from " + who(context)


def unary_in_a_thread(request: bytes, context: Any) -> bytes:
    return request + b" from " + who(context)


async def down(request: bytes, context: Any) -> AsyncIterator[bytes]:
    for _ in range(2):
        await asyncio.sleep(0)
        yield request + b" from " + who(context)


async def down_by_writing(request: bytes, context: Any) -> None:
    for _ in range(2):
        await context.write(request + b" from " + who(context))


def down_in_a_thread(request: bytes, context: Any) -> Iterator[bytes]:
    for _ in range(2):
        yield request + b" from " + who(context)


async def up(requests: AsyncIterator[bytes], context: Any) -> bytes:
    return b"".join([request async for request in requests]) + b" from " + who(context)


async def up_by_reading(requests: object, context: Any) -> bytes:
    read = []
    while (request := await context.read()) is not grpc.aio.EOF:
        read.append(request)
    return b"".join(read) + b" from " + who(context)


def up_in_a_thread(requests: Iterator[bytes], context: Any) -> bytes:
    return b"".join(requests) + b" from " + who(context)


async def both(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request + b" from " + who(context)


async def both_by_hand(requests: object, context: Any) -> None:
    while (request := await context.read()) is not grpc.aio.EOF:
        await context.write(request + b" from " + who(context))


async def read_all(call: Any) -> list[bytes]:
    return [response async for response in call]


@pytest.mark.parametrize("behaviour", [unary, unary_in_a_thread])
async def test_unary(behaviour: Callable[..., Any]) -> None:
    async with AsyncExitStack() as stack:
        calls = await connected(stack, Unary=behaviour)
        call = calls.unary_unary(UNARY)(b"x", timeout=30)
        assert await call == b"x from " + ALICE
        assert await call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("behaviour", [down, down_by_writing, down_in_a_thread])
async def test_server_streams(behaviour: Callable[..., Any]) -> None:
    async with AsyncExitStack() as stack:
        calls = await connected(stack, Down=behaviour)
        assert await read_all(calls.unary_stream(SERVER_STREAM)(b"x")) == [b"x from " + ALICE] * 2
        call = calls.unary_stream(SERVER_STREAM)(b"y")
        # To the end: in threads, gRPC itself leaves a generator waiting for ever whose stream is given up.
        assert [await call.read() for _ in range(3)] == [b"y from " + ALICE, b"y from " + ALICE, grpc.aio.EOF]


@pytest.mark.parametrize("behaviour", [up, up_by_reading, up_in_a_thread])
async def test_client_streams(behaviour: Callable[..., Any]) -> None:
    async with AsyncExitStack() as stack:
        calls = await connected(stack, Up=behaviour)
        assert await calls.stream_unary(CLIENT_STREAM)(pair()) == b"ab from " + ALICE
        written = calls.stream_unary(CLIENT_STREAM)()
        await written.write(b"c")
        await written.done_writing()
        assert await written == b"c from " + ALICE


@pytest.mark.parametrize("behaviour", [both, both_by_hand])
async def test_streams_both_ways(behaviour: Callable[..., Any]) -> None:
    async with AsyncExitStack() as stack:
        calls = await connected(stack, Both=behaviour)
        assert await read_all(calls.stream_stream(BOTH)(pair())) == [b"a from " + ALICE, b"b from " + ALICE]
        by_hand = calls.stream_stream(BOTH)()
        for message in (b"c", b"d"):
            await by_hand.write(message)
            assert await by_hand.read() == message + b" from " + ALICE
        await by_hand.done_writing()
        assert await by_hand.read() is grpc.aio.EOF


async def pair() -> AsyncIterator[bytes]:
    yield b"a"
    yield b"b"


async def connected(stack: AsyncExitStack, **behaviours: Callable[..., Any]) -> MeshChannel:
    """A caller of a server with these methods."""
    server = stack.enter_context(Member("greeter"))
    port = await stack.enter_async_context(aserving(server.mesh, handlers(**behaviours)))
    return await calling(stack, stack.enter_context(Member("alice", greeter(port))))


async def calling(stack: AsyncExitStack, caller: Member) -> MeshChannel:
    stack.push_async_callback(caller.mesh.aclose_loop)
    return await stack.enter_async_context(channel(caller.mesh, HOST))


# --- life


def in_flight(member: Member) -> int:
    process = member.mesh._processes.current
    assert process is not None
    return sum(upstream.active for upstream in process.client.destinations.upstreams.values())


async def test_slots_are_given_back() -> None:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(Member("greeter"))
        port = await stack.enter_async_context(aserving(server.mesh, handlers(Unary=unary, Both=both)))
        alice = stack.enter_context(Member("alice", greeter(port)))
        calls = await calling(stack, alice)
        await calls.unary_unary(UNARY)(b"")
        assert in_flight(alice) == 0
        call = calls.stream_stream(BOTH)()
        await call.write(b"x")
        await call.read()
        assert in_flight(alice) == 1
        call.cancel()
        await eventually(lambda: in_flight(alice) == 0)
        task = asyncio.ensure_future(_wait(calls, port))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: in_flight(alice) == 0)


async def _wait(calls: MeshChannel, port: int) -> None:
    await calls.unary_unary(UNARY)(b"")


async def test_a_loop_that_just_ends_leaves_nothing_behind() -> None:
    """Nobody closes anything: not the channel, not the loop's part of the mesh."""

    async def once(member: Member) -> bytes:
        answer: bytes = await channel(member.mesh, HOST).unary_unary(UNARY)(b"x")
        return answer

    with ExitStack() as stack:
        server = stack.enter_context(Member("greeter"))
        port = stack.enter_context(serving(server.mesh, handlers(Unary=unary_in_a_thread)))
        alice = stack.enter_context(Member("alice", greeter(port)))
        for _ in range(3):
            assert await asyncio.to_thread(lambda: asyncio.run(once(alice))) == b"x from " + ALICE


async def test_ready_is_what_is_known() -> None:
    async with AsyncExitStack() as stack:
        calls = await connected(stack, Unary=unary)
        assert calls.get_state() is grpc.ChannelConnectivity.IDLE
        await calls.channel_ready()
        assert calls.get_state() is grpc.ChannelConnectivity.READY


# --- the mesh's part


async def test_retries_deadlines_and_errors() -> None:
    served: list[bytes] = []

    async def flaky(request: bytes, context: Any) -> bytes:
        served.append(request)
        if request == b"slow":
            await asyncio.sleep(5)
        if len(served) < 3:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        return b"done"

    async with AsyncExitStack() as stack:
        server = stack.enter_context(Member("greeter"))
        port = await stack.enter_async_context(aserving(server.mesh, handlers(Unary=flaky)))
        alice = stack.enter_context(Member("alice", greeter(port)))
        calls = await calling(stack, alice)
        assert await calls.unary_unary(UNARY)(b"") == b"done"
        assert len(served) == 3
        alice.call(greeter(port, free_port()))
        assert [await calls.unary_unary(UNARY)(b"") for _ in range(20)] == [b"done"] * 20
        alice.call(greeter(port, retry=None))
        served.clear()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await calls.unary_unary(UNARY)(b"")
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNAVAILABLE, "not yet")
        with pytest.raises(errors.TimeoutExceeded) as late:
            await calls.unary_unary(UNARY)(b"slow", timeout=0.1)
        assert isinstance(late.value, grpc.aio.AioRpcError)
        alice.call(greeter())
        call = calls.unary_unary(UNARY)(b"")
        with pytest.raises(errors.NoHealthyUpstream):
            await call
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        stream = calls.unary_stream(SERVER_STREAM)(b"")
        with pytest.raises(grpc.aio.AioRpcError):
            await read_all(stream)
        assert await stream.code() is grpc.StatusCode.UNAVAILABLE


async def test_calls_made_while_serving_are_bounded_and_traced() -> None:
    seen: dict[str, Any] = {}

    async def second(request: bytes, context: Any) -> bytes:
        seen.update(remaining=context.time_remaining(), metadata=dict(context.invocation_metadata()))
        return b"done"

    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with AsyncExitStack() as stack:
        last = stack.enter_context(Member("greeter"))
        port = await stack.enter_async_context(aserving(last.mesh, handlers(Unary=second)))
        middle = stack.enter_context(Member("middle", greeter(port)))
        onward = (await calling(stack, middle)).unary_unary(UNARY)

        async def first(request: bytes, context: Any) -> bytes:
            answer: bytes = await onward(request)
            return answer

        front = await stack.enter_async_context(aserving(middle.mesh, handlers(Unary=first)))
        alice = stack.enter_context(Member("alice", greeter(front, identities=[DOMAIN.id("middle")])))
        calls = await calling(stack, alice)
        assert await calls.unary_unary(UNARY)(b"", timeout=20, metadata=(("traceparent", trace),)) == b"done"
    assert 0 < seen["remaining"] <= 20
    assert seen["metadata"]["traceparent"].startswith(trace[:36])


async def test_the_loop_is_not_blocked_while_an_endpoint_does_not_answer() -> None:
    """The look at who is there is made on the loop, too: something that accepts and says nothing holds up nobody else."""
    async with AsyncExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = silent.getsockname()[1]
        alice = stack.enter_context(Member("alice", greeter(port, connect_timeout=0.5, retry=None)))
        calls = await calling(stack, alice)
        call = asyncio.ensure_future(_wait(calls, port))
        turns, until = 0, time.monotonic() + 0.2
        while time.monotonic() < until:
            await asyncio.sleep(0)
            turns += 1
        assert turns > 10
        with pytest.raises(errors.ConnectTimeout):
            await call


async def test_plaintext_where_nothing_else_is_said() -> None:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(Member("greeter", mode=MtlsMode.PERMISSIVE))
        port = await stack.enter_async_context(aserving(server.mesh, handlers(Unary=unary), plain=True))
        calls = await calling(stack, stack.enter_context(Member("alice", service(HOST, [f"127.0.0.1:{port}"]))))
        assert await calls.unary_unary(UNARY)(b"x") == b"x from None"
        server.allow(MtlsMode.STRICT)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await calls.unary_unary(UNARY)(b"x")
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
