"""RateLimitPolicies as resources: for whom they hold, and which buckets a workload may be told about."""

from __future__ import annotations

import pytest

from meshlib.model.listener import InboundListener
from meshlib.model.rate_limit import RateLimits
from meshlib.xds.decode import decode
from meshlib.xds.types import LISTENER, ROUTE
from meshlib_control.compile import Node, World
from meshlib_control.compile.generate import generate
from meshlib_control.compile.scope import scope_of
from tests.support.configuring import registered, world

INBOUND = "xds.istio.io/grpc/lds/inbound/0.0.0.0:9080"


def policy(name: str, side: str, namespace: str = "default") -> str:
    return f"""
apiVersion: meshlib.io/v1
kind: RateLimitPolicy
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{{side}, limits: [{{name: all, tokens: 5, scope: GLOBAL, by: [{{header: X-A}}]}}]}}
---"""


def served(found: World, namespace: str = "default", **labels: str) -> list[str]:
    """Names of the policies that hold for the requests of a workload."""
    node = Node(namespace=namespace, labels=labels)
    message = generate(found, scope_of(found, node), LISTENER, [INBOUND])[INBOUND]
    listener = decode(LISTENER, message.SerializeToString())[1]
    assert isinstance(listener, InboundListener)
    return [policy.name for limits in listener.filters if isinstance(limits, RateLimits) for policy in limits.policies]


def called(found: World, namespace: str) -> list[str]:
    """Names of the policies that hold for calls to reviews."""
    name = "reviews.default.svc.cluster.local:80"
    message = generate(found, scope_of(found, Node(namespace=namespace)), ROUTE, [name])[name]
    routes = decode(ROUTE, message.SerializeToString())[1]
    limits = routes.virtual_hosts[0].limits  # type: ignore[union-attr]
    return [policy.name for policy in limits.policies] if limits is not None else []


def test_a_selector_chooses_workloads_of_the_namespace_and_the_root_chooses_all() -> None:
    found = world(
        policy("own", "selector: {matchLabels: {app: web}}"),
        policy("other", "selector: {matchLabels: {app: other}}"),
        policy("foreign", "selector: {matchLabels: {app: web}}", "shop"),
        policy("root", "selector: {}", "istio-system"),
    )
    assert served(found, app="web") == ["istio-system/root", "default/own"]
    assert served(found) == ["istio-system/root"]
    assert served(found, "shop", app="web") == ["istio-system/root", "shop/foreign"]


def test_calls_are_limited_by_the_root_the_owner_and_the_caller_and_by_nobody_else() -> None:
    """A policy of a third namespace could keep two others from talking."""
    host = "host: reviews.default.svc.cluster.local"
    found = world(
        policy("owner", "host: reviews"),
        policy("private", "host: reviews, exportTo: ['.']"),
        policy("caller", host, "shop"),
        policy("stranger", host, "elsewhere"),
        policy("root", "host: '*.svc.cluster.local'", "istio-system"),
        services=[registered("reviews")],
    )
    assert called(found, "shop") == ["istio-system/root", "default/owner", "shop/caller"]
    assert called(found, "default") == ["istio-system/root", "default/owner", "default/private"]


@pytest.mark.parametrize(
    ("name", "namespace", "seen"),
    [
        ("default/own", "default", True),
        ("default/own", "shop", False),
        ("istio-system/root", "shop", True),
        ("default/calls", "shop", True),
        ("default/private", "shop", False),
        ("default/private", "default", True),
        ("default/nothing", "default", False),
        ("elsewhere/stranger", "elsewhere", True),
        ("elsewhere/stranger", "shop", False),
        ("elsewhere/stranger", "default", False),
    ],
)
def test_only_policies_that_may_hold_for_a_workload_have_buckets_for_it(name: str, namespace: str, seen: bool) -> None:
    found = world(
        policy("own", "selector: {matchLabels: {app: web}}"),
        policy("root", "selector: {}", "istio-system"),
        policy("calls", "host: reviews"),
        policy("private", "host: reviews, exportTo: ['.']"),
        policy("stranger", "host: reviews.default.svc.cluster.local", "elsewhere"),
    )
    owners = {"reviews.default.svc.cluster.local": "default"}
    assert (found.rate_limits.find(name, namespace, owners.get) is not None) is seen
