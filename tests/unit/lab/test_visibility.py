"""Events and metrics of meshes in a lab: the same as of real ones, on the lab's clock."""

from __future__ import annotations

from meshlib.testing import Status
from meshlib_control.lab import MeshLab

EJECTING = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: ratings}
spec:
  host: ratings
  trafficPolicy: {outlierDetection: {consecutive5xxErrors: 2, interval: 1s, baseEjectionTime: 30s, maxEjectionPercent: 50}}
"""

SHEDDING = """
apiVersion: meshlib.io/v1
kind: RateLimitPolicy
metadata: {name: ratings}
spec:
  selector: {matchLabels: {app: ratings}}
  limits: [{name: few, tokens: 2, interval: 60s}]
"""


def value(lab: MeshLab, caller: str, name: str) -> float:
    (sample,) = [sample for sample in lab.mesh(caller).metrics() if sample.name == name]
    return sample.value


def test_an_ejection_is_an_event_and_a_metric_and_so_is_its_end(mesh_lab: MeshLab) -> None:
    mesh_lab.service("ratings", instances=2)
    mesh_lab.apply(EJECTING)
    client = mesh_lab.client("reviews")
    with mesh_lab.inject("ratings", Status(500), instance=0):
        for _ in range(8):
            client.get("http://ratings/")
    assert [event.name for event in mesh_lab.mesh("reviews").events.recent] == ["outlier_detection.ejected"]
    assert mesh_lab.events == list(mesh_lab.mesh("reviews").events.recent)
    assert value(mesh_lab, "reviews", "envoy_cluster_outlier_detection_ejections_active") == 1
    mesh_lab.sleep(60)
    assert value(mesh_lab, "reviews", "envoy_cluster_outlier_detection_ejections_active") == 0
    assert mesh_lab.events[-1].name == "outlier_detection.unejected"


def test_what_a_server_refuses_is_seen_at_the_server(mesh_lab: MeshLab) -> None:
    mesh_lab.service("ratings")
    mesh_lab.apply(SHEDDING)
    client = mesh_lab.client("reviews")
    assert [client.get("http://ratings/").status_code for _ in range(4)] == [200, 200, 429, 429]
    assert value(mesh_lab, "ratings", "meshlib_rate_limit_limited_total") == 2
    assert [event.reason for event in mesh_lab.mesh("ratings").events.recent] == ["default/ratings/few"]
