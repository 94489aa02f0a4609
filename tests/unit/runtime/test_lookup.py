"""What a call finds: a destination in the mesh, the outside, or an error that says which of the two nobody knows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from meshlib import Mesh, errors
from meshlib.lowlevel import AsyncExchange, Exchange, Request
from meshlib.model.cluster import Cluster, Discovery
from meshlib.model.route import DirectResponse, PathMatch, Route, RouteMatch
from meshlib.model.snapshot import ClusterConfig, Snapshot, Target
from meshlib.testing import StaticControl, service, snapshot, static_mesh

REVIEWS = service("reviews", ["127.0.0.1:9"])
Found = AsyncExchange | Exchange | None


def blocking(mesh: Mesh, request: Request) -> Found:
    return mesh.exchange(request)


def on_a_loop(mesh: Mesh, request: Request) -> Found:
    return asyncio.run(mesh.aexchange(request))


@pytest.fixture(params=[blocking, on_a_loop])
def exchange(request: pytest.FixtureRequest) -> Callable[[Mesh, Request], Found]:
    found: Callable[[Mesh, Request], Found] = request.param
    return found


def get(authority: str, scheme: str = "http") -> Request:
    return Request("GET", scheme, authority, "/", [])


Exchanging = Callable[[Mesh, Request], Found]


def mesh_of(current: Snapshot) -> tuple[Mesh, StaticControl]:
    control = StaticControl(current)
    return Mesh(control=control), control


def test_an_outside_host_is_left_to_the_caller(exchange: Exchanging) -> None:
    mesh, control = mesh_of(snapshot(REVIEWS, allow_any=True))
    with mesh:
        assert exchange(mesh, get("example.com:80")) is None
        assert exchange(mesh, get("example.com:80")) is None
    assert control.requested == ["example.com:80"]  # asked once; the answer is remembered


def test_an_outside_host_is_refused_where_only_the_registry_counts(exchange: Exchanging) -> None:
    with static_mesh(REVIEWS, allow_any=False) as mesh:
        with pytest.raises(errors.OutboundBlocked, match="REGISTRY_ONLY") as caught:
            exchange(mesh, get("example.com:80"))
        assert (caught.value.authority, caught.value.flags) == ("example.com:80", ("BH",))


def test_nothing_leaves_the_mesh_while_its_policy_is_unknown(exchange: Exchanging) -> None:
    """Absent or not: the control service has not said yet what happens to outside hosts."""
    mesh, _ = mesh_of(replace(snapshot(allow_any=None), absent={"example.com:80": "not there"}))
    with mesh:
        for scheme in ("http", "https"):
            with pytest.raises(errors.TargetUnknown, match="meshctl status"):
                exchange(mesh, get("example.com:80", scheme))


@pytest.mark.parametrize("allow_any", [True, False])
def test_a_host_whose_configuration_is_broken_never_leaves_the_mesh(exchange: Exchanging, *, allow_any: bool) -> None:
    mesh, _ = mesh_of(replace(snapshot(allow_any=allow_any), broken={"reviews:80": "no answer within 15 s"}))
    with mesh, pytest.raises(errors.TargetUnknown, match="no answer within 15 s"):
        exchange(mesh, get("reviews:80"))


@pytest.mark.parametrize(
    ("allow_any", "authority", "passes"),
    [
        (True, "example.com:443", True),
        (True, "reviews:80", True),
        (False, "reviews:80", True),
        (False, "example.com:443", False),
    ],
)
def test_the_callers_own_tls_passes_or_not(exchange: Exchanging, authority: str, *, allow_any: bool, passes: bool) -> None:
    """Nothing in the mesh can look into it: policy decides only whether it may go."""
    mesh, control = mesh_of(snapshot(REVIEWS, allow_any=allow_any))
    with mesh:
        if passes:
            assert exchange(mesh, get(authority, "https")) is None
            assert control.requested == []
        else:
            with pytest.raises(errors.OutboundBlocked):
                exchange(mesh, get(authority, "https"))


def test_a_control_service_that_cannot_be_reached_fails_the_first_call_at_once(exchange: Exchanging) -> None:
    """And it says so, with its address, and which host was asked for."""
    unreachable = pytest.raises(errors.TargetUnknown, match=r"unreachable.*127\.0\.0\.1:1.*authority=reviews:80")
    with Mesh(insecure_dev=True, control="127.0.0.1:1") as mesh, unreachable:
        exchange(mesh, get("reviews:80"))


def test_native_calls_have_no_transport_for_outside_hosts() -> None:
    with static_mesh(REVIEWS) as mesh:
        with pytest.raises(errors.OutboundBlocked, match="httpx or requests"):
            mesh.request("GET", "http://example.com/")
        with pytest.raises(errors.OutboundBlocked, match="httpx or requests"):
            asyncio.run(mesh.arequest("GET", "https://example.com/"))


def only_route(target: Target, route: Route) -> Target:
    return replace(target, virtual_host=replace(target.virtual_host, routes=(route,)))


def test_a_direct_response_needs_no_endpoint(exchange: Exchanging) -> None:
    route = Route("teapot", RouteMatch(PathMatch("prefix", "/")), DirectResponse(418, b"short and stout"))
    with static_mesh(only_route(REVIEWS, route)) as mesh:
        found = exchange(mesh, get("reviews:80"))
        assert found is not None
        assert (found.status, found.body, found.record.attempts) == (418, b"short and stout", 0)
        assert dict(found.headers) == {b"content-type": b"text/plain", b"content-length": b"15"}
        assert found.trailers == ()
        assert mesh.request("GET", "http://reviews/").text == "short and stout"


def test_a_request_that_no_route_matches(exchange: Exchanging) -> None:
    route = Route("other", RouteMatch(PathMatch("exact", "/other")), DirectResponse(200))
    with static_mesh(only_route(REVIEWS, route)) as mesh, pytest.raises(errors.RouteNotFound, match="GET /"):
        exchange(mesh, get("reviews:80"))


def broken_cluster(name: str) -> ClusterConfig:
    return ClusterConfig(name, error="it does not exist")


def passthrough(name: str) -> ClusterConfig:
    return ClusterConfig(name, Cluster(name, discovery=Discovery.PASSTHROUGH))


def empty(name: str) -> ClusterConfig:
    return ClusterConfig(name, Cluster(name))


@pytest.mark.parametrize(
    ("make", "error"),
    [(broken_cluster, errors.ClusterNotFound), (empty, errors.NoHealthyUpstream), (passthrough, None)],
)
def test_a_cluster_that_has_nothing_to_send_to(
    exchange: Exchanging, make: Callable[[str], ClusterConfig], error: type[Any] | None
) -> None:
    (name,) = REVIEWS.clusters
    with static_mesh(replace(REVIEWS, clusters={name: make(name)})) as mesh:
        if error is None:
            assert exchange(mesh, get("reviews:80")) is None
            return
        with pytest.raises(error) as caught:
            exchange(mesh, get("reviews:80"))
        assert (caught.value.cluster, caught.value.route) == (name, "default")
