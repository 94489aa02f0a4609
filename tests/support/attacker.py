"""Somebody with one valid identity of a `SecureMesh`, who sends what meshlib itself never would."""

from __future__ import annotations

import contextlib
import http.client
import queue
import socket
import ssl
from collections.abc import Iterator, Sequence
from typing import Any

import grpc

from meshlib import Mesh
from meshlib.model.cluster import UpstreamTls
from meshlib.runtime.channel import ControlChannel, ControlCredentials
from meshlib.runtime.identity.static import StaticIdentity
from meshlib.runtime.tls.contexts import TlsContexts
from meshlib.xds.proto import core_pb2
from meshlib.xds.proto.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from meshlib.xds.types import ADS_DELTA
from tests.support.zero_trust import SecureMesh

CONTROL_NAME = "meshlib-control.meshlib-system.cluster.local"
PATIENCE = 60.0  # seconds for an answer: the machine may be busy

Answers = list["DeltaDiscoveryResponse | str"]


def identity_of(mesh: Mesh) -> Any:
    """What the process of `mesh` proves who it is with; nothing public shows it."""
    process = mesh._processes.current
    assert process is not None
    assert process.identity is not None
    return process.identity


def channel_of(town: SecureMesh, mesh: Mesh) -> grpc.Channel:
    """To the control service, with the certificate of `mesh`."""
    return ControlChannel(town.control.xds, ControlCredentials(identity_of(mesh))).get()


def bootstrap_channel(town: SecureMesh) -> grpc.Channel:
    """To the port of the CA that asks for no certificate."""
    roots = (town.folder / "ca.pem").read_bytes()
    options = [("grpc.ssl_target_name_override", CONTROL_NAME)]
    return grpc.secure_channel(town.control.ca, grpc.ssl_channel_credentials(roots), options)


def call(channel: grpc.Channel, method: str, request: bytes, metadata: Sequence[tuple[str, str]] = ()) -> bytes | str:
    """The answer, or the name of the status."""
    try:
        answer: bytes = channel.unary_unary(method)(request, timeout=PATIENCE, metadata=metadata)
    except grpc.RpcError as error:
        return str(error.code().name)
    return answer


def node(agent: str = "meshlib", **metadata: Any) -> core_pb2.Node:
    made = core_pb2.Node(id="attacker", user_agent_name=agent)
    made.metadata.update(metadata)
    return made


def ask(channel: grpc.Channel, *requests: DeltaDiscoveryRequest | bytes, answers: int = 1) -> Answers:
    """The first `answers` responses of a stream; the name of the status at the end, if it ends before."""
    waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    for request in requests:
        waiting.put(request if isinstance(request, bytes) else request.SerializeToString())
    stream = channel.stream_stream(ADS_DELTA)(iter(waiting.get, None), timeout=PATIENCE)
    found: Answers = []
    try:
        while len(found) < answers:
            found.append(DeltaDiscoveryResponse.FromString(next(stream)))
    except grpc.RpcError as error:
        found.append(str(error.code().name))
    finally:
        stream.cancel()
        waiting.put(None)
    return found


def subscription(type_url: str, *names: str, node: core_pb2.Node | None = None) -> DeltaDiscoveryRequest:
    return DeltaDiscoveryRequest(node=node, type_url=type_url, resource_names_subscribe=names)


@contextlib.contextmanager
def connected(port: int, mesh: Mesh | None = None) -> Iterator[socket.socket | ssl.SSLSocket]:
    """To a workload: over TLS with the certificate of `mesh`, or plain."""
    plain = socket.create_connection(("127.0.0.1", port), PATIENCE)
    if mesh is None:
        with plain:
            yield plain
        return
    material = identity_of(mesh).current
    contexts = TlsContexts(StaticIdentity(material))
    contexts.set_trust(material.roots)
    with contexts.client(UpstreamTls(sni="reviews")).wrap_socket(plain) as tls:
        yield tls


def status(connection: socket.socket | ssl.SSLSocket, sent: bytes) -> int:
    """Of one request on a connection that stays open; its answer is read whole."""
    connection.sendall(sent)
    response = http.client.HTTPResponse(connection)
    response.begin()
    response.read()
    return response.status


def statuses(port: int, sent: bytes, mesh: Mesh | None = None) -> list[int]:
    """The statuses of all answers to these bytes, until the server has ended the connection; none: it said nothing."""
    received = b""
    with contextlib.suppress(OSError), connected(port, mesh) as connection:
        connection.sendall(sent)
        connection.settimeout(PATIENCE)
        while data := connection.recv(65536):
            received += data
    return [int(part[2:5]) for part in received.split(b"HTTP/1.")[1:]]
