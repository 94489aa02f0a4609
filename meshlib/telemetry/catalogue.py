"""The metrics of a process: Envoy's Prometheus names, and its label, where Envoy has the statistic; ours where it has not."""

from __future__ import annotations

from typing import Final

from meshlib.telemetry.metrics import Kind, Metric

_CLUSTER: Final = ("envoy_cluster_name",)

METRICS: Final[dict[str, Metric]] = {}


def _add(name: str, kind: Kind, text: str, *labels: str) -> Metric:
    METRICS[name] = metric = Metric(name, kind, text, labels)
    return metric


def _cluster(name: str, kind: Kind, text: str, *labels: str) -> Metric:
    return _add(f"envoy_cluster_{name}", kind, text, *_CLUSTER, *labels)


def _own(name: str, kind: Kind, text: str, *labels: str) -> Metric:
    return _add(f"meshlib_{name}", kind, text, *labels)


MEMBERSHIP_TOTAL = _cluster("membership_total", "gauge", "Endpoints of the cluster.")
MEMBERSHIP_HEALTHY = _cluster("membership_healthy", "gauge", "Endpoints in use: not unhealthy, draining, ejected or degraded.")
MEMBERSHIP_DEGRADED = _cluster("membership_degraded", "gauge", "Endpoints that are used when there is nothing better.")
MEMBERSHIP_EXCLUDED = _cluster("membership_excluded", "gauge", "Endpoints that are left out until their first health check.")

EJECTIONS: Final[dict[str, Metric]] = {}
"""By the names of `OutlierDetector.stats`."""


def _ejections(name: str, kind: Kind, text: str) -> None:
    EJECTIONS[name] = _cluster(f"outlier_detection_{name}", kind, text)


_ejections("ejections_active", "gauge", "Endpoints that outlier detection leaves out now.")
_ejections("ejections_enforced_total", "counter", "Ejections.")
_ejections("ejections_overflow", "counter", "Detections that maxEjectionPercent kept from ejecting.")
for _kind in (
    "consecutive_5xx",
    "consecutive_gateway_failure",
    "consecutive_local_origin_failure",
    "success_rate",
    "failure_percentage",
    "local_origin_success_rate",
    "local_origin_failure_percentage",
):
    _words = _kind.replace("_", " ")
    _ejections(f"ejections_detected_{_kind}", "counter", f"Detections by {_words}, enforced or not.")
    _ejections(f"ejections_enforced_{_kind}", "counter", f"Ejections by {_words}.")

REQUESTS_ACTIVE = _cluster("upstream_rq_active", "gauge", "Requests under way, those that wait for a retry included.")
RETRIES = _cluster("upstream_rq_retry", "counter", "Retries.")
RETRY_OVERFLOW = _cluster("upstream_rq_retry_overflow", "counter", "Retries that the retry budget refused.")
PENDING_OVERFLOW = _cluster(
    "upstream_rq_pending_overflow", "counter", "Requests refused by maxRequests, maxConnections or the limit of pending ones."
)
PENDING_ACTIVE = _cluster("upstream_rq_pending_active", "gauge", "Requests that wait for a place in the application.")
REQUESTS_OPEN = _cluster("circuit_breakers_default_rq_open", "gauge", "1 while maxRequests is reached.")
RETRIES_OPEN = _cluster("circuit_breakers_default_rq_retry_open", "gauge", "1 while the retry budget is used up.")
REMAINING_RETRIES = _cluster("circuit_breakers_default_remaining_retries", "gauge", "Retries that the budget has left now.")
CHECKS_ATTEMPTED = _cluster("health_check_attempt", "counter", "Active health checks.")
CHECKS_PASSED = _cluster("health_check_success", "counter", "Active health checks that went well.")
CHECKS_FAILED = _cluster("health_check_failure", "counter", "Active health checks that failed, for want of an answer, too.")
CHECKS_UNANSWERED = _cluster("health_check_network_failure", "counter", "Active health checks without an answer in time.")
CHECKS_HEALTHY = _cluster("health_check_healthy", "gauge", "Endpoints that are healthy by their active health checks.")

