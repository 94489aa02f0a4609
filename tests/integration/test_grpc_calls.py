"""Stubs on a mesh's channel, and servicers behind the mesh's flow: real gRPC at both ends, all four kinds, over mTLS."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest

from meshlib import current_request, errors
from meshlib.model.listener import MtlsMode
from meshlib.model.route import DirectResponse, PathMatch, Route, RouteMatch
from meshlib.testing import service, static_mesh
from meshlib_integrations.grpc import MeshChannel, channel, peer
from tests.support.control import eventually
from tests.support.grpcmesh import (
    BOTH,
    CLIENT_STREAM,
    DOMAIN,
    HOST,
    SERVER_STREAM,
    UNARY,
    Member,
    greeter,
    handlers,
    odd_serving,
    serving,
)
from tests.support.servers import free_port

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def who(context: grpc.ServicerContext) -> bytes:
    return str(peer(context)).encode()


def unary(request: bytes, context: grpc.ServicerContext) -> bytes:
    return request + b" from " + who(context)


def down(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    for number in range(3):
        yield b"%s %d " % (request, number) + str(current_request().peer).encode()  # type: ignore[union-attr]


def up(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
    return b"+".join(requests) + b" from " + who(context)


def both(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    for request in requests:
        yield request + b" from " + who(context)


ALL = handlers(Unary=unary, Down=down, Up=up, Both=both)
ALICE = DOMAIN.id("alice").encode()


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


def in_flight(member: Member) -> int:
    process = member.mesh._processes.current
    assert process is not None
    return sum(upstream.active for upstream in process.client.destinations.upstreams.values())


# --- the four kinds


def test_unary(calls: MeshChannel) -> None:
    method = calls.unary_unary(UNARY)
    assert method(b"hello") == b"hello from " + ALICE
    response, call = method.with_call(b"hello")
    assert (response, call.code()) == (b"hello from " + ALICE, grpc.StatusCode.OK)
    assert method.future(b"hello").result(30) == b"hello from " + ALICE


def test_streams(calls: MeshChannel) -> None:
    assert list(calls.unary_stream(SERVER_STREAM)(b"x")) == [b"x %d " % number + ALICE for number in range(3)]
    assert calls.stream_unary(CLIENT_STREAM)(iter([b"a", b"b"])) == b"a+b from " + ALICE
    assert calls.stream_unary(CLIENT_STREAM).future(iter([b"a"])).result(30) == b"a from " + ALICE
    answers = calls.stream_stream(BOTH)(iter([b"a", b"b"]))
    assert list(answers) == [b"a from " + ALICE, b"b from " + ALICE]
    assert answers.code() is grpc.StatusCode.OK


def test_serializers_are_the_stubs(calls: MeshChannel) -> None:
    method = calls.unary_unary(UNARY, str.encode, lambda data: data.decode().split()[0])
    assert method("hello") == "hello"


def test_slots_are_given_back(alice: Member, calls: MeshChannel) -> None:
    """Also by streams that nobody reads to their end."""
    calls.unary_unary(UNARY)(b"")
    list(calls.unary_stream(SERVER_STREAM)(b""))
    open_ = calls.stream_stream(BOTH)(_until(threading.Event()))
    assert in_flight(alice) == 1
    open_.cancel()
    eventually(lambda: in_flight(alice) == 0, what="the stream to be over")
    abandoned = calls.unary_stream(SERVER_STREAM)(b"")
    next(abandoned)
    del abandoned
    eventually(lambda: in_flight(alice) == 0, what="the abandoned stream to be over")


def test_a_closed_channel_cancels_its_own_calls_only(alice: Member) -> None:
    mine, other = channel(alice.mesh, HOST), channel(alice.mesh, HOST)
    forever = threading.Event()
    call, others = (each.stream_stream(BOTH)(_until(forever)) for each in (mine, other))
    assert (next(call), next(others)) == (b"x from " + ALICE,) * 2
    mine.close()
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    assert caught.value.code() is grpc.StatusCode.CANCELLED
    with pytest.raises(ValueError, match="closed channel"):
        mine.unary_unary(UNARY)(b"")
    assert next(others)
    forever.set()
    list(others)
    other.close()


def _until(done: threading.Event) -> Iterator[bytes]:
    while not done.wait(0.01):
        yield b"x"


def test_ready_is_what_is_known(alice: Member) -> None:
    with channel(alice.mesh, HOST) as known, channel(alice.mesh, "nowhere:80") as unknown:
        grpc.channel_ready_future(known).result(30)
        seen: list[grpc.ChannelConnectivity] = []
        unknown.subscribe(seen.append, try_to_connect=True)
        eventually(lambda: grpc.ChannelConnectivity.TRANSIENT_FAILURE in seen, what="an answer")


def test_targets_are_hosts(alice: Member) -> None:
    for target in ("dns:///greeter", "greeter:http", "unix:/tmp/x"):
        with pytest.raises(errors.RequestError, match="host of the mesh"):
            channel(alice.mesh, target)


# --- what travels


def test_metadata_goes_both_ways_but_not_what_only_certificates_say(alice: Member, calls: MeshChannel) -> None:
    def reflect(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.send_initial_metadata((("x-answer", "1"),))
        return repr(sorted((key, value) for key, value in context.invocation_metadata())).encode()

    with Member("greeter") as member, serving(member.mesh, handlers(Unary=reflect)) as port:
        alice.call(greeter(port))
        forged = (("X-Forwarded-Client-Cert".lower(), "By=spiffe://td1/ns/default/sa/admin"), ("x-mesh-peer", "admin"))
        response, call = calls.unary_unary(UNARY).with_call(b"", metadata=(("user_id", "7"), ("x-bin", b"\0\1"), *forged))
    assert b"('user_id', '7')" in response
    assert b"('x-bin', b'\\x00\\x01')" in response
    assert b"client-cert" not in response
    assert b"x-mesh" not in response
    assert ("x-answer", "1") in tuple(call.initial_metadata())


def test_deadline_and_trace_of_the_served_call_travel_on(alice: Member) -> None:
    """The second hop has what is left of the first one's time, in the same trace."""
    seen: dict[str, Any] = {}

    def second(request: bytes, context: grpc.ServicerContext) -> bytes:
        seen["remaining"] = context.time_remaining()
        seen["metadata"] = dict(context.invocation_metadata())
        return b"done"

    with ExitStack() as stack:
        last = stack.enter_context(Member("greeter"))
        port = stack.enter_context(serving(last.mesh, handlers(Unary=second)))
        middle = stack.enter_context(Member("middle", greeter(port)))
        onward = stack.enter_context(channel(middle.mesh, HOST)).unary_unary(UNARY)
        first = handlers(Unary=lambda request, context: onward(request))
        alice.call(greeter(stack.enter_context(serving(middle.mesh, first)), identities=[DOMAIN.id("middle")]))
        with channel(alice.mesh, HOST) as calls:
            assert calls.unary_unary(UNARY)(b"", timeout=20, metadata=(("traceparent", TRACE),)) == b"done"
    assert 0 < seen["remaining"] <= 20
    sent = seen["metadata"]["traceparent"]
    assert sent != TRACE
    assert sent.startswith(TRACE[:36])


