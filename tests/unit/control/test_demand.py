"""Only services that somebody needs are asked for."""

from __future__ import annotations

import pytest

from meshlib.xds.types import CLUSTER, ENDPOINTS, LISTENER
from meshlib_control.catalog.model import CatalogSnapshot, Port, Service
from meshlib_control.compile import Node, World
from meshlib_control.config import ConfigSet
from meshlib_control.demand import DemandingCompiler
from tests.unit.admin.support import SUBSETS, from_file, virtual_service


def host(name: str) -> str:
    return f"{name}.default.svc.cluster.local"


def catalog(*names: str) -> CatalogSnapshot:
    return CatalogSnapshot(services={host(name): Service(host(name), "default", (Port(80),)) for name in names})


class Wanted:
    """What was wanted, each time that it changed."""

    def __init__(self, *names: str, config: ConfigSet | None = None) -> None:
        self.calls: list[frozenset[str]] = []
        self.compiler = DemandingCompiler(self.calls.append)
        self.world = World.of(config or ConfigSet(), catalog(*names))
        self.scope = self.compiler.scope_of(self.world, Node())

    def ask(self, type_url: str, *names: str) -> None:
        self.compiler.generate(self.world, self.scope, type_url, frozenset(names))


def test_asking_for_a_listener_by_any_name_wants_its_service() -> None:
    wanted = Wanted("reviews", "ratings")
    wanted.ask(LISTENER, "reviews:80", "example.com:443")
    assert wanted.calls == [{host("reviews")}]
    wanted.ask(LISTENER, "reviews.default.svc.cluster.local:80")
    assert len(wanted.calls) == 1, "nothing new, nothing said"


def consul(name: str, namespace: str = "default", *, instances: bool = False) -> CatalogSnapshot:
    """A service in Consul's list of names; `instances`: Consul was asked for it, and has none."""
    where = f"{name}.{namespace}.svc.cluster.local"
    services = {where: Service(where, namespace, (Port(80),), source="consul")}
    return CatalogSnapshot(services=services, instances={where: ()} if instances else {})


def test_a_listed_service_is_wanted_in_whatever_namespace_it_is_called() -> None:
    """A list of names says nothing of namespaces: those are written at the instances."""
    wanted = Wanted()
    wanted.world = World.of(ConfigSet(), consul("pay"))
    wanted.ask(LISTENER, "pay.shop:80", "other.shop:80", "pay.example.com:80", "pay.io:nonsense")
    assert wanted.calls == [{"pay.shop.svc.cluster.local"}]


def test_configuration_wants_listed_services_of_other_namespaces_too() -> None:
    wanted = Wanted(config=ConfigSet(from_file(virtual_service(host="pay", namespace="shop"))))
    world = World.of(wanted.world.routing.config, consul("pay"))
    wanted.compiler.configured(world)
    assert wanted.calls == [{"pay.shop.svc.cluster.local"}]


@pytest.mark.parametrize("name", ["pay:80", "pay:9080", "pay.shop:80", "outbound|80||pay.default.svc.cluster.local"])
def test_who_asks_for_what_consul_was_not_asked_for_yet_waits(name: str) -> None:
    """Its ports and its namespace are unknown until then, so "there is none" would be a guess."""
    compiler, scope = DemandingCompiler(lambda hosts: None), Wanted().scope
    assert compiler.is_pending(World.of(ConfigSet(), consul("pay")), scope, name)
    assert not compiler.is_pending(World.of(ConfigSet(), consul("pay", instances=True)), scope, name)
    assert not compiler.is_pending(World.of(ConfigSet(), consul("other")), scope, name)


def test_asking_for_clusters_and_endpoints_wants_their_hosts() -> None:
    wanted = Wanted("reviews", "ratings")
    wanted.ask(CLUSTER, f"outbound|80||{host('reviews')}")
    wanted.ask(ENDPOINTS, f"outbound|80|v1|{host('ratings')}", "nonsense")
    assert wanted.calls[-1] == {host("reviews"), host("ratings")}


def test_asking_for_everything_wants_all_that_is_visible() -> None:
    wanted = Wanted("reviews", "ratings")
    wanted.compiler.generate(wanted.world, wanted.scope, CLUSTER, None)
    assert wanted.calls == [{host("reviews"), host("ratings")}]


def test_what_configuration_names_is_wanted_as_long_as_it_does() -> None:
    config = ConfigSet([*from_file(SUBSETS), *from_file(virtual_service(host="ratings"))])
    wanted = Wanted("reviews", "ratings", "details", config=config)
    wanted.compiler.configured(wanted.world)
    assert wanted.calls == [{host("reviews"), host("ratings")}]
    wanted.compiler.configured(World.of(ConfigSet(), catalog("reviews")))
    assert wanted.calls[-1] == frozenset()
