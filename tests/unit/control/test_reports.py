"""What callers tell, in the control service's memory: bounded, plain, forgotten in time."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import pytest

from meshlib.xds.proto.registry_pb2 import ClusterReport, ReportRequest
from meshlib_control import reports as module
from meshlib_control.reports import MAX_BYTES, MAX_PROCESSES, MAX_REPORT, TTL, InvalidReport, Reporter, Reports, TooMuch

A, B = "spiffe://td/ns/default/sa/a", "spiffe://td/ns/default/sa/b"
CLUSTER = "outbound|80||reviews.default.svc.cluster.local"

FILLER = ClusterReport(name=f"outbound|80||{'x' * 300}")
FRAME = 3  # bytes around it


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reports(clock: Clock) -> Reports:
    return Reports(clock)


def message(instance: str = "a-1", *, size: int = 0) -> ReportRequest:
    """`size`: bytes that it has at least."""
    report = ReportRequest(instance_id=instance)
    cluster = report.clusters.add(name=CLUSTER, circuit_breaker="open")
    cluster.endpoints.add(address="10.0.0.1:80", state="ejected", reason="consecutive_5xx", left=3.0)
    for _ in range(ceil((size - report.ByteSize()) / (FILLER.ByteSize() + FRAME))):
        report.clusters.append(FILLER)
    return report


def take(reports: Reports, identity: str = A, instance: str = "a-1", *, size: int = 0) -> None:
    reports.take(identity, message(instance, size=size).SerializeToString())


def known(reports: Reports) -> list[Reporter]:
    return [reporter for reporter, _ in reports.current]


def test_the_newest_report_of_a_process_counts_for_so_long(reports: Reports, clock: Clock) -> None:
    take(reports)
    clock.now = TTL / 2
    take(reports)
    take(reports, B, "b-1")
    assert known(reports) == [Reporter(A, "a-1"), Reporter(B, "b-1")]
    clock.now = TTL * 1.5
    assert len(reports.current) == 2
    clock.now += 0.1
    assert reports.current == []
    assert reports.size == 0


def test_an_empty_report_takes_the_one_before_back(reports: Reports) -> None:
    take(reports)
    take(reports, instance="a-2")
    reports.take(A, ReportRequest(instance_id="a-1").SerializeToString())
    assert known(reports) == [Reporter(A, "a-2")]


def test_nobody_takes_back_what_another_identity_has_told(reports: Reports) -> None:
    """The same process name under another certificate is another process."""
    take(reports)
    reports.take(B, ReportRequest(instance_id="a-1").SerializeToString())
    take(reports, B, "a-1")
    assert known(reports) == [Reporter(A, "a-1"), Reporter(B, "a-1")]


def test_too_long_a_report_is_refused_before_it_is_read(reports: Reports) -> None:
    with pytest.raises(TooMuch):
        take(reports, size=MAX_REPORT + 1)
    take(reports, size=MAX_REPORT - 400)
    assert known(reports) == [Reporter(A, "a-1")]


def test_one_identity_has_room_for_so_many_processes_and_puts_out_only_its_own(reports: Reports) -> None:
    take(reports, B, "b-1")
    for number in range(MAX_PROCESSES + 5):
        take(reports, A, f"a-{number}")
    found = known(reports)
    assert sum(reporter.identity == A for reporter in found) == MAX_PROCESSES
    assert Reporter(B, "b-1") in found
    assert Reporter(A, "a-0") not in found
    assert Reporter(A, f"a-{MAX_PROCESSES + 4}") in found


def test_one_identity_has_room_for_so_many_bytes(reports: Reports) -> None:
    for number in range(60):
        take(reports, A, f"a-{number}", size=MAX_REPORT - 400)
        assert reports.size <= MAX_BYTES
    take(reports, B, "b-1")
    assert Reporter(B, "b-1") in known(reports)


def test_all_identities_together_have_room_for_so_many_bytes(reports: Reports, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TOTAL", 5 * MAX_REPORT)
    refused = 0
    for number in range(10):
        try:
            take(reports, f"{A}{number}", size=MAX_REPORT - 400)
        except TooMuch:
            refused += 1
    assert refused == 5
    assert reports.size <= 5 * MAX_REPORT


def change(edit: Callable[[ReportRequest], object]) -> bytes:
    report = message()
    report.limits.add(id="default/p/few", side="client", limited=1)
    edit(report)
    return report.SerializeToString()


def test_what_a_process_says_is_taken(reports: Reports) -> None:
    """The control of what follows."""
    reports.take(A, change(lambda report: None))
    assert known(reports) == [Reporter(A, "a-1")]


@pytest.mark.parametrize(
    "edit",
    [
        lambda report: setattr(report, "instance_id", ""),
        lambda report: setattr(report, "instance_id", "a\x1b[2J"),
        lambda report: setattr(report.clusters[0], "name", "outbound|80||a\nb"),
        lambda report: setattr(report.clusters[0], "name", "x" * 401),
        lambda report: setattr(report.clusters[0], "circuit_breaker", "ajar"),
        lambda report: setattr(report.clusters[0], "circuit_breaker_left", float("nan")),
        lambda report: setattr(report.clusters[0], "retries", 2**64 - 1),
        lambda report: setattr(report.clusters[0].endpoints[0], "address", "10.0.0.1:80 \x1b[31m"),
        lambda report: setattr(report.clusters[0].endpoints[0], "state", "haunted"),
        lambda report: setattr(report.clusters[0].endpoints[0], "reason", "\x1b]0;owned\x07"),
        lambda report: setattr(report.clusters[0].endpoints[0], "reason", "x" * 81),
        lambda report: setattr(report.clusters[0].endpoints[0], "left", float("inf")),
        lambda report: setattr(report.clusters[0].endpoints[0], "left", -1.0),
        lambda report: setattr(report.limits[0], "id", ""),
        lambda report: setattr(report.limits[0], "side", "inside"),
        lambda report: setattr(report.limits[0], "limited", 2**64 - 1),
    ],
)
def test_what_no_process_would_say_is_refused(reports: Reports, edit: Callable[[ReportRequest], object]) -> None:
    """It would end up on an operator's screen, or in a sum that has no room for it."""
    with pytest.raises(InvalidReport):
        reports.take(A, change(edit))
    assert reports.current == []


def test_bytes_that_are_no_report_are_refused(reports: Reports) -> None:
    with pytest.raises(InvalidReport, match="ReportRequest"):
        reports.take(A, b"\xff\xff")
