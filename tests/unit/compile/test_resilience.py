"""Which ResiliencePolicy holds, and what becomes of it in clusters, routes and listeners."""

from __future__ import annotations

import pytest

from meshlib.model.cluster import Cluster
from meshlib.model.listener import InboundListener
from meshlib.model.resilience import (
    AdaptiveConcurrency,
    Callers,
    CircuitBreaker,
    Hedging,
    LoadShedding,
    PriorityMatch,
    PriorityRule,
    Resilience,
)
from meshlib.model.route import StringMatch
from meshlib.xds.decode import decode
from meshlib.xds.proto import cluster_pb2, route_pb2
from meshlib.xds.types import CLUSTER, LISTENER
from meshlib_control.compile.clusters import cluster
from meshlib_control.compile.inbound import inbound_listener, inbound_name
from meshlib_control.compile.node import Flavour, Scope
from meshlib_control.compile.routes import virtual_host
from meshlib_control.compile.world import World
from tests.support.configuring import INSECURE, registered, world

HOST = "reviews.default.svc.cluster.local"
NAME = f"outbound|80||{HOST}"


def policy(spec: str, namespace: str = "default", name: str = "p") -> str:
    head = f"apiVersion: meshlib.io/v1\nkind: ResiliencePolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n"
    return head + "".join(f"  {line}\n" for line in spec.strip().split("\n"))


def mesh(*texts: str) -> World:
    return world("\n---\n".join(texts), services=[registered("reviews")], trust=INSECURE)


def compiled(made: World, flavour: Flavour = "meshlib", namespace: str = "default") -> cluster_pb2.Cluster:
    found = cluster(made, Scope(flavour, namespace, ()), NAME)
    assert found is not None
    return found


def decoded(made: World, namespace: str = "default") -> Cluster:
    _, value = decode(CLUSTER, compiled(made, namespace=namespace).SerializeToString())
    assert isinstance(value, Cluster)
    return value


def timeout(made: World, namespace: str) -> float:
    return action(made, namespace).timeout.ToTimedelta().total_seconds()


def action(made: World, namespace: str = "default", flavour: Flavour = "meshlib") -> route_pb2.RouteAction:
    host = virtual_host(made, Scope(flavour, namespace, ()), HOST, 80)
    assert host is not None
    return host.routes[0].route


@pytest.mark.parametrize(
    ("namespace", "expected"), [("default", 1.0), ("shop", 2.0), ("elsewhere", 1.0)], ids=["owner", "caller", "others"]
)
def test_the_callers_namespace_goes_before_that_of_the_service(namespace: str, expected: float) -> None:
    made = mesh(policy("host: reviews\ntimeout: 1s"), policy(f"host: {HOST}\ntimeout: 2s", "shop"))
    assert timeout(made, namespace) == expected


def test_the_root_namespace_comes_last() -> None:
    made = mesh(policy(f"host: {HOST}\ntimeout: 3s", "istio-system"))
    assert timeout(made, "anywhere") == 3.0


def test_a_third_namespace_has_no_say() -> None:
    assert timeout(mesh(policy(f"host: {HOST}\ntimeout: 1ms", "hostile")), "default") == 0.0


def test_a_policy_is_seen_where_it_is_exported_to() -> None:
    made = mesh(policy("host: reviews\ntimeout: 1s\nexportTo: ['.']"))
    assert (timeout(made, "default"), timeout(made, "shop")) == (1.0, 0.0)


