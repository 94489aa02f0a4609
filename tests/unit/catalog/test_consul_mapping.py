"""Consul's words and the mesh's, as tables."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib_control.catalog.consul_mapping import agent_service, hosts_of, offers_of
from meshlib_control.catalog.leases import Registration
from meshlib_control.catalog.model import InstanceHealth
from meshlib_control.catalog.offers import Offer

DOMAIN = "cluster.local"


def entry(node: dict[str, Any] | None = None, checks: list[dict[str, Any]] | None = None, **service: Any) -> dict[str, Any]:
    return {
        "Node": {"Node": "n1", "Address": "10.0.0.9", "Datacenter": "dc1", "Meta": {}, **(node or {})},
        "Service": {"ID": "r1", "Service": "reviews", "Address": "10.0.0.1", "Port": 9080, **service},
        "Checks": checks or [],
    }


def one(found: dict[str, Any]) -> Offer:
    (offer,), problems = offers_of([found], DOMAIN)
    assert problems == []
    return offer


def test_a_plain_service() -> None:
    offer = one(entry())
    assert (offer.host, offer.namespace, offer.service_port, offer.protocol) == (
        "reviews.default.svc.cluster.local",
        "default",
        0,
        "http",
    )
    assert (offer.instance.id, offer.instance.address, offer.instance.port) == ("consul:n1/r1", "10.0.0.1", 9080)
    assert (offer.instance.weight, offer.instance.health) == (1, InstanceHealth.HEALTHY)
    assert (offer.source, offer.registered_as) == ("consul", "")


def test_the_address_is_the_nodes_when_the_service_has_none() -> None:
    assert one(entry(Address="")).instance.address == "10.0.0.9"


@pytest.mark.parametrize(
    ("tags", "meta", "labels"),
    [
        (["version=v2", "canary", "urlprefix-/x"], {}, {"version": "v2"}),
        ([], {"version": "v2"}, {"version": "v2"}),
        (["version=v1", "team=a"], {"version": "v2"}, {"version": "v2", "team": "a"}),
        (["app.kubernetes.io/name=x=y"], {}, {"app.kubernetes.io/name": "x=y"}),
        (["=x", "namespace=a", "protocol=grpc"], {"region": "eu", "service-port": "80", "service-account": "sa"}, {}),
        (None, None, {}),
    ],
)
def test_labels(tags: list[str] | None, meta: dict[str, str] | None, labels: dict[str, str]) -> None:
    assert one(entry(Tags=tags, Meta=meta)).instance.labels == labels


@pytest.mark.parametrize(
    ("tags", "meta", "namespace"),
    [
        ([], {"namespace": "Shop"}, "shop"),
        (["namespace=shop"], {}, "shop"),
        (["namespace=a"], {"namespace": "b"}, "b"),
        ([], {}, "default"),
    ],
)
def test_namespace(tags: list[str], meta: dict[str, str], namespace: str) -> None:
    offer = one(entry(Tags=tags, Meta=meta))
    assert (offer.namespace, offer.host) == (namespace, f"reviews.{namespace}.svc.cluster.local")


@pytest.mark.parametrize(
    ("found", "locality"),
    [
        (entry(), "dc1"),
        (entry(Meta={"region": "eu", "zone": "a", "sub_zone": "r7"}), "eu/a/r7"),
        (entry(Meta={"region": "eu", "sub_zone": "r7"}), "eu//r7"),
        (entry(Meta={"locality": "eu/a/r7"}), "eu/a/r7"),
        (entry(Tags=["locality=eu/a"]), "eu/a"),
        (entry(Tags=["locality=eu/a"], Meta={"locality": "us", "zone": "b"}), "us/b"),
        (entry(node={"Meta": {"region": "us", "zone": "b"}}), "us/b"),
        (entry(node={"Meta": {"region": "us"}}, Meta={"region": "eu"}), "eu"),
        (entry(Locality={"Region": "ap", "Zone": "c"}), "ap/c"),
        (entry(node={"Datacenter": ""}), ""),
    ],
)
def test_locality(found: dict[str, Any], locality: str) -> None:
    assert one(found).instance.locality == locality


@pytest.mark.parametrize("found", [entry(Meta={"weight": "7"}), entry(Tags=["weight=7"], Weights={"Passing": 2})])
def test_a_weight_that_is_written_at_the_service_goes_before_consuls(found: dict[str, Any]) -> None:
    assert (one(found).instance.weight, one(found).instance.labels) == (7, {})


def check(status: str, check_id: str = "service:r1") -> dict[str, Any]:
    return {"CheckID": check_id, "Status": status}


@pytest.mark.parametrize(
    ("checks", "health"),
    [
        ([], InstanceHealth.HEALTHY),
        ([check("passing")], InstanceHealth.HEALTHY),
        ([check("passing"), check("warning")], InstanceHealth.HEALTHY),
        ([check("passing"), check("critical")], InstanceHealth.UNHEALTHY),
        ([check("warning"), check("critical", "serfHealth")], InstanceHealth.UNHEALTHY),
        ([check("something new")], InstanceHealth.UNHEALTHY),
        ([check("passing"), check("critical", "_node_maintenance")], InstanceHealth.DRAINING),
        ([check("critical"), check("critical", "_service_maintenance:r1")], InstanceHealth.DRAINING),
    ],
)
def test_health(checks: list[dict[str, Any]], health: InstanceHealth) -> None:
    assert one(entry(checks=checks)).instance.health is health


@pytest.mark.parametrize(
    ("weights", "status", "weight", "health"),
    [
        ({"Passing": 10, "Warning": 2}, "passing", 10, InstanceHealth.HEALTHY),
        ({"Passing": 10, "Warning": 2}, "warning", 2, InstanceHealth.HEALTHY),
        ({"Passing": 10, "Warning": 0}, "warning", 1, InstanceHealth.UNHEALTHY),
        ({"Passing": 0}, "passing", 1, InstanceHealth.UNHEALTHY),
        ({}, "passing", 1, InstanceHealth.HEALTHY),
    ],
)
def test_weight(weights: dict[str, int], status: str, weight: int, health: InstanceHealth) -> None:
    instance = one(entry(checks=[check(status)], Weights=weights)).instance
    assert (instance.weight, instance.health) == (weight, health)


def test_port_protocol_and_account() -> None:
    offer = one(entry(Meta={"service-port": "8080", "protocol": "GRPC", "service-account": "sa"}))
    assert (offer.service_port, offer.protocol, offer.instance.service_account) == (8080, "grpc", "sa")
    assert one(entry(Tags=["protocol=http2"])).protocol == "http2"


@pytest.mark.parametrize("found", [entry(Port=0), entry(Kind="connect-proxy"), entry(Kind="mesh-gateway")])
def test_what_no_caller_can_use_is_passed_over(found: dict[str, Any]) -> None:
    assert offers_of([found], DOMAIN) == ([], [])


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ({}, "Node"),
        (entry(Service="re.views"), "no DNS label"),
        (entry(Meta={"namespace": "a b"}), "no DNS label"),
        (entry(Meta={"service-port": "x"}), "invalid literal"),
        (entry(Meta={"service-port": "70000"}), "no port"),
        (entry(Port="http"), "invalid literal"),
        ({"Node": None, "Service": None}, "NoneType"),
    ],
)
def test_one_bad_entry_is_reported_and_hides_no_other(found: dict[str, Any], problem: str) -> None:
    offers, (line,) = offers_of([found, entry()], DOMAIN)
    assert [offer.instance.id for offer in offers] == ["consul:n1/r1"]
    assert problem in line


@pytest.mark.parametrize(
    ("name", "tags", "hosts"),
    [
        ("reviews", [], [("reviews.default.svc.cluster.local", "default")]),
        ("Reviews", ["v1"], [("reviews.default.svc.cluster.local", "default")]),
        (
            "reviews",
            ["namespace=b", "namespace=a"],
            [("reviews.a.svc.cluster.local", "a"), ("reviews.b.svc.cluster.local", "b")],
        ),
        ("re_views", [], []),
    ],
)
def test_hosts_of_a_name(name: str, tags: list[str], hosts: list[tuple[str, str]]) -> None:
    assert hosts_of(name, tags, DOMAIN) == hosts


REGISTRATION = Registration(
    "r/1 ä",
    "reviews",
    "10.0.0.1",
    9080,
    namespace="shop",
    service_port=8080,
    protocol="grpc",
    labels={"version": "v2", "app.kubernetes.io/name": "reviews"},
    locality="eu/a/r7",
    weight=5,
    service_account="sa",
)


def test_what_is_shown_in_consul_reads_back_as_it_was_registered() -> None:
    shown = agent_service("r/1 ä", REGISTRATION, ttl=30.0, deregister_after=60.0)
    weights = {"Passing": shown.weight, "Warning": shown.weight}
    found = entry(ID=shown.id, Service=shown.name, Address=shown.address, Port=shown.port, Tags=list(shown.tags))
    found["Service"].update(Meta=dict(shown.meta), Weights=weights)
    offer = one(found)
    assert offer.registered_as == "r/1 ä"
    assert (offer.host, offer.service_port, offer.protocol) == ("reviews.shop.svc.cluster.local", 8080, "grpc")
    instance = offer.instance
    assert (instance.labels, instance.locality) == (REGISTRATION.labels, "eu/a/r7")
    assert (instance.weight, instance.service_account) == (5, "sa")
