"""What one client may make the control service do, and keep: bounded before it costs anything (T13, C03)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct

from meshlib.xds.proto import core_pb2
from meshlib.xds.proto.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest
from meshlib.xds.types import CLUSTER, LISTENER
from meshlib_control.serve.dialects import DELTA, MAX_ERROR, STATE_OF_THE_WORLD, BadRequest
from meshlib_control.serve.nodes import MAX_PORTS, MAX_TEXT, node_of
from meshlib_control.serve.session import MAX_NAME, MAX_NAMES, MAX_SERVED, MAX_TYPES, Session
from meshlib_control.serve.status import MAX_REJECTED, client_status
from tests.support.discovery import Server, World

NODE = core_pb2.Node(id="n")
INBOUND = "xds.istio.io/grpc/lds/inbound/0.0.0.0:"


def delta(session: Session, type_url: str, *names: str, without: tuple[str, ...] = ()) -> None:
    request = DeltaDiscoveryRequest(
        node=NODE, type_url=type_url, resource_names_subscribe=names, resource_names_unsubscribe=without
    )
    session.receive(request.SerializeToString())


def sotw(session: Session, type_url: str, *names: str) -> None:
    session.receive(DiscoveryRequest(node=NODE, type_url=type_url, resource_names=names).SerializeToString())


Ask = Callable[..., None]
DIALECTS = pytest.mark.parametrize(
    ("dialect", "ask"), [(DELTA, delta), (STATE_OF_THE_WORLD, sotw)], ids=["delta", "state of the world"]
)


@DIALECTS
def test_T13_types(dialect: object, ask: Ask) -> None:
    session = Server().open(dialect)  # type: ignore[arg-type]  # a Dialect
    for number in range(MAX_TYPES):
        ask(session, f"type-{number}", "a")
    ask(session, "type-0", "a", "b")
    with pytest.raises(BadRequest, match="types"):
        ask(session, "another", "a")
    assert len(session.subscriptions) == MAX_TYPES


@DIALECTS
def test_T13_names(dialect: object, ask: Ask) -> None:
    session = Server().open(dialect)  # type: ignore[arg-type]
    ask(session, CLUSTER, *map(str, range(MAX_NAMES)))
    with pytest.raises(BadRequest, match=f"more than {MAX_NAMES} names"):
        ask(session, CLUSTER, *map(str, range(MAX_NAMES)), "one more")


def test_T13_names_add_up() -> None:
    session = Server().open(DELTA)
    delta(session, CLUSTER, *map(str, range(MAX_NAMES)))
    delta(session, CLUSTER, "another", without=("0",))
    with pytest.raises(BadRequest, match="names"):
        delta(session, CLUSTER, "one more")


@DIALECTS
def test_T13_long_names(dialect: object, ask: Ask) -> None:
    session = Server().open(dialect)  # type: ignore[arg-type]
    ask(session, CLUSTER, "a" * MAX_NAME)
    with pytest.raises(BadRequest, match="characters"):
        ask(session, CLUSTER, "a" * (MAX_NAME + 1))


@DIALECTS
def test_T13_inbound_listeners(dialect: object, ask: Ask) -> None:
    """One asks for those that it serves; compiling tens of thousands would keep everybody else waiting for minutes."""
    session = Server().open(dialect)  # type: ignore[arg-type]
    ports = [f"{INBOUND}{port}" for port in range(1, MAX_SERVED + 1)]
    ask(session, LISTENER, *ports, "reviews:80")
    with pytest.raises(BadRequest, match="inbound listeners"):
        ask(session, LISTENER, *ports, f"{INBOUND}9999")


def test_T13_inbound_listeners_add_up() -> None:
    session = Server().open(DELTA)
    for port in range(1, MAX_SERVED + 1):
        delta(session, LISTENER, f"{INBOUND}{port}")
    delta(session, LISTENER, f"{INBOUND}9998", without=(f"{INBOUND}1",))
    with pytest.raises(BadRequest, match="inbound listeners"):
        delta(session, LISTENER, f"{INBOUND}9999")


def node(*ports: str, identifier: str = "n", service: str = "") -> core_pb2.Node:
    metadata = Struct()
    metadata.update({"PORTS": list(ports), "SERVICE": service})
    return core_pb2.Node(id=identifier, metadata=metadata)


def test_T13_ports_of_a_proxy() -> None:
    most = [str(port) for port in range(1, MAX_PORTS + 1)]
    assert len(node_of(node(*most)).ports) == MAX_PORTS
    with pytest.raises(BadRequest, match="PORTS"):
        node_of(node(*most, "9999"))


def test_T13_what_a_client_calls_itself() -> None:
    found = node_of(node(identifier="x" * 10_000, service="y" * 10_000))
    assert (len(found.id), len(found.service)) == (MAX_TEXT, MAX_TEXT)


def test_T13_what_a_client_says_of_a_refusal() -> None:
    """It is kept for each refused resource, and everybody's status lists it."""
    count = 2 * MAX_REJECTED
    resources: dict[str, Any] = {f"CDS_{number}": "1" for number in range(count)}
    server = Server(World().having(**resources))
    session = server.open(DELTA)
    delta(session, CLUSTER, *map(str, range(count)))
    data = session.next_response()
    assert data is not None
    answer = DeltaDiscoveryRequest(type_url=CLUSTER, response_nonce=DeltaDiscoveryResponse.FromString(data).nonce)
    answer.error_detail.message = "no" * 1_000_000
    session.receive(answer.SerializeToString())
    found = client_status(session, address="", connected_since=0.0).types["CDS"]
    assert found.state == "NACK"
    assert len(found.error) == MAX_ERROR
    assert len(found.rejected) == MAX_REJECTED
