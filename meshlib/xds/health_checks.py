"""Cluster.health_checks → model, with Envoy's defaults and Envoy's rules of what is valid (``core.v3.HealthCheck``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from meshlib.model.cluster import GrpcHealthCheck, HealthCheck, HttpHealthCheck, TcpHealthCheck
from meshlib.xds.fields import seconds
from meshlib.xds.header_changes import decode_header_values
from meshlib.xds.invalid import Problems
from meshlib.xds.proto import cluster_pb2

_Check = cluster_pb2.HealthCheck

_FIELD: Final = "health_checks"
_NO_TRAFFIC: Final = 60.0
_HEALTHY: Final = ((200, 201),)
_LARGEST_PORT: Final = 65535


def decode_health_checks(cluster: cluster_pb2.Cluster, problems: Problems) -> tuple[HealthCheck, ...]:
    """One at most: Envoy takes no more, either.  Fields that are unknown have been reported by then."""
    if len(cluster.health_checks) > 1:
        problems.describe(_FIELD, f"{len(cluster.health_checks)} checks", "one at most")
    return tuple(_check(item, problems, f"{_FIELD}[{index}]") for index, item in enumerate(cluster.health_checks))


def _check(item: _Check, problems: Problems, field: str) -> HealthCheck:
    def time(name: str, *, needed: bool = False, zero: bool = False, default: float = 0.0) -> float:
        if not item.HasField(name):
            if needed:
                problems.describe(f"{field}.{name}", "unset", "a duration")
            return default
        value = seconds(getattr(item, name), field=f"{field}.{name}", problems=problems)
        if value <= 0 and not zero:
            problems.describe(f"{field}.{name}", f"{value:g}s", "more than zero")
        return value

    if item.alt_port.value > _LARGEST_PORT:
        problems.add(f"{field}.alt_port", item.alt_port.value, f"at most {_LARGEST_PORT}")
    return HealthCheck(
        check=_way(item, problems, field),
        timeout=time("timeout", needed=True),
        interval=time("interval", needed=True),
        unhealthy_threshold=_threshold(item, "unhealthy_threshold", problems, field),
        healthy_threshold=_threshold(item, "healthy_threshold", problems, field),
        initial_jitter=time("initial_jitter", zero=True),
        interval_jitter=time("interval_jitter", zero=True),
        interval_jitter_percent=item.interval_jitter_percent,
        port=item.alt_port.value,
        no_traffic_interval=time("no_traffic_interval", default=_NO_TRAFFIC),
        no_traffic_healthy_interval=time("no_traffic_healthy_interval"),
        unhealthy_interval=time("unhealthy_interval"),
        unhealthy_edge_interval=time("unhealthy_edge_interval"),
        healthy_edge_interval=time("healthy_edge_interval"),
    )


def _threshold(item: _Check, name: str, problems: Problems, field: str) -> int:
    if not item.HasField(name):
        problems.describe(f"{field}.{name}", "unset", "a number of probes")
        return 1
    value: int = getattr(item, name).value
    return max(value, 1)


def _way(item: _Check, problems: Problems, field: str) -> HttpHealthCheck | TcpHealthCheck | GrpcHealthCheck:
    kind = item.WhichOneof("health_checker")
    if kind == "http_health_check":
        return _http(item.http_health_check, problems, f"{field}.{kind}")
    if kind == "tcp_health_check":
        return _tcp(item.tcp_health_check, problems, f"{field}.{kind}")
    if kind is None:
        problems.describe(field, "no health_checker", "http_health_check, tcp_health_check or grpc_health_check")
    return GrpcHealthCheck(item.grpc_health_check.service_name, item.grpc_health_check.authority)


def _http(http: _Check.HttpHealthCheck, problems: Problems, field: str) -> HttpHealthCheck:
    if not http.path.startswith("/"):
        problems.add(f"{field}.path", http.path, "a path, which starts with /")
    added = decode_header_values(http.request_headers_to_add, problems, field=f"{field}.request_headers_to_add")
    statuses = tuple((item.start, item.end) for item in http.expected_statuses)
    for index, (start, end) in enumerate(statuses):
        if not 100 <= start < end <= 600:
            problems.describe(f"{field}.expected_statuses[{index}]", f"[{start}, {end})", "a range within [100, 600)")
    headers = tuple((header.name, header.value) for header in added)
    return HttpHealthCheck(http.path, http.host, statuses or _HEALTHY, headers)


def _tcp(tcp: _Check.TcpHealthCheck, problems: Problems, field: str) -> TcpHealthCheck:
    sent = _payloads([tcp.send] if tcp.HasField("send") else [], problems, f"{field}.send")
    received = _payloads(tcp.receive, problems, f"{field}.receive")
    return TcpHealthCheck(sent[0] if sent else b"", received)


def _payloads(payloads: Iterable[_Check.Payload], problems: Problems, field: str) -> tuple[bytes, ...]:
    found: list[bytes] = []
    for index, payload in enumerate(payloads):
        where = f"{field}[{index}]"
        try:
            data = bytes.fromhex(payload.text) if payload.WhichOneof("payload") == "text" else payload.binary
        except ValueError:
            problems.add(f"{where}.text", payload.text, "bytes in hexadecimal")
            continue
        if not data:
            problems.describe(where, "empty", "bytes")
        found.append(data)
    return tuple(found)
