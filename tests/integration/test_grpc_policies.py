"""Policies before gRPC's servicers, in threads and on asyncio: who may call what, with which tokens, and what is told of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Any

import grpc
import pytest

from meshlib import Mesh, current_request
from meshlib.model.authentication import JwtAuthentication, JwtProvider, Provider
from meshlib.model.authorization import ExternalAuthorization, Not
from meshlib.model.listener import HttpFilter, MtlsMode
from meshlib.testing import service
from meshlib.xds.check import CHECK
from meshlib.xds.proto import ext_authz_pb2
from meshlib_integrations.grpc import MeshChannel, channel, peer
from tests.support.grpcmesh import (
    CLIENT_STREAM,
    DOMAIN,
    HOST,
    SERVER_STREAM,
    UNARY,
    Member,
    greeter,
    handlers,
    serving,
    threaded_aserving,
)
from tests.support.rbac import allow, deny, header, host, path, principal
from tests.support.tokens import rsa_key

Serve = Callable[[Mesh, Any], AbstractContextManager[int]]
REACHED: list[str] = []


def unary(request: bytes, context: Any) -> bytes:
    REACHED.append("Unary")
    return repr([request, str(peer(context)), sorted((key, value) for key, value in context.invocation_metadata())]).encode()


def down(request: bytes, context: Any) -> Iterator[bytes]:
    REACHED.append("Down")
    yield str(peer(context)).encode()


def up(requests: Iterator[bytes], context: Any) -> bytes:
    REACHED.append("Up")
    return b"".join(requests)


async def aunary(request: bytes, context: Any) -> bytes:
    return unary(request, context)


async def adown(request: bytes, context: Any) -> Any:
    for answer in down(request, context):
        yield answer


async def aup(requests: Any, context: Any) -> bytes:
    REACHED.append("Up")
    return b"".join([request async for request in requests])


class Scene:
    """A server and a caller, `alice`."""

    def __init__(self, stack: ExitStack, serve: Serve, behaviours: dict[str, Callable[..., Any]]) -> None:
        self.server = stack.enter_context(Member("greeter"))
        self.port = stack.enter_context(serve(self.server.mesh, handlers(**behaviours)))
        self.alice = stack.enter_context(Member("alice", greeter(self.port, retry=None)))
        self.calls: MeshChannel = stack.enter_context(channel(self.alice.mesh, HOST))

    def holds(self, *filters: HttpFilter, mode: MtlsMode = MtlsMode.STRICT) -> None:
        REACHED.clear()
        self.server.allow(mode, *filters)

    def call(self, method: str = UNARY, *metadata: tuple[str, str | bytes]) -> str:
        """The response, or the status."""
        try:
            response: bytes = self.calls.unary_unary(method)(b"x", timeout=30, metadata=metadata)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
        return response.decode()

    def stream(self) -> str:
        try:
            return b"".join(self.calls.unary_stream(SERVER_STREAM)(b"x", timeout=30)).decode()
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"


@pytest.fixture(scope="module", params=["threads", "asyncio"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    with ExitStack() as stack:
        if request.param == "threads":
            yield Scene(stack, serving, {"Unary": unary, "Down": down, "Up": up})
        else:
            yield Scene(stack, threaded_aserving, {"Unary": aunary, "Down": adown, "Up": aup})


DENIED = "PERMISSION_DENIED: RBAC: access denied"
ALICE = DOMAIN.id("alice")


def test_who_may_call_what(scene: Scene) -> None:
    scene.holds(allow(path(UNARY), principal(ALICE)))
    assert ALICE in scene.call()
    assert scene.stream() == DENIED
    scene.holds(allow(path(UNARY), principal(DOMAIN.id("bob"))))
    assert scene.call() == DENIED
    scene.holds(deny(path(UNARY)))
    assert (scene.call(), scene.stream()) == (DENIED, ALICE)
    assert REACHED == ["Down"]


def test_P15_a_method_is_no_prefix_of_another(scene: Scene) -> None:
    scene.holds(allow(path("/test.Greeter/Un")))
    assert scene.call() == DENIED
    scene.holds(allow(path(UNARY)))
    assert ALICE in scene.call()


def test_P14_methods_that_are_not_there_are_no_secret_keepers(scene: Scene) -> None:
    """Who may not call anything is not told what there is; who may, is."""
    scene.holds(deny())
    assert scene.call("/test.Greeter/Nothing") == DENIED
    scene.holds()
    assert scene.call("/test.Greeter/Nothing") == "UNIMPLEMENTED: Method not found!"
    assert scene.call("//test.Greeter/Unary") == "PERMISSION_DENIED: malformed method"
    assert scene.call("/x/../test.Greeter/Unary") == "PERMISSION_DENIED: malformed method"


def test_streamed_requests_are_judged_before_they_are_read(scene: Scene) -> None:
    scene.holds(deny())
    with pytest.raises(grpc.RpcError) as caught:
        scene.calls.stream_unary(CLIENT_STREAM)(iter([b"a"]), timeout=30)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert REACHED == []
    scene.holds()
    assert scene.calls.stream_unary(CLIENT_STREAM)(iter([b"a", b"b"]), timeout=30) == b"ab"


def test_metadata_is_headers(scene: Scene) -> None:
    scene.holds(deny(header("x-role", "admin")), deny(header("x_role", "admin")))
    assert ALICE in scene.call(UNARY, ("x-role", "user"))
    for metadata in ([("x-role", "admin")], [("x-role", "user"), ("x-role", "admin")], [("x_role", "admin")]):
        assert scene.call(UNARY, *metadata) == DENIED
    assert "('x-bin', b'\\x00\\xff')" in scene.call(UNARY, ("x-bin", b"\0\xff"))


def test_hosts_that_nobody_knows(scene: Scene) -> None:
    """Rules that restrict by host hold, ones that grant do not: grpcio does not tell what host was named."""
    scene.holds(deny(host("secret.com")))
    assert scene.call() == DENIED
    scene.holds(allow(host("greeter")))
    assert scene.call() == DENIED
    scene.holds(allow(Not(host("secret.com"))))
    assert scene.call() == DENIED
    scene.holds(allow())
    assert ALICE in scene.call()


def test_plaintext_meets_the_mode_of_the_moment(scene: Scene) -> None:
    kinds: dict[str, Any] = {"Unary": unary}
    with serving(scene.server.mesh, handlers(**kinds), plain=True) as port:
        scene.alice.call(service(HOST, [f"127.0.0.1:{port}"], retry=None))
        scene.holds(mode=MtlsMode.PERMISSIVE)
        assert "'None'" in scene.call()
        scene.holds(allow(who=principal("*")), mode=MtlsMode.PERMISSIVE)
        assert scene.call() == DENIED  # I10: nobody is nobody
        scene.holds(mode=MtlsMode.STRICT)
        assert scene.call() == "PERMISSION_DENIED: mTLS required"
    scene.alice.call(greeter(scene.port, retry=None))
    assert ALICE in scene.call()


def test_tokens(scene: Scene) -> None:
    key = rsa_key()
    provider = JwtProvider("p", "issuer", jwks=json.dumps({"keys": [dict(key.jwk)]}), claim_headers=(("x-sub", "sub"),))
    scene.holds(JwtAuthentication("jwt", {"p": provider}, Provider("p")))
    refused = scene.call()
    assert refused.startswith("UNAUTHENTICATED: ")
    assert scene.call(UNARY, ("authorization", "Bearer x.y.z")).startswith("UNAUTHENTICATED: ")
    good = key.token({"iss": "issuer", "sub": "carol"})
    seen = scene.call(UNARY, ("authorization", f"Bearer {good}"), ("x-sub", "forged"))
    assert "('x-sub', 'carol')" in seen
    assert "forged" not in seen
    assert good not in seen  # not forwarded


def test_claims_are_there_while_serving() -> None:
    key, claims = rsa_key(), []

    def tell(request: bytes, context: Any) -> bytes:
        served = current_request()
        assert served is not None
        assert served is context.meshlib
        claims.append((served.claims or {}).get("sub"))
        return b""

    provider = JwtProvider("p", "issuer", jwks=json.dumps({"keys": [dict(key.jwk)]}))
    with ExitStack() as stack:
        server = stack.enter_context(Member("greeter", filters=[JwtAuthentication("jwt", {"p": provider}, Provider("p"))]))
        port = stack.enter_context(serving(server.mesh, handlers(Unary=tell)))
        alice = stack.enter_context(Member("alice", greeter(port)))
        token = key.token({"iss": "issuer", "sub": "carol"})
        channel(alice.mesh, HOST).unary_unary(UNARY)(b"", metadata=(("authorization", f"Bearer {token}"),))
    assert claims == ["carol"]


# --- external authorizers

AUTHORITY = "authz:9000"


class Authorizer:
    """Allows what says ``x-pass: yes``."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def check(self, data: bytes, context: Any) -> bytes:
        request = ext_authz_pb2.CheckRequest.FromString(data)
        self.asked.append(request)
        answer = ext_authz_pb2.CheckResponse()
        if request.attributes.request.http.headers.get("x-pass") == "yes":
            _set(answer.ok_response.headers.add(), "x-user", "carol")
            _set(answer.ok_response.response_headers_to_add.add(), "x-trace", "t")
        else:
            answer.status.code = 7
            answer.denied_response.status.code = 429  # type: ignore[assignment]
            answer.denied_response.body = "slow down"
        return answer.SerializeToString()


