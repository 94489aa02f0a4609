"""The control service fails in every way of the fault matrix; clients keep what they know, and nothing leaks.

F01 to F05, F08, F09 and F28 of the matrix.  Data plane traffic under these faults is tested where calls are made; here it
is the snapshot that calls are made with.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from random import Random

import grpc
import pytest
from google.protobuf.message import Message

import meshlib_control.compile as compiler
from benchmarks.control_plane import measure
from meshlib.model.snapshot import Snapshot
from meshlib.model.workload import Workload
from meshlib.policy.backoff import Backoff
from meshlib.runtime import channel
from meshlib.runtime.ads import AdsStream
from meshlib.runtime.snapshots import Reach, SnapshotStore
from meshlib.xds import session
from meshlib.xds.proto import cluster_pb2
from meshlib.xds.proto.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource
from meshlib.xds.types import ADS_SERVICE, LISTENER, PREFIX
from meshlib_control.compile import Affected, Scope, World
from meshlib_control.compile.node import Node
from tests.support.control_plane import DEADLINE, NOTHING, ControlPlane, ControlProcess, shop, until

QUICK = Backoff(initial=0.05, cap=0.2)


@contextmanager
def client(address: str, *authorities: str) -> Iterator[AdsStream]:
    stream = AdsStream(address, Workload(service="caller", instance="c"), SnapshotStore(), rng=Random(1), backoff=QUICK)
    try:
        for authority in authorities:
            stream.request(authority)
        yield stream
    finally:
        stream.close()


def ports(snapshot: Snapshot, authority: str) -> list[int]:
    target = snapshot.targets.get(authority)
    clusters = target.clusters.values() if target is not None else ()
    return sorted(endpoint.port for cluster in clusters for endpoint in cluster.endpoints)


def reaches(stream: AdsStream, authority: str, *expected: int) -> Snapshot:
    assert stream.store.wait(lambda snapshot, _: ports(snapshot, authority) == sorted(expected), DEADLINE)
    return stream.store.current


def becomes(stream: AdsStream, reach: Reach) -> str:
    assert stream.store.wait(lambda _, control: control.reach is reach, DEADLINE), stream.store.control_state
    return stream.store.control_state.reason


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_f01_killed_for_good_everything_known_stays() -> None:
    """Fail static: the very same snapshot for as long as the process lives; a new target fails at once and says why."""
    with ControlProcess(reviews=[9001, 9002]) as control, client(control.address, "reviews") as stream:
        known = reaches(stream, "reviews", 9001, 9002)
        control.kill()
        reason = becomes(stream, Reach.UNREACHABLE)
        assert control.address in reason
        stream.request("ratings")
        assert stream.store.wait(lambda snapshot, at: "ratings" in snapshot.targets or at.reach is Reach.UNREACHABLE, 0.0)
        assert stream.store.current is known


def test_f01_attempts_to_reconnect_leak_nothing() -> None:
    with ControlProcess(reviews=[9001]) as control, client(control.address, "reviews") as stream:
        reaches(stream, "reviews", 9001)
        control.kill()
        becomes(stream, Reach.UNREACHABLE)
        attempts: list[float] = []

        def count() -> bool:
            since = stream.store.control_state.since
            if not attempts or attempts[-1] != since:
                attempts.append(since)
            return len(attempts) > 3

        until(count, "four failed attempts")
        threads, files = threading.active_count(), open_files()
        attempts.clear()
        until(count, "four more")
        assert threading.active_count() <= threads + 2
        assert open_files() <= files + 5


def test_f02_restarted_with_its_state_nothing_is_churned() -> None:
    """The snapshot is the same object before and after; the next change arrives."""
    with ControlPlane(shop(reviews=[9001])) as control, client(control.address, "reviews") as stream:
        known = reaches(stream, "reviews", 9001)
        for _ in range(3):
            control.stop()
            becomes(stream, Reach.UNREACHABLE)
            control.start()
            becomes(stream, Reach.CONNECTED)
        until(lambda: control.status().clients and len(control.status().clients[0].types) == 4, "subscribed again")
        assert stream.store.current is known
        control.publish(shop(reviews=[9002]))
        reaches(stream, "reviews", 9002)


def test_f03_restarted_with_nothing_clients_keep_what_they_have() -> None:
    with ControlPlane(shop(reviews=[9001])) as control, client(control.address, "reviews") as stream:
        known = reaches(stream, "reviews", 9001)
        control.stop()
        becomes(stream, Reach.UNREACHABLE)
        control.world, control.empty, control.settle = NOTHING, True, 0.2
        control.start()
        becomes(stream, Reach.CONNECTED)
        until(lambda: control.status().suspicious_empty, "the alarm")
        assert "lost" in control.status().problems[0]
        assert ports(stream.store.current, "reviews") == ports(known, "reviews")
        control.publish(shop(reviews=[9001, 9002]))
        reaches(stream, "reviews", 9001, 9002)
        until(lambda: not control.status().suspicious_empty, "the end of the alarm")


def test_f03_what_is_really_gone_goes_after_the_settle_period() -> None:
    """And then, as gRFC A88 has it, the client still uses what it had; it only knows that it does not exist."""
    with ControlPlane(shop(reviews=[9001])) as control, client(control.address, "reviews") as stream:
        reaches(stream, "reviews", 9001)
        control.stop()
        becomes(stream, Reach.UNREACHABLE)
        control.world, control.settle = shop(ratings=[9002]), 0.2
        control.start()
        becomes(stream, Reach.CONNECTED)
        until(lambda: control.status().clients and sum_held(control) == 0, "nothing is held back any more")
        assert ports(stream.store.current, "reviews") == [9001]


def sum_held(control: ControlPlane) -> int:
    return sum(kind.held_back for who in control.status().clients for kind in who.types.values())


def test_f04_a_frozen_control_service_costs_only_new_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    """gRFC A57: the timer runs for what was never seen, and for nothing else."""
    monkeypatch.setattr(session, "DOES_NOT_EXIST_AFTER", 0.5)
    with ControlProcess(reviews=[9001], ratings=[9002]) as control, client(control.address, "reviews") as stream:
        known = reaches(stream, "reviews", 9001)
        control.freeze()
        stream.request("ratings")
        assert stream.store.wait(lambda snapshot, _: "ratings" in snapshot.broken, DEADLINE)
        assert "no answer within" in stream.store.current.broken["ratings"]
        assert stream.store.current.targets["reviews"] is known.targets["reviews"]
        control.thaw()
        reaches(stream, "ratings", 9002)
        assert "ratings" not in stream.store.current.broken


def test_f05_silence_is_noticed_and_another_control_service_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel answers for a process that does not; only HTTP/2 pings tell (30 s + 10 s, shortened here)."""
    shortened = {"grpc.keepalive_time_ms": 1000, "grpc.keepalive_timeout_ms": 1000, "grpc.http2.ping_timeout_ms": 1000}
    monkeypatch.setattr(channel, "OPTIONS", tuple((key, shortened.get(key, value)) for key, value in channel.OPTIONS))
    with (
        ControlProcess(reviews=[9001]) as first,
        ControlPlane(shop(reviews=[9002])) as second,
        client(f"{first.address},{second.address}", "reviews") as stream,
    ):
        reaches(stream, "reviews", 9001)
        first.freeze()
        reaches(stream, "reviews", 9002)
        first.thaw()


