"""The client's background thread against a real discovery service over real gRPC."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import pytest

from meshlib.errors import ConfigError
from meshlib.model.snapshot import Snapshot
from meshlib.model.workload import Workload
from meshlib.policy.backoff import Backoff
from meshlib.runtime import ads
from meshlib.runtime.ads import AdsStream
from meshlib.runtime.channel import ControlChannel
from meshlib.runtime.registration import Registration
from meshlib.runtime.settings import Settings
from meshlib.runtime.snapshots import Reach, SnapshotStore
from tests.support.control_plane import DEADLINE, ControlPlane, shop, until

QUICK = Backoff(initial=0.05, cap=0.2)


@contextmanager
def client(address: str, *authorities: str, instance: str = "caller-1") -> Iterator[AdsStream]:
    stream = AdsStream(address, Workload(service="caller", instance=instance), SnapshotStore(), rng=Random(1), backoff=QUICK)
    try:
        for authority in authorities:
            stream.request(authority)
        yield stream
    finally:
        stream.close()


def ports(snapshot: Snapshot, authority: str) -> list[int]:
    """Where calls to `authority` go."""
    target = snapshot.targets.get(authority)
    if target is None:
        return []
    return sorted(endpoint.port for cluster in target.clusters.values() for endpoint in cluster.endpoints)


def reaches(stream: AdsStream, authority: str, *expected: int) -> None:
    assert stream.store.wait(lambda snapshot, _: ports(snapshot, authority) == sorted(expected), DEADLINE)


def test_a_requested_authority_arrives_whole_and_follows_changes() -> None:
    with ControlPlane(shop(reviews=[9001, 9002])) as control, client(control.address, "reviews") as stream:
        reaches(stream, "reviews", 9001, 9002)
        assert stream.store.control_state.reach is Reach.CONNECTED
        control.publish(shop(reviews=[9002, 9003]))
        reaches(stream, "reviews", 9002, 9003)


def test_only_what_is_called_is_known() -> None:
    with ControlPlane(shop(reviews=[9001], ratings=[9002])) as control, client(control.address, "ratings") as stream:
        reaches(stream, "ratings", 9002)
        assert set(stream.store.current.targets) == {"ratings"}
        stream.request("reviews:80")
        reaches(stream, "reviews:80", 9001)


def test_a_host_outside_of_the_mesh_is_known_to_be_absent_at_once() -> None:
    with ControlPlane(shop(reviews=[9001])) as control, client(control.address, "example.com:443") as stream:
        assert stream.store.wait(lambda snapshot, _: "example.com:443" in snapshot.absent, DEADLINE)
        assert "does not exist" in stream.store.current.absent["example.com:443"]
        assert stream.store.current.allow_any is True


def test_outside_hosts_beyond_the_limit_are_let_go_and_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crawler must not grow with the hosts that it has seen; what is in the mesh stays, however old."""
    monkeypatch.setattr(ads, "MAX_AUTHORITIES", 10)
    with ControlPlane(shop(reviews=[9001])) as control, client(control.address, "reviews") as stream:
        reaches(stream, "reviews", 9001)
        for number in [*range(30), 0]:
            host = f"host{number}.example:80"
            stream.request(host)
            assert stream.store.wait(lambda snapshot, _, host=host: host in snapshot.absent, DEADLINE)  # type: ignore[misc]
        assert len(stream.store.current.absent) <= 10
        assert "host29.example:80" in stream.store.current.absent
        assert set(stream.store.current.targets) == {"reviews"}


def test_nothing_is_started_before_the_first_request() -> None:
    before = threading.active_count()
    stream = AdsStream("127.0.0.1:1", Workload(instance="idle"), SnapshotStore(), rng=Random(1))
    assert threading.active_count() == before
    assert stream.store.control_state.reach is Reach.IDLE
    stream.close()
    stream.request("reviews")
    assert threading.active_count() == before


def test_an_unreachable_control_service_is_known_as_such_with_its_reason() -> None:
    with client("127.0.0.1:1", "reviews") as stream:
        assert stream.store.wait(lambda _, control: control.reach is Reach.UNREACHABLE, DEADLINE)
        assert "127.0.0.1:1" in stream.store.control_state.reason
        assert "refused" in stream.store.control_state.reason


def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    with ControlPlane(shop(reviews=[9001])) as control, client(f"127.0.0.1:1,{control.address}", "reviews") as stream:
        reaches(stream, "reviews", 9001)
        assert stream.store.control_state.target == control.address


