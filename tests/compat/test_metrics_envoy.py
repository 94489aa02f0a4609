"""The names and kinds of metrics that we have from Envoy are those of a real Envoy's /stats/prometheus."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from meshlib.telemetry.catalogue import METRICS
from tests.support import envoy

pytestmark = pytest.mark.envoy

CLUSTER = "reviews"  # Envoy takes a name to its first dot, unless it is told better (as Istio does)


def bootstrap() -> dict[str, Any]:
    """A cluster with all that has statistics of its own."""
    cluster = {
        "name": CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "outlier_detection": {},
        "circuit_breakers": {
            "thresholds": [{"track_remaining": True, "retry_budget": {"budget_percent": {"value": 20}}}],
        },
        "health_checks": [
            {"timeout": "1s", "interval": "60s", "unhealthy_threshold": 1, "healthy_threshold": 1, "tcp_health_check": {}}
        ],
        "load_assignment": {"cluster_name": CLUSTER, "endpoints": []},
    }
    return {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {"clusters": [cluster]},
    }


def test_names_and_kinds_are_envoys(tmp_path: Path) -> None:
    with envoy.running(bootstrap(), tmp_path) as running:
        text = running.get("/stats/prometheus").text
    kinds = dict(re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE))
    labelled = set(re.findall(r'^(\w+)\{envoy_cluster_name="' + re.escape(CLUSTER) + r'"\}', text, re.MULTILINE))
    ours = {name: metric.kind for name, metric in METRICS.items() if name.startswith("envoy_")}
    assert ours
    assert {name: kinds.get(name) for name in ours} == ours
    assert ours.keys() <= labelled
