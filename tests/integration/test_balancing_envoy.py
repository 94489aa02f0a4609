"""One YAML, one control service, two data planes: real meshlib and real Envoy choose the same endpoints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from meshlib import Mesh
from meshlib_control.catalog.model import Instance
from meshlib_control.compile import World
from meshlib_control.compile.listeners import PROXY_LISTENER
from tests.integration.test_ads_clients import AnyPort
from tests.support import backends, envoy
from tests.support.configuring import registered, world
from tests.support.control_plane import ControlPlane, until

pytestmark = pytest.mark.envoy

NAMES = tuple(f"carts-{letter}" for letter in "abcde")
ZONED = {"us-east/a": 2, "us-east/b": 4, "us-east/c": 2}
"""How many instances the service that is called by zones has in each."""
CALLERS = {"us-east/a": 2, "us-east/b": 2, "us-east/c": 1}
"""And the calling service."""
OWN = "outbound|80||web.default.svc.cluster.local"
LOCALITY = "us-east/a"

RULES = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: %(name)s}
spec: {host: %(name)s, trafficPolicy: %(policy)s}
---
"""
COOKIE = "{name: cart, path: /shop, ttl: 90s, attributes: [{name: SameSite, value: Lax}, {name: Secure}]}"
POLICIES = {
    "by-header": "{loadBalancer: {consistentHash: {httpHeaderName: x-user}}}",
    "by-query": "{loadBalancer: {consistentHash: {httpQueryParameterName: user, maglev: {tableSize: 5003}}}}",
    "by-cookie": "{loadBalancer: {consistentHash: {httpCookie: {name: user}, ringHash: {minimumRingSize: 64}}}}",
    "by-source": "{loadBalancer: {consistentHash: {useSourceIp: true}}}",
    "by-made-cookie": f"{{loadBalancer: {{consistentHash: {{httpCookie: {COOKIE}}}}}}}",
    "near": "{outlierDetection: {}, loadBalancer: {simple: ROUND_ROBIN}}",
    "zoned": "{loadBalancer: {zoneAwareLbSetting: {}}}",
    "chosen": "{loadBalancer: {localityLbSetting: {distribute: [{from: us-east/*, to: {us-east/b: 70, eu-west: 30}}]}}}",
}
PLACES = ("us-east/a", "us-east/a", "us-east/b", "eu-west/a", "eu-west/a")


def state(servers: dict[str, backends.Backend]) -> World:
    instances = [
        Instance(name, "127.0.0.1", servers[name].port, locality=place, weight=weight)
        for name, place, weight in zip(NAMES, PLACES, (1, 2, 1, 3, 1), strict=True)
    ]
    rules = "".join(RULES % {"name": name, "policy": policy} for name, policy in POLICIES.items())
    zoned = [
        Instance(name, "127.0.0.1", server.port, locality=name[:-2]) for name, server in servers.items() if name not in NAMES
    ]
    web = [
        Instance(f"{place}-{number}", f"10.0.0.{number}", 80, locality=place) for number, place in enumerate(spread(CALLERS))
    ]
    services = [registered(name, *(zoned if name == "zoned" else instances)) for name in POLICIES]
    return world(rules, services=[*services, registered("web", *web)])


def spread(counts: dict[str, int]) -> list[str]:
    """Each place as often as it counts."""
    return [place for place, count in counts.items() for _ in range(count)]


@dataclass
class Sides:
    mesh: Mesh
    client: httpx.Client
    port: int

    def through_envoy(self, host: str, path: str = "/", **headers: str) -> str:
        sent = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
        answer = self.client.get(f"http://127.0.0.1:{self.port}{path}", headers=sent)
        assert answer.status_code == 200, answer.text
        return answer.text

    def through_mesh(self, host: str, path: str = "/", **headers: str) -> str:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.mesh.request("GET", f"http://{host}{path}", headers=sent)
        assert answer.status_code == 200
        return answer.content.decode()


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    zoned = [f"{place}-{number}" for number, place in enumerate(spread(ZONED))]
    with backends.running([*NAMES, *zoned]) as servers, ControlPlane(compile_with=AnyPort()) as control:
        control.publish(state(servers))
        bootstrap = envoy.ads_bootstrap(control.port)
        region, zone = LOCALITY.split("/")
        bootstrap["node"]["locality"] = {"region": region, "zone": zone}
        # What Envoy needs to know for zone awareness: the instances of the service that it stands beside.
        eds = {"eds_config": {"ads": {}, "resource_api_version": "V3"}, "service_name": OWN}
        bootstrap["static_resources"]["clusters"].append({"name": "own", "type": "EDS", "eds_cluster_config": eds})
        bootstrap["cluster_manager"] = {"local_cluster_name": "own"}
        folder: Path = tmp_path_factory.mktemp("envoy")
        with (
            Mesh(control=control.address, service="web", locality=LOCALITY, insecure_dev=True) as mesh,
            envoy.running(bootstrap, folder) as process,
            httpx.Client(trust_env=False, timeout=20.0) as client,
        ):
            both = Sides(mesh, client, process.listener_port(PROXY_LISTENER))
            process.until(lambda: client.get(f"http://127.0.0.1:{both.port}/", headers={"host": "near"}).is_success, "routes")
            until(lambda: mesh.request("GET", "http://near/").status_code == 200, "the first answer")
            yield both


