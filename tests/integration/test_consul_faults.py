"""Consul misbehaves: F06, F07, F10, F11, F12 of the fault matrix, and what stands between us and it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

import pytest

from meshlib_control.catalog.catalog import Catalog
from meshlib_control.catalog.consul import ConsulCatalog
from meshlib_control.catalog.guard import GuardRules
from meshlib_control.catalog.registrations import Registrations
from meshlib_control.consul.address import parse_consul_url
from meshlib_control.consul.blocking import BlockingRules, Query
from meshlib_control.consul.client import ConsulClient
from meshlib_control.consul.errors import ConsulError
from meshlib_control.errors import StoreError
from meshlib_control.store.consul import ConsulStore
from meshlib_control.store.memory import MemoryStore
from meshlib_control.store.model import Entry
from tests.support.fake_consul import FakeConsul
from tests.support.polling import eventually

HOST = "reviews.default.svc.cluster.local"
# Times of production divided by 20, so that many rounds fit into a test.
FAST = BlockingRules(wait=1.0, interval=0.05, interval_max=0.75, retry_min=0.025, retry_max=0.2, max_staleness=5.0)
GUARD = GuardRules(hold_empty=3600.0, hold_shrink=3600.0)


@asynccontextmanager
async def cataloging(
    consul: FakeConsul, *, store: MemoryStore | None = None, guard: GuardRules = GUARD, rules: BlockingRules = FAST
) -> AsyncIterator[Catalog]:
    """A catalog over the fake, with reviews wanted."""
    store = store or MemoryStore()
    client = ConsulClient(parse_consul_url(consul.url), timeout=5.0)
    catalog = Catalog(Registrations(store), ConsulCatalog(client, storage=store, rules=rules), rules=guard)
    await catalog.start()
    catalog.want([HOST])
    try:
        yield catalog
    finally:
        await catalog.close()
        await client.close()


def ports(catalog: Catalog) -> list[int]:
    return sorted(instance.port for instance in catalog.snapshot.instances.get(HOST, ()))


def serve(consul: FakeConsul, *numbers: int) -> None:
    consul.serve("reviews", [consul.instance("reviews", number) for number in numbers])


async def test_changes_are_seen() -> None:
    """The positive control of everything below."""
    async with FakeConsul() as consul, cataloging(consul) as catalog:
        serve(consul, 9001)
        await eventually(lambda: ports(catalog) == [9001])
        serve(consul, 9001, 9002)
        await eventually(lambda: ports(catalog) == [9001, 9002])
        assert catalog.snapshot.suspicious == {}


async def test_only_wanted_services_are_asked_for() -> None:
    async with FakeConsul() as consul, cataloging(consul) as catalog:
        serve(consul, 9001)
        consul.serve("ratings", [consul.instance("ratings", 9100)])
        await eventually(lambda: ports(catalog) == [9001])
        await eventually(lambda: "ratings.default.svc.cluster.local" in catalog.snapshot.services)
        assert "ratings.default.svc.cluster.local" not in catalog.snapshot.instances
        assert consul.asked("/v1/health/service/ratings") == []
        catalog.want(["ratings.default.svc.cluster.local", "www.example.com"])
        await eventually(lambda: "ratings.default.svc.cluster.local" in catalog.snapshot.instances)
        await eventually(lambda: HOST not in catalog.snapshot.instances)
        assert catalog.snapshot.suspicious == {}
        assert HOST in catalog.snapshot.services


async def test_f06_empty_lists_for_a_living_service_keep_the_last_instances() -> None:
    async with FakeConsul() as consul, cataloging(consul) as catalog:
        serve(consul, 9001, 9002)
        await eventually(lambda: ports(catalog) == [9001, 9002])
        serve(consul)
        await eventually(lambda: HOST in catalog.snapshot.suspicious)
        assert ports(catalog) == [9001, 9002]
        serve(consul, 9003)
        await eventually(lambda: 9003 in ports(catalog))


async def test_f07_most_instances_vanish_at_once() -> None:
    async with FakeConsul() as consul, cataloging(consul) as catalog:
        serve(consul, 9001, 9002, 9003, 9004, 9005)
        await eventually(lambda: len(ports(catalog)) == 5)
        serve(consul, 9001)
        await eventually(lambda: HOST in catalog.snapshot.suspicious)
        assert len(ports(catalog)) == 5
        serve(consul, 9001, 9002, 9003, 9004, 9005)
        await eventually(lambda: HOST not in catalog.snapshot.suspicious)
        serve(consul, 9001, 9002, 9003, 9004)
        await eventually(lambda: ports(catalog) == [9001, 9002, 9003, 9004])


async def test_f10_without_a_leader_what_is_known_stays_and_stale_reads_are_not_trusted() -> None:
    async with FakeConsul() as consul, cataloging(consul) as catalog:
        serve(consul, 9001)
        await eventually(lambda: ports(catalog) == [9001])
        consul.leader = False
        serve(consul, 9002)
        asked = len(consul.requests)
        await eventually(lambda: len(consul.requests) > asked + 6)
        assert ports(catalog) == [9001]
        assert catalog.snapshot.suspicious == {}
        consul.leader = True
        await eventually(lambda: 9002 in ports(catalog))


async def test_f10_a_catalog_that_starts_without_a_leader_takes_stale_answers() -> None:
    async with FakeConsul() as consul:
        consul.leader = False
        serve(consul, 9001)
        async with cataloging(consul) as catalog:
            await eventually(lambda: ports(catalog) == [9001])


async def test_f10_an_answer_of_a_server_that_lags_is_asked_again_at_the_leader() -> None:
    async with FakeConsul() as consul, cataloging(consul) as catalog:
        serve(consul, 9001)
        await eventually(lambda: ports(catalog) == [9001])
        consul.last_contact = 60_000
        serve(consul, 9001, 9002)
        await eventually(lambda: ports(catalog) == [9001, 9002])
        trusted = [request for request in consul.asked("/v1/health") if "stale" not in request.params]
        assert trusted


async def test_f11_a_wiped_consul_empties_nothing() -> None:
    async with FakeConsul() as consul, cataloging(consul) as catalog:
        serve(consul, 9001, 9002)
        await eventually(lambda: ports(catalog) == [9001, 9002])
        consul.wipe()
        await eventually(lambda: HOST in catalog.snapshot.suspicious)
        assert ports(catalog) == [9001, 9002]
        assert HOST in catalog.snapshot.services
        serve(consul, 9001, 9002)
        await eventually(lambda: HOST not in catalog.snapshot.suspicious)
        assert ports(catalog) == [9001, 9002]


async def test_f11_a_wiped_consul_is_believed_in_the_end() -> None:
    async with FakeConsul() as consul, cataloging(consul, guard=GuardRules(hold_empty=0.3)) as catalog:
        serve(consul, 9001)
        await eventually(lambda: ports(catalog) == [9001])
        consul.wipe()
        await eventually(lambda: ports(catalog) == [])
        assert catalog.snapshot.suspicious == {}


async def test_an_unreachable_consul_empties_nothing_and_is_found_again() -> None:
    async with FakeConsul() as consul, cataloging(consul) as catalog:
        serve(consul, 9001)
        await eventually(lambda: ports(catalog) == [9001])
        port = consul.port
        await consul.stop()
        before = catalog.snapshot
        await asyncio.sleep(0.3)
        assert catalog.snapshot is before
        serve(consul, 9001, 9002)
        await consul.start(port)
        await eventually(lambda: ports(catalog) == [9001, 9002])


async def test_what_consul_said_last_survives_a_restart_without_consul() -> None:
    store = MemoryStore()
    async with FakeConsul() as consul:
        serve(consul, 9001, 9002)
        async with cataloging(consul, store=store) as catalog:
            await eventually(lambda: ports(catalog) == [9001, 9002])
        await consul.stop()
        # The catalog's sources are closed with it; a new one reads the same store.
        async with cataloging(consul, store=store) as catalog:
            assert ports(catalog) == [9001, 9002]
            await consul.start(consul.port)
            serve(consul, 9001, 9003)
            await eventually(lambda: ports(catalog) == [9001, 9003])


@pytest.mark.parametrize("index", [1, 0], ids=["backwards", "zero"])
async def test_f12_an_index_that_is_reset_hides_no_change(index: int) -> None:
    async with FakeConsul() as consul, cataloging(consul) as catalog:
        serve(consul, 9001)
        await eventually(lambda: ports(catalog) == [9001])
        consul.forced_index = index
        serve(consul, 9001, 9002)
        await eventually(lambda: ports(catalog) == [9001, 9002])
        serve(consul, 9001, 9002, 9003)
        await eventually(lambda: ports(catalog) == [9001, 9002, 9003])


async def test_f12_a_stuck_index_hides_no_change() -> None:
    async with FakeConsul() as consul, cataloging(consul) as catalog:
        serve(consul, 9001)
        await eventually(lambda: ports(catalog) == [9001])
        consul.stuck = True
        serve(consul, 9001, 9002)
        await eventually(lambda: ports(catalog) == [9001, 9002])


@pytest.mark.parametrize("fault", ["instant", "zero", "backwards", "no leader", "500", "garbage"])
async def test_f12_whatever_consul_does_the_queries_stay_few(fault: str) -> None:
    """Token bucket: two at once, then one an interval; and a change is still seen afterwards."""
    async with FakeConsul() as consul, cataloging(consul) as catalog:
        serve(consul, 9001)
        await eventually(lambda: ports(catalog) == [9001])
        consul.instant = fault in ("instant", "zero", "backwards")
        consul.forced_index = {"zero": 0, "backwards": 1}.get(fault)
        consul.leader = fault != "no leader"
        consul.status = 500 if fault == "500" else None
        consul.raw = b"<html>" if fault == "garbage" else None
        consul.wake()
        consul.requests.clear()
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(1.0)
        elapsed = asyncio.get_running_loop().time() - began
        for path in ("/v1/catalog/services", "/v1/health/service/reviews"):
            asked = len(consul.asked(path))
            assert 1 <= asked <= 2 + FAST.burst + elapsed / FAST.interval, f"{asked} queries in {elapsed:.1f} s"
        assert ports(catalog) == [9001]
        consul.instant, consul.forced_index, consul.leader, consul.status, consul.raw = False, None, True, None, None
        serve(consul, 9001, 9002)
        await eventually(lambda: ports(catalog) == [9001, 9002])


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"null", b"7", b'[{"Node": {}}]', b'{"reviews": 7}', b"\xff\xfe"], ids=repr)
async def test_nonsense_with_status_200_breaks_no_watch(raw: bytes) -> None:
    async with FakeConsul() as consul, cataloging(consul) as catalog:
        serve(consul, 9001)
        await eventually(lambda: ports(catalog) == [9001])
        consul.raw = raw
        consul.wake()
        asked = len(consul.requests)
        await eventually(lambda: len(consul.requests) > asked + 3)
        assert ports(catalog) == [9001]
        consul.raw = None
        serve(consul, 9001, 9002)
        await eventually(lambda: ports(catalog) == [9001, 9002])


async def test_a_read_is_not_cut_while_consul_may_still_hold_it() -> None:
    """Consul adds up to a 16th to the wait; the client's own timeout begins to count after that."""
    query = Query(index=10, wait=0.8, consistency="stale")
    async with FakeConsul() as consul:
        client = ConsulClient(parse_consul_url(consul.url), timeout=0.4)
        assert (await client.services(query)).index == 10
        consul.hold = 60.0
        with pytest.raises(ConsulError, match=r"GET /v1/catalog/services to consul at .* failed"):
            await client.services(query)
        await client.close()


