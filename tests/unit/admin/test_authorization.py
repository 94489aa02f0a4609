"""May this request be served?  Asked of the API, for every kind of workload behind a service."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib_control.admin.authorization import parse_policy_name
from tests.unit.admin.support import SERVICE, Desk

WEB = "spiffe://cluster.local/ns/default/sa/web"
POLICIES = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: newer}
spec:
  selector: {matchLabels: {version: v2}}
  rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/web]}}], to: [{operation: {ports: ["9080"]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: others}
spec: {selector: {matchLabels: {app: other}}}
"""


async def asked(text: str = f"{SERVICE}---{POLICIES}", **request: Any) -> Any:
    desk = Desk()
    async with desk.http() as client:
        applied = await client.post("/v1/config", content=text, headers={"content-type": "application/yaml"})
        assert applied.status_code == 200, applied.text
        await desk.refresh()
        response = await client.post("/v1/authorize", json={"service": "reviews", **request})
        return response.json() | {"status": response.status_code}


async def test_workloads_with_other_policies_get_answers_of_their_own() -> None:
    found = await asked()
    assert (found["status"], found["outcome"], found["service"]) == (200, "denied", "reviews.default.svc.cluster.local")
    first, second = found["workloads"]
    assert (first["instances"], first["outcome"], first["labels"]) == (["10.0.0.1:9080"], "allowed", {"version": "v1"})
    assert (second["instances"], second["outcome"], second["labels"]) == (["10.0.0.2:9080"], "denied", {"version": "v2"})
    assert second["steps"][0]["rules"][0]["policy"] == "AuthorizationPolicy/default/newer"
    assert first["not_for_it"] == [
        "AuthorizationPolicy/default/newer selects version=v2",
        "AuthorizationPolicy/default/others selects app=other",
    ]


async def test_policies_for_gateways_are_told_and_ask_nothing() -> None:
    attached = POLICIES.replace("selector: {matchLabels: {app: other}}", "targetRefs: [{kind: Gateway, name: g}]")
    found = await asked(f"{SERVICE}---{attached}", source=WEB)
    assert found["outcome"] == "allowed"
    assert "AuthorizationPolicy/default/others is for a gateway" in found["workloads"][0]["not_for_it"]


async def test_the_rule_that_decides_is_a_resource_and_a_number() -> None:
    found = await asked(source=WEB, path="/x?a=1")
    assert found["outcome"] == "allowed"
    assert [(one["policy"], one["rule"]) for one in found["workloads"]] == [
        ("", -1),
        ("AuthorizationPolicy/default/newer", 0),
    ]
    assert found["path"] == "/x"


async def test_labels_may_be_assumed() -> None:
    (only,) = (await asked(labels={"app": "other"}))["workloads"]
    assert (only["outcome"], only["instances"], only["labels"]) == ("denied", [], {"app": "other"})


@pytest.mark.parametrize(
    ("request_", "status", "what"),
    [
        ({"service": "nobody"}, 404, "no service 'nobody' is known in namespace default"),
        ({"port": 81}, 404, "reviews has no port 81"),
        ({"source": "spiffe://"}, 400, "--from is not a SPIFFE ID"),
        ({"path": "/ä"}, 400, "a path is ASCII and a header Latin-1"),
    ],
)
async def test_what_cannot_be_asked(request_: dict[str, Any], status: int, what: str) -> None:
    found = await asked(**request_)
    assert (found["status"], found["what"]) == (status, what)


async def test_a_service_with_several_ports_is_asked_about_one() -> None:
    more = ", {number: 90, name: b, protocol: HTTP}, {number: 99, name: c, protocol: TCP}]"
    text = SERVICE.replace("protocol: HTTP}]", f"protocol: HTTP}}{more}")
    assert (await asked(text))["outcome"] == "allowed", "port 80, as in http://reviews/"
    other = await asked(text.replace("number: 80", "number: 81"))
    assert (other["what"], other["next"]) == ("which port of reviews?", "For example reviews:81.")
    assert (await asked(text, port=90))["outcome"] == "allowed"
    assert (await asked(text, port=99))["why"] == "its protocol is tcp"


async def test_addresses_are_told_apart_where_a_policy_asks_for_them() -> None:
    text = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p}
spec: {action: DENY, rules: [{when: [{key: destination.ip, values: [10.0.0.2]}]}]}
"""
    found = await asked(f"{SERVICE}---{text}")
    assert [(one["instances"], one["outcome"]) for one in found["workloads"]] == [
        (["10.0.0.1:9080"], "allowed"),
        (["10.0.0.2:9080"], "denied"),
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ns[foo]-policy[httpbin]-rule[12]", ("AuthorizationPolicy/foo/httpbin", 12)),
        ("istio-ext-authz-opa-ns[foo]-policy[a]-rule[0]", ("AuthorizationPolicy/foo/a", 0)),
        ("istio-ext-authz-opa-ns[foo]-policy[a]-rule[0]-deny-due-to-bad-CUSTOM-action", ("AuthorizationPolicy/foo/a", 0)),
        ("other", ("other", -1)),
    ],
)
def test_names_of_rules(name: str, expected: tuple[str, int]) -> None:
    assert parse_policy_name(name) == expected
