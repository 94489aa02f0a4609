"""Copies for mirrors, as callers (do not) notice them: nothing that happens to a copy reaches the call."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from meshlib import Mesh
from meshlib.model.cluster import Cluster, Discovery
from meshlib.model.route import Forward, Mirror
from meshlib.model.snapshot import ClusterConfig, Target
from meshlib.runtime.client import Client
from meshlib.runtime.mirroring import MAX_IN_FLIGHT
from meshlib.testing import service, static_mesh
from tests.support import backends
from tests.support.control import eventually

MIRROR = "outbound|80||shadow"


@pytest.fixture
def servers() -> Iterator[dict[str, backends.Backend]]:
    with backends.running(["reviews", "shadow"]) as running:
        yield running


def mirrored(port: int, mirror: ClusterConfig, *, fraction: float = 1.0) -> Target:
    """The service `reviews`, whose calls are copied to `mirror`."""
    target = service("reviews", [f"127.0.0.1:{port}"])
    (route,) = target.virtual_host.routes
    action = route.action
    assert isinstance(action, Forward)
    copied = replace(route, action=replace(action, mirrors=(Mirror(mirror.name, fraction),)))
    host = replace(target.virtual_host, routes=(copied,))
    return replace(target, virtual_host=host, clusters={**target.clusters, mirror.name: mirror})


def at(port: int) -> ClusterConfig:
    (config,) = service("shadow", [f"127.0.0.1:{port}"]).clusters.values()
    return config


def client_of(mesh: Mesh) -> Client:
    mesh.start()
    process = mesh._processes.current
    assert process is not None
    return process.client


def test_a_mirror_gets_what_the_service_gets_but_for_the_host(servers: dict[str, backends.Backend]) -> None:
    with static_mesh(mirrored(servers["reviews"].port, at(servers["shadow"].port))) as mesh:
        forged = {
            "x-forwarded-client-cert": "URI=spiffe://td/ns/a/sa/admin",
            "x-envoy-original-path": "/admin",
            "X-Mesh-Peer": "admin",
            "x-mine": "1",
        }
        response = mesh.request("POST", "http://reviews/a?b=c", headers=forged, content=b"body")
        assert (response.status_code, response.content) == (200, b"reviews")
        assert client_of(mesh).mirroring.wait_idle(30)
    (original,), (copy,) = servers["reviews"].requests, servers["shadow"].requests
    assert copy[:2] == original[:2] == ("POST", "/a?b=c")
    assert servers["shadow"].bodies == [b"body"]
    assert (original[2]["host"], copy[2]["host"]) == ("reviews", "reviews-shadow")
    assert copy[2]["x-mine"] == "1"
    assert not {"x-forwarded-client-cert", "x-envoy-original-path", "x-envoy-internal", "x-mesh-peer"} & copy[2].keys()


async def test_calls_of_event_loops_are_copied_too(servers: dict[str, backends.Backend]) -> None:
    async with static_mesh(mirrored(servers["reviews"].port, at(servers["shadow"].port))) as mesh:
        for _ in range(3):
            assert (await mesh.arequest("GET", "http://reviews/")).status_code == 200
        mirroring = client_of(mesh).mirroring
        assert mirroring.wait_idle(30)
        assert (mirroring.sent, mirroring.failed) == (3, 0)
    assert len(servers["shadow"].requests) == 3


def test_retries_are_not_copied_again(servers: dict[str, backends.Backend]) -> None:
    servers["shadow"].failures = 5
    unreachable = _closed_port()
    target = mirrored(servers["reviews"].port, at(servers["shadow"].port))
    (cluster, *_) = target.clusters.values()
    both = service("reviews", [f"127.0.0.1:{servers['reviews'].port}", f"127.0.0.1:{unreachable}"]).clusters[cluster.name]
    with static_mesh(replace(target, clusters={**target.clusters, cluster.name: both})) as mesh:
        for _ in range(10):
            assert mesh.request("GET", "http://reviews/").status_code == 200
        mirroring = client_of(mesh).mirroring
        assert mirroring.wait_idle(30)
        assert (mirroring.sent, mirroring.failed) == (10, 0)  # answered with 503 is answered
    assert len(servers["shadow"].requests) == 10  # nor are copies tried again


@pytest.mark.parametrize(
    "mirror",
    [
        pytest.param(lambda: at(_closed_port()), id="down"),
        pytest.param(lambda: ClusterConfig(MIRROR, error="it does not exist"), id="broken"),
        pytest.param(lambda: ClusterConfig(MIRROR, Cluster(MIRROR, discovery=Discovery.PASSTHROUGH)), id="outside"),
        pytest.param(lambda: service("shadow", []).clusters[MIRROR], id="nobody"),
    ],
)
def test_a_mirror_that_cannot_be_reached_is_nobodys_problem(
    servers: dict[str, backends.Backend], mirror: Callable[[], ClusterConfig]
) -> None:
    """The last resort of a call, the application's own transport, is none for its copies."""
    with static_mesh(mirrored(servers["reviews"].port, mirror())) as mesh:
        response = mesh.request("GET", "http://reviews/")
        assert (response.status_code, response.info.flags) == (200, ())
        mirroring = client_of(mesh).mirroring
        assert mirroring.wait_idle(30)
        assert (mirroring.sent, mirroring.failed) == (0, 1)


