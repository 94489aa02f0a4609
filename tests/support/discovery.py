"""A small compiler and both ADS sessions wired back to back, as h11 tests its connections."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from google.protobuf.message import Message

from meshlib.model.workload import Workload
from meshlib.xds.invalid import Problem, ResourceInvalid
from meshlib.xds.proto import cluster_pb2, core_pb2, discovery_pb2, endpoint_pb2, listener_pb2, route_pb2
from meshlib.xds.session import Session as ClientSession
from meshlib.xds.types import CLUSTER, ENDPOINTS, LISTENER, ROUTE
from meshlib_control.compile.node import Flavour, Node, Scope
from meshlib_control.serve.cache import ResourceCache, ScopeResources
from meshlib_control.serve.dialects import DELTA, Dialect
from meshlib_control.serve.session import Session as ServerSession
from meshlib_control.serve.settling import Settling

SHORT = {"LDS": LISTENER, "RDS": ROUTE, "CDS": CLUSTER, "EDS": ENDPOINTS}


@dataclass(frozen=True)
class World:
    """Resources as {(type, name): text}; the text is what distinguishes versions."""

    resources: Mapping[tuple[str, str], str] = field(default_factory=dict)
    revision: str = ""
    pending: frozenset[str] = frozenset()  # names of what is yet to be found out

    def having(self, *, without: tuple[tuple[str, str], ...] = (), **texts: str) -> World:
        """``world.having(CDS_a="1")`` sets one text; `without` removes."""
        resources = {key: text for key, text in self.resources.items() if key not in without}
        for short_and_name, text in texts.items():
            short, _, name = short_and_name.partition("_")
            resources[SHORT[short], name] = text
        return replace(self, resources=resources)

    def with_text(self, type_url: str, name: str, text: str) -> World:
        return replace(self, resources={**self.resources, (type_url, name): text})


@dataclass(frozen=True)
class Affected:
    everything: bool
    endpoint_clusters: frozenset[str] = frozenset()
    clusters: frozenset[str] = frozenset()


def message(type_url: str, name: str, text: str) -> Message:
    """A resource whose content depends on `text`; an assignment has one endpoint for each of its characters."""
    if type_url == LISTENER:
        return listener_pb2.Listener(name=name, filter_chains=[listener_pb2.FilterChain(name=text)])
    if type_url == ROUTE:
        return route_pb2.RouteConfiguration(name=name, virtual_hosts=[route_pb2.VirtualHost(name=text, domains=["*"])])
    if type_url == CLUSTER:
        return cluster_pb2.Cluster(name=name, alt_stat_name=text)
    endpoints = [
        endpoint_pb2.LbEndpoint(
            endpoint=endpoint_pb2.Endpoint(
                address=core_pb2.Address(socket_address=core_pb2.SocketAddress(address="10.0.0.1", port_value=ord(character)))
            )
        )
        for character in text
    ]
    return endpoint_pb2.ClusterLoadAssignment(
        cluster_name=name, endpoints=[endpoint_pb2.LocalityLbEndpoints(lb_endpoints=endpoints)] if endpoints else []
    )


class TextCompiler:
    """Counts what it generates."""

    def __init__(self) -> None:
        self.generated: list[tuple[str, str]] = []

    def scope_of(self, world: World, node: Node, /) -> Scope:
        return Scope(node.flavour, node.namespace)

    def generate(self, world: World, scope: Scope, type_url: str, names: frozenset[str] | None, /) -> Mapping[str, Message]:
        found = {
            name: message(kind, name, text)
            for (kind, name), text in world.resources.items()
            if kind == type_url and (names is None or name in names)
        }
        self.generated += [(type_url, name) for name in found]
        return found

    def is_pending(self, world: World, scope: Scope, name: str, /) -> bool:
        return name in world.pending

    def affected(self, old_world: World, new_world: World, /) -> Affected:
        keys = old_world.resources.keys() | new_world.resources.keys()
        changed = {key for key in keys if old_world.resources.get(key) != new_world.resources.get(key)}
        if all(type_url == ENDPOINTS for type_url, _ in changed):
            return Affected(False, frozenset(name for _, name in changed))
        return Affected(True)


def decode(type_url: str, value: bytes) -> tuple[str, object]:
    """The resource's text; one that begins with "bad" is refused, one with "bug" trips the decoder."""
    if type_url == LISTENER:
        listener = listener_pb2.Listener.FromString(value)
        name, text = listener.name, listener.filter_chains[0].name
    elif type_url == ROUTE:
        routes = route_pb2.RouteConfiguration.FromString(value)
        name, text = routes.name, routes.virtual_hosts[0].name
    elif type_url == CLUSTER:
        cluster = cluster_pb2.Cluster.FromString(value)
        name, text = cluster.name, cluster.alt_stat_name
    else:
        assignment = endpoint_pb2.ClusterLoadAssignment.FromString(value)
        ports = [
            entry.endpoint.address.socket_address.port_value for part in assignment.endpoints for entry in part.lb_endpoints
        ]
        name, text = assignment.cluster_name, "".join(chr(port) for port in ports)
    if text.startswith("bad"):
        raise ResourceInvalid(name, type_url, (Problem("text", repr(text), "something good"),))
    if text.startswith("bug"):
        raise ZeroDivisionError("of the decoder")
    return name, text


