"""The control service, attacked for real: by a workload with a valid certificate (A2), by anybody who reaches its ports (A1),
by a web page in an operator's browser (A5), and by whoever may write configuration (A4)."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import h2.config
import h2.connection
import httpx
import pytest

from meshlib import Mesh
from meshlib.runtime.identity.material import PrivateKey
from meshlib.xds.proto import ca_pb2, core_pb2, registry_pb2
from meshlib.xds.proto.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from meshlib.xds.types import CLUSTER, LISTENER, SECRET
from tests.support.attacker import PATIENCE, Answers, ask, bootstrap_channel, call, channel_of, node, subscription
from tests.support.zero_trust import STRICT, SecureMesh, allow

pytestmark = pytest.mark.timeout(240)

INBOUND = "xds.istio.io/grpc/lds/inbound/0.0.0.0:"
REGISTRY = "/meshlib.registry.v1.Registry/"
CREATE = "/istio.v1.auth.IstioCertificateService/CreateCertificate"


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureMesh]:
    with SecureMesh(tmp_path_factory.mktemp("town")) as town:
        town.control.apply(STRICT)
        town.control.apply(allow("reviews", "productpage"))
        town.control.apply(allow("payments", "billing", namespace="prod"))
        yield town


@pytest.fixture(scope="module")
def thief(town: SecureMesh) -> Iterator[Mesh]:
    with town.mesh("thief") as mesh:
        mesh.wait_ready(PATIENCE)
        yield mesh


@pytest.fixture(scope="module")
def channel(town: SecureMesh, thief: Mesh) -> Iterator[grpc.Channel]:
    with channel_of(town, thief) as channel:
        yield channel


def serves(channel: grpc.Channel) -> bool:
    """The positive control of all that follows: who asks as he should is answered."""
    (answer,) = ask(channel, subscription(LISTENER, f"{INBOUND}8000", node=node()))
    return isinstance(answer, DeltaDiscoveryResponse) and len(answer.resources) == 1


def content(answers: Answers) -> bytes:
    return b"".join(answer.SerializeToString() for answer in answers if isinstance(answer, DeltaDiscoveryResponse))


# --- what a node may see (T05, C01)


def test_T05_policies_of_other_namespaces_are_not_shown(channel: grpc.Channel) -> None:
    """Within its own namespace a client may say which labels it has; namespaces are what its certificate says."""
    own = ask(channel, subscription(LISTENER, f"{INBOUND}8000", node=node(LABELS={"app": "reviews"})))
    assert b"productpage" in content(own)
    other = ask(channel, subscription(LISTENER, f"{INBOUND}8000", node=node(LABELS={"app": "payments"})))
    assert content(other)
    assert b"billing" not in content(other)


@pytest.mark.parametrize("agent", ["meshlib", "envoy", "gRPC C-core linux", ""])
@pytest.mark.parametrize("claim", [{"NAMESPACE": "prod"}, {"SERVICE_ACCOUNT": "reviews"}], ids=str)
def test_T05_nobody_is_somebody_else_in_any_flavour(channel: grpc.Channel, agent: str, claim: dict[str, str]) -> None:
    assert ask(channel, subscription(CLUSTER, "*", node=node(agent, **claim))) == ["PERMISSION_DENIED"]
    same = {"NAMESPACE": "default", "SERVICE_ACCOUNT": "thief"}
    (answer,) = ask(channel, subscription(CLUSTER, "*", node=node(agent, **same)))
    assert isinstance(answer, DeltaDiscoveryResponse)


def test_T05_who_a_stream_is_of_does_not_change(channel: grpc.Channel) -> None:
    second = subscription(LISTENER, f"{INBOUND}8000", node=node(NAMESPACE="prod", LABELS={"app": "payments"}))
    answers = ask(channel, subscription(SECRET, "ROOTCA", node=node()), second, answers=2)
    assert len(answers) == 2
    assert b"billing" not in content(answers)


def test_T05_no_secret_but_the_roots(channel: grpc.Channel) -> None:
    names = ["default", "ROOTCA", "kubernetes://credential", "file:/etc/passwd", "ca/key"]
    (answer,) = ask(channel, subscription(SECRET, *names, node=node("envoy")))
    assert isinstance(answer, DeltaDiscoveryResponse)
    assert [resource.name for resource in answer.resources] == ["ROOTCA"]
    assert b"PRIVATE" not in content([answer])


# --- what a node may register


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, None),
        ({"service": "reviews"}, "PERMISSION_DENIED"),
        ({"service": "REVIEWS"}, "PERMISSION_DENIED"),
        ({"namespace": "prod"}, "PERMISSION_DENIED"),
        ({"service_account": "reviews"}, "PERMISSION_DENIED"),
        ({"service": "thief.prod"}, "INVALID_ARGUMENT"),
        ({"service": "*"}, "INVALID_ARGUMENT"),
        ({"service": ""}, "INVALID_ARGUMENT"),
        ({"address": "169.254.169.254"}, "INVALID_ARGUMENT"),
        ({"address": "reviews.default.svc.cluster.local"}, "INVALID_ARGUMENT"),
        ({"labels": {str(number): "x" for number in range(1000)}}, "INVALID_ARGUMENT"),
        ({"instance_id": "a\x1b[2J"}, "INVALID_ARGUMENT"),
    ],
    ids=str,
)
def test_T15_a_workload_registers_itself(channel: grpc.Channel, changes: dict[str, Any], status: str | None) -> None:
    request = {"instance_id": "thief-1", "service": "thief", "address": "10.9.9.9", "port": 80, **changes}
    answer = call(channel, f"{REGISTRY}Register", registry_pb2.RegisterRequest(**request).SerializeToString())
    assert answer == status if status else isinstance(answer, bytes)


# --- certificates (C06, T02)


def csr() -> str:
    return PrivateKey.generate().request(None).decode()


def test_T02_guesses_are_slow_and_worth_nothing(town: SecureMesh) -> None:
    request = ca_pb2.IstioCertificateRequest(csr=csr()).SerializeToString()
    with bootstrap_channel(town) as channel:
        answers = [call(channel, CREATE, request, [("authorization", f"Bearer mjt_{'A' * 43}")]) for _ in range(60)]
    assert set(answers) == {"UNAUTHENTICATED", "RESOURCE_EXHAUSTED"}


# --- nothing else is served (C02, T06, T08)

ELSEWHERE = (
    "/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.channelz.v1.Channelz/GetTopChannels",
    "/envoy.service.discovery.v3.ClusterDiscoveryService/FetchClusters",
)


@pytest.mark.parametrize("method", ELSEWHERE)
def test_C02_no_debug_service(town: SecureMesh, channel: grpc.Channel, method: str) -> None:
    assert call(channel, method, b"") == "UNIMPLEMENTED"
    with bootstrap_channel(town) as bootstrap:
        assert call(bootstrap, method, b"") == "UNIMPLEMENTED"
        assert call(bootstrap, f"{REGISTRY}Register", b"") == "UNIMPLEMENTED"


@pytest.mark.parametrize(
    "path",
    ["/debug", "/debug/configz", "/config_dump", "/v1/status", "/v1/config", "/v1/tokens", "/V1/STATUS", "//v1/status",
     "/healthz/../v1/status", "/healthz%2f..%2fv1/status", "/healthz/", "/v1/status;/healthz", "/metrics", "/docs"],
)  # fmt: skip
def test_C02_nothing_is_told_without_the_token(town: SecureMesh, path: str) -> None:
    with httpx.Client(base_url=town.control.admin, trust_env=False) as stranger:
        assert stranger.get("/healthz").status_code == 200
        answer = stranger.get(path)
    assert answer.status_code == 401
    assert "cluster.local" not in answer.text


def test_T09_a_page_in_a_browser_gets_nowhere_even_with_the_token(town: SecureMesh) -> None:
    document = '{"service_account": "x"}'
    json = {"content-type": "application/json"}
    with town.control.http() as operator:
        assert operator.post("/v1/tokens", content=document, headers=json).status_code == 201
        for headers, status in (
            ({**json, "host": "evil.example"}, 403),
            ({**json, "origin": "http://evil.example"}, 403),
            ({**json, "origin": "null"}, 403),
            ({**json, "sec-fetch-site": "cross-site"}, 403),
            ({"content-type": "text/plain"}, 415),
            ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ):
            assert operator.post("/v1/tokens", content=document, headers=headers).status_code == status


# --- floods, bombs and garbage


def nested(depth: int) -> bytes:
    """A request of a node whose metadata are structs within structs."""

    def field(number: int, value: bytes) -> bytes:
        length, rest = bytearray(), len(value)
        while rest > 127:
            length.append(rest & 127 | 128)
            rest >>= 7
        return bytes([number << 3 | 2, *length, rest]) + value

    struct = b""
    for _ in range(depth):
        struct = field(1, field(1, b"a") + field(2, field(5, struct)))
    node_number = DeltaDiscoveryRequest.DESCRIPTOR.fields_by_name["node"].number
    metadata_number = core_pb2.Node.DESCRIPTOR.fields_by_name["metadata"].number
    return subscription(CLUSTER, "*").SerializeToString() + field(node_number, field(metadata_number, struct))


def test_C03_garbage_from_those_who_are_known(channel: grpc.Channel) -> None:
    odd = core_pb2.Node(id="x")
    odd.metadata.fields["LABELS"].number_value = 7
    odd.metadata.fields["PORTS"].string_value = "8080"
    odd.metadata.fields["SERVICE"].bool_value = True
    assert ask(channel, b"\xff\xff\xff") == ["INVALID_ARGUMENT"]
    assert ask(channel, subscription(LISTENER)) == ["INVALID_ARGUMENT"]  # nobody
    assert ask(channel, DeltaDiscoveryRequest(node=node())) == ["INVALID_ARGUMENT"]  # nothing
    assert isinstance(ask(channel, subscription(CLUSTER, "*", node=odd))[0], DeltaDiscoveryResponse)
    assert isinstance(ask(channel, nested(10))[0], DeltaDiscoveryResponse)
    assert ask(channel, nested(10_000)) == ["INVALID_ARGUMENT"]
    unknown = ask(channel, subscription("type.googleapis.com/evil.Type", "a", node=node()))[0]
    assert isinstance(unknown, DeltaDiscoveryResponse)
    assert list(unknown.removed_resources) == ["a"]
    assert call(channel, f"{REGISTRY}Register", b"\xff\xff") not in ("OK", "UNAVAILABLE")
    assert call(channel, f"{REGISTRY}Register", bytes(5 << 20)) == "RESOURCE_EXHAUSTED"
    assert serves(channel)


def test_C03_garbage_from_those_who_are_not(town: SecureMesh, channel: grpc.Channel) -> None:
    """Nothing is parsed of who has proved nothing; bytes that are no TLS end the connection."""
    with bootstrap_channel(town) as bootstrap:
        assert call(bootstrap, CREATE, b"\xff" * 100) in ("UNAUTHENTICATED", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")
        assert call(bootstrap, CREATE, bytes(5 << 20)) == "RESOURCE_EXHAUSTED"
    for address in (town.control.xds, town.control.ca):
        host, _, port = address.rpartition(":")
        for data in (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(1 << 16)):
            with socket.create_connection((host, int(port)), PATIENCE) as stranger, contextlib.suppress(OSError):
                stranger.sendall(data)
                stranger.shutdown(socket.SHUT_WR)
                assert b"HTTP" not in stranger.recv(100)
    assert serves(channel)


@pytest.mark.parametrize(
    "request_",
    [
        subscription(LISTENER, node=node("envoy", PORTS=[f"{port}:{port}" for port in range(1, 20_001)])),
        subscription(LISTENER, *(f"{INBOUND}{port}" for port in range(1, 20_001)), node=node()),
        subscription(CLUSTER, *map(str, range(100_001)), node=node()),
        subscription(CLUSTER, "x" * 1_000_000, node=node()),
    ],
    ids=["ports", "inbound listeners", "names", "a name"],
)
def test_T13_requests_that_would_keep_everybody_waiting(channel: grpc.Channel, request_: DeltaDiscoveryRequest) -> None:
    assert ask(channel, request_) == ["INVALID_ARGUMENT"]
    assert serves(channel)


def bombs() -> dict[str, str]:
    lines = ["a: &a [" + "x," * 50 + "]"]
    lines += [f"{name}: &{name} [" + f"*{before}," * 50 + "]" for before, name in zip("abcdefgh", "bcdefghi", strict=True)]
    route = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x}\n"
    route += "spec: {hosts: [reviews], http: [{match: "
    return {
        "aliases": "\n".join(lines),
        "depth": "[" * 100_000,
        "documents": "---\n" * 200_000,
        "expression": f"{route}[{{uri: {{regex: '{'(a+)+' * 400}$'}}}}], route: [{{destination: {{host: reviews}}}}]}}]}}",
        "tags": "!!python/object/apply:os.system ['true']",
    }


@pytest.mark.parametrize("name", bombs())
def test_T07_bombs_in_configuration(town: SecureMesh, name: str) -> None:
    before = town.control.get("/v1/status")["control"]["revision"]
    with town.control.http() as client:
        answer = client.post("/v1/config", content=bombs()[name], headers={"content-type": "application/yaml"})
    assert answer.status_code in (400, 422) or answer.json()["changes"] == []
    assert town.control.get("/v1/status")["control"]["revision"] == before


def test_T07_a_body_without_end(town: SecureMesh) -> None:
    with town.control.http() as client:
        chunks = (b"#" * (1 << 20) for _ in range(64))
        answer = client.post("/v1/config", content=chunks, headers={"content-type": "application/yaml"})
    assert answer.status_code == 413


Attack = Callable[[ssl.SSLSocket], None]


def rapid_resets(connection: ssl.SSLSocket) -> None:
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    headers = [(":method", "POST"), (":path", CREATE), (":scheme", "https"), (":authority", "x"), ("te", "trailers")]
    for number in range(1, 40_000, 2):
        client.send_headers(number, headers)
        client.reset_stream(number)
        if number % 501 == 0:
            connection.sendall(client.data_to_send())
    connection.sendall(client.data_to_send())


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"


def frames(frame: bytes, *, first: bytes = b"") -> Attack:
    def send(connection: ssl.SSLSocket) -> None:
        connection.sendall(PREFACE + first)
        for _ in range(200):
            connection.sendall(frame * 250)

    return send


OPEN = b"\x00\x00\x01\x01%c\x00\x00\x00\x01\x82"  # HEADERS of stream 1: its flags, and ":method: GET"

FLOODS: dict[str, Attack] = {
    "resets": rapid_resets,
    "pings": frames(b"\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678"),
    "settings": frames(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"),
    "continuations": frames(b"\x00\x00\x40\x09\x00\x00\x00\x00\x01\x00\x01a\x3c" + b"x" * 60, first=OPEN % 0),
    "empty data": frames(b"\x00\x00\x00\x00\x00\x00\x00\x00\x01", first=OPEN % 4),
    "priorities": frames(b"\x00\x00\x05\x02\x00\x00\x00\x00\x03\x00\x00\x00\x00\x10"),
}


def memory(town: SecureMesh) -> int:
    """Bytes that the control service has in memory."""
    status = Path(f"/proc/{town.control.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) << 10


@pytest.mark.parametrize("name", FLOODS)
def test_L05_floods_of_http_2(town: SecureMesh, channel: grpc.Channel, name: str) -> None:
    """By somebody without a certificate, where none is asked for: others are served meanwhile, and memory is bounded."""
    before = memory(town)
    context = ssl.create_default_context(cafile=str(town.folder / "ca.pem"))
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    host, _, port = town.control.ca.rpartition(":")
    with socket.create_connection((host, int(port)), PATIENCE) as plain, context.wrap_socket(plain) as attacker:

        def flood() -> None:
            with contextlib.suppress(OSError):  # it was ended
                FLOODS[name](attacker)

        def drain() -> None:
            with contextlib.suppress(OSError):
                while attacker.recv(65536):
                    pass

        threads = [threading.Thread(target=each) for each in (flood, drain)]
        for thread in threads:
            thread.start()
        assert serves(channel)
        threads[0].join(PATIENCE)
        assert serves(channel)
        with contextlib.suppress(OSError):
            attacker.shutdown(socket.SHUT_RDWR)
        threads[1].join(PATIENCE)
        assert not any(thread.is_alive() for thread in threads)
    assert memory(town) - before < 100 << 20


def test_L06_those_who_read_and_write_nothing_delay_nobody(town: SecureMesh, thief: Mesh, channel: grpc.Channel) -> None:
    """Handshakes that never end, and streams whose answers nobody takes while the configuration changes."""
    before = memory(town)
    host, _, port = town.control.xds.rpartition(":")
    with contextlib.ExitStack() as silent:
        for _ in range(200):
            half = silent.enter_context(socket.create_connection((host, int(port)), PATIENCE))
            half.sendall(b"\x16\x03\x01")
        slow = silent.enter_context(channel_of(town, thief))
        waiting = threading.Event()
        for _ in range(50):

            def requests() -> Iterator[bytes]:
                yield subscription(CLUSTER, "*", node=node("envoy")).SerializeToString()
                waiting.wait(PATIENCE)

            stream = slow.stream_stream("/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources")(
                requests()
            )
            silent.callback(stream.cancel)
        silent.callback(waiting.set)
        for caller in ("a", "b", "c"):
            town.control.apply(allow("reviews", caller))
            assert serves(channel)
        town.control.apply(allow("reviews", "productpage"))
    assert memory(town) - before < 100 << 20