def test_too_many_copies_are_dropped_and_counted(servers: dict[str, backends.Backend]) -> None:
    """A mirror that never answers holds so many copies up, and no call."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as deaf:
        with static_mesh(mirrored(servers["reviews"].port, at(deaf.getsockname()[1]))) as mesh:
            for _ in range(MAX_IN_FLIGHT + 5):
                assert mesh.request("GET", "http://reviews/").status_code == 200
            mirroring = client_of(mesh).mirroring
            assert mirroring.dropped == 5
        assert (mirroring.sent, mirroring.failed) == (0, MAX_IN_FLIGHT)  # given up when the mesh was closed


def test_a_process_that_can_open_nothing_more_for_copies_still_calls(
    servers: dict[str, backends.Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted() -> asyncio.AbstractEventLoop:
        raise OSError(errno.EMFILE, "Too many open files")

    with static_mesh(mirrored(servers["reviews"].port, at(servers["shadow"].port))) as mesh:
        mirroring = client_of(mesh).mirroring
        with monkeypatch.context() as patched:
            patched.setattr(asyncio, "new_event_loop", exhausted)
            assert mesh.request("GET", "http://reviews/").status_code == 200
        assert (mirroring.dropped, mirroring.sent) == (1, 0)
        assert mesh.request("GET", "http://reviews/").status_code == 200
        assert mirroring.wait_idle(30)
        assert (mirroring.dropped, mirroring.sent) == (1, 1)


def test_streamed_bodies_are_not_copied_but_counted(servers: dict[str, backends.Backend]) -> None:
    with static_mesh(mirrored(servers["reviews"].port, at(servers["shadow"].port))) as mesh:
        assert mesh.request("POST", "http://reviews/", content=iter([b"a", b"b"])).status_code == 200
        assert mesh.request("POST", "http://reviews/", content=b"ab").status_code == 200
        mirroring = client_of(mesh).mirroring
        assert mirroring.wait_idle(30)
        assert (mirroring.unrepeatable, mirroring.sent) == (1, 1)
    assert servers["reviews"].bodies == [b"ab", b"ab"]
    assert servers["shadow"].bodies == [b"ab"]


def test_nothing_is_left_of_it_when_the_mesh_is_closed(servers: dict[str, backends.Backend]) -> None:
    with static_mesh(mirrored(servers["reviews"].port, at(servers["shadow"].port))) as mesh:
        mesh.request("GET", "http://reviews/")
        client = client_of(mesh)
        assert client.mirroring.wait_idle(30)
        assert any(thread.name == "meshlib-mirroring" for thread in threading.enumerate())
    assert not any(thread.name == "meshlib-mirroring" for thread in threading.enumerate())


def test_a_forked_child_copies_by_itself(servers: dict[str, backends.Backend]) -> None:
    with static_mesh(mirrored(servers["reviews"].port, at(servers["shadow"].port))) as mesh:
        mesh.request("GET", "http://reviews/parent")
        assert client_of(mesh).mirroring.wait_idle(30)
        child = os.fork()
        if not child:
            code = 1
            try:
                mesh.request("GET", "http://reviews/child")
                code = 0 if client_of(mesh).mirroring.wait_idle(30) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        eventually(lambda: len(servers["shadow"].requests) == 2, what="the child's copy")
    assert [path for _, path, _ in servers["shadow"].requests] == ["/parent", "/child"]


def test_a_share_of_calls_is_copied(servers: dict[str, backends.Backend]) -> None:
    with static_mesh(mirrored(servers["reviews"].port, at(servers["shadow"].port), fraction=0.3)) as mesh:
        for _ in range(300):
            mesh.request("GET", "http://reviews/")
        assert client_of(mesh).mirroring.wait_idle(30)
    assert 40 < len(servers["shadow"].requests) < 140  # six standard deviations around 90


def _closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