def _set(option: Any, name: str, value: str) -> None:
    option.header.key, option.header.value = name, value


def test_external_authorizers(scene: Scene) -> None:
    """Asked about the call; what they change is seen by the servicer, what they add by the caller."""
    authorizer = Authorizer()
    asking = ExternalAuthorization("authz", "outbound|9000||authz", AUTHORITY, grpc=True, timeout=20, max_request_bytes=64)
    service_name, method = CHECK.strip("/").split("/")
    generic = grpc.method_handlers_generic_handler(
        service_name, {method: grpc.unary_unary_rpc_method_handler(authorizer.check)}
    )
    permissive = Member("authz", mode=MtlsMode.PERMISSIVE)
    with permissive as member, serving(member.mesh, generic, plain=True) as port:
        scene.server.control.publish(
            replace(scene.server.control.current, targets={AUTHORITY: service(AUTHORITY, [f"127.0.0.1:{port}"])})
        )
        scene.holds(asking)
        assert scene.call() == "RESOURCE_EXHAUSTED: slow down"
        assert REACHED == []
        response, call = scene.calls.unary_unary(UNARY).with_call(b"x", timeout=30, metadata=(("x-pass", "yes"),))
        assert b"('x-user', 'carol')" in response
        assert ("x-trace", "t") in tuple(call.initial_metadata())
        stream = scene.calls.unary_stream(SERVER_STREAM)(b"x", timeout=30, metadata=(("x-pass", "yes"),))
        assert list(stream) == [ALICE.encode()]
        assert ("x-trace", "t") in tuple(stream.initial_metadata())
    first = authorizer.asked[0].attributes
    assert (first.request.http.method, first.request.http.path) == ("POST", UNARY)
    assert (first.request.http.body or first.request.http.raw_body.decode()) == "\0\0\0\0\1x"
    assert first.source.principal == ALICE