class Server:
    """A cache and the sessions of its streams, without any I/O."""

    def __init__(self, world: World | None = None, *, settling: Settling | None = None) -> None:
        self.compiler = TextCompiler()
        self.cache = ResourceCache(self.compiler, world or World())
        self.settling = settling or Settling(0.0, period=0.0)
        self.sessions: list[ServerSession] = []

    def open(self, dialect: Dialect = DELTA, *, flavour: Flavour = "meshlib") -> ServerSession:
        def bind(node: core_pb2.Node) -> tuple[Node, ScopeResources]:
            who = Node(flavour, node.id)
            return who, self.cache.resources_for(who)

        session = ServerSession(dialect, bind, self.settling)
        self.sessions.append(session)
        return session

    def close(self, session: ServerSession) -> None:
        self.sessions.remove(session)
        session.close()

    def update(self, world: World) -> None:
        for step in self.cache.update(world).steps:
            resources, type_url, names = step()
            for session in self.sessions:
                if session.resources is resources:
                    session.changed(type_url, names)


class ConnectionPair:
    """A client session and its stream to a server.  Each direction is a queue that `step` moves one message of."""

    def __init__(self, server: Server, *, client: ClientSession | None = None) -> None:
        self.server = server
        self.client = client or ClientSession(Workload(service="caller", instance="caller-1"), decode)
        self.now = 0.0
        self.stream: ServerSession | None = None
        self.to_server: deque[bytes] = deque()
        self.to_client: deque[bytes] = deque()
        self.delivered: list[discovery_pb2.DeltaDiscoveryResponse] = []

    def connect(self) -> None:
        self.stream = self.server.open()
        self.to_server.extend(self.client.connected(self.now))

    def disconnect(self, reason: str = "stream lost") -> None:
        if self.stream is not None:
            self.server.close(self.stream)
        self.stream = None
        self.to_server.clear()
        self.to_client.clear()
        self.client.disconnected(self.now, reason)

    def want(self, **names: str) -> None:
        """``want(CDS="a b", EDS="a")``: the complete subscription."""
        wanted = {SHORT[short]: frozenset(text.split()) for short, text in names.items()}
        self.to_server.extend(self.client.want(wanted, self.now))

    def server_step(self) -> bool:
        """The server reads a request, or writes a response; False: neither is there."""
        if self.stream is None:
            return False
        if self.to_server:
            self.stream.receive(self.to_server.popleft())
            return True
        response = self.stream.next_response()
        if response is not None:
            self.to_client.append(response)
        return response is not None

    def client_step(self) -> bool:
        if not self.to_client:
            return False
        data = self.to_client.popleft()
        self.delivered.append(discovery_pb2.DeltaDiscoveryResponse.FromString(data))
        self.to_server.extend(self.client.receive(data, self.now))
        return True

    def run(self) -> list[discovery_pb2.DeltaDiscoveryResponse]:
        """Until both are quiet; returns what the client received meanwhile."""
        before = len(self.delivered)
        while self.server_step() or self.client_step():
            pass
        return self.delivered[before:]

    def texts(self, short: str) -> dict[str, object]:
        """What the client knows, by name."""
        return {name: state.value for (kind, name), state in self.client.states.items() if kind == SHORT[short]}
