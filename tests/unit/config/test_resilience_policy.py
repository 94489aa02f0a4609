"""ResiliencePolicy: what may be written, and what is found between policies."""

from __future__ import annotations

import pytest

from meshlib_control.catalog.model import Port, Service
from meshlib_control.config import analyze
from meshlib_control.config.kinds import ResiliencePolicy
from tests.unit.config.support import findings, loaded

SERVICES = [
    Service("reviews.default.svc.cluster.local", "default", (Port(80),)),
    Service("orders.shop.svc.cluster.local", "shop", (Port(80),)),
]


def policy(spec: str, name: str = "p", namespace: str = "default") -> str:
    head = f"apiVersion: meshlib.io/v1\nkind: ResiliencePolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n"
    return head + "".join(f"  {line}\n" for line in spec.strip().split("\n"))


@pytest.mark.parametrize(
    "spec",
    [
        "host: reviews\ntimeout: 1s",
        "host: reviews.default.svc.cluster.local\nexportTo: [., shop]\nretryBudget: {percent: 0}",
        "host: reviews\nhedging: {delay: 10ms, maxRequests: 3}",
        "host: reviews\nhedging: {percentile: 99.5}",
        "host: reviews\ncircuitBreaker: {}",
        "host: reviews\nadaptiveConcurrency: {minRtt: {fixedValue: 1ms, interval: 0s}}",
        "host: reviews\nhealthChecks: [{http: {path: /healthz, expectedStatuses: ['204', '200-399']}, port: 9000}]",
        "host: reviews\nhealthChecks: [{tcp: {send: {string: PING}, receive: [{bytes: UE9ORw==}]}}]",
        "host: reviews\nhealthChecks: [{grpc: {}}]",
        "host: reviews\nfailureRateEjection: {threshold: 50}\nsuccessRateEjection: {}",
        "selector: {matchLabels: {app: web}}\nadaptiveConcurrency: {}",
        "selector: {matchLabels: {app: web}}\nloadShedding: {maxConcurrency: 10}",
        "selector: {matchLabels: {app: web}}\nadaptiveConcurrency: {}\nloadShedding: {trustedClaims: {namespaces: [edge]}}",
    ],
)
def test_what_may_be_written(spec: str) -> None:
    assert [str(finding) for finding in findings(policy(spec))] == []


@pytest.mark.parametrize(
    ("spec", "code", "field"),
    [
        ("timeout: 1s", "MSH0143", "spec"),
        ("host: reviews", "MSH0143", "spec"),
        ("host: reviews\nexportTo: ['*']", "MSH0143", "spec"),
        ("host: reviews\nselector: {matchLabels: {a: b}}\ntimeout: 1s", "MSH0107", "spec.selector"),
        ("host: '*.shop'\ntimeout: 1s", "MSH0121", "spec.host"),
        ("host: reviews\nloadShedding: {maxConcurrency: 1}\ntimeout: 1s", "MSH0137", "spec.loadShedding"),
        ("selector: {matchLabels: {a: b}}\nadaptiveConcurrency: {}\ntimeout: 1s", "MSH0137", "spec.timeout"),
        ("selector: {matchLabels: {a: b}}\nadaptiveConcurrency: {}\nexportTo: [.]", "MSH0137", "spec.exportTo"),
        ("selector: {matchLabels: {a: '*'}}\nadaptiveConcurrency: {}", "MSH0142", "spec.selector.matchLabels.a"),
        ("selector: {matchLabels: {a: b}}\nloadShedding: {}", "MSH0143", "spec.loadShedding"),
        ("host: reviews\ntimeout: 0s", "MSH0105", "spec.timeout"),
        ("host: reviews\ncircuitBreaker: {window: 1500us}", "MSH0133", "spec.circuitBreaker.window"),
        ("host: reviews\ntimeout: 1s\nperTryTimeout: 1s", "MSH0305", "spec.perTryTimeout"),
        ("host: reviews\nhedging: {}", "MSH0143", "spec.hedging"),
        ("host: reviews\nhedging: {delay: 1s, percentile: 95}", "MSH0107", "spec.hedging.percentile"),
        ("host: reviews\nhedging: {delay: 1s, maxRequests: 1}", "MSH0105", "spec.hedging.maxRequests"),
        ("host: reviews\nhedging: {delay: 2s}\ntimeout: 1s", "MSH0137", "spec.hedging.delay"),
        ("host: reviews\ncircuitBreaker: {failurePercent: 101}", "MSH0105", "spec.circuitBreaker.failurePercent"),
        ("host: reviews\ncircuitBreaker: {openDuration: 2m}", "MSH0137", "spec.circuitBreaker.maxOpenDuration"),
        ("host: reviews\nadaptiveConcurrency: {minRtt: {interval: 0s}}", "MSH0137", "spec.adaptiveConcurrency.minRtt.interval"),
        (
            "host: reviews\nadaptiveConcurrency: {maxConcurrencyLimit: 2}",
            "MSH0137",
            "spec.adaptiveConcurrency.minRtt.minConcurrency",
        ),
        ("host: reviews\nhealthChecks: [{}]", "MSH0143", "spec.healthChecks[0]"),
        ("host: reviews\nhealthChecks: [{http: {path: x}}]", "MSH0137", "spec.healthChecks[0].http.path"),
        (
            "host: reviews\nhealthChecks: [{http: {path: /, expectedStatuses: ['399-200']}}]",
            "MSH0140",
            "spec.healthChecks[0].http.expectedStatuses[0]",
        ),
        ("host: reviews\nhealthChecks: [{grpc: {}, port: 70000}]", "MSH0125", "spec.healthChecks[0].port"),
        ("host: reviews\nhealthChecks: [{tcp: {send: {}}}]", "MSH0143", "spec.healthChecks[0].tcp.send"),
    ],
)
def test_what_may_not(spec: str, code: str, field: str) -> None:
    assert (code, field) in [(finding.code, finding.field) for finding in findings(policy(spec))]


