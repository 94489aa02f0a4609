"""Cluster.outlier_detection → model, with Envoy's defaults and Envoy's rules of what is valid."""

from __future__ import annotations

import re
from typing import Final

from google.protobuf.duration_pb2 import Duration

from meshlib.model.cluster import OutlierDetection
from meshlib.xds.fields import seconds
from meshlib.xds.invalid import Problems
from meshlib.xds.proto import cluster_pb2, core_pb2, route_pb2

_STATUS = re.compile(r"[1-5][0-9]{2}")
_FIELD: Final = "outlier_detection"
_DEFAULTS: Final = OutlierDetection()

_COUNTS: Final = (
    "consecutive_5xx",
    "consecutive_gateway_failure",
    "consecutive_local_origin_failure",
    "success_rate_minimum_hosts",
    "success_rate_request_volume",
    "success_rate_stdev_factor",
    "failure_percentage_minimum_hosts",
    "failure_percentage_request_volume",
)
_PERCENTAGES: Final = (
    "max_ejection_percent",
    "enforcing_consecutive_5xx",
    "enforcing_consecutive_gateway_failure",
    "enforcing_consecutive_local_origin_failure",
    "enforcing_success_rate",
    "enforcing_local_origin_success_rate",
    "failure_percentage_threshold",
    "enforcing_failure_percentage",
    "enforcing_failure_percentage_local_origin",
)


def decode_outlier_detection(
    cluster: cluster_pb2.Cluster, error_statuses: frozenset[int], problems: Problems
) -> OutlierDetection | None:
    """None: the cluster has none.  Fields that are unknown have been reported by then."""
    if not cluster.HasField("outlier_detection"):
        return None
    found = cluster.outlier_detection
    counts = {name: _count(found, name) for name in _COUNTS}
    percentages = {name: _percentage(found, name, problems) for name in _PERCENTAGES}
    base = _positive(found, "base_ejection_time", _DEFAULTS.base_ejection_time, problems)
    longest = _positive(found, "max_ejection_time", max(_DEFAULTS.max_ejection_time, base), problems)
    if longest < base:
        problems.describe(f"{_FIELD}.max_ejection_time", f"{longest:g}s", f"at least base_ejection_time, {base:g}s")
    return OutlierDetection(
        **counts,
        **percentages,
        interval=_positive(found, "interval", _DEFAULTS.interval, problems),
        base_ejection_time=base,
        max_ejection_time=longest,
        max_ejection_time_jitter=seconds(
            found.max_ejection_time_jitter, field=f"{_FIELD}.max_ejection_time_jitter", problems=problems
        ),
        split_external_local_origin_errors=found.split_external_local_origin_errors,
        successful_active_health_check_uneject_host=(
            found.successful_active_health_check_uneject_host.value
            if found.HasField("successful_active_health_check_uneject_host")
            else _DEFAULTS.successful_active_health_check_uneject_host
        ),
        always_eject_one_host=found.always_eject_one_host.value,
        error_statuses=error_statuses,
    )


def decode_error_statuses(options: cluster_pb2.HttpProtocolOptions, problems: Problems, *, field: str) -> frozenset[int]:
    """The statuses of an ``error_matcher`` that asks for one of some; other matchers are not understood."""
    if not options.outlier_detection.HasField("error_matcher"):
        return frozenset()
    matcher, where = options.outlier_detection.error_matcher, f"{field}.outlier_detection.error_matcher"
    rules = matcher.or_match.rules if matcher.WhichOneof("rule") == "or_match" else [matcher]
    statuses = {_status(rule) for rule in rules}
    if None in statuses or not statuses:
        problems.describe(where, "set", "one or more rules of one :status header each, which is an exact string")
    return frozenset(status for status in statuses if status is not None)


def _status(rule: cluster_pb2.MatchPredicate) -> int | None:
    headers = rule.http_response_headers_match.headers
    if len(headers) != 1:
        return None
    text = headers[0].string_match.exact
    expected = route_pb2.HeaderMatcher(name=":status", string_match=core_pb2.StringMatcher(exact=text))
    return int(text) if _STATUS.fullmatch(text) and headers[0] == expected else None


def _count(found: cluster_pb2.OutlierDetection, name: str) -> int:
    value: int = getattr(found, name).value if found.HasField(name) else getattr(_DEFAULTS, name)
    return value


def _percentage(found: cluster_pb2.OutlierDetection, name: str, problems: Problems) -> int:
    value = _count(found, name)
    if value > 100:
        problems.add(f"{_FIELD}.{name}", value, "0 to 100")
    return value


def _positive(found: cluster_pb2.OutlierDetection, name: str, default: float, problems: Problems) -> float:
    if not found.HasField(name):
        return default
    duration: Duration = getattr(found, name)
    value = seconds(duration, field=f"{_FIELD}.{name}", problems=problems)
    if value <= 0:
        problems.describe(f"{_FIELD}.{name}", f"{value:g}s", "more than zero")
    return value