async def test_an_explicit_token_beats_the_environment_and_is_sent_with_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "from the environment")
    for option, expected in (("?token=explicit", "explicit"), ("", "from the environment")):
        async with FakeConsul() as consul:
            store = ConsulStore(parse_consul_url(consul.url + option))
            calls: list[Any] = [store.get("a"), store.scan("a"), store.put("a", b"1"), store.put("a", b"1", expect=3)]
            calls += [store.put("a", b"1" * 400_000), store.delete("a"), store.delete("a", expect=3)]
            await asyncio.gather(*calls, return_exceptions=True)  # the fake takes no writes; what matters is what it got
            await store.close()
            assert {(request.method, request.path) for request in consul.requests} >= {
                ("GET", "/v1/kv/meshlib/a"),
                ("PUT", "/v1/kv/meshlib/a"),
                ("DELETE", "/v1/kv/meshlib/a"),
                ("PUT", "/v1/txn"),
            }
            assert {request.headers.get("x-consul-token") for request in consul.requests} == {expected}


async def test_errors_say_what_was_asked_and_never_the_token() -> None:
    async with FakeConsul() as consul:
        consul.status = 403
        store = ConsulStore(parse_consul_url(consul.url + "?token=secret"))
        with pytest.raises(
            StoreError, match=r"GET /v1/kv/meshlib/a to consul at http://127.0.0.1:.*: status 403: forced"
        ) as caught:
            await store.get("a")
        await store.close()
        assert "secret" not in str(caught.value)
        with pytest.raises(StoreError, match="closed"):
            await store.get("a")


async def test_a_watch_of_the_store_waits_out_every_outage() -> None:
    async with FakeConsul() as consul:
        consul.store("meshlib/config/head", b"1")
        store = ConsulStore(parse_consul_url(consul.url), rules=FAST)
        async with aclosing(cast(AsyncGenerator[list[Entry], None], store.watch("config/"))) as changes:
            assert [entry.value for entry in await anext(changes)] == [b"1"]
            consul.leader = False
            waiting = asyncio.ensure_future(anext(changes))
            consul.wake()
            asked = len(consul.requests)
            await eventually(lambda: len(consul.requests) > asked + 3)
            assert not waiting.done()
            consul.leader = True
            consul.store("meshlib/config/head", b"2")
            assert [entry.value for entry in await waiting] == [b"2"]
        await store.close()