SHEDDING = "selector: {matchLabels: {a: b}}\nloadShedding:\n  maxConcurrency: 9\n  "


@pytest.mark.parametrize(
    ("spec", "code", "field"),
    [
        ("priorities: [{urgency: 8}]", "MSH0105", "priorities[0].urgency"),
        ("priorities: [{match: []}]", "MSH0103", "priorities[0].urgency"),
        ("priorities: [{urgency: 1, match: [{}]}]", "MSH0124", "priorities[0].match[0]"),
        ("priorities: [{urgency: 1}, {urgency: 2}]", "MSH0301", "priorities[0]"),
        ("priorities: [{urgency: 0, match: [{headers: {x-tier: {}}}]}]", "MSH0341", "priorities[0].match[0].headers"),
        ("priorities: [{urgency: 0, match: [{principals: ['a*b']}]}]", "MSH0142", "priorities[0].match[0].principals[0]"),
        (
            "priorities: [{urgency: 0, match: [{principals: ['spiffe://a/b']}]}]",
            "MSH0142",
            "priorities[0].match[0].principals[0]",
        ),
        ("priorities: [{urgency: 4, match: [{uri: {regex: '('}}]}]", "MSH0123", "priorities[0].match[0].uri.regex"),
        ("trustedClaims: {}", "MSH0143", "trustedClaims"),
    ],
)
def test_priorities(spec: str, code: str, field: str) -> None:
    found = [(finding.code, finding.field) for finding in findings(policy(SHEDDING + spec))]
    assert (code, f"spec.loadShedding.{field}") in found


@pytest.mark.parametrize(
    "spec",
    [
        "priorities: [{urgency: 4, match: [{headers: {x-tier: {}}}]}]",
        "priorities: [{urgency: 0, match: [{headers: {x-tier: {}}, namespaces: [shop]}]}]",
    ],
)
def test_headers_may_lower_a_priority_and_raise_it_for_those_who_are_known(spec: str) -> None:
    assert findings(policy(SHEDDING + spec)) == []


def test_defaults_are_there() -> None:
    (resource,) = loaded(policy("host: reviews\ncircuitBreaker: {}"))
    spec: ResiliencePolicy = resource.spec
    assert spec.circuit_breaker is not None
    assert (spec.circuit_breaker.failure_percent, spec.circuit_breaker.open_duration) == (50.0, 5.0)


def between(*texts: str) -> list[tuple[str, str, str]]:
    return [(item.code, item.resource, item.field) for item in analyze(loaded(*texts), services=SERVICES)]


def test_of_two_policies_for_one_host_the_older_holds() -> None:
    newer = policy("host: reviews.default.svc.cluster.local\ntimeout: 2s", "b")
    assert between(policy("host: reviews\ntimeout: 1s", "a"), newer) == [
        ("MSH0342", "ResiliencePolicy/default/b", "spec.host"),
    ]


def test_two_policies_for_the_same_workloads() -> None:
    spec = "selector: {matchLabels: {app: web}}\nadaptiveConcurrency: {}"
    assert between(policy(spec, "a"), policy(spec, "b")) == [("MSH0342", "ResiliencePolicy/default/b", "spec.selector")]
    assert between(policy(spec, "a"), policy(spec, "b", "shop")) == []


def test_a_host_that_nobody_knows() -> None:
    assert between(policy("host: nobody\ntimeout: 1s")) == [("MSH0201", "ResiliencePolicy/default/p", "spec.host")]


def test_a_third_namespace_decides_for_its_own_callers_only() -> None:
    host = "host: orders.shop.svc.cluster.local\ntimeout: 1s\n"
    assert between(policy(host + "exportTo: ['*']")) == [("MSH0343", "ResiliencePolicy/default/p", "spec.exportTo")]
    assert between(policy(host)) == []
    assert between(policy(host + "exportTo: ['*']", "p", "shop")) == []
