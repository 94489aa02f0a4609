"""How clusters choose among their endpoints, and what calls are placed by, read from xDS."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.model.cluster import Balancing, LbPolicy, SlowStart, ZoneAware
from meshlib.model.endpoint import Assignment
from meshlib.model.route import Forward, HashPolicy, Substitution
from tests.unit.xds.test_decode_strictly import assignment, cluster, endpoint, problems_of, route, routes, typed
from tests.unit.xds.test_decode_values import decoded, only_route

Document = dict[str, Any]


def balancing(**fields: Any) -> Balancing:
    found = decoded(cluster(**fields)).balancing
    assert isinstance(found, Balancing)
    return found


@pytest.mark.parametrize("policy", list(LbPolicy))
def test_policies(policy: LbPolicy) -> None:
    assert decoded(cluster(lb_policy=policy.name)).lb_policy is policy


def test_what_is_unset_is_envoys() -> None:
    assert balancing() == Balancing()
    assert balancing().panic_threshold == 50.0
    assert balancing(common_lb_config={"healthy_panic_threshold": {}}).panic_threshold == 0.0


def test_all_of_it() -> None:
    slow = {
        "slow_start_window": "30s",
        "aggression": {"default_value": 2.0, "runtime_key": "k"},
        "min_weight_percent": {"value": 5},
    }
    found = balancing(
        least_request_lb_config={"choice_count": 3, "active_request_bias": {"default_value": 0.5}, "slow_start_config": slow},
        common_lb_config={
            "healthy_panic_threshold": {"value": 20},
            "locality_weighted_lb_config": {},
            "consistent_hashing_lb_config": {"use_hostname_for_hashing": True, "hash_balance_factor": 150},
        },
    )
    assert found == Balancing(
        choice_count=3,
        active_request_bias=0.5,
        slow_start=SlowStart(30.0, 2.0, 5.0),
        panic_threshold=20.0,
        locality_weighted=True,
        hash_by_hostname=True,
        hash_balance_factor=150,
    )


def test_tables() -> None:
    ring = balancing(lb_policy="RING_HASH", ring_hash_lb_config={"minimum_ring_size": 10, "maximum_ring_size": 16})
    assert (ring.minimum_ring_size, ring.maximum_ring_size) == (10, 16)
    assert balancing(lb_policy="MAGLEV", maglev_lb_config={"table_size": 251}).table_size == 251


def test_zones() -> None:
    aware = {"routing_enabled": {"value": 80}, "min_cluster_size": 3, "fail_traffic_on_panic": True}
    assert balancing(common_lb_config={"zone_aware_lb_config": aware}).zone_aware == ZoneAware(80.0, 3, True)
    assert balancing(common_lb_config={"zone_aware_lb_config": {}}).zone_aware == ZoneAware()


def test_a_slow_start_without_a_window_is_none() -> None:
    assert balancing(least_request_lb_config={"slow_start_config": {}}).slow_start is None
    window = {"slow_start_config": {"slow_start_window": "10s"}}
    assert balancing(lb_policy="ROUND_ROBIN", round_robin_lb_config=window).slow_start == SlowStart(10.0)
    assert balancing(lb_policy="RANDOM", round_robin_lb_config=window).slow_start is None
    gentle = {"slow_start_config": {"slow_start_window": "10s", "aggression": {"default_value": 0}}}
    assert balancing(least_request_lb_config=gentle).slow_start == SlowStart(10.0)  # Envoy: what makes no sense is 1


REFUSED: list[tuple[Document, str]] = [
    ({"lb_policy": "CLUSTER_PROVIDED"}, "lb_policy"),
    ({"lb_policy": "LOAD_BALANCING_POLICY_CONFIG"}, "lb_policy"),
    ({"ring_hash_lb_config": {"hash_function": "MURMUR_HASH_2"}}, "ring_hash_lb_config.hash_function"),
    ({"ring_hash_lb_config": {"minimum_ring_size": 0}}, "ring_hash_lb_config.minimum_ring_size"),
    ({"ring_hash_lb_config": {"maximum_ring_size": 8388609}}, "ring_hash_lb_config.maximum_ring_size"),
    ({"ring_hash_lb_config": {"maximum_ring_size": 1000}}, "ring_hash_lb_config.minimum_ring_size"),
    ({"maglev_lb_config": {"table_size": 1000}}, "maglev_lb_config.table_size"),
    ({"maglev_lb_config": {"table_size": 5000081}}, "maglev_lb_config.table_size"),
    ({"least_request_lb_config": {"choice_count": 1}}, "least_request_lb_config.choice_count"),
    (
        {"least_request_lb_config": {"active_request_bias": {"default_value": -1.0}}},
        "least_request_lb_config.active_request_bias",
    ),
    (
        {"least_request_lb_config": {"slow_start_config": {"min_weight_percent": {"value": 101}}}},
        "least_request_lb_config.slow_start_config.min_weight_percent",
    ),
    ({"common_lb_config": {"healthy_panic_threshold": {"value": -1}}}, "common_lb_config.healthy_panic_threshold"),
    (
        {"common_lb_config": {"consistent_hashing_lb_config": {"hash_balance_factor": 99}}},
        "common_lb_config.consistent_hashing_lb_config.hash_balance_factor",
    ),
    (
        {"common_lb_config": {"zone_aware_lb_config": {"routing_enabled": {"value": 101}}}},
        "common_lb_config.zone_aware_lb_config.routing_enabled",
    ),
]


@pytest.mark.parametrize(("fields", "field"), REFUSED)
def test_what_is_not_understood_is_refused_by_name(fields: Document, field: str) -> None:
    assert [problem.field for problem in problems_of(cluster(**fields))] == [field]


def test_endpoints_have_keys_and_localities_weights() -> None:
    keyed = endpoint("10.0.0.1", metadata={"filter_metadata": {"envoy.lb": {"hash_key": "pod-1", "version": "v1"}}})
    document = assignment(keyed, endpoint("10.0.0.2"), policy={"overprovisioning_factor": 200})
    document["endpoints"][0]["load_balancing_weight"] = 7
    found = decoded(document)
    assert isinstance(found, Assignment)
    assert found.overprovisioning_factor == 200
    assert [(each.hash_key, each.locality_weight) for each in found.endpoints] == [("pod-1", 7), ("", 7)]


def test_inline_endpoints_have_a_factor_of_their_own() -> None:
    inline = {"cluster_name": "c", "endpoints": [{"lb_endpoints": [endpoint()]}], "policy": {"overprovisioning_factor": 100}}
    assert decoded(cluster(type="STATIC", load_assignment=inline)).overprovisioning_factor == 100


@pytest.mark.parametrize(
    ("weights", "field"),
    [((0,), "endpoints[0].load_balancing_weight"), ((2**32 - 1, 1), "endpoints")],
)
def test_weights_of_localities_are_checked(weights: tuple[int, ...], field: str) -> None:
    groups = [
        {"lb_endpoints": [endpoint(f"10.0.0.{index}")], "load_balancing_weight": weight} for index, weight in enumerate(weights)
    ]
    document = typed("ClusterLoadAssignment", cluster_name="c", endpoints=groups)
    assert [problem.field for problem in problems_of(document)] == [field]


# --- hash policies


def hashing(*policies: Document) -> Document:
    return routes(route(hash_policy=list(policies)))


def test_hash_policies() -> None:
    rewrite = {"pattern": {"regex": "(a)"}, "substitution": r"\1"}
    attributes = [{"name": "SameSite", "value": "Strict"}, {"name": "Secure"}]
    found = only_route(
        hashing(
            {"header": {"header_name": "X-User", "regex_rewrite": rewrite}, "terminal": True},
            {"cookie": {"name": "sess"}},
            {"cookie": {"name": "made", "ttl": "0s", "path": "/p", "attributes": attributes}},
            {"query_parameter": {"name": "q"}},
            {"connection_properties": {"source_ip": True}},
            {"connection_properties": {}},
        )
    ).action
    assert isinstance(found, Forward)
    assert found.hash_policies == (
        HashPolicy("header", "x-user", rewrite=Substitution("(a)", r"\1"), terminal=True),
        HashPolicy("cookie", "sess"),
        HashPolicy("cookie", "made", ttl=0.0, path="/p", attributes=(("SameSite", "Strict"), ("Secure", ""))),
        HashPolicy("query", "q"),
        HashPolicy("source_ip"),
    )


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        ({}, ""),
        ({"header": {}}, ".header.header_name"),
        ({"header": {"header_name": "a b"}}, ".header.header_name"),
        ({"cookie": {}}, ".cookie.name"),
        ({"cookie": {"name": "a", "path": "/;"}}, ".cookie.path"),
        ({"cookie": {"name": "a", "ttl": "-1s"}}, ".cookie.ttl"),
        ({"query_parameter": {}}, ".query_parameter.name"),
        (
            {"header": {"header_name": "a", "regex_rewrite": {"pattern": {"regex": "a"}, "substitution": r"\3"}}},
            ".header.regex_rewrite.substitution",
        ),
    ],
)
def test_hash_policies_that_make_no_sense_are_refused(policy: Document, field: str) -> None:
    prefix = "virtual_hosts[0].routes[0].route.hash_policy[0]"
    assert [problem.field for problem in problems_of(hashing(policy))] == [prefix + field]


def retry_priority(**config: Any) -> Document:
    priority = {"name": "p", "typed_config": typed("PreviousPrioritiesConfig", **config)}
    return routes(route(retry_policy={"retry_on": "5xx", "retry_priority": priority}))


def test_retry_priority() -> None:
    action = only_route(retry_priority(update_frequency=2)).action
    assert isinstance(action, Forward)
    assert action.retry is not None
    assert action.retry.previous_priorities == 2
    field = "virtual_hosts[0].routes[0].route.retry_policy.retry_priority.typed_config.update_frequency"
    assert [problem.field for problem in problems_of(retry_priority())] == [field]
