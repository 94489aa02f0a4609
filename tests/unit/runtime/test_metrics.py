"""A Mesh's metrics: of what it calls, and of what it serves."""

from __future__ import annotations

from contextlib import ExitStack

from meshlib import Mesh
from meshlib.model.inbound import Connection, ServerRequest
from meshlib.model.inbound_limits import InboundLimits
from meshlib.model.listener import InboundListener
from meshlib.model.resilience import LoadShedding, ServerResilience
from meshlib.telemetry.catalogue import METRICS
from meshlib.testing import StaticControl, service, snapshot

PORT = 8080
REQUEST = ServerRequest("GET", b"/", [(b"host", b"me")], connection=Connection(local_port=PORT))


def found(mesh: Mesh) -> dict[tuple[str, ...], float]:
    """By name and values of labels."""
    return {(sample.name, *sample.labels.values()): sample.value for sample in mesh.metrics()}


def serving(listener: InboundListener) -> Mesh:
    return Mesh(control=StaticControl(snapshot(inbound=[listener])), service="tests")


def test_every_sample_is_one_that_is_known() -> None:
    listener = InboundListener("inbound", PORT, limits=InboundLimits(max_active=1), resilience=ServerResilience("shed"))
    control = StaticControl(snapshot(service("reviews", ["10.0.0.1:80"]), inbound=[listener]))
    with Mesh(control=control, service="tests") as mesh:
        samples = mesh.metrics()
        assert len(samples) > 10
        for sample in samples:
            metric = METRICS[sample.name]
            assert (sample.kind, tuple(sample.labels)) == (metric.kind, metric.labels)


def test_what_is_shed_is_counted_by_urgency_and_told() -> None:
    resilience = ServerResilience("shed", LoadShedding(max_concurrency=1))
    with serving(InboundListener("inbound", PORT, resilience=resilience)) as mesh, ExitStack() as inside:
        assert inside.enter_context(mesh.serve(REQUEST)).refusal is None
        refusal = mesh.serve(REQUEST).refusal
        assert refusal is not None
        assert refusal.status == 503
        seen = found(mesh)
        assert seen["meshlib_shed_requests_total", "8080", "3"] == 1
        assert seen["meshlib_shed_requests_total", "8080", "0"] == 0
        assert seen["meshlib_load_shedding", "8080"] == 1
        assert (seen["meshlib_served_active", "8080"], seen["meshlib_served_limit", "8080"]) == (1, 1)
        assert [(event.name, event.endpoint) for event in mesh.events.recent] == [("load_shedding.started", ":8080")]


def test_limits_of_a_served_port_are_those_of_an_inbound_cluster() -> None:
    limits = InboundLimits(max_active=1, max_pending=0)
    with serving(InboundListener("inbound", PORT, limits=limits)) as mesh, ExitStack() as inside:
        assert inside.enter_context(mesh.serve(REQUEST)).refusal is None
        assert mesh.serve(REQUEST).refusal is not None
        seen = found(mesh)
        assert seen["envoy_cluster_upstream_rq_active", "inbound|8080||"] == 1
        assert seen["envoy_cluster_upstream_rq_pending_active", "inbound|8080||"] == 0
        assert seen["envoy_cluster_upstream_rq_pending_overflow", "inbound|8080||"] == 1


def test_what_policies_refuse_is_counted_by_reason() -> None:
    with serving(InboundListener("inbound", PORT)) as mesh:
        assert mesh.serve(ServerRequest("GET", b"/", [(b"host", b"a"), (b"host", b"b")])).refusal is not None
        ((name, reason),) = [key for key in found(mesh) if key[0] == "meshlib_denied_requests_total"]
        assert found(mesh)[name, reason] == 1
        assert f'meshlib_denied_requests_total{{reason="{reason}"}} 1' in mesh.prometheus()
