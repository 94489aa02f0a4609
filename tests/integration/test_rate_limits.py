"""RateLimitPolicies from YAML to what callers are told: of calls, of served requests, over HTTP clients and gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import grpc
import httpx
import pytest
import requests

from meshlib import Mesh, errors
from meshlib.model.rate_limit import LimitPolicy, RateLimit, RateLimits, TokenBucket
from meshlib_integrations.grpc import channel
from meshlib_integrations.httpx import AsyncMeshTransport, MeshTransport
from meshlib_integrations.requests import MeshAdapter
from tests.support.control import eventually
from tests.support.grpcmesh import HOST, UNARY, Member, greeter, handlers, serving
from tests.support.zero_trust import STRICT, SecureMesh, Workload

pytestmark = pytest.mark.timeout(240)

POLICIES = """
apiVersion: meshlib.io/v1
kind: RateLimitPolicy
metadata: {name: calls, namespace: default}
spec:
  host: reviews
  limits:
  - {name: orders, match: [{uri: {prefix: /orders}}], by: [{header: x-client}], tokens: 2, interval: 1h}
---
apiVersion: meshlib.io/v1
kind: RateLimitPolicy
metadata: {name: served, namespace: default}
spec:
  selector: {matchLabels: {app: reviews}}
  limits:
  - {name: per-caller, match: [{uri: {prefix: /mine}}], by: [{attribute: CALLER}], tokens: 3, interval: 1h}
  - {name: tried, match: [{uri: {prefix: /tried}}], tokens: 1, interval: 1h, dryRun: true}
"""


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureMesh]:
    with SecureMesh(tmp_path_factory.mktemp("town")) as town:
        town.control.apply(STRICT + "---" + POLICIES)
        yield town


@pytest.fixture(scope="module")
def reviews(town: SecureMesh) -> Workload:
    return town.serve("reviews")


@pytest.fixture(scope="module")
def productpage(town: SecureMesh, reviews: Workload) -> Iterator[Mesh]:
    with town.mesh("productpage") as mesh:
        yield mesh


@pytest.fixture(scope="module")
def ratings(town: SecureMesh, reviews: Workload) -> Iterator[Mesh]:
    with town.mesh("ratings") as mesh:
        yield mesh


def reached(workload: Workload, path: str) -> int:
    return len([line for line in workload.reached if line.endswith(path)])


# --- calls


def test_a_native_call_raises_and_nothing_is_sent(productpage: Mesh, reviews: Workload) -> None:
    for _ in range(2):
        assert productpage.request("GET", "http://reviews/orders/native").status_code == 200
    with pytest.raises(errors.RateLimited) as caught:
        productpage.request("GET", "http://reviews/orders/native")
    assert caught.value.limit == "default/calls/orders"
    assert 1700 < caught.value.retry_after <= 1800
    assert caught.value.flags == ("RL",)
    assert reached(reviews, "/orders/native") == 2
    assert productpage.request("GET", "http://reviews/other").status_code == 200  # the control


def test_users_of_httpx_get_a_response(productpage: Mesh, reviews: Workload) -> None:
    with httpx.Client(transport=MeshTransport(productpage)) as client:
        answers = [client.get("http://reviews/orders/httpx", headers={"x-client": "httpx"}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    refused = answers[2]
    assert refused.text == "rate limit exceeded"
    assert 1700 < int(refused.headers["retry-after"]) <= 1800
    assert refused.headers["ratelimit-policy"] == '"orders";q=2;w=3600'
    assert refused.headers["ratelimit"].startswith('"orders";r=0;t=')
    assert refused.extensions["meshlib"].flags == ("RL",)
    assert reached(reviews, "/orders/httpx") == 2


async def test_users_of_httpx_on_asyncio_get_a_response(productpage: Mesh) -> None:
    async with httpx.AsyncClient(transport=AsyncMeshTransport(productpage)) as client:
        statuses = [(await client.get("http://reviews/orders/a", headers={"x-client": "aio"})).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    await productpage.aclose_loop()


def test_users_of_requests_get_a_response(productpage: Mesh) -> None:
    with requests.Session() as session:
        session.mount("http://", MeshAdapter(productpage))
        answers = [session.get("http://reviews/orders/r", headers={"X-Client": "requests"}, timeout=30) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert "retry-after" in answers[2].headers


# --- served requests


def test_each_caller_has_his_own_by_the_identity_that_he_proves(productpage: Mesh, ratings: Mesh) -> None:
    """Whatever the headers say of who somebody is."""
    lies = {"x-forwarded-client-cert": "URI=spiffe://cluster.local/ns/default/sa/ratings", "x-forwarded-for": "1.2.3.4"}
    answers = [productpage.request("GET", f"http://reviews/mine/{number}", headers=lies) for number in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[0].headers["ratelimit-policy"] == '"per-caller";q=3;w=3600'
    assert answers[0].headers["ratelimit"].startswith('"per-caller";r=2;t=')
    assert int(answers[3].headers["retry-after"]) > 1000
    assert ratings.request("GET", "http://reviews/mine").status_code == 200


def test_the_operator_is_told(productpage: Mesh, reviews: Workload) -> None:
    assert [productpage.request("GET", "http://reviews/mine").status_code for _ in range(4)][-1] == 429
    eventually(lambda: "429 rate_limited" in reviews.log, what="the log")


def test_a_dry_run_is_told_to_the_operator_alone(productpage: Mesh, reviews: Workload) -> None:
    answers = [productpage.request("GET", "http://reviews/tried") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert all("ratelimit" not in answer.headers for answer in answers)
    eventually(lambda: "default/served/tried would refuse (dry run)" in reviews.log, what="the log")


# --- gRPC


def unary(request: bytes, context: object) -> bytes:
    return b"hello"


LIMITS = RateLimits((LimitPolicy("default/p", (RateLimit("slow", bucket=TokenBucket(2, 3600.0, 2)),)),))


def refusal(method: Any) -> Any:
    """Of the call after two that pass."""
    assert [method(b"", timeout=30), method(b"", timeout=30)] == [b"hello", b"hello"]
    with pytest.raises(grpc.RpcError) as caught:
        method(b"", timeout=30)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    return caught.value


def test_a_grpc_server_answers_with_resource_exhausted_and_pushback() -> None:
    with (
        Member("greeter", filters=(LIMITS,)) as server,
        serving(server.mesh, handlers(Unary=unary)) as port,
        Member("caller", greeter(port, retry=None)) as caller,
        channel(caller.mesh, HOST) as opened,
    ):
        trailing = dict(refusal(opened.unary_unary(UNARY)).trailing_metadata())
    assert 1_700_000 < int(trailing["grpc-retry-pushback-ms"]) <= 1_800_000
    assert trailing["ratelimit-policy"] == '"slow";q=2;w=3600'


def test_a_grpc_call_is_refused_where_it_is_made() -> None:
    with Member("greeter") as server, serving(server.mesh, handlers(Unary=unary)) as port:
        target = greeter(port, retry=None)
        limited = replace(target, virtual_host=replace(target.virtual_host, limits=LIMITS))
        with Member("caller", limited) as caller, channel(caller.mesh, HOST) as opened:
            error = refusal(opened.unary_unary(UNARY))
    assert int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]) > 1_700_000
    assert isinstance(error, errors.RateLimited)
