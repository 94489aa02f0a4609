"""Sessions stay with their endpoint: real servers, a real client with a cookie jar."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from meshlib import Mesh
from meshlib.model.cluster import LbPolicy
from meshlib.model.route import Forward, HashPolicy, PathMatch, Route, RouteMatch, WeightedCluster
from meshlib.testing import DEFAULT_RETRY, service, static_mesh
from meshlib_integrations.httpx import MeshTransport
from tests.support import backends

NAMES = ("a", "b", "c", "d")
CLUSTER = "outbound|80||reviews"


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    policy = HashPolicy("cookie", "session", ttl=0.0, path="/")
    forward = Forward((WeightedCluster(CLUSTER),), retry=DEFAULT_RETRY, hash_policies=(policy,))
    route = Route("sticky", RouteMatch(PathMatch("prefix", "/")), forward)
    with backends.running(NAMES) as servers:
        endpoints = [f"127.0.0.1:{server.port}" for server in servers.values()]
        target = service("reviews", endpoints, lb_policy=LbPolicy.MAGLEV, routes=[route])
        with static_mesh(target) as made:
            yield made


def test_a_client_with_a_cookie_jar_stays_where_it_is(mesh: Mesh) -> None:
    first: set[str] = set()
    for _ in range(12):
        with httpx.Client(transport=MeshTransport(mesh)) as client:
            answers = [client.get("http://reviews/") for _ in range(5)]
        assert len({answer.text for answer in answers}) == 1
        assert "session" in answers[0].cookies
        assert all("set-cookie" not in answer.headers for answer in answers[1:])
        first.add(answers[0].text)
    assert len(first) > 1  # and sessions are spread


def test_without_a_jar_each_call_is_a_session_of_its_own(mesh: Mesh) -> None:
    seen = set()
    for _ in range(60):
        with httpx.Client(transport=MeshTransport(mesh)) as client:
            seen.add(client.get("http://reviews/").text)
    assert seen == set(NAMES)
