"""The registry's `Report` over a real port: whose report it is, says the certificate."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from meshlib import SpiffeId
from meshlib.xds.proto.registry_pb2 import ReportRequest
from meshlib.xds.reports import REPORT
from meshlib_control.ca.errors import CallerRefused
from meshlib_control.reports import MAX_REPORT, Reporter, Reports
from meshlib_control.serve.identity import Callers
from meshlib_control.serve.registry import RegistryService
from meshlib_control.serve.server import GrpcServer

ME = SpiffeId.of_workload("td", "default", "a")
OTHER = SpiffeId.of_workload("td", "default", "b")


class Scene:
    """`who` is the identity that the next callers prove; None: they prove none."""

    def __init__(self) -> None:
        self.who: SpiffeId | None = ME
        self.reports = Reports()
        self.channel: grpc.aio.Channel

    def identify(self, context: Any) -> SpiffeId:
        if self.who is None:
            raise CallerRefused("no certificate")
        return self.who

    async def report(self, instance: str = "a-1", *, data: bytes | None = None) -> str:
        if data is None:
            message = ReportRequest(instance_id=instance)
            message.clusters.add(name="outbound|80||reviews", circuit_breaker="open")
            data = message.SerializeToString()
        try:
            await self.channel.unary_unary(REPORT)(data, timeout=30)
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        return "OK"


async def serving(scene: Scene, callers: Callers) -> AsyncIterator[Scene]:
    registry = RegistryService(_Nothing(), callers, reports=scene.reports)
    server = GrpcServer([registry.handler()])
    port = await server.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as scene.channel:
        yield scene
    await server.stop()


class _Nothing:
    """Registrations that nobody asks for."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    async for each in serving(scene, Callers(scene.identify)):
        yield each


async def test_a_report_is_kept_under_the_callers_identity(scene: Scene) -> None:
    """Whatever name it gives itself: `b` cannot speak, nor take anything back, for `a`."""
    assert await scene.report("a-1") == "OK"
    scene.who = OTHER
    assert await scene.report("a-1") == "OK"
    assert await scene.report(data=ReportRequest(instance_id="a-1").SerializeToString()) == "OK"
    assert [reporter for reporter, _ in scene.reports.current] == [Reporter(str(ME), "a-1")]


async def test_without_a_certificate_nobody_reports(scene: Scene) -> None:
    scene.who = None
    assert await scene.report() == "UNAUTHENTICATED"
    scene.who = ME
    assert await scene.report() == "OK"


async def test_nonsense_and_floods_are_refused(scene: Scene) -> None:
    assert await scene.report("\x1b[2J") == "INVALID_ARGUMENT"
    assert await scene.report(data=b"\xff") == "INVALID_ARGUMENT"
    assert await scene.report(data=b"\x00" * (MAX_REPORT + 1)) == "RESOURCE_EXHAUSTED"
    assert scene.reports.size == 0
    assert await scene.report() == "OK"


async def test_in_a_service_without_identities_processes_are_told_apart_by_name() -> None:
    async for scene in serving(Scene(), Callers()):
        assert await scene.report("a-1") == "OK"
        assert await scene.report("b-1") == "OK"
        assert [reporter for reporter, _ in scene.reports.current] == [Reporter("", "a-1"), Reporter("", "b-1")]
