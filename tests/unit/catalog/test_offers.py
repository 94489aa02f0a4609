"""Offers of several sources become services."""

from __future__ import annotations

import pytest

from meshlib_control.catalog.leases import Deregister, LeaseTable, Register, Registration, Renew, step
from meshlib_control.catalog.model import Instance, InstanceHealth, Port, Service
from meshlib_control.catalog.offers import Merged, Offer, RegistryOffers, merge, service_ports

HOST = "reviews.default.svc.cluster.local"


def offer(number: int, port: int = 9080, **more: object) -> Offer:
    fields: dict[str, object] = {"instance": Instance(f"i{number}", f"10.0.0.{number}", port)}
    return Offer(HOST, "default", **{**fields, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("offers", "ports"),
    [
        ([(9080, 0, "http")], (Port(80), Port(9080))),
        ([(9080, 0, "http"), (9080, 0, "http")], (Port(80), Port(9080))),
        ([(9080, 0, "http"), (9081, 0, "http")], (Port(80),)),
        ([(9080, 8000, "http"), (9081, 0, "http")], (Port(8000),)),
        ([(9080, 8000, "http"), (9080, 8001, "grpc")], (Port(8000), Port(8001, "grpc"), Port(9080, "grpc"))),
        ([(80, 0, "http")], (Port(80),)),
        ([(9080, 80, "grpc"), (9081, 80, "grpc"), (9082, 80, "http")], (Port(80, "grpc"),)),
        ([(50051, 50051, "grpc")], (Port(50051, "grpc"),)),
    ],
    ids=["one", "all on one port", "different ports", "explicit", "two explicit", "80 itself", "majority", "same"],
)
def test_ports(offers: list[tuple[int, int, str]], ports: tuple[Port, ...]) -> None:
    made = [offer(n, port, service_port=named, protocol=protocol) for n, (port, named, protocol) in enumerate(offers, 1)]
    assert service_ports(made) == ports
    assert service_ports(reversed(made)) == ports, "whatever the order"
    assert all(port.target == 0 for port in ports)


def test_two_sources_make_one_service() -> None:
    merged = merge([offer(2), offer(1, source="consul")], {}, before=Merged())
    assert [each.id for each in merged.instances[HOST]] == ["i1", "i2"]
    assert merged.services[HOST].source == "registry"


def test_of_two_offers_of_one_address_the_registration_counts() -> None:
    registered = offer(1)
    reflected = offer(1, source="consul", instance=Instance("consul:n/i1", "10.0.0.1", 9080))
    for order in ([registered, reflected], [reflected, registered]):
        assert [each.id for each in merge(order, {}, before=Merged()).instances[HOST]] == ["i1"]


def test_known_services_stay_without_instances() -> None:
    known = Service("other.default.svc.cluster.local", "default", (Port(80),), source="consul")
    merged = merge([offer(1)], {known.host: known}, before=Merged())
    assert merged.services[known.host] == known
    assert known.host not in merged.instances


def test_host_names_as_addresses_make_a_dns_service() -> None:
    named = offer(1, instance=Instance("i1", "db.example", 5432))
    assert merge([named], {}, before=Merged()).services[HOST].resolution == "DNS"
    assert merge([offer(1)], {}, before=Merged()).services[HOST].resolution == "STATIC"
    literal = offer(1, instance=Instance("i1", "2001:db8::1", 80))
    assert merge([literal], {}, before=Merged()).services[HOST].resolution == "STATIC"


def test_what_did_not_change_stays_the_same_object() -> None:
    offers = [offer(1), offer(2)]
    first = merge(offers, {}, before=Merged())
    again = merge(offers, {}, before=first)
    assert again.instances[HOST] is first.instances[HOST]
    assert again.services[HOST] is first.services[HOST]
    assert merge([*offers, offer(3)], {}, before=first).instances[HOST] is not first.instances[HOST]


def test_registrations_become_offers() -> None:
    registration = Registration(
        "r1",
        "reviews",
        "10.0.0.1",
        9080,
        namespace="shop",
        service_port=8080,
        protocol="http2",
        labels={"version": "v2"},
        locality="eu/a",
        weight=3,
        service_account="sa",
    )
    table = step(step(LeaseTable("me"), Register(registration), 0.0), Renew("r1", ready=False), 1.0)
    (made,) = RegistryOffers("cluster.local").of(table)
    assert (made.host, made.namespace, made.service_port, made.protocol) == (
        "reviews.shop.svc.cluster.local",
        "shop",
        8080,
        "http2",
    )
    assert made.instance == Instance("r1", "10.0.0.1", 9080, {"version": "v2"}, "eu/a", 3, InstanceHealth.UNHEALTHY, "sa")


def test_a_service_whose_instances_all_left_is_remembered() -> None:
    offers = RegistryOffers("cluster.local")
    table = step(LeaseTable("me"), Register(Registration("r1", "reviews", "10.0.0.1", 9080)), 0.0)
    assert offers.of(table)
    assert offers.known(table) == {}
    table = step(table, Deregister("r1"), 1.0)
    assert offers.of(table) == []
    assert offers.known(table)[HOST].ports == (Port(80), Port(9080))
