"""Two processes in two places on a real discovery service: each has the endpoints in its own order, and keeps it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

from meshlib.model.endpoint import Locality
from meshlib.model.snapshot import Snapshot
from meshlib.model.workload import Workload
from meshlib.policy.backoff import Backoff
from meshlib.runtime.ads import AdsStream
from meshlib.runtime.snapshots import SnapshotStore
from meshlib_control.catalog.model import Instance
from meshlib_control.compile import World
from meshlib_control.config.model import ConfigSet
from tests.support.configuring import INSECURE, catalog, config_set, registered
from tests.support.control_plane import DEADLINE, ControlPlane

RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: carts}
spec: {host: carts, trafficPolicy: {outlierDetection: {}}}
"""
CONFIG = config_set(RULE)
WITHOUT = config_set(RULE.replace("{outlierDetection: {}}", "{connectionPool: {tcp: {maxConnections: 9}}}"))
EAST, WEST = Instance("e", "10.0.0.1", 80, locality="r/east"), Instance("w", "10.0.0.2", 80, locality="r/west")


def state(*instances: Instance, config: ConfigSet = CONFIG, previous: World | None = None) -> World:
    service, by_host = registered("carts", *instances)
    return World.of(config, catalog([service], by_host), trust=INSECURE, previous=previous)


@contextmanager
def process(control: ControlPlane, locality: str) -> Iterator[AdsStream]:
    workload = Workload(service="web", instance=locality, locality=Locality.parse(locality))
    quick = Backoff(initial=0.05, cap=0.2)
    stream = AdsStream(control.address, workload, SnapshotStore(), rng=Random(1), backoff=quick, trust=False)
    try:
        stream.request("carts")
        yield stream
    finally:
        stream.close()


def order(snapshot: Snapshot) -> list[tuple[str, int]]:
    target = snapshot.targets.get("carts")
    configs = target.clusters.values() if target else ()
    found = [endpoint for config in configs for endpoint in config.endpoints]
    return [(endpoint.address, endpoint.priority) for endpoint in sorted(found, key=lambda item: (item.priority, item.address))]


def is_order(*expected: tuple[str, int]) -> Callable[[Snapshot], bool]:
    return lambda snapshot: order(snapshot) == list(expected)


def shows(stream: AdsStream, check: Callable[[Snapshot], bool]) -> None:
    assert stream.store.wait(lambda snapshot, _: check(snapshot), DEADLINE), order(stream.store.current)


def test_each_has_its_own_order_through_changes_of_endpoints_and_of_rules() -> None:
    both = state(EAST, WEST)
    with ControlPlane(both) as control, process(control, "r/east") as east, process(control, "r/west") as west:
        shows(east, is_order(("10.0.0.1", 0), ("10.0.0.2", 1)))
        shows(west, is_order(("10.0.0.2", 0), ("10.0.0.1", 1)))
        more = state(EAST, WEST, Instance("n", "10.0.0.3", 80, locality="r/west"), previous=both)
        control.publish(more)
        shows(east, is_order(("10.0.0.1", 0), ("10.0.0.2", 1), ("10.0.0.3", 1)))
        shows(west, is_order(("10.0.0.2", 0), ("10.0.0.3", 0), ("10.0.0.1", 1)))
        control.publish(state(EAST, WEST, config=WITHOUT))
        for stream in (east, west):
            shows(stream, is_order(("10.0.0.1", 0), ("10.0.0.2", 0)))
        control.publish(both)
        shows(west, is_order(("10.0.0.2", 0), ("10.0.0.1", 1)))
