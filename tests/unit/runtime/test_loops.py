"""Event loops come and go (``asyncio.run`` for each job, a loop for each test); connections must not outlive them."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Endpoint
from meshlib.policy.balancing import Host
from meshlib.runtime.pools import Pools
from meshlib.testing import service, static_mesh
from meshlib.wire.request import encode_head
from tests.support import backends

CLUSTER = Cluster("outbound|80||reviews")
HEAD = encode_head("GET", "/", [], authority="reviews")


@pytest.fixture
def backend() -> Iterator[backends.Backend]:
    with backends.running(["reviews"]) as servers:
        yield servers["reviews"]


async def call(pools: Pools, host: Host) -> int:
    """The connections that the cluster has after a call."""
    pool = pools.for_loop(host, CLUSTER, asyncio.get_running_loop())
    response = await pool.send(HEAD, whole=True)
    assert response.status == 200
    return pool.settings.limits.connections


def test_a_loop_that_ends_leaves_no_connection(backend: backends.Backend) -> None:
    """Unclosed sockets are warnings, which are errors here."""
    pools, host = Pools(), Host(Endpoint("127.0.0.1", backend.port))
    for _ in range(3):
        assert asyncio.run(call(pools, host)) == 1
    gc.collect()


def test_calls_of_a_mesh_need_nothing_at_the_end_of_a_loop(backend: backends.Backend) -> None:
    async def job() -> int:
        return (await mesh.arequest("GET", "http://reviews/")).status_code

    with static_mesh(service("reviews", [f"127.0.0.1:{backend.port}"])) as mesh:
        assert [asyncio.run(job()) for _ in range(3)] == [200] * 3
        gc.collect()


@pytest.mark.filterwarnings("ignore:unclosed", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_connections_of_a_loop_closed_without_a_last_word_count_no_more(backend: backends.Backend) -> None:
    """Else they would use up the cluster's maxConnections for good."""
    pools, host = Pools(), Host(Endpoint("127.0.0.1", backend.port))
    for _ in range(3):
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(call(pools, host)) == 1
        loop.close()
    del pools, host, loop
    gc.collect()  # here, where the warning that this rightly gives is expected


async def test_a_loop_keeps_its_connection_while_it_runs(backend: backends.Backend) -> None:
    """The control: what is closed at the end is not closed before."""
    pools, host = Pools(), Host(Endpoint("127.0.0.1", backend.port))
    assert [await call(pools, host) for _ in range(3)] == [1, 1, 1]
    assert "idle=1" in repr(pools.for_loop(host, CLUSTER, asyncio.get_running_loop()))