def test_a_failed_control_service_is_left_for_the_other_one() -> None:
    first, second = ControlPlane(shop(reviews=[9001])), ControlPlane(shop(reviews=[9002]))
    with first, second, client(f"{first.address},{second.address}", "reviews") as stream:
        reaches(stream, "reviews", 9001)
        first.stop()
        reaches(stream, "reviews", 9002)


@pytest.mark.parametrize("address", ["", "localhost", "host:port", "host:0", "a:1,b"])
def test_a_wrong_address_is_refused_at_once(address: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        ControlChannel(address)


async def test_waiting_for_a_snapshot_does_not_block_the_loop() -> None:
    with ControlPlane(shop(reviews=[9001])) as control, client(control.address) as stream:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        ticking = asyncio.create_task(tick())
        waiting = asyncio.create_task(stream.store.wait_async(lambda snapshot, _: "reviews" in snapshot.targets, DEADLINE))
        await asyncio.sleep(0)
        stream.request("reviews")
        assert await waiting
        ticking.cancel()
        assert ticks > 1


def test_the_control_service_sees_who_is_connected_and_what_it_has() -> None:
    with ControlPlane(shop(reviews=[9001])) as control, client(control.address, "reviews") as stream:
        reaches(stream, "reviews", 9001)
        until(lambda: {kind.state for kind in control.status().clients[0].types.values()} == {"SYNCED"}, "all ACKed")
        (status,) = control.status().clients
        assert (status.id, status.flavour, status.service, status.protocol) == ("caller-1", "meshlib", "caller", "delta")
        assert set(status.types) == {"LDS", "RDS", "CDS", "EDS"}
        assert status.types["EDS"].acked == status.types["EDS"].sent
    # The stream was closed: nobody is listed any more.


def test_a_closed_client_is_forgotten_by_the_control_service() -> None:
    with ControlPlane(shop(reviews=[9001])) as control:
        with client(control.address, "reviews") as stream:
            reaches(stream, "reviews", 9001)
        until(lambda: not control.status().clients, "no client left")


def test_no_thread_is_left_after_close() -> None:
    with ControlPlane(shop(reviews=[9001])) as control:
        with client(control.address, "reviews") as stream:
            reaches(stream, "reviews", 9001)
        until(
            lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("meshlib")], "no thread of ours"
        )


def settings(control: ControlPlane) -> Settings:
    return Settings(control=control.address, service="reviews", labels={"version": "v1"}, weight=3, service_port=9080)


@contextmanager
def registration(control: ControlPlane) -> Iterator[Registration]:
    wanted = settings(control)
    channel = ControlChannel(control.address)
    registered = Registration(channel, wanted, wanted.workload(), 9001, rng=Random(1))
    registered.start()
    try:
        yield registered
    finally:
        registered.close()
        channel.close()


def test_a_served_port_is_registered_renewed_and_deregistered() -> None:
    with ControlPlane() as control:
        with registration(control) as served:
            until(lambda: "renew" in control.registrations.heard, "a renewal")
            (known,) = control.registrations.known.values()
            assert (known.service, known.port, known.service_port, known.weight) == ("reviews", 9001, 9080, 3)
            assert known.labels == {"app": "reviews", "version": "v1"}
            assert known.address == "127.0.0.1"  # not given, so the one that it called from
            assert served.registered
        assert control.registrations.heard[-1] == "deregister"
        assert not control.registrations.known


def test_a_forgotten_registration_is_made_again() -> None:
    with ControlPlane() as control, registration(control):
        until(lambda: control.registrations.known, "registered")
        control.registrations.known.clear()
        until(lambda: control.registrations.known, "registered again")


def test_not_being_ready_is_told_at_once() -> None:
    with ControlPlane() as control, registration(control) as served:
        until(lambda: served.registered, "registered")
        served.set_ready(ready=False)
        until(lambda: list(control.registrations.ready.values()) == [False], "not ready")


def test_a_registration_survives_the_restart_of_the_control_service() -> None:
    with ControlPlane() as control, registration(control) as served:
        until(lambda: control.registrations.known, "registered")
        control.stop()
        until(lambda: served.error, "a failed renewal")
        assert "UNAVAILABLE" in served.error
        control.registrations.known.clear()
        control.start()
        until(lambda: control.registrations.known, "registered again")


def test_a_refused_registration_says_why_and_raises_nothing() -> None:
    with ControlPlane() as control:
        wanted = Settings(control=control.address, service="reviews", address="not-an-ip")
        channel = ControlChannel(control.address)
        served = Registration(channel, wanted, wanted.workload(), 9001, rng=Random(1))
        served.start()
        until(lambda: "not-an-ip" in served.error, "the reason")
        assert "INVALID_ARGUMENT" in served.error
        served.close()
        channel.close()
