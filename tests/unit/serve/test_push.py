"""When changes are pushed, and what one that cannot be compiled costs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from google.protobuf.message import Message

from meshlib.xds.proto import core_pb2
from meshlib.xds.types import CLUSTER, ENDPOINTS
from meshlib_control.compile.node import Node, Scope, ServedPort
from meshlib_control.serve.cache import ResourceCache, ScopeResources
from meshlib_control.serve.dialects import BadRequest
from meshlib_control.serve.nodes import node_of
from meshlib_control.serve.push import Debounce, PushLoop
from tests.support.discovery import Affected, TextCompiler, World


def test_one_change_is_pushed_after_the_quiet_time() -> None:
    debounce = Debounce(0.1, 10.0)
    assert debounce.due is None
    debounce.touch(5.0)
    assert debounce.due == pytest.approx(5.1)


def test_every_further_change_postpones_it() -> None:
    debounce = Debounce(0.1, 10.0)
    debounce.touch(5.0)
    debounce.touch(5.05)
    assert debounce.due == pytest.approx(5.15)


def test_changes_that_never_stop_are_pushed_all_the_same() -> None:
    debounce = Debounce(0.1, 10.0)
    for tenth in range(120):
        debounce.touch(tenth / 10)
    assert debounce.due == pytest.approx(10.0)


def test_after_a_push_the_next_change_begins_anew() -> None:
    debounce = Debounce(0.1, 10.0)
    debounce.touch(5.0)
    debounce.pushed()
    assert debounce.due is None
    debounce.touch(50.0)
    assert debounce.due == pytest.approx(50.1)


class Recorder:
    """Clients that only write down what they are told."""

    def __init__(self) -> None:
        self.marks: list[tuple[str, frozenset[str]]] = []
        self.rebinds = 0
        self.flushed = asyncio.Event()

    def rebind(self) -> None:
        self.rebinds += 1

    def mark(self, resources: ScopeResources, type_url: str, names: frozenset[str], /) -> None:
        if names:
            self.marks.append((type_url, names))

    def flush(self) -> None:
        self.flushed.set()


class BrokenClusters(TextCompiler):
    """Cannot compile clusters once `broken` is set."""

    broken = False

    def generate(self, world: World, scope: Scope, type_url: str, names: frozenset[str] | None, /) -> Mapping[str, Message]:
        if self.broken and type_url == CLUSTER:
            raise ValueError("no clusters today")
        return super().generate(world, scope, type_url, names)


async def pushed(compiler: TextCompiler, before: World, *worlds: World) -> tuple[Recorder, PushLoop[World], ScopeResources]:
    """What clients of one scope, which hold cluster and assignment ``a``, are told."""
    cache = ResourceCache(compiler, before)
    resources = cache.resources_for(Node())
    resources.clients = 1
    resources.subscribe(CLUSTER, frozenset("a"))
    resources.subscribe(ENDPOINTS, frozenset("a"))
    clients = Recorder()
    loop = PushLoop(cache, clients, Debounce(0.0, 0.0), clock=asyncio.get_running_loop().time)
    if isinstance(compiler, BrokenClusters):
        compiler.broken = True
    for world in worlds:
        loop.publish(world)
    task = asyncio.create_task(loop.run())
    await clients.flushed.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return clients, loop, resources


BEFORE = World().having(CDS_a="1", EDS_a="x")


async def test_only_the_newest_world_is_compiled() -> None:
    compiler = TextCompiler()
    clients, _, _ = await pushed(compiler, BEFORE, *(BEFORE.having(EDS_a=text) for text in "123456"))
    assert clients.marks == [(ENDPOINTS, frozenset("a"))]
    assert compiler.generated.count((ENDPOINTS, "a")) == 2


async def test_endpoints_alone_do_not_concern_scopes_and_clusters() -> None:
    compiler = TextCompiler()
    clients, _, _ = await pushed(compiler, BEFORE, BEFORE.having(EDS_a="z"))
    assert clients.rebinds == 0
    assert compiler.generated.count((CLUSTER, "a")) == 1


class AlsoClusters(TextCompiler):
    """A change of endpoints changes their clusters too, as when others may answer."""

    def affected(self, old_world: World, new_world: World, /) -> Affected:
        return Affected(False, endpoint_clusters=frozenset("a"), clusters=frozenset("a"))


async def test_clusters_of_changed_endpoints_are_renewed_first() -> None:
    compiler = AlsoClusters()
    clients, _, _ = await pushed(compiler, BEFORE, BEFORE.having(CDS_a="2", EDS_a="z"))
    assert clients.marks == [(CLUSTER, frozenset("a")), (ENDPOINTS, frozenset("a"))]
    assert clients.rebinds == 0


async def test_what_cannot_be_compiled_stays_and_the_rest_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    clients, loop, resources = await pushed(BrokenClusters(), BEFORE, BEFORE.having(CDS_a="2", EDS_a="z"))
    assert clients.marks == [(ENDPOINTS, frozenset("a"))]
    assert resources.get(CLUSTER, "a") is not None
    assert loop.failures == ("cannot be compiled, clients keep what they have: ValueError: no clusters today",)
    assert "cannot be compiled" in caplog.text


async def test_scopes_that_nobody_is_bound_to_are_dropped() -> None:
    cache = ResourceCache(TextCompiler(), BEFORE)
    used, unused = cache.resources_for(Node(namespace="used")), cache.resources_for(Node(namespace="unused"))
    used.clients = 1
    cache.update(BEFORE.having(CDS_a="2"))
    assert cache.resources_for(Node(namespace="used")) is used
    assert cache.resources_for(Node(namespace="unused")) is not unused


@pytest.mark.parametrize(
    ("user_agent", "flavour"),
    [("meshlib", "meshlib"), ("envoy", "envoy"), ("gRPC C-core linux", "grpc"), ("gRPC Go", "grpc"), ("", "envoy")],
)
def test_the_user_agent_chooses_the_flavour(user_agent: str, flavour: str) -> None:
    assert node_of(core_pb2.Node(user_agent_name=user_agent)).flavour == flavour


def test_node_metadata_has_istios_keys() -> None:
    message = core_pb2.Node(id="sidecar~1", locality=core_pb2.Locality(region="eu", zone="a"))
    message.metadata.update({"NAMESPACE": "shop", "SERVICE_ACCOUNT": "cart", "LABELS": {"app": "cart", "version": "v1"}})
    node = node_of(message)
    assert (node.id, node.namespace, node.service_account, node.locality) == ("sidecar~1", "shop", "cart", "eu/a")
    assert node.labels == {"app": "cart", "version": "v1"}


def test_an_envoy_says_what_it_serves() -> None:
    message = core_pb2.Node(user_agent_name="envoy")
    message.metadata.update({"PORTS": ["9080:8080", "9081:8081/tcp"], "IDENTITY_FILE": "/run/sds.yaml"})
    node = node_of(message)
    assert node.ports == (ServedPort(9080, 8080), ServedPort(9081, 8081, "tcp"))
    assert node.identity_file == "/run/sds.yaml"
    message.metadata.update({"PORTS": ["http"]})
    with pytest.raises(BadRequest, match="PORTS in the node's metadata: 'http' is not a served port"):
        node_of(message)


def test_a_node_that_says_nothing_is_in_the_default_namespace() -> None:
    node = node_of(core_pb2.Node(id="x"))
    assert (node.namespace, node.service_account, node.labels, node.locality) == ("default", "default", {}, "")
