"""The fixture, used as its users use it."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx
import pytest

from meshlib import errors
from meshlib.testing import Delay, Refuse, Reset, Status, Unreachable
from meshlib_control.lab import InvalidConfiguration, MeshLab, Received

RETRIES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings}
spec:
  hosts: [ratings]
  http:
  - timeout: 1s
    retries: {attempts: 2, retryOn: "5xx,connect-failure,reset", backoff: 100ms}
    route: [{destination: {host: ratings}}]
"""

CANARY = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - match: [{headers: {end-user: {exact: jason}}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - route:
    - {destination: {host: reviews, subset: v1}, weight: 90}
    - {destination: {host: reviews, subset: v2}, weight: 10}
"""

ONLY_REVIEWS = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ratings}
spec:
  selector: {matchLabels: {app: ratings}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/reviews]}}]
    to: [{operation: {methods: [GET]}}]
"""


def test_a_retry_saves_a_call(mesh_lab: MeshLab) -> None:
    answers = iter([503, {"stars": 5}])
    mesh_lab.service("ratings", lambda request: next(answers), labels={"version": "v1"})
    mesh_lab.apply(RETRIES)
    response = mesh_lab.client("reviews").get("http://ratings/7")
    assert response.status_code == 200
    assert response.json() == {"stars": 5}
    assert mesh_lab.attempts("ratings") == 2
    (call,) = mesh_lab.calls
    assert (call.caller, call.route, call.attempts, call.status) == ("reviews", "default/ratings/http[0]", 2, 200)


def test_a_timeout_takes_its_time_on_the_labs_clock_only(mesh_lab: MeshLab) -> None:
    mesh_lab.service("ratings", lambda request: mesh_lab.sleep(5.0))
    mesh_lab.apply(RETRIES)
    began = mesh_lab.clock.now
    with pytest.raises(httpx.ReadTimeout) as caught:
        mesh_lab.client("reviews").get("http://ratings/7")
    assert isinstance(caught.value, errors.TimeoutExceeded)
    assert caught.value.which == "route"
    assert mesh_lab.clock.now == began + 1.0


def test_backoffs_pass_on_the_labs_clock(mesh_lab: MeshLab) -> None:
    mesh_lab.service("ratings", lambda request: 503)
    mesh_lab.apply(RETRIES.replace("1s", "30s"))
    began = mesh_lab.clock.now
    assert mesh_lab.client("reviews").get("http://ratings/7").status_code == 503
    assert mesh_lab.attempts("ratings") == 3
    assert mesh_lab.clock.now > began


def test_a_canary_gets_its_share(mesh_lab: MeshLab) -> None:
    mesh_lab.service("reviews", labels={"version": "v1"}, instances=2)
    mesh_lab.service("reviews", labels={"version": "v2"})
    mesh_lab.apply(CANARY)
    client = mesh_lab.client("productpage")
    shares = Counter(client.get("http://reviews/").json()["labels"]["version"] for _ in range(500))
    assert 25 <= shares["v2"] <= 80  # 50, within four standard deviations, and the same in every run
    assert Counter(call.subset for call in mesh_lab.calls) == shares
    assert client.get("http://reviews/", headers={"end-user": "jason"}).json()["labels"]["version"] == "v2"


def test_the_same_seed_makes_the_same_choices() -> None:
    def choices(seed: int) -> list[str]:
        with MeshLab(seed=seed) as lab:
            lab.service("reviews", labels={"version": "v1"}, instances=2)
            lab.service("reviews", labels={"version": "v2"})
            lab.apply(CANARY)
            client = lab.client()
            return [client.get("http://reviews/").json()["instance"] for _ in range(50)]

    assert choices(7) == choices(7)
    assert choices(7) != choices(8)


def test_a_fault_of_the_configuration_keeps_a_call_from_the_service(mesh_lab: MeshLab) -> None:
    mesh_lab.service("ratings")
    mesh_lab.apply(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "ratings"},
            "spec": {
                "hosts": ["ratings"],
                "http": [
                    {
                        "fault": {
                            "delay": {"percentage": {"value": 100}, "fixedDelay": "3s"},
                            "abort": {"percentage": {"value": 100}, "httpStatus": 418},
                        },
                        "route": [{"destination": {"host": "ratings"}}],
                    }
                ],
            },
        }
    )
    began = mesh_lab.clock.now
    assert mesh_lab.client("reviews").get("http://ratings/").status_code == 418
    assert mesh_lab.clock.now == began + 3.0
    assert mesh_lab.attempts("ratings") == 0
    assert mesh_lab.calls[0].flags == ("DI", "FI")
    mesh_lab.delete("VirtualService", "ratings")
    assert mesh_lab.client("reviews").get("http://ratings/").status_code == 200