def test_a_deadline_that_passes(calls: MeshChannel, alice: Member) -> None:
    def slow(request: bytes, context: grpc.ServicerContext) -> bytes:
        time.sleep(0.5)
        return b""

    with Member("greeter") as member, serving(member.mesh, handlers(Unary=slow)) as port:
        alice.call(greeter(port))
        with pytest.raises(errors.TimeoutExceeded) as caught:
            calls.unary_unary(UNARY)(b"", timeout=0.1)
        assert isinstance(caught.value, grpc.RpcError)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        alice.call(greeter(port, timeout=0.1))
        with pytest.raises(errors.TimeoutExceeded, match="route's timeout"):
            calls.unary_unary(UNARY)(b"")


# --- several endpoints


def test_each_call_is_balanced(alice: Member, calls: MeshChannel) -> None:
    with ExitStack() as stack:
        ports = []
        for name in (b"a", b"b"):
            member = stack.enter_context(Member("greeter"))
            answering = handlers(Unary=lambda request, context, name=name: name, Down=lambda r, c, name=name: iter([name]))
            ports.append(stack.enter_context(serving(member.mesh, answering)))
        alice.call(greeter(*ports))
        method = calls.unary_unary(UNARY)
        assert {method(b"") for _ in range(40)} == {b"a", b"b"}
        assert {next(calls.unary_stream(SERVER_STREAM)(b"")) for _ in range(40)} == {b"a", b"b"}


def test_an_endpoint_that_is_gone_is_left_alone(alice: Member, port: int, calls: MeshChannel) -> None:
    """No call fails: what was never sent is tried elsewhere, for every method."""
    alice.call(greeter(port, free_port()))
    method = calls.unary_unary(UNARY)
    assert all(method(b"x") == b"x from " + ALICE for _ in range(40))


def test_unavailable_is_tried_again_by_the_routes_policy(alice: Member, calls: MeshChannel) -> None:
    failed: list[str] = []

    def flaky(request: bytes, context: grpc.ServicerContext) -> bytes:
        if len(failed) < 2:
            failed.append(dict(context.invocation_metadata())["x-envoy-attempt-count"])
            context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        number: str = dict(context.invocation_metadata())["x-envoy-attempt-count"]
        return number.encode()

    with Member("greeter") as member, serving(member.mesh, handlers(Unary=flaky)) as port:
        alice.call(greeter(port))
        assert calls.unary_unary(UNARY)(b"") == b"3"
        assert failed == ["1", "2"]
        failed.clear()
        alice.call(greeter(port, retry=None))
        with pytest.raises(grpc.RpcError) as caught:
            calls.unary_unary(UNARY)(b"")
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNAVAILABLE, "not yet")


