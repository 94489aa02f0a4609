"""Real Envoy takes whatever the validator takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from google.protobuf.message import Message

from meshlib.xds.proto import listener_pb2
from meshlib.xds.types import CLUSTER, ENDPOINTS, LISTENER, ROUTE
from meshlib_control.catalog.model import Instance, Port
from meshlib_control.compile import World, generate, scope_of
from meshlib_control.compile.listeners import PROXY_LISTENER
from tests.support import ads, envoy
from tests.support.configuring import INSECURE, registered
from tests.support.configuring import world as configured
from tests.support.specimens import WEB, resources, world_of
from tests.support.tasks import TASKS

pytestmark = pytest.mark.envoy

KINDS = ("DestinationRule", "ResiliencePolicy", "ServiceEntry", "VirtualService", "WorkloadEntry", "RateLimitPolicy")
POLICIES = ("AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication")
"""They hold at the workloads that are called; `test_envoy_authorization` has them."""

COUNT = 40
"""Documents of a case: most of the hosts have several, of which some hold."""


def check(world: World, folder: Path) -> None:
    scope = scope_of(world, replace(WEB, flavour="envoy", ports=()))

    def generated(type_url: str, names: Collection[str] | None) -> Mapping[str, Message]:
        found = generate(world, scope, type_url, names)
        for message in found.values():
            if isinstance(message, listener_pb2.Listener):
                message.address.socket_address.port_value = 0  # the fixed one may be taken here
        return found

    with ads.serving(generated) as control, envoy.running(envoy.ads_bootstrap(control.port), folder) as process:
        process.until(lambda: control.nacks or control.acked >= {LISTENER, ROUTE, CLUSTER, ENDPOINTS}, "answer to every type")
        assert control.nacks == []
        assert process.listener_port(PROXY_LISTENER)


def test_the_tasks_of_istio_are_taken(tmp_path: Path) -> None:
    """Each with a service of its own, which has the versions that the tasks ask for."""
    versions = (
        "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: v-NAME}, spec: {host: NAME, subsets: %s}}"
    )
    subsets = "[{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]"
    executed = [(f"{task.name}-bin", task) for task in TASKS if not task.refused]
    texts = [task.text.replace("httpbin", name) for name, task in executed if task.kind not in ("Sidecar", *POLICIES)]
    texts += [versions.replace("NAME", name) % subsets for name, task in executed if task.kind == "VirtualService"]
    services = [
        registered(name, Instance("1", "127.0.0.1", 8000, labels={"version": "v1"}), ports=(Port(80, "http"), Port(81, "http")))
        for name, _ in executed
    ]
    check(configured(*texts, services=services), tmp_path)


@pytest.mark.parametrize("seed", range(2))
def test_what_is_valid_is_taken(seed: int, tmp_path: Path) -> None:
    check(world_of(resources(Random(seed), COUNT, KINDS), trust=INSECURE), tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 160))
def test_much_that_is_valid_is_taken(seed: int, tmp_path: Path) -> None:
    check(world_of(resources(Random(seed), COUNT, KINDS), trust=INSECURE), tmp_path)
