"""DestinationRule.outlierDetection and the ejections of a ResiliencePolicy → Cluster.outlier_detection, for meshlib and Envoy.

Envoy has one interval, one base time and one maximum for all kinds of detection: those that the DestinationRule gives hold,
else those of failureRateEjection, else those of successRateEjection.  The maximum of a DestinationRule is Istio's to the
letter; that of a ResiliencePolicy lets one endpoint be ejected however few there are, as gRPC does (gRFC A50).
"""

from __future__ import annotations

from collections.abc import Iterable

from meshlib.xds.proto import cluster_pb2
from meshlib.xds.types import ENVOY_NAMES, pack
from meshlib_control.compile.retry_policy import duration
from meshlib_control.config.kinds import OutlierDetection
from meshlib_control.config.kinds.resilience_policy import FailureRateEjection, ResiliencePolicy, SuccessRateEjection

_HTTP_OPTIONS = ENVOY_NAMES["HttpProtocolOptions"]
_ALWAYS = 100  # percent of the detections that lead to an ejection


def set_outlier_detection(
    result: cluster_pb2.Cluster, rule: OutlierDetection | None, resilience: ResiliencePolicy | None = None
) -> None:
    """Istio's defaults: success rates eject nobody, and below `minHealthPercent` (0) of the endpoints all of them are used.

    For gRPC without the `rule`: it knows rates only (gRFC A50), nothing that counts failures in a row.
    """
    by_failures = resilience.failure_rate_ejection if resilience is not None else None
    by_successes = resilience.success_rate_ejection if resilience is not None else None
    if rule is None and by_failures is None and by_successes is None:
        return
    made = result.outlier_detection
    # What Envoy would enforce of itself.
    made.enforcing_success_rate.value = 0
    if rule is not None:
        _set_consecutive(made, rule)
        result.common_lb_config.healthy_panic_threshold.value = float(rule.min_health_percent or 0)
        if rule.outlier_detection_http_error_codes:
            _set_error_statuses(result, rule.outlier_detection_http_error_codes)
    else:
        made.enforcing_consecutive_5xx.value = 0
    _set_rates(made, by_failures, by_successes)
    _set_ejections(made, rule or OutlierDetection(), by_failures or by_successes)


def _set_consecutive(made: cluster_pb2.OutlierDetection, rule: OutlierDetection) -> None:
    """Zero switches a count off; one that is not given is Envoy's: five 5xx in a row, gateway errors not at all."""
    errors, gateway = rule.consecutive_5xx_errors, rule.consecutive_gateway_errors
    if rule.consecutive_errors and errors is None and gateway is None:
        errors, gateway = 0, rule.consecutive_errors  # what the field that went before them meant
    if errors is not None:
        made.consecutive_5xx.value = errors
        made.enforcing_consecutive_5xx.value = _ALWAYS if errors else 0
    if gateway is not None:
        made.consecutive_gateway_failure.value = gateway
        made.enforcing_consecutive_gateway_failure.value = _ALWAYS if gateway else 0
    if rule.split_external_local_origin_errors:
        made.split_external_local_origin_errors = True
        if rule.consecutive_local_origin_failures:
            made.consecutive_local_origin_failure.value = rule.consecutive_local_origin_failures
            made.enforcing_consecutive_local_origin_failure.value = _ALWAYS
        made.enforcing_local_origin_success_rate.value = 0


def _set_error_statuses(result: cluster_pb2.Cluster, statuses: Iterable[int]) -> None:
    """These count as errors, in the place of all from 500.  Envoy keeps it among the protocol's options."""
    packed = result.typed_extension_protocol_options
    options = cluster_pb2.HttpProtocolOptions()
    if _HTTP_OPTIONS in packed:
        options.ParseFromString(packed[_HTTP_OPTIONS].value)
    if options.WhichOneof("upstream_protocol_options") is None:
        options.explicit_http_config.http_protocol_options.SetInParent()
    matcher, distinct = options.outlier_detection.error_matcher, sorted(set(statuses))
    rules = [matcher.or_match.rules.add() for _ in distinct] if len(distinct) > 1 else [matcher]  # Envoy wants two, or none
    for rule, status in zip(rules, distinct, strict=True):
        header = rule.http_response_headers_match.headers.add(name=":status")
        header.string_match.exact = str(status)
    packed[_HTTP_OPTIONS].CopyFrom(pack(options))


def _set_rates(
    made: cluster_pb2.OutlierDetection, by_failures: FailureRateEjection | None, by_successes: SuccessRateEjection | None
) -> None:
    """Where connection failures are counted apart, they have their own rate, judged alike."""
    if by_failures is not None:
        made.failure_percentage_threshold.value = round(by_failures.threshold)
        made.failure_percentage_minimum_hosts.value = by_failures.min_hosts
        made.failure_percentage_request_volume.value = by_failures.request_volume
        made.enforcing_failure_percentage.value = _ALWAYS
        made.enforcing_failure_percentage_local_origin.value = _ALWAYS
    if by_successes is not None:
        made.success_rate_stdev_factor.value = round(by_successes.stdev_factor * 1000)
        made.success_rate_minimum_hosts.value = by_successes.min_hosts
        made.success_rate_request_volume.value = by_successes.request_volume
        made.enforcing_success_rate.value = _ALWAYS
        made.enforcing_local_origin_success_rate.value = _ALWAYS


def _set_ejections(
    made: cluster_pb2.OutlierDetection, rule: OutlierDetection, rates: FailureRateEjection | SuccessRateEjection | None
) -> None:
    interval = rule.interval or (rates.interval if rates is not None else None)
    base_ejection_time = rule.base_ejection_time or (rates.base_ejection_time if rates is not None else None)
    max_ejection_percent = rule.max_ejection_percent or None  # Istio cannot tell 0 from unset
    if max_ejection_percent is None and rates is not None:
        max_ejection_percent = rates.max_ejection_percent
        # A tenth of five endpoints is none.
        made.always_eject_one_host.value = max_ejection_percent > 0
    if interval:
        made.interval.CopyFrom(duration(interval))
    if base_ejection_time:
        made.base_ejection_time.CopyFrom(duration(base_ejection_time))
    if max_ejection_percent is not None:
        made.max_ejection_percent.value = max_ejection_percent
