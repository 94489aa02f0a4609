"""Istio's own samples do what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshlib.model.cluster import LbPolicy
from meshlib.model.route import Forward, Route
from meshlib.model.snapshot import Target
from meshlib_control.catalog.model import Instance, Port
from meshlib_control.compile import Node, World
from tests.support.configuring import registered, world
from tests.unit.compile.test_flavours import snapshot

SAMPLES = Path(__file__).parents[4] / "shared" / "corpora" / "bookinfo"
VERSIONS = {"productpage": ["v1"], "details": ["v1", "v2"], "reviews": ["v1", "v2", "v3"], "ratings": ["v1", "v2"]}

pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason="Istio's samples are not beside this checkout")


def bookinfo(*names: str) -> World:
    services = [
        registered(
            name,
            *(
                Instance(f"{name}-{version}", f"10.{index}.0.{number}", 9080, labels={"app": name, "version": version})
                for number, version in enumerate(versions, 1)
            ),
            ports=(Port(9080, name="http"),),
        )
        for index, (name, versions) in enumerate(VERSIONS.items())
    ]
    return world(*((SAMPLES / f"{name}.yaml").read_text() for name in names), services=services)


def target(built: World, name: str) -> Target:
    authority = f"{name}:9080"
    return snapshot(built, [authority], Node(service="productpage")).targets[authority]


def subsets(route: Route) -> list[str]:
    assert isinstance(route.action, Forward)
    return [share.name.split("|")[2] for share in route.action.clusters]


def test_without_rules_every_version_answers() -> None:
    found = target(bookinfo(), "reviews")
    (config,) = found.clusters.values()
    assert len(config.endpoints) == 3


def test_all_of_reviews_goes_to_v3() -> None:
    found = target(bookinfo("destination-rule-all", "virtual-service-reviews-v3"), "reviews")
    (route,) = found.virtual_host.routes
    assert subsets(route) == ["v3"]
    (config,) = found.clusters.values()
    assert [endpoint.labels for endpoint in config.endpoints] == [(("app", "reviews"), ("version", "v3"))]


def test_jason_sees_v2() -> None:
    found = target(bookinfo("destination-rule-all", "virtual-service-reviews-test-v2"), "reviews")
    jason, rest = found.virtual_host.routes
    assert (subsets(jason), subsets(rest)) == (["v2"], ["v1"])
    (header,) = jason.match.headers
    assert (header.name, header.match and header.match.value) == ("end-user", "jason")
    assert rest.match.headers == ()


def test_details_v2() -> None:
    found = target(bookinfo("destination-rule-all", "virtual-service-details-v2"), "details")
    assert subsets(found.virtual_host.routes[0]) == ["v2"]


def test_subset_without_instances_is_a_cluster_without_endpoints() -> None:
    found = target(bookinfo("destination-rule-all", "virtual-service-ratings-mysql-vm"), "ratings")
    (config,) = found.clusters.values()
    assert (config.endpoints, config.error) == ((), "")


def test_subset_that_no_rule_defines_is_an_error_of_that_cluster() -> None:
    found = target(bookinfo("virtual-service-reviews-v3"), "reviews")
    (config,) = found.clusters.values()
    assert config.cluster is None
    assert "outbound|9080|v3|reviews.default.svc.cluster.local" in config.error


def test_reviews_are_balanced_at_random() -> None:
    found = target(bookinfo("destination-rule-reviews"), "reviews")
    (config,) = found.clusters.values()
    assert config.cluster is not None
    assert config.cluster.lb_policy is LbPolicy.RANDOM


def test_routes_of_a_gateway_are_not_for_workloads() -> None:
    found = target(bookinfo("bookinfo-gateway"), "productpage")
    assert [route.name for route in found.virtual_host.routes] == ["default"]
