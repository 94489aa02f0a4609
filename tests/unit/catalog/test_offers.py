"""Offers of several sources become services."""

from __future__ import annotations

import pytest

from meshlib_control.catalog.leases import Deregister, LeaseTable, Register, Registration, Renew, Tick, step
from meshlib_control.catalog.model import Instance, InstanceHealth, Port, Service
from meshlib_control.catalog.offers import Merged, Offer, RegistryIndex, grouped, merge, service_ports, without_reflections

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
    merged = merge([grouped([offer(2)]), grouped([offer(1, source="consul")])], {}, before=Merged())
    assert [each.id for each in merged.instances[HOST]] == ["i1", "i2"]
    assert merged.services[HOST].source == "registry"


def test_of_two_offers_of_one_address_the_registration_counts() -> None:
    registered = offer(1)
    reflected = offer(1, source="consul", instance=Instance("consul:n/i1", "10.0.0.1", 9080))
    for order in ([registered, reflected], [reflected, registered]):
        assert [each.id for each in merge([grouped([each]) for each in order], {}, before=Merged()).instances[HOST]] == ["i1"]


def test_known_services_stay_without_instances() -> None:
    known = Service("other.default.svc.cluster.local", "default", (Port(80),), source="consul")
    merged = merge([grouped([offer(1)])], {known.host: known}, before=Merged())
    assert merged.services[known.host] == known
    assert known.host not in merged.instances


def test_host_names_as_addresses_make_a_dns_service() -> None:
    named = offer(1, instance=Instance("i1", "db.example", 5432))
    assert merge([grouped([named])], {}, before=Merged()).services[HOST].resolution == "DNS"
    assert merge([grouped([offer(1)])], {}, before=Merged()).services[HOST].resolution == "STATIC"
    literal = offer(1, instance=Instance("i1", "2001:db8::1", 80))
    assert merge([grouped([literal])], {}, before=Merged()).services[HOST].resolution == "STATIC"


def test_what_did_not_change_stays_the_same_object() -> None:
    offers = [offer(1), offer(2)]
    first = merge([grouped(offers)], {}, before=Merged())
    again = merge([grouped(offers)], {}, before=first)
    assert again.instances[HOST] is first.instances[HOST]
    assert again.services[HOST] is first.services[HOST]
    assert merge([grouped([*offers, offer(3)])], {}, before=first).instances[HOST] is not first.instances[HOST]


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
    index = RegistryIndex("cluster.local")
    index.update(table)
    ((made,),) = index.offers.values()
    assert (made.host, made.namespace, made.service_port, made.protocol) == (
        "reviews.shop.svc.cluster.local",
        "shop",
        8080,
        "http2",
    )
    assert made.instance == Instance("r1", "10.0.0.1", 9080, {"version": "v2"}, "eu/a", 3, InstanceHealth.UNHEALTHY, "sa")


def registered(number: int) -> Register:
    return Register(Registration(f"r{number}", "reviews", f"10.0.0.{number}", 9080))


def test_the_index_of_a_table_follows_its_changes() -> None:
    index = RegistryIndex("cluster.local")
    table = step(step(LeaseTable("me"), registered(1), 0.0), registered(2), 0.0)
    index.update(table)
    assert [each.instance.id for each in index.offers[HOST]] == ["r1", "r2"]
    before = index.offers[HOST]
    index.update(step(table, Tick({"r1": 1.0}), 1.0))
    assert index.offers[HOST] is before, "a renewal is no change"
    table = step(table, Deregister("r1"), 1.0)
    index.update(table)
    assert [each.instance.id for each in index.offers[HOST]] == ["r2"]
    assert index.left == {"r1"}
    assert index.known == {}
    moved = Register(Registration("r2", "ratings", "10.0.0.2", 9080))
    index.update(step(table, moved, 2.0))
    assert list(index.offers) == ["ratings.default.svc.cluster.local"]


def test_a_service_whose_instances_all_left_is_remembered_with_its_ports() -> None:
    index = RegistryIndex("cluster.local")
    table = step(step(LeaseTable("me"), registered(1), 0.0), Deregister("r1"), 1.0)
    index.update(table)
    assert index.offers == {}
    assert index.known[HOST].ports == (Port(80), Port(9080))
    index.update(step(table, registered(2), 2.0))
    assert index.known == {}


def test_what_consul_only_reflects_is_left_out() -> None:
    reflection, other = offer(1, source="consul", registered_as="r1"), offer(2, source="consul", registered_as="elsewhere")
    found = grouped([reflection, other])
    assert without_reflections(found, {"r1"}) == {HOST: (other,)}
    assert without_reflections(found, {}) == found
