"""Resources → Snapshot: published whole, made before broken, unchanged parts kept."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.model.cluster import Cluster, Discovery
from meshlib.model.endpoint import Assignment, Endpoint
from meshlib.model.identity import TrustBundles
from meshlib.model.listener import INBOUND_PREFIX, TRUST_BUNDLE, VIRTUAL_OUTBOUND, InboundListener, Listener, MtlsMode
from meshlib.model.route import (
    DirectResponse,
    Forward,
    PathMatch,
    Route,
    RouteConfig,
    RouteMatch,
    VirtualHost,
    WeightedCluster,
)
from meshlib.model.snapshot import ClusterConfig, Snapshot
from meshlib.xds.join import Joined, Roots, cluster_names, join, select_virtual_host
from meshlib.xds.states import ResourceKey, ResourceState, Status
from meshlib.xds.types import CLUSTER, ENDPOINTS, LISTENER, ROUTE, SECRET

AUTHORITY = "reviews:80"


def held(value: object) -> ResourceState:
    return ResourceState(Status.ACKED, value)


def missing(reason: str = "") -> ResourceState:
    return ResourceState(Status.DOES_NOT_EXIST, error=reason)


def routing(*clusters: str, name: str = "r", domains: tuple[str, ...] = (AUTHORITY,)) -> RouteConfig:
    routes = tuple(
        Route(cluster, RouteMatch(PathMatch("prefix", "/")), Forward((WeightedCluster(cluster),))) for cluster in clusters
    )
    return RouteConfig(name, (VirtualHost("v", domains, routes),))


class Control:
    """What has been received so far, joined over and over as a session's owner does."""

    def __init__(self, *authorities: str) -> None:
        self.states: dict[ResourceKey, ResourceState] = {}
        self.authorities = authorities or (AUTHORITY,)
        self.joined = Joined(Snapshot(), {})

    def receive(self, *states: tuple[str, str, ResourceState]) -> Snapshot:
        self.states |= {(type_url, name): state for type_url, name, state in states}
        self.joined = join(self.states, Roots(self.authorities), self.joined.snapshot)
        return self.joined.snapshot

    def wanted(self, type_url: str) -> Collection[str]:
        return sorted(self.joined.wanted[type_url])

    def complete(self) -> Snapshot:
        """A target `reviews:80` whose one route goes to cluster `a` with one endpoint."""
        return self.receive(
            (LISTENER, AUTHORITY, held(Listener(AUTHORITY, route_config_name="r"))),
            (ROUTE, "r", held(routing("a"))),
            (CLUSTER, "a", held(Cluster("a"))),
            (ENDPOINTS, "a", held(Assignment((Endpoint("10.0.0.1", 80),)))),
        )


def test_names_are_asked_for_step_by_step_and_the_target_appears_when_whole() -> None:
    control = Control()
    assert control.receive().targets == {}
    assert control.wanted(LISTENER) == [AUTHORITY, VIRTUAL_OUTBOUND]
    control.receive((LISTENER, AUTHORITY, held(Listener(AUTHORITY, route_config_name="r"))))
    assert control.wanted(ROUTE) == ["r"]
    config = routing("a", "b")
    control.receive((ROUTE, "r", held(config)))
    assert control.wanted(CLUSTER) == ["a", "b"]
    a, b = Cluster("a"), Cluster("b", eds_name="other")
    control.receive((CLUSTER, "a", held(a)), (CLUSTER, "b", held(b)))
    assert control.wanted(ENDPOINTS) == ["a", "other"]
    assert control.receive((ENDPOINTS, "a", held(Assignment()))).targets == {}
    endpoints = (Endpoint("10.0.0.1", 80),)
    target = control.receive((ENDPOINTS, "other", held(Assignment(endpoints)))).targets[AUTHORITY]
    assert target.clusters == {"a": ClusterConfig("a", a, ()), "b": ClusterConfig("b", b, endpoints)}
    assert target.virtual_host is config.virtual_hosts[0]
    assert target.route_config is config


def test_nothing_new_is_the_same_snapshot() -> None:
    control = Control()
    snapshot = control.complete()
    assert control.receive() is snapshot


def test_generation_grows_by_one() -> None:
    control = Control()
    first = control.complete()
    second = control.receive((ENDPOINTS, "a", held(Assignment((Endpoint("10.0.0.2", 80),)))))
    assert second.generation == first.generation + 1


