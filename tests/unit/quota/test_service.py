"""The service of quotas over a real port: who is answered about what."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest

from meshlib import SpiffeId
from meshlib.xds.quota import STREAM, Abandon, Assignment, BucketId, Reports, Usage, decode_response, encode_reports
from meshlib_control.compile import World
from meshlib_control.errors import StoreError
from meshlib_control.quota.groups import QuotaGroup
from meshlib_control.quota.service import QuotaService
from meshlib_control.serve.identity import Callers
from meshlib_control.serve.server import GrpcServer
from meshlib_control.store.memory import MemoryStore
from meshlib_control.store.model import Entry
from tests.support.configuring import world

POLICY = """
apiVersion: meshlib.io/v1
kind: RateLimitPolicy
metadata: {name: p, namespace: default}
spec:
  host: reviews
  exportTo: [.]
  limits:
  - {name: shared, tokens: 100, scope: GLOBAL, by: [{header: X-Tenant}]}
  - {name: local, tokens: 100}
  - {name: day, quota: {requests: 50, period: DAY}}
"""


def bucket(limit: str = "shared", policy: str = "default/p", **parts: str) -> BucketId:
    found = {"meshlib.policy": policy, "meshlib.limit": limit, **parts}
    return tuple(sorted(found.items()))


TENANT = bucket(**{"0:header:x-tenant": "=a"})


class FlakyStore(MemoryStore):
    """Away while `away` is set; a read takes `slow` seconds."""

    away = False
    slow = 0.0
    reads = 0

    async def get(self, key: str) -> Entry | None:
        self.reads += 1
        if self.away:
            raise StoreError("the store is away")
        if self.slow:
            await asyncio.sleep(self.slow)
        return await super().get(key)


class Scene:
    """A service, and streams to it.  `who` is the identity of those that are opened from now on."""

    def __init__(self) -> None:
        self.world: World = world(POLICY)
        self.who = SpiffeId.of_workload("td", "default", "a")
        self.store = FlakyStore()
        self.service = QuotaService(self.store, lambda: self.world, Callers(lambda context: self.who))
        self.channel: grpc.aio.Channel

    def stream(self) -> Any:
        return self.channel.stream_stream(STREAM)()


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    server = GrpcServer([scene.service.handler()])
    async with scene.service:
        port = await server.start("127.0.0.1:0")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as scene.channel:
            yield scene
        await server.stop()


async def report(
    stream: Any, *buckets: BucketId, applied: int = 0, allowed: int = 1, held: float = 0.0, process: bytes = b""
) -> None:
    usages = [Usage(each, 1.0, allowed, 0, held) for each in buckets]
    await stream.write(encode_reports(Reports(usages, applied, process=process)))


async def answer(stream: Any) -> list[Assignment | Abandon]:
    async with asyncio.timeout(30):
        return decode_response(await stream.read())


def rate(action: Assignment | Abandon) -> float:
    assert isinstance(action, Assignment)
    assert action.strategy is not None
    assert not isinstance(action.strategy, str)
    return action.strategy.per_second


async def test_a_bucket_is_answered_with_a_share(scene: Scene) -> None:
    stream = scene.stream()
    await report(stream, TENANT)
    (action,) = await answer(stream)
    assert action.id == TENANT
    assert rate(action) == pytest.approx(100)
    assert [(view.policy, view.limit, view.buckets, view.streams) for view in scene.service.views()] == [
        ("default/p", "shared", 1, 1)
    ]


@pytest.mark.parametrize(
    "other",
    [
        bucket("local"),
        bucket("nothing"),
        bucket(policy="default/nothing", **{"0:header:x-tenant": "=a"}),
        bucket(),
        bucket(**{"0:header:x-other": "=a"}),
        bucket(**{"0:header:x-tenant": "=a", "1:more": "b"}),
        bucket(**{"0:header:x-tenant": "=" + "a" * 1000}),
        (("a", "b"),),
    ],
)
async def test_what_no_policy_defines_is_passed_over(scene: Scene, other: BucketId) -> None:
    """With the one that is defined right beside it as the control."""
    stream = scene.stream()
    await report(stream, other, TENANT)
    assert [action.id for action in await answer(stream)] == [TENANT]
    assert sum(view.buckets for view in scene.service.views()) == 1


async def test_a_workload_of_another_namespace_has_no_part_in_it(scene: Scene) -> None:
    """It could use up what others are to share."""
    scene.who = SpiffeId.of_workload("td", "shop", "a")
    stranger = scene.stream()
    await report(stranger, TENANT, allowed=10_000)
    await asyncio.sleep(0.1)
    scene.who = SpiffeId.of_workload("td", "default", "a")
    stream = scene.stream()
    await report(stream, TENANT)
    assert rate((await answer(stream))[0]) == pytest.approx(100)
    stranger.cancel()


async def test_two_streams_share_and_the_second_waits_for_the_first_to_know(scene: Scene) -> None:
    one, two = scene.stream(), scene.stream()
    await report(one, TENANT)
    assert rate((await answer(one))[0]) == pytest.approx(100)
    await report(one, applied=1)
    await report(two, TENANT)
    assert rate((await answer(one))[0]) == pytest.approx(50)
    await report(one, applied=2)
    assert rate((await answer(two))[0]) == pytest.approx(50)


@pytest.mark.parametrize("noticed", [True, False])
async def test_who_comes_back_on_another_stream_keeps_his_share(scene: Scene, *, noticed: bool) -> None:
    """Whether or not the service has noticed that the one before is broken; nobody else gets it meanwhile."""
    one = scene.stream()
    await report(one, TENANT, process=b"1")
    assert rate((await answer(one))[0]) == pytest.approx(100)
    if noticed:
        one.cancel()
        async with asyncio.timeout(30):
            while scene.service._streams:  # noqa: ASYNC110  # nothing tells of it
                await asyncio.sleep(0.01)
    stranger = scene.stream()
    await report(stranger, TENANT, held=100.0, process=b"2")
    again = scene.stream()
    await report(again, TENANT, held=100.0, process=b"1")
    assert rate((await answer(again))[0]) == pytest.approx(50)
    await report(again, applied=1)
    assert rate((await answer(stranger))[0]) == pytest.approx(50)


async def test_a_limit_that_is_gone_is_abandoned(scene: Scene) -> None:
    stream = scene.stream()
    await report(stream, TENANT)
    await answer(stream)
    scene.world = world()
    assert await answer(stream) == [Abandon(TENANT)]


async def test_grants_are_charged_before_they_are_told(scene: Scene) -> None:
    stream = scene.stream()
    await report(stream, bucket("day"), allowed=2)
    (action,) = await answer(stream)
    assert isinstance(action, Assignment)
    assert not isinstance(action.strategy, str)
    assert action.strategy is not None
    (entry,) = await scene.store.scan("quota/counts/")
    assert b'"used":%d' % (2 + action.strategy.burst) in entry.value


async def test_a_store_that_is_away_is_a_problem_and_nothing_is_given_out(scene: Scene) -> None:
    scene.store.away = True
    stream = scene.stream()
    await report(stream, TENANT)
    async with asyncio.timeout(30):
        while not scene.service.problems:  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.01)
    scene.store.away = False
    assert rate((await answer(stream))[0]) == pytest.approx(100)
    assert not scene.service.problems


async def test_nonsense_ends_the_stream(scene: Scene) -> None:
    stream = scene.stream()
    await stream.write(b"\xff\xff")
    async with asyncio.timeout(30):
        assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_limit_that_cannot_be_settled_keeps_no_other_from_it(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is wrong with it."""

    async def failing(self: QuotaGroup, now: float) -> None:
        raise OverflowError("a fault")

    monkeypatch.setattr(QuotaGroup, "settle", failing)
    stream = scene.stream()
    await report(stream, bucket("day"))
    await report(stream, TENANT)
    assert [action.id for action in await answer(stream)] == [TENANT]
    assert "default/p/day" in scene.service.problems[0]


async def test_a_storm_of_reports_is_no_storm_of_reads_of_a_slow_store(scene: Scene) -> None:
    stream = scene.stream()
    await report(stream, TENANT)
    await answer(stream)
    scene.store.slow, scene.store.reads = 0.05, 0
    began = time.monotonic()
    for _ in range(100):
        await report(stream, TENANT)
        await asyncio.sleep(0.01)
    assert 0 < scene.store.reads <= (time.monotonic() - began) / (5 * 0.05) + 2
