"""Trust changes and fails under load: F23 (renewal blocked), F25 (roots rotated), F26 (wrong key), with unauth = 0 throughout.

Each request that reaches the application was sent by the one caller that policy allows: it writes down who that was.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from meshlib import Mesh, errors
from meshlib.model.cluster import UpstreamTls
from meshlib.runtime.identity.static import StaticIdentity
from meshlib.runtime.tls.contexts import TlsContexts
from tests.support.control import Control, eventually, meshctl
from tests.support.load import Load
from tests.support.polling import eventually as aeventually
from tests.support.zero_trust import STRICT, SecureMesh, Workload, allow

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

RATE = 40.0
CALLER = "spiffe://cluster.local/ns/default/sa/productpage"


@asynccontextmanager
async def under_load(folder: Path, *arguments: str) -> AsyncIterator[tuple[SecureMesh, list[Workload], Mesh, Load]]:
    with SecureMesh(folder, *arguments) as town:
        town.control.apply(STRICT)
        town.control.apply(allow("reviews", "productpage"))
        instances = [town.serve("reviews"), town.serve("reviews")]
        async with town.mesh("productpage") as mesh:

            async def send(number: int) -> int:
                return (await mesh.arequest("GET", f"http://reviews/{number}", timeout=20)).status_code

            async with Load(send, RATE) as load:
                await load.more(20)
                yield town, instances, mesh, load
            assert all(line.startswith(CALLER + " ") for each in instances for line in each.reached), "unauth = 0"


def material_of(mesh: Mesh) -> Any:
    process = mesh._processes.current  # nothing public shows keys
    assert process is not None
    assert process.identity is not None
    return process.identity.current


def step(town: SecureMesh, name: str) -> dict[str, Any]:
    answer: dict[str, Any] = town.post("/v1/ca/rotation", {"step": name})
    return answer


def every_client(town: SecureMesh, holds: Callable[[Any], bool]) -> bool:
    clients = town.control.get("/v1/status")["clients"]
    return len(clients) == 3 and all(holds(client) for client in clients)


def issued_by_newest(town: SecureMesh, serials: set[str]) -> int:
    """How many certificates were given out that are not among `serials`."""
    return sum(each["serial"] not in serials for each in town.control.get("/v1/ca/issued")["certificates"])


async def test_F25_roots_are_rotated_and_no_request_fails(tmp_path: Path) -> None:
    async with under_load(tmp_path) as (town, instances, mesh, load):
        old = material_of(mesh)
        first = step(town, "prepare")
        new_root = next(root["sha256"] for root in first["roots"] if root["phase"] == "prepared")
        await load.more(20)
        await aeventually(lambda: every_client(town, lambda client: client["types"]["SDS"]["state"] == "SYNCED"))
        step(town, "activate")
        await load.more(20)
        before = {each["serial"] for each in town.control.get("/v1/ca/issued")["certificates"]}
        step(town, "taint")
        # Everybody renews at once: the two instances, the caller, and the control service itself.
        await aeventually(lambda: issued_by_newest(town, before) >= 3)
        await aeventually(lambda: material_of(mesh).chain != old.chain)
        await load.more(20)
        done = step(town, "revoke")
        assert [(root["phase"], root["sha256"]) for root in done["roots"]] == [("active", new_root)]
        await aeventually(lambda: every_client(town, lambda client: client["types"]["SDS"]["state"] == "SYNCED"))
        await load.more(40)
        assert load.errors == []
        assert {result.answer for result in load.results} == {200}
        # Who still has a certificate of the old root gets nowhere.
        for instance in instances:
            assert not handshake(instance.port, old, mesh)
            assert handshake(instance.port, material_of(mesh), mesh)


def handshake(port: int, material: Any, mesh: Mesh) -> bool:
    """Whether a server takes this certificate: in TLS 1.3 the client learns it with the first answer."""
    import socket

    contexts = TlsContexts(StaticIdentity(material))
    contexts.set_trust(material_of(mesh).roots)
    tls = contexts.client(UpstreamTls(sni="reviews"))
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain, tls.wrap_socket(plain) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nhost: reviews\r\nconnection: close\r\n\r\n")
            return connection.recv(100).startswith(b"HTTP/1.1 ")
    except OSError:
        return False


async def test_F23_a_certificate_that_cannot_be_renewed_is_used_to_its_end_and_no_further(tmp_path: Path) -> None:
    """The CA is away: nothing fails before the end, nothing is ever sent in the clear after it, and a credential heals it."""
    async with under_load(tmp_path, "--certificate-ttl", "16") as (town, _, mesh, load):
        # Renewed at least once before: it is a renewed certificate whose end is waited for.
        first = material_of(mesh)
        await aeventually(lambda: material_of(mesh) is not first)
        town.control.stop(signal.SIGKILL)
        began = len(load.results)
        await aeventually(lambda: any(isinstance(error, errors.MeshError) for error in load.errors))
        failed = next(result for result in load.results[began:] if result.error is not None)
        assert isinstance(failed.error, errors.TlsFailed)
        assert not any(result.error for result in load.results if result.number < failed.number)
        town.control.start()
        town.renew_tokens()  # a certificate that ended proves nothing, and each token did so once
        await aeventually(lambda: load.results[-1].answer == 200, seconds=90)
        await load.more(20)
        assert load.results[-1].answer == 200


def test_F26_the_wrong_key_issues_nothing(tmp_path: Path) -> None:
    """And says so, instead of making another authority."""
    with Control(tmp_path, secure=True) as control:
        eventually(lambda: control.get("/v1/ca")["issuing"])
    (tmp_path / "ca.key").write_bytes(bytes(32).hex().encode())
    ports = [word for name in ("--listen", "--ca-listen", "--admin") for word in (name, "127.0.0.1:0")]
    result = meshctl("serve", "--data", str(tmp_path), *ports)
    assert result.returncode == 1
    assert "key" in result.stderr
    assert "Traceback" not in result.stderr
