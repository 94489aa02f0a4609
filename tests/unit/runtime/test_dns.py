"""Names of DNS clusters, with a resolver and a clock of our own."""

from __future__ import annotations

from meshlib.model.cluster import Cluster, Discovery
from meshlib.model.endpoint import Endpoint
from meshlib.model.snapshot import ClusterConfig
from meshlib.runtime.dns import RETRY_INTERVAL, Resolver
from meshlib.testing import FakeClock


class Zone:
    """Names and their addresses; what is missing cannot be resolved."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.records: dict[str, list[str]] = {"db.example": ["10.0.0.2", "10.0.0.1"]}
        self.changes = 0
        self.resolver = Resolver(self.count, lookup=self.lookup, clock=self.clock)
        self.resolver.close()  # the test turns it by hand

    def count(self) -> None:
        self.changes += 1

    def lookup(self, host: str) -> list[str]:
        if host not in self.records:
            raise OSError("NXDOMAIN")
        return self.records[host]

    def keys(self, *addresses: str, refresh: float = 60.0) -> list[str]:
        endpoints = tuple(Endpoint(address, 5432) for address in addresses)
        config = ClusterConfig("c", Cluster("c", discovery=Discovery.DNS, dns_refresh=refresh), endpoints)
        return [endpoint.key for endpoint in self.resolver.expand(config).endpoints]


def test_a_name_becomes_its_addresses() -> None:
    zone = Zone()
    assert zone.keys("db.example", "10.9.9.9") == ["db.example:5432", "10.9.9.9:5432"]  # nobody waits
    zone.resolver.refresh_due()
    assert zone.changes == 1
    assert zone.keys("db.example", "10.9.9.9") == ["10.0.0.1:5432", "10.0.0.2:5432", "10.9.9.9:5432"]


def test_it_is_looked_up_again_when_it_is_due() -> None:
    zone = Zone()
    zone.keys("db.example")
    assert zone.resolver.refresh_due() == 60.0
    zone.records["db.example"] = ["10.0.0.3"]
    zone.clock.advance(59.0)
    zone.resolver.refresh_due()
    assert zone.changes == 1
    zone.clock.advance(1.0)
    zone.resolver.refresh_due()
    assert zone.keys("db.example") == ["10.0.0.3:5432"]


def test_a_name_that_fails_keeps_its_addresses() -> None:
    zone = Zone()
    zone.keys("db.example")
    zone.resolver.refresh_due()
    good = zone.keys("db.example")
    zone.records.clear()
    zone.clock.advance(60.0)
    assert zone.resolver.refresh_due() == RETRY_INTERVAL
    assert zone.keys("db.example") == good
    zone.records["db.example"] = []  # an empty answer is no answer
    zone.clock.advance(RETRY_INTERVAL)
    zone.resolver.refresh_due()
    assert zone.keys("db.example") == good


def test_names_that_nobody_needs_are_forgotten() -> None:
    zone = Zone()
    zone.keys("db.example")
    zone.resolver.refresh_due()
    zone.resolver.keep(set())
    assert zone.keys("db.example") == ["db.example:5432"]


def test_other_clusters_are_left_alone() -> None:
    zone = Zone()
    config = ClusterConfig("c", Cluster("c"), (Endpoint("10.0.0.1", 80),))
    assert zone.resolver.expand(config) is config
