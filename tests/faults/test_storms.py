"""F22 with processes and sockets: a chain of three hops whose leaf fails every request, and every hop may retry twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.chain import RULE, chain, storm

pytestmark = [pytest.mark.slow, pytest.mark.soak, pytest.mark.timeout(240)]
"""Four processes take their time to start; the same in virtual time is in `test_in_virtual_time`."""


async def test_f22_the_leaf_gets_no_more_than_a_fifth_on_top(tmp_path: Path) -> None:
    """Only the hop next to it retries; those above pass on what they get."""
    with chain(tmp_path, latency=0.2) as (control, ports):
        served = await storm(control, ports, rate=100.0, calls=250)
    assert served["a"] == served["b"] == served["c"] == 1.0
    assert 1.0 < served["leaf"] <= 1.25


async def test_f22_with_a_budget_of_everything_each_hop_would_retry(tmp_path: Path) -> None:
    """The control: twice for each call, and still by one hop only."""
    budget = """
---
apiVersion: meshlib.io/v1
kind: ResiliencePolicy
metadata: {name: %(host)s}
spec: {host: %(host)s, retryBudget: {percent: 100, minRetryConcurrency: 10000}}
"""
    with chain(tmp_path, latency=0.2, rules=RULE + budget) as (control, ports):
        served = await storm(control, ports, rate=50.0, calls=100)
    assert served["a"] == served["b"] == served["c"] == 1.0
    assert served["leaf"] == 3.0
