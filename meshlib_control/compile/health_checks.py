"""ResiliencePolicy.healthChecks → Cluster.health_checks, for meshlib and Envoy.  gRPC has none."""

from __future__ import annotations

from base64 import b64decode

from meshlib.xds.proto import cluster_pb2
from meshlib_control.compile.retry_policy import duration
from meshlib_control.config.kinds.resilience_policy import HealthCheck, HTTPProbe, ProbePayload, ResiliencePolicy, TCPProbe
from meshlib_control.config.validate.health_checks import parse_statuses


def set_health_checks(result: cluster_pb2.Cluster, resilience: ResiliencePolicy | None, host: str, *, http2: bool) -> None:
    """`host`: the service's, which probes name unless they are told otherwise.  `http2`: its port speaks that.

    Without HTTP/2 there are no gRPC checks: Envoy refuses the cluster.
    """
    if resilience is None or result.type == cluster_pb2.Cluster.ORIGINAL_DST:  # whose endpoints nobody knows
        return
    for check in resilience.health_checks:
        if http2 or check.grpc is None:
            _set_check(result.health_checks.add(), check, host)


def _set_check(made: cluster_pb2.HealthCheck, check: HealthCheck, host: str) -> None:
    made.timeout.CopyFrom(duration(check.timeout))
    made.interval.CopyFrom(duration(check.interval))
    made.unhealthy_threshold.value = check.unhealthy_threshold
    made.healthy_threshold.value = check.healthy_threshold
    made.no_traffic_interval.CopyFrom(duration(check.no_traffic_interval))
    if check.interval_jitter:
        made.interval_jitter.CopyFrom(duration(check.interval_jitter))
    if check.port is not None:
        made.alt_port.value = check.port
    if check.http is not None:
        _set_http(made.http_health_check, check.http, host)
    elif check.tcp is not None:
        _set_tcp(made.tcp_health_check, check.tcp)
    elif check.grpc is not None:
        made.grpc_health_check.service_name = check.grpc.service
        made.grpc_health_check.authority = check.grpc.authority or host


def _set_http(made: cluster_pb2.HealthCheck.HttpHealthCheck, probe: HTTPProbe, host: str) -> None:
    made.path = probe.path
    made.host = probe.host or host
    for statuses in probe.expected_statuses:
        found = parse_statuses(statuses)
        if found is not None:
            made.expected_statuses.add(start=found[0], end=found[1])
    for name, value in probe.headers.items():
        header = made.request_headers_to_add.add().header
        header.key, header.value = name, value.replace("%", "%%")  # a command of Envoy's begins with one


def _set_tcp(made: cluster_pb2.HealthCheck.TcpHealthCheck, probe: TCPProbe) -> None:
    made.SetInParent()
    if probe.send is not None:
        made.send.text = _hexadecimal(probe.send)
    for payload in probe.receive:
        made.receive.add().text = _hexadecimal(payload)


def _hexadecimal(payload: ProbePayload) -> str:
    if payload.string is not None:
        return payload.string.encode().hex()
    return b64decode(payload.bytes or "").hex()
