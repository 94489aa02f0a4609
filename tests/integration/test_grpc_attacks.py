"""gRPC servers of the mesh, sent what no stub sends: raw HTTP/2 with any :path and any field (P13, P14, H12, H16)."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import h2.exceptions
import pytest

from meshlib.model.authorization import Action, Always, Header, Rbac, RbacFilter, RbacPolicy, UrlPath
from meshlib.model.listener import HttpFilter, MtlsMode
from meshlib.model.route import HeaderMatch, StringMatch
from tests.support.grpcmesh import UNARY, Member, handlers, serving

SECRET = "/test.Greeter/Down"
REACHED: list[str] = []


def deny(what: Any) -> RbacFilter:
    return RbacFilter("deny", Rbac(Action.DENY, (RbacPolicy("secret", what, Always()),)))


FILTERS: tuple[HttpFilter, ...] = (
    deny(UrlPath(StringMatch("exact", SECRET))),
    deny(Header(HeaderMatch("x-role", StringMatch("exact", "admin")))),
)


def unary(request: bytes, context: grpc.ServicerContext) -> bytes:
    REACHED.append("Unary")
    return b"hello"


def down(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    REACHED.append("Down")
    yield b"secret"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with (
        Member("greeter", filters=FILTERS, mode=MtlsMode.PERMISSIVE) as member,
        serving(member.mesh, handlers(Unary=unary, Down=down), plain=True) as port,
    ):
        yield port


@pytest.fixture(autouse=True)
def nobody_reached() -> None:
    REACHED.clear()


def status(port: int, path: str, *fields: tuple[str, str], pseudo: Sequence[tuple[str, str]] = ()) -> str:
    """The grpc-status of a call; "ended" when the stream or the connection was, without one."""
    config = h2.config.H2Configuration(
        client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False, validate_inbound_headers=False
    )
    client = h2.connection.H2Connection(config)
    client.initiate_connection()
    own = dict([(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "greeter"), *pseudo])
    client.send_headers(1, [*own.items(), ("content-type", "application/grpc"), ("te", "trailers"), *fields])
    client.send_data(1, b"\0\0\0\0\0", end_stream=True)
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(client.data_to_send())
        while data := connection.recv(65536):
            try:
                events = client.receive_data(data)
            except h2.exceptions.ProtocolError:
                return "ended"
            for event in events:
                if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                    found = dict(event.headers).get(b"grpc-status")
                    if found is not None:
                        return found.decode()
                if isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                    return "ended"
            connection.sendall(client.data_to_send())
    return "ended"


OK, DENIED = "0", str(grpc.StatusCode.PERMISSION_DENIED.value[0])


def test_the_methods_as_they_are(port: int) -> None:
    assert status(port, UNARY) == OK
    assert REACHED == ["Unary"]
    assert status(port, SECRET) == DENIED
    assert REACHED == ["Unary"]


@pytest.mark.parametrize("path", ["test.Greeter/Down", "Down", "*", "@test.Greeter/Down", "\\test.Greeter\\Down"])
def test_P13_a_method_without_its_slash_reaches_nobody(port: int, path: str) -> None:
    assert status(port, path) != OK
    assert REACHED == []
    assert status(port, UNARY) == OK


SPELLINGS = (
    f"/{SECRET}", f"{SECRET}/", f"{SECRET}?x", f"{SECRET}#x", "/test.Greeter%2FDown", "/test.Greeter//Down",
    "/x/../test.Greeter/Down", "/./test.Greeter/Down", "/test.Greeter/%44own", "/test.Greeter/down", "/TEST.Greeter/Down",
    f"http://greeter{SECRET}", f"{SECRET};x", f"{SECRET}%00", f" {SECRET}",
)  # fmt: skip


@pytest.mark.parametrize("path", SPELLINGS)
def test_P14_another_spelling_is_another_method_and_reaches_nobody(port: int, path: str) -> None:
    """gRPC normalizes nothing, and hands all of it on as it came."""
    assert status(port, path) != OK
    assert REACHED == []
    assert status(port, UNARY) == OK


FIELDS = {
    "H08 the denied one first": (("x-role", "admin"), ("x-role", "user")),
    "H10 the denied one last": (("x-role", "user"), ("x-role", "admin")),
    "H12 a NUL in a value": (("x-role", "admin\0"),),
    "H15 in capitals": (("X-Role", "admin"),),
    "H16 nominated": (("connection", "x-role"), ("x-role", "admin")),
    "H16 a connection of its own": (("connection", "x-anything"),),
    "H24 transfer-encoding": (("transfer-encoding", "chunked"),),
}


@pytest.mark.parametrize("name", FIELDS)
def test_fields_that_would_slip_past_a_policy(port: int, name: str) -> None:
    assert status(port, UNARY, ("x-role", "user")) == OK
    REACHED.clear()
    assert status(port, UNARY, *FIELDS[name]) != OK
    assert REACHED == []


@pytest.mark.parametrize("value", ["99999999H", "99999999999H", "-1S", "1", "x"])
def test_L03_a_huge_or_odd_timeout_harms_nobody(port: int, value: str) -> None:
    assert status(port, UNARY, ("grpc-timeout", "20S")) == OK
    status(port, UNARY, ("grpc-timeout", value))
    assert status(port, UNARY) == OK


@pytest.mark.parametrize("scheme", ["hTTps", "https", "ftp", ""])
def test_H21_a_scheme_makes_nobody_of_a_caller(port: int, scheme: str) -> None:
    """A plain connection is one, whatever the client calls it: who is denied stays so."""
    assert status(port, SECRET, pseudo=[(":scheme", scheme)]) != OK
    assert REACHED == []
