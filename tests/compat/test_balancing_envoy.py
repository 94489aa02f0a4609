"""The same clusters and routes through a real Envoy and through meshlib: by hash the same endpoint, else the same shares."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pytest

from meshlib.model.endpoint import Locality
from meshlib.policy.balancing import Place
from tests.support import choosing
from tests.support.choosing import Chooser, Document, Request, cluster, endpoint, group

pytestmark = pytest.mark.envoy

LETTERS = "ABCDE"
FAILING = "xy"
WEIGHTS = (1, 2, 3, 5, 7)
KEYS = 2000
ALL_KEYS = 10_000


class Sides(NamedTuple):
    port: int
    ours: Chooser


def hashing(*policies: Document, to: str) -> Document:
    return {"route": {"cluster": to, "hash_policy": list(policies)}}


HEADER: Document = {"header": {"header_name": "x-user"}}
SEVERAL: Sequence[Document] = (
    HEADER,
    {"header": {"header_name": "x-other"}},
    {"query_parameter": {"name": "q"}, "terminal": True},
    {"cookie": {"name": "sess"}},
)
TABLES: dict[str, Document] = {
    "ring": {"lb_policy": "RING_HASH"},
    "ring-small": {"lb_policy": "RING_HASH", "ring_hash_lb_config": {"minimum_ring_size": 10, "maximum_ring_size": 16}},
    "maglev": {"lb_policy": "MAGLEV"},
    "maglev-small": {"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 251}},
}


def by_weight(ports: dict[str, int]) -> list[Document]:
    shares = zip(LETTERS, WEIGHTS, strict=True)
    return [endpoint(ports[letter], load_balancing_weight=weight) for letter, weight in shares]


def hash_clusters(ports: dict[str, int]) -> list[Document]:
    """Each kind of table with equal weights, with others in another order, with keys of the endpoints' own, by locality."""
    equal = [endpoint(ports[letter]) for letter in LETTERS]
    weighted = by_weight(ports)
    shuffled = random.Random(4).sample(weighted, len(weighted))
    keyed = [endpoint(ports[letter], hash_key=f"pod-{letter}") for letter in LETTERS]
    localities = [
        group(*weighted[3:], locality={"region": "r", "zone": "z"}, load_balancing_weight=3),
        group(*weighted[:3], locality={"region": "r", "zone": "a"}, load_balancing_weight=1),
    ]
    found = []
    for kind, fields in TABLES.items():
        found += [
            cluster(f"{kind}-equal", group(*equal), **fields),
            cluster(f"{kind}-shuffled", group(*shuffled), **fields),
            cluster(f"{kind}-keyed", group(*keyed), **fields),
            cluster(f"{kind}-localities", *localities, **fields, common_lb_config={"locality_weighted_lb_config": {}}),
        ]
    return found


VARIANTS = [f"{kind}-{variant}" for kind in TABLES for variant in ("equal", "shuffled", "keyed", "localities")]
POLICIES: dict[str, Sequence[Document]] = {
    "several": SEVERAL,
    "query": ({"query_parameter": {"name": "q"}},),
    "cookie": ({"cookie": {"name": "sess"}},),
    "made": ({"cookie": {"name": "sess", "ttl": "60s", "path": "/p"}},),
    "attributed": (
        {"cookie": {"name": "sess", "ttl": "0s", "attributes": [{"name": "SameSite", "value": "Strict"}, {"name": "Secure"}]}},
    ),
    "source": ({"connection_properties": {"source_ip": True}},),
    "path": ({"header": {"header_name": ":path"}},),
    "authority": ({"header": {"header_name": ":authority"}},),
    "rewritten": (
        {
            "header": {
                "header_name": "x-user",
                "regex_rewrite": {"pattern": {"regex": r"^([a-z]*)-.*$"}, "substitution": r"\1"},
            }
        },
    ),
}


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, int]]:
    with choosing.servers(LETTERS + FAILING) as found:
        yield found