UNREACHABLE = _own(
    "endpoints_unreachable", "gauge", "Endpoints that refused a connection a moment ago, and are avoided.", *_CLUSTER
)
BREAKER_STATE = _own(
    "circuit_breaker_state", "gauge", "1 for the state (closed, open, half-open) that the breaker is in.", *_CLUSTER, "state"
)
BREAKER_OPENED = _own("circuit_breaker_opened_total", "counter", "How often the breaker opened.", *_CLUSTER)
BREAKER_REJECTED = _own("circuit_breaker_rejected_total", "counter", "Attempts that the breaker refused.", *_CLUSTER)
BREAKER_FAILURES = _own(
    "circuit_breaker_failure_percent", "gauge", "Failed attempts in the breaker's window, as of the last one.", *_CLUSTER
)
CONCURRENCY_LIMIT = _own("concurrency_limit", "gauge", "Attempts at the same time that adaptive concurrency allows.", *_CLUSTER)
CONCURRENCY_ACTIVE = _own("concurrency_active", "gauge", "Attempts under way, as adaptive concurrency counts them.", *_CLUSTER)
CONCURRENCY_REJECTED = _own("concurrency_rejected_total", "counter", "Attempts that adaptive concurrency refused.", *_CLUSTER)
CONCURRENCY_MIN_RTT = _own(
    "concurrency_min_rtt_seconds", "gauge", "Latency without a queue, as it was measured; 0: not yet.", *_CLUSTER
)
HEDGES = _own("hedges_total", "counter", "Second copies of requests that were sent.", *_CLUSTER)
HEDGES_REFUSED = _own("hedges_refused_total", "counter", "Copies for which the hedging budget had nothing left.", *_CLUSTER)

_LIMIT: Final = ("limit", "side")
LIMIT_ALLOWED = _own("rate_limit_allowed_total", "counter", "Requests that a rate limit let pass.", *_LIMIT)
LIMIT_LIMITED = _own("rate_limit_limited_total", "counter", "Requests that a rate limit refused.", *_LIMIT)
LIMIT_WOULD = _own("rate_limit_would_limit_total", "counter", "Requests that a limit on dry run would have refused.", *_LIMIT)
LIMIT_OVERFLOWED = _own(
    "rate_limit_overflowed_total", "counter", "Requests that shared a bucket because there were too many keys.", *_LIMIT
)
QUOTA_BUCKETS = _own(
    "quota_buckets", "gauge", "Buckets of a shared limit: with an assignment, or without one.", *_LIMIT, "state"
)
QUOTA_SHARE = _own("quota_share_per_second", "gauge", "Requests a second that this process's shares come to.", *_LIMIT)
QUOTA_GRANTED = _own(
    "quota_granted", "gauge", "Requests that are left of this process's grants of a daily or monthly quota.", *_LIMIT
)

SHED = _own("shed_requests_total", "counter", "Requests that were refused for want of capacity.", "port", "urgency")
SHEDDING = _own("load_shedding", "gauge", "1 while requests are refused for want of capacity.", "port")
SERVED_ACTIVE = _own("served_active", "gauge", "Requests in the application, as load shedding counts them.", "port")
SERVED_LIMIT = _own(
    "served_limit", "gauge", "Requests at the same time that may be in the application, the most urgent included.", "port"
)
DENIED = _own("denied_requests_total", "counter", "Requests that policies refused.", "reason")
MIRRORED = _own("mirrored_requests_total", "counter", "Copies for mirrors: sent, failed, dropped, unrepeatable.", "result")
EVENTS_COUNTED = _own("events_total", "counter", "What policies did by themselves.", "event")
EVENTS_DROPPED = _own("events_dropped_total", "counter", "Events that listeners were too slow for.")
