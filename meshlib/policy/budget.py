"""Retry budget: how many retries a cluster may have under way (Envoy ``CircuitBreakers.Thresholds.RetryBudget``)."""

from __future__ import annotations

from meshlib.model.cluster import CircuitBreakers


def may_retry(breakers: CircuitBreakers, active_requests: int, active_retries: int) -> bool:
    """A share of the requests in flight, but always `min_retry_concurrency`; and never more than `max_retries`.

    Against Istio, which ships two retries and no budget: with everything failing, amplification stays near 1.2, not 3.
    """
    share = int(breakers.retry_budget_percent / 100.0 * active_requests)
    return active_retries < min(max(share, breakers.min_retry_concurrency), breakers.max_retries)
