"""The whole of it, for real: join tokens, identities, mTLS, who may do what, a control service that knows its callers."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from meshlib import Mesh
from meshlib.model.workload import Workload as Node
from meshlib.runtime.channel import ControlChannel, ControlCredentials
from meshlib.xds.node import node_message
from meshlib.xds.proto import registry_pb2
from meshlib.xds.proto.discovery_pb2 import DeltaDiscoveryRequest
from meshlib.xds.types import ADS_DELTA, LISTENER
from tests.support.control import eventually
from tests.support.servers import ROOT
from tests.support.zero_trust import STRICT, SecureMesh, Workload, allow

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureMesh]:
    with SecureMesh(tmp_path_factory.mktemp("town")) as town:
        town.control.apply(STRICT)
        town.control.apply(allow("reviews", "productpage"))
        yield town


@pytest.fixture(scope="module")
def reviews(town: SecureMesh) -> Workload:
    return town.serve("reviews")


@pytest.fixture(scope="module")
def productpage(town: SecureMesh) -> Iterator[Mesh]:
    with town.mesh("productpage") as mesh:
        yield mesh


@pytest.fixture(scope="module")
def ratings(town: SecureMesh) -> Iterator[Mesh]:
    with town.mesh("ratings") as mesh:
        yield mesh


def test_who_is_allowed_gets_in_and_is_known(reviews: Workload, productpage: Mesh) -> None:
    answer = productpage.request("GET", "http://reviews/api/7")
    assert (answer.status_code, answer.json()["peer"]) == (200, "spiffe://cluster.local/ns/default/sa/productpage")


def test_who_is_not_is_told_nothing_more(reviews: Workload, productpage: Mesh, ratings: Mesh) -> None:
    for mesh, method in ((ratings, "GET"), (productpage, "DELETE")):
        answer = mesh.request(method, "http://reviews/secret")
        assert (answer.status_code, answer.content) == (403, b"RBAC: access denied")
    assert not [line for line in reviews.reached if line.endswith("/secret")]
    assert "rbac_access_denied" in reviews.log  # the operator is told


def test_the_plaintext_port_is_closed(reviews: Workload, productpage: Mesh) -> None:
    """Whatever comes in without the handshake gets no answer; with it, the very same port serves."""
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{reviews.port}/plain", trust_env=False)
    assert not [line for line in reviews.reached if line.endswith("/plain")]
    assert productpage.request("GET", "http://reviews/api/8").status_code == 200


def test_a_policy_holds_as_soon_as_it_is_applied(town: SecureMesh, reviews: Workload, ratings: Mesh) -> None:
    assert ratings.request("GET", "http://reviews/").status_code == 403
    town.control.apply(allow("reviews", "productpage", "ratings"))
    eventually(lambda: ratings.request("GET", "http://reviews/").status_code == 200, what="the new policy")
    town.control.apply(allow("reviews", "productpage"))
    eventually(lambda: ratings.request("GET", "http://reviews/").status_code == 403, what="the old policy")


def channel_of(town: SecureMesh, mesh: Mesh) -> grpc.Channel:
    process = mesh._processes.current  # its certificate, for calls that its own code would not make
    assert process is not None
    assert process.identity is not None
    return ControlChannel(town.control.xds, ControlCredentials(process.identity)).get()


def first_answer(channel: grpc.Channel, node: Node) -> str:
    request = DeltaDiscoveryRequest(node=node_message(node), type_url=LISTENER, resource_names_subscribe=["reviews:80"])
    call = channel.stream_stream(ADS_DELTA)(iter([request.SerializeToString()]), timeout=20)
    try:
        next(call)
    except grpc.RpcError as error:
        return str(error.code().name)
    finally:
        call.cancel()
    return "OK"


def test_T05_the_certificate_decides_what_a_client_may_see(town: SecureMesh, ratings: Mesh) -> None:
    with channel_of(town, ratings) as channel:
        assert first_answer(channel, Node(instance="a")) == "OK"
        assert first_answer(channel, Node(instance="a", namespace="default", service_account="ratings")) == "OK"
        assert first_answer(channel, Node(instance="a", namespace="prod")) == "PERMISSION_DENIED"
        assert first_answer(channel, Node(instance="a", service_account="productpage")) == "PERMISSION_DENIED"


def register(channel: grpc.Channel, **fields: str) -> str:
    request = registry_pb2.RegisterRequest(instance_id="evil-1", address="10.9.9.9", port=80, **fields)  # type: ignore[arg-type]
    call = channel.unary_unary("/meshlib.registry.v1.Registry/Register")
    try:
        call(request.SerializeToString(), timeout=20)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def test_a_workload_registers_what_it_is_and_nothing_else(town: SecureMesh, reviews: Workload, ratings: Mesh) -> None:
    """Otherwise a compromised workload would get the traffic of any other."""
    with channel_of(town, ratings) as channel:
        assert register(channel, service="ratings") == "OK"
        assert register(channel, service="reviews") == "PERMISSION_DENIED"
        assert register(channel, service="ratings", namespace="prod") == "PERMISSION_DENIED"
        assert register(channel, service="ratings", service_account="reviews") == "PERMISSION_DENIED"
        known = [each["id"] for each in town.control.get("/v1/endpoints")["endpoints"] if each["port"] == reviews.port]
        end = channel.unary_unary("/meshlib.registry.v1.Registry/Deregister")
        with pytest.raises(grpc.RpcError) as caught:
            end(registry_pb2.DeregisterRequest(instance_id=known[0]).SerializeToString(), timeout=20)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_T06_the_control_service_speaks_to_nobody_without_a_certificate(town: SecureMesh, tmp_path: Path) -> None:
    with grpc.insecure_channel(town.control.xds) as channel:
        assert first_answer(channel, Node(instance="a")) == "UNAVAILABLE"
    roots = (town.folder / "ca.pem").read_bytes()
    options = [("grpc.ssl_target_name_override", "meshlib-control.meshlib-system.cluster.local")]
    with grpc.secure_channel(town.control.xds, grpc.ssl_channel_credentials(roots), options) as channel:
        assert first_answer(channel, Node(instance="a")) == "UNAVAILABLE"


def test_T08_the_rest_api_asks_for_its_token(town: SecureMesh) -> None:
    with httpx.Client(base_url=town.control.admin, trust_env=False) as stranger:
        for path in ("/v1/status", "/v1/config", "/v1/tokens", "/metrics", "/v1/ca/bundle"):
            assert stranger.get(path).status_code == 401
        assert stranger.post("/v1/tokens", json={"service_account": "x"}).status_code == 401
        assert stranger.get("/v1/status", headers={"authorization": "Bearer x"}).status_code == 401
        assert stranger.get("/healthz").status_code == 200
    assert town.control.get("/v1/status")["control"]["trust_domain"] == "cluster.local"


def test_a_ban_ends_streams_and_certificates(town: SecureMesh) -> None:
    with town.mesh("thief") as thief:
        thief.wait_ready(60)

        def connected() -> bool:
            return any(each["service"] == "thief" for each in town.control.get("/v1/status")["clients"])

        assert connected()
        town.post("/v1/ca/bans", {"identity": "spiffe://cluster.local/ns/default/sa/thief", "reason": "test"})
        eventually(lambda: not connected(), what="the stream to end")
        with channel_of(town, thief) as channel:
            assert first_answer(channel, Node(instance="a")) == "UNAUTHENTICATED"
        town.post("/v1/ca/bans/delete", {"identity": "spiffe://cluster.local/ns/default/sa/thief"})
        eventually(connected, what="the stream to come back")


FORKING = """
import os, sys, time
from cryptography import x509
from meshlib import Mesh

mesh = Mesh.from_env()

def serial():
    return x509.load_der_x509_certificate(mesh._processes.current.identity.current.chain[0]).serial_number

assert mesh.request("GET", "http://reviews/parent", timeout=60).status_code == 200
parent = serial()
child = os.fork()
assert mesh.request("GET", "http://reviews/either", timeout=60).status_code == 200
if child == 0:
    end = time.monotonic() + 60
    while serial() == parent and time.monotonic() < end:
        time.sleep(0.05)
    os._exit(0 if serial() != parent else 3)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status) or (0 if serial() == parent else 4))
"""


def test_a_forked_child_gets_a_certificate_of_its_own(town: SecureMesh, reviews: Workload) -> None:
    """With its parent's: the join token was good for one process."""
    environment = {**os.environ, **town.environment("productpage"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", FORKING], env=environment, capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_stranger_with_a_certificate_of_his_own_is_no_peer(reviews: Workload) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with pytest.raises((httpx.TransportError, ssl.SSLError)):
        httpx.get(f"https://127.0.0.1:{reviews.port}/stranger", verify=context, trust_env=False)
    assert not [line for line in reviews.reached if line.endswith("/stranger")]
