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
from meshlib_control.compile import generate, scope_of
from meshlib_control.compile.listeners import PROXY_LISTENER
from tests.support import ads, envoy
from tests.support.configuring import INSECURE
from tests.support.specimens import WEB, resources, world_of

pytestmark = pytest.mark.envoy

KINDS = ("DestinationRule", "ResiliencePolicy", "ServiceEntry", "VirtualService", "WorkloadEntry", "RateLimitPolicy")
COUNT = 40
"""Documents of a case: most of the hosts have several, of which some hold."""


def check(seed: int, folder: Path) -> None:
    world = world_of(resources(Random(seed), COUNT, KINDS), trust=INSECURE)
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


@pytest.mark.parametrize("seed", range(3))
def test_what_is_valid_is_taken(seed: int, tmp_path: Path) -> None:
    check(seed, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 160))
def test_much_that_is_valid_is_taken(seed: int, tmp_path: Path) -> None:
    check(seed, tmp_path)
