"""ResiliencePolicy."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from meshlib_control.config.findings import Severity
from meshlib_control.config.kinds.resilience_policy import (
    AdaptiveConcurrency,
    CircuitBreaker,
    Hedging,
    LoadShedding,
    LoadSheddingMatch,
    PriorityRule,
    ResiliencePolicy,
)
from meshlib_control.config.problems import Problem, under
from meshlib_control.config.validate import names
from meshlib_control.config.validate.durations import check_durations
from meshlib_control.config.validate.health_checks import check_health_check
from meshlib_control.config.validate.strings import check_string_match
from meshlib_control.config.validate.workloads import check_workload_selector

DEFAULT_URGENCY = 3
"""RFC 9218, section 4.1: of requests that say nothing."""

_OF_CALLS = {
    "export_to": "exportTo",
    "timeout": "timeout",
    "per_try_timeout": "perTryTimeout",
    "retry_budget": "retryBudget",
    "hedging": "hedging",
    "circuit_breaker": "circuitBreaker",
    "failure_rate_ejection": "failureRateEjection",
    "success_rate_ejection": "successRateEjection",
    "health_checks": "healthChecks",
}
_OF_WORKLOADS = {"load_shedding": "loadShedding"}
_OF_EJECTIONS = {
    "interval": "interval",
    "base_ejection_time": "baseEjectionTime",
    "max_ejection_percent": "maxEjectionPercent",
}
_OF_BOTH = {"adaptive_concurrency": "adaptiveConcurrency"}


def check_resilience_policy(spec: ResiliencePolicy, namespace: str) -> Iterator[Problem]:
    """One side of a call, something that is said of it, and nothing that contradicts itself."""
    yield from _check_side(spec)
    if spec.host is not None:
        fault = names.fqdn_fault(spec.host)
        if fault:
            yield Problem(("host",), "MSH0121", fault)
    yield from under(("selector",), check_workload_selector(spec.selector))
    yield from under(("exportTo",), names.check_export_to(spec.export_to, namespace))
    yield from check_durations(spec)
    if spec.timeout is not None and spec.per_try_timeout is not None and spec.per_try_timeout >= spec.timeout:
        yield Problem(("perTryTimeout",), "MSH0305", "it is not shorter than timeout, so it ends no try")
    yield from under(("hedging",), _check_hedging(spec.hedging, spec.timeout))
    yield from under(("circuitBreaker",), _check_breaker(spec.circuit_breaker))
    yield from _check_ejections(spec)
    for index, check in enumerate(spec.health_checks):
        yield from under(("healthChecks", index), check_health_check(check))
    yield from under(("adaptiveConcurrency",), _check_adaptive(spec.adaptive_concurrency))
    if spec.load_shedding is not None:
        yield from under(("loadShedding",), _check_shedding(spec.load_shedding, spec))


def _check_side(spec: ResiliencePolicy) -> Iterator[Problem]:
    if spec.host is None and spec.selector is None:
        yield Problem((), "MSH0143", "give a host, for calls to it, or a selector, for requests that its workloads serve")
        return
    side, own, others = ("host", _OF_CALLS, _OF_WORKLOADS) if spec.host is not None else ("selector", _OF_WORKLOADS, _OF_CALLS)
    for attribute, name in others.items():
        if getattr(spec, attribute):
            other = "selector" if side == "host" else "host"
            message = f"{name} belongs to a policy with {other}, and has no effect with {side}; write a second policy for it"
            yield Problem((name,), "MSH0137", message)
    said = [attribute for attribute in chain(own, _OF_BOTH) if attribute != "export_to"]
    if not any(getattr(spec, attribute) for attribute in said):
        listed = ", ".join(name for attribute, name in {**own, **_OF_BOTH}.items() if attribute != "export_to")
        yield Problem((), "MSH0143", f"the policy says nothing; with {side} it may have {listed}")


def _check_hedging(hedging: Hedging | None, timeout: float | None) -> Iterator[Problem]:
    if hedging is None:
        return
    if hedging.delay is None and hedging.percentile is None:
        yield Problem((), "MSH0143", "say after which time another request is sent: delay or percentile")
    if hedging.delay is not None and timeout is not None and hedging.delay >= timeout:
        yield Problem(("delay",), "MSH0137", "it is not shorter than timeout, so another request is never sent")


def _check_breaker(breaker: CircuitBreaker | None) -> Iterator[Problem]:
    if breaker is not None and breaker.max_open_duration < breaker.open_duration:
        yield Problem(("maxOpenDuration",), "MSH0137", "it is shorter than openDuration, which is the least")


def _check_ejections(spec: ResiliencePolicy) -> Iterator[Problem]:
    """Envoy has one of each for all kinds of ejection."""
    by_failures, by_successes = spec.failure_rate_ejection, spec.success_rate_ejection
    if by_failures is None or by_successes is None:
        return
    for attribute, name in _OF_EJECTIONS.items():
        if getattr(by_failures, attribute) != getattr(by_successes, attribute):
            message = f"it differs from failureRateEjection's {name}, and there is only one for both; give the same"
            yield Problem(("successRateEjection", name), "MSH0137", message)


def _check_adaptive(adaptive: AdaptiveConcurrency | None) -> Iterator[Problem]:
    if adaptive is None:
        return
    minimum = adaptive.min_rtt
    if minimum.fixed_value is None and minimum.interval == 0:
        yield Problem(("minRtt", "interval"), "MSH0137", "0s never measures it again; give a fixedValue, or a longer interval")
    if minimum.min_concurrency > adaptive.max_concurrency_limit:
        yield Problem(("minRtt", "minConcurrency"), "MSH0137", "it is above maxConcurrencyLimit")


def _check_shedding(shedding: LoadShedding, spec: ResiliencePolicy) -> Iterator[Problem]:
    if shedding.max_concurrency is None and spec.adaptive_concurrency is None:
        yield Problem((), "MSH0143", "there is no limit: give maxConcurrency, or adaptiveConcurrency beside loadShedding")
    for index, rule in enumerate(shedding.priorities):
        yield from under(("priorities", index), _check_rule(rule))
        if not rule.match and index + 1 < len(shedding.priorities):
            message = "it is for all requests, so the rules after it are never reached"
            yield Problem(("priorities", index), "MSH0301", message)
    claims = shedding.trusted_claims
    if claims is not None:
        if not claims.principals and not claims.namespaces:
            yield Problem(("trustedClaims",), "MSH0143", "it names nobody; give principals or namespaces, or leave it out")
        yield from under(("trustedClaims",), _check_callers(claims.principals, claims.namespaces))


def _check_rule(rule: PriorityRule) -> Iterator[Problem]:
    for index, match in enumerate(rule.match):
        yield from under(("match", index), _check_match(match))
        if rule.urgency < DEFAULT_URGENCY and match.headers and not (match.principals or match.namespaces):
            message = (
                "anybody can send these headers and so put their requests before those of others; "
                "add principals or namespaces of those who may"
            )
            yield Problem(("match", index, "headers"), "MSH0341", message, Severity.WARNING)


def _check_match(match: LoadSheddingMatch) -> Iterator[Problem]:
    conditions = (match.uri, match.method, match.headers, match.principals, match.namespaces)
    if not any(condition is not None and condition != {} and condition != () for condition in conditions):
        yield Problem((), "MSH0124", "a match without conditions holds for all requests; leave match out if that is meant")
    for name, condition in (("uri", match.uri), ("method", match.method)):
        if condition is not None:
            yield from under((name,), check_string_match(condition))
    for name, condition in match.headers.items():
        fault = names.header_name_fault(name)
        if fault:
            yield Problem(("headers", name), "MSH0126", fault)
        yield from under(("headers", name), check_string_match(condition))
    yield from _check_callers(match.principals, match.namespaces)


def _check_callers(principals: tuple[str, ...], namespaces: tuple[str, ...]) -> Iterator[Problem]:
    for field, patterns in (("principals", principals), ("namespaces", namespaces)):
        for index, pattern in enumerate(patterns):
            if not pattern or "*" in pattern[1:-1] or (len(pattern) > 1 and pattern[0] == pattern[-1] == "*"):
                message = f"{pattern!r} is not a pattern; a * may be the start or the end of a name"
                yield Problem((field, index), "MSH0142", message)
            elif pattern.startswith("spiffe://"):
                message = "write it without spiffe://, as in cluster.local/ns/default/sa/name"
                yield Problem((field, index), "MSH0142", message)