class OneBadCluster:
    """Our compiler, but one cluster has a timeout that no client can accept while `broken`."""

    def __init__(self, host: str) -> None:
        self._host = host
        self.broken = False

    def scope_of(self, world: World, node: Node, /) -> Scope:
        return compiler.scope_of(world, node)

    def is_pending(self, world: World, scope: Scope, name: str, /) -> bool:
        return compiler.is_pending(world, scope, name)

    def affected(self, old_world: World, new_world: World, /) -> Affected:
        return Affected(everything=True)

    def generate(self, world: World, scope: Scope, type_url: str, names: frozenset[str] | None, /) -> Mapping[str, Message]:
        found = compiler.generate(world, scope, type_url, names)
        for name, message in found.items():
            if self.broken and isinstance(message, cluster_pb2.Cluster):
                message.connect_timeout.FromSeconds(-1 if self._host in name else 7)
        return found


def test_f08_of_a_hundred_changed_clusters_one_is_bad() -> None:
    """99 are applied, one keeps its old version, and `meshctl status` has the client's reason under the cluster's name."""
    names = [f"s{number}" for number in range(100)]
    bad = OneBadCluster("|s42.")
    world = shop(**{name: [9000 + number] for number, name in enumerate(names)})
    with ControlPlane(world, compile_with=bad) as control, client(control.address, *names) as stream:
        assert stream.store.wait(lambda snapshot, _: len(snapshot.targets) == 100, DEADLINE)
        bad.broken = True
        control.publish(world)

        def timeouts() -> dict[str, float]:
            return {
                authority: cluster.cluster.connect_timeout
                for authority, target in stream.store.current.targets.items()
                for cluster in target.clusters.values()
                if cluster.cluster is not None
            }

        until(lambda: sum(value == 7.0 for value in timeouts().values()) == 99, "99 applied")
        assert timeouts()["s42"] == 10.0
        assert ports(stream.store.current, "s42") == [9042]
        until(lambda: control.status().clients[0].types["CDS"].state == "NACK", "the NACK in the status")
        (rejected,) = control.status().clients[0].types["CDS"].rejected.items()
        assert "s42" in rejected[0]
        assert "connect_timeout" in rejected[1]