KEYS = tuple(f"user-{number}" for number in range(200))


@pytest.mark.parametrize("host", ["by-header", "by-query", "by-cookie"])
def test_both_choose_the_same_endpoint_for_each_key(sides: Sides, host: str) -> None:
    """By ring, by Maglev's table, and of endpoints with weights."""

    def request(key: str) -> tuple[str, dict[str, str]]:
        match host:
            case "by-header":
                return "/", {"x_user": key}
            case "by-query":
                return f"/?a=b&user={key}", {}
            case _:
                return "/", {"cookie": f"a=b; user={key}"}

    cases = [request(key) for key in KEYS]
    ours = [sides.through_mesh(host, path, **headers) for path, headers in cases]
    theirs = [sides.through_envoy(host, path, **headers) for path, headers in cases]
    assert ours == theirs
    assert set(ours) == set(NAMES)


def test_both_keep_a_process_at_one_endpoint(sides: Sides) -> None:
    """By its address, which is the same for both."""
    assert len({call("by-source") for call in (sides.through_mesh, sides.through_envoy) for _ in range(5)}) == 1


def test_both_make_a_cookie_and_keep_to_it(sides: Sides) -> None:
    def cookie(kind: str) -> tuple[str, str]:
        """Its value, and the rest of the line."""
        if kind == "mesh":
            found = sides.mesh.request("GET", "http://by-made-cookie/").headers["set-cookie"]
        else:
            found = sides.client.get(f"http://127.0.0.1:{sides.port}/", headers={"host": "by-made-cookie"}).headers[
                "set-cookie"
            ]
        sides.client.cookies.clear()
        value, _, rest = found.partition(";")
        return value.removeprefix("cart="), rest

    (ours, line), (theirs, other) = cookie("mesh"), cookie("envoy")
    assert line == other == " Max-Age=90; Path=/shop; SameSite=Lax; Secure; HttpOnly"
    for value in (ours, theirs):
        sent = f"cart={value}"
        places = {call("by-made-cookie", cookie=sent) for call in (sides.through_mesh, sides.through_envoy) for _ in range(3)}
        assert len(places) == 1


def test_both_stay_in_their_own_zone(sides: Sides) -> None:
    for call in (sides.through_mesh, sides.through_envoy):
        assert {call("near") for _ in range(30)} == {"carts-a", "carts-b"}


def test_both_go_where_the_distribution_sends_them(sides: Sides) -> None:
    """70 to 30 of 200, four standard deviations either way; inside of a locality by weight and load."""
    for call in (sides.through_mesh, sides.through_envoy):
        found = Counter(call("chosen") for _ in range(200))
        assert found.keys() <= {"carts-c", "carts-d", "carts-e"}
        assert 114 <= found["carts-c"] <= 166, found


def test_both_keep_calls_in_their_zone_as_far_as_it_has_room(sides: Sides) -> None:
    """Two fifths of the callers have a quarter of the endpoints: five of eight calls stay, two go to b, one to c."""
    until(lambda: Counter(sides.through_mesh("zoned")[:-2] for _ in range(40))["us-east/a"] > 18, "the own service's instances")
    for call in (sides.through_mesh, sides.through_envoy):
        found = Counter(call("zoned")[:-2] for _ in range(600))
        assert 327 <= found["us-east/a"] <= 423, found  # 375, four standard deviations either way
        assert found["us-east/b"] > found["us-east/c"] > 30, found
