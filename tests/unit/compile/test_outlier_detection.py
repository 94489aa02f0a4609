"""DestinationRule.outlierDetection and ResiliencePolicy → what clusters say, with Istio's defaults."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest
import yaml
from google.protobuf.json_format import MessageToDict

from meshlib.model.cluster import Cluster, HttpHealthCheck, OutlierDetection, TcpHealthCheck
from meshlib.xds.decode import decode
from meshlib.xds.proto import cluster_pb2
from meshlib.xds.types import CLUSTER, ENVOY_NAMES, pack
from meshlib_control.catalog.model import Port
from meshlib_control.compile import Flavour, Node, generate, scope_of
from meshlib_control.compile.health_checks import set_health_checks
from meshlib_control.compile.outlier_detection import set_outlier_detection
from meshlib_control.config import kinds
from meshlib_control.config.kinds.resilience_policy import ResiliencePolicy
from meshlib_control.config.schema import Reading, read
from tests.support.configuring import registered, world

S = TypeVar("S", kinds.OutlierDetection, ResiliencePolicy)


def compiled(rule: str = "", policy: str = "") -> cluster_pb2.Cluster:
    result = cluster_pb2.Cluster(name="c", type=cluster_pb2.Cluster.STATIC)
    detection = parsed(kinds.OutlierDetection, rule) if rule else None
    resilience = parsed(ResiliencePolicy, policy) if policy else None
    set_outlier_detection(result, detection, resilience)
    set_health_checks(result, resilience, "reviews.default.svc.cluster.local", http2=True)
    return result


def parsed(kind: type[S], text: str) -> S:
    reading = Reading()
    spec = read(kind, yaml.safe_load(text), reading)
    assert not reading.problems, reading.problems
    assert isinstance(spec, kind)
    return spec


def decoded(made: cluster_pb2.Cluster) -> Cluster:
    _, value = decode(CLUSTER, made.SerializeToString())
    assert isinstance(value, Cluster)
    return value


ON: dict[str, Any] = {"enforcing_success_rate": 0}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("{interval: 5s}", {"interval": "5s"}),
        ("{baseEjectionTime: 3m}", {"base_ejection_time": "180s"}),
        ("{maxEjectionPercent: 50}", {"max_ejection_percent": 50}),
        ("{maxEjectionPercent: 0, interval: 1s}", {"interval": "1s"}),  # Istio cannot tell 0 from unset
        ("{consecutive5xxErrors: 7}", {"consecutive_5xx": 7, "enforcing_consecutive_5xx": 100}),
        ("{consecutive5xxErrors: 0}", {"consecutive_5xx": 0, "enforcing_consecutive_5xx": 0}),
        ("{consecutiveGatewayErrors: 3}", {"consecutive_gateway_failure": 3, "enforcing_consecutive_gateway_failure": 100}),
        ("{consecutiveGatewayErrors: 0}", {"consecutive_gateway_failure": 0, "enforcing_consecutive_gateway_failure": 0}),
        (
            "{consecutiveErrors: 4}",
            {
                "consecutive_5xx": 0,
                "enforcing_consecutive_5xx": 0,
                "consecutive_gateway_failure": 4,
                "enforcing_consecutive_gateway_failure": 100,
            },
        ),
        ("{consecutiveErrors: 4, consecutive5xxErrors: 2}", {"consecutive_5xx": 2, "enforcing_consecutive_5xx": 100}),
        (
            "{splitExternalLocalOriginErrors: true}",
            {"split_external_local_origin_errors": True, "enforcing_local_origin_success_rate": 0},
        ),
        (
            "{splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 6}",
            {
                "split_external_local_origin_errors": True,
                "enforcing_local_origin_success_rate": 0,
                "consecutive_local_origin_failure": 6,
                "enforcing_consecutive_local_origin_failure": 100,
            },
        ),
    ],
)
def test_fields_of_a_destination_rule(rule: str, expected: dict[str, Any]) -> None:
    made = compiled(rule)
    assert MessageToDict(made.outlier_detection, preserving_proto_field_name=True) == ON | expected
    assert made.common_lb_config.healthy_panic_threshold.value == 0
    assert made.common_lb_config.HasField("healthy_panic_threshold")


def test_an_empty_block_switches_on_what_istio_switches_on() -> None:
    assert decoded(compiled("{interval: 10s}")).outlier_detection == OutlierDetection(enforcing_success_rate=0)


def test_the_least_share_of_healthy_endpoints_is_the_panic_threshold() -> None:
    assert compiled("{minHealthPercent: 40}").common_lb_config.healthy_panic_threshold.value == 40


def test_without_any_of_it_nothing_is_said() -> None:
    assert not compiled().HasField("outlier_detection")
    assert not compiled("", "{host: a, timeout: 1s}").HasField("outlier_detection")


def test_ejection_by_failure_rate_alone() -> None:
    found = decoded(compiled("", "{host: a, failureRateEjection: {threshold: 60, minHosts: 3, requestVolume: 10}}"))
    assert found.outlier_detection == OutlierDetection(
        enforcing_consecutive_5xx=0,
        enforcing_success_rate=0,
        failure_percentage_threshold=60,
        failure_percentage_minimum_hosts=3,
        failure_percentage_request_volume=10,
        enforcing_failure_percentage=100,
        enforcing_failure_percentage_local_origin=100,
        always_eject_one_host=True,
    )


def test_ejection_by_success_rate_alone() -> None:
    policy = "{host: a, successRateEjection: {stdevFactor: 1.5, minHosts: 3, requestVolume: 10, maxEjectionPercent: 30}}"
    assert decoded(compiled("", policy)).outlier_detection == OutlierDetection(
        enforcing_consecutive_5xx=0,
        success_rate_stdev_factor=1500,
        success_rate_minimum_hosts=3,
        success_rate_request_volume=10,
        max_ejection_percent=30,
        always_eject_one_host=True,
    )


def test_what_the_destination_rule_gives_holds() -> None:
    policy = "{host: a, failureRateEjection: {interval: 1s, baseEjectionTime: 2s, maxEjectionPercent: 30}}"
    found = decoded(compiled("{interval: 7s, consecutive5xxErrors: 2}", policy)).outlier_detection
    assert found is not None
    assert (found.interval, found.base_ejection_time, found.max_ejection_percent) == (7.0, 2.0, 30)
    assert (found.consecutive_5xx, found.enforcing_consecutive_5xx, found.enforcing_failure_percentage) == (2, 100, 100)


@pytest.mark.parametrize(
    ("rule", "policy", "always"),
    [
        ("", "{}", True),
        ("", "{maxEjectionPercent: 50}", True),
        ("", "{maxEjectionPercent: 0}", False),
        ("{}", "{}", True),
        ("{maxEjectionPercent: 10}", "{}", False),
    ],
)
def test_a_policys_default_ejects_one_of_a_few_and_a_rules_own_share_is_istios(rule: str, policy: str, *, always: bool) -> None:
    found = decoded(compiled(rule, f"{{host: a, failureRateEjection: {policy}}}")).outlier_detection
    assert found is not None
    assert found.always_eject_one_host is always


def test_health_checks() -> None:
    policy = """
    host: a
    healthChecks:
    - http: {path: /healthz, expectedStatuses: ["200-204", "301"], headers: {x-a: "5%"}}
      interval: 3s
      timeout: 500ms
      unhealthyThreshold: 4
      healthyThreshold: 1
      port: 8081
      intervalJitter: 100ms
      noTrafficInterval: 9s
    """
    (found,) = decoded(compiled("", policy)).health_checks
    host = "reviews.default.svc.cluster.local"
    assert found.check == HttpHealthCheck("/healthz", host, ((200, 205), (301, 302)), ((b"x-a", b"5%"),))
    assert (found.interval, found.timeout, found.unhealthy_threshold, found.healthy_threshold) == (3.0, 0.5, 4, 1)
    assert (found.port, found.interval_jitter, found.no_traffic_interval) == (8081, 0.1, 9.0)


def test_payloads_of_tcp_checks_are_text_or_bytes() -> None:
    policy = "{host: a, healthChecks: [{tcp: {send: {string: PING}, receive: [{bytes: UE9ORw==}]}}]}"
    (found,) = decoded(compiled("", policy)).health_checks
    assert found.check == TcpHealthCheck(b"PING", (b"PONG",))


@pytest.mark.parametrize("codes", [[404], [404, 503, 404]])
def test_statuses_that_count_as_errors(codes: list[int]) -> None:
    found = decoded(compiled(f"{{outlierDetectionHttpErrorCodes: {codes}}}")).outlier_detection
    assert found is not None
    assert found.error_statuses == set(codes)


def test_statuses_that_count_as_errors_leave_the_other_options_of_the_protocol_alone() -> None:
    result = cluster_pb2.Cluster(name="c", type=cluster_pb2.Cluster.STATIC)
    options = cluster_pb2.HttpProtocolOptions()
    options.common_http_protocol_options.idle_timeout.seconds = 7
    options.explicit_http_config.http2_protocol_options.SetInParent()
    packed = result.typed_extension_protocol_options[ENVOY_NAMES["HttpProtocolOptions"]]
    packed.CopyFrom(pack(options))
    set_outlier_detection(result, parsed(kinds.OutlierDetection, "{outlierDetectionHttpErrorCodes: [404, 503]}"))
    after = cluster_pb2.HttpProtocolOptions.FromString(packed.value)
    assert after.explicit_http_config.HasField("http2_protocol_options")
    assert decoded(result).idle_timeout == 7.0


CONFIG = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec: {host: reviews, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 2}}}
---
apiVersion: meshlib.io/v1
kind: ResiliencePolicy
metadata: {name: reviews}
spec:
  host: reviews
  failureRateEjection: {threshold: 60}
  healthChecks: [{grpc: {service: reviews}}]
"""
CLUSTER_NAME = "outbound|80||reviews.default.svc.cluster.local"


@pytest.mark.parametrize(
    ("flavour", "consecutive", "probes"), [("meshlib", True, True), ("envoy", True, True), ("grpc", False, False)]
)
def test_each_flavour_gets_what_it_executes(flavour: Flavour, consecutive: bool, probes: bool) -> None:
    """Clients of gRPC know rates only, and no checks."""
    current = world(CONFIG, services=[registered("reviews", ports=(Port(80, "grpc"),))])
    message = generate(current, scope_of(current, Node(flavour=flavour)), CLUSTER, [CLUSTER_NAME])[CLUSTER_NAME]
    assert isinstance(message, cluster_pb2.Cluster)
    assert message.outlier_detection.enforcing_failure_percentage.value == 100
    assert (message.outlier_detection.consecutive_5xx.value == 2) is consecutive
    assert bool(message.health_checks) is probes


def test_a_check_by_grpc_is_for_ports_that_speak_http2() -> None:
    """Envoy refuses the cluster otherwise."""
    current = world(CONFIG, services=[registered("reviews")])
    message = generate(current, scope_of(current, Node()), CLUSTER, [CLUSTER_NAME])[CLUSTER_NAME]
    assert isinstance(message, cluster_pb2.Cluster)
    assert not message.health_checks