class Scripted:
    """A control service that answers the first request of every stream with fixed bytes."""

    def __init__(self, port: int, answers: Iterable[bytes]) -> None:
        self._answers = list(answers)
        self.requests: list[DeltaDiscoveryRequest] = []
        self._done = threading.Event()
        self._server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        handler = grpc.stream_stream_rpc_method_handler(self._answer)
        handlers = grpc.method_handlers_generic_handler(ADS_SERVICE, {"DeltaAggregatedResources": handler})
        self._server.add_generic_rpc_handlers((handlers,))
        self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()

    def stop(self) -> None:
        self._done.set()
        self._server.stop(0).wait(DEADLINE)

    def _answer(self, requests: Iterator[bytes], _: object) -> Iterator[bytes]:
        self.requests.append(DeltaDiscoveryRequest.FromString(next(requests)))
        yield from self._answers
        for request in requests:
            self.requests.append(DeltaDiscoveryRequest.FromString(request))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"\xff" * 1000, "not a DeltaDiscoveryResponse"),
        (bytes(channel.MAX_MESSAGE + 1), "RESOURCE_EXHAUSTED"),
    ],
    ids=["corrupted", "larger than 64 MiB"],
)
def test_f09_what_cannot_be_read_ends_the_stream_and_changes_nothing(answer: bytes, reason: str) -> None:
    with ControlPlane(shop(reviews=[9001])) as control, client(control.address, "reviews") as stream:
        known = reaches(stream, "reviews", 9001)
        control.stop()
        scripted = Scripted(control.port, [answer])
        assert stream.store.wait(lambda _, state: reason in state.reason, DEADLINE), stream.store.control_state
        assert stream.store.control_state.reach is Reach.UNREACHABLE
        assert stream.store.current is known
        scripted.stop()
        control.world = shop(reviews=[9002])
        control.start()
        reaches(stream, "reviews", 9002)


def test_f09_a_resource_of_an_unknown_type_is_refused_by_name() -> None:
    with ControlPlane(shop(reviews=[9001])) as control, client(control.address, "reviews") as stream:
        known = reaches(stream, "reviews", 9001)
        control.stop()
        strange = Resource(name="reviews", version="2")
        strange.resource.type_url = PREFIX + "acme.v1.Gadget"
        answer = DeltaDiscoveryResponse(type_url=LISTENER, nonce="1", resources=[strange])
        scripted = Scripted(control.port, [answer.SerializeToString()])
        until(lambda: [request for request in scripted.requests if "Gadget" in request.error_detail.message], "a NACK")
        assert ports(stream.store.current, "reviews") == ports(known, "reviews")
        scripted.stop()
        control.start()
        becomes(stream, Reach.CONNECTED)


def test_f09_a_client_that_sends_noise_costs_the_others_nothing() -> None:
    with ControlPlane(shop(reviews=[9001])) as control, client(control.address, "reviews") as stream:
        reaches(stream, "reviews", 9001)
        for noise in (b"\xff" * 100, b"", bytes(5 * 1024 * 1024)):
            with grpc.insecure_channel(control.address) as other:
                call = other.stream_stream(f"/{ADS_SERVICE}/DeltaAggregatedResources")(iter([noise]))
                with pytest.raises(grpc.RpcError) as refused:
                    next(call)
            assert refused.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)
        control.publish(shop(reviews=[9002]))
        reaches(stream, "reviews", 9002)


def test_a_connection_that_never_speaks_http2_is_given_up() -> None:
    """F05: a listener whose process is frozen accepts connections and says nothing."""
    with socket.socket() as silent, ControlPlane(shop(reviews=[9001])) as control:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]},{control.address}"
        with client(address, "reviews") as stream:
            reaches(stream, "reviews", 9001)


@pytest.mark.slow
def test_f28_three_hundred_clients_come_back_at_once() -> None:
    """All are in sync again; each is sent the one resource that changed; memory does not double."""
    options = argparse.Namespace(clients=300, services=100, endpoints=20, subscriptions=20, changes=1)
    figures = asyncio.run(measure(options))
    assert figures.resync_bytes_per_client < 0.01
    assert figures.restarted_rss_peak <= 2 * figures.server_rss