def test_unchanged_parts_keep_their_identity() -> None:
    control = Control(AUTHORITY, "other:80")
    control.complete()
    listener = Listener("other:80", route_config=routing("b", name="inline", domains=("other:80",)))
    first = control.receive(
        (LISTENER, "other:80", held(listener)), (CLUSTER, "b", held(Cluster("b"))), (ENDPOINTS, "b", held(Assignment()))
    )
    second = control.receive((ENDPOINTS, "b", held(Assignment((Endpoint("10.0.0.9", 80),)))))
    assert second.targets[AUTHORITY] is first.targets[AUTHORITY]
    assert second.targets["other:80"] is not first.targets["other:80"]
    assert second.targets["other:80"].virtual_host is first.targets["other:80"].virtual_host


def test_equal_endpoints_sent_again_change_nothing() -> None:
    control = Control()
    first = control.complete()
    assert control.receive((ENDPOINTS, "a", held(Assignment((Endpoint("10.0.0.1", 80),))))) is first


def test_target_before_stays_while_a_new_cluster_is_on_its_way() -> None:
    control = Control()
    first = control.complete()
    assert control.receive((ROUTE, "r", held(routing("b")))) is first
    assert control.wanted(CLUSTER) == ["a", "b"]
    assert control.receive((CLUSTER, "b", held(Cluster("b")))) is first
    assert control.wanted(ENDPOINTS) == ["a", "b"]
    after = control.receive((ENDPOINTS, "b", held(Assignment())))
    assert list(after.targets[AUTHORITY].clusters) == ["b"]
    assert control.wanted(CLUSTER) == ["b"]


def test_target_that_waits_follows_its_own_endpoints() -> None:
    control = Control()
    control.complete()
    control.receive((ROUTE, "r", held(routing("b"))))
    fresh = (Endpoint("10.0.0.2", 80),)
    target = control.receive((ENDPOINTS, "a", held(Assignment(fresh)))).targets[AUTHORITY]
    assert target.clusters["a"].endpoints == fresh
    assert target.virtual_host.routes[0].name == "a"


def test_missing_cluster_is_published_with_its_reason() -> None:
    control = Control()
    control.complete()
    clusters = control.receive(
        (ROUTE, "r", held(routing("a", "gone", "no-endpoints"))),
        (CLUSTER, "gone", missing("no such subset")),
        (CLUSTER, "no-endpoints", held(Cluster("no-endpoints"))),
        (ENDPOINTS, "no-endpoints", ResourceState(Status.TIMEOUT)),
    ).targets[AUTHORITY]
    assert clusters.clusters["gone"] == ClusterConfig("gone", error="CDS gone: no such subset")
    assert clusters.clusters["no-endpoints"].error == "EDS no-endpoints: timeout"
    assert clusters.clusters["a"].error == ""


def test_clusters_that_list_their_endpoints_ask_for_none() -> None:
    control = Control()
    control.complete()
    endpoints = (Endpoint("name.test", 80),)
    cluster = Cluster("d", Discovery.DNS, endpoints=endpoints)
    snapshot = control.receive((ROUTE, "r", held(routing("d"))), (CLUSTER, "d", held(cluster)))
    assert snapshot.targets[AUTHORITY].clusters["d"] == ClusterConfig("d", cluster, endpoints)
    assert control.wanted(ENDPOINTS) == []


def test_a_host_that_does_not_exist_is_outside() -> None:
    snapshot = Control().receive((LISTENER, AUTHORITY, missing("not in the mesh")))
    assert snapshot.absent == {AUTHORITY: "LDS reviews:80: not in the mesh"}
    assert snapshot.broken == {}


@pytest.mark.parametrize(
    ("states", "reason"),
    [
        ([(LISTENER, AUTHORITY, ResourceState(Status.NACKED, error="bad"))], "LDS reviews:80: bad"),
        (
            [(LISTENER, AUTHORITY, held(Listener(AUTHORITY, route_config_name="r"))), (ROUTE, "r", missing())],
            "RDS r: does_not_exist",
        ),
        (
            [(LISTENER, AUTHORITY, held(Listener(AUTHORITY, route_config=routing("a", domains=("other",)))))],
            "RDS r: no virtual host for reviews:80",
        ),
    ],
)
def test_authority_that_cannot_be_joined_says_why(states: list[tuple[str, str, ResourceState]], reason: str) -> None:
    """It may be part of the mesh: it must not look like a host that is outside."""
    snapshot = Control().receive(*states)
    assert snapshot.broken == {AUTHORITY: reason}
    assert snapshot.absent == {}
    assert snapshot.targets == {}


def test_last_good_version_holds_beside_trouble() -> None:
    """A refused or deleted resource keeps its value in the session (A88), and the target keeps working."""
    control = Control()
    first = control.complete()
    bad = ResourceState(Status.NACKED, first.targets[AUTHORITY].route_config, error="regex")
    assert control.receive((ROUTE, "r", bad)) is first