@pytest.fixture(scope="module")
def hashes(ports: dict[str, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    clusters = hash_clusters(ports)
    by_path = {name: hashing(HEADER, to=name) for name in VARIANTS}
    by_path |= {name: hashing(*policies, to="maglev-equal") for name, policies in POLICIES.items()}
    added = {"request_headers_to_add": [{"header": {"key": "x-user", "value": "added"}}]}
    by_path["altered"] = {**hashing(HEADER, to="maglev-equal"), **added}
    moved = {**hashing(*POLICIES["path"], to="maglev-equal")["route"], "prefix_rewrite": "/other"}
    renamed = {**hashing(*POLICIES["authority"], to="maglev-equal")["route"], "host_rewrite_literal": "other.test"}
    by_path |= {"moved": {"route": moved}, "renamed": {"route": renamed}}
    config = choosing.routes(by_path)
    with choosing.running(clusters, config, tmp_path_factory.mktemp("envoy")) as port:
        yield Sides(port, Chooser(clusters, config, ports))


def differences(sides: Sides, requests: Sequence[Request]) -> list[tuple[Request, str, str]]:
    theirs = choosing.through_envoy(sides.port, requests)
    ours = [sides.ours.choose(request) for request in requests]
    assert set(theirs) <= set(LETTERS)
    return [case for case in zip(requests, theirs, ours, strict=True) if case[1] != case[2]]


def users(path: str, count: int) -> list[Request]:
    return [(f"/{path}/{number}", [("x-user", f"user-{number}")]) for number in range(count)]


@pytest.mark.parametrize("path", ["ring-shuffled", "maglev-shuffled"])
def test_the_same_endpoint_for_every_key(hashes: Sides, path: str) -> None:
    assert differences(hashes, users(path, KEYS)) == []


@pytest.mark.parametrize("path", VARIANTS)
def test_tables_of_all_kinds(hashes: Sides, path: str) -> None:
    assert differences(hashes, users(path, KEYS // 10)) == []


@pytest.mark.soak
@pytest.mark.parametrize("path", VARIANTS)
def test_the_same_endpoint_for_ten_thousand_keys(hashes: Sides, path: str) -> None:
    assert differences(hashes, users(path, ALL_KEYS)) == []


def some_requests(path: str, count: int) -> list[Request]:
    """With any of the things that policies look at; never without all of them, for then the dice decide."""
    rng = random.Random(9)
    found: list[Request] = []
    while len(found) < count:
        headers: list[tuple[str, str]] = [("x-user", f"user-{rng.randrange(50)}")]
        headers += [("x-user", rng.choice(["", "a", "b", "zz"]))] * rng.randrange(2)
        headers += [("X-Other", f"{rng.randrange(50)}")] * rng.randrange(2)
        cookie = rng.choice(["sess=%d", 'x=1; sess="%d"', "sess=%d; sess=1", "a=b;sess=%d"]) % rng.randrange(50)
        headers.append(("cookie", cookie))
        query = rng.choice(["?q=%d", "?p=1&q=%d", "?q=%%4%d&q=2", "?q=%d#"]) % rng.randrange(50)
        found.append((f"/{path}{query.rstrip('#')}", headers))
    return found


@pytest.mark.parametrize("path", ["several", "query", "cookie", "made", "source", "path", "authority", "rewritten"])
def test_all_sources_of_hashes(hashes: Sides, path: str) -> None:
    assert differences(hashes, some_requests(path, 200)) == []


@pytest.mark.parametrize("path", ["made", "attributed"])
def test_a_missing_cookie_is_made_as_by_envoy(hashes: Sides, path: str) -> None:
    """Its value is each side's own; what both do with it is the same."""
    ((head, letter),) = choosing.answers(hashes.port, [(f"/{path}", [])])
    (theirs,) = [line.partition(": ")[2] for line in head.decode().split("\r\n") if line.lower().startswith("set-cookie: ")]
    (ours,) = hashes.ours.cookies((f"/{path}", []))
    value = re.compile("[0-9a-f]{16}")
    assert value.sub("", theirs) == value.sub("", ours) != theirs
    sent: Request = (f"/{path}", [("cookie", theirs.partition(";")[0])])
    assert hashes.ours.choose(sent) == letter


@pytest.mark.parametrize("path", ["altered", "moved", "renamed"])
def test_what_is_hashed_is_what_the_route_makes_of_the_request(hashes: Sides, path: str) -> None:
    requests = users(path, 50) + [(f"/{path}/{number}", []) for number in range(50)]
    assert differences(hashes, requests) == []


# --- shares


def level(port: int, priority: int, healthy: int, hosts: int, **fields: Any) -> Document:
    """So many `hosts` of one priority, all on one port."""
    return group(
        *(
            endpoint(
                port,
                f"127.{priority + 1}.0.{number + 1}",
                health_status="HEALTHY" if number < healthy else "UNHEALTHY",
            )
            for number in range(hosts)
        ),
        priority=priority,
        **fields,
    )


FAILOVER = (100, 72, 71, 50, 25)
"""Percent of priority 0 that is healthy."""


def share_clusters(ports: dict[str, int]) -> list[Document]:
    a, b, c = ports["A"], ports["B"], ports["C"]
    some = {"lb_policy": "ROUND_ROBIN"}
    zones: list[Document] = [{"region": "r", "zone": name} for name in "ab"]
    weighted = {**some, "common_lb_config": {"locality_weighted_lb_config": {}}}
    panic = group(*(endpoint(ports[letter], health_status="HEALTHY" if letter == "A" else "UNHEALTHY") for letter in "ABCD"))
    return [
        *(cluster(f"failover-{healthy}", level(a, 0, healthy, 100), level(b, 1, 100, 100), **some) for healthy in FAILOVER),
        cluster("factor", level(a, 0, 50, 100), level(b, 1, 100, 100), policy={"overprovisioning_factor": 100}, **some),
        cluster("panic", panic, **some),
        cluster("calm", panic, **some, common_lb_config={"healthy_panic_threshold": {"value": 0}}),
        cluster("down", level(a, 0, 0, 3), level(b, 1, 0, 1), **some),
        cluster(
            "zones",
            group(endpoint(a), locality=zones[0], load_balancing_weight=1),
            group(endpoint(b), locality=zones[1], load_balancing_weight=3),
            **weighted,
        ),
        cluster(
            "zones-partly",
            level(a, 0, 4, 4, locality=zones[0], load_balancing_weight=1),
            {**level(b, 1, 1, 4), "priority": 0, "locality": zones[1], "load_balancing_weight": 3},
            **weighted,
        ),
        cluster(
            "degraded",
            group(
                endpoint(a),
                endpoint(b, health_status="DEGRADED"),
                *(endpoint(c, f"127.0.0.{number}", health_status="UNHEALTHY") for number in (2, 3)),
            ),
            **some,
        ),
        cluster("by-weight", group(*by_weight(ports)), **some),
    ]


SHARES: dict[str, tuple[int, dict[str, float]]] = {
    # requests to Envoy, and what is expected of both, in percent
    "failover-100": (500, {"A": 100}),
    "failover-72": (500, {"A": 100}),
    "failover-71": (1000, {"A": 99, "B": 1}),
    "failover-50": (5000, {"A": 70, "B": 30}),
    "failover-25": (5000, {"A": 35, "B": 65}),
    "factor": (5000, {"A": 50, "B": 50}),
    "panic": (1000, {"A": 25, "B": 25, "C": 25, "D": 25}),
    "calm": (500, {"A": 100}),
    "down": (5000, {"A": 75, "B": 25}),
    "zones": (1000, {"A": 25, "B": 75}),
    "zones-partly": (1000, {"A": 48.8, "B": 51.2}),
    "degraded": (5000, {"A": 50, "B": 50}),
    "by-weight": (1800, {letter: 100 * weight / 18 for letter, weight in zip(LETTERS, WEIGHTS, strict=True)}),
}


@pytest.fixture(scope="module")
def shares(ports: dict[str, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    clusters = share_clusters(ports)
    config = choosing.routes({document["name"]: {"route": {"cluster": document["name"]}} for document in clusters})
    with choosing.running(clusters, config, tmp_path_factory.mktemp("envoy")) as port:
        yield Sides(port, Chooser(clusters, config, ports))


@pytest.mark.parametrize("name", SHARES)
def test_shares_are_envoys(shares: Sides, name: str) -> None:
    """Within three points of Envoy's, and of what the arithmetic says."""
    count, expected = SHARES[name]
    theirs = percent(choosing.through_envoy(shares.port, [(f"/{name}", [])] * count))
    ours = percent([shares.ours.choose((f"/{name}", [])) for _ in range(count)])
    for letter in expected.keys() | theirs.keys() | ours.keys():
        assert theirs.get(letter, 0) == pytest.approx(ours.get(letter, 0), abs=3), (letter, theirs, ours)
        assert ours.get(letter, 0) == pytest.approx(expected.get(letter, 0), abs=2), (letter, ours)


def percent(letters: Sequence[str]) -> dict[str, float]:
    return {letter: 100 * count / len(letters) for letter, count in Counter(letters).items()}


# --- retries


def retrying(to: str, retries: int, frequency: int) -> Document:
    kind = "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
    config = {"@type": f"type.googleapis.com/{kind}", "update_frequency": frequency}
    priority = {"name": "envoy.retry_priorities.previous_priorities", "typed_config": config}
    policy = {"retry_on": "5xx", "num_retries": retries, "retry_priority": priority}
    return {"route": {"cluster": to, "retry_policy": policy}}


PRIORITIES = {"xA": "AAA", "xyA": "yAA", "xy": "yxy"}
"""Servers by priority, and who answers in the end after one, two and three retries, with an update after every try."""


@pytest.fixture(scope="module")
def retries(ports: dict[str, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    clusters = [
        cluster(
            name, *(group(endpoint(ports[letter]), priority=index) for index, letter in enumerate(name)), lb_policy="RANDOM"
        )
        for name in PRIORITIES
    ]
    by_path = {
        f"{name}-{count}-{frequency}": retrying(name, count, frequency)
        for name in PRIORITIES
        for count in (1, 2, 3)
        for frequency in (1, 2)
    }
    config = choosing.routes(by_path)
    with choosing.running(clusters, config, tmp_path_factory.mktemp("envoy")) as port:
        yield Sides(port, Chooser(clusters, config, ports))


@pytest.mark.parametrize("name", PRIORITIES)
def test_retries_leave_priorities_that_have_failed(retries: Sides, name: str) -> None:
    requests: list[Request] = [(f"/{name}-{count}-{frequency}", []) for frequency in (1, 2) for count in (1, 2, 3)]
    theirs = choosing.through_envoy(retries.port, requests)
    assert [retries.ours.choose(request) for request in requests] == theirs
    assert "".join(theirs[:3]) == PRIORITIES[name]


# --- zones


ZONES = [Locality("r", name) for name in "abc"]


def zoned(name: str, ports: dict[str, int], *counts: int, **fields: Any) -> Document:
    """So many endpoints in each zone, all of a zone on one port."""
    groups = [
        group(
            *(endpoint(ports[letter], f"127.0.{index}.{number + 1}") for number in range(count)),
            locality={"region": locality.region, "zone": locality.zone},
        )
        for index, (letter, locality, count) in enumerate(zip("ABC", ZONES, counts, strict=False))
    ]
    return cluster(name, *groups, lb_policy="ROUND_ROBIN", **fields)


ZONE_SHARES: dict[str, tuple[tuple[int, ...], dict[str, float]]] = {
    "residual": ((2, 4, 2), {"A": 62.5, "B": 25, "C": 12.5}),
    "direct": ((3, 3), {"A": 100}),
    "small": ((2, 2), {"A": 50, "B": 50}),
}
PEERS = (2, 2, 1)


@pytest.fixture(scope="module")
def zones(ports: dict[str, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    aware: Document = {"common_lb_config": {"zone_aware_lb_config": {}}}
    clusters = [zoned(name, ports, *counts, **aware) for name, (counts, _) in ZONE_SHARES.items()]
    config = choosing.routes({name: {"route": {"cluster": name}} for name in ZONE_SHARES})
    bootstrap: Document = {
        "node": {"id": "n", "cluster": "c", "locality": {"region": "r", "zone": "a"}},
        "cluster_manager": {"local_cluster_name": "own"},
    }
    own = zoned("own", ports, *PEERS)
    with choosing.running([*clusters, own], config, tmp_path_factory.mktemp("envoy"), **bootstrap) as port:
        yield Sides(port, Chooser(clusters, config, ports, place=Place(ZONES[0], dict(zip(ZONES, PEERS, strict=True)))))


@pytest.mark.parametrize("name", ZONE_SHARES)
def test_calls_stay_in_their_zone_as_by_envoy(zones: Sides, name: str) -> None:
    count = 5000 if name == "residual" else 500
    theirs = percent(choosing.through_envoy(zones.port, [(f"/{name}", [])] * count))
    ours = percent([zones.ours.choose((f"/{name}", [])) for _ in range(count)])
    assert theirs == pytest.approx(ours, abs=3)
    assert ours == pytest.approx(ZONE_SHARES[name][1], abs=2)
