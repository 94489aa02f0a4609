"""The catalog over a real Consul, in both directions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest

from meshlib_control.catalog.catalog import Catalog
from meshlib_control.catalog.consul import ConsulCatalog
from meshlib_control.catalog.consul_mirror import ConsulMirror
from meshlib_control.catalog.guard import GuardRules
from meshlib_control.catalog.leases import Registration
from meshlib_control.catalog.model import Instance, InstanceHealth, Port
from meshlib_control.catalog.registrations import Registrations
from meshlib_control.consul.address import parse_consul_url
from meshlib_control.consul.blocking import BlockingRules
from meshlib_control.consul.client import ConsulClient
from meshlib_control.store.memory import MemoryStore
from meshlib_control.store.model import Store
from meshlib_control.store.open import open_store
from tests.support.consul import ConsulAgent
from tests.support.polling import eventually

FAST = BlockingRules(interval=0.02, interval_max=0.2, retry_min=0.05, retry_max=0.2, wait=5.0)
pytestmark = pytest.mark.consul


class Mesh:
    """A control service's catalog and its mirror, over one agent."""

    def __init__(self, agent: ConsulAgent, store: Store, guard: GuardRules) -> None:
        self.client = ConsulClient(parse_consul_url(agent.url()))
        self.registrations = Registrations(store, tick=0.05)
        self.catalog = Catalog(self.registrations, ConsulCatalog(self.client, storage=store, rules=FAST), rules=guard)
        self.mirror = ConsulMirror(self.client, self.registrations, ttl=5.0, interval=0.2)

    def instances(self, host: str) -> list[Instance]:
        return list(self.catalog.snapshot.instances.get(host, ()))


@asynccontextmanager
async def running(agent: ConsulAgent, store: Store | None = None, *, hold: float = 0.0) -> AsyncIterator[Mesh]:
    opened = store or MemoryStore()
    mesh = Mesh(agent, opened, GuardRules(hold_empty=hold, hold_shrink=hold))
    await mesh.catalog.start()
    await mesh.mirror.start()
    try:
        yield mesh
    finally:
        await mesh.mirror.close()
        await mesh.catalog.close()
        await mesh.client.close()
        if store is None:
            await opened.close()


@pytest.fixture
def name() -> str:
    """A service name that no other test uses: they share the agent."""
    return f"svc-{uuid4().hex[:12]}"


def host(name: str, namespace: str = "default") -> str:
    return f"{name}.{namespace}.svc.cluster.local"


def healthy(agent: ConsulAgent, name: str) -> list[dict[str, Any]]:
    return list(agent.request("GET", f"/v1/health/service/{name}?passing")[1])


async def test_what_others_registered_appears_with_all_that_consul_knows(consul_agent: ConsulAgent, name: str) -> None:
    async with running(consul_agent) as mesh:
        mesh.catalog.want([host(name, "shop")])
        meta = {"namespace": "shop", "region": "eu", "zone": "a", "service-port": "8080", "service-account": "sa"}
        weights = {"Passing": 7, "Warning": 2}
        consul_agent.register(name, 9080, Tags=["version=v2", "canary"], Meta=meta, Weights=weights)
        await eventually(lambda: mesh.instances(host(name, "shop")))
        (instance,) = mesh.instances(host(name, "shop"))
        assert instance == Instance(
            id=f"consul:loopback/{name}-9080",
            address="127.0.0.1",
            port=9080,
            labels={"version": "v2"},
            locality="eu/a",
            weight=7,
            service_account="sa",
        )
        service = mesh.catalog.snapshot.services[host(name, "shop")]
        assert (service.namespace, service.ports, service.source) == ("shop", (Port(8080), Port(9080)), "consul")


async def test_instances_say_in_which_namespace_a_listed_service_is(consul_agent: ConsulAgent, name: str) -> None:
    """Consul lists names and tags; what the instances' meta says corrects the guess, and nothing of it is left."""
    async with running(consul_agent) as mesh:
        consul_agent.register(name, 9080, Meta={"namespace": "shop"})
        await eventually(lambda: host(name) in mesh.catalog.snapshot.services)
        mesh.catalog.want([host(name, "shop")])
        await eventually(lambda: mesh.instances(host(name, "shop")))
        await eventually(lambda: host(name) not in mesh.catalog.snapshot.services)


async def test_health_weight_and_maintenance_follow_the_checks(consul_agent: ConsulAgent, name: str) -> None:
    async with running(consul_agent) as mesh:
        mesh.catalog.want([host(name)])
        weights = {"Passing": 10, "Warning": 3}
        check = {"CheckID": f"{name}-check", "TTL": "1h", "Status": "passing"}
        consul_agent.register(name, 9080, Weights=weights, Check=check)

        def state() -> list[tuple[InstanceHealth, int]]:
            return [(instance.health, instance.weight) for instance in mesh.instances(host(name))]

        await eventually(lambda: state() == [(InstanceHealth.HEALTHY, 10)])
        consul_agent.request("PUT", f"/v1/agent/check/warn/{name}-check")
        await eventually(lambda: state() == [(InstanceHealth.HEALTHY, 3)])
        consul_agent.request("PUT", f"/v1/agent/check/fail/{name}-check")
        await eventually(lambda: state() == [(InstanceHealth.UNHEALTHY, 10)])
        consul_agent.request("PUT", f"/v1/agent/service/maintenance/{name}-9080?enable=true")
        await eventually(lambda: state() == [(InstanceHealth.DRAINING, 10)])


