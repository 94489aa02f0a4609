"""Outlier detection and health checks of clusters: Envoy's defaults, Envoy's rules, nothing dropped."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from google.protobuf.json_format import ParseDict

from meshlib.model.cluster import Cluster, GrpcHealthCheck, HealthCheck, HttpHealthCheck, OutlierDetection, TcpHealthCheck
from meshlib.xds.decode import decode
from meshlib.xds.invalid import ResourceInvalid
from meshlib.xds.proto import cluster_pb2
from meshlib.xds.types import CLUSTER, ENVOY_NAMES, pack

Edit = Callable[[cluster_pb2.Cluster], object]
NEEDED = {"timeout": "1s", "interval": "5s", "unhealthy_threshold": 3, "healthy_threshold": 2}


def decoded(**fields: object) -> Cluster:
    made = ParseDict({"name": "c", "type": "STATIC", **fields}, cluster_pb2.Cluster())
    _, value = decode(CLUSTER, made.SerializeToString())
    assert isinstance(value, Cluster)
    return value


def refusal(**fields: object) -> str:
    with pytest.raises(ResourceInvalid) as caught:
        decoded(**fields)
    return str(caught.value)


def test_none_of_both_is_the_default() -> None:
    assert (decoded().outlier_detection, decoded().health_checks) == (None, ())


def test_an_empty_detection_has_envoys_defaults() -> None:
    assert decoded(outlier_detection={}).outlier_detection == OutlierDetection()


def test_every_field_of_a_detection() -> None:
    counts = {
        "consecutive_5xx": 1,
        "max_ejection_percent": 2,
        "enforcing_consecutive_5xx": 3,
        "enforcing_success_rate": 4,
        "success_rate_minimum_hosts": 5,
        "success_rate_request_volume": 6,
        "success_rate_stdev_factor": 7,
        "consecutive_gateway_failure": 8,
        "enforcing_consecutive_gateway_failure": 9,
        "consecutive_local_origin_failure": 10,
        "enforcing_consecutive_local_origin_failure": 11,
        "enforcing_local_origin_success_rate": 12,
        "failure_percentage_threshold": 13,
        "enforcing_failure_percentage": 14,
        "enforcing_failure_percentage_local_origin": 15,
        "failure_percentage_minimum_hosts": 16,
        "failure_percentage_request_volume": 17,
    }
    times = {"interval": 1.5, "base_ejection_time": 2.5, "max_ejection_time": 3.5, "max_ejection_time_jitter": 0.5}
    flags = {
        "split_external_local_origin_errors": True,
        "successful_active_health_check_uneject_host": False,
        "always_eject_one_host": True,
    }
    written = {**counts, **{name: f"{value}s" for name, value in times.items()}, **flags}
    assert decoded(outlier_detection=written).outlier_detection == OutlierDetection(**counts, **times, **flags)  # type: ignore[arg-type]


def test_the_longest_ejection_is_no_shorter_than_a_long_base_time() -> None:
    found = decoded(outlier_detection={"base_ejection_time": "400s"}).outlier_detection
    assert found is not None
    assert found.max_ejection_time == 400.0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("interval", "0s"),
        ("base_ejection_time", "0s"),
        ("max_ejection_time", "0s"),
        ("max_ejection_time", "29s"),
        ("max_ejection_percent", 101),
        ("enforcing_success_rate", 101),
        ("failure_percentage_threshold", 101),
    ],
)
def test_what_envoy_refuses_of_a_detection_is_refused(field: str, value: object) -> None:
    assert f"outlier_detection.{field}" in refusal(outlier_detection={field: value})


def test_an_unknown_field_is_refused() -> None:
    made = cluster_pb2.Cluster(name="c", type=cluster_pb2.Cluster.STATIC)
    made.outlier_detection.SetInParent()
    data = made.SerializeToString()
    assert b"\x9a\x01\x00" in data
    monitors = data.replace(b"\x9a\x01\x00", b"\x9a\x01\x03\xc2\x01\x00")  # field 24 of the detection
    with pytest.raises(ResourceInvalid, match="field number 24"):
        decode(CLUSTER, monitors)


def checks(**fields: object) -> HealthCheck:
    (found,) = decoded(health_checks=[{**NEEDED, **fields}]).health_checks
    return found


def test_an_http_check() -> None:
    found = checks(
        http_health_check={
            "path": "/healthz?full",
            "host": "h",
            "expected_statuses": [{"start": 200, "end": 205}, {"start": 301, "end": 302}],
            "request_headers_to_add": [{"header": {"key": "X-Probe", "value": "5%%"}}],
        }
    )
    probe = HttpHealthCheck("/healthz?full", "h", ((200, 205), (301, 302)), ((b"x-probe", b"5%"),))
    assert found == HealthCheck(probe, timeout=1.0, interval=5.0, unhealthy_threshold=3, healthy_threshold=2)


def test_a_tcp_check() -> None:
    found = checks(tcp_health_check={"send": {"text": "0aFF"}, "receive": [{"text": "00"}, {"binary": "YWI="}]})
    assert found.check == TcpHealthCheck(b"\x0a\xff", (b"\x00", b"ab"))
    assert checks(tcp_health_check={}).check == TcpHealthCheck()


def test_a_grpc_check() -> None:
    assert checks(grpc_health_check={"service_name": "s", "authority": "a"}).check == GrpcHealthCheck("s", "a")


def test_every_time_of_a_check() -> None:
    times = {
        "initial_jitter": 1.0,
        "interval_jitter": 2.0,
        "no_traffic_interval": 3.0,
        "no_traffic_healthy_interval": 4.0,
        "unhealthy_interval": 5.0,
        "unhealthy_edge_interval": 6.0,
        "healthy_edge_interval": 7.0,
    }
    found = checks(
        tcp_health_check={}, alt_port=81, interval_jitter_percent=9, **{name: f"{value}s" for name, value in times.items()}
    )
    assert {name: getattr(found, name) for name in times} == times
    assert (found.port, found.interval_jitter_percent) == (81, 9)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "health_checks[0]: no health_checker"),
        ({"http_health_check": {"path": ""}}, "http_health_check.path"),
        ({"http_health_check": {"path": "/", "expected_statuses": [{"start": 99, "end": 200}]}}, "expected_statuses[0]"),
        ({"http_health_check": {"path": "/", "expected_statuses": [{"start": 200, "end": 200}]}}, "expected_statuses[0]"),
        ({"http_health_check": {"path": "/", "request_headers_to_add": [{"header": {"key": "host"}}]}}, "header.key"),
        ({"tcp_health_check": {"send": {"text": "xyz"}}}, "tcp_health_check.send[0].text"),
        ({"tcp_health_check": {"receive": [{"binary": ""}]}}, "tcp_health_check.receive[0]"),
        ({"tcp_health_check": {}, "timeout": "0s"}, "health_checks[0].timeout"),
        ({"tcp_health_check": {}, "interval": "0s"}, "health_checks[0].interval"),
        ({"tcp_health_check": {}, "no_traffic_interval": "0s"}, "health_checks[0].no_traffic_interval"),
        ({"tcp_health_check": {}, "alt_port": 65536}, "health_checks[0].alt_port"),
    ],
)
def test_what_envoy_refuses_of_a_check_is_refused(fields: dict[str, object], field: str) -> None:
    assert field in refusal(health_checks=[{**NEEDED, **fields}])


@pytest.mark.parametrize("missing", sorted(NEEDED))
def test_what_a_check_must_have(missing: str) -> None:
    given = {name: value for name, value in NEEDED.items() if name != missing}
    assert f"health_checks[0].{missing}: unset" in refusal(health_checks=[{**given, "tcp_health_check": {}}])


def test_two_checks_are_refused_as_envoy_refuses_them() -> None:
    assert "health_checks: 2 checks" in refusal(health_checks=[{**NEEDED, "tcp_health_check": {}}] * 2)


HTTP_OPTIONS = ENVOY_NAMES["HttpProtocolOptions"]


def with_matcher(matcher: object) -> Cluster:
    options = ParseDict(
        {"explicit_http_config": {}, "outlier_detection": {"error_matcher": matcher}}, cluster_pb2.HttpProtocolOptions()
    )
    made = cluster_pb2.Cluster(name="c", type=cluster_pb2.Cluster.STATIC)
    made.outlier_detection.SetInParent()
    made.typed_extension_protocol_options[HTTP_OPTIONS].CopyFrom(pack(options))
    _, value = decode(CLUSTER, made.SerializeToString())
    assert isinstance(value, Cluster)
    return value


def rule(**header: object) -> dict[str, object]:
    return {"http_response_headers_match": {"headers": [header]}}


EXACT = [rule(name=":status", string_match={"exact": text}) for text in ("404", "503")]


@pytest.mark.parametrize(("matcher", "statuses"), [(EXACT[0], {404}), ({"or_match": {"rules": EXACT}}, {404, 503})])
def test_statuses_that_count_as_errors(matcher: object, statuses: set[int]) -> None:
    found = with_matcher(matcher).outlier_detection
    assert found is not None
    assert found.error_statuses == statuses


@pytest.mark.parametrize(
    "matcher",
    [
        {},
        {"or_match": {}},
        {"or_match": {"rules": [EXACT[0], {"or_match": {"rules": EXACT}}]}},
        rule(name="x-status", string_match={"exact": "404"}),
        rule(name=":status", string_match={"prefix": "4"}),
        rule(name=":status", string_match={"exact": "4xx"}),
        rule(name=":status", string_match={"exact": "404"}, invert_match=True),
        {"http_response_headers_match": {"headers": [{"name": ":status", "string_match": {"exact": "404"}}] * 2}},
    ],
)
def test_other_matchers_of_errors_are_refused(matcher: object) -> None:
    with pytest.raises(ResourceInvalid, match="error_matcher"):
        with_matcher(matcher)
