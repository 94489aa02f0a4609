"""When the control service is told what a process has found out, and what becomes of it when it is away."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import cast

import grpc
import pytest

from meshlib.errors import NotReady
from meshlib.flow.limiting import Limiting
from meshlib.model.outcome import Outcome, Reset
from meshlib.model.report import ClusterReport, EndpointReport, LimitReport, Report
from meshlib.runtime.client import Client
from meshlib.runtime.reporting import REPEAT, Reporting
from meshlib.runtime.surroundings import Surroundings
from meshlib.testing import FakeClock, StaticControl, service, snapshot
from meshlib.xds.proto.registry_pb2 import ReportRequest
from meshlib.xds.reports import REPORT, encode_report

OPEN = Report((ClusterReport("outbound|80||reviews", circuit_breaker="open", retries=1),))
MORE = Report((ClusterReport("outbound|80||reviews", circuit_breaker="open", retries=9),))
HALF_OPEN = Report((ClusterReport("outbound|80||reviews", circuit_breaker="half-open", retries=9),))


class Channel:
    """Takes reports, or is away."""

    def __init__(self) -> None:
        self.told: list[ReportRequest] = []
        self.away = False
        self.asked = threading.Event()

    def get(self) -> grpc.Channel:
        self.asked.set()
        if self.away:
            raise NotReady("no certificate yet")
        return cast("grpc.Channel", self)

    def unary_unary(self, method: str) -> Callable[..., object]:
        assert method == REPORT
        return self._take

    def _take(self, data: bytes, *, timeout: float) -> None:
        assert 0.0 < timeout <= 5.0
        self.told.append(ReportRequest.FromString(data))


class Scene:
    def __init__(self) -> None:
        self.clock = FakeClock(100.0)
        self.channel = Channel()
        self.client = Client(StaticControl(snapshot()), surroundings=Surroundings(monotonic=self.clock.monotonic))
        self.client.destinations.publish(snapshot(service("reviews", ["10.0.0.1:80"])))
        self.serving = Limiting(threading.Lock(), self.clock.monotonic)
        self.reporting = Reporting(self.channel, lambda: "web-1", self.client, self.serving)

    def tell(self, report: Report) -> int:
        """How many reports have arrived in all."""
        self.reporting.tell(report)
        return len(self.channel.told)


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.reporting.close()
    scene.client.close()


def test_nothing_is_said_where_all_is_well(scene: Scene) -> None:
    assert scene.tell(scene.reporting.look()) == 0


def test_a_change_is_told_at_once_and_the_rest_in_its_time(scene: Scene) -> None:
    assert scene.tell(OPEN) == 1
    assert scene.tell(MORE) == 1  # only numbers are others
    assert scene.tell(HALF_OPEN) == 2
    scene.clock.advance(REPEAT - 0.1)
    assert scene.tell(HALF_OPEN) == 2
    scene.clock.advance(0.2)
    assert scene.tell(HALF_OPEN) == 3
    assert {report.instance_id for report in scene.channel.told} == {"web-1"}


def test_what_is_over_is_taken_back_once(scene: Scene) -> None:
    scene.tell(OPEN)
    assert scene.tell(Report()) == 2
    assert not scene.channel.told[-1].clusters
    scene.clock.advance(REPEAT + 1)
    assert scene.tell(Report()) == 2


def test_what_was_not_told_is_told_when_the_control_service_is_back(scene: Scene) -> None:
    scene.channel.away = True
    with pytest.raises(NotReady):
        scene.reporting.tell(OPEN)
    scene.channel.away = False
    assert scene.tell(OPEN) == 1


def test_what_cannot_be_taken_back_now_is_taken_back_later(scene: Scene) -> None:
    scene.tell(OPEN)
    scene.channel.away = True
    with pytest.raises(NotReady):
        scene.reporting.tell(Report())
    scene.channel.away = False
    assert scene.tell(Report()) == 2


def test_the_look_is_at_what_the_client_knows(scene: Scene) -> None:
    (upstream,) = scene.client.destinations.upstreams.values()
    host = upstream.hosts["10.0.0.1:80"]
    upstream.learn(host, Outcome(scene.clock.monotonic(), reset=Reset.CONNECT_FAILURE), scene.client._rng)
    (cluster,) = scene.reporting.look().clusters
    assert [(each.address, each.state) for each in cluster.endpoints] == [("10.0.0.1:80", "refusing")]


def test_a_process_that_ends_takes_back_what_it_has_told(scene: Scene) -> None:
    scene.tell(OPEN)
    scene.reporting.start()
    scene.reporting.start()
    scene.reporting.close()
    assert len(scene.channel.told) == 2
    assert not scene.channel.told[-1].clusters
    scene.reporting.start()  # too late: nothing begins any more
    assert "meshlib-reporting" not in {thread.name for thread in threading.enumerate()}


def test_one_that_has_told_nothing_ends_without_a_word(scene: Scene) -> None:
    scene.reporting.start()
    scene.reporting.close()
    assert scene.channel.told == []


def test_an_absent_control_service_disturbs_nobody(scene: Scene) -> None:
    scene.tell(OPEN)
    scene.channel.away = True
    scene.channel.asked.clear()
    scene.reporting.start()
    scene.reporting.close()
    assert scene.channel.asked.is_set()
    assert len(scene.channel.told) == 1


def test_a_forked_child_has_told_nothing_yet(scene: Scene) -> None:
    scene.tell(OPEN)
    scene.reporting.forget()
    assert scene.tell(OPEN) == 2


def test_a_report_on_the_wire() -> None:
    endpoint = EndpointReport("10.0.0.1:80", "ejected", "consecutive_5xx", 12.5)
    cluster = ClusterReport("outbound|80|v1|reviews", (endpoint,), "open", 3.5, 1, 8, 2, 3, 4, 5, 6, 7, 9, 10, 11)
    report = Report((cluster,), (LimitReport("ns/p/few", "server", 1, 2, 3),), truncated=True)
    told = ReportRequest.FromString(encode_report(report, "web-1"))
    assert (told.instance_id, told.truncated) == ("web-1", True)
    (found,) = told.clusters
    assert (found.name, found.circuit_breaker, found.circuit_breaker_left) == ("outbound|80|v1|reviews", "open", 3.5)
    assert [(each.address, each.state, each.reason, each.left) for each in found.endpoints] == [
        ("10.0.0.1:80", "ejected", "consecutive_5xx", 12.5)
    ]
    assert (found.circuit_breaker_rejected, found.concurrency_limit, found.concurrency_rejected) == (1, 8, 2)
    assert (found.active_requests, found.active_retries, found.allowed_retries) == (3, 4, 5)
    assert (found.retries, found.retry_overflow, found.pending_overflow) == (6, 7, 9)
    assert (found.hedges, found.hedges_refused) == (10, 11)
    (limit,) = told.limits
    assert (limit.id, limit.side, limit.allowed, limit.limited, limit.would_limit) == ("ns/p/few", "server", 1, 2, 3)