def test_a_policy_lets_in_whom_it_names(mesh_lab: MeshLab) -> None:
    mesh_lab.service("ratings")
    mesh_lab.apply(ONLY_REVIEWS)
    assert mesh_lab.client("reviews").get("http://ratings/").status_code == 200
    assert mesh_lab.client("reviews").post("http://ratings/").status_code == 403
    assert mesh_lab.client("productpage").get("http://ratings/").status_code == 403
    assert mesh_lab.client("reviews", namespace="elsewhere").get("http://ratings.default/").status_code == 403
    assert len(mesh_lab.requests("ratings")) == 1
    assert [arrived.method for arrived in mesh_lab.refused("ratings")] == ["POST", "GET", "GET"]
    assert mesh_lab.mesh("ratings").denied == {"rbac_access_denied_matched_policy[none]": 3}


def test_an_application_knows_who_calls(mesh_lab: MeshLab) -> None:
    mesh_lab.service("ratings", lambda request: request.peer)
    mesh_lab.service("details", lambda request: request.peer or "nobody", mtls=False)
    client = mesh_lab.client("reviews")
    assert client.get("http://ratings/").text == "spiffe://cluster.local/ns/default/sa/reviews"
    assert client.get("http://details/").text == "nobody"


def test_an_endpoint_that_keeps_failing_is_left_out_for_a_while(mesh_lab: MeshLab) -> None:
    mesh_lab.service("ratings", instances=3)
    mesh_lab.inject("ratings", Status(503), instance="ratings-1")
    mesh_lab.apply("""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: ratings}
spec:
  host: ratings
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 2, interval: 1s, baseEjectionTime: 30s, maxEjectionPercent: 50}
""")
    client = mesh_lab.client("reviews")
    while not mesh_lab.ejected("ratings"):
        client.get("http://ratings/")
    assert mesh_lab.ejected("ratings") == {"ratings-1"}
    assert [event.endpoint for event in mesh_lab.events] == ["10.0.0.2:80"]
    before = mesh_lab.attempts("ratings")
    assert {client.get("http://ratings/").json()["instance"] for _ in range(20)} == {"ratings-0", "ratings-2"}
    assert mesh_lab.attempts("ratings") == before + 20
    mesh_lab.sleep(40.0)
    client.get("http://ratings/")
    assert mesh_lab.ejected("ratings") == set()


def test_calls_go_on_to_other_services_with_what_is_left_of_the_time(mesh_lab: MeshLab) -> None:
    """Blocking and asynchronous applications, one after the other."""

    async def reviews(request: Received) -> object:
        async with mesh_lab.async_client("reviews") as client:
            await asyncio.sleep(0.25)
            response = await client.get("http://ratings/")
            return {"ratings": response.json()}

    def ratings(request: Received) -> object:
        mesh_lab.sleep(0.25)
        return mesh_lab.session("ratings").get("http://stars/").json()

    mesh_lab.service("reviews", reviews)
    mesh_lab.service("ratings", ratings)
    mesh_lab.service("stars", lambda request: {"left": int(request.headers["x-envoy-expected-rq-timeout-ms"])})
    response = mesh_lab.mesh("productpage").request("GET", "http://reviews/", timeout=2.0)
    assert response.json() == {"ratings": {"left": 1500}}
    assert [call.caller for call in mesh_lab.calls] == ["ratings-0", "reviews-0", "productpage"]


def test_everything_that_is_wrong_is_said_at_once_and_nothing_is_taken(mesh_lab: MeshLab) -> None:
    mesh_lab.service("ratings")
    with pytest.raises(InvalidConfiguration) as caught:
        mesh_lab.apply(RETRIES, RETRIES.replace("name: ratings", "name: other").replace("1s", "soon").replace("http:", "htp:"))
    assert len(caught.value.findings) >= 2
    assert "soon" in str(caught.value) or "htp" in str(caught.value)
    with pytest.raises(KeyError):
        mesh_lab.delete("VirtualService", "ratings")


@pytest.mark.mesh_lab(namespace="shop", seed=3)
def test_a_marker_says_how_the_lab_is_made(mesh_lab: MeshLab) -> None:
    assert mesh_lab.service("ratings").host == "ratings.shop.svc.cluster.local"


def test_a_host_outside_is_not_called(mesh_lab: MeshLab) -> None:
    with pytest.raises(errors.OutboundBlocked, match="has no network"):
        mesh_lab.client().get("http://example.com/")


FAULTS = [
    (Refuse(), httpx.ConnectError, errors.ConnectFailed, 0.0),
    (Unreachable(), httpx.ConnectTimeout, errors.ConnectTimeout, 5.0),
    (Reset(), httpx.RemoteProtocolError, errors.ConnectionTerminated, 0.0),
    (Reset(after=4), httpx.RemoteProtocolError, errors.ConnectionTerminated, 0.0),
    (Delay(60.0), httpx.ReadTimeout, errors.TimeoutExceeded, 5.0),
]

