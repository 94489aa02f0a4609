"""WorkloadGroup's readiness probe → what a process that joins the group is told to ask itself."""

from __future__ import annotations

from typing import Final

from meshlib.xds.proto import registry_pb2
from meshlib_control.compile.retry_policy import duration
from meshlib_control.config.kinds import HTTPProbe, ReadinessProbe

TIMEOUT: Final = 1
PERIOD: Final = 10
SUCCESSES: Final = 1
FAILURES: Final = 3
"""Kubernetes' defaults, which are Istio's; 0 stands for them, too."""

_READY: Final = (200, 400)


def probe_message(probe: ReadinessProbe) -> registry_pb2.Probe:
    """In Envoy's form of a health check, with where to and when to begin."""
    made = registry_pb2.Probe()
    made.initial_delay.CopyFrom(duration(probe.initial_delay_seconds or 0))
    check = made.check
    check.timeout.CopyFrom(duration(probe.timeout_seconds or TIMEOUT))
    check.interval.CopyFrom(duration(probe.period_seconds or PERIOD))
    check.healthy_threshold.value = probe.success_threshold or SUCCESSES
    check.unhealthy_threshold.value = probe.failure_threshold or FAILURES
    if probe.http_get is not None:
        _set_http(made, probe.http_get)
    elif probe.tcp_socket is not None:
        made.port, made.address = probe.tcp_socket.port, probe.tcp_socket.host or ""
        check.tcp_health_check.SetInParent()
    elif probe.grpc is not None:
        made.port = probe.grpc.port or 0
        check.grpc_health_check.service_name = probe.grpc.service or ""
    return made


def _set_http(made: registry_pb2.Probe, probe: HTTPProbe) -> None:
    made.port, made.address = probe.port, probe.host or ""
    check = made.check.http_health_check
    check.path = probe.path or "/"
    check.host = probe.host or "localhost"
    check.expected_statuses.add(start=_READY[0], end=_READY[1])
    for header in probe.http_headers:
        added = check.request_headers_to_add.add().header
        added.key = header.name or ""
        added.value = (header.value or "").replace("%", "%%")  # a command of Envoy's begins with one
