"""The channel to the control service: mTLS by the identity of the moment, and only with the control service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from cryptography import x509

from meshlib.errors import ConfigError, ControlError, NotReady
from meshlib.runtime.channel import ControlChannel, ControlCredentials
from meshlib.runtime.identity.source import IdentitySource
from meshlib.runtime.identity.static import StaticIdentity
from meshlib.runtime.identity.workload import WorkloadIdentity
from tests.support.certificates import Minted, TrustDomain
from tests.support.issuing import Clock, FakeIssuer
from tests.support.tls import material

DOMAIN = TrustDomain()
CONTROL = DOMAIN.leaf("meshlib-control", "meshlib-system")
PATIENCE = 30.0


@contextmanager
def control_service(shown: Minted) -> Iterator[str]:
    """Answers with the serial number of the client's certificate: once, or again for each message of a stream."""

    def serial(request: bytes, context: Any) -> bytes:
        found = x509.load_pem_x509_certificate(context.auth_context()["x509_pem_cert"][0])
        return str(found.serial_number).encode()

    def stream(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        for request in requests:
            yield serial(request, context)

    handlers = {
        "Serial": grpc.unary_unary_rpc_method_handler(serial),
        "Stream": grpc.stream_stream_rpc_method_handler(stream),
    }
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", handlers),))
    credentials = grpc.ssl_server_credentials([(shown.key_pem, shown.chain_pem)], DOMAIN.root.pem, require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def serial(channel: ControlChannel) -> int:
    call = channel.get().unary_unary("/test/Serial")
    return int(call(b"", timeout=PATIENCE, wait_for_ready=False))


@pytest.fixture
def opened() -> Iterator[Callable[..., ControlChannel]]:
    channels: list[ControlChannel] = []

    def open_(target: str, identity: IdentitySource) -> ControlChannel:
        channels.append(ControlChannel(target, ControlCredentials(identity)))
        return channels[-1]

    yield open_
    for channel in channels:
        channel.close()


def test_a_new_certificate_is_shown_by_the_calls_that_follow(opened: Callable[..., ControlChannel]) -> None:
    """What is under way stays on the connection that it began on."""
    first, second = DOMAIN.leaf("us"), DOMAIN.leaf("us")
    identity = StaticIdentity(material(first, DOMAIN.bundle))
    with control_service(CONTROL) as target:
        channel = opened(target, identity)
        assert serial(channel) == first.certificate.serial_number
        assert channel.get() is channel.get()
        go_on: list[bytes] = [b"one"]

        def requests() -> Iterator[bytes]:
            import time

            while True:
                while not go_on:
                    time.sleep(0.01)
                request = go_on.pop()
                if request == b"end":
                    return
                yield request

        stream = channel.get().stream_stream("/test/Stream")(requests(), timeout=PATIENCE)
        assert int(next(stream)) == first.certificate.serial_number
        identity.set(material(second, DOMAIN.bundle))
        assert serial(channel) == second.certificate.serial_number
        go_on.append(b"two")
        assert int(next(stream)) == first.certificate.serial_number
        go_on.append(b"end")
        assert list(stream) == []


def test_nobody_else_is_the_control_service(opened: Callable[..., ControlChannel]) -> None:
    """Not even a workload with a certificate of the same CA."""
    identity = StaticIdentity(material(DOMAIN.leaf("us"), DOMAIN.bundle))
    for other in (
        DOMAIN.leaf("reviews"),
        DOMAIN.leaf("meshlib-control"),
        TrustDomain().leaf("meshlib-control", "meshlib-system"),
    ):
        with control_service(other) as target, pytest.raises(grpc.RpcError) as caught:
            serial(opened(target, identity))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_newer_roots_are_believed_at_once(opened: Callable[..., ControlChannel]) -> None:
    elsewhere = TrustDomain()
    identity = StaticIdentity(material(DOMAIN.leaf("us"), elsewhere.bundle))
    with control_service(CONTROL) as target:
        channel = opened(target, identity)
        with pytest.raises(grpc.RpcError):
            serial(channel)
        identity.learn(DOMAIN.bundle)
        assert serial(channel)


def test_without_a_certificate_it_is_worth_waiting_until_getting_one_has_failed(opened: Callable[..., ControlChannel]) -> None:
    clock = Clock()
    issuer = FakeIssuer(clock, DOMAIN)
    issuer.up = False
    identity = WorkloadIdentity(issuer, clock=clock)
    channel = opened("127.0.0.1:1", identity)
    with pytest.raises(NotReady, match="no certificate yet"):
        channel.get()
    identity.advance()
    with pytest.raises(ControlError, match="UNAVAILABLE") as caught:
        channel.get()
    assert not isinstance(caught.value, NotReady)


@pytest.mark.parametrize("target", ["control.mesh:15010", "10.0.0.1:15010", "127.0.0.1:15010,control:15010"])
def test_T06_plaintext_stays_on_this_machine(target: str) -> None:
    with pytest.raises(ConfigError, match="only one on this machine"):
        ControlChannel(target)


@pytest.mark.parametrize("target", ["127.0.0.1:15010", "localhost:15010", "[::1]:15010"])
def test_this_machine(target: str) -> None:
    assert ControlChannel(target).target == target
