"""Reports of many callers as one view."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec

from meshlib.xds.proto.registry_pb2 import ReportRequest
from meshlib_control.admin import views
from meshlib_control.admin.api import Vitals, build_app
from meshlib_control.admin.reported import SHOWN, Reported, callers_of_hosts
from meshlib_control.admin.viewing import Scene, Viewer
from meshlib_control.reports import Reporter
from tests.unit.admin.support import MESH, Desk, files

HOST = "reviews.default.svc.cluster.local"
WHOLE, V1 = f"outbound|80||{HOST}", f"outbound|80|v1|{HOST}"
ADDRESS = "10.0.0.1:9080"


def told(
    number: int, *clusters: str, state: str = "ejected", reason: str = "consecutive_5xx", **values: Any
) -> tuple[Reporter, ReportRequest]:
    report = ReportRequest(instance_id=f"web-{number}")
    for name in clusters:
        cluster = report.clusters.add(name=name, **values)
        if state:
            cluster.endpoints.add(address=ADDRESS, state=state, reason=reason, left=float(number))
    return Reporter("spiffe://td/ns/default/sa/web", f"web-{number}"), report


def test_an_endpoint_is_what_so_many_of_its_callers_say() -> None:
    """One process says the same of an endpoint in two subsets: it is counted once."""
    reports = [told(1, WHOLE, V1), told(2, WHOLE), told(3, WHOLE, state="refusing", reason="")]
    found = Reported(reports, {HOST: 5})
    assert found.callers(HOST) == 5
    first, second = found.of_endpoint(HOST, ADDRESS)
    assert (first.state, first.reason, first.callers, first.left) == ("ejected", "consecutive_5xx", 2, 2.0)
    assert first.by == ["td/ns/default/sa/web web-1", "td/ns/default/sa/web web-2"]
    assert (second.state, second.callers) == ("refusing", 1)
    assert found.of_endpoint(HOST, "10.0.0.2:9080") == []


def test_there_are_never_fewer_callers_than_reporters() -> None:
    assert Reported([told(1, WHOLE), told(2, WHOLE)], {HOST: 1}).callers(HOST) == 2


def test_only_some_reporters_are_named() -> None:
    (found,) = Reported([told(number, WHOLE) for number in range(SHOWN + 5)], {}).of_endpoint(HOST, ADDRESS)
    assert (found.callers, len(found.by)) == (SHOWN + 5, SHOWN)


def test_clusters_are_summed_up() -> None:
    reports = [
        told(1, V1, state="", circuit_breaker="open", circuit_breaker_left=3.0, concurrency_limit=8, retries=2),
        told(2, V1, state="", circuit_breaker="closed", concurrency_limit=3, retries=1, hedges=4),
        told(3, V1, state="", circuit_breaker="open", circuit_breaker_left=1.0),
    ]
    (found,) = Reported(reports, {}).clusters
    assert (found.host, found.port, found.subset, found.reporters) == (HOST, 80, "v1", 3)
    assert found.circuit_breaker == {"open": 2, "closed": 1}
    assert (found.circuit_breaker_left, found.concurrency_limits, found.retries, found.hedges) == (3.0, [3, 8], 3, 4)


def test_limits_are_summed_up_by_name_and_side() -> None:
    one, other = ReportRequest(instance_id="a"), ReportRequest(instance_id="b")
    one.limits.add(id="default/p/few", side="server", allowed=1, limited=2)
    one.limits.add(id="default/p/few", side="client", allowed=1)
    other.limits.add(id="default/p/few", side="server", allowed=3, would_limit=4)
    found = Reported([(Reporter("", "a"), one), (Reporter("", "b"), other)], {})
    assert [(each.side, each.processes, each.allowed, each.limited, each.would_limit) for each in found.limits()] == [
        ("client", 1, 1, 0, 0),
        ("server", 2, 4, 2, 4),
    ]
    assert found.limits(frozenset({"default/other"})) == []
    assert len(found.limits(frozenset({"default/p"}))) == 2


def test_what_is_no_cluster_of_the_mesh_is_passed_over() -> None:
    """Nobody invents services, nor ports that no document has room for."""
    reports = [told(1, "nonsense", f"outbound|{'9' * 30}||{HOST}", "outbound|80||evil", WHOLE)]
    found = Reported(reports, {}, frozenset({HOST}))
    assert [cluster.name for cluster in found.clusters] == [WHOLE]
    msgspec.json.encode(found.clusters)


def test_sums_of_the_largest_counts_can_be_told() -> None:
    reports = [told(number, WHOLE, retries=10**12) for number in range(1000)]
    (cluster,) = Reported(reports, {}).clusters
    assert msgspec.json.decode(msgspec.json.encode(cluster), type=views.ClusterStateView).retries == 10**15


def test_callers_are_counted_by_what_they_have_asked_for() -> None:
    """Several clusters of one host make one caller."""
    subscribed = {frozenset({WHOLE, V1}): 3, frozenset({V1, "outbound|80||ratings"}): 2, frozenset({"PassthroughCluster"}): 9}
    assert callers_of_hosts(subscribed) == {HOST: 5, "ratings": 2}


async def document(scene: dict[str, Any], path: str = "/v1/endpoints?service=reviews") -> views.Endpoints:
    desk = Desk()
    await desk.editor.apply(files(MESH))
    await desk.refresh()
    vitals = Vitals(status=lambda: None, metrics=list, not_ready=str)  # type: ignore[arg-type,return-value]  # nobody asks
    app = build_app(desk.editor, Viewer(lambda: Scene(desk.world, **scene)), vitals)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1") as client:
        return msgspec.json.decode((await client.get(path)).content, type=views.Endpoints)


async def test_the_api_has_all_of_it() -> None:
    found = await document({"reports": [told(1, WHOLE, circuit_breaker="open")], "callers": {HOST: 2}})
    states = {f"{each.address}:{each.port}": (each.callers, [said.state for said in each.reported]) for each in found.endpoints}
    assert states == {ADDRESS: (2, ["ejected"]), "10.0.0.2:9080": (2, [])}
    assert [cluster.circuit_breaker for cluster in found.clusters] == [{"open": 1}]
    assert found.notes == []


async def test_a_replica_says_that_others_know_their_own_clients() -> None:
    found = await document({"is_replica": True})
    assert ["connected to this control service" in note for note in found.notes] == [True]


async def test_limits_are_shown_with_the_service_that_they_are_about() -> None:
    """Those of nobody's policies are not; without a service all are."""
    report = ReportRequest(instance_id="a")
    report.limits.add(id="elsewhere/p/few", side="client", limited=1)
    scene = {"reports": [(Reporter("", "a"), report)]}
    assert (await document(scene)).limits == []
    assert [each.id for each in (await document(scene, "/v1/endpoints")).limits] == ["elsewhere/p/few"]
