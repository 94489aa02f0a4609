"""What rules of VirtualServices do with requests: Istio's YAML in, from the compiler to both ends of a call."""

from __future__ import annotations

import pytest

from meshlib_control.lab import MeshLab

SHOP = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop}
spec:
  hosts: [shop]
  http:
  - {match: [{uri: {prefix: /cart}}], delegate: {name: cart}, headers: {request: {set: {x-team: cart}}}}
  - {match: [{uri: {prefix: /old}}], redirect: {uri: /new}}
  - {match: [{uri: {prefix: /closed}}], directResponse: {status: 503, body: {string: closed}}}
  - match: [{uri: {prefix: /copied}}]
    rewrite: {uri: /new}
    mirror: {host: shadow}
    route: [{destination: {host: shop}}]
  - match: [{uri: {prefix: /broken}}]
    fault: {delay: {fixedDelay: 2s, percentage: {value: 100}}, abort: {httpStatus: 418, percentage: {value: 100}}}
    route: [{destination: {host: shop}}]
  - match: [{uri: {prefix: /browsers}}]
    corsPolicy: {allowOrigins: [{regex: "https://[a-z]+\\\\.test"}], allowMethods: [GET], allowHeaders: ["*"], maxAge: 60s}
    route: [{destination: {host: shop}, headers: {response: {remove: [x-internal], add: {x-seen: "1"}}}}]
  - {route: [{destination: {host: shop}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart}
spec:
  http:
  - {match: [{method: {exact: POST}}], route: [{destination: {host: carts}}]}
  - {match: [{uri: {exact: /cart/closed}}], directResponse: {status: 404}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-strangers}
spec:
  selector: {matchLabels: {app: shop}}
  rules: [{from: [{source: {principals: ["*/sa/web"]}}]}]
"""


@pytest.fixture
def lab(mesh_lab: MeshLab) -> MeshLab:
    for name in ("shop", "carts", "shadow"):
        mesh_lab.service(name, lambda request, name=name: (200, f"{name} {request.method} {request.path}"))
    mesh_lab.apply(SHOP)
    return mesh_lab


def test_delegates_route_within_what_leads_to_them(lab: MeshLab) -> None:
    web = lab.client("web")
    assert web.post("http://shop/cart/7").text == "carts POST /cart/7"
    (arrived,) = lab.requests("carts")
    assert dict(arrived.headers)[b"x-team"] == b"cart"
    assert web.get("http://shop/cart/closed").status_code == 404
    assert web.get("http://shop/cart/7").text == "shop GET /cart/7"  # no rule of the delegate is for it


def test_answers_of_the_rules_own_reach_nobody(lab: MeshLab) -> None:
    web = lab.client("web")
    moved, closed = web.get("http://shop/old"), web.get("http://shop/closed")
    assert (moved.status_code, moved.headers["location"]) == (301, "http://shop/new")
    assert (closed.status_code, closed.text) == (503, "closed")
    began = lab.clock.now
    broken = web.get("http://shop/broken", timeout=10.0)
    assert (broken.status_code, lab.clock.now - began) == (418, 2.0)
    assert lab.attempts("shop") == 0


def test_copies_are_as_the_service_gets_them(lab: MeshLab) -> None:
    assert lab.client("web").get("http://shop/copied/1").text == "shop GET /new/1"
    lab.sleep(0.1)
    (copy,) = lab.requests("shadow")
    assert (copy.method, copy.path, dict(copy.headers)[b"host"]) == ("GET", "/new/1", b"shop-shadow")


def test_browsers_are_answered_before_authorization_and_get_no_further(mesh_lab: MeshLab) -> None:
    """`stranger` may not call the shop, neither for himself nor for a page."""
    asks = {"origin": "https://page.test", "access-control-request-method": "GET", "access-control-request-headers": "x-a"}
    asked: list[str] = []
    mesh_lab.service("shop", lambda request: asked.append(request.method) or 200)  # type: ignore[func-returns-value]
    mesh_lab.apply(SHOP)
    stranger, web = mesh_lab.client("stranger"), mesh_lab.client("web")
    preflight = stranger.options("http://shop/browsers", headers=asks)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://page.test"
    assert preflight.headers["access-control-allow-headers"] == "x-a"
    assert stranger.options("http://shop/browsers", headers={**asks, "origin": "https://page.evil"}).status_code == 403
    assert stranger.get("http://shop/browsers", headers=asks).status_code == 403
    assert asked == []
    answer = web.get("http://shop/browsers", headers=asks)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://page.test")
    assert answer.headers["x-seen"] == "1"
    assert asked == ["GET"]