def test_authority_that_nobody_calls_any_more_leaves() -> None:
    control = Control()
    control.complete()
    control.authorities = ("other:80",)
    assert control.receive().targets == {}
    assert control.wanted(LISTENER) == ["other:80", VIRTUAL_OUTBOUND]
    assert control.wanted(CLUSTER) == []


def outbound(host: str) -> ResourceState:
    action = DirectResponse(502) if host == "block_all" else Forward((WeightedCluster("PassthroughCluster"),))
    routes = (Route(host, RouteMatch(PathMatch("prefix", "/")), action),)
    config = RouteConfig(VIRTUAL_OUTBOUND, (VirtualHost(host, ("*",), routes),))
    return held(Listener(VIRTUAL_OUTBOUND, route_config=config))


def test_outbound_policy() -> None:
    control = Control()
    assert control.receive().allow_any is None
    assert control.receive((LISTENER, VIRTUAL_OUTBOUND, outbound("allow_any"))).allow_any is True
    assert control.wanted(CLUSTER) == []
    assert control.receive((LISTENER, VIRTUAL_OUTBOUND, outbound("block_all"))).allow_any is False


def test_without_an_outbound_policy_nothing_passes() -> None:
    assert Control().receive((LISTENER, VIRTUAL_OUTBOUND, missing())).allow_any is False


HOSTS = RouteConfig(
    "r",
    (
        VirtualHost("any", ("*",), ()),
        VirtualHost("exact", ("a.foo.test", "withport.test:8080"), ()),
        VirtualHost("suffix", ("*.foo.test",), ()),
        VirtualHost("longer suffix", ("*-bar.foo.test",), ()),
        VirtualHost("prefix", ("pre.*",), ()),
        VirtualHost("longer prefix", ("pre.fix.*",), ()),
        VirtualHost("both", ("pre.x.foo.test.*",), ()),
    ),
)


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("a.foo.test", "exact"),
        ("A.Foo.TEST", "exact"),
        ("a.foo.test:80", "any"),
        ("withport.test:8080", "exact"),
        ("b.foo.test", "suffix"),
        ("a.b.foo.test", "suffix"),
        ("foo.test", "any"),
        (".foo.test", "any"),
        ("x-bar.foo.test", "longer suffix"),
        ("-bar.foo.test", "suffix"),
        ("pre.x", "prefix"),
        ("pre.", "any"),
        ("pre.fix.x", "longer prefix"),
        ("pre.x.foo.test", "suffix"),
    ],
)
def test_virtual_host_is_chosen_as_envoy_does(authority: str, host: str) -> None:
    """The table that was observed on Envoy 1.40."""
    chosen = select_virtual_host(HOSTS, authority)
    assert chosen is not None
    assert chosen.name == host


@pytest.mark.parametrize(
    ("authority", "found"),
    [("a.test:80", True), ("a.test:abc", True), ("a.test:", True), ("a.test", True), ("b.test:80", False)],
)
def test_port_is_ignored_when_told_to(authority: str, found: bool) -> None:
    config = RouteConfig("r", (VirtualHost("v", ("a.test", "[::1]"), ()),), ignore_port=True)
    assert (select_virtual_host(config, authority) is not None) == found
    assert select_virtual_host(config, "[::1]:80") is not None
    assert select_virtual_host(config, "[::1]") is not None


def test_clusters_are_named_once_in_order() -> None:
    both = Forward((WeightedCluster("b"), WeightedCluster("a")))
    match = RouteMatch(PathMatch("prefix", "/"))
    host = VirtualHost("v", ("*",), (Route("1", match, both), Route("2", match, DirectResponse(200)), Route("3", match, both)))
    assert cluster_names(host) == ("b", "a")


KEYS: list[tuple[str, str, object]] = [
    (LISTENER, AUTHORITY, Listener(AUTHORITY, route_config_name="r")),
    (ROUTE, "r", routing("a", "b")),
    (CLUSTER, "a", Cluster("a")),
    (CLUSTER, "b", Cluster("b")),
    (ENDPOINTS, "a", Assignment((Endpoint("10.0.0.1", 80),))),
    (ENDPOINTS, "b", Assignment()),
]


@given(st.permutations(KEYS), st.data())
def test_order_of_arrival_does_not_matter_and_no_target_is_ever_incomplete(
    order: list[tuple[str, str, object]], data: st.DataObject
) -> None:
    control = Control()
    for type_url, name, value in order:
        state = data.draw(st.sampled_from([held(value), missing("gone")]))
        snapshot = control.receive((type_url, name, state))
        for target in snapshot.targets.values():
            assert set(target.clusters) == set(cluster_names(target.virtual_host))
            assert all(config.cluster is not None or config.error for config in target.clusters.values())
    last = control.joined.snapshot
    assert last.targets.keys() | last.absent.keys() | last.broken.keys() == {AUTHORITY}


