"""Replicas of the quota service, over real stores and real streams: what `test_quotas` shows with processes, in less time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from meshlib.xds.quota import STREAM, Assignment, Reports, TokenBucket, Usage, decode_response, encode_reports
from meshlib_control.quota.service import QuotaService
from meshlib_control.serve.server import GrpcServer
from meshlib_control.store.open import open_store
from tests.support.configuring import world
from tests.support.consul import ConsulAgent

POLICY = """
apiVersion: meshlib.io/v1
kind: RateLimitPolicy
metadata: {name: p, namespace: default}
spec:
  host: shop
  limits:
  - {name: second, tokens: 100, scope: GLOBAL}
  - {name: month, quota: {requests: 300, period: MONTH}}
"""
DEADLINE = 60.0


class Workload:
    """One process with more to do than it may: a stream on which it reports and is told."""

    def __init__(self, channel: grpc.aio.Channel, limit: str) -> None:
        self.share = 0.0  # requests per second that it may send
        self.granted = 0  # of a quota: requests in all
        self.used = 0
        self.exhausted = False
        self._id = (("meshlib.limit", limit), ("meshlib.policy", "default/p"))
        self._applied = 0
        self._stream: Any = channel.stream_stream(STREAM)()

    async def run(self) -> None:
        await asyncio.gather(self._listen(), self._report())

    def _usages(self) -> list[Usage]:
        allowed = max(self.granted - self.used, 0)
        self.used += allowed
        return [Usage(self._id, 0.25, allowed, 25)]

    async def _report(self) -> None:
        while True:
            await self._stream.write(encode_reports(Reports(self._usages(), self._applied)))
            await asyncio.sleep(0.1)

    async def _listen(self) -> None:
        while (data := await self._stream.read()) is not grpc.aio.EOF:
            for action in decode_response(data):
                assert isinstance(action, Assignment)
                if isinstance(action.strategy, TokenBucket):
                    self.share, self.granted = action.strategy.per_second, action.strategy.burst
                self.exhausted = action.strategy == "DENY_ALL"
            self._applied += 1


@asynccontextmanager
async def replica(url: str) -> AsyncIterator[grpc.aio.Channel]:
    """A replica over the store at `url`; a channel to it."""
    store = open_store(url)
    policies = world(POLICY)
    service = QuotaService(store, lambda: policies)
    server = GrpcServer([service.handler()])
    try:
        async with service:
            port = await server.start("127.0.0.1:0")
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield channel
            await server.stop()
    finally:
        await store.close()


@asynccontextmanager
async def working(*workloads: Workload) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(workload.run()) for workload in workloads]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.consul
async def test_two_replicas_share_the_whole_and_never_give_more(consul_agent: ConsulAgent) -> None:
    """The first has given away everything when the second one's workload comes."""
    async with AsyncExitStack() as stack, asyncio.timeout(DEADLINE):
        first, second = [await stack.enter_async_context(replica(consul_agent.url("quota-replicas"))) for _ in range(2)]
        workloads = [Workload(first, "second"), Workload(first, "second")]
        await stack.enter_async_context(working(*workloads))
        while sum(workload.share for workload in workloads) < 99:  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.01)
        workloads.append(Workload(second, "second"))
        await stack.enter_async_context(working(workloads[2]))
        while not (min(shares := [workload.share for workload in workloads]) > 30 and sum(shares) > 95):
            assert sum(shares) < 100.1
            await asyncio.sleep(0.01)


async def test_a_quota_of_a_month_survives_a_restart(tmp_path: Path) -> None:
    """Its count is in the store: the next replica and the next workload go on from it."""
    url = f"sqlite:{tmp_path / 'store.db'}"
    used = 0
    async with asyncio.timeout(DEADLINE):
        for last in (False, True):
            async with replica(url) as channel:
                workload = Workload(channel, "month")
                async with working(workload):
                    while not (workload.exhausted if last else workload.used >= 100):  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                used += workload.used
                if not last:
                    assert used < 300
    assert 150 < used <= 300  # what the first was granted and has not used is lost with it
