"""The REST API: statuses, documents, problems."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from meshlib_control.catalog.model import CatalogSnapshot, Instance, InstanceHealth, Port, Service
from tests.unit.admin.support import MESH, SERVICE, SUBSETS, Desk, virtual_service

YAML = {"content-type": "application/yaml"}


async def applied(client: httpx.AsyncClient, text: str = MESH, **parameters: str) -> httpx.Response:
    return await client.post("/v1/config", content=text, headers=YAML, params=parameters)


async def test_yaml_json_and_named_files_are_all_read() -> None:
    desk = Desk()
    document = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "json"},
        "spec": {"host": "json"},
    }
    async with desk.http() as client:
        assert (await applied(client)).json()["revision"] == 1
        assert (await client.post("/v1/config", json=document)).json()["revision"] == 2
        assert (await client.post("/v1/config", json={"kind": "List", "items": [document]})).json()["revision"] == 2
        sent = {"files": [{"name": "a.yaml", "text": SUBSETS.replace("name: reviews", "name: more")}], "namespace": "prod"}
        last = (await client.post("/v1/config", json=sent)).json()
        assert last["changes"] == [
            {"resource": "DestinationRule/prod/more", "action": "created", "before": None, "after": None}
        ]


async def test_what_was_applied_is_listed_and_read_back() -> None:
    desk = Desk()
    async with desk.http() as client:
        await applied(client)
        listing = (await client.get("/v1/config", params={"kind": "VirtualService"})).json()
        assert [item["resource"] for item in listing["items"]] == ["VirtualService/default/reviews"]
        item = (await client.get("/v1/config/VirtualService/default/reviews")).json()
        assert item["document"]["metadata"] == {"name": "reviews", "namespace": "default"}
        assert (await client.get("/v1/config/VirtualService/default/nobody")).status_code == 404


async def test_findings_come_with_place_and_all_at_once() -> None:
    desk = Desk()
    async with desk.http() as client:
        response = await applied(client, f"{SERVICE}---{virtual_service()}---{SUBSETS}extra: 1\n")
        assert response.status_code == 422
        assert response.headers["content-type"] == "application/problem+json"
        problem = response.json()
        assert problem["what"].startswith("3 errors")
        assert {"what", "where", "why", "next", "findings"} == problem.keys()
        codes = [finding["code"] for finding in problem["findings"]]
        assert codes == ["MSH0101", "MSH0202", "MSH0202"], "the field, and what refers to a resource that is not valid"
        fields = {"code", "severity", "resource", "field", "file", "line", "message"}
        assert all(finding.keys() == fields for finding in problem["findings"])
        assert (await client.get("/v1/config")).json() == {"revision": 0, "items": []}


async def test_a_lost_race_is_409_with_both_revisions() -> None:
    desk = Desk()
    async with desk.http() as client:
        await applied(client)
        response = await applied(client, virtual_service(weight=1), expect="0")
        assert response.status_code == 409
        assert (response.json()["expected"], response.json()["found"]) == (0, 1)


async def test_history_diff_and_rollback() -> None:
    desk = Desk()
    async with desk.http() as client:
        await applied(client, message="one")
        await applied(client, virtual_service(weight=50))
        history = (await client.get("/v1/revisions", params={"limit": "1"})).json()
        assert (history["head"], [item["revision"] for item in history["items"]]) == (2, [2])
        assert history["items"][0]["time"].endswith("Z")
        difference = (await client.get("/v1/diff", params={"since": "1"})).json()
        assert [change["action"] for change in difference["changes"]] == ["configured"]
        back = await client.post("/v1/rollback", json={"revision": 1})
        assert back.json()["revision"] == 3
        compared = await client.post("/v1/diff", content=virtual_service(weight=50), headers=YAML)
        assert [change["resource"] for change in compared.json()["changes"]] == ["VirtualService/default/reviews"]


async def test_deleting_one_and_several() -> None:
    desk = Desk()
    async with desk.http() as client:
        await applied(client)
        path = "/v1/config/DestinationRule/default/reviews"
        assert (await client.delete(path)).status_code == 422
        assert (await client.delete("/v1/config/VirtualService/default/reviews")).status_code == 200
        assert (await client.delete(path, params={"dry_run": "true"})).json()["revision"] == 2
        several = {"resources": ["DestinationRule/default/reviews", "ServiceEntry/default/reviews"]}
        assert (await client.post("/v1/config/delete", json=several)).json()["revision"] == 3
        assert (await client.get("/v1/config")).json()["items"] == []


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/v1/nonsense", {}, 404),
        ("PUT", "/v1/config", {"json": {}}, 405),
        ("POST", "/v1/rollback", {"json": {"revision": "one"}}, 400),
        ("POST", "/v1/rollback", {"content": "{", "headers": {"content-type": "application/json"}}, 400),
        ("POST", "/v1/config", {"content": b"\xff\xfe", "headers": YAML}, 400),
        ("POST", "/v1/config", {"content": b"a: 1", "headers": YAML, "params": {"dry_run": "maybe"}}, 400),
        ("POST", "/v1/config", {"content": b"", "headers": YAML, "params": {"expect": "-1"}}, 400),
        ("GET", "/v1/revisions", {"params": {"limit": "9" * 40}}, 400),
        ("POST", "/v1/config", {"content": b"#" * (9 << 20), "headers": YAML}, 413),
        ("POST", "/v1/config", {"data": {"a": "form"}}, 415),
        ("POST", "/v1/explain", {"json": {"url": "ftp://x"}}, 400),
        ("POST", "/v1/explain", {"json": {"url": "http://reviews:99999/"}}, 400),
        ("POST", "/v1/compile", {"json": {"node": {"flavour": "nginx"}}}, 400),
        ("POST", "/v1/routes", {"json": {"service": "nobody"}}, 404),
        ("GET", "/v1/endpoints", {"params": {"service": "nobody"}}, 404),
    ],
)
async def test_what_cannot_be_answered_is_a_problem_document(
    method: str, path: str, options: dict[str, Any], status: int
) -> None:
    async with Desk().http() as client:
        response = await client.request(method, path, **options)
    assert response.status_code == status
    assert response.json()["what"]
    assert {"what", "where", "why", "next"} <= response.json().keys()


async def test_pages_of_other_sites_are_kept_out() -> None:
    async with Desk().http() as client:
        assert (await client.get("/v1/status")).status_code == 200
        assert (await client.get("/v1/status", headers={"host": "evil.example"})).status_code == 403
        assert (await client.get("/v1/status", headers={"origin": "http://evil.example"})).status_code == 403
        options = await client.options("/v1/config", headers={"origin": "http://127.0.0.1:15014"})
        assert "access-control-allow-origin" not in options.headers


async def test_a_defect_is_reported_without_its_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(desk.editor, "listing", broken)
    async with desk.http() as client:
        response = await client.get("/v1/config")
    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.json()["what"] == "the control service failed on this request"


async def test_probes_and_metrics() -> None:
    desk = Desk()
    async with desk.http() as client:
        assert (await client.get("/healthz")).text == "ok\n"
        assert (await client.get("/readyz")).status_code == 200
        desk.not_ready = "still reading"
        assert ((await client.get("/readyz")).status_code, (await client.get("/readyz")).text) == (503, "still reading\n")
        metrics = await client.get("/metrics")
        assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert "meshlib_control_config_revision 7" in metrics.text


async def test_services_endpoints_routes_and_explanations_of_one_world() -> None:
    desk = Desk()
    async with desk.http() as client:
        await applied(client)
        await desk.refresh()
        (service,) = (await client.get("/v1/services")).json()["services"]
        assert (service["host"], service["healthy"], service["instances"]) == ("reviews.default.svc.cluster.local", 2, 2)
        endpoints = (await client.get("/v1/endpoints", params={"service": "reviews"})).json()["endpoints"]
        assert [(e["address"], e["port"], e["labels"]) for e in endpoints] == [
            ("10.0.0.1", 9080, {"version": "v1"}),
            ("10.0.0.2", 9080, {"version": "v2"}),
        ]
        (route,) = (await client.post("/v1/routes", json={"service": "reviews"})).json()["routes"]
        assert route["action"] == (
            "90 % outbound|80|v1|reviews.default.svc.cluster.local, 10 % outbound|80|v2|reviews.default.svc.cluster.local"
        )
        compiled = (await client.post("/v1/compile", json={"node": {"flavour": "envoy"}})).json()["resources"]
        assert "type.googleapis.com/envoy.config.cluster.v3.Cluster" in {resource["@type"] for resource in compiled}


@pytest.mark.parametrize("flavour", ["meshlib", "envoy", "grpc"])
async def test_routes_of_one_service_only_in_every_flavour(flavour: str) -> None:
    desk = Desk()
    async with desk.http() as client:
        other = MESH.replace("reviews", "ratings")
        await applied(client, f"{MESH}---{other}")
        await desk.refresh()
        request = {"service": "reviews", "node": {"flavour": flavour}}
        routes = (await client.post("/v1/routes", json=request)).json()["routes"]
        assert len(routes) == 1
        assert "reviews" in routes[0]["action"]
        everything = (await client.post("/v1/routes", json={"node": {"flavour": flavour}})).json()["routes"]
        assert {"reviews", "ratings"} <= {word for word in ("reviews", "ratings") if word in json.dumps(everything)}


async def test_an_explanation_is_the_data_planes_own() -> None:
    desk = Desk()
    async with desk.http() as client:
        await applied(client)
        await desk.refresh()
        trace = (await client.post("/v1/explain", json={"url": "http://reviews/api?x=1"})).json()
        assert (trace["authority"], trace["outcome"]) == ("reviews:80", "forward")
        shares = {
            cluster["percent"]: [endpoint["address"] for endpoint in cluster["endpoints"]] for cluster in trace["clusters"]
        }
        assert shares == {90.0: ["10.0.0.1"], 10.0: ["10.0.0.2"]}
        outside = (await client.post("/v1/explain", json={"url": "https://example.com/"})).json()
        assert (outside["authority"], outside["outcome"]) == ("example.com:443", "outside")


async def test_an_explanation_is_for_a_caller_where_it_is() -> None:
    host = "db.default.svc.cluster.local"
    instances = (Instance("a", "10.0.0.1", 80, locality="r/a"), Instance("b", "10.0.0.2", 80, locality="r/b"))
    catalog = CatalogSnapshot(services={host: Service(host, "default", (Port(80),))}, instances={host: instances})
    desk = Desk(catalog=catalog)
    async with desk.http() as client:
        await applied(client, FAILOVER)
        await desk.refresh()
        for zone, order in (("r/a", ["10.0.0.1", "10.0.0.2"]), ("r/b", ["10.0.0.2", "10.0.0.1"])):
            trace = (await client.post("/v1/explain", json={"url": "http://db/", "node": {"locality": zone}})).json()
            (cluster,) = trace["clusters"]
            found = [(endpoint["address"], endpoint.get("priority", 0)) for endpoint in cluster["endpoints"]]
            assert found == [(order[0], 0), (order[1], 1)]


FAILOVER = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: db}
spec: {host: db, trafficPolicy: {outlierDetection: {}}}
"""


async def test_health_of_endpoints_comes_from_the_catalog() -> None:
    host = "db.default.svc.cluster.local"
    instances = (
        Instance("a", "10.0.0.1", 80, health=InstanceHealth.HEALTHY),
        Instance("b", "2001:db8::1", 80, health=InstanceHealth.UNHEALTHY, locality="r/z"),
    )
    catalog = CatalogSnapshot(
        services={host: Service(host, "default", (Port(80),))}, instances={host: instances}, suspicious={host: "kept"}
    )
    async with Desk(catalog=catalog).http() as client:
        (service,) = (await client.get("/v1/services")).json()["services"]
        assert (service["healthy"], service["instances"], service["suspicious"]) == (1, 2, "kept")
        trace = (await client.post("/v1/explain", json={"url": "http://db/"})).json()
        found = {endpoint["address"]: endpoint["health"] for cluster in trace["clusters"] for endpoint in cluster["endpoints"]}
        assert found == {"10.0.0.1": "healthy", "2001:db8::1": "unhealthy"}
