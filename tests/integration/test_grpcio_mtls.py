"""grpcio's own xDS, on both ends, with what the grpc flavour says of mTLS and of who may call (gRFC A29, A36, A41).

Client and server are child processes: each reads its bootstrap from the environment, once.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from concurrent import futures
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from meshlib_control.catalog.model import Instance, Port
from meshlib_control.compile import Node, World, generate, scope_of
from meshlib_control.compile.trust import Trust
from tests.support import ads
from tests.support.certificates import TrustDomain
from tests.support.configuring import registered, world

DOMAIN = TrustDomain("cluster.local")

CONFIG = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-alice}
spec:
  selector: {matchLabels: {app: greeter}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/alice]}}]
    to: [{operation: {paths: [/test.Greeter/First, /test.Greeter/Third]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody}
spec:
  action: DENY
  rules: [{to: [{operation: {paths: [/test.Greeter/Third]}}]}]
"""

SERVER = """
import sys
from concurrent import futures
import grpc

def answer(request, context):
    return b",".join(context.auth_context().get("peer_spiffe_id", []) or [b"nobody"])

handler = grpc.unary_unary_rpc_method_handler(answer)
methods = dict.fromkeys(["First", "Second", "Third"], handler)
server = grpc.server(futures.ThreadPoolExecutor(4), xds=True)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Greeter", methods),))
fallback = grpc.insecure_server_credentials()
server.add_secure_port(sys.argv[1], grpc.xds_server_credentials(fallback))
server.start()
print("started", flush=True)
sys.stdin.read()
server.stop(0)
"""

CLIENT = """
import json, sys
import grpc, grpc.experimental

def call(target, method):
    credentials = grpc.xds_channel_credentials(grpc.experimental.insecure_channel_credentials())
    with grpc.secure_channel(target, credentials) as channel:
        try:
            return channel.unary_unary(method)(b"", timeout=30).decode()
        except grpc.RpcError as error:
            return error.code().name

print(json.dumps([call(*request) for request in json.load(sys.stdin)]))
"""


def _bootstrap(control_port: int, folder: Path, account: str) -> dict[str, str]:
    certificate, key = DOMAIN.leaf(account).write(folder, account)
    root = folder / "root.pem"
    root.write_bytes(DOMAIN.root.pem)
    files = {"certificate_file": str(certificate), "private_key_file": str(key), "ca_certificate_file": str(root)}
    document = {
        "xds_servers": [{"server_uri": f"127.0.0.1:{control_port}", "channel_creds": [{"type": "insecure"}]}],
        "node": {"id": account},
        "certificate_providers": {"default": {"plugin_name": "file_watcher", "config": files}},
        "server_listener_resource_name_template": "xds.istio.io/grpc/lds/inbound/%s",
    }
    return {**os.environ, "GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(document)}


@contextmanager
def _control(current: World, node: Node) -> Iterator[ads.AdsServer]:
    scope = scope_of(current, node)

    def resources(type_url: str, names: Collection[str] | None) -> Mapping[str, Message]:
        return generate(current, scope, type_url, names)

    with ads.serving(resources) as control:
        yield control
        assert control.nacks == []


@contextmanager
def _server(address: str, environment: dict[str, str]) -> Iterator[None]:
    command = [sys.executable, "-c", SERVER, address]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "started\n"
            yield
        finally:
            process.kill()


def _calls(requests: list[tuple[str, str]], environment: dict[str, str]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", CLIENT],
        input=json.dumps(requests),
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


def _free_port() -> int:
    """The listener is asked for by its port, so it must be known before."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


@contextmanager
def _plain_server() -> Iterator[int]:
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: b"plain")
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Greeter", {"First": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait(10)


FIRST, SECOND, THIRD = (f"/test.Greeter/{name}" for name in ("First", "Second", "Third"))


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", "[::]"])
def test_both_ends(host: str, tmp_path: Path) -> None:
    port = _free_port()
    ports = (Port(80, "grpc"),)

    def instance(number: int, account: str, *, mtls: bool = True) -> Instance:
        return Instance(account, "127.0.0.1", number, service_account=account, mtls=mtls)

    with ExitStack() as stack:
        plain = stack.enter_context(_plain_server())
        current = world(
            CONFIG,
            services=[
                registered("greeter", instance(port, "greeter"), ports=ports),
                registered("stolen", instance(port, "other"), ports=ports),
                registered("old", instance(plain, "old", mtls=False), ports=ports),
            ],
            trust=Trust(roots={DOMAIN.name: DOMAIN.root.pem.decode()}),
        )
        serving = stack.enter_context(_control(current, Node(flavour="grpc", labels={"app": "greeter"})))
        calling = stack.enter_context(_control(current, Node(flavour="grpc")))
        stack.enter_context(_server(f"{host}:{port}", _bootstrap(serving.port, tmp_path, "greeter")))
        asked = [("xds:///greeter", FIRST), ("xds:///greeter", SECOND), ("xds:///greeter", THIRD)]
        asked += [("xds:///stolen", FIRST), ("xds:///old", FIRST), (f"127.0.0.1:{port}", FIRST)]
        alice = _calls(asked, _bootstrap(calling.port, tmp_path, "alice"))
        assert alice[0] == DOMAIN.id("alice")
        assert alice[1:3] == ["PERMISSION_DENIED", "PERMISSION_DENIED"]
        assert alice[3] == "UNAVAILABLE"  # an identity that the service does not have
        assert alice[4] == "plain"  # its only instance speaks no mTLS
        assert alice[5] == "UNAVAILABLE"  # plaintext, around the mesh
        assert _calls(asked[:1], _bootstrap(calling.port, tmp_path, "bob")) == ["PERMISSION_DENIED"]
