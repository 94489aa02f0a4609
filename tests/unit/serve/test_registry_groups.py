"""Who may join a WorkloadGroup, and what becomes of its registration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from meshlib import SpiffeId
from meshlib.xds.proto import registry_pb2
from meshlib_control.compile.workload_groups import Template
from meshlib_control.config.kinds import ReadinessProbe, TCPProbe
from meshlib_control.serve.identity import Callers
from meshlib_control.serve.registry import RegistryService
from tests.support.control_plane import MemoryRegistrations

PROBE = ReadinessProbe(tcp_socket=TCPProbe(port=8080))
TEMPLATES = {
    ("shop", "vms"): Template(labels={"app": "legacy"}, weight=7, service_account="old"),
    ("shop", "probed"): Template(probe=PROBE),
}


class Aborted(Exception):
    """As grpc.aio ends a call."""


@dataclass
class Context:
    code: grpc.StatusCode | None = None
    details: str = ""

    def peer(self) -> str:
        return "ipv4:10.0.0.7:5555"

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.code, self.details = code, details
        raise Aborted


@dataclass
class Details:
    method: str = "/meshlib.registry.v1.Registry/Register"


class Registry:
    """As the service account `account` of the namespace shop sees it."""

    def __init__(self, account: str) -> None:
        self.registrations = MemoryRegistrations()
        self.context = Context()
        callers = Callers(lambda context: SpiffeId.parse(f"spiffe://td/ns/shop/sa/{account}"))
        service = RegistryService(self.registrations, callers, groups=lambda *key: TEMPLATES.get(key))
        handler: Any = service.handler().service(Details())
        self._register = handler.unary_unary

    async def register(self, group: str) -> registry_pb2.RegisterResponse:
        request = registry_pb2.RegisterRequest(
            instance_id="i", service="old", port=8080, weight=1, labels={"app": "mine", "own": "yes"}, group=group
        )
        response: registry_pb2.RegisterResponse = await self._register(request, self.context)
        return response


async def test_the_template_holds_and_what_it_does_not_say_the_process_may() -> None:
    registry = Registry("old")
    await registry.register("vms")
    found = registry.registrations.known["i"]
    assert (dict(found.labels), found.weight, found.address) == ({"app": "legacy", "own": "yes"}, 7, "10.0.0.7")


@pytest.mark.parametrize(
    ("account", "group", "code", "why"),
    [
        ("other", "vms", grpc.StatusCode.PERMISSION_DENIED, "for the service account old"),
        ("old", "nowhere", grpc.StatusCode.INVALID_ARGUMENT, "no WorkloadGroup nowhere in the namespace shop"),
    ],
)
async def test_who_may_not_join(account: str, group: str, code: grpc.StatusCode, why: str) -> None:
    registry = Registry(account)
    with pytest.raises(Aborted):
        await registry.register(group)
    assert registry.context.code is code
    assert why in registry.context.details
    assert not registry.registrations.known


async def test_who_is_to_be_probed_is_unready_until_he_says_otherwise() -> None:
    registry = Registry("old")
    response = await registry.register("probed")
    assert response.probe.port == 8080
    assert registry.registrations.ready == {"i": False}
    plain = Registry("old")
    assert not (await plain.register("")).HasField("probe")
    assert plain.registrations.ready == {"i": True}
