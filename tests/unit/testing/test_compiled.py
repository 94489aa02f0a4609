"""Snapshots from resources that a function gives."""

from __future__ import annotations

from collections.abc import Collection

from meshlib.model.snapshot import Snapshot
from meshlib.testing import CompiledControl
from meshlib.xds.types import CLUSTER, LISTENER
from meshlib_control.catalog.model import CatalogSnapshot, Instance, Port, Service
from meshlib_control.compile import Node, World, generate, scope_of
from meshlib_control.config import ConfigSet

HOST = "ratings.default.svc.cluster.local"


class Source:
    """A world that changes, and what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self.broken: set[str] = set()
        self.place("10.0.0.1")

    def place(self, *addresses: str) -> None:
        services = {HOST: Service(HOST, "default", (Port(80),))}
        instances = {HOST: tuple(Instance(address, address, 80) for address in addresses)}
        self.world = World.of(ConfigSet(), CatalogSnapshot(services, instances))

    def __call__(self, type_url: str, names: Collection[str]) -> dict[str, bytes]:
        self.asked.append((type_url, tuple(names)))
        found = generate(self.world, scope_of(self.world, Node()), type_url, names)
        content = {name: message.SerializeToString(deterministic=True) for name, message in found.items()}
        return {name: b"\xff" if name in self.broken else value for name, value in content.items()}


def addresses(snapshot: Snapshot) -> set[str]:
    clusters = snapshot.targets["ratings:80"].clusters.values()
    return {endpoint.address for cluster in clusters for endpoint in cluster.endpoints}


def test_only_what_is_asked_for_is_compiled() -> None:
    source = Source()
    control = CompiledControl(source)
    assert not source.asked
    control.request("ratings:80")
    assert addresses(control.current) == {"10.0.0.1"}
    assert (LISTENER, ("ratings:80", "virtualOutbound")) in source.asked


def test_a_change_is_published_and_nothing_else_is() -> None:
    source = Source()
    control = CompiledControl(source)
    control.request("ratings:80")
    seen: list[Snapshot] = []
    control.listen(seen.append)
    control.refresh()
    assert len(seen) == 1  # the one that there was
    before = control.current.targets["ratings:80"].virtual_host
    source.place("10.0.0.1", "10.0.0.2")
    control.refresh()
    assert addresses(seen[-1]) == {"10.0.0.1", "10.0.0.2"}
    assert control.current.targets["ratings:80"].virtual_host is before


def test_what_is_not_there_is_outside_of_the_mesh() -> None:
    control = CompiledControl(Source())
    control.request("nobody:80")
    assert set(control.current.absent) == {"nobody:80"}


def test_what_is_not_understood_is_refused_and_the_last_good_one_stays() -> None:
    source = Source()
    control = CompiledControl(source)
    control.request("ratings:80")
    (name,) = control.current.targets["ratings:80"].clusters
    source.broken.add(name)
    control.refresh()
    assert set(control.refused) == {name}
    assert addresses(control.current) == {"10.0.0.1"}
    source.broken.clear()
    control.refresh()
    assert not control.refused
    assert any(type_url == CLUSTER for type_url, _ in source.asked)