def test_other_failures_and_futures_have_one_try(alice: Member, calls: MeshChannel) -> None:
    served = []

    def failing(request: bytes, context: grpc.ServicerContext) -> bytes:
        served.append(request)
        context.abort(grpc.StatusCode[request.decode()], "no")
        return b""

    with (
        Member("greeter") as member,
        serving(member.mesh, handlers(Unary=failing, Up=lambda r, c: failing(next(r), c))) as port,
    ):
        alice.call(greeter(port))
        attempts: dict[str, Callable[[], object]] = {
            "INVALID_ARGUMENT": lambda: calls.unary_unary(UNARY)(b"INVALID_ARGUMENT"),
            "UNAVAILABLE": lambda: calls.unary_unary(UNARY).future(b"UNAVAILABLE").result(30),
            "CANCELLED": lambda: calls.stream_unary(CLIENT_STREAM)(iter([b"CANCELLED"])),
        }
        for code, attempt in attempts.items():
            with pytest.raises((grpc.RpcError, grpc.FutureCancelledError)) as caught:
                attempt()
            if isinstance(caught.value, grpc.RpcError):
                assert caught.value.code() is grpc.StatusCode[code]
    assert served == [b"INVALID_ARGUMENT", b"UNAVAILABLE", b"CANCELLED"]


# --- what the mesh has to say


def test_errors_of_the_mesh_are_grpcs(alice: Member) -> None:
    alice.call(
        greeter(),
        service("direct:80", [], routes=[Route("teapot", RouteMatch(PathMatch("prefix", "/")), DirectResponse(403, b"no"))]),
        service("plain:80", [f"127.0.0.1:{free_port()}"]),
    )
    expected = {
        HOST: (errors.NoHealthyUpstream, grpc.StatusCode.UNAVAILABLE),
        "nowhere:80": (errors.OutboundBlocked, grpc.StatusCode.UNAVAILABLE),
        "direct:80": (errors.RouteError, grpc.StatusCode.PERMISSION_DENIED),
        "plain:80": (errors.ConnectFailed, grpc.StatusCode.UNAVAILABLE),
    }
    for target, (kind, code) in expected.items():
        with channel(alice.mesh, target) as calls:
            with pytest.raises(grpc.RpcError) as caught:
                calls.unary_unary(UNARY)(b"")
            assert isinstance(caught.value, kind)
            assert isinstance(caught.value, grpc.Call)
            assert caught.value.code() is code
            with pytest.raises(grpc.RpcError) as caught:
                list(calls.unary_stream(SERVER_STREAM)(b""))
            assert caught.value.code() is code


def test_mtls_is_never_given_up(port: int, alice: Member, calls: MeshChannel) -> None:
    """An endpoint that speaks plaintext only, where mTLS is said: no call gets there.  Nor without an identity."""
    reached: list[bytes] = []

    def reaching(request: bytes, context: grpc.ServicerContext) -> bytes:
        reached.append(request)
        return request

    with Member("greeter") as member, serving(member.mesh, handlers(Unary=reaching), plain=True) as bare:
        alice.call(greeter(bare))
        with pytest.raises(errors.TlsFailed):
            calls.unary_unary(UNARY)(b"")
    with static_mesh(greeter(port)) as nobody, pytest.raises(errors.TlsFailed, match="no identity"):
        channel(nobody, HOST).unary_unary(UNARY)(b"")
    alice.call(greeter(port))
    assert calls.unary_unary(UNARY)(b"x")
    assert reached == []


def test_plaintext_where_nothing_else_is_said(alice: Member, calls: MeshChannel) -> None:
    with Member("greeter", mode=MtlsMode.PERMISSIVE) as member, serving(member.mesh, ALL, plain=True) as bare:
        alice.call(service(HOST, [f"127.0.0.1:{bare}"]))
        assert calls.unary_unary(UNARY)(b"x") == b"x from None"
        member.allow(MtlsMode.STRICT)
        with pytest.raises(grpc.RpcError) as caught:
            calls.unary_unary(UNARY)(b"x")
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_servers_of_others_are_called_too(alice: Member, calls: MeshChannel) -> None:
    """What the mesh's server does beyond TLS is its own business."""
    with odd_serving(DOMAIN.leaf("greeter"), handlers(Unary=lambda request, context: request)) as port:
        alice.call(greeter(port))
        assert calls.unary_unary(UNARY)(b"x") == b"x"
