"""What routes do by themselves to calls of gRPC: faults, answers, header operations; with stubs of both kinds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import grpc
import pytest

from meshlib.model.route import (
    DirectResponse,
    Fault,
    HeaderChanges,
    HeaderValue,
    Mirror,
    PathMatch,
    Redirect,
    Route,
    RouteMatch,
)
from meshlib.model.snapshot import Target
from meshlib_integrations import grpc_aio
from meshlib_integrations.grpc import MeshChannel, channel
from tests.support.grpcmesh import BOTH, CLIENT_STREAM, HOST, SERVER_STREAM, UNARY, Member, greeter, handlers, serving

EVERYTHING = RouteMatch(PathMatch("prefix", "/"))
PAUSE = 0.05


def answering(function: Callable[[Any], Any]) -> Callable[[Any, grpc.ServicerContext], Any]:
    def behaviour(request: Any, context: grpc.ServicerContext) -> Any:
        context.send_initial_metadata((("x-answer", "server"), ("x-answer-bin", b"\0\xff"), ("x-gone", "1")))
        return function(request)

    return behaviour


def streamed(request: Any) -> Iterator[bytes]:
    yield from (b"1", b"2")


ALL = handlers(
    Unary=answering(lambda request: b"ok"),
    Down=answering(streamed),
    Up=answering(lambda requests: b"".join(requests)),
    Both=answering(lambda requests: iter(list(requests))),
)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with Member("greeter") as member, serving(member.mesh, ALL) as port:
        yield port


@pytest.fixture
def alice(port: int) -> Iterator[Member]:
    with Member("alice", greeter(port)) as member:
        yield member


@pytest.fixture
def calls(alice: Member) -> Iterator[MeshChannel]:
    with channel(alice.mesh, HOST) as channel_:
        yield channel_


def routed(target: Target, **changes: Any) -> Target:
    """The same target, its one route changed."""
    (route,) = target.virtual_host.routes
    return replace(target, virtual_host=replace(target.virtual_host, routes=(replace(route, **changes),)))


def forwarding(target: Target, **changes: Any) -> Target:
    (route,) = target.virtual_host.routes
    return routed(target, action=replace(route.action, **changes))


def made(calls: MeshChannel, kind: str, timeout: float | None = None) -> Any:
    """A call of this kind: an object with `code` and `initial_metadata`."""
    if kind == UNARY:
        return calls.unary_unary(UNARY).with_call(b"x", timeout=timeout)[1]
    if kind == CLIENT_STREAM:
        return calls.stream_unary(CLIENT_STREAM).with_call(iter([b"a"]), timeout=timeout)[1]
    if kind == SERVER_STREAM:
        call = calls.unary_stream(SERVER_STREAM)(b"x", timeout=timeout)
    else:
        call = calls.stream_stream(BOTH)(iter([b"a"]), timeout=timeout)
    assert list(call)
    return call


KINDS = (UNARY, CLIENT_STREAM, SERVER_STREAM, BOTH)


async def amade(calls: Any, kind: str) -> Any:
    """The same for asyncio."""
    if kind == UNARY:
        call = calls.unary_unary(UNARY)(b"x")
        await call
    elif kind == CLIENT_STREAM:
        call = calls.stream_unary(CLIENT_STREAM)(iter([b"a"]))
        await call
    else:
        call = calls.unary_stream(SERVER_STREAM)(b"x") if kind == SERVER_STREAM else calls.stream_stream(BOTH)(iter([b"a"]))
        assert [message async for message in call]
    return call


CHANGES = HeaderChanges(
    response_add=(
        HeaderValue(b"x-answer", b"route", "overwrite"),
        HeaderValue(b"x-more", b"1"),
    ),
    response_remove=(b"x-gone",),
)
CHANGED = {("x-answer", "route"), ("x-answer-bin", b"\0\xff"), ("x-more", "1")}


def shown(metadata: Any) -> set[tuple[str, str | bytes]]:
    return {(name, value) for name, value in metadata or () if name.startswith("x-")}


@pytest.mark.parametrize("kind", KINDS)
def test_routes_change_the_metadata_of_responses(alice: Member, port: int, calls: MeshChannel, kind: str) -> None:
    before = shown(made(calls, kind).initial_metadata())
    assert before == {("x-answer", "server"), ("x-answer-bin", b"\0\xff"), ("x-gone", "1")}
    alice.call(routed(greeter(port), headers=CHANGES))
    assert shown(made(calls, kind).initial_metadata()) == CHANGED


@pytest.mark.parametrize("kind", KINDS)
async def test_routes_change_the_metadata_of_responses_for_asyncio(alice: Member, port: int, kind: str) -> None:
    alice.call(routed(greeter(port), headers=CHANGES))
    async with grpc_aio.channel(alice.mesh, HOST) as calls:
        call = await amade(calls, kind)
        assert shown(await call.initial_metadata()) == CHANGED


@pytest.mark.parametrize("kind", KINDS)
def test_faults_hold_calls_up_and_abort_them(alice: Member, port: int, calls: MeshChannel, kind: str) -> None:
    alice.call(routed(greeter(port), fault=Fault(delay=PAUSE, delay_fraction=1.0)))
    began = time.monotonic()
    assert made(calls, kind).code() is grpc.StatusCode.OK
    assert time.monotonic() - began >= PAUSE
    alice.call(routed(greeter(port), fault=Fault(grpc_status=8, abort_fraction=1.0)))
    with pytest.raises(grpc.RpcError) as caught:
        made(calls, kind)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "fault filter abort" in caught.value.details()


@pytest.mark.parametrize("kind", KINDS)
async def test_faults_hold_calls_up_and_abort_them_for_asyncio(alice: Member, port: int, kind: str) -> None:
    alice.call(routed(greeter(port), fault=Fault(delay=PAUSE, delay_fraction=1.0)))
    async with grpc_aio.channel(alice.mesh, HOST) as calls:
        began = time.monotonic()
        call = await amade(calls, kind)
        assert await call.code() is grpc.StatusCode.OK
        assert time.monotonic() - began >= PAUSE
        alice.call(routed(greeter(port), fault=Fault(http_status=503, abort_fraction=1.0)))
        with pytest.raises(grpc.RpcError) as caught:
            await amade(calls, kind)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("kind", KINDS)
def test_a_delay_beyond_the_callers_deadline_is_that_deadline(alice: Member, port: int, calls: MeshChannel, kind: str) -> None:
    alice.call(routed(greeter(port), fault=Fault(delay=60.0, delay_fraction=1.0)))
    with pytest.raises(grpc.RpcError) as caught:
        made(calls, kind, timeout=PAUSE)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    ("action", "code"),
    [
        (DirectResponse(503, b"closed"), grpc.StatusCode.UNAVAILABLE),
        (DirectResponse(418, b"teapot"), grpc.StatusCode.UNKNOWN),
        (Redirect(301, path="/other"), grpc.StatusCode.UNKNOWN),
    ],
)
@pytest.mark.parametrize("kind", [UNARY, BOTH])
def test_answers_of_the_routes_own_are_statuses(
    alice: Member, calls: MeshChannel, port: int, action: DirectResponse | Redirect, code: grpc.StatusCode, kind: str
) -> None:
    target = greeter(port)
    alice.call(replace(target, virtual_host=replace(target.virtual_host, routes=(Route("own", EVERYTHING, action),))))
    with pytest.raises(grpc.RpcError) as caught:
        made(calls, kind)
    assert caught.value.code() is code
    if isinstance(action, DirectResponse):
        assert action.body.decode() in caught.value.details()


def test_calls_of_grpc_are_not_copied_but_counted(alice: Member, port: int, calls: MeshChannel) -> None:
    target = greeter(port)
    (cluster,) = target.clusters
    alice.call(forwarding(target, mirrors=(Mirror(cluster),)))
    for kind in KINDS:
        assert made(calls, kind).code() is grpc.StatusCode.OK
    process = alice.mesh._processes.current
    assert process is not None
    mirroring = process.client.mirroring
    assert (mirroring.unrepeatable, mirroring.sent, mirroring.failed) == (len(KINDS), 0, 0)
