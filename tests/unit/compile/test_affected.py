"""What changed between two worlds."""

from __future__ import annotations

from dataclasses import replace

from meshlib_control.catalog.model import Instance, InstanceHealth, Port, Service
from meshlib_control.compile import Affected, World, affected
from tests.support.configuring import catalog, config_set

RULES = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: default}
spec: {host: a.test, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: other}
spec: {host: "*.test", subsets: [{name: v9, labels: {version: v9}}]}
"""
CONFIG = config_set(RULES)
SERVICES = [Service(host, "default", (Port(80), Port(81))) for host in ("a.test", "b.test")]
ONE = Instance("1", "10.0.0.1", 80)
OLD = World.of(CONFIG, catalog(SERVICES, {"a.test": (ONE,), "b.test": (ONE,)}))


def after(instances: dict[str, tuple[Instance, ...]]) -> Affected:
    return affected(OLD, World.of(CONFIG, catalog(SERVICES, instances), previous=OLD))


def test_nothing() -> None:
    assert not affected(OLD, OLD)
    assert not after(dict(OLD.instances))


def test_equal_instances_in_new_tuples_are_no_change() -> None:
    assert not after({"a.test": (replace(ONE),), "b.test": (replace(ONE),)})


def test_endpoint_change_names_the_clusters_of_that_host_for_every_scope() -> None:
    changed = after({"a.test": (replace(ONE, health=InstanceHealth.DRAINING),), "b.test": (ONE,)})
    assert not changed.everything
    assert changed.endpoint_clusters == {f"outbound|{port}|{subset}|a.test" for port in (80, 81) for subset in ("", "v1", "v9")}


def test_instances_that_appear_and_vanish() -> None:
    assert "outbound|80||a.test" in after({"b.test": (ONE,)}).endpoint_clusters
    assert "outbound|80||b.test" in after({"a.test": (ONE,), "b.test": (ONE, replace(ONE, id="2"))}).endpoint_clusters


def test_instances_of_a_host_that_is_no_service_concern_nobody() -> None:
    assert not after({**OLD.instances, "unknown.test": (ONE,)})


def test_configuration_or_services_may_change_everything() -> None:
    same = catalog(SERVICES, dict(OLD.instances))
    assert affected(OLD, World.of(config_set(RULES), same, previous=OLD)).everything
    fewer = catalog(SERVICES[:1], dict(OLD.instances))
    assert affected(OLD, World.of(CONFIG, fewer, previous=OLD)).everything


def test_names_to_resolve_are_part_of_the_cluster() -> None:
    dns = [Service("d.test", "default", (Port(80),), resolution="DNS")]
    old = World.of(CONFIG, catalog(dns, {"d.test": (Instance("1", "x.test", 80),)}))
    new = World.of(CONFIG, catalog(dns, {"d.test": (Instance("1", "y.test", 80),)}), previous=old)
    assert affected(old, new).everything


def test_worlds_share_what_did_not_change() -> None:
    equal_services = [replace(service) for service in SERVICES]
    assert World.of(CONFIG, catalog(equal_services), previous=OLD).routing is OLD.routing
    assert World.of(CONFIG, catalog(SERVICES), previous=OLD, domain="other.local").routing is not OLD.routing