async def test_instances_come_and_go(consul_agent: ConsulAgent, name: str) -> None:
    async with running(consul_agent) as mesh:
        mesh.catalog.want([host(name)])
        ids = [consul_agent.register(name, port) for port in (9001, 9002)]
        await eventually(lambda: [each.port for each in mesh.instances(host(name))] == [9001, 9002])
        consul_agent.deregister(ids[0])
        await eventually(lambda: [each.port for each in mesh.instances(host(name))] == [9002])


async def test_a_registered_process_is_seen_by_the_users_of_consul_once(consul_agent: ConsulAgent, name: str) -> None:
    async with running(consul_agent, hold=3600.0) as mesh:
        mesh.catalog.want([host(name)])
        registration = Registration(f"{name}/1 ü", name, "127.0.0.1", 9080, labels={"version": "v1"}, weight=4)
        await mesh.registrations.register(registration)
        await eventually(lambda: healthy(consul_agent, name))
        (entry,) = healthy(consul_agent, name)
        service = entry["Service"]
        assert (service["Service"], service["Address"], service["Port"]) == (name, "127.0.0.1", 9080)
        assert (service["Tags"], service["Weights"]["Passing"]) == (["version=v1"], 4)
        consul_agent.register(name, 9081)
        await eventually(lambda: len(mesh.instances(host(name))) == 2)
        assert {each.id for each in mesh.instances(host(name))} == {f"{name}/1 ü", f"consul:loopback/{name}-9081"}
        await mesh.registrations.deregister(f"{name}/1 ü")
        await eventually(lambda: len(mesh.instances(host(name))) == 1)
        await eventually(lambda: [each["Service"]["Port"] for each in healthy(consul_agent, name)] == [9081])
        assert mesh.catalog.snapshot.suspicious == {}


async def test_a_process_that_wants_no_calls_is_critical_in_consul(consul_agent: ConsulAgent, name: str) -> None:
    async with running(consul_agent) as mesh:
        await mesh.registrations.register(Registration(name, name, "127.0.0.1", 9080))
        await eventually(lambda: len(healthy(consul_agent, name)) == 1)
        await mesh.registrations.renew(name, ready=False)
        await eventually(lambda: healthy(consul_agent, name) == [])
        await mesh.registrations.renew(name, ready=True)
        await eventually(lambda: len(healthy(consul_agent, name)) == 1)


async def test_what_consul_forgot_is_shown_again(consul_agent: ConsulAgent, name: str) -> None:
    """The check's update gets 404 or 500: the service is registered anew."""
    async with running(consul_agent) as mesh:
        await mesh.registrations.register(Registration(name, name, "127.0.0.1", 9080))
        await eventually(lambda: len(healthy(consul_agent, name)) == 1)
        consul_agent.deregister(f"meshlib-{name}")
        assert healthy(consul_agent, name) == []
        await eventually(lambda: len(healthy(consul_agent, name)) == 1)


async def test_a_consul_that_restarts_empty_is_filled_again_and_empties_nothing(own_consul: ConsulAgent, name: str) -> None:
    """F11 with a real agent; the store, too, is Consul's."""
    store = open_store(own_consul.url("f11"))
    async with running(own_consul, store, hold=3600.0) as mesh:
        mesh.catalog.want([host(name)])
        own_consul.register(name, 9081)
        await mesh.registrations.register(Registration(name, name, "127.0.0.1", 9080))
        await eventually(lambda: len(mesh.instances(host(name))) == 2)
        own_consul.restart()
        await eventually(lambda: len(healthy(own_consul, name)) == 1)
        assert len(mesh.instances(host(name))) == 2
        own_consul.register(name, 9081)
        await eventually(lambda: len(healthy(own_consul, name)) == 2)
        await eventually(lambda: mesh.registrations.unwritten == frozenset())
        await mesh.registrations.renew(name)
        assert len(mesh.instances(host(name))) == 2
    await store.close()


async def test_replicas_over_one_consul_have_the_same_catalog(consul_agent: ConsulAgent, name: str) -> None:
    stores = [open_store(consul_agent.url(f"shared-{name}")) for _ in range(2)]
    async with running(consul_agent, stores[0]) as one, running(consul_agent, stores[1]) as two:
        for mesh in (one, two):
            mesh.catalog.want([host(name)])
        consul_agent.register(name, 9081)
        await one.registrations.register(Registration(f"{name}-1", name, "127.0.0.1", 9080))
        await two.registrations.register(Registration(f"{name}-2", name, "127.0.0.1", 9082))
        await eventually(lambda: len(one.instances(host(name))) == len(two.instances(host(name))) == 3)
        # What arrives first by way of Consul is replaced by the registration itself.
        await eventually(lambda: one.instances(host(name)) == two.instances(host(name)))
        await two.registrations.deregister(f"{name}-1")
        await eventually(lambda: len(one.instances(host(name))) == len(two.instances(host(name))) == 2)
        await eventually(lambda: one.instances(host(name)) == two.instances(host(name)))
    for store in stores:
        await store.close()