NO_RETRIES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings}
spec:
  hosts: [ratings]
  http:
  - retries: {attempts: 0}
    route: [{destination: {host: ratings}}]
"""


@pytest.mark.parametrize(("fault", "theirs", "ours", "seconds"), FAULTS, ids=lambda value: str(value)[:20])
def test_a_fault_is_what_it_would_be_on_a_network(
    mesh_lab: MeshLab, fault: Refuse, theirs: type[Exception], ours: type[Exception], seconds: float
) -> None:
    mesh_lab.service("ratings", lambda request: "0123456789")
    mesh_lab.apply(NO_RETRIES)
    client = mesh_lab.client("reviews")
    began = mesh_lab.clock.now
    with mesh_lab.inject("ratings", fault) as injected, pytest.raises(theirs) as caught:
        client.get("http://ratings/")
    assert isinstance(caught.value, ours)
    assert mesh_lab.clock.now == pytest.approx(began + seconds)
    assert injected.happened == 1
    assert client.get("http://ratings/").text == "0123456789"


def test_a_fault_happens_as_often_as_it_was_told(mesh_lab: MeshLab) -> None:
    mesh_lab.service("ratings")
    mesh_lab.apply(RETRIES)
    mesh_lab.inject("ratings", Refuse(), times=2)
    assert mesh_lab.client("reviews").get("http://ratings/").status_code == 200
    assert [bool(attempted.error) for attempted in mesh_lab.attempted] == [True, True, False]


def test_a_process_that_is_gone_refuses_and_the_others_take_over(mesh_lab: MeshLab) -> None:
    mesh_lab.service("ratings", instances=2)
    mesh_lab.down("ratings", 0)
    client = mesh_lab.client("reviews")
    assert {client.get("http://ratings/").json()["instance"] for _ in range(10)} == {"ratings-1"}
    mesh_lab.down("ratings")
    with pytest.raises(httpx.ConnectError):
        client.get("http://ratings/")
    mesh_lab.up("ratings")
    mesh_lab.sleep(60.0)
    assert {client.get("http://ratings/").json()["instance"] for _ in range(10)} == {"ratings-0", "ratings-1"}


def test_an_instance_that_the_catalog_calls_unhealthy_is_not_called(mesh_lab: MeshLab) -> None:
    mesh_lab.service("ratings", instances=2)
    mesh_lab.set_health("ratings", "unhealthy", 0)
    client = mesh_lab.client("reviews")
    assert {client.get("http://ratings/").json()["instance"] for _ in range(10)} == {"ratings-1"}


def test_limits_of_connections_hold(mesh_lab: MeshLab) -> None:
    """One connection, one that waits for it, and no more."""
    mesh_lab.service("ratings", lambda request: mesh_lab.sleep(1.0))
    mesh_lab.apply(
        NO_RETRIES,
        """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: ratings}
spec:
  host: ratings
  trafficPolicy:
    connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}
""",
    )

    async def main() -> list[object]:
        async with mesh_lab.async_client("reviews", timeout=None) as client:
            return await asyncio.gather(*(client.get("http://ratings/") for _ in range(3)), return_exceptions=True)

    began = mesh_lab.clock.now
    results = mesh_lab.run(main())
    assert sorted(type(result).__name__ for result in results) == ["Overflow", "Response", "Response"]
    assert mesh_lab.clock.now == began + 2.0


def test_what_a_service_entry_leads_to_is_in_memory_too(mesh_lab: MeshLab) -> None:
    """No name is resolved; of two resolutions, one by name and one by address."""
    mesh_lab.outside("api.example.com", lambda request: request.headers["host"])
    mesh_lab.outside("192.0.2.7", lambda request: 503, port=8080)
    mesh_lab.apply("""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: named}
spec:
  hosts: [api.example.com]
  ports: [{number: 80, name: http, protocol: HTTP}]
  location: MESH_EXTERNAL
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: listed}
spec:
  hosts: [listed.example.com]
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]
  location: MESH_EXTERNAL
  resolution: STATIC
  endpoints: [{address: 192.0.2.7}]
""")
    client = mesh_lab.client("reviews")
    assert client.get("http://api.example.com/").text == "api.example.com"
    assert client.get("http://listed.example.com/").status_code == 503
    (arrived,) = mesh_lab.requests("192.0.2.7")
    assert arrived.peer == ""
    mesh_lab.down("api.example.com")
    with pytest.raises(httpx.ConnectError):
        client.get("http://api.example.com/")