ROUTE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http: [{timeout: %s, retries: {attempts: %d, perTryTimeout: %s}, route: [{destination: {host: reviews}}]}]
"""


@pytest.mark.parametrize(
    ("route", "expected"), [(("5s", 2, "1s"), (2.0, 0.5)), (("1s", 2, "100ms"), (1.0, 0.1))], ids=["policy", "route"]
)
def test_the_tighter_timeout_holds(route: tuple[str, int, str], expected: tuple[float, float]) -> None:
    made = mesh(policy("host: reviews\ntimeout: 2s\nperTryTimeout: 500ms"), ROUTE % route)
    found = action(made)
    assert found.timeout.ToTimedelta().total_seconds() == expected[0]
    assert found.retry_policy.per_try_timeout.ToTimedelta().total_seconds() == expected[1]


def test_grpcs_own_clients_get_no_timeouts() -> None:
    assert not action(mesh(policy("host: reviews\ntimeout: 2s")), flavour="grpc").HasField("timeout")


@pytest.mark.parametrize("flavour", ["meshlib", "envoy"])
def test_a_retry_budget_goes_into_the_clusters_thresholds(flavour: Flavour) -> None:
    (thresholds,) = compiled(
        mesh(policy("host: reviews\nretryBudget: {percent: 5, minRetryConcurrency: 1}")), flavour
    ).circuit_breakers.thresholds
    assert thresholds.retry_budget.budget_percent.value == 5.0
    assert thresholds.retry_budget.min_retry_concurrency.value == 1


def test_what_only_meshlib_executes_goes_to_nobody_else() -> None:
    made = mesh(policy("host: reviews\ncircuitBreaker: {}\nhedging: {delay: 1s}\nadaptiveConcurrency: {}"))
    for flavour in ("envoy", "grpc"):
        assert "meshlib.resilience" not in compiled(made, flavour).typed_extension_protocol_options
    assert "meshlib.resilience" in compiled(made).typed_extension_protocol_options


def test_it_arrives_as_it_was_written() -> None:
    made = mesh(
        policy(
            "host: reviews\n"
            "circuitBreaker: {failurePercent: 12.5, minRequests: 7, window: 3s, openDuration: 100ms, halfOpenRequests: 2}\n"
            "adaptiveConcurrency: {maxConcurrencyLimit: 50, minRtt: {requestCount: 9, jitter: 1, buffer: 30}}\n"
            "hedging: {percentile: 95, maxRequests: 3, budgetPercent: 2}"
        )
    )
    assert decoded(made).resilience == Resilience(
        CircuitBreaker(12.5, 7, 3.0, 0.1, 60.0, 2),
        AdaptiveConcurrency(max_limit=50, min_rtt_requests=9, min_rtt_jitter=1.0, buffer=30.0),
        Hedging(percentile=95.0, max_requests=3, budget_percent=2.0),
    )


def test_defaults_of_the_kind_are_those_of_the_model() -> None:
    made = mesh(policy("host: reviews\ncircuitBreaker: {}\nadaptiveConcurrency: {}\nhedging: {delay: 10ms}"))
    assert decoded(made).resilience == Resilience(CircuitBreaker(), AdaptiveConcurrency(), Hedging(delay=0.01))


def test_without_a_policy_there_is_nothing() -> None:
    assert decoded(mesh()).resilience is None
    assert decoded(mesh(policy("host: reviews\ntimeout: 1s"))).resilience is None


def served(made: World, labels: dict[str, str], namespace: str = "default") -> InboundListener:
    listener = inbound_listener(made, Scope("meshlib", namespace, tuple(labels.items())), inbound_name(8080))
    assert listener is not None
    _, value = decode(LISTENER, listener.SerializeToString())
    assert isinstance(value, InboundListener)
    return value


SELECTED = "selector: {matchLabels: {app: web}}\nloadShedding: {maxConcurrency: %d}"


def test_a_workloads_policy_is_that_of_its_own_namespace_then_of_the_root() -> None:
    made = mesh(policy(SELECTED % 1, "istio-system"), policy(SELECTED % 2, name="old"), policy(SELECTED % 3, name="young"))

    def limit(namespace: str, labels: dict[str, str]) -> int | None:
        found = served(made, labels, namespace).resilience
        return found.load_shedding.max_concurrency if found is not None else None

    assert limit("default", {"app": "web"}) == 2
    assert limit("shop", {"app": "web"}) == 1
    assert limit("default", {"app": "other"}) is None


def test_labels_that_policies_ask_for_are_kept() -> None:
    assert "app" in mesh(policy(SELECTED % 1)).resilience_policies.selector_keys


def test_load_shedding_arrives_as_it_was_written() -> None:
    made = mesh(
        policy(
            "selector: {matchLabels: {app: web}}\n"
            "adaptiveConcurrency: {}\n"
            "loadShedding:\n"
            "  retryAfter: 3s\n"
            "  priorities: [{urgency: 0, match: [{principals: ['*/sa/pay'], namespaces: ['shop*']}]}, {urgency: 6}]\n"
            "  trustedClaims: {principals: [td/ns/a/sa/b]}"
        )
    )
    found = served(made, {"app": "web"}).resilience
    assert found is not None
    assert found.adaptive_concurrency == AdaptiveConcurrency()
    callers = Callers((StringMatch("suffix", "/sa/pay"),), (StringMatch("prefix", "shop"),))
    assert found.load_shedding == LoadShedding(
        priorities=(PriorityRule(0, (PriorityMatch(None, callers),)), PriorityRule(6)),
        trusted=Callers((StringMatch("exact", "td/ns/a/sa/b"),)),
        retry_after=3.0,
    )