# --- what is served, and whom to believe


class Server:
    """A process that serves port 9080 and has an identity."""

    def __init__(self, *ports: int, trust: bool = True) -> None:
        self.roots = Roots(ports=ports or (9080,), trust=trust)
        self.states: dict[ResourceKey, ResourceState] = {}
        self.joined = Joined(Snapshot(), {})

    def receive(self, *states: tuple[str, str, ResourceState]) -> Snapshot:
        self.states |= {(type_url, name): state for type_url, name, state in states}
        self.joined = join(self.states, self.roots, self.joined.snapshot)
        return self.joined.snapshot


def inbound(mode: MtlsMode = MtlsMode.STRICT, port: int = 9080) -> InboundListener:
    return InboundListener(f"{INBOUND_PREFIX}{port}", port, mode)


SERVED = f"{INBOUND_PREFIX}9080"


def test_served_ports_and_trust_are_asked_for() -> None:
    server = Server(9080, 9081)
    snapshot = server.receive()
    assert server.joined.wanted[LISTENER] == {VIRTUAL_OUTBOUND, SERVED, f"{INBOUND_PREFIX}9081"}
    assert server.joined.wanted[SECRET] == {TRUST_BUNDLE}
    assert (snapshot.inbound, snapshot.trust) == ({}, None)


def test_who_has_no_identity_asks_for_no_trust() -> None:
    server = Server(trust=False)
    server.receive()
    assert server.joined.wanted[SECRET] == frozenset()


def test_each_port_appears_by_itself() -> None:
    server = Server(9080, 9081)
    strict = inbound()
    snapshot = server.receive((LISTENER, SERVED, held(strict)))
    assert snapshot.inbound == {9080: strict}
    again = server.receive((LISTENER, SERVED, held(inbound())))
    assert again is snapshot
    assert server.receive((LISTENER, SERVED, held(inbound(MtlsMode.DISABLE)))).inbound[9080].mtls is MtlsMode.DISABLE


@pytest.mark.parametrize(
    "state",
    [
        missing(),
        ResourceState(Status.NACKED, error="x"),
        ResourceState(Status.TIMEOUT, error="x"),
        ResourceState(Status.REQUESTED),
    ],
    ids=["deleted", "refused", "silence", "asked again"],
)
def test_what_held_for_a_port_holds_until_something_else_is_said(state: ResourceState) -> None:
    """gRFC A88: nothing but another listener changes it, whatever the session keeps."""
    server = Server()
    trust = TrustBundles({"td": (b"root",)})
    before = server.receive((LISTENER, SERVED, held(inbound())), (SECRET, TRUST_BUNDLE, held(trust)))
    after = server.receive((LISTENER, SERVED, state), (SECRET, TRUST_BUNDLE, state))
    assert after is before
    assert (after.inbound[9080].mtls, after.trust) == (MtlsMode.STRICT, trust)


def test_trust_changes_as_a_whole() -> None:
    server = Server()
    one, two = TrustBundles({"td": (b"1",)}), TrustBundles({"td": (b"1", b"2")})
    first = server.receive((SECRET, TRUST_BUNDLE, held(one)))
    assert first.trust is one
    assert server.receive((SECRET, TRUST_BUNDLE, held(TrustBundles({"td": (b"1",)})))) is first
    assert server.receive((SECRET, TRUST_BUNDLE, held(two))).trust is two


def test_a_host_whose_listener_is_that_of_outside_hosts_is_none_of_the_mesh_any_more() -> None:
    """Unlike one that is merely gone, which is kept."""
    outside = RouteConfig(VIRTUAL_OUTBOUND, (VirtualHost("block_all", ("*",), ()),))
    control = Control()
    control.receive(
        (LISTENER, AUTHORITY, held(Listener(AUTHORITY, route_config=routing("c")))),
        (CLUSTER, "c", held(Cluster("c", Discovery.STATIC))),
    )
    assert AUTHORITY in control.joined.snapshot.targets
    snapshot = control.receive((LISTENER, AUTHORITY, held(Listener(AUTHORITY, route_config=outside))))
    assert AUTHORITY not in snapshot.targets
    assert "Sidecar" in snapshot.absent[AUTHORITY]
    assert AUTHORITY in control.joined.wanted[LISTENER]  # it may come back
