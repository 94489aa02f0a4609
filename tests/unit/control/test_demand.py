"""Only services that somebody needs are asked for."""

from __future__ import annotations

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