def test_an_authorizer_that_is_not_there_lets_nobody_in(scene: Scene) -> None:
    scene.holds(ExternalAuthorization("authz", "outbound|9000||nowhere", "nowhere:9000", grpc=True, timeout=5))
    assert scene.call().startswith("PERMISSION_DENIED: ")
    assert REACHED == []
    scene.holds()
    assert ALICE in scene.call()


# --- what is not judged is not parsed


def test_requests_are_parsed_for_those_only_who_may_call() -> None:
    parsed = []

    def parse(data: bytes) -> bytes:
        parsed.append(data)
        if data == b"bad":
            raise ValueError("no message")
        return data

    handler = grpc.method_handlers_generic_handler(
        "test.Greeter", {"Unary": grpc.unary_unary_rpc_method_handler(lambda request, context: request, parse)}
    )
    with ExitStack() as stack:
        server = stack.enter_context(Member("greeter", filters=[deny()]))
        alice = stack.enter_context(Member("alice", greeter(stack.enter_context(serving(server.mesh, handler)))))
        method = channel(alice.mesh, HOST).unary_unary(UNARY)
        with pytest.raises(grpc.RpcError):
            method(b"x")
        assert parsed == []
        server.allow(MtlsMode.STRICT)
        assert method(b"x") == b"x"
        with pytest.raises(grpc.RpcError) as caught:
            method(b"bad")
        assert caught.value.code() is grpc.StatusCode.INTERNAL


def test_what_is_refused_is_counted_and_what_runs_is_waited_for() -> None:
    go, begun = threading.Event(), threading.Event()

    def slow(request: bytes, context: Any) -> bytes:
        begun.set()
        go.wait(30)
        return b"done"

    with ExitStack() as stack:
        server = stack.enter_context(Member("greeter", filters=[deny(header("x-no", "1"))]))
        port = stack.enter_context(serving(server.mesh, handlers(Unary=slow)))
        alice = stack.enter_context(Member("alice", greeter(port)))
        method = channel(alice.mesh, HOST).unary_unary(UNARY)
        with pytest.raises(grpc.RpcError):
            method(b"", metadata=(("x-no", "1"),))
        assert sum(server.mesh.denied.values()) == 1
        call = method.future(b"")
        begun.wait(30)
        drained = threading.Thread(target=lambda: server.mesh.drain(30))
        drained.start()
        go.set()
        assert call.result(30) == b"done"
        drained.join()
        assert server.mesh.draining
