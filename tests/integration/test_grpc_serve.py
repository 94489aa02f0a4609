"""The life of a gRPC server in the mesh: announced when it listens, gone from the mesh before it stops, no call lost."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from concurrent import futures
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from meshlib import errors
from meshlib.testing import static_mesh
from meshlib_integrations import grpc as threads
from meshlib_integrations import grpc_aio
from meshlib_integrations.grpc import channel, peer, server_credentials
from tests.support import polling
from tests.support.control import eventually
from tests.support.grpcmesh import HOST, UNARY, Member, greeter, handlers
from tests.support.servers import ROOT, free_port
from tests.support.zero_trust import STRICT, SecureMesh, allow

SCRIPT = """
import asyncio, sys, time
from concurrent import futures
import grpc, grpc.aio
from meshlib import Mesh
from meshlib_integrations import grpc as threads, grpc_aio

kind, port = sys.argv[1], sys.argv[2]
mesh = Mesh.from_env(drain_seconds=0.5)

def unary(request, context):
    if request == b"slow":
        time.sleep(2)
    return str(threads.peer(context)).encode()

def handler(behaviour):
    return grpc.method_handlers_generic_handler("test.Greeter", {"Unary": grpc.unary_unary_rpc_method_handler(behaviour)})

if kind == "threads":
    server = grpc.server(futures.ThreadPoolExecutor(8), interceptors=threads.server_interceptors(mesh))
    server.add_generic_rpc_handlers((handler(unary),))
    server.add_secure_port(f"127.0.0.1:{port}", threads.server_credentials(mesh))
    threads.serve(server, mesh)
else:
    async def aunary(request, context):
        if request == b"slow":
            await asyncio.sleep(2)
        return str(grpc_aio.peer(context)).encode()

    async def main():
        server = grpc.aio.server(interceptors=grpc_aio.server_interceptors(mesh))
        server.add_generic_rpc_handlers((handler(aunary),))
        server.add_secure_port(f"127.0.0.1:{port}", grpc_aio.server_credentials(mesh))
        await grpc_aio.serve(server, mesh)

    asyncio.run(main())
mesh.close()
print("stopped in good order", flush=True)
"""


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_from_the_token_to_the_last_call(kind: str, tmp_path: Path) -> None:
    """With a real control service: identity, registration as mTLS, policy, a call in flight at SIGTERM, deregistration."""
    with ExitStack() as stack:
        town = stack.enter_context(SecureMesh(tmp_path))
        town.control.apply(STRICT)
        town.control.apply(allow("greeter", "alice").replace("[GET]", "[POST]"))
        port = free_port()
        environ = {**town.environment("greeter"), "MESHLIB_PORT": str(port), "MESHLIB_PROTOCOL": "grpc"}
        command = [sys.executable, "-c", SCRIPT, kind, str(port)]
        process = stack.enter_context(
            subprocess.Popen(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT), **environ}, stdout=subprocess.PIPE, text=True)
        )
        stack.callback(process.kill)

        def healthy() -> bool:
            assert process.poll() is None
            endpoints = town.control.get("/v1/endpoints")["endpoints"]
            return any(each["port"] == port and each["health"] == "healthy" for each in endpoints)

        eventually(healthy, what="the server to be registered")
        alice, mallory = (stack.enter_context(town.mesh(account)) for account in ("alice", "mallory"))
        calls = stack.enter_context(channel(alice, "greeter")).unary_unary(UNARY)
        assert calls(b"", timeout=60) == b"spiffe://cluster.local/ns/default/sa/alice"
        with pytest.raises(grpc.RpcError) as caught:
            stack.enter_context(channel(mallory, "greeter")).unary_unary(UNARY)(b"", timeout=60)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        slow = calls.future(b"slow", timeout=60)
        time.sleep(0.5)  # it is on its way
        process.send_signal(signal.SIGTERM)
        assert slow.result(60) == b"spiffe://cluster.local/ns/default/sa/alice"
        assert process.stdout is not None
        assert process.stdout.read() == "stopped in good order\n"
        assert process.wait(60) == 0
        eventually(lambda: not town.control.get("/v1/endpoints")["endpoints"], what="the server to be deregistered")


def unary(request: bytes, context: Any) -> bytes:
    return str(peer(context)).encode()


def test_serve_ends_when_somebody_stops_the_server() -> None:
    """In a thread, where no signals are heard."""
    with Member("greeter", service="greeter", port=9999, drain_seconds=0) as member:
        server = grpc.server(futures.ThreadPoolExecutor(2), interceptors=threads.server_interceptors(member.mesh, 9080))
        server.add_generic_rpc_handlers((handlers(Unary=unary),))
        port = server.add_secure_port("127.0.0.1:0", server_credentials(member.mesh))
        thread = threading.Thread(target=lambda: threads.serve(server, member.mesh, port=port))
        thread.start()
        eventually(lambda: member.control.announced == [port], what="the announcement")
        with Member("alice", greeter(port)) as alice, channel(alice.mesh, HOST) as calls:
            assert calls.unary_unary(UNARY)(b"", timeout=30)
        server.stop(0)
        thread.join(30)
        assert not thread.is_alive()
        assert member.control.announced == []


async def test_serve_ends_when_somebody_stops_the_server_of_asyncio() -> None:
    with Member("greeter", service="greeter", port=9999, drain_seconds=0) as member:
        server = grpc.aio.server(interceptors=grpc_aio.server_interceptors(member.mesh, 9080))
        server.add_generic_rpc_handlers((handlers(Unary=unary),))
        port = server.add_secure_port("127.0.0.1:0", server_credentials(member.mesh))
        serving = asyncio.ensure_future(grpc_aio.serve(server, member.mesh, port=port))
        await polling.eventually(lambda: member.control.announced == [port])
        await server.stop(0)
        await serving
        assert member.control.announced == []


def test_a_port_with_mtls_needs_an_identity() -> None:
    with static_mesh() as nobody, pytest.raises(errors.ConfigError, match="needs an identity"):
        server_credentials(nobody)
    with Member("greeter") as member:
        assert not member.mesh.listening.speaks_mtls
        server_credentials(member.mesh)
        assert member.mesh.listening.speaks_mtls
