"""explain says where the hash of a request leads, and calls go there."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.flow.explain import ClusterShare, explain
from meshlib.policy.balancing.maglev import Maglev
from meshlib.xds.json import from_json
from tests.support.hosts import as_hash, entries, made
from tests.unit.xds.test_decode_strictly import cluster, endpoint, listener, routes

H = as_hash()
HEADER: dict[str, Any] = {"header": {"header_name": "x-user"}}


def share(policy: dict[str, Any] | None, *headers: tuple[str, str], lb_policy: str = "MAGLEV", **route: Any) -> ClusterShare:
    hosts = [endpoint("127.0.0.1", 21001 + index) for index in range(5)]
    inline = {"cluster_name": "c", "endpoints": [{"lb_endpoints": hosts}]}
    static = cluster(type="STATIC", eds_cluster_config=None, lb_policy=lb_policy, load_assignment=inline)
    action = {"cluster": "c", "hash_policy": [policy] if policy else []}
    documents = [
        {**listener(), "name": "reviews:80"},
        routes({"match": {"prefix": "/"}, "route": action, **route}),
        {key: value for key, value in static.items() if value is not None},
    ]
    resources = [(document["@type"], from_json(document).SerializeToString()) for document in documents]
    (found,) = explain(resources, "GET", "reviews:80", "/", headers).clusters
    return found


@pytest.mark.parametrize("user", ["user-0", "user-1", "user-4"])
def test_it_says_which_endpoint(user: str) -> None:
    placed = Maglev(entries(made((1,) * 5)), 65_537).pick(H(user)).key
    assert share(HEADER, ("x-user", user)).placed == placed


def test_it_hashes_what_the_route_makes_of_the_request() -> None:
    added: dict[str, Any] = {"request_headers_to_add": [{"header": {"key": "x-user", "value": "user-0"}}]}
    assert share(HEADER, **added).placed == share(HEADER, ("x-user", "user-0")).placed


@pytest.mark.parametrize(
    ("policy", "lb_policy"),
    [
        (HEADER, "MAGLEV"),  # without the header
        ({"cookie": {"name": "sess", "ttl": "0s"}}, "MAGLEV"),  # it would be made
        ({"connection_properties": {"source_ip": True}}, "MAGLEV"),  # whose?
        (None, "MAGLEV"),
        (HEADER, "ROUND_ROBIN"),
    ],
)
def test_where_dice_decide_it_says_nothing(policy: dict[str, Any] | None, lb_policy: str) -> None:
    headers = [("x-user", "a")] if lb_policy == "ROUND_ROBIN" else []
    found = share(policy, *headers, lb_policy=lb_policy)
    assert (found.placed, found.error) == ("", "")
    assert len(found.endpoints) == 5


def test_the_answer_is_always_the_same() -> None:
    assert len({share(HEADER, ("x-user", "a"), lb_policy="RING_HASH").placed for _ in range(5)}) == 1
